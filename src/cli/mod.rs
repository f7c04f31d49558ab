//! The commands: arguments in, exit code out.
//!
//! Owns: the command line's contract: results on stdout, diagnostics on stderr, one table of exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod admin_client;
pub mod ca;
pub mod check;
pub mod client;
mod live;
pub mod login;
pub mod policy;
pub mod refresh;
pub mod revoke;
pub mod run;
pub mod schema;
pub mod status;
pub mod store;
pub mod try_it;

/// Exit codes, the same for all commands.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// It was tried and failed.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is invalid; nothing was touched.
    pub const INVALID: u8 = 2;
    /// A credential needs a person to log in.
    pub const NEEDS_LOGIN: u8 = 3;
    /// The running proxy cannot be reached.
    pub const UNREACHABLE: u8 = 4;
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or invalid configuration, 3 a credential needs a login,
4 the running proxy cannot be reached.

Begin with:  bearward try";

/// An authenticating reverse proxy: every request goes on with a fresh OAuth bearer token.
#[derive(Debug, Parser)]
#[command(name = "bearward", version, after_help = AFTER_HELP, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the whole thing on this machine, without an account: authorization server, API and proxy
    Try(try_it::Arguments),
    /// Runs the proxy
    Run(run::Arguments),
    /// Validates a configuration and reports all of its problems; redeems nothing
    Check {
        #[command(flatten)]
        config: ConfigPath,
        /// Also asks the network: names, TLS, discovery
        #[arg(long)]
        live: bool,
    },
    /// Shows credentials, states and time left of the running proxy
    Status(status::Arguments),
    /// Fetches a new token for a credential of the running proxy now
    Refresh(refresh::Arguments),
    /// Obtains the first refresh token of a credential from a person, with a browser or another device
    Login(login::Arguments),
    /// Ends a credential's tokens at the provider and takes them out of the store
    Revoke(revoke::Arguments),
    /// Tries the rules of an egress listener on a request that is not made
    Policy(policy::Arguments),
    /// Lists, exports and imports the records of the store
    Store(store::Arguments),
    /// Makes what clients are known by: hashes of passwords, keys, blocks of the configuration
    Client(client::Arguments),
    /// Makes the certificate authority of an interception
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Prints the JSON Schema of the configuration
    Schema,
    /// Prints shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page (roff)
    Man,
}

/// Which configuration file to read.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigPath {
    /// The configuration file [default: ./config.yaml, then /etc/bearward/config.yaml]
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { exit::INVALID } else { exit::OK };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let code = match arguments.command {
        Command::Try(arguments) => try_it::try_it(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Check { config, live } => return check::check(config.config.as_deref(), live),
        Command::Status(arguments) => status::status(&arguments),
        Command::Refresh(arguments) => refresh::refresh(&arguments),
        Command::Login(arguments) => login::login(&arguments),
        Command::Revoke(arguments) => revoke::revoke(&arguments),
        Command::Policy(arguments) => policy::policy(&arguments),
        Command::Store(arguments) => store::store(&arguments),
        Command::Client(arguments) => client::client(&arguments),
        Command::Ca(command) => ca::ca(&command),
        Command::Schema => return schema::schema(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "bearward", &mut script);
            print_bytes(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(command()).render(&mut page) {
                Ok(()) => print_bytes(&page),
                Err(error) => fail(exit::FAILED, &error.to_string()),
            }
        }
    };
    ExitCode::from(code)
}

fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Writes a result to stdout. A reader that went away is no error.
pub fn print_bytes(bytes: &[u8]) -> u8 {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::OK,
        Err(_) => exit::FAILED,
    }
}

/// Runs one command on a runtime of its own. The error is the exit code.
fn block_on<T>(command: impl Future<Output = T>) -> Result<T, u8> {
    // What a command has to say it says itself.
    crate::telemetry::logs::init(tracing::Level::WARN, crate::telemetry::logs::Format::Text);
    match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build() {
        Ok(runtime) => Ok(runtime.block_on(command)),
        Err(error) => Err(fail(exit::FAILED, &format!("the runtime could not be started: {error}"))),
    }
}

/// Says on stderr what went wrong and hands the exit code on.
pub fn fail(code: u8, message: &str) -> u8 {
    anstream::eprintln!("bearward: {message}");
    code
}

//! The page that `bearward try` prints: what runs, and what to type next.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::{ADMIN_TOKEN_FILE, Addresses, CREDENTIAL, Running, SECOND_FILE};

/// Colour on a terminal, unless `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    /// For standard output.
    pub(super) fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && std::io::stdout().is_terminal() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.painted("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.painted("31", text)
    }

    fn bold(self, text: &str) -> String {
        self.painted("1", text)
    }

    fn command(self, text: &str) -> String {
        self.painted("36", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The whole page.
pub(super) fn page(addresses: &Addresses, running: &Running, lifetime: Duration) -> String {
    let style = Style::of_stdout();
    let lifetime = humantime::format_duration(lifetime);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: all of it runs on this machine and needs no account. Ctrl-C ends it.\n",
        style.bold("bearward try")
    );
    let rows = [
        ("proxy", addresses.proxy.as_str(), "your applications call this one".to_owned()),
        ("API", &addresses.api, "answers requests that carry a live access token, and no others".into()),
        (
            "authorization server",
            running.idp.url(),
            format!("access tokens live {lifetime}; a refresh token works once"),
        ),
        ("admin", &addresses.admin, "status and metrics of the proxy".into()),
    ];
    for (name, url, what) in rows {
        let _ = writeln!(text, "  {name:<21} {url:<23} {what}");
    }
    section(&mut text, style, "Type in another terminal", &first_steps(addresses, running));
    section(&mut text, style, "Make trouble", &trouble(running));
    let _ = writeln!(
        text,
        "\nThe configuration is config.example.yaml. From here on, one line for each new token \
         (times are UTC, tokens are\nshown by their fingerprints):\n"
    );
    text
}

/// A command and what it shows.
type Step = (String, &'static str);

fn section(text: &mut String, style: Style, title: &str, steps: &[Step]) {
    let _ = writeln!(text, "\n{}", style.bold(title));
    for (command, shows) in steps {
        let _ = writeln!(text, "  {}\n      {shows}", style.command(command));
    }
}

fn first_steps(addresses: &Addresses, running: &Running) -> Vec<Step> {
    let program = program();
    let admin = admin_option(&addresses.admin);
    let token_file = running.folder.path().join(ADMIN_TOKEN_FILE);
    let direct = addresses.api.clone() + "/hello";
    vec![
        (
            format!("curl {}", addresses.example()),
            "200: the API shows what it received: a bearer token that curl never saw.",
        ),
        (format!("curl -i {direct}"), "401: the same request past the proxy."),
        (
            format!("{program} status{admin}"),
            "the token's state, the time it has left, when the next one is fetched.",
        ),
        (
            format!("{program} refresh {CREDENTIAL}{admin} --token-file {}", token_file.display()),
            "fetches a new token now.",
        ),
        (format!("curl {}/metrics", addresses.admin), "the same for Prometheus."),
    ]
}

fn trouble(running: &Running) -> Vec<Step> {
    let control = running.idp.control_url();
    let second = running.folder.path().join(SECOND_FILE);
    vec![
        (
            format!(
                "curl -d '{{\"faults\": [{{\"answer\": {{\"status\": 503}}}}], \"times\": \"always\"}}' {control}faults"
            ),
            "the authorization server fails: requests go on with the token at hand until it ends.",
        ),
        (
            format!("curl -X DELETE {control}faults"),
            "it works again, and so does the proxy, without anybody's help.",
        ),
        (
            format!("curl -d '{{\"faults\": [{{\"delay_after\": 20}}]}}' {control}faults"),
            "the next token takes 20 s to come: no request waits for it.",
        ),
        (
            format!("{} run -c {} --ready-json", program(), second.display()),
            "a second proxy on the same store: kill -9 it at any moment, the refresh token is not lost.",
        ),
    ]
}

/// How this program was called, so that the lines can be copied.
fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(' ')).unwrap_or_else(|| "bearward".into())
}

/// The option that leads the commands to the admin listener, where it is not at its usual address.
fn admin_option(url: &str) -> String {
    match url.strip_prefix("http://") {
        Some("127.0.0.1:9901") | None => String::new(),
        Some(address) => format!(" --admin {address}"),
    }
}

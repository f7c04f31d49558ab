//! `bearward policy test`: which rule of an egress listener decides on a request, and why.
//!
//! Reads the configuration and asks the resolver. Connects to nothing, redeems nothing.

use std::fmt::Write as _;

use clap::Subcommand;
use http::Method;

use super::{ConfigPath, check, exit, fail, print_bytes};
use crate::config::Config;
use crate::credential::binding;
use crate::listener::{BindAddress, ListenerConfig};
use crate::names::Name;
use crate::origin::{Origin, Scheme};
use crate::policy::egress::{Action, Ask, Form, Target};
use crate::policy::network::NetworkGuard;
use crate::proxy::egress::{EgressConfig, RuleConfig, reads_alike};
use crate::route::authority::Authority;
use crate::route::path;
use crate::upstream;

/// `bearward policy`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says which egress rule decides on a request and why; exit code 0: allowed, 1: denied
    Test(Test),
}

#[derive(Debug, clap::Args)]
struct Test {
    #[command(flatten)]
    config: ConfigPath,
    /// The egress listener; needed where there are several
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The client that asks, one of `clients:`
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// `CONNECT`, or the method of a plain request
    #[arg(value_name = "METHOD")]
    method: String,
    /// `host:port` for CONNECT, else an `http://` URL
    #[arg(value_name = "TARGET")]
    target: String,
}

/// What is asked.
struct Question {
    target: Target,
    scheme: Scheme,
    method: Method,
    /// In normal form; `None` for CONNECT.
    path: Option<String>,
    client: Option<Name>,
}

/// Runs it.
pub fn policy(arguments: &Arguments) -> u8 {
    let Command::Test(test) = &arguments.command;
    let Ok((_, config)) = check::load(test.config.config.as_deref()) else { return exit::INVALID };
    let asked = listener(&config, test).and_then(|found| Ok((found, question(&config, test)?)));
    let (listener, question) = match asked {
        Ok(asked) => asked,
        Err(message) => return fail(exit::INVALID, &message),
    };
    match super::block_on(answer(&config, listener, &question)) {
        Ok((text, allowed)) => match print_bytes(text.as_bytes()) {
            exit::OK if allowed => exit::OK,
            _ => exit::FAILED,
        },
        Err(code) => code,
    }
}

fn listener<'c>(config: &'c Config, test: &Test) -> Result<(&'c ListenerConfig, &'c EgressConfig), String> {
    let egress = config.listeners.iter().filter_map(|one| Some((one, one.egress.as_ref()?)));
    let all: Vec<_> = egress.collect();
    let names = || all.iter().map(|(one, _)| one.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&test.listener, all.as_slice()) {
        (_, []) => Err("the configuration has no listener of `kind: egress`".to_owned()),
        (None, [only]) => Ok(*only),
        (None, _) => {
            Err(format!("there are several egress listeners: say --listener with one of {}", names()))
        }
        (Some(name), _) => all
            .iter()
            .find(|(one, _)| one.name.as_str() == name)
            .copied()
            .ok_or_else(|| format!("there is no egress listener `{name}`; there are: {}", names())),
    }
}

fn question(config: &Config, test: &Test) -> Result<Question, String> {
    let client = match &test.client {
        None => None,
        Some(name) => {
            let known = config.clients.iter().find(|client| client.name.as_str() == name);
            Some(known.ok_or_else(|| format!("there is no client `{name}` in `clients:`"))?.name.clone())
        }
    };
    let method =
        Method::from_bytes(test.method.as_bytes()).map_err(|_| "the method is no method".to_owned())?;
    if method == Method::CONNECT {
        let target = Target::parse(&test.target).map_err(|error| error.to_string())?;
        return Ok(Question { target, scheme: Scheme::Http, method, path: None, client });
    }
    let url =
        test.target.split_once("://").ok_or("a plain request asks for a URL: `GET http://host/path`")?;
    let scheme = match url.0 {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => return Err(format!("the scheme `{other}` is not served; write http:// or https://")),
    };
    let end = url.1.find(['/', '?']).unwrap_or(url.1.len());
    let authority = Authority::parse(&url.1[..end]).ok_or("the URL has no plain host")?;
    let target = Target::of_authority(&authority, scheme).map_err(|error| error.to_string())?;
    let raw = url.1[end..].split('?').next().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = path::normalize(raw).map_err(|error| error.to_string())?.into_owned();
    Ok(Question { target, scheme, method, path: Some(path), client })
}

/// What is asked about, and what answers.
struct Scene<'c> {
    config: &'c Config,
    egress: &'c EgressConfig,
    question: &'c Question,
}

/// The whole answer, and whether the request may go.
async fn answer(
    config: &Config,
    (listener, egress): (&ListenerConfig, &EgressConfig),
    question: &Question,
) -> (String, bool) {
    let scene = Scene { config, egress, question };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "listener `{}`, target {}", listener.name, question.target);
    let allowed = match (&question.path, question.scheme) {
        (None, _) => scene.decide(Form::Connection, &mut text).await.is_some(),
        (Some(path), Scheme::Http) => {
            scene.decide(Form::Request(&question.method, path), &mut text).await.is_some()
        }
        (Some(path), Scheme::Https) => scene.secure(path, &mut text).await,
    };
    (text, allowed)
}

impl Scene<'_> {
    /// An https URL: clients ask for a way with CONNECT, and where that is intercepted the request inside is judged too.
    async fn secure(&self, path: &str, text: &mut String) -> bool {
        let method = &self.question.method;
        let _ = writeln!(text, "as most clients ask, with CONNECT:");
        match self.decide(Form::Connection, text).await {
            Some(Action::Intercept) => {
                let _ = writeln!(text, "the request inside:");
                self.decide(Form::Intercepted(method, path), text).await.is_some()
            }
            Some(_) => true,
            None => {
                let _ = writeln!(text, "as few clients ask, with the URL itself:");
                self.decide(Form::SecureRequest(method, path), text).await.is_some()
            }
        }
    }

    /// Which rule decides, and what it does with what may go on.
    async fn decide(&self, form: Form<'_>, text: &mut String) -> Option<Action> {
        let egress = self.egress;
        let ask = Ask { target: &self.question.target, client: self.question.client.as_ref(), form };
        for (place, rule) in egress.rules.iter().enumerate() {
            let (name, action) = (&rule.route.name, rule.rule.action);
            let _ = write!(text, "rule {} `{name}` ({}): ", place + 1, action.as_str());
            match rule.rule.mismatch(&ask) {
                Some(mismatch) => {
                    let _ = writeln!(text, "no, {mismatch}");
                }
                None if action == Action::Deny && !(egress.dry_run || rule.dry_run) => {
                    let _ = writeln!(text, "decides\nDENIED by the rule `{name}`");
                    return None;
                }
                None if action == Action::Deny => {
                    let _ = writeln!(text, "decides; it would be denied, but for `dry_run`");
                    return self.spared(form, text).await;
                }
                None if !reads_alike(&|| egress.rules.iter().map(|rule| &rule.rule), &ask, place) => {
                    let _ = writeln!(text, "decides\nDENIED: {}", path::PathError::Ambiguous);
                    return None;
                }
                None => {
                    let _ = writeln!(text, "decides");
                    return self.allowed((rule, action), form, text).await.then_some(action);
                }
            }
        }
        if egress.dry_run {
            let _ = writeln!(text, "no rule allows it; it would be denied, but for `dry_run`");
            return self.spared(form, text).await;
        }
        let _ = writeln!(text, "DENIED: no rule allows it");
        None
    }

    async fn spared(&self, form: Form<'_>, text: &mut String) -> Option<Action> {
        let action = match form {
            Form::Connection => Action::Tunnel,
            Form::Request(..) => Action::Forward,
            Form::SecureRequest(..) => Action::Upgrade,
            Form::Intercepted(..) => Action::Intercept,
        };
        self.allowed((&self.egress.unruled, action), form, text).await.then_some(action)
    }

    /// What still stands between a rule that allows and the upstream: the binding of the token, and the network guard.
    async fn allowed(
        &self,
        (rule, action): (&RuleConfig, Action),
        form: Form<'_>,
        text: &mut String,
    ) -> bool {
        let (config, question) = (self.config, self.question);
        if action == Action::StubTokenEndpoint {
            let _ = writeln!(text, "ALLOWED: answered here, with a placeholder");
            return true;
        }
        let scheme = if action == Action::Intercept { Scheme::Https } else { question.scheme };
        let Some(origin) = rule.origin(action, &question.target, scheme) else {
            let _ = writeln!(text, "DENIED: the target is no origin");
            return false;
        };
        if let Some(name) = &rule.route.credential {
            if let Err(error) = bound(config, name, rule, &origin) {
                let _ = writeln!(text, "DENIED: {error}");
                return false;
            }
            let _ = writeln!(text, "the token of `{name}` goes to {origin}");
        }
        limits(rule, form, text);
        if rule.route.upstream.outbound_proxy.is_some()
            && origin.dial_host().parse::<std::net::IpAddr>().is_err()
        {
            let _ = writeln!(text, "ALLOWED: through a proxy, which resolves the name");
            return true;
        }
        let guard = self.egress.network.clone().with_own_ports(&own_ports(config));
        let passed = judge(&guard, &origin, text).await;
        let what = match (passed, action, form) {
            (false, ..) => "DENIED: no address may be dialled",
            (_, Action::Intercept, Form::Connection) => {
                "ALLOWED: TLS is ended here, each request inside is judged"
            }
            (_, Action::Tunnel, _) => "ALLOWED: bytes pass untouched, nothing is injected",
            _ => "ALLOWED",
        };
        let _ = writeln!(text, "{what}");
        passed
    }
}

/// What may be refused later for its number.
fn limits(rule: &RuleConfig, form: Form<'_>, text: &mut String) {
    let throttle = rule.route.throttle;
    if matches!(form, Form::Connection) && rule.rule.action == Action::Intercept {
        return;
    }
    if let Some(rate) = throttle.rate {
        let _ = writeln!(
            text,
            "at most {} in {:?}, {} at once (`rate_limit`)",
            rate.requests, rate.per, rate.burst
        );
    }
    if let Some(places) = throttle.concurrency {
        let _ = writeln!(text, "at most {places} at a time (`concurrency`)");
    }
}

fn bound(config: &Config, name: &Name, rule: &RuleConfig, origin: &Origin) -> Result<(), String> {
    let credential = config.credentials.iter().find(|credential| credential.name == *name);
    let credential = credential.ok_or_else(|| format!("there is no credential `{name}`"))?;
    binding::check(name, &credential.allowed_upstreams, origin, rule.route.allow_plaintext)
        .map_err(|error| error.to_string())
}

/// Whether any address may be dialled. A name that means nothing here is no reason to deny.
async fn judge(guard: &NetworkGuard, origin: &Origin, text: &mut String) -> bool {
    let addresses = match upstream::resolve(origin.dial_host(), origin.port()).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let _ = writeln!(text, "{}: {error}", origin.dial_host());
            return true;
        }
    };
    let mut any = false;
    for address in addresses {
        let verdict = guard.judge(address);
        any |= verdict.is_ok();
        let _ = match verdict {
            Ok(()) => writeln!(text, "address {}: may be dialled", address.ip()),
            Err(blocked) => writeln!(text, "address {}: may not be dialled, {blocked}", address.ip()),
        };
    }
    any
}

/// Where this process would listen; a port that is chosen at start is not known.
fn own_ports(config: &Config) -> Vec<u16> {
    let listeners = config.listeners.iter().map(|listener| &listener.bind);
    let admin = config.admin.enabled.then_some(&config.admin.bind);
    let of_bind = |bind: &BindAddress| match bind {
        BindAddress::Tcp(address) => Some(address.port()),
        _ => None,
    };
    let ports = listeners.chain(admin).filter_map(of_bind);
    ports.chain(config.health.map(|address| address.port())).filter(|port| *port != 0).collect()
}

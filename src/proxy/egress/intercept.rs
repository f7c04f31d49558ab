//! Connections that are intercepted: the certificate that a client is shown, and the requests inside.
//!
//! Owns: the leaves of one worker, and that a request inside goes where its connection was opened to and nowhere else. No
//! client is shown a certificate before the upstream has shown its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Version};
use tokio::time::Instant;

use super::admit::admit_request;
use super::decision::Decision;
use super::{Egress, Local};
use crate::clock::UnixTime;
use crate::origin::Scheme;
use crate::policy::clients::Caller;
use crate::policy::egress::{Action, Ask, Form, Target, TargetHost};
use crate::proxy::admit::{self, Admitted};
use crate::proxy::{Client, ClientBody, Refusal};
use crate::route::authority::Authority;
use crate::route::path;
use crate::tls::mint::{Leaf, Mint};

/// Leaves that one worker keeps.
const MAX_LEAVES: usize = 1024;

/// What a connection is intercepted with.
#[derive(Debug)]
pub struct Intercept {
    /// For the handshake with the client.
    pub leaf: Leaf,
    /// What holds for the requests inside.
    pub inside: Inside,
    /// Over HTTP/2: what the client sends.
    pub incoming: ClientBody,
}

/// The inside of an intercepted connection.
#[derive(Debug)]
pub struct Inside {
    target: Target,
    /// The target as it is written.
    authority: Box<str>,
    caller: Option<Rc<Caller>>,
    /// The client's address, as CONNECT showed it.
    address: Option<IpAddr>,
    /// The handshake asked for another name.
    misnamed: bool,
}

impl Inside {
    /// Where the connection was opened to.
    pub(in crate::proxy) fn authority(&self) -> &str {
        &self.authority
    }

    /// The client's address.
    pub(in crate::proxy) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The handshake asked for this name.
    pub fn named(&mut self, name: Option<&str>) {
        self.misnamed = match (self.target.host(), name) {
            (_, None) => false,
            // RFC 6066, 3: an address is never sent.
            (TargetHost::Address(_), Some(_)) => true,
            (TargetHost::Name(host), Some(name)) => !host.eq_ignore_ascii_case(name.trim_end_matches('.')),
        };
    }
}

/// The leaves of one worker.
#[derive(Debug)]
pub(super) struct Leaves {
    mint: Arc<Mint>,
    kept: RefCell<HashMap<String, (Leaf, Instant)>>,
}

impl Leaves {
    pub(super) fn new(mint: Arc<Mint>) -> Self {
        Self { mint, kept: RefCell::default() }
    }

    /// The leaf for a host; made where there is none, or none that is good for long enough.
    fn of(&self, host: &str, now: UnixTime) -> Result<Leaf, Refusal> {
        let used = Instant::now();
        let authority = self.mint.fingerprint();
        let mut kept = self.kept.borrow_mut();
        if let Some((leaf, last)) = kept.get_mut(host)
            && leaf.authority == authority
            && now < leaf.renew_at
        {
            *last = used;
            return Ok(leaf.clone());
        }
        let leaf = self.mint.leaf(host, now).map_err(Refusal::Mint)?;
        if kept.len() >= MAX_LEAVES
            && let Some(oldest) = kept.iter().min_by_key(|(_, (_, used))| *used).map(|(host, _)| host.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(host.to_owned(), (leaf.clone(), used));
        Ok(leaf)
    }
}

impl Egress {
    /// Makes ready to stand in for `target`: the upstream is connected and verified first.
    pub(super) async fn intercept(
        &self,
        rule: usize,
        target: &Target,
        (client, address): (&Client, Option<IpAddr>),
        incoming: ClientBody,
        now: UnixTime,
    ) -> Result<Intercept, Refusal> {
        let Some(leaves) = &self.leaves else { return Err(Refusal::NoTunnel) };
        let host = match target.host() {
            TargetHost::Name(name) => name.clone(),
            TargetHost::Address(ip) => ip.to_string(),
        };
        let leaf = leaves.of(&host, now)?;
        let origin = target.origin(Scheme::Https, self.rules[rule].config.upstream_port);
        let route = self.route(rule, origin.ok_or(Refusal::BadHost)?)?;
        route.upstream.warm(Instant::now()).await?;
        let (authority, caller) = (target.to_string().into(), client.caller());
        let inside = Inside { target: target.clone(), authority, caller, address, misnamed: false };
        Ok(Intercept { leaf, inside, incoming })
    }

    /// Judges a request inside an intercepted connection.
    pub(super) fn admit_inside<B>(
        &self,
        client: &Client,
        inside: &Inside,
        request: &Request<B>,
    ) -> Result<Admitted, Refusal> {
        admit::judge_form(client, request)?;
        if let Some(caller) = &inside.caller {
            client.set_caller(Rc::clone(caller));
        }
        self.judge_authority(inside, request)?;
        let uri = request.uri();
        if uri.path() == "*" {
            return Ok(Admitted::Options);
        }
        let path = path::normalize(uri.path())?;
        let name = inside.caller.as_ref().map(|caller| &caller.name);
        let form = Form::Intercepted(request.method(), &path);
        let ask = Ask { target: &inside.target, client: name, form };
        let rule = match self.decide(client, &ask) {
            Decision::Denied(rule) => return Ok(Admitted::Local(Local::Denied(rule))),
            Decision::Rule(rule) if !self.reads_alike(&ask, rule) => {
                return Err(path::PathError::Ambiguous.into());
            }
            Decision::Rule(rule) => rule,
            Decision::Spared => self.rules.len() - 1,
        };
        if self.rules[rule].config.rule.action == Action::StubTokenEndpoint {
            return Ok(Admitted::Local(Local::Stub(rule)));
        }
        admit_request(self, request, (rule, Action::Intercept), (&inside.target, Scheme::Https), path)
    }

    /// RFC 9110, 7.4: the connection was opened to one origin; the handshake and each request must name it.
    fn judge_authority<B>(&self, inside: &Inside, request: &Request<B>) -> Result<(), Refusal> {
        let host = admit::host_field(request)?;
        let uri = request.uri();
        if uri.scheme_str().is_some_and(|scheme| scheme != "https") {
            return Err(Refusal::BadScheme);
        }
        let authority = match uri.authority() {
            Some(authority) => Some(Authority::parse(authority.as_str()).ok_or(Refusal::BadHost)?),
            None => None,
        };
        if request.version() == Version::HTTP_2
            && host.as_ref().zip(authority.as_ref()).is_some_and(|(host, authority)| host != authority)
        {
            return Err(Refusal::BadHost);
        }
        let named = authority.or(host);
        let same = match &named {
            Some(named) => Target::of_authority(named, Scheme::Https)? == inside.target,
            // HTTP/1.0 may name nobody; the connection does.
            None => true,
        };
        if same && !inside.misnamed { Ok(()) } else { Err(Refusal::MisdirectedInside) }
    }
}

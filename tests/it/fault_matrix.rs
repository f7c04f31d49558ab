//! Each fault of the embedded authorization server × each grant × each client authentication: the state, the retry
//! time and what a person is told.
//!
//! The table has one row a fault. What it leads to depends on one thing alone: whether a refresh token that is good for
//! one use was at stake. That it depends on nothing else, such as the client's authentication, is what is tested.

use std::time::Duration;

use bearward::clock::Clock;
use bearward::credential::{Credential, ForcedRefresh, Snapshot, State};
use bearward::idp::Fault;
use bearward::secret::Secret;
use bearward::shutdown::Shutdown;
use bearward::store::{Store, StoreConfig, StoreKind};

use crate::harness::count;
use crate::matrix_rig::{GRANTS, Party, auths_of};

/// What a fault leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// A new token.
    Token,
    /// Tried again after so many seconds.
    Again(u64, u64),
    /// The refresh token may be spent: it waits until the access token is about to end.
    Doubt,
    /// Somebody must change something: half an hour.
    Misconfigured,
    /// The refresh token is refused for good.
    Dead,
}
use Expected::{Again, Dead, Doubt, Misconfigured, Token};

/// One row.
struct Row {
    fault: &'static str,
    what: fn() -> Vec<Fault>,
    /// A refresh token that is good for one use; one that may be used again; no refresh token.
    leads_to: [Expected; 3],
    /// The error code that is shown.
    error: &'static str,
    /// The message has this in it.
    said: &'static str,
    /// Whether it is about a field of an OAuth answer, which a vendor's own answer does not have.
    of_oauth: bool,
    /// Whether it is about tokens that are bound to a key; and what is done with the request after, in the same attempt.
    of_dpop: Option<fn() -> Vec<Fault>>,
}

const fn row(fault: &'static str, what: fn() -> Vec<Fault>, leads_to: [Expected; 3]) -> Row {
    Row { fault, what, leads_to, error: "", said: "", of_oauth: false, of_dpop: None }
}

impl Row {
    const fn told(self, error: &'static str, said: &'static str) -> Self {
        Self { error, said, ..self }
    }

    const fn of_dpop(self, then: fn() -> Vec<Fault>) -> Self {
        Self { of_dpop: Some(then), ..self }
    }

    const fn of_oauth(self) -> Self {
        Self { of_oauth: true, ..self }
    }
}

/// The first pause of a backoff is up to a second, and five lie between two requests.
const SOON: Expected = Again(0, 6);
const SEVEN: Expected = Again(6, 8);
const ALL_TOKEN: [Expected; 3] = [Token; 3];
const ALL_SOON: [Expected; 3] = [SOON; 3];
const ALL_WRONG: [Expected; 3] = [Misconfigured; 3];
const LOST: [Expected; 3] = [Doubt, SOON, SOON];
const JSON: (&str, &str) = ("content-type", "application/json");
const PAGE: &str = "<html><body>Bad gateway: canary-page</body></html>";

fn short() -> Duration {
    Duration::from_millis(20)
}

/// The provider wants a proof with this nonce (RFC 9449 8).
fn nonce() -> Fault {
    Fault::status(400, &[JSON, ("dpop-nonce", "a-nonce")], r#"{"error":"use_dpop_nonce"}"#)
}

static ROWS: &[Row] = &[
    row("slow before", || vec![Fault::DelayBefore(short())], ALL_TOKEN),
    row("slow after", || vec![Fault::DelayAfter(short())], ALL_TOKEN),
    row("hangs before", || vec![Fault::HangBefore], LOST).told("timeout", "no complete answer in time"),
    row("hangs after", || vec![Fault::HangAfter], LOST).told("timeout", "no complete answer in time"),
    row("dropped before", || vec![Fault::DropBefore], LOST).told("cut", "connection ended"),
    row("dropped after", || vec![Fault::DropAfter], LOST).told("cut", "connection ended"),
    row("cut in the head", || vec![Fault::CutAfter(20)], LOST).told("cut", "connection ended"),
    row("cut in the body", || vec![Fault::CutAfter(160)], LOST).told("cut", "connection ended"),
    row("invalid_grant", || vec![Fault::error(400, "invalid_grant")], [Dead, Dead, Misconfigured])
        .told("invalid_grant", "answered 400 invalid_grant"),
    row("invalid_grant with 403", || vec![Fault::error(403, "invalid_grant")], [Dead, Dead, Misconfigured])
        .told("invalid_grant", "answered 403 invalid_grant"),
    row("invalid_grant in a 500", || vec![Fault::error(500, "invalid_grant")], LOST)
        .told("invalid_grant", "answered 500 invalid_grant"),
    row("invalid_client", || vec![Fault::error(401, "invalid_client")], ALL_WRONG)
        .told("invalid_client", "check `client.id`"),
    row("unauthorized_client", || vec![Fault::error(400, "unauthorized_client")], ALL_WRONG)
        .told("unauthorized_client", "enable this grant for the client"),
    row("invalid_scope", || vec![Fault::error(400, "invalid_scope")], ALL_WRONG)
        .told("invalid_scope", "check `scope`"),
    row("an error in a 200", || vec![Fault::error(200, "temporarily_unavailable")], ALL_SOON)
        .told("temporarily_unavailable", "answered 200 temporarily_unavailable"),
    row("a page in a 200", || vec![Fault::status(200, &[], PAGE)], LOST)
        .told("unreadable", "an HTML page instead of a token"),
    row(
        "redirect",
        || vec![Fault::status(307, &[("location", "https://elsewhere.example/")], "")],
        ALL_WRONG,
    )
    .told("redirect", "never redirected"),
    row("empty 400", || vec![Fault::status(400, &[], "")], ALL_WRONG).told("http_400", "an empty body"),
    row("empty 403", || vec![Fault::status(403, &[], "")], ALL_WRONG).told("http_403", "an empty body"),
    row("404", || vec![Fault::status(404, &[], PAGE)], ALL_WRONG).told("http_404", "an HTML page"),
    row("408", || vec![Fault::status(408, &[], "")], ALL_SOON).told("http_408", "answered 408"),
    row("429", || vec![Fault::status(429, &[], "")], ALL_SOON).told("http_429", "answered 429"),
    row("429 with a time", || vec![Fault::status(429, &[("retry-after", "7")], "")], [SEVEN; 3])
        .told("http_429", "answered 429"),
    row("429 with a time of its own", || vec![Fault::status(429, &[("x-retry-after", "7")], "")], [SEVEN; 3])
        .told("http_429", "answered 429"),
    row("500", || vec![Fault::status(500, &[JSON], r#"{"error":"server_error"}"#)], LOST)
        .told("server_error", "answered 500 server_error"),
    row("502 after it was carried out", || vec![Fault::status_after(502, PAGE)], LOST)
        .told("http_502", "an HTML page"),
    row("503", || vec![Fault::status(503, &[], "")], LOST).told("http_503", "answered 503"),
    row("503 with a time", || vec![Fault::status(503, &[("retry-after", "7")], "")], [SEVEN; 3])
        .told("http_503", "answered 503"),
    row("no lifetime", || vec![Fault::remove("expires_in")], ALL_TOKEN).of_oauth(),
    row("a lifetime in words", || vec![Fault::set("expires_in", "3600")], ALL_TOKEN).of_oauth(),
    row("a lifetime of nothing", || vec![Fault::set("expires_in", 0)], ALL_SOON)
        .told("unusable", "has expired already")
        .of_oauth(),
    row("another type of token", || vec![Fault::set("token_type", "mac")], ALL_WRONG)
        .told("unusable", "token_type `mac`")
        .of_oauth(),
    row("a token that is no header", || vec![Fault::set("access_token", "a b\r\nEvil: 1")], ALL_WRONG)
        .told("unusable", "never becomes a header")
        .of_oauth(),
    row("no token", || vec![Fault::remove("access_token")], ALL_SOON)
        .told("unusable", "without an access_token")
        .of_oauth(),
    row("a nonce is wanted", || vec![nonce()], ALL_TOKEN).of_dpop(|| vec![Fault::set("token_type", "DPoP")]),
    row("another nonce is wanted each time", || vec![nonce()], ALL_WRONG)
        .told("use_dpop_nonce", "answered 400 use_dpop_nonce")
        .of_dpop(|| vec![nonce()]),
    row("a nonce is wanted and none given", || vec![Fault::error(400, "use_dpop_nonce")], ALL_WRONG)
        .told("use_dpop_nonce", "answered 400 use_dpop_nonce")
        .of_dpop(|| vec![Fault::error(400, "use_dpop_nonce")]),
    row("a proof is refused", || vec![Fault::error(400, "invalid_dpop_proof")], ALL_WRONG)
        .told("invalid_dpop_proof", "answered 400 invalid_dpop_proof")
        .of_dpop(Vec::new),
    row("a token that is not bound", || vec![Fault::set("token_type", "Bearer")], ALL_WRONG)
        .told("unusable", "not bound to our key")
        .of_dpop(Vec::new),
    row("a form", || vec![Fault::FormEncoded], ALL_TOKEN).of_oauth(),
    row("mislabelled", || vec![Fault::ContentType("text/plain".into())], ALL_TOKEN),
    row("a byte order mark", || vec![Fault::ByteOrderMark], ALL_TOKEN),
    row("compressed", || vec![Fault::Gzip], ALL_TOKEN),
    row("in small pieces", || vec![Fault::Drip { bytes: 16, every: Duration::from_millis(1) }], ALL_TOKEN),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_with_every_grant_and_client_authentication_leads_where_the_table_says() {
    let mut parties = tokio::task::JoinSet::new();
    for grant in GRANTS {
        for auth in auths_of(grant) {
            parties.spawn(all_faults(grant, auth));
        }
    }
    let combinations = parties.len();
    let checked: usize = parties.join_all().await.into_iter().sum();
    assert_eq!(combinations, 52);
    assert!(checked > 1900, "{checked}");
    count(&format!(
        "fault matrix: {} faults, {combinations} pairs of grant and authentication, {checked} checked",
        ROWS.len()
    ));
}

async fn all_faults(grant: &'static str, auth: &'static str) -> usize {
    let party = Party::new(grant, auth).await;
    let mut checked = 0;
    let fits = |row: &&Row| (grant != "custom" || !row.of_oauth) && (auth == "dpop" || row.of_dpop.is_none());
    for row in ROWS.iter().filter(fits) {
        one_fault(&party, grant, auth, row).await;
        checked += 1;
    }
    checked
}

/// A credential gets its first token, and the fault hits its next request.
async fn one_fault(party: &Party, grant: &str, auth: &str, row: &Row) {
    let place = format!("{} × {grant} × {auth}", row.fault);
    let mut config = party.credential();
    if row.error == "timeout" {
        config.oauth.request_timeout = Duration::from_millis(1500);
    }
    let kind = StoreKind::Memory { allow_volatile: true };
    let store = Store::open(&StoreConfig { kind, encryption: Vec::new() }).await.expect("the store opens");
    let (clock, shutdown) = (Clock::Manual(party.clock.clone()), Shutdown::new());
    party.idp.faults().push_together(party.ordinary());
    let credential =
        Credential::start(config.clone(), store.clone(), clock.clone(), &shutdown).await.expect("it starts");
    let begun = tokio::time::Instant::now();
    while credential.snapshot().generation == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{place}: no first token: {:?}",
            credential.snapshot()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = bearer(&credential, &clock).expect("a token");
    let kept = store.load(&config.name).await.expect("readable").expect("a record").refresh_token;

    party.clock.suspend(Duration::from_secs(10));
    let mut faults = party.ordinary();
    faults.extend((row.what)());
    party.idp.faults().push_together(faults);
    party.idp.faults().push_together(row.of_dpop.map_or_else(Vec::new, |then| then()));
    // Who asks before the first attempt has quite ended is told of that one; no request was sent for it.
    let answer = loop {
        match credential.refresh().await.expect("it is answered") {
            ForcedRefresh::Refreshed(1) => assert!(begun.elapsed() < Duration::from_secs(60), "{place}"),
            answer => break answer,
        }
    };
    let now = credential.snapshot();
    party.idp.faults().clear();
    let expected = row.leads_to[match grant {
        "single" => 0,
        "reusable" => 1,
        _ => 2,
    }];
    check(expected, row, &answer, &now, &place);
    let second = bearer(&credential, &clock).expect("a token is served, whatever happened");
    assert_eq!(second != first, expected == Token, "{place}");
    let record = store.load(&config.name).await.expect("readable").expect("a record");
    if grant == "reusable" || grant == "single" && expected != Token && row.error != "unusable" {
        assert_eq!(record.refresh_token, kept, "{place}: the refresh token is where it was");
    } else if grant == "single" {
        assert!(
            record.refresh_token.is_some() && record.refresh_token != kept,
            "{place}: the new one is kept"
        );
    }
    shutdown.begin();
}

fn check(expected: Expected, row: &Row, answer: &ForcedRefresh, now: &Snapshot, place: &str) {
    let message = match answer {
        ForcedRefresh::Refreshed(generation) => {
            assert_eq!((expected, *generation), (Token, 2), "{place}");
            assert_eq!(now.state, State::Fresh, "{place}");
            assert!(now.last_error.is_none(), "{place}: {now:?}");
            return;
        }
        ForcedRefresh::Failed(message) => message,
        ForcedRefresh::Refused(message) => panic!("{place}: refused: {message}"),
    };
    let error = now.last_error.as_ref().unwrap_or_else(|| panic!("{place}: {now:?}"));
    assert_eq!(error.error, row.error, "{place}: {message}");
    assert!(message.contains(row.said), "{place}: {message}");
    assert!(
        ["http://127.0.0.1:", "https://localhost:", "token request to http"]
            .iter()
            .any(|begin| message.starts_with(begin)),
        "{message}"
    );
    assert!(!message.contains("canary") && !message.chars().any(char::is_control), "{place}: {message}");
    let pause = error.retry_at.map(|at| at.checked_since(error.at).unwrap_or_default().as_secs());
    let (state, least, most) = match expected {
        Token => panic!("{place}: {message}"),
        Again(least, most) => (State::Fresh, least, most),
        // The token lives for an hour; a tenth before its end the refresh token is sent again.
        Doubt => (State::InDoubt, 3150, 3240),
        Misconfigured => (State::Misconfigured, 1780, 1800),
        Dead => {
            assert_eq!((now.state, pause), (State::Dead, None), "{place}: {message}");
            assert!(
                now.remedy.as_ref().is_some_and(|remedy| remedy.contains("bearward login primavera")),
                "{place}"
            );
            return;
        }
    };
    assert_eq!(now.state, state, "{place}: {message}");
    let pause = pause.unwrap_or_else(|| panic!("{place}: no time is told: {now:?}"));
    assert!((least..=most).contains(&pause), "{place}: tried again in {pause} s");
    assert_eq!(now.remedy.is_some(), expected == Misconfigured, "{place}: {:?}", now.remedy);
}

fn bearer(credential: &Credential, clock: &Clock) -> Option<Secret> {
    let mut reader = credential.cell().reader();
    let (header, _) = reader.authorize(clock.boot()).ok()?;
    Some(Secret::from(std::str::from_utf8(header.as_bytes()).expect("ASCII")))
}

#[tokio::test]
async fn a_static_token_meets_no_fault_because_it_asks_nobody() {
    let party = Party::new("client_credentials", "none").await;
    for row in ROWS {
        party.idp.faults().push_together((row.what)());
    }
    let mut config = party.credential();
    config.oauth.endpoint = bearward::oauth::EndpointSource::None;
    config.oauth.grant = bearward::oauth::Grant::Static {
        token: bearward::secret::SecretSource::Value(Secret::from("of-a-vendor")),
    };
    let kind = StoreKind::Memory { allow_volatile: true };
    let store = Store::open(&StoreConfig { kind, encryption: Vec::new() }).await.expect("the store opens");
    let (clock, shutdown) = (Clock::Manual(party.clock.clone()), Shutdown::new());
    let credential = Credential::start(config, store, clock.clone(), &shutdown).await.expect("it starts");
    let begun = tokio::time::Instant::now();
    while credential.snapshot().state != State::Fresh {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", credential.snapshot());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bearer(&credential, &clock), Some(Secret::from("Bearer of-a-vendor")));
    assert_eq!(party.idp.posts(), 0);
    shutdown.begin();
}

//! What both kinds of measurement do: the parts of the hot path, ready to be run.

use std::hint::black_box;
use std::sync::Arc;

use bearward::clock::{BootTime, UnixTime};
use bearward::config;
use bearward::credential::{Published, State, Token, TokenCell, TokenReader};
use bearward::listener::bench::read_requests;
use bearward::names::Name;
use bearward::oauth::dpop::{DpopKey, Proof, token_hash};
use bearward::proxy::bench::Heads;
use bearward::route::authority::Authority;
use bearward::route::path;
use bearward::route::table::{Match, RouteTable};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};

/// A moment long after boot at which the token of these measurements lives.
const NOW: BootTime = BootTime::from_boot(std::time::Duration::from_secs(1000));

/// What `curl` sends.
pub const SHORT: &str =
    "GET /small HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
pub const LONG: &str = "GET /api/orders?page=2&sort=created HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Authorization: Bearer of-the-application\r\nReferer: http://localhost:8080/api/orders\r\n\
    Connection: keep-alive\r\nCookie: session=0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nPriority: u=0, i\r\n\r\n";

const ANSWER: &[(&str, &str)] = &[
    ("date", "Tue, 24 Nov 2026 21:20:34 GMT"),
    ("content-type", "application/json"),
    ("content-length", "128"),
    ("cache-control", "no-store"),
    ("connection", "keep-alive"),
    ("server", "origin"),
];

/// `routes` routes with the prefixes `/r0/`, `/r1/`, … and one for all else, and a listener around them.
fn configuration(routes: usize) -> config::Config {
    let mut text = String::from(
        "version: 1\nstore: {kind: memory}\ncredentials: {api: {grant: static, token: {value: unused}}}\n\
         listeners:\n  - name: bench\n    kind: reverse\n    bind: 127.0.0.1:8080\n    routes:\n",
    );
    for number in 0..routes {
        text += &format!(
            "      - {{name: r{number}, match: {{path_prefix: /r{number}/}}, upstream: 'http://127.0.0.1:1'}}\n"
        );
    }
    text += "      - {name: all, upstream: 'http://127.0.0.1:1', credential: api}\n";
    config::parse(&text, "bench.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn cell() -> Arc<TokenCell> {
    let cell = TokenCell::new(Name::try_new("api").expect("a name"));
    let text = "t".repeat(900);
    let token =
        Token::try_new(&text.as_str().into(), NOW.plus(NOW.since_boot()), 1, UnixTime::from_millis(0));
    let token = Some(token.expect("a token"));
    cell.publish(Published { state: State::Fresh, token, retry_at: None });
    cell
}

/// Finding a route: authority, normal form of the path, table.
pub struct Lookup(RouteTable);

impl Lookup {
    pub fn among(routes: usize) -> Self {
        let config = configuration(routes);
        Self(RouteTable::new(&config.listeners[0].routes, Some([127, 0, 0, 1].into())))
    }

    pub fn run(&self) -> usize {
        let authority = Authority::parse(black_box("localhost:8080"));
        let path = path::normalize(black_box("/api/orders")).expect("a path");
        match self.0.find(authority.as_ref(), None, &path, &Method::GET) {
            Match::Route(index) => index,
            other => panic!("{other:?}"),
        }
    }
}

/// Reading the token cell.
pub struct Cell(TokenReader);

impl Cell {
    pub fn new() -> Self {
        let mut cell = Self(cell().reader());
        cell.run();
        cell
    }

    pub fn run(&mut self) -> HeaderValue {
        self.0.authorize(black_box(NOW)).expect("a token").0
    }
}

/// Proving that a request's sender holds the token's key (RFC 9449).
pub struct Proving {
    key: Arc<DpopKey>,
    token_hash: String,
}

impl Proving {
    pub fn new() -> Self {
        let stored = DpopKey::generate().expect("a key");
        let key = DpopKey::try_new(&stored).expect("a key");
        Self { key, token_hash: token_hash(&"t".repeat(900).as_str().into()) }
    }

    pub fn run(&self) -> HeaderValue {
        let target = ["https", "://", black_box("api.example.com"), "/api/orders"];
        let proof = Proof {
            method: "GET",
            target: &target,
            now: UnixTime::from_millis(1_800_000_000_000),
            nonce: Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"),
            token_hash: Some(&self.token_hash),
        };
        self.key.prove(&proof).expect("a proof")
    }
}

/// The work on heads.
pub struct HeadWork {
    heads: Heads,
    request: Request<()>,
    answer: HeaderMap,
}

impl HeadWork {
    /// For a request that is written so.
    pub fn on(text: &str) -> Self {
        let config = configuration(0);
        let heads = Heads::at(&config.listeners[0].routes[0]).expect("a route");
        let mut lines = text.split("\r\n");
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a target");
        let mut request = Request::get(target);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a request");
        let mut answer = HeaderMap::new();
        for (name, value) in ANSWER {
            answer.insert(*name, HeaderValue::from_static(value));
        }
        Self { heads, request, answer }
    }

    /// A copy to work on.
    pub fn copy(&self) -> http::request::Parts {
        self.request.clone().into_parts().0
    }

    pub fn admit(&self) -> bool {
        self.heads.admit(black_box(&self.request))
    }

    pub fn rewrite(&self, mut head: http::request::Parts) -> http::request::Parts {
        assert!(self.heads.rewrite(&mut head));
        head
    }

    pub fn judge_answer(&self) -> bool {
        self.heads.judge_answer(black_box(&self.answer))
    }
}

/// Reading requests.
pub struct Walk(Bytes);

impl Walk {
    pub fn over(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// A request with a body of 16 chunks of 1 KiB.
    pub fn over_chunks() -> Self {
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        Self::over(&[head, &chunk.repeat(16), "0\r\n\r\n"].concat())
    }

    pub fn run(&mut self) -> usize {
        read_requests(black_box(&self.0))
    }
}

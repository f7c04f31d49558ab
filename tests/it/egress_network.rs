//! The network guard of the real binary, in a network namespace with a resolver of its own: every spelling and every way of
//! resolving to an address that is not of the internet is refused, and what is dialled is what was judged.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::count;
use crate::harness::run::Run;

const RIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/egress_network.py");

/// Addresses as they stand in a URL. None may be dialled.
const SPELLINGS: &[&str] = &[
    // Loopback: plain, short, decimal, hexadecimal, octal, with a dot behind.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.9.9.9",
    "2130706433",
    "0x7f000001",
    "0x7F.0.0.1",
    "0x7f.1",
    "0x7f.0x0.0x1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "0177.0x0.0.1",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST.",
    // This machine by no address.
    "0.0.0.0",
    "0",
    "0x0",
    "00",
    "0.1.2.3",
    // Private, shared, link-local.
    "10.0.0.5",
    "167772165",
    "0xa000005",
    "012.0.0.5",
    "10.5",
    "172.16.0.5",
    "172.31.255.254",
    "192.168.0.5",
    "192.168.5",
    "3232235525",
    "169.254.0.5",
    "100.64.0.5",
    "100.127.0.5",
    // Where clouds hand out credentials.
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    // Nobody's.
    "192.0.2.5",
    "198.51.100.5",
    "203.0.113.5",
    "198.18.0.5",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    // IPv6, and IPv4 inside of it.
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:a00:5]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[2001:0:7f00:1:8000:63bf:f7f7:f7f7]",
    "[2606:4700::5efe:7f00:1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::5]",
    "[fd12::5]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
    "[2001:db8::5]",
    "[100::5]",
    "[4000::5]",
];

/// Names that resolve to such addresses, through our own resolver.
const NAMES: &[&str] = &[
    "loop.test",
    "loop6.test",
    "LOOP.test.",
    "zero.test",
    "zero6.test",
    "private.test",
    "meta.test",
    "shared.test",
    "mapped.test",
    "compatible.test",
    "nat64.test",
    "6to4.test",
    "teredo.test",
    "ula.test",
    "local6.test",
    "metadata6.test",
    "127.0.0.1.nip.test",
    "cname.test",
    "deep.test",
    "none.test",
];

/// What may be dialled, and where that leads.
const ALLOWED: &[&str] = &[
    "8.8.8.8",
    "134744072",
    "0x8.8.8.8",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
    "[2606:4700::1111]",
    "10.20.3.4",
    "public.test",
    "public6.test",
    "allowed.test",
    "cname-public.test",
    "both.test",
];

/// What is no host at all.
const BROKEN: &[&str] = &[
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[127.0.0.1]",
    "256.1.1.1",
    "1.2.3.4.5",
    "0x100000000",
    "127.0.0.1%00",
];

#[test]
fn no_spelling_and_no_name_leads_to_an_address_that_is_not_of_the_internet() {
    let run = Run::new("egress-network");
    let mut cases: Vec<Value> = Vec::new();
    let mut add = |hosts: &[&str], port: u16, expected: u16| {
        cases.extend(hosts.iter().map(|host| json!([host, port, expected])));
    };
    add(SPELLINGS, 80, 403);
    add(NAMES, 80, 403);
    add(ALLOWED, 80, 200);
    add(BROKEN, 80, 400);
    // The listeners of the process itself, by every address of the machine.
    for own in [3128, 9901] {
        add(&["127.0.0.1", "8.8.8.8", "10.20.3.4", "[::1]", "public.test"], own, 403);
    }
    // A name that means something else each time: it is judged each time.
    add(&["rebind.test", "rebind-back.test"].repeat(4), 80, 0);
    let report = ask(&run, &cases, &[]);
    let results = report["results"].as_array().expect("results");
    assert_eq!(results.len(), cases.len() * 2);
    for (case, pair) in cases.iter().zip(results.chunks(2)) {
        for result in pair {
            let status = &result[3];
            match case[2].as_u64() {
                Some(0) => assert!(*status == 200 || *status == 403, "{result}"),
                Some(403) => assert_eq!(
                    (status, &result[4]),
                    (&json!(403), &json!("destination_ip_prohibited")),
                    "{result}"
                ),
                _ => assert_eq!(*status, case[2], "{result}"),
            }
        }
    }
    let rebound =
        results.iter().filter(|result| result[0].as_str().is_some_and(|host| host.starts_with("rebind")));
    let (passed, refused): (Vec<_>, Vec<_>) = rebound.partition(|result| result[3] == 200);
    assert!(!passed.is_empty() && !refused.is_empty(), "both answers were met: {report}");
    // strace saw what was dialled, and the servers what they were reached at: nothing but what was judged good.
    let good = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "10.20.3.4"];
    for dialled in report["dialled"].as_array().expect("a list") {
        assert!(good.contains(&dialled[0].as_str().expect("an address")) && dialled[1] == 80, "{dialled}");
    }
    for seen in report["seen"].as_array().expect("a list") {
        assert!(good.contains(&seen.as_str().expect("an address")), "{seen}");
    }
    assert_eq!(report["dialled"].as_array().map(Vec::len), Some(good.len()), "{report}");
    count(&format!(
        "egress network guard: {} spellings and {} names refused, {} allowed, over absolute-form and CONNECT",
        SPELLINGS.len() + BROKEN.len(),
        NAMES.len(),
        ALLOWED.len()
    ));
}

/// Routes with the guard, also where their names move, where they are checked, and where a connection is tried again.
#[test]
fn a_guarded_route_dials_no_address_that_is_not_of_the_internet() {
    let run = Run::new("route-network");
    let open = json!(true);
    let ours = json!({"allow_private": ["10.20.0.0/16"], "deny": ["8.8.4.0/24"]});
    let plain = |url: &str| json!(url);
    let routes: Vec<(&str, Value, &Value)> = vec![
        ("loop", plain("http://loop.test"), &open),
        ("loop6", plain("http://loop6.test"), &open),
        ("private", plain("http://private.test"), &open),
        ("meta", plain("http://deep.test"), &ours),
        ("mapped", plain("http://mapped.test"), &open),
        ("nat64", plain("http://nat64.test"), &open),
        ("local", plain("http://localhost"), &open),
        ("not-allowed", plain("http://allowed.test"), &open),
        ("own", plain("http://public.test:9901"), &open),
        ("allowed", plain("http://allowed.test"), &ours),
        ("public", plain("http://public.test"), &open),
        ("public6", plain("http://public6.test"), &open),
        // One address of three is good: that one is dialled.
        ("both", plain("http://both.test"), &open),
        ("pair", json!({"urls": ["http://loop.test", "http://public.test"]}), &open),
        ("moving", plain("http://moving.test:81"), &ours),
        (
            "checked",
            json!({"urls": ["http://moving-checked.test"], "keep_warm": 1,
                   "health": {"path": "/", "interval": "200ms", "timeout": "1s"}}),
            &open,
        ),
    ];
    let listed = routes.iter().map(|(name, upstream, guard)| {
        json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": upstream, "network_guard": guard})
    });
    let listed: Vec<Value> = listed.collect();
    let case = |name: &str, expected: u16, pause: f64| json!(["", 0, expected, format!("/{name}/x"), pause]);
    let mut cases: Vec<Value> = Vec::new();
    for name in ["loop", "loop6", "private", "meta", "mapped", "nat64", "local", "not-allowed", "own"] {
        cases.push(case(name, 403, 0.0));
    }
    for name in ["allowed", "public", "public6", "both", "both", "pair", "pair"] {
        cases.push(case(name, 200, 0.0));
    }
    // Each worker, and who checks, resolves it anew.
    cases.extend([case("checked", 0, 0.0), case("checked", 0, 0.3)]);
    // Refused where nobody listens, then at an address that may not be dialled, more than once.
    for pause in [0.0, 1.2, 1.2, 1.2] {
        cases.push(case("moving", 0, pause));
    }
    let report = ask(&run, &cases, &listed);
    let results = report["results"].as_array().expect("results");
    assert_eq!(results.len(), cases.len());
    for (case, result) in cases.iter().zip(results) {
        match case[2].as_u64() {
            Some(0) => assert!([200, 403, 502].map(Value::from).contains(&result[3]), "{result}"),
            Some(403) => assert_eq!(
                (&result[3], &result[4]),
                (&json!(403), &json!("destination_ip_prohibited")),
                "{result}"
            ),
            _ => assert_eq!(result[3], case[2], "{result}"),
        }
    }
    let good = ["8.8.8.8", "2606:4700::1111", "10.20.3.4"];
    for dialled in report["dialled"].as_array().expect("a list") {
        assert!(good.contains(&dialled[0].as_str().expect("an address")), "{dialled}");
        assert!(dialled[1] == 80 || *dialled == json!(["10.20.3.4", 81]), "{dialled}");
    }
    for seen in report["seen"].as_array().expect("a list") {
        assert!(good.contains(&seen.as_str().expect("an address")), "{seen}");
    }
    // It was asked for again, and what it led to then was told and not dialled.
    let log = std::fs::read_to_string(run.private().join("log")).expect("a log");
    assert!(log.contains("\"route\":\"moving\"") && log.contains("moving.test"), "{log}");
    count(&format!("network guard of routes: {} refused, strace saw good addresses only", 9));
}

fn ask(run: &Run, cases: &[Value], routes: &[Value]) -> Value {
    let rules = json!([
        {"match": {"hosts": ["**"]}, "action": "forward"},
        {"match": {"hosts": ["**"]}, "action": "tunnel"},
    ]);
    let mut config = json!({
        "listeners": [{
            "name": "legacy", "kind": "egress", "bind": "127.0.0.1:3128", "rules": rules,
            "egress_network": {"allow_private": ["10.20.0.0/16"]},
        }],
        "admin": {"bind": "127.0.0.1:9901"},
        "store": {"kind": "memory"},
        "log": {"format": "json"},
    });
    if !routes.is_empty() {
        config["listeners"].as_array_mut().expect("a list").push(json!({
            "name": "reverse", "kind": "reverse", "bind": "127.0.0.1:8080", "routes": routes,
        }));
    }
    std::fs::write(run.private().join("config.yaml"), config.to_string()).expect("written");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "python3", RIG, env!("CARGO_BIN_EXE_bearward")]).arg(run.private());
    command.env("NO_PROXY", "*").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare runs");
    let text = Value::from(cases.to_vec()).to_string();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

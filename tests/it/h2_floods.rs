//! Clients over HTTP/2 that make work for nothing: each is told to go away, costs little memory, and harms nobody else.

use std::time::Duration;

use crate::h2_rig::{
    Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, block, frame, plain,
};
use crate::harness::count;
use crate::proxy_rig::{OriginServer, Rig};

const PRIORITY: u8 = 2;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// The code of the GOAWAY that ends the connection; `None`: it was closed without one.
fn end(raw: &mut Raw) -> Option<u32> {
    let mut last = None;
    while let Some(frame) = raw.read() {
        if frame.kind == GOAWAY {
            last = Some(frame.code());
        }
    }
    last
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(&plain("POST", "/")))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

#[test]
fn a_flood_of_frames_ends_its_connection_and_no_other() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let other = Client::to(rig.address);
    assert_eq!(other.get("/", &[]).status, 200);
    let before = resident();
    let streams = || (0..50_000_u32).map(|number| 2 * number + 1);
    let floods: [(&str, Vec<u8>); 9] = [
        (
            "resets",
            streams().flat_map(|stream| [headers(stream, END_STREAM), reset(stream)].concat()).collect(),
        ),
        (
            "resets of bodies",
            streams().flat_map(|stream| [headers(stream, 0), reset(stream)].concat()).collect(),
        ),
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(200_000)),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(200_000)),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(200_000)),
        ("unknown frames", frame(0xf0, 0, 0, b"x").repeat(200_000)),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
        ("empty pieces", [headers(1, 0), frame(DATA, 0, 1, &[]).repeat(200_000)].concat()),
        (
            "continuations",
            [
                frame(HEADERS, 0, 1, &block(&plain("GET", "/"))),
                frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1_000))])).repeat(20_000),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in floods {
        let mut raw = Raw::to(rig.address, &[]);
        // It may be closed before all is written.
        let mut writer = Raw(raw.0.try_clone().expect("cloned"));
        let writing = std::thread::spawn(move || writer.write(&bytes).is_err());
        let code = end(&mut raw);
        let ended = raw.0.peek(&mut [0]).map_or_else(|error| !is_timeout(&error), |length| length == 0);
        assert!(ended, "{name}: the connection goes on");
        drop(raw);
        let _ = writing.join();
        // What lies unread in the socket may take the GOAWAY with it.
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM || code == 1), "{name}: {code:?}");
        assert_eq!(other.get("/", &[]).status, 200, "{name}");
    }
    // Two floods of 50,000 requests each, and our own ten.
    let served = origin.requests().len();
    assert!(served < 2_000, "{served}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    count("9 kinds of floods of HTTP/2 frames ended their connection and no other");
}

#[test]
fn a_client_is_told_why_it_has_to_go() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    // Exactly as much as is too much, so that nothing lies unread behind it.
    let floods = [
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(1_100)),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(1_100)),
        ("empty pieces", [headers(1, 0), frame(DATA, 0, 1, &[]).repeat(101)].concat()),
    ];
    for (name, bytes) in floods {
        let mut raw = Raw::to(rig.address, &[]);
        let _ = raw.write(&bytes);
        assert_eq!(raw.next(GOAWAY).map(|frame| frame.code()), Some(ENHANCE_YOUR_CALM), "{name}");
    }
}

#[test]
fn requests_that_are_taken_back_one_by_one_are_a_flood_too() {
    let origin = OriginServer::scripted(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let rig = Rig::to(&origin);
    let mut raw = Raw::to(rig.address, &[]);
    let mut sent = 0;
    for number in 0..1_000_u32 {
        let stream = 2 * number + 1;
        if raw.write(&headers(stream, END_STREAM)).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        if raw.write(&reset(stream)).is_err() {
            break;
        }
        sent += 1;
    }
    // Those that are read in one go are reset before they are looked at: of these the codec takes fewer.
    assert!((20..1_000).contains(&sent), "{sent}");
    assert!(end(&mut raw).is_none_or(|code| code == ENHANCE_YOUR_CALM));
}

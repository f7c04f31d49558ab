//! Authorities: what is taken has one reading, which is written as it was read.
#![no_main]

use bearward::route::authority::Authority;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(authority) = Authority::parse(text) else { return };
    assert!(!authority.host.is_empty());
    assert!(authority.port != Some(0));
    assert!(!authority.host.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()));
    assert!(!authority.host.contains(['@', '/', '\\', '?', '#', '%', ',']), "{text}");
    let written = match authority.port {
        Some(port) => format!("{}:{port}", authority.host),
        None => authority.host.to_string(),
    };
    let again = Authority::parse(&written).expect("what was read can be written");
    assert_eq!(again, authority);
    // Another parser finds the same host and port.
    let uri: http::uri::Authority = written.parse().expect("an authority");
    assert_eq!((uri.host(), uri.port_u16()), (&*authority.host, authority.port));
});

//! PROXY headers: what is whole stays what it is with anything behind it, and nothing short of it is taken for whole.
#![no_main]

use bearward::listener::proxy_protocol::{Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(Parsed::Whole { header, length }) = parse(data) else { return };
    assert!(length > 0 && length <= data.len());
    for shorter in 0..length {
        match parse(&data[..shorter]) {
            Ok(Parsed::Partial | Parsed::Undecided) => {}
            other => panic!("{shorter} of {length} bytes: {other:?}"),
        }
    }
    let longer = [&data[..length], b"GET / HTTP/1.1\r\n\r\n"].concat();
    let Ok(Parsed::Whole { header: again, length: same }) = parse(&longer) else { panic!("not whole any more") };
    assert_eq!((format!("{again:?}"), same), (format!("{header:?}"), length));
});

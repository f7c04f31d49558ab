//! Bytes of an upstream: read as answers alike however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&size, wire)) = data.split_first() else { return };
    bearward::upstream::fuzzing::answers(wire, usize::from(size));
});

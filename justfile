# Shortcuts; everything they do can be typed without them.

# List the shortcuts.
default:
    @just --list

# The whole thing on this machine, without an account anywhere.
try:
    cargo run --release -- try

# Every check, as CI runs it.
test *arguments:
    ./test {{arguments}}

# Only the unit tests.
unit:
    cargo test --lib

# Only the integration tests whose path contains NAME.
it NAME:
    cargo test --test it {{NAME}}

# Formats, then lints.
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Feeds one fuzz target (head, path, authority, proxy_protocol, configuration, token_response) for some minutes.
fuzz TARGET MINUTES="5":
    fuzz/run {{TARGET}} {{MINUTES}}

# Times of the hot path's parts, and their instructions under valgrind.
bench:
    cargo bench -p bearward-benches --bench times
    benches/instructions

# bearward beside nginx, HAProxy and Envoy: what a request costs.
compare *arguments:
    benches/compare/run {{arguments}}

# Licences, advisories and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny check

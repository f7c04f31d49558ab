//! What the tests that drive the real binary share.
//!
//! Owns: runs of the binary and all that they print and answer, kept for the search for secrets that ends
//! `./test`; a client; the real authorization servers. Never reads a token from the binary's own output.

pub(crate) mod bearward;
pub(crate) mod http;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod traffic;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Prints a figure, and keeps it for the summary of the whole test run.
#[allow(clippy::print_stdout, reason = "a figure is there to be read")]
pub(crate) fn count(figure: &str) {
    println!("{figure}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counts.txt");
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{figure}\n").as_bytes())).expect("it can be written");
}

/// Asks again every few milliseconds until there is an answer.
///
/// # Panics
/// When there is none in time, with what was waited for.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

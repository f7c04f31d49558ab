//! The `Date` of answers that came without one (RFC 9110, 6.6.1).
//!
//! Owns: one text a worker, which is good for a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Clock;

/// Room for `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;

thread_local! {
    static NOW: RefCell<(i64, [u8; LENGTH])> = const { RefCell::new((i64::MIN, [b' '; LENGTH])) };
}

/// Writes the value of `Date` as it is now.
pub(super) fn write(clock: &Clock, out: &mut Vec<u8>) {
    let seconds = clock.wall().seconds();
    NOW.with_borrow_mut(|(of, text)| {
        if *of != seconds {
            let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let date = httpdate::fmt_http_date(UNIX_EPOCH + since);
            if let Ok(date) = date.as_bytes().try_into() {
                (*of, *text) = (seconds, date);
            }
        }
        out.extend_from_slice(text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    #[tokio::test(start_paused = true)]
    async fn the_date_follows_the_clock_both_ways() {
        let manual = ManualClock::starting_at(UnixTime::from_millis(784_111_777_900));
        let clock = Clock::Manual(std::sync::Arc::clone(&manual));
        let now = || {
            let mut out = Vec::new();
            write(&clock, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(now(), "Sun, 06 Nov 1994 08:49:37 GMT");
        manual.step_wall(100);
        assert_eq!(now(), "Sun, 06 Nov 1994 08:49:38 GMT");
        manual.step_wall(-3_600_000);
        assert_eq!(now(), "Sun, 06 Nov 1994 07:49:38 GMT");
    }
}

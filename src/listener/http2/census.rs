//! Counts the frames that a client sends: floods of frames that cost it nothing end the connection (RFC 9113, 10.5).
//!
//! Owns: the walk over frame heads, and what is too much. The codec bounds memory by itself: it answers no PING and no
//! SETTINGS before the last answer was written, takes 100 empty DATA frames in a row, as many CONTINUATION frames as the
//! largest head needs, and 20 streams that are reset before they are looked at. What it does not bound is work.

use std::time::Duration;

use tokio::time::Instant;

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// PING, SETTINGS, PRIORITY and unknown frames at once, and one more in this time or for a frame with a purpose.
const CONTROL: u64 = 1_000;
const CONTROL_PACE: Duration = Duration::from_millis(10);
/// A client that takes back more than half of its requests wants the work and not the answers.
const RESETS: u64 = 200;
/// Window updates beyond one for each frame that went out are not known here: many of them are a stream of nothing.
const UPDATES: u64 = 10_000;
const UPDATE_PACE: Duration = Duration::from_micros(50);

/// The frames of a connection so far.
#[derive(Debug)]
pub(super) struct Census {
    began: Instant,
    /// Of the frame being read: what is still to come.
    left: usize,
    head: [u8; HEAD],
    filled: usize,
    /// Of the preface.
    preface: usize,
    purposeful: u64,
    opened: u64,
    control: u64,
    resets: u64,
    updates: u64,
}

impl Census {
    /// Nothing was read yet.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            left: 0,
            head: [0; HEAD],
            filled: 0,
            preface: 24,
            purposeful: 0,
            opened: 0,
            control: 0,
            resets: 0,
            updates: 0,
        }
    }

    /// Walks over bytes that came. `true`: it is too much.
    pub(super) fn flooded_by(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.preface + self.left);
            if skipped > 0 {
                let of_preface = skipped.min(self.preface);
                self.preface -= of_preface;
                self.left -= skipped - of_preface;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEAD - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if self.count(kind) {
                    return true;
                }
            }
        }
        false
    }

    /// Counts a frame. Time is only asked for where a count is high.
    fn count(&mut self, kind: u8) -> bool {
        match kind {
            DATA | CONTINUATION => self.purposeful += 1,
            HEADERS => {
                self.purposeful += 1;
                self.opened += 1;
            }
            RST_STREAM => {
                self.resets += 1;
                return self.resets > RESETS + self.opened / 2;
            }
            WINDOW_UPDATE => {
                self.updates += 1;
                return self.updates > UPDATES + self.purposeful
                    && self.updates > UPDATES + self.purposeful + self.paces(UPDATE_PACE);
            }
            _ => {
                self.control += 1;
                return self.control > CONTROL + self.purposeful
                    && self.control > CONTROL + self.purposeful + self.paces(CONTROL_PACE);
            }
        }
        false
    }

    fn paces(&self, pace: Duration) -> u64 {
        u64::try_from(self.began.elapsed().as_micros() / pace.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(6, length.into()));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_counted_wherever_reads_cut_them() {
        let bytes =
            [vec![0; 24], frame(DATA, 200), frame(6, 8), frame(HEADERS, 0), frame(RST_STREAM, 4)].concat();
        for size in [1, 2, 7, 9, 10, 64, 1000] {
            let mut census = Census::new();
            assert!(!bytes.chunks(size).any(|piece| census.flooded_by(piece)));
            let counted = (census.purposeful, census.opened, census.control, census.resets);
            assert_eq!(counted, (2, 1, 1, 1), "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_flood_is_one() {
        let check = |kinds: &[u8], limit: u64| {
            let mut census = Census { preface: 0, ..Census::new() };
            let mut sent = 0;
            while !kinds.iter().any(|kind| census.flooded_by(&frame(*kind, 8))) && sent < 20_000 {
                sent += 1;
            }
            assert_eq!(sent, limit, "{kinds:?}");
        };
        check(&[6], 1_000);
        check(&[4], 1_000);
        check(&[2], 1_000);
        check(&[8], 10_000);
        check(&[HEADERS, RST_STREAM], 400);
        // A request with a few of each is none.
        check(&[HEADERS, DATA, 8, 8, 6], 20_000);
        check(&[HEADERS, HEADERS, RST_STREAM], 20_000);
        let mut census = Census { preface: 0, ..Census::new() };
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_millis(11)).await;
            assert!(!census.flooded_by(&frame(6, 8)));
        }
    }
}

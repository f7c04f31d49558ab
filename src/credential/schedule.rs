//! The schedule: a pure function from what is held, the time and a jitter to the next action.
//!
//! Owns: every number of the refresh policy. Knows no clock, no store and no network, so that a year of
//! a token's life is a table in a test.

use std::time::Duration;

use super::state::{Phase, State};
use crate::clock::BootTime;

/// The pause after a failure that only a person or time can mend.
pub const SLOW_RETRY: Duration = Duration::from_secs(30 * 60);
/// How often a forgotten refresh token is used at least, whatever the access token's life.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Tokens that live no longer than this give the spacing rule way.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(60);
/// The least pause of a backoff: full jitter may draw nothing at all.
const LEAST_BACKOFF: Duration = Duration::from_millis(250);

/// A number between 0 and 1 that spreads what many processes would do at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// A random one.
    pub fn draw() -> Self {
        Self(fastrand::f64())
    }

    /// A chosen one; what lies outside 0 to 1 is brought there.
    pub fn at(part: f64) -> Self {
        Self(if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) })
    }

    fn of(self, whole: Duration) -> Duration {
        whole.mul_f64(self.0)
    }
}

/// What decides when a token is refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// L: the access token's life, from the moment the request was sent.
    pub lifetime: Duration,
    /// What the provider said about an early refresh.
    pub refresh_in: Option<Duration>,
    /// R: the refresh token's life where it is known.
    pub refresh_token_lifetime: Option<Duration>,
    /// Whether the old access token dies at the refresh: then it is refreshed late.
    pub kills_old_access_token: bool,
    /// `refresh.at`, in parts per million of L.
    pub refresh_at_ppm: Option<u32>,
}

impl Terms {
    /// How long after the request a refresh is due: never later than half of R, a day, or the hard stop.
    pub fn soft_after(&self, jitter: Jitter) -> Duration {
        let life = self.lifetime;
        let told = self.refresh_in.filter(|told| !told.is_zero() && *told < life);
        let (point, spread) = match (self.refresh_at_ppm, told) {
            (Some(ppm), _) => (life.mul_f64(f64::from(ppm) / 1e6), life / 10),
            (None, _) if self.kills_old_access_token => {
                let late = life.mul_f64(0.8).max(life.saturating_sub(Duration::from_secs(300)));
                (late, (life - late) / 4)
            }
            (None, Some(told)) => (told, life / 10),
            (None, None) if life >= Duration::from_secs(2 * 3600) => (life / 2, life / 10),
            (None, None) if life > Duration::from_secs(60) => (life.mul_f64(0.75), life / 10),
            (None, None) => (life / 2, life / 10),
        };
        let capped = match self.refresh_token_lifetime {
            Some(other) => point.min(other / 2),
            None => point,
        }
        .min(LONGEST_PAUSE)
        .min(hard_after(life));
        capped - jitter.of(spread.min(capped / 5))
    }
}

/// How long after the request the token is sent for the last time.
pub fn hard_after(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(Duration::from_secs(10).min(lifetime / 10))
}

/// How long after the request a refresh token in doubt is sent again: the life left is then the larger of
/// 15 s and a tenth.
pub fn late_after(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(Duration::from_secs(15).max(lifetime / 10))
}

/// The pause after the `failures`-th failure in a row (from 1): doubling from 1 s to 60 s, full jitter.
pub fn backoff(failures: u32, jitter: Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let most = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LAST_BACKOFF);
    jitter.of(most).max(LEAST_BACKOFF)
}

/// The least time between two token requests of one credential.
pub fn spacing(min_interval: Duration, lifetime: Option<Duration>) -> Duration {
    match lifetime {
        Some(life) if life <= SHORT_LIFE => min_interval.min(life.mul_f64(0.4)),
        // A `min_interval` set longer than the tokens live would be an outage of our own making.
        Some(life) => min_interval.min(life.mul_f64(0.4).max(Duration::from_secs(5))),
        None => min_interval,
    }
}

/// How long a refresh that is overdue at the start waits while its token is still good: replicas that
/// start together spread out.
pub fn start_pause(life: &TokenLife, now: BootTime, jitter: Jitter) -> Duration {
    let left = life.hard().since(now);
    jitter.of((life.terms.lifetime / 10).min(left / 2))
}

/// The life of the token that is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLife {
    /// When the provider lets it die.
    pub expires: BootTime,
    /// What decides about it.
    pub terms: Terms,
    /// Drawn once a token.
    pub jitter: Jitter,
}

impl TokenLife {
    /// From here on it is refreshed.
    pub fn soft(&self) -> BootTime {
        self.before_end(self.terms.soft_after(self.jitter))
    }

    /// From here on it is never sent.
    pub fn hard(&self) -> BootTime {
        self.before_end(hard_after(self.terms.lifetime))
    }

    /// From here on a refresh token in doubt is sent again.
    pub fn late(&self) -> BootTime {
        self.before_end(late_after(self.terms.lifetime))
    }

    /// Counted from the end: the beginning may lie before the machine's boot.
    fn before_end(&self, after_begin: Duration) -> BootTime {
        self.expires.minus(self.terms.lifetime.saturating_sub(after_begin))
    }
}

/// A refresh token that may have been spent without our hearing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// When it was sent first.
    pub first_sent: BootTime,
    /// How long after that the provider takes it again.
    pub grace: Duration,
    /// Whether the credential's own grant can be used instead.
    pub unattended: bool,
    /// Not before this, whatever else says so: backoff and `Retry-After`.
    pub not_before: BootTime,
}

impl Doubt {
    fn in_grace(&self, now: BootTime) -> bool {
        let end = self.first_sent.plus(self.grace);
        now < end && self.not_before < end
    }

    fn due(&self, token: Option<&TokenLife>, now: BootTime) -> BootTime {
        if self.unattended || self.in_grace(now) {
            return self.not_before;
        }
        token.map_or(now, TokenLife::late).max(self.not_before)
    }
}

/// All that the next action depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// The token that is held, dead or alive.
    pub token: Option<TokenLife>,
    /// What stands in the way.
    pub phase: Phase,
    /// When the last token request was sent that may have reached the provider.
    pub last_request: Option<BootTime>,
    /// `refresh.min_interval`.
    pub min_interval: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a token request now.
    Refresh,
    /// Nothing before this moment.
    Wait(BootTime),
    /// Nothing until somebody changes something.
    Rest,
}

/// The next action.
pub fn next(view: &View, now: BootTime) -> Action {
    let token = view.token.as_ref();
    let due = match view.phase {
        Phase::Dead | Phase::AwaitingLogin | Phase::Standing => return Action::Rest,
        Phase::Ready => token.map_or(now, TokenLife::soft),
        Phase::Wanted => now,
        Phase::Waiting { until } | Phase::Misconfigured { until } => until,
        Phase::InDoubt(doubt) => doubt.due(token, now),
    };
    let hurried = matches!(view.phase, Phase::InDoubt(doubt) if doubt.in_grace(now));
    let due = match view.last_request {
        Some(last) if !hurried => {
            due.max(last.plus(spacing(view.min_interval, token.map(|token| token.terms.lifetime))))
        }
        _ => due,
    };
    if due <= now { Action::Refresh } else { Action::Wait(due) }
}

/// The state to show. `tried`: whether one attempt has ended.
pub fn state(view: &View, tried: bool, now: BootTime) -> State {
    match view.phase {
        Phase::Dead => State::Dead,
        Phase::AwaitingLogin => State::AwaitingLogin,
        Phase::Standing => State::Fresh,
        Phase::Misconfigured { .. } => State::Misconfigured,
        Phase::InDoubt(_) => State::InDoubt,
        Phase::Ready | Phase::Wanted | Phase::Waiting { .. } => match &view.token {
            None if tried => State::Expired,
            None => State::Starting,
            Some(token) if now >= token.hard() => State::Expired,
            Some(token) if now >= token.soft() => State::Stale,
            Some(_) => State::Fresh,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    const DAY: u64 = 86_400;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn boot(count: u64) -> BootTime {
        BootTime::from_boot(seconds(1_000_000 + count))
    }

    fn terms(lifetime: u64) -> Terms {
        Terms {
            lifetime: seconds(lifetime),
            refresh_in: None,
            refresh_token_lifetime: None,
            kills_old_access_token: false,
            refresh_at_ppm: None,
        }
    }

    fn life(lifetime: u64) -> TokenLife {
        TokenLife { expires: boot(lifetime), terms: terms(lifetime), jitter: Jitter::at(0.0) }
    }

    fn view(lifetime: u64, phase: Phase) -> View {
        View { token: Some(life(lifetime)), phase, last_request: Some(boot(0)), min_interval: seconds(5) }
    }

    #[test]
    fn the_soft_point_follows_the_lifetime() {
        let check = |terms: Terms, latest: u64, earliest: u64| {
            let at = |jitter: f64| terms.soft_after(Jitter::at(jitter)).as_secs_f64();
            assert!((at(0.0) - latest as f64).abs() < 0.01, "{terms:?}: {} for {latest}", at(0.0));
            assert!((at(1.0) - earliest as f64).abs() < 0.01, "{terms:?}: {} for {earliest}", at(1.0));
        };
        check(terms(20), 10, 8);
        check(terms(60), 30, 24);
        check(terms(100), 75, 65);
        check(terms(HOUR), 2700, 2340);
        check(terms(2 * HOUR), HOUR, 2880);
        check(terms(10 * HOUR), 5 * HOUR, 4 * HOUR);
        check(Terms { refresh_at_ppm: Some(900_000), ..terms(1000) }, 900, 800);
        check(Terms { refresh_at_ppm: Some(1_000_000), ..terms(1000) }, 990, 890);
        check(Terms { refresh_in: Some(seconds(12 * HOUR)), ..terms(24 * HOUR) }, 12 * HOUR, 34_560);
    }

    #[test]
    fn case_50_refresh_in_is_honoured_and_jittered() {
        let told = Terms { refresh_in: Some(seconds(1000)), ..terms(HOUR) };
        assert_eq!(told.soft_after(Jitter::at(0.0)), seconds(1000));
        assert_eq!(told.soft_after(Jitter::at(1.0)), seconds(800));
        for useless in [0, HOUR, 2 * HOUR] {
            let told = Terms { refresh_in: Some(seconds(useless)), ..terms(HOUR) };
            assert_eq!(told.soft_after(Jitter::at(0.0)), seconds(2700), "refresh_in {useless}");
        }
    }

    #[test]
    fn case_08_a_year_long_token_is_refreshed_within_half_of_its_refresh_tokens_life() {
        let year = Terms { refresh_token_lifetime: Some(seconds(7 * DAY)), ..terms(31_556_952) };
        for jitter in [0.0, 0.5, 1.0] {
            let soft = year.soft_after(Jitter::at(jitter));
            assert!(soft <= seconds(7 * DAY / 2) && soft <= seconds(DAY), "{soft:?}");
            assert!(soft >= seconds(DAY / 2), "{soft:?} is a storm");
        }
        let short = Terms { refresh_token_lifetime: Some(seconds(30 * MINUTE)), ..terms(31_556_952) };
        assert_eq!(short.soft_after(Jitter::at(0.0)), seconds(15 * MINUTE));
    }

    #[test]
    fn case_67_a_refresh_token_that_dies_with_its_access_token_is_used_before() {
        for lifetime in [12, 60, 300, HOUR, 10 * HOUR, 40 * DAY] {
            for kills_old_access_token in [false, true] {
                let together = Terms {
                    refresh_token_lifetime: Some(seconds(lifetime)),
                    kills_old_access_token,
                    ..terms(lifetime)
                };
                assert!(together.soft_after(Jitter::at(0.0)) <= seconds(lifetime) / 2, "{lifetime}");
            }
        }
    }

    #[test]
    fn a_provider_that_kills_the_old_token_is_asked_late() {
        let check = |lifetime: u64, expected: u64| {
            let late = Terms { kills_old_access_token: true, ..terms(lifetime) };
            assert_eq!(late.soft_after(Jitter::at(0.0)), seconds(expected), "{lifetime}");
            assert!(late.soft_after(Jitter::at(1.0)) >= seconds(lifetime).mul_f64(0.75), "{lifetime}");
        };
        check(8 * HOUR, 8 * HOUR - 300);
        check(HOUR, HOUR - 300);
        check(100, 80);
    }

    #[test]
    fn a_token_is_never_sent_after_its_hard_stop() {
        let check = |lifetime: u64, expected: f64| {
            assert_eq!(hard_after(seconds(lifetime)).as_secs_f64(), expected, "{lifetime}");
            let soft =
                Terms { refresh_at_ppm: Some(1_000_000), ..terms(lifetime) }.soft_after(Jitter::at(0.0));
            assert!(soft <= hard_after(seconds(lifetime)));
        };
        check(HOUR, 3590.0);
        check(100, 90.0);
        check(30, 27.0);
        check(1, 0.9);
        check(315_360_000, 315_359_990.0);
    }

    #[test]
    fn backoff_doubles_to_a_minute_with_full_jitter() {
        let check = |failures: u32, most: f64| {
            assert_eq!(backoff(failures, Jitter::at(1.0)).as_secs_f64(), most, "{failures}");
            assert_eq!(backoff(failures, Jitter::at(0.0)), LEAST_BACKOFF);
        };
        check(1, 1.0);
        check(2, 2.0);
        check(3, 4.0);
        check(6, 32.0);
        check(7, 60.0);
        check(u32::MAX, 60.0);
    }

    #[test]
    fn the_spacing_gives_way_to_short_lives_only() {
        let check = |lifetime: Option<u64>, expected: f64| {
            assert_eq!(spacing(seconds(5), lifetime.map(seconds)).as_secs_f64(), expected, "{lifetime:?}");
        };
        check(None, 5.0);
        check(Some(HOUR), 5.0);
        check(Some(11), 5.0);
        check(Some(10), 4.0);
        check(Some(2), 0.8);
        assert_eq!(spacing(seconds(60), Some(seconds(30))), seconds(12));
    }

    #[test]
    fn each_phase_has_its_next_action() {
        let check = |view: View, now: u64, expected: Action| {
            assert_eq!(next(&view, boot(now)), expected, "{view:?} at {now}");
        };
        let doubt = Doubt {
            first_sent: boot(2700),
            grace: Duration::ZERO,
            unattended: false,
            not_before: boot(2700),
        };
        check(view(HOUR, Phase::Ready), 10, Action::Wait(boot(2700)));
        check(view(HOUR, Phase::Ready), 2700, Action::Refresh);
        check(view(HOUR, Phase::Wanted), 10, Action::Refresh);
        check(view(HOUR, Phase::Wanted), 1, Action::Wait(boot(5)));
        check(view(HOUR, Phase::Waiting { until: boot(2710) }), 2700, Action::Wait(boot(2710)));
        check(view(HOUR, Phase::Waiting { until: boot(1) }), 2, Action::Wait(boot(5)));
        check(view(HOUR, Phase::Misconfigured { until: boot(5000) }), 4000, Action::Wait(boot(5000)));
        check(view(HOUR, Phase::Misconfigured { until: boot(5000) }), 5000, Action::Refresh);
        check(view(HOUR, Phase::Dead), 99_999, Action::Rest);
        check(view(HOUR, Phase::AwaitingLogin), 99_999, Action::Rest);
        let nothing = View { token: None, last_request: None, ..view(HOUR, Phase::Ready) };
        check(nothing, 0, Action::Refresh);
        // In doubt: late, then by backoff.
        check(view(HOUR, Phase::InDoubt(doubt)), 2701, Action::Wait(boot(HOUR - 360)));
        check(view(HOUR, Phase::InDoubt(doubt)), HOUR - 360, Action::Refresh);
        let later = Doubt { not_before: boot(HOUR + 7), ..doubt };
        check(view(HOUR, Phase::InDoubt(later)), HOUR - 360, Action::Wait(boot(HOUR + 7)));
        check(view(60, Phase::InDoubt(Doubt { first_sent: boot(30), not_before: boot(30), ..doubt })), 44, {
            Action::Wait(boot(45))
        });
        // In doubt with the own grant at hand: at once.
        check(view(HOUR, Phase::InDoubt(Doubt { unattended: true, ..doubt })), 2701, Action::Refresh);
    }

    #[test]
    fn case_37_a_grace_window_is_used_at_once_and_counted_from_the_first_send() {
        let doubt = |not_before: u64| {
            Phase::InDoubt(Doubt {
                first_sent: boot(2700),
                grace: seconds(30),
                unattended: false,
                not_before: boot(not_before),
            })
        };
        let with = |phase: Phase| View { last_request: Some(boot(2701)), ..view(HOUR, phase) };
        assert_eq!(next(&with(doubt(2702)), boot(2702)), Action::Refresh, "the spacing gives way");
        assert_eq!(next(&with(doubt(2720)), boot(2702)), Action::Wait(boot(2720)));
        let late = Action::Wait(boot(HOUR - 360));
        assert_eq!(next(&with(doubt(2729)), boot(2731)), late, "the window is over");
        assert_eq!(next(&with(doubt(2735)), boot(2729)), late, "the backoff leads out of the window");
    }

    #[test]
    fn case_51_a_hundred_replicas_spread_their_refreshes() {
        let mut points: Vec<Duration> = (0..100).map(|_| terms(HOUR).soft_after(Jitter::draw())).collect();
        points.sort();
        let width = points[99] - points[0];
        assert!(width > seconds(250) && width <= seconds(360), "{width:?}");
        let crowded = points.windows(20).any(|twenty| twenty[19] - twenty[0] < seconds(10));
        assert!(!crowded, "{points:?}");
        // And those that start when the refresh is overdue already.
        let overdue = life(HOUR);
        let mut pauses: Vec<Duration> =
            (0..100).map(|_| start_pause(&overdue, boot(3000), Jitter::draw())).collect();
        pauses.sort();
        assert!(pauses[99] - pauses[0] > seconds(200), "{pauses:?}");
        assert!(pauses[99] < overdue.hard().since(boot(3000)));
    }

    #[test]
    fn case_49_short_tokens_are_asked_for_in_time_and_not_too_often() {
        for lifetime in [1, 2, 5, 10, 11, 12, 20, 30] {
            for jitter in [0.0, 0.3, 1.0] {
                let token = TokenLife { jitter: Jitter::at(jitter), ..life(lifetime) };
                let view = View { token: Some(token), ..view(lifetime, Phase::Ready) };
                let Action::Wait(due) = next(&view, boot(0)) else { panic!("at once for {lifetime} s") };
                assert!(due < token.hard(), "{lifetime} s: due after the hard stop");
                if lifetime > 10 {
                    assert!(due >= boot(5), "{lifetime} s: two requests within 5 s");
                }
            }
        }
    }

    #[test]
    fn a_token_from_before_the_boot_keeps_its_points() {
        let now = BootTime::from_boot(seconds(20));
        let token = TokenLife {
            expires: BootTime::from_boot(seconds(1800)),
            terms: terms(HOUR),
            jitter: Jitter::at(0.0),
        };
        assert_eq!(token.soft(), BootTime::from_boot(seconds(900)));
        assert_eq!(token.hard(), BootTime::from_boot(seconds(1790)));
        let view =
            View { token: Some(token), phase: Phase::Ready, last_request: None, min_interval: seconds(5) };
        assert_eq!(next(&view, now), Action::Wait(BootTime::from_boot(seconds(900))));
    }

    #[test]
    fn the_state_is_told_by_phase_and_time() {
        let check = |view: View, now: u64, expected: State| {
            assert_eq!(state(&view, true, boot(now)), expected, "{view:?} at {now}");
        };
        check(view(HOUR, Phase::Ready), 10, State::Fresh);
        check(view(HOUR, Phase::Waiting { until: boot(9999) }), 2700, State::Stale);
        check(view(HOUR, Phase::Ready), 3590, State::Expired);
        check(view(HOUR, Phase::Dead), 10, State::Dead);
        check(view(HOUR, Phase::Misconfigured { until: boot(1) }), 10, State::Misconfigured);
        let nothing = View { token: None, ..view(HOUR, Phase::Ready) };
        check(nothing, 0, State::Expired);
        assert_eq!(state(&nothing, false, boot(0)), State::Starting);
    }

    #[test]
    fn case_35_endless_failures_are_bounded_to_one_request_a_spacing() {
        let mut now = boot(2700);
        let mut failures = 0;
        let mut requests = 0;
        let mut view = view(HOUR, Phase::Ready);
        while now < boot(2700 + HOUR) {
            match next(&view, now) {
                Action::Refresh => {
                    requests += 1;
                    failures += 1;
                    view.last_request = Some(now);
                    view.phase = Phase::Waiting { until: now.plus(backoff(failures, Jitter::draw())) };
                }
                Action::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Action::Rest => panic!("given up"),
            }
        }
        assert!((60..720).contains(&requests), "{requests} requests in an hour of failures");
    }
}

//! The states of a credential: what is shown of it, and the phases that its schedule works with.

use super::schedule::Doubt;
use crate::clock::BootTime;

/// Where a credential stands. Names as the API shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing was tried yet.
    Starting,
    /// No usable seed and no record: a person must log in.
    AwaitingLogin,
    /// A token well within its life.
    Fresh,
    /// A token that is served while a new one is fetched.
    Stale,
    /// The token is past its hard stop; a new one is being fetched.
    Expired,
    /// A token request may have been carried out without our hearing of it.
    InDoubt,
    /// The provider refuses the request as it is configured.
    Misconfigured,
    /// The refresh token is gone and nothing can replace it unattended.
    Dead,
}

impl State {
    /// All, in the order of the life of a credential.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::AwaitingLogin,
        Self::Fresh,
        Self::Stale,
        Self::Expired,
        Self::InDoubt,
        Self::Misconfigured,
        Self::Dead,
    ];

    /// The name in the API, metrics and problem documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::AwaitingLogin => "awaiting_login",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::InDoubt => "in_doubt",
            Self::Misconfigured => "misconfigured",
            Self::Dead => "dead",
        }
    }
}

/// What stands between a credential and its next token: what the schedule works with. Finer than
/// [`State`] in what it waits for, coarser in time, which the schedule adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Nothing: refresh when the schedule says so.
    Ready,
    /// Refresh as soon as the spacing allows: somebody asked, a seed is new, the clocks disagree.
    Wanted,
    /// A failure that passes by itself.
    Waiting {
        /// Not before this.
        until: BootTime,
    },
    /// The last token request may have been carried out.
    InDoubt(Doubt),
    /// Somebody must change something; tried again slowly.
    Misconfigured {
        /// Not before this, unless something changes.
        until: BootTime,
    },
    /// A static token: served as long as it stands where it is read from; nothing is ever due.
    Standing,
    /// There is no refresh token.
    AwaitingLogin,
    /// The refresh token was refused for good.
    Dead,
}

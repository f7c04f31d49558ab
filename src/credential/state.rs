//! The states of a credential.

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

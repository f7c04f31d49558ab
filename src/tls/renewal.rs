//! Certificates that change while the process runs, and those that end.
//!
//! Owns: looking at the files of listeners and upstreams, and what is said of them. Runs on the control plane; handshakes only ever
//! see a whole new configuration.

use std::sync::Arc;
use std::time::Duration;

use super::TlsError;
use super::mint::Mint;
use super::server::TlsServer;
use super::source::TlsSource;
use super::tickets;
use super::x509::Standing;
use crate::clock::{BootTime, Clock};
use crate::file_watch::FileWatch;
use crate::names::Name;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The same for what upstreams are shown: a token that is bound to it may follow within a second.
const LOOK_UPSTREAM: Duration = Duration::from_millis(250);
/// How often changed files are read until it is said that they cannot be used.
const TRIES: u8 = 2;
/// How often a certificate that ends is spoken of.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// Keeps the certificate of one listener current for ever.
pub async fn keep(listener: Name, server: Arc<TlsServer>, clock: Clock) {
    let files = FileWatch::begin(server.watched_files()).await;
    let mut renewal = Renewal {
        listener,
        server,
        files,
        trouble: Trouble::None,
        rotate_at: clock.boot().plus(tickets::ROTATION),
        remind_at: clock.boot(),
        clock,
    };
    // They may have changed between the start and the first look.
    let before = renewal.server.certificate();
    match renewal.reload().await {
        Ok(()) if renewal.server.certificate() == before => {}
        Ok(()) => renewal.replaced(),
        Err(_) => renewal.trouble = Trouble::Fresh,
    }
    loop {
        renewal.look().await;
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps the authority of one listener current for ever. The leaves that it signed go with it.
pub async fn keep_mint(listener: Name, mint: Arc<Mint>) {
    let files = FileWatch::begin(mint.watched_files()).await;
    let reread = Arc::clone(&mint);
    follow(files, LOOK, move || reread.reload(), |outcome| match outcome {
        Ok(()) => {
            let fingerprint = mint.fingerprint().to_hex();
            tracing::info!(%listener, sha256 = fingerprint, "the changed interception CA is in use");
        }
        Err(error) => tracing::warn!(
            %listener,
            %error,
            "the changed interception CA cannot be used; the last good one stays in use until it is mended"
        ),
    })
    .await;
}

/// Keeps what an upstream is shown, and whom it is believed by, current for ever. The connections of before take no
/// more requests.
pub async fn keep_source(listener: Name, route: Name, source: Arc<TlsSource>) {
    let files = FileWatch::begin(source.watched_files()).await;
    let reread = Arc::clone(&source);
    follow(files, LOOK_UPSTREAM, move || reread.reload(), |outcome| match outcome {
        Ok(()) => tracing::info!(%listener, %route, "changed TLS files of an upstream are in use"),
        Err(error) => {
            source.refuse();
            tracing::warn!(
                %listener,
                %route,
                %error,
                "the changed TLS files of an upstream cannot be used; the last good ones stay in use until they are mended"
            );
        }
    })
    .await;
}

/// Reads files again whenever they have changed, for ever, and tells how that went.
async fn follow(
    mut files: FileWatch,
    pause: Duration,
    reload: impl Fn() -> Result<(), TlsError> + Send + Sync + 'static,
    told: impl Fn(Result<(), TlsError>),
) {
    let reload = Arc::new(reload);
    let mut tries = 0_u8;
    loop {
        if files.changed().await {
            // One of the files may be written and the other not yet.
            tries = TRIES;
        }
        if tries > 0 {
            tries -= 1;
            let reload = Arc::clone(&reload);
            #[allow(clippy::disallowed_methods, reason = "a file read, joined at once")]
            let reading = tokio::task::spawn_blocking(move || reload()).await;
            match reading {
                Ok(Ok(())) => {
                    tries = 0;
                    told(Ok(()));
                }
                Ok(Err(error)) if tries == 0 => told(Err(error)),
                // Cancelled only when the process stops.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        tokio::time::sleep(pause).await;
    }
}

struct Renewal {
    listener: Name,
    server: Arc<TlsServer>,
    files: FileWatch,
    trouble: Trouble,
    rotate_at: BootTime,
    remind_at: BootTime,
    clock: Clock,
}

/// What stands between the files and their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// None.
    None,
    /// They have changed.
    Unread,
    /// They could not be used when they were read first: one may have been written and the other not yet.
    Fresh,
    /// They cannot be used, and that was said.
    Told,
}

impl Renewal {
    async fn look(&mut self) {
        if self.files.changed().await {
            self.trouble = Trouble::Unread;
        }
        if matches!(self.trouble, Trouble::Unread | Trouble::Fresh) {
            self.read().await;
        }
        let now = self.clock.boot();
        if now >= self.rotate_at {
            self.rotate_at = now.plus(tickets::ROTATION);
            self.server.rotate_tickets();
        }
        if now >= self.remind_at {
            self.remind_at = now.plus(REMINDER);
            self.remind();
        }
    }

    async fn read(&mut self) {
        match self.reload().await {
            Ok(()) => {
                self.trouble = Trouble::None;
                self.replaced();
                self.remind_at = self.clock.boot();
            }
            Err(error) if self.trouble == Trouble::Fresh => self.complain(&error),
            Err(_) => self.trouble = Trouble::Fresh,
        }
    }

    async fn reload(&self) -> Result<(), TlsError> {
        let server = Arc::clone(&self.server);
        #[allow(clippy::disallowed_methods, reason = "a file read, joined at once")]
        let reading = tokio::task::spawn_blocking(move || server.reload());
        // Cancelled only when the process stops.
        reading.await.unwrap_or(Ok(()))
    }

    fn replaced(&self) {
        let certificate = self.server.certificate();
        tracing::info!(
            listener = %self.listener,
            path = %self.server.config().cert.display(),
            names = certificate.names.join(", "),
            expires_at = certificate.not_after.rfc3339(),
            "changed TLS files are in use"
        );
    }

    fn complain(&mut self, error: &TlsError) {
        self.trouble = Trouble::Told;
        tracing::warn!(
            listener = %self.listener,
            %error,
            "the changed TLS files cannot be used; the last good ones stay in use until they are mended"
        );
    }

    fn remind(&self) {
        let certificate = self.server.certificate();
        let (listener, path) = (&self.listener, self.server.config().cert.display());
        let (from, until) = (certificate.not_before.rfc3339(), certificate.not_after.rfc3339());
        match certificate.standing(self.clock.wall()) {
            Standing::Good => {}
            Standing::Ending => tracing::warn!(
                %listener, %path, expires_at = until,
                "the certificate expires soon: put a new one in its place, it is taken without a restart"
            ),
            Standing::Expired => tracing::error!(
                %listener, %path, expires_at = until,
                "the certificate has expired and clients refuse it: put a new one in its place"
            ),
            Standing::Early => tracing::error!(
                %listener, %path, not_before = from,
                "the certificate is not good yet and clients refuse it: is the clock right?"
            ),
        }
    }
}

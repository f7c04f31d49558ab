//! The life cycle of a credential against the embedded authorization server: what all its tests share.
//!
//! Real sockets, a real file store, and a clock that a test can step: a token of an hour is refreshed within
//! a second of real time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bearward::clock::{Clock, ManualClock, UnixTime};
use bearward::credential::{
    Credential, CredentialConfig, ForcedRefresh, RotationMode, Snapshot, State, identity, request_digest,
};
use bearward::idp::{Behaviour, DEFAULT_CLIENT, DEFAULT_SCOPE, DEFAULT_SECRET, Idp, Settings};
use bearward::names::Name;
use bearward::oauth::{BasicEncoding, ClientAuth, EndpointSource, Grant, OAuthConfig, preset};
use bearward::secret::{Secret, SecretSource};
use bearward::shutdown::Shutdown;
use bearward::store::{Record, Store, StoreConfig, StoreKind};
use bearward::tls::TlsClientConfig;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// Within this everything that is due has happened: the task looks around once a second.
const SOON: Duration = Duration::from_secs(12);

/// A provider, a clock and a directory.
pub(crate) struct World {
    pub(crate) idp: Idp,
    pub(crate) clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
}

/// One process's credential. Stops when dropped.
pub(crate) struct Replica {
    pub(crate) credential: Credential,
    pub(crate) shutdown: Shutdown,
}

impl World {
    /// A provider whose access tokens live for an hour.
    pub(crate) async fn new() -> Self {
        Self::with(Behaviour { access_token_lifetime: HOUR, ..Behaviour::default() }).await
    }

    pub(crate) async fn with(behaviour: Behaviour) -> Self {
        let clock = ManualClock::starting_at(UnixTime::from_millis(1_800_000_000_000));
        let settings = Settings { clock: Clock::Manual(clock.clone()), behaviour, ..Settings::default() };
        let idp = Idp::start(settings).await.expect("the provider starts");
        Self { idp, clock, folder: tempfile::tempdir().expect("tempdir") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::Manual(self.clock.clone())
    }

    /// Writes a seed where [`World::config`] looks for it.
    pub(crate) fn put_seed(&self, seed: &Secret) {
        std::fs::write(self.path("seed"), seed.expose()).expect("write");
    }

    /// A new family's refresh token, put in place.
    pub(crate) fn seeded(&self) -> Secret {
        let seed = self.idp.new_seed();
        self.put_seed(&seed);
        seed
    }

    pub(crate) fn config(&self) -> CredentialConfig {
        let seed = Some(SecretSource::File(self.path("seed")));
        CredentialConfig {
            name: Name::try_new("primavera").expect("a name"),
            oauth: OAuthConfig {
                endpoint: EndpointSource::Url(self.idp.token_endpoint().parse().expect("a URL")),
                preset: &preset::GENERIC,
                client_id: DEFAULT_CLIENT.into(),
                client_auth: ClientAuth::Basic {
                    secret: SecretSource::Value(Secret::from(DEFAULT_SECRET)),
                    encoding: BasicEncoding::Form,
                },
                grant: Grant::RefreshToken { seed },
                scope: Some(DEFAULT_SCOPE.into()),
                refresh_scope: None,
                audience: None,
                resource: Vec::new(),
                parameters: Default::default(),
                dpop: false,
                carried: Vec::new(),
                tls: TlsClientConfig::default(),
                login: Box::default(),
                outbound_proxy: None,
                connect_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(30),
            },
            allowed_upstreams: Vec::new(),
            injection: Box::default(),
            required: false,
            revoke_on_removal: false,
            rotation: RotationMode::Auto,
            grace: Duration::ZERO,
            refresh_at_ppm: None,
            min_interval: Duration::from_secs(5),
            default_lifetime: Duration::from_secs(600),
            refresh_token_lifetime: None,
        }
    }

    /// The secret in a file that the configuration names.
    pub(crate) fn config_with_secret_file(&self, secret: &str) -> CredentialConfig {
        std::fs::write(self.path("secret"), secret).expect("write");
        let mut config = self.config();
        config.oauth.client_auth = ClientAuth::Basic {
            secret: SecretSource::File(self.path("secret")),
            encoding: BasicEncoding::Form,
        };
        config
    }

    pub(crate) async fn store(&self) -> Store {
        open(&self.path("state")).await
    }

    /// Another process on the same directory.
    pub(crate) async fn start(&self, config: CredentialConfig) -> Replica {
        let store = self.store().await;
        Box::pin(self.start_on(config, store)).await
    }

    pub(crate) async fn start_on(&self, config: CredentialConfig, store: Store) -> Replica {
        let shutdown = Shutdown::new();
        let credential =
            Box::pin(Credential::start(config, store, self.clock(), &shutdown)).await.expect("it starts");
        Replica { credential, shutdown }
    }

    /// The record on disk.
    pub(crate) async fn record(&self) -> Record {
        let name = Name::try_new("primavera").expect("a name");
        self.store().await.load(&name).await.expect("readable").expect("a record")
    }

    /// Writes a record as an earlier process would have left it.
    pub(crate) async fn leave_record(&self, change: impl FnOnce(&mut Record)) {
        let config = self.config();
        let store = self.store().await;
        let found = store.load(&config.name).await.expect("readable");
        let mut record = found.unwrap_or_else(|| Record::new(identity(&config.oauth)));
        record.request_digest = request_digest(&config.oauth);
        change(&mut record);
        let lease = store.try_lease(&config.name).await.expect("a store").expect("a free lease");
        store.commit(&lease, record.version, &record).await.expect("written");
    }

    /// Token requests that were sent with this refresh token.
    pub(crate) fn posts_of(&self, refresh_token: &Secret) -> usize {
        let wanted = Some(refresh_token.fingerprint());
        self.idp.log().iter().filter(|entry| entry.refresh_token == wanted).count()
    }

    /// No refresh token was ever sent twice, and every family lives.
    pub(crate) fn assert_nothing_spent_twice(&self) {
        for family in self.idp.families() {
            assert!(family.is_alive(), "{family:?}");
            assert!(family.most_posts() <= 1, "{family:?}");
        }
    }

    /// The same, where failed requests were sent on purpose.
    pub(crate) fn assert_families_live(&self, most_posts: u64) {
        for family in self.idp.families() {
            assert!(family.is_alive() && family.most_posts() <= most_posts, "{family:?}");
        }
    }
}

pub(crate) async fn open(path: &Path) -> Store {
    let kind = StoreKind::File { path: Some(path.to_owned()) };
    Store::open(&StoreConfig { kind, encryption: Vec::new() }).await.expect("the store opens")
}

impl Replica {
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.credential.snapshot()
    }

    pub(crate) fn state(&self) -> State {
        self.snapshot().state
    }

    /// What a request would carry now, without its scheme.
    pub(crate) fn bearer(&self, world: &World) -> Option<Secret> {
        let mut reader = self.credential.cell().reader();
        let (header, _) = reader.authorize(world.clock().boot()).ok()?;
        let text = std::str::from_utf8(header.as_bytes()).expect("ASCII");
        Some(Secret::from(text.split_once(' ').expect("a scheme and a token").1))
    }

    /// A request carries a token that the API takes.
    pub(crate) fn assert_serves(&self, world: &World) {
        let bearer = self.bearer(world).expect("a token is served");
        assert!(world.idp.accepts(&bearer), "an expired or revoked token is served");
    }

    pub(crate) async fn generation(&self, wanted: u64) {
        self.until(&format!("generation {wanted}"), |now| now.generation >= wanted).await;
    }

    pub(crate) async fn state_is(&self, wanted: State) {
        self.until(&format!("state {wanted:?}"), |now| now.state == wanted).await;
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
        self.until_within(SOON, what, is_so).await;
    }

    pub(crate) async fn until_within(
        &self,
        patience: Duration,
        what: &str,
        is_so: impl Fn(&Snapshot) -> bool,
    ) {
        let begun = tokio::time::Instant::now();
        loop {
            let now = self.snapshot();
            if is_so(&now) {
                return;
            }
            assert!(begun.elapsed() < patience, "not within {patience:?}: {what}; {now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn refresh(&self) -> ForcedRefresh {
        tokio::time::timeout(SOON, self.credential.refresh()).await.expect("in time").expect("answered")
    }

    /// Ends in good order.
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(SOON, self.shutdown.finished()).await.expect("the task ends");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// Time for a task to do what it should not do.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1600)).await;
}

pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that can be killed: its tasks end where they stand, its locks are given back.
pub(crate) struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: Shutdown,
    pub(crate) credential: Credential,
}

impl Process {
    pub(crate) fn start(world: &World, config: CredentialConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (path, clock) = (world.path("state"), world.clock());
        let (sender, receiver) = std::sync::mpsc::channel();
        let shutdown = Shutdown::new();
        let its = shutdown.clone();
        runtime.spawn(async move {
            let shutdown = its;
            let store = open(&path).await;
            let started = Credential::start(config, store, clock, &shutdown).await.expect("it starts");
            sender.send(started).expect("the test waits");
            shutdown.begun().await;
        });
        let credential = tokio::task::block_in_place(|| receiver.recv().expect("started"));
        Self { runtime: Some(runtime), shutdown, credential }
    }

    /// Ends it in good order.
    pub(crate) fn stop(mut self) {
        let runtime = self.runtime.take().expect("not ended yet");
        self.shutdown.begin();
        tokio::task::block_in_place(|| runtime.block_on(self.shutdown.finished()));
        tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(5)));
    }

    pub(crate) fn kill(mut self) {
        let runtime = self.runtime.take().expect("not killed yet");
        // Waits for what blocks, as a kernel finishes a write that it has begun.
        tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(5)));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

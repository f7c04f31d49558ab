//! The store contract as one suite that every kind runs in its tests.
//!
//! Owns: what each store must do, said once. A kind's own test gives two handles on one storage, as two
//! processes would have them, and adds only what the kind alone can suffer.

use std::time::Duration;

use super::{
    Identity, InFlight, Lease, Observed, Record, RecordState, Revocation, SecretPlace, Store, StoreError,
};
use crate::clock::UnixTime;
use crate::names::Name;
use crate::secret::{Fingerprint, Secret};

/// Runs the contract. `open` gives two handles on one new, empty storage at each call.
pub(crate) async fn suite(open: impl AsyncFn() -> (Store, Store)) {
    let pair = async || open().await;
    an_unknown_key_has_no_record(pair().await).await;
    every_field_survives(pair().await).await;
    versions_grow_by_one(pair().await).await;
    a_loser_changes_nothing(pair().await).await;
    the_same_write_twice_is_one(pair().await).await;
    a_lease_excludes_the_other_handle(pair().await).await;
    leases_of_two_keys_are_independent(pair().await).await;
    a_watch_hears_the_other_handle(pair().await).await;
    a_record_set_aside_makes_room(pair().await).await;
    all_records_are_listed(pair().await).await;
    a_strangers_lease_is_refused(pair().await, pair().await).await;
}

pub(crate) fn key(text: &str) -> Name {
    Name::try_new(text).expect("a name")
}

/// A record with every field set.
pub(crate) fn full_record() -> Record {
    let mut record = Record::new(Identity {
        endpoint: "https://idp.example/token".into(),
        client_id: "client".into(),
        subject: Some("user@example.com".into()),
    });
    record.refresh_token = Some(Secret::from("refresh-\"quoted\"-ü"));
    record.refresh_expires_at = Some(UnixTime::from_millis(1_800_000_604_800));
    record.access_token = Some(Secret::from("access-token-in-the-clear"));
    record.revocation = Some(Revocation {
        issuer: Some("https://idp.example".into()),
        token_endpoint: None,
        revocation_endpoint: None,
        preset: "generic".into(),
        client_auth: "client_secret_basic".into(),
        secret: Some(SecretPlace::File("/run/secrets/client".into())),
        raw: false,
        ca: None,
        outbound_proxy: None,
    });
    record.dpop_key = Some(Secret::from("access-token-key"));
    record.headers = vec![("x-tenant".into(), Secret::from("access-token-header"))];
    record.expires_at = Some(UnixTime::from_millis(1_800_000_003_600));
    record.obtained_at = Some(UnixTime::from_millis(1_800_000_000_001));
    record.refresh_in = Some(1800);
    record.scope = Some("read offline_access".into());
    record.request_digest = "d1".into();
    record.generation = 41;
    record.seeds_seen = vec![Fingerprint::of(b"seed").to_hex()];
    record.state = RecordState::InFlight(InFlight {
        owner: "owner-1".into(),
        since: UnixTime::from_millis(1_800_000_000_000),
        rt_hash: Fingerprint::of(b"rt").to_hex(),
    });
    record.observed = Observed {
        rotates: Some(true),
        kills_old_access_token: Some(false),
        refresh_token_lifetime: Some(604_800),
    };
    record
}

/// A record that holds one refresh token.
pub(crate) fn record_with(token: &str) -> Record {
    let mut record = Record::new(Identity::default());
    record.refresh_token = Some(Secret::from(token));
    record
}

/// The lease, which must be free.
pub(crate) async fn lease(store: &Store, key: &Name) -> Lease {
    store.try_lease(key).await.expect("try_lease").expect("the lease is free")
}

/// The refresh token that a store has.
pub(crate) async fn token(store: &Store, key: &Name) -> Option<String> {
    let record = store.load(key).await.expect("load")?;
    record.refresh_token.map(|token| token.expose().to_owned())
}

async fn an_unknown_key_has_no_record((a, _): (Store, Store)) {
    assert_eq!(a.load(&key("nobody")).await.expect("load"), None);
    assert_eq!(*a.watch(&key("nobody")).await.expect("watch").borrow(), 0);
    assert_eq!(a.list().await.expect("list"), []);
}

async fn every_field_survives((a, b): (Store, Store)) {
    // The longest name, and one that looks like the ending of some file.
    for key in [key(&"n".repeat(64)), key("a.lock"), key("a.record")] {
        let mut record = full_record();
        let held = lease(&a, &key).await;
        record.version = a.commit(&held, 0, &record).await.expect("commit");
        assert_eq!(b.load(&key).await.expect("load"), Some(record), "{key}");
    }
}

async fn versions_grow_by_one((a, b): (Store, Store)) {
    let key = key("k");
    for version in 1..=5 {
        let (writer, reader) = if version % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let held = lease(writer, &key).await;
        let written = writer.commit(&held, version - 1, &record_with(&format!("t{version}"))).await;
        assert_eq!(written.expect("commit"), version);
        let read = reader.load(&key).await.expect("load").expect("a record");
        assert_eq!((read.version, read.refresh_token), (version, Some(Secret::new(format!("t{version}")))));
    }
}

async fn a_loser_changes_nothing((a, b): (Store, Store)) {
    let key = key("k");
    let held = lease(&a, &key).await;
    a.commit(&held, 0, &record_with("one")).await.expect("commit");
    a.commit(&held, 1, &record_with("two")).await.expect("commit");
    drop(held);
    let held = lease(&b, &key).await;
    for stale in [0, 1, 3, u64::MAX] {
        match b.commit(&held, stale, &record_with("stale")).await {
            Err(StoreError::Conflict { key: named, found: 2 }) => assert_eq!(named, key),
            other => panic!("expected {stale}: {other:?}"),
        }
        assert_eq!(token(&a, &key).await.as_deref(), Some("two"));
    }
}

async fn the_same_write_twice_is_one((a, b): (Store, Store)) {
    let key = key("k");
    let held = lease(&a, &key).await;
    assert_eq!(a.commit(&held, 0, &record_with("one")).await.expect("commit"), 1);
    assert_eq!(a.commit(&held, 0, &record_with("one")).await.expect("the same commit again"), 1);
    assert_eq!(b.load(&key).await.expect("load").map(|record| record.version), Some(1));
}

async fn a_lease_excludes_the_other_handle((a, b): (Store, Store)) {
    let key = key("k");
    let held = lease(&a, &key).await;
    assert_eq!(held.key(), &key);
    assert!(a.try_lease(&key).await.expect("try_lease").is_none(), "the same handle");
    assert!(b.try_lease(&key).await.expect("try_lease").is_none(), "the other handle");
    drop(held);
    let held = lease(&b, &key).await;
    assert!(a.try_lease(&key).await.expect("try_lease").is_none());
    drop(held);
    lease(&a, &key).await;
}

async fn leases_of_two_keys_are_independent((a, b): (Store, Store)) {
    let first = lease(&a, &key("one")).await;
    let second = lease(&b, &key("two")).await;
    a.commit(&first, 0, &record_with("1")).await.expect("commit");
    b.commit(&second, 0, &record_with("2")).await.expect("commit");
    assert_eq!(token(&b, &key("one")).await.as_deref(), Some("1"));
    assert_eq!(token(&a, &key("two")).await.as_deref(), Some("2"));
}

async fn a_watch_hears_the_other_handle((a, b): (Store, Store)) {
    let key = key("k");
    let mut there = b.watch(&key).await.expect("watch");
    let mut here = a.watch(&key).await.expect("watch");
    let held = lease(&a, &key).await;
    for version in 1..=5 {
        a.commit(&held, version - 1, &record_with(&format!("t{version}"))).await.expect("commit");
        assert_eq!(*here.borrow_and_update(), version, "one's own commit is seen at once");
        let heard = there.wait_for(|seen| *seen == version);
        let heard = tokio::time::timeout(Duration::from_secs(1), heard).await;
        heard.expect("within a second").expect("the store is open");
    }
    assert_eq!(*b.watch(&key).await.expect("watch").borrow(), 5, "a late watcher begins at what is there");
}

async fn a_record_set_aside_makes_room((a, b): (Store, Store)) {
    let key = key("k");
    let held = lease(&a, &key).await;
    a.set_aside(&held, &key, "nothing is there").await.expect("set_aside of nothing");
    for round in 0..2 {
        let mut watch = b.watch(&key).await.expect("watch");
        a.commit(&held, 0, &record_with(&format!("family {round}"))).await.expect("commit");
        let heard = tokio::time::timeout(Duration::from_secs(1), watch.wait_for(|seen| *seen == 1)).await;
        heard.expect("within a second").expect("the store is open");
        a.set_aside(&held, &key, "the identity changed").await.expect("set_aside");
        assert_eq!(b.load(&key).await.expect("load"), None);
        assert_eq!(b.list().await.expect("list"), []);
        let heard = tokio::time::timeout(Duration::from_secs(1), watch.wait_for(|seen| *seen == 0)).await;
        heard.expect("within a second").expect("the store is open");
    }
    assert!(a.set_aside(&held, &self::key("other"), "wrong key").await.is_err());
}

async fn all_records_are_listed((a, b): (Store, Store)) {
    for name in ["zebra", "a.b-c", "a"] {
        let held = lease(&a, &key(name)).await;
        a.commit(&held, 0, &record_with(name)).await.expect("commit");
    }
    drop(lease(&a, &key("leased-only")).await);
    assert_eq!(b.list().await.expect("list"), [key("a"), key("a.b-c"), key("zebra")]);
}

async fn a_strangers_lease_is_refused((a, _): (Store, Store), (other, _): (Store, Store)) {
    let key = key("k");
    let held = lease(&other, &key).await;
    match a.commit(&held, 0, &record_with("stranger")).await {
        Err(StoreError::LeaseLost { key: named }) => assert_eq!(named, key),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.load(&key).await.expect("load"), None);
}

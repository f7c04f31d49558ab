//! The file store and what befalls disks, directories and files: each a clear message, nothing lost.
//!
//! Needs root, since full and read-only file systems are mounted: a test that cannot mount fails.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use bearward::store::{Store, StoreError};
use tempfile::TempDir;

use crate::store::{Player, key, lease, open, record_with, stored, try_open};

const KEY: &str = "fbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfb";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const PHRASE: &str = "correct horse battery staple";

/// A small tmpfs, unmounted when dropped.
struct Mount(TempDir);

impl Mount {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        run("mount", &["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"], folder.path());
        Self(folder)
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn remount(&self, mode: &str) {
        run("mount", &["-o", &format!("remount,{mode}")], self.0.path());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status().expect(program);
    assert!(status.success(), "{program} {arguments:?} {}: {status} (is this root?)", path.display());
}

/// A directory with one record in it.
async fn place_with(token: &str, keys: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("state");
    let store = try_open(&place, keys).await.expect("open");
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with(token)).await.expect("commit");
    (folder, place)
}

fn names(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place).expect("list");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn record_file(place: &Path) -> PathBuf {
    place.join("primavera.record")
}

#[tokio::test]
async fn case_41_a_full_disk_keeps_the_old_record_and_takes_the_new_one_when_there_is_room() {
    let mount = Mount::new();
    let place = mount.place();
    let store = open(&place).await;
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with("old")).await.expect("commit");
    let filler = mount.0.path().join("filler");
    let filled = std::fs::write(&filler, vec![0; 1 << 20]).expect_err("64 KiB do not take 1 MiB");
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let new = record_with(&"n".repeat(10_000));
    // Not even a new name fits, then a part of the record does.
    for room in [0, 8192] {
        let size = std::fs::metadata(&filler).expect("filler").len();
        std::fs::File::options()
            .write(true)
            .open(&filler)
            .and_then(|file| file.set_len(size - room))
            .expect("cut");
        let error = store.commit(&held, 1, &new).await.expect_err("the disk is full");
        let expected = format!(
            "cannot write {0}/primavera.record: no space is left: free some on the file system of {0} (`df -h {0}`)",
            place.display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(stored(&store).await, Some((1, "old".into())));
        assert_eq!(names(&place), ["primavera.lock", "primavera.record"], "no half-written file is left");
    }
    std::fs::remove_file(&filler).expect("remove");
    assert_eq!(store.commit(&held, 1, &new).await.expect("the same write again"), 2);
    assert_eq!(stored(&open(&place).await).await, Some((2, "n".repeat(10_000))));
}

#[tokio::test]
async fn a_read_only_file_system_serves_what_it_holds_and_says_that_it_takes_nothing() {
    let mount = Mount::new();
    let place = mount.place();
    let store = open(&place).await;
    mount.remount("ro");
    let refused = try_open(&place, &[]).await.expect_err("an empty store that takes nothing").to_string();
    assert!(
        refused.starts_with(&format!("cannot write to the state directory {}: ", place.display())),
        "{refused}"
    );
    assert!(refused.contains("mounted read-only: mount it writable"), "{refused}");
    mount.remount("rw");
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with("old")).await.expect("commit");
    drop(held);
    mount.remount("ro");
    let again = open(&place).await;
    for store in [&store, &again] {
        assert_eq!(stored(store).await, Some((1, "old".into())));
        let refused = store.try_lease(&key()).await.expect_err("no lease").to_string();
        assert!(refused.contains("primavera.lock: the file system is mounted read-only"), "{refused}");
    }
    mount.remount("rw");
    let held = lease(&again).await;
    assert_eq!(again.commit(&held, 1, &record_with("new")).await.expect("commit"), 2);
}

#[test]
fn permissions_taken_away_while_running_lose_nothing() {
    let folder = tempfile::tempdir().expect("tempdir");
    chmod(folder.path(), 0o755);
    let place = folder.path().join("state");
    std::fs::create_dir(&place).expect("create");
    run("chown", &["65534:65534"], &place);
    chmod(&place, 0o700);
    let mut player = Player::start_unprivileged("unprivileged", &place, &folder.path().join("program"));
    assert_eq!(player.hear().as_deref(), Some("suffered"));
    assert!(player.wait().success());
}

/// Played by another user than root, whom permissions do not bind.
pub(crate) async fn suffer_lost_permissions(place: &Path) {
    let store = open(place).await;
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with("old")).await.expect("commit");
    chmod(place, 0o500);
    let error = store.commit(&held, 1, &record_with("new")).await.expect_err("read-only").to_string();
    assert!(
        error.contains("permission denied to user 65534: give it the directory (`chown -R 65534 "),
        "{error}"
    );
    assert_eq!(stored(&store).await, Some((1, "old".into())));
    chmod(place, 0o000);
    let error = store.commit(&held, 1, &record_with("new")).await.expect_err("closed").to_string();
    assert!(error.contains("permission denied"), "{error}");
    let error = store.load(&key()).await.expect_err("closed").to_string();
    assert!(error.starts_with("cannot read ") && error.contains("permission denied"), "{error}");
    chmod(place, 0o700);
    assert_eq!(store.commit(&held, 1, &record_with("new")).await.expect("commit"), 2);
    assert_eq!(stored(&open(place).await).await, Some((2, "new".into())));
    drop(held);
    // Of another user: root.
    let error = try_open(Path::new("/root"), &[]).await.expect_err("not ours").to_string();
    assert!(error.contains("/root"), "{error}");
    crate::store::say("suffered");
}

#[tokio::test]
async fn case_64_group_bits_are_mended_and_bits_for_others_refused() {
    let (_folder, place) = place_with("t", &[]).await;
    let file = record_file(&place);
    for loose in [&place, &file] {
        let private = mode(loose);
        chmod(loose, private | 0o070);
        assert_eq!(stored(&open(&place).await).await, Some((1, "t".into())));
        assert_eq!(mode(loose), private, "{}", loose.display());
        chmod(loose, private | 0o005);
        let error = try_open(&place, &[]).await.expect_err("open to others");
        assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
        let (shown, path) = (error.to_string(), loose.display());
        assert!(shown.contains(&format!("`chmod {private:o} {path}`")), "{shown}");
        assert_eq!(mode(loose), private | 0o005, "what is refused is not touched");
        chmod(loose, private);
    }
}

#[tokio::test]
async fn a_record_that_others_can_read_is_refused_to_readers_and_mended_by_the_next_write() {
    let (_folder, place) = place_with("t", &[]).await;
    let store = open(&place).await;
    let held = lease(&store).await;
    chmod(&record_file(&place), 0o644);
    let error = store.load(&key()).await.expect_err("readable to others").to_string();
    assert!(error.contains("can be used by other users (mode 0644)"), "{error}");
    // A token that was just rotated must land.
    assert_eq!(store.commit(&held, 1, &record_with("rotated")).await.expect("commit"), 2);
    assert_eq!(mode(&record_file(&place)), 0o600);
    assert_eq!(stored(&store).await, Some((2, "rotated".into())));
}

#[tokio::test]
async fn case_64_foreign_owners_are_refused() {
    let (_folder, place) = place_with("t", &[]).await;
    for (path, what) in [(place.clone(), "directory"), (record_file(&place), "file")] {
        run("chown", &["1234"], &path);
        let error = try_open(&place, &[]).await.expect_err("not ours").to_string();
        let expected = format!(
            "the {what} {0} belongs to user 1234, and bearward runs as user 0: run it as user 1234, give the {what} to it \
             (`chown 0 {0}`), or set `store.path` to a directory of its own",
            path.display()
        );
        assert_eq!(error, expected);
        run("chown", &["0"], &path);
    }
    assert_eq!(stored(&open(&place).await).await, Some((1, "t".into())));
}

#[tokio::test]
async fn a_file_where_the_directory_should_be_is_named() {
    let folder = tempfile::tempdir().expect("tempdir");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("write");
    for place in [file.clone(), file.join("below")] {
        let error = try_open(&place, &[]).await.expect_err("not a directory").to_string();
        assert!(error.contains(&place.display().to_string()) && error.contains("not a directory"), "{error}");
    }
    assert_eq!(std::fs::read(&file).expect("read"), b"x");
}

#[tokio::test]
async fn a_directory_that_is_made_is_private_with_all_above_it() {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("a/b/c");
    let store = open(&place).await;
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with("t")).await.expect("commit");
    for (path, expected) in [("a", 0o700), ("a/b", 0o700), ("a/b/c", 0o700)] {
        assert_eq!(mode(&folder.path().join(path)), expected, "{path}");
    }
    assert_eq!((mode(&record_file(&place)), mode(&place.join("primavera.lock"))), (0o600, 0o600));
}

#[tokio::test]
async fn a_record_torn_at_any_byte_is_kept_and_nothing_is_written_over_it() {
    for keys in [&[][..], &[KEY][..]] {
        let (_folder, place) = place_with("torn", keys).await;
        let file = record_file(&place);
        let whole = std::fs::read(&file).expect("read");
        let store = try_open(&place, keys).await.expect("open");
        let held = lease(&store).await;
        for length in 0..whole.len() - 1 {
            let torn = &whole[..length];
            std::fs::write(&file, torn).expect("write");
            check_corrupt(
                &store,
                &place,
                "",
                "put a backup in its place that was made after the last refresh",
            )
            .await;
            for expected in [0, 1] {
                let written = store.commit(&held, expected, &record_with("new")).await;
                assert!(matches!(written, Err(StoreError::Corrupt { .. })), "{length}: {written:?}");
            }
            let aside = store.set_aside(&held, &key(), "impatience").await;
            assert!(matches!(aside, Err(StoreError::Corrupt { .. })), "{length}: {aside:?}");
            assert_eq!(std::fs::read(&file).expect("read"), torn, "{length}");
        }
        std::fs::write(&file, &whole).expect("write");
        assert_eq!(stored(&store).await, Some((1, "torn".into())), "put back, it is good");
    }
}

/// That loading fails for this reason with this remedy, twice alike, and that one whole copy is kept.
async fn check_corrupt(store: &Store, place: &Path, reason: &str, remedy: &str) {
    let bytes = std::fs::read(record_file(place)).expect("read");
    let error = store.load(&key()).await.expect_err("corrupt");
    let again = store.load(&key()).await.expect_err("still corrupt");
    assert_eq!(error.to_string(), again.to_string());
    let StoreError::Corrupt { key: named, place: file, reason: found, remedy: advice } = error else {
        panic!("{error:?}");
    };
    assert_eq!((named, file), (key(), record_file(place).display().to_string()));
    assert!(found.contains(reason), "{found}");
    assert!(advice.contains(remedy), "{advice}");
    let copy = advice.rsplit_once("a copy is kept as ").expect("names the copy").1;
    assert_eq!(std::fs::read(copy).expect("the copy"), bytes);
    assert_eq!(mode(Path::new(copy)), 0o600);
}

#[tokio::test]
async fn foreign_and_later_files_are_kept() {
    let check = async |content: &[u8], reason: &str, remedy: &str| {
        let (_folder, place) = place_with("t", &[]).await;
        std::fs::write(record_file(&place), content).expect("write");
        check_corrupt(&open(&place).await, &place, reason, remedy).await;
        let kept = names(&place).into_iter().filter(|name| name.starts_with("primavera.corrupt-")).count();
        assert_eq!(kept, 1);
    };
    check(b"", "it is empty", "remove it (`rm ").await;
    check(b"{\"refresh_token\":\"x\"}", "does not begin with the line of a record", "may be spent").await;
    check(b"bearward-record 2 plain\n{}\n", "it has file format 2", "run the later version").await;
    let (_folder, place) = place_with("t", &[]).await;
    std::fs::copy(record_file(&place), place.join("other.record")).expect("copy");
    std::fs::rename(place.join("other.record"), record_file(&place)).expect("rename");
    assert_eq!(stored(&open(&place).await).await, Some((1, "t".into())));
    let text = std::fs::read_to_string(record_file(&place)).expect("read");
    check(text.replace("key=primavera", "key=other").as_bytes(), "it is the record of `other`", "own name")
        .await;
}

#[tokio::test]
async fn what_is_no_plain_file_is_not_read() {
    let (_folder, place) = place_with("t", &[]).await;
    let store = open(&place).await;
    let file = record_file(&place);
    std::fs::rename(&file, place.join("elsewhere")).expect("rename");
    std::os::unix::fs::symlink(place.join("elsewhere"), &file).expect("symlink");
    let error = store.load(&key()).await.expect_err("a link").to_string();
    assert!(error.contains("it is a symbolic link"), "{error}");
    std::fs::remove_file(&file).expect("remove");
    run("mkfifo", &["-m", "600"], &file);
    let error = store.load(&key()).await.expect_err("a pipe").to_string();
    assert!(error.contains("is not a plain file"), "{error}");
}

#[tokio::test]
async fn a_wrong_or_missing_key_loses_nothing_and_a_right_one_reads_on() {
    for (written_with, wrong) in [(KEY, OTHER_KEY), (OTHER_KEY, PHRASE), (PHRASE, "another pass phrase")] {
        let (_folder, place) = place_with("t", &[written_with]).await;
        let before = std::fs::read(record_file(&place)).expect("read");
        let none = open(&place).await;
        check_corrupt(&none, &place, "and no key is configured", "`store.encryption.keys`").await;
        let store = try_open(&place, &[wrong]).await.expect("open");
        check_corrupt(&store, &place, "not among those configured", "`store.encryption.keys`").await;
        let held = lease(&store).await;
        let written = store.commit(&held, 1, &record_with("new")).await;
        assert!(matches!(written, Err(StoreError::Corrupt { .. })), "{written:?}");
        drop(held);
        assert_eq!(std::fs::read(record_file(&place)).expect("read"), before);
        let right = try_open(&place, &[wrong, written_with]).await.expect("open");
        assert_eq!(stored(&right).await, Some((1, "t".into())));
    }
}

#[tokio::test]
async fn records_take_the_first_key_at_their_next_write() {
    let (_folder, place) = place_with("rotating", &[]).await;
    let text = || std::fs::read_to_string(record_file(&place)).expect("text");
    assert!(text().contains("rotating"), "plain where no key is configured");
    let steps: [&[&str]; 3] = [&[KEY], &[PHRASE, KEY], &[OTHER_KEY, PHRASE]];
    for (version, keys) in (1..).zip(steps) {
        let store = try_open(&place, keys).await.expect("open");
        assert_eq!(stored(&store).await, Some((version, "rotating".into())), "the older form is read");
        let held = lease(&store).await;
        store.commit(&held, version, &record_with("rotating")).await.expect("commit");
        assert!(!text().contains("rotating"));
        let only_first = try_open(&place, &keys[..1]).await.expect("open");
        assert_eq!(stored(&only_first).await, Some((version + 1, "rotating".into())), "older keys can go");
    }
}

#[tokio::test]
async fn case_45_a_lease_whose_lock_file_was_removed_or_replaced_writes_nothing() {
    let (_folder, place) = place_with("t", &[]).await;
    let store = open(&place).await;
    let lock = place.join("primavera.lock");
    let replace: [fn(&Path); 2] = [
        |lock| std::fs::remove_file(lock).expect("remove"),
        |lock| {
            std::fs::write(lock.with_extension("new"), "").expect("write");
            std::fs::rename(lock.with_extension("new"), lock).expect("rename");
        },
    ];
    for replace in replace {
        let held = lease(&store).await;
        replace(&lock);
        let written = store.commit(&held, 1, &record_with("stale")).await;
        assert!(matches!(written, Err(StoreError::LeaseLost { .. })), "{written:?}");
        let moved = store.set_aside(&held, &key(), "stale").await;
        assert!(matches!(moved, Err(StoreError::LeaseLost { .. })), "{moved:?}");
        assert_eq!(stored(&store).await, Some((1, "t".into())));
        chmod_if_there(&lock);
        let fresh = lease(&store).await;
        drop((held, fresh));
    }
}

/// A lock file that somebody made by hand gets the mode of ours.
fn chmod_if_there(lock: &Path) {
    if lock.exists() {
        chmod(lock, 0o600);
    }
}

#[tokio::test]
async fn records_set_aside_are_kept_each_under_its_own_name() {
    let (_folder, place) = place_with("family 0", &[]).await;
    let store = open(&place).await;
    let held = lease(&store).await;
    for family in 1..3 {
        store.set_aside(&held, &key(), "another identity").await.expect("set_aside");
        store.commit(&held, 0, &record_with(&format!("family {family}"))).await.expect("commit");
    }
    let kept = ["primavera.aside-1-1", "primavera.aside-1-2"];
    assert_eq!(names(&place), [kept[0], kept[1], "primavera.lock", "primavera.record"]);
    for (family, name) in kept.iter().enumerate() {
        let text = std::fs::read_to_string(place.join(name)).expect("read");
        assert!(text.contains(&format!("family {family}")), "{name}");
        assert_eq!(mode(&place.join(name)), 0o600);
    }
}

#[tokio::test]
async fn unfinished_writes_are_removed_at_the_next_start_unless_somebody_is_writing() {
    let (_folder, place) = place_with("t", &[]).await;
    let left = place.join(".primavera.abcdefghijkl.tmp");
    std::fs::write(&left, "half").expect("write");
    chmod(&left, 0o600);
    let store = open(&place).await;
    assert!(!left.exists());
    let held = lease(&store).await;
    std::fs::write(&left, "half").expect("write");
    chmod(&left, 0o600);
    open(&place).await;
    assert!(left.exists(), "it may be the holder's");
    drop(held);
    let foreign = place.join("notes.txt");
    std::fs::write(&foreign, "a person's").expect("write");
    open(&place).await;
    assert!(!left.exists() && foreign.exists());
}

#[tokio::test]
async fn messages_and_debug_show_no_secret() {
    let shown = Mutex::new(String::new());
    let note = |text: String| shown.lock().expect("shown").push_str(&text);
    for keys in [&[][..], &[PHRASE][..]] {
        let (_folder, place) = place_with("s3cret-refresh", keys).await;
        let store = try_open(&place, keys).await.expect("open");
        let held = lease(&store).await;
        note(format!("{store:?} {held:?} {:?}", store.load(&key()).await.expect("load")));
        note(format!("{:?}", store.commit(&held, 7, &record_with("s3cret-new")).await));
        let mut bytes = std::fs::read(record_file(&place)).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(record_file(&place), bytes).expect("write");
        let error = store.load(&key()).await.expect_err("damaged");
        note(format!("{error} {error:?}"));
    }
    let shown = shown.into_inner().expect("shown");
    assert!(!shown.contains("s3cret") && !shown.contains("battery"), "{shown}");
}

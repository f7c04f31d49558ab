use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Version};
use tokio::time::Instant;

use super::*;
use crate::clock::{ManualClock, UnixTime};
use crate::names::Name;

/// What both logs of a worker hold after some exchanges.
fn lines(access: AccessConfig, exchanges: impl FnOnce(&Rc<WorkerLog>)) -> (String, String) {
    let folder = tempfile::tempdir().expect("tempdir");
    let (path, audit) = (folder.path().join("access.log"), folder.path().join("audit.log"));
    let access = AccessConfig { file: Some(path.clone()), ..access };
    let log = AccessLog::open(access, AuditConfig { enabled: true, file: Some(audit.clone()) });
    let log = log.expect("opened").expect("on");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let clock = ManualClock::starting_at(UnixTime::from_millis(1_700_000_000_123));
        let worker = Rc::new(log.seed().grow(Clock::Manual(clock)));
        exchanges(&worker);
    });
    log.finish();
    let read = |path| std::fs::read_to_string(path).expect("it is text");
    (read(path), read(audit))
}

fn exchange(log: &Rc<WorkerLog>, target: &str, agent: &[u8], note: impl FnOnce(&mut Record)) {
    let Some(mut noted) = log.begin(true) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_bytes(agent).expect("a value"));
    headers.insert("authorization", HeaderValue::from_static("Bearer very-secret"));
    headers.insert("referer", HeaderValue::from_static("https://a/?very-secret"));
    let request = Request::builder().uri(target).body(()).expect("a request");
    let name = |text: &str| Name::try_new(text).expect("a name");
    let labels = Labels::new(&name("legacy"), Some(&name("pds")), Some(&name("primavera")));
    noted.note(|record| {
        let id = HeaderValue::from_static("id-1");
        record.request((&Method::GET, request.uri(), Version::HTTP_11), &headers, &id, Instant::now());
        record.labels(&Rc::new(labels));
        record.client(b"10.0.0.1");
        record.client_name(&name("batch"));
        note(record);
    });
}

fn answered(record: &mut Record) {
    record.used(Use::Sent);
    record.upstream(Version::HTTP_11, Duration::from_micros(1_042));
    record.answered(200, (3, 4), Instant::now());
}

#[test]
fn a_line_tells_one_exchange_and_no_secret() {
    let (access, audit) = lines(AccessConfig::default(), |log| {
        exchange(log, "/a?very-secret", b"curl/8", answered);
    });
    assert_eq!(
        access,
        "{\"log\":\"access\",\"time\":\"2023-11-14T22:13:20.123Z\",\"request_id\":\"id-1\",\
         \"listener\":\"legacy\",\"route\":\"pds\",\"client\":\"10.0.0.1\",\"client_name\":\"batch\",\"credential\":\"primavera\",\
         \"method\":\"GET\",\"path\":\"/a\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes_in\":3,\
         \"bytes_out\":4,\"duration_ms\":0.000,\"upstream_protocol\":\"HTTP/1.1\",\"upstream_ms\":1.042,\
         \"user_agent\":\"curl/8\"}\n"
    );
    assert_eq!(
        audit,
        "{\"log\":\"audit\",\"time\":\"2023-11-14T22:13:20.123Z\",\"request_id\":\"id-1\",\
         \"listener\":\"legacy\",\"route\":\"pds\",\"client\":\"10.0.0.1\",\"client_name\":\"batch\",\"credential\":\"primavera\",\
         \"outcome\":\"used\",\"method\":\"GET\",\"status\":200}\n"
    );
    let combined = AccessConfig { format: Format::Combined, query: true, ..AccessConfig::default() };
    let (access, _) = lines(combined, |log| exchange(log, "/a?b=c", b"a\"b\\\xff", answered));
    assert_eq!(
        access,
        "10.0.0.1 - batch [14/Nov/2023:22:13:20 +0000] \"GET /a?b=c HTTP/1.1\" 200 4 \"-\" \"a\\x22b\\x5c\\xff\"\n"
    );
}

#[test]
fn any_byte_of_a_client_stays_inside_its_value() {
    let bytes: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).chain(*b"\t\xc3\xa9\xe2\x82").collect();
    let (access, _) = lines(AccessConfig::default(), |log| exchange(log, "/a\"b\\{|}", &bytes, answered));
    assert_eq!(access.matches('\n').count(), 1);
    let line: serde_json::Value = serde_json::from_str(&access).expect("JSON");
    let agent = line["user_agent"].as_str().expect("text");
    assert!(agent.starts_with(" !\"#$"), "{agent}");
    assert!(agent.contains("\\") && agent.contains('\t') && agent.contains('é'), "{agent}");
    assert_eq!(line["path"], "/a\"b\\{|}");
}

#[test]
fn each_outcome_has_its_word() {
    let check = |note: fn(&mut Record), outcome: Option<&str>, status: u64| {
        let (access, audit) = lines(AccessConfig::default(), |log| exchange(log, "/", b"x", note));
        let access: serde_json::Value = serde_json::from_str(&access).expect("JSON");
        assert_eq!(access["status"], status);
        let audit: Option<serde_json::Value> =
            audit.lines().next().map(|line| serde_json::from_str(line).expect("JSON"));
        assert_eq!(audit.as_ref().and_then(|line| line["outcome"].as_str()), outcome);
    };
    check(|record| record.answered(404, (0, 0), Instant::now()), None, 404);
    check(answered, Some("used"), 200);
    check(|record| record.used(Use::Sent), Some("aborted"), 499);
    let rejected = |record: &mut Record| {
        record.used(Use::Rejected);
        record.answered(401, (0, 0), Instant::now());
    };
    check(rejected, Some("rejected"), 401);
    let failed = |record: &mut Record| {
        record.used(Use::Sent);
        record.refused("upstream-closed", "connection_terminated");
        record.answered(502, (0, 0), Instant::now());
    };
    check(failed, Some("failed"), 502);
    let unavailable = |record: &mut Record| {
        record.used(Use::Unavailable);
        record.answered(503, (0, 0), Instant::now());
    };
    check(unavailable, Some("unavailable"), 503);
}

#[test]
fn a_share_of_all_exchanges_is_logged_and_every_use_audited() {
    let sampled = AccessConfig { sample: 100_000, ..AccessConfig::default() };
    let (access, audit) = lines(sampled, |log| {
        for _ in 0..5_000 {
            exchange(log, "/", b"x", answered);
        }
    });
    assert!((300..700).contains(&access.lines().count()), "{}", access.lines().count());
    assert_eq!(audit.lines().count(), 5_000);
}

#[test]
fn a_file_that_was_renamed_is_begun_anew() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("access.log");
    let access = AccessConfig { file: Some(path.clone()), ..AccessConfig::default() };
    let log = AccessLog::open(access, AuditConfig { enabled: false, file: None });
    let log = log.expect("opened").expect("on");
    let worker = Rc::new(log.seed().grow(Clock::System));
    exchange(&worker, "/before", b"x", answered);
    worker.flush();
    let written = |text: &str| {
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            read().contains(text)
        })
    };
    assert!(written("/before"));
    std::fs::rename(&path, folder.path().join("access.log.1")).expect("renamed");
    std::thread::sleep(Duration::from_millis(1_100));
    exchange(&worker, "/after", b"x", answered);
    worker.flush();
    assert!(written("/after"));
    drop(worker);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let access = AccessConfig { file: Some("/dev/full".into()), ..AccessConfig::default() };
    let log = AccessLog::open(access, AuditConfig { enabled: false, file: None });
    let log = log.expect("opened").expect("on");
    let worker = Rc::new(log.seed().grow(Clock::System));
    for _ in 0..3 {
        exchange(&worker, "/", b"x", answered);
    }
    drop(worker);
    let shared = Arc::clone(&log.shared);
    log.finish();
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn a_writer_that_stands_still_costs_lines_and_no_time() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
    assert!(made.success());
    // Both ends are open here, and nobody reads.
    let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    let access = AccessConfig { file: Some(path), ..AccessConfig::default() };
    let log = AccessLog::open(access, AuditConfig { enabled: false, file: None });
    let log = log.expect("opened").expect("on");
    let worker = Rc::new(log.seed().grow(Clock::System));
    for _ in 0..20_000 {
        exchange(&worker, "/", b"x", answered);
    }
    assert!(log.dropped() > 1_000, "{}", log.dropped());
    drop(pipe);
}

#[test]
fn a_forward_proxy_tells_where_a_request_goes_and_no_password_in_front_of_it() {
    let (access, _) = lines(AccessConfig::default(), |log| {
        exchange(log, "http://u:very-secret@api.example:80/a", b"", |record| {
            record.authority("u:very-secret@api.example:80");
            answered(record);
        });
        exchange(log, "/b", b"", answered);
    });
    assert!(
        access.contains("\"method\":\"GET\",\"authority\":\"api.example:80\",\"path\":\"/a\""),
        "{access}"
    );
    assert!(access.contains("\"method\":\"GET\",\"path\":\"/b\""), "{access}");
    assert!(!access.contains("very-secret"), "{access}");
}

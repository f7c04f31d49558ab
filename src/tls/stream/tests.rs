use std::io::{Read, Write};
use std::sync::Arc;

use futures_util::FutureExt;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::{
    ClientConfig, ContentType, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::tls::{connect, provider};

const SUITES: [SupportedCipherSuite; 6] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
const TLS13: SupportedCipherSuite = SUITES[0];
const TLS12: SupportedCipherSuite = SUITES[3];

/// The server's end: rustls', of which so many bytes are handed over at once.
struct Server {
    session: Option<ServerConnection>,
    /// On the way to the client.
    wire: VecDeque<u8>,
    at_once: usize,
    /// Nothing more comes.
    cut: bool,
    /// Takes nothing.
    blocked: bool,
    /// What came, in the clear while there is a session.
    got: Vec<u8>,
    failure: Option<Error>,
}

impl Server {
    fn new(config: &Arc<ServerConfig>) -> Self {
        Self {
            session: Some(ServerConnection::new(Arc::clone(config)).expect("a session")),
            wire: VecDeque::new(),
            at_once: usize::MAX,
            cut: false,
            blocked: false,
            got: Vec::new(),
            failure: None,
        }
    }

    fn session(&mut self) -> &mut ServerConnection {
        self.session.as_mut().expect("a session")
    }

    /// Puts what the session has to say on the wire.
    fn say(&mut self) {
        while let Some(session) = self.session.as_mut().filter(|session| session.wants_write()) {
            session.write_tls(&mut self.wire).expect("memory takes all");
        }
    }

    fn write(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let count = self.session().writer().write(data).expect("written");
            self.say();
            data = &data[count..];
        }
    }

    fn read(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.got)
    }
}

impl AsyncRead for Server {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say();
        if this.wire.is_empty() && !this.cut {
            return Poll::Pending;
        }
        let length = this.at_once.min(buf.remaining()).min(this.wire.len());
        let bytes: Vec<u8> = this.wire.drain(..length).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.blocked {
            return Poll::Pending;
        }
        let Some(session) = &mut this.session else {
            this.got.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        };
        let count = session.read_tls(&mut &buf[..buf.len().min(this.at_once)]).expect("read");
        if let Err(error) = session.process_new_packets() {
            this.failure = Some(error);
        }
        // It ends with what there is.
        let _ = session.reader().read_to_end(&mut this.got);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A server and a client that agree on that suite.
fn configs(suite: SupportedCipherSuite) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    let cert = params.self_signed(&key).expect("certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).expect("an anchor");
    let only = rustls::crypto::CryptoProvider { cipher_suites: vec![suite], ..(*provider()).clone() };
    let versions = [suite.version()];
    let mut server = ServerConfig::builder_with_provider(only.into())
        .with_protocol_versions(&versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.serialize_der().try_into().expect("a key"))
        .expect("a server");
    server.enable_secret_extraction = true;
    server.send_half_rtt_data = true;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

fn met(server: Server, client: &Arc<ClientConfig>) -> TlsStream<Server> {
    let name = "localhost".try_into().expect("a name");
    let met = connect(Arc::clone(client), name, server).now_or_never().expect("the wire never waits");
    let (stream, alpn) = met.expect("a handshake");
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    stream
}

fn meet(suite: SupportedCipherSuite) -> TlsStream<Server> {
    let (server, client) = configs(suite);
    met(Server::new(&server), &client)
}

/// What comes until nothing does: the data, and the end if there is one.
fn read(tls: &mut TlsStream<Server>) -> (Vec<u8>, Option<Result<(), io::Error>>) {
    let mut data = Vec::new();
    loop {
        match std::future::poll_fn(|cx| tls.poll_take(cx)).now_or_never() {
            None => return (data, None),
            Some(Ok(piece)) if piece.is_empty() => return (data, Some(Ok(()))),
            Some(Ok(piece)) => data.extend_from_slice(&piece),
            Some(Err(error)) => return (data, Some(Err(error))),
        }
    }
}

/// The same by `AsyncRead`.
fn read_into(tls: &mut TlsStream<Server>, room: usize) -> Vec<u8> {
    let (mut data, mut buffer) = (Vec::new(), vec![0; room]);
    while let Some(Ok(count @ 1..)) = tls.read(&mut buffer).now_or_never() {
        data.extend_from_slice(&buffer[..count]);
    }
    data
}

fn write(tls: &mut TlsStream<Server>, data: &[u8]) {
    tls.write_all(data).now_or_never().expect("room").expect("written");
    tls.flush().now_or_never().expect("room").expect("flushed");
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number * 7 + number / 251).to_le_bytes()[0]).collect()
}

fn rustls_error(error: &io::Error) -> Error {
    error.get_ref().and_then(|error| error.downcast_ref::<Error>()).expect("an error of TLS").clone()
}

#[test]
fn bytes_arrive_as_they_were_sent_however_the_records_are_cut() {
    for suite in SUITES {
        let (server, client) = configs(suite);
        for at_once in [1, 2, 4, 5, 6, 21, 22, 100, 4096, 16_405, usize::MAX] {
            let mut tls = met(Server { at_once, ..Server::new(&server) }, &client);
            for length in [1, 2, 1023, 1024, 1025, 2048, 16_384, 16_385, 70_000] {
                let data = numbered(length);
                tls.stream.write(&data);
                let (got, end) = read(&mut tls);
                assert!(got == data && end.is_none(), "{suite:?} {at_once} {length}: {end:?}");
                tls.stream.write(&data);
                let got = read_into(&mut tls, at_once.clamp(3, 9000));
                assert!(got == data, "{suite:?} {at_once} {length}");
                write(&mut tls, &data);
                let got = tls.stream.read();
                assert!(got == data, "{suite:?} {at_once} {length}: {} came", got.len());
            }
            assert!(
                tls.incoming.capacity() == 0 && tls.unsent.is_empty(),
                "an idle connection holds nothing"
            );
        }
    }
}

#[test]
fn what_came_together_is_one_piece() {
    let mut tls = meet(TLS13);
    let take = |tls: &mut TlsStream<Server>| {
        let piece = std::future::poll_fn(|cx| tls.poll_take(cx)).now_or_never();
        piece.map(|piece| piece.expect("data").len())
    };
    // A whole record and the short one behind it; then two of which none is short.
    for (lengths, expected) in [
        (&[16_384, 200][..], vec![16_584]),
        (&[100, 100, 100], vec![300]),
        (&[5000, 6000, 10], vec![5000, 6010]),
    ] {
        for length in lengths {
            tls.stream.write(&numbered(*length));
        }
        let mut pieces = Vec::new();
        while let Some(length) = take(&mut tls) {
            pieces.push(length);
        }
        assert_eq!(pieces, expected);
    }
}

#[test]
fn slices_are_sealed_together() {
    let mut tls = meet(TLS13);
    let (head, body) = (numbered(300), numbered(40_000));
    let slices = [io::IoSlice::new(b""), io::IoSlice::new(&head), io::IoSlice::new(&body)];
    let count = tls.write_vectored(&slices).now_or_never().expect("room").expect("written");
    assert_eq!(count, 40_300);
    assert!(tls.stream.read() == [head, body].concat());
}

#[test]
fn a_truncated_record_is_an_error_and_no_data() {
    for suite in [TLS13, TLS12] {
        let mut tls = meet(suite);
        assert!(read(&mut tls).1.is_none());
        tls.stream.write(b"the beginning");
        let record: Vec<u8> = tls.stream.wire.drain(..).collect();
        for length in 0..record.len() {
            let mut tls = meet(suite);
            assert!(read(&mut tls).1.is_none());
            tls.stream.write(b"the beginning");
            tls.stream.wire.truncate(length);
            tls.stream.cut = true;
            let (data, end) = read(&mut tls);
            assert!(data.is_empty(), "{length}");
            let error = end.expect("an end").expect_err("it was not announced");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}: {error}");
        }
    }
}

#[test]
fn an_end_that_was_not_announced_is_an_error_behind_the_data() {
    let mut tls = meet(TLS13);
    tls.stream.write(b"all of it?");
    tls.stream.cut = true;
    let (data, end) = read(&mut tls);
    assert_eq!(data, b"all of it?");
    assert_eq!(end.expect("an end").expect_err("no close_notify").kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_changed_record_is_an_error_and_no_data() {
    for suite in SUITES {
        let (server, client) = configs(suite);
        let mut length = 1;
        let mut place = 0;
        while place < length {
            let mut tls = met(Server::new(&server), &client);
            assert!(read(&mut tls).1.is_none());
            tls.stream.write(b"as it was");
            tls.stream.cut = true;
            length = tls.stream.wire.len();
            tls.stream.wire[place] ^= 0x10;
            let (data, end) = read(&mut tls);
            // TLS 1.3 passes over the version of a record (RFC 8446, 5.1).
            let ignored = suite.tls13().is_some() && place == 2;
            assert_eq!(data.is_empty(), !ignored, "{suite:?} {place}");
            let error = end.expect("an end").expect_err("changed");
            if place >= HEAD_LENGTH {
                assert_eq!(rustls_error(&error), Error::DecryptError, "{suite:?} {place}");
                let told = Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
                assert_eq!(tls.stream.failure, Some(told), "{suite:?} {place}");
                assert!(tls.write(b"x").now_or_never().expect("at once").is_err());
            }
            place += 1;
        }
    }
}

const HEAD_LENGTH: usize = crate::tls::records::HEAD;

#[test]
fn either_side_may_end_before_the_other() {
    for suite in [TLS13, TLS12] {
        let mut tls = meet(suite);
        tls.stream.write(b"last words");
        tls.stream.session().send_close_notify();
        tls.stream.say();
        tls.stream.wire.extend(b"not for anybody");
        let (data, end) = read(&mut tls);
        assert_eq!(data, b"last words");
        assert!(end.expect("an end").is_ok());
        assert_eq!(tls.read(&mut [0; 8]).now_or_never().expect("at once").expect("an end"), 0);
        write(&mut tls, b"and mine");
        assert_eq!(tls.stream.read(), b"and mine");

        let mut tls = meet(suite);
        write(&mut tls, b"mine first");
        tls.shutdown().now_or_never().expect("room").expect("shut down");
        assert_eq!(tls.stream.session().reader().read(&mut [0]).expect("a clean end"), 0);
        assert_eq!(tls.stream.read(), b"mine first");
        assert!(tls.write(b"x").now_or_never().expect("at once").is_err());
        tls.stream.write(b"still heard");
        assert_eq!(read(&mut tls).0, b"still heard");
    }
}

#[test]
fn keys_are_renewed_when_the_server_does_so() {
    let mut tls = meet(TLS13);
    for round in 0..100 {
        tls.stream.session().refresh_traffic_keys().expect("TLS 1.3");
        let data = numbered(1000 + round);
        tls.stream.write(&data);
        let (got, end) = read(&mut tls);
        assert!(got == data && end.is_none(), "{round}: {end:?}");
        write(&mut tls, &data);
        assert!(tls.stream.read() == data, "{round}: {:?}", tls.stream.failure);
    }
    assert_eq!(tls.stream.failure, None);
}

#[test]
fn renewals_without_end_are_refused_and_answered_once_while_nothing_can_be_sent() {
    let mut tls = meet(TLS13);
    tls.stream.blocked = true;
    for round in 0..33 {
        tls.stream.session().refresh_traffic_keys().expect("TLS 1.3");
        let end = read(&mut tls).1;
        assert_eq!(end.is_some(), round == 32, "{round}: {end:?}");
        assert!(tls.unsent.len() <= 2, "{round}");
    }
}

#[test]
fn a_key_that_has_done_its_part_is_replaced() {
    let mut tls = meet(TLS13);
    for round in 0..200 {
        tls.records.wear(20);
        let data = numbered(20_000 + round);
        write(&mut tls, &data);
        assert!(tls.stream.read() == data, "{round}: {:?}", tls.stream.failure);
    }
    // TLS 1.2 has no way to.
    let mut tls = meet(TLS12);
    tls.records.wear(20);
    let written = (0..30).take_while(|_| tls.write(b"x").now_or_never().expect("room").is_ok()).count();
    assert!((10..20).contains(&written), "{written}");
    assert_eq!(tls.stream.read(), vec![b'x'; written]);
}

#[test]
fn sessions_are_resumed_and_what_comes_early_is_kept() {
    for suite in [TLS13, TLS12] {
        let (server, client) = configs(suite);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut tls = met(Server::new(&server), &client);
            let session = tls.stream.session();
            assert_eq!(session.handshake_kind(), Some(kind), "{suite:?}");
            tls.stream.write(b"hello");
            assert_eq!(read(&mut tls).0, b"hello");
        }
    }
    for at_once in [1, 7, 50, usize::MAX] {
        let (server, client) = configs(TLS13);
        let mut server = Server { at_once, ..Server::new(&server) };
        server.session().writer().write_all(b"before you have finished").expect("written");
        let mut tls = met(server, &client);
        tls.stream.write(b", and behind");
        assert_eq!(read(&mut tls).0, b"before you have finished, and behind", "{at_once}");
    }
}

/// The server's keys, to make records with that no server should send.
struct Forger {
    sealer: Box<dyn MessageEncrypter>,
    sealed: u64,
}

impl Forger {
    fn take_over(tls: &mut TlsStream<Server>, suite: SupportedCipherSuite) -> Self {
        assert!(read(tls).1.is_none());
        let session = tls.stream.session.take().expect("a session");
        let (sealed, secrets) = session.dangerous_extract_secrets().expect("secrets").tx;
        Self { sealer: crate::tls::records::sealer(suite, secrets, sealed).expect("a cipher"), sealed }
    }

    fn forge(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.sealer.encrypt(message, self.sealed).expect("sealed").encode();
        self.sealed += 1;
        record
    }
}

/// What it is, over which suite, its records, and the data that comes behind them.
type Case<'a> = (&'a str, SupportedCipherSuite, Vec<(ContentType, &'a [u8])>, Option<&'a [u8]>);

#[test]
fn messages_that_are_no_data_are_judged() {
    use ContentType::{Alert, ApplicationData as Data, ChangeCipherSpec, Handshake};
    let (good, bad) = (Some(&b"end"[..]), None);
    let fatal = [2, 40];
    let long = [4, 1, 0, 1];
    let many = |times: usize, record: (ContentType, &'static [u8])| vec![record; times];
    let cases: Vec<Case> = vec![
        ("as many empty records as are borne", TLS13, many(32, (Data, b"")), good),
        ("one more", TLS13, many(33, (Data, b"")), bad),
        ("a fatal alert", TLS13, vec![(Alert, &fatal)], bad),
        ("half an alert", TLS13, vec![(Alert, &[1])], bad),
        ("a user who cancels", TLS13, vec![(Alert, &[1, 90])], good),
        ("a warning, which TLS 1.3 does not have", TLS13, vec![(Alert, &[1, 112])], bad),
        ("a level that there is not", TLS12, vec![(Alert, &[3, 112])], bad),
        ("warnings", TLS12, many(4, (Alert, &[1, 112])), good),
        ("a warning too many", TLS12, many(5, (Alert, &[1, 112])), bad),
        ("a request to begin anew", TLS12, many(1, (Handshake, &[0, 0, 0, 0])), good),
        ("a second one", TLS12, many(2, (Handshake, &[0, 0, 0, 0])), bad),
        ("a request to begin anew in TLS 1.3", TLS13, vec![(Handshake, &[0, 0, 0, 0])], bad),
        ("a key update in TLS 1.2", TLS12, vec![(Handshake, &[24, 0, 0, 1, 0])], bad),
        ("a key update that says neither", TLS13, vec![(Handshake, &[24, 0, 0, 1, 2])], bad),
        ("a key update that is too long", TLS13, vec![(Handshake, &[24, 0, 0, 2, 0, 0])], bad),
        ("something behind a key update", TLS13, vec![(Handshake, &[24, 0, 0, 1, 0, 4])], bad),
        ("data within a message", TLS13, vec![(Handshake, &[24, 0, 0]), (Data, b"x")], bad),
        ("an alert within a message", TLS13, vec![(Handshake, &[24, 0, 0]), (Alert, &[1, 0])], bad),
        (
            "old keys behind a key update in pieces",
            TLS13,
            vec![(Handshake, &[24, 0, 0]), (Handshake, &[1, 0])],
            bad,
        ),
        ("a ticket that is none", TLS13, vec![(Handshake, &[4, 0, 0, 1, 0])], bad),
        ("a request for a certificate", TLS13, vec![(Handshake, &[13, 0, 0, 1, 0])], bad),
        ("a message without end", TLS13, vec![(Handshake, &long)], bad),
        ("a change of ciphers", TLS13, vec![(ChangeCipherSpec, &[1])], bad),
        ("a change of ciphers", TLS12, vec![(ChangeCipherSpec, &[1])], bad),
        ("a heartbeat", TLS13, vec![(ContentType::Heartbeat, b"x")], bad),
        ("a heartbeat", TLS12, vec![(ContentType::Heartbeat, b"x")], bad),
    ];
    for (what, suite, records, expected) in cases {
        let mut tls = meet(suite);
        let mut forger = Forger::take_over(&mut tls, suite);
        for (typ, payload) in records {
            let record = forger.forge(typ, payload);
            tls.stream.wire.extend(record);
        }
        tls.stream.wire.extend(forger.forge(Data, b"end"));
        let (data, end) = read(&mut tls);
        match expected {
            Some(expected) => assert!(data == expected && end.is_none(), "{what}: {end:?}"),
            None => assert!(data.is_empty() && matches!(end, Some(Err(_))), "{what}: {end:?}"),
        }
    }
}

#[test]
fn nothing_in_the_clear_is_believed() {
    for (suite, record) in [
        (TLS13, &[21, 3, 3, 0, 2, 1, 0][..]),
        (TLS13, &[20, 3, 3, 0, 1, 1]),
        (TLS13, &[23, 3, 3, 0, 3, b'a', b'b', b'c']),
        (TLS13, &[23, 3, 3, 0, 0]),
        (TLS13, &[22, 3, 3, 0, 5, 24, 0, 0, 1, 0]),
        (TLS12, &[21, 3, 3, 0, 2, 1, 0]),
        (TLS12, &[23, 3, 3, 0, 3, b'a', b'b', b'c']),
        (TLS12, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (TLS13, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (TLS13, &[23, 3, 3, 0xff, 0xff]),
    ] {
        let mut tls = meet(suite);
        assert!(read(&mut tls).1.is_none());
        tls.stream.wire.extend(record);
        let (data, end) = read(&mut tls);
        assert!(data.is_empty() && matches!(end, Some(Err(_))), "{record:?}: {end:?}");
    }
}

#[test]
fn a_handshake_that_breaks_off_is_an_error() {
    let (server, client) = configs(TLS13);
    let name = || "localhost".try_into().expect("a name");
    let silent =
        connect(Arc::clone(&client), name(), Server { cut: true, session: None, ..Server::new(&server) });
    let error = silent.now_or_never().expect("at once").map(|_| ()).expect_err("nothing came");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let wire = b"HTTP/1.1 400 Bad Request\r\n\r\n".iter().copied().collect();
    let clear = connect(Arc::clone(&client), name(), Server { wire, session: None, ..Server::new(&server) });
    let error = clear.now_or_never().expect("at once").map(|_| ()).expect_err("no TLS");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

//! The handshake of a TLS client.
//!
//! Owns: moving rustls' state machine on until both sides have their keys. What it decides (whom to trust, what to show, which
//! version and cipher) is rustls' and the configuration's.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::records::{HEAD, Records, record_length};
use super::stream::{TlsStream, invalid};

/// How much of a handshake is read at a time.
const ROOM: usize = 4 * 1024;
/// What may wait to be understood: the longest message that rustls takes, and a record.
const MOST: usize = 96 * 1024;

/// Speaks first, to the end of the handshake. With the protocol that the server chose (ALPN). `config` must allow the secrets
/// to be taken out.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    mut stream: S,
) -> io::Result<(TlsStream<S>, Option<Vec<u8>>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    let mut incoming = BytesMut::new();
    let Early { plain, ended } = shake_hands(&mut client, &mut incoming, &mut stream).await?;
    let alpn = client.alpn_protocol().map(<[u8]>::to_vec);
    let (secrets, peer) = client.dangerous_into_kernel_connection().map_err(invalid)?;
    let records = Records::try_new(secrets, peer).map_err(invalid)?;
    Ok((TlsStream::new(stream, records, incoming, plain.freeze(), ended), alpn))
}

/// What a server said before its client had finished.
#[derive(Default)]
struct Early {
    plain: BytesMut,
    /// And that it was all.
    ended: bool,
}

/// Moves the handshake on until it is done and no message is left half.
async fn shake_hands<S>(
    client: &mut UnbufferedClientConnection,
    incoming: &mut BytesMut,
    stream: &mut S,
) -> io::Result<Early>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut early, mut outgoing) = (Early::default(), Vec::new());
    loop {
        let UnbufferedStatus { discard, state } = client.process_tls_records(incoming);
        let (mut waits, mut done) = (false, false);
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut outgoing)?,
            Ok(ConnectionState::TransmitTlsData(data)) => {
                stream.write_all(&outgoing).await?;
                stream.flush().await?;
                outgoing.clear();
                data.done();
            }
            Ok(ConnectionState::ReadTraffic(mut data)) => {
                while let Some(record) = data.next_record() {
                    early.plain.extend_from_slice(record.map_err(invalid)?.payload);
                }
            }
            Ok(ConnectionState::PeerClosed) => early.ended = true,
            Ok(ConnectionState::WriteTraffic(_)) => done = true,
            Ok(_) => waits = true,
            Err(error) => {
                incoming.advance(discard);
                tell(client, incoming, stream).await;
                return Err(invalid(error));
            }
        }
        incoming.advance(discard);
        if done && (early.ended || begins_record(incoming)) {
            return Ok(early);
        }
        if waits || done {
            receive(stream, incoming).await?;
        }
    }
}

/// Whether what is left begins with a record that is not yet whole. Else it is the beginning of a message that rustls has
/// opened already and waits for the rest of.
fn begins_record(rest: &[u8]) -> bool {
    match record_length(rest) {
        Ok(Some(length)) => length > rest.len(),
        Ok(None) => rest.len() < HEAD && rest.first().is_none_or(|typ| (20..=23).contains(typ)),
        Err(_) => false,
    }
}

async fn receive<S>(stream: &mut S, incoming: &mut BytesMut) -> io::Result<()>
where
    S: AsyncRead + Unpin,
{
    if incoming.len() >= MOST {
        return Err(invalid(rustls::InvalidMessage::HandshakePayloadTooLarge.into()));
    }
    incoming.reserve(ROOM);
    match stream.read_buf(incoming).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer left during the TLS handshake")),
        _ => Ok(()),
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let before = outgoing.len();
    let required = match data.encode(&mut outgoing[before..]) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        Err(error) => return Err(io::Error::other(error)),
    };
    outgoing.resize(before + required, 0);
    data.encode(&mut outgoing[before..]).map(|_| ()).map_err(io::Error::other)
}

/// Tells the server why, if that can be done at once.
async fn tell<S>(client: &mut UnbufferedClientConnection, incoming: &mut [u8], stream: &mut S)
where
    S: AsyncWrite + Unpin,
{
    let mut outgoing = Vec::new();
    // Nothing of what came is looked at again while something is to be sent.
    while client.wants_write() {
        match client.process_tls_records(incoming).state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                if encode(data, &mut outgoing).is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
    std::future::poll_fn(|cx| {
        let _ = std::pin::Pin::new(&mut *stream).poll_write(cx, &outgoing);
        std::task::Poll::Ready(())
    })
    .await;
}

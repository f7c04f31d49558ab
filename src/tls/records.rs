//! The records of a TLS connection whose handshake is done (RFC 8446, 5; RFC 5246, 6).
//!
//! Owns: the keys of both directions, their sequence numbers and renewal, and every message that is not data: alerts, session
//! tickets, key updates. rustls makes the handshake, derives all keys and does the cipher's work; here records are opened
//! in the buffer that they were read into. Never reads or writes by itself. After an error nothing is opened any more.

use std::fmt;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
};

/// The head of a record: type, version, length.
pub(super) const HEAD: usize = 5;
/// The most that a record holds in the clear.
pub(super) const FRAGMENT: usize = 16 * 1024;
/// The longest record, with its head: what TLS 1.2 allows a cipher to add.
pub(super) const LONGEST: usize = HEAD + FRAGMENT + 2048;

/// Messages of a handshake that are longer than this are refused.
const MOST_MESSAGE: usize = 64 * 1024;
/// What a peer may send that makes work and moves nothing: as much as rustls allows.
const EMPTY_RECORDS: u8 = 32;
const KEY_UPDATES: u8 = 32;
const WARNINGS: u8 = 4;
const RENEGOTIATIONS: u8 = 1;
/// Sequence numbers that are kept for what has to be said at the end of a key's life.
const RESERVE: u64 = 4;
/// No key protects more records than this, whatever its cipher allows.
const MOST_RECORDS: u64 = 1 << 48;

/// Handshake messages (RFC 8446, 4; RFC 5246, 7.4).
const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Keys and what they have protected.
pub(super) struct Records {
    peer: KernelConnection<ClientConnectionData>,
    suite: SupportedCipherSuite,
    is_tls13: bool,
    sealer: Box<dyn MessageEncrypter>,
    sealed: u64,
    /// How many records the sealing key is good for.
    most_sealed: u64,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    /// The beginning of a handshake message that came in pieces.
    message: Vec<u8>,
    /// What the peer is owed an answer to.
    owed: Option<Owed>,
    patience: Patience,
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Data, at this place of the record.
    Data(Range<usize>),
    /// A message that was dealt with.
    Message,
    /// The peer has said all (`close_notify`).
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// New keys, since the peer has them.
    KeyUpdate,
    /// No to another handshake.
    NoRenegotiation,
}

/// How much more of it is borne.
#[derive(Debug)]
struct Patience {
    empty_records: u8,
    key_updates: u8,
    warnings: u8,
    renegotiations: u8,
}

impl fmt::Debug for Records {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("sealed", &self.sealed)
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Takes over from a handshake.
    pub(super) fn try_new(
        secrets: ExtractedSecrets,
        peer: KernelConnection<ClientConnectionData>,
    ) -> Result<Self, Error> {
        let suite = peer.negotiated_cipher_suite();
        let ((sealed, tx), (opened, rx)) = (secrets.tx, secrets.rx);
        Ok(Self {
            is_tls13: peer.protocol_version() == ProtocolVersion::TLSv1_3,
            peer,
            suite,
            sealer: sealer(suite, tx, sealed)?,
            sealed,
            most_sealed: confidentiality_limit(suite),
            opener: opener(suite, rx)?,
            opened,
            message: Vec::new(),
            owed: None,
            patience: Patience {
                empty_records: EMPTY_RECORDS,
                key_updates: KEY_UPDATES,
                warnings: WARNINGS,
                renegotiations: RENEGOTIATIONS,
            },
        })
    }

    /// Opens a whole record where it lies. An error ends the connection.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Error> {
        let begin = record.as_ptr().addr();
        let (&mut [typ, ref version @ .., _, _], payload) =
            record.split_first_chunk_mut::<HEAD>().ok_or(InvalidMessage::MessageTooShort)?;
        let typ = ContentType::from(typ);
        // Nothing else is sent in the clear any more (RFC 8446, 5.2).
        if self.is_tls13 && typ != ContentType::ApplicationData {
            return Err(InvalidMessage::UnexpectedMessage("a record that is not protected").into());
        }
        let version = ProtocolVersion::from(u16::from_be_bytes(*version));
        let plain = self.opener.decrypt(InboundOpaqueMessage::new(typ, version, payload), self.opened)?;
        self.opened += 1;
        let (typ, payload) = (plain.typ, plain.payload);
        if typ != ContentType::Handshake && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        if payload.is_empty() {
            self.patience.empty_records =
                self.patience.empty_records.checked_sub(1).ok_or(PeerMisbehaved::TooManyEmptyFragments)?;
        } else {
            self.patience.empty_records = EMPTY_RECORDS;
        }
        match typ {
            ContentType::ApplicationData if payload.is_empty() => Ok(Opened::Message),
            ContentType::ApplicationData => {
                self.patience.key_updates = KEY_UPDATES;
                let start = payload.as_ptr().addr() - begin;
                Ok(Opened::Data(start..start + payload.len()))
            }
            ContentType::Alert => self.take_alert(payload),
            ContentType::Handshake => {
                let payload = payload.to_vec();
                self.take_messages(&payload).map(|()| Opened::Message)
            }
            _ => Err(InvalidMessage::UnexpectedMessage("a record of an unexpected type").into()),
        }
    }

    fn take_alert(&mut self, payload: &[u8]) -> Result<Opened, Error> {
        let &[level, description] = payload else {
            return Err(InvalidMessage::MessageTooShort.into());
        };
        let description = AlertDescription::from(description);
        match (level, description) {
            (1 | 2, AlertDescription::CloseNotify) => Ok(Opened::End),
            // TLS 1.3 has no warnings but this one (RFC 8446, 6).
            (1, _) if !self.is_tls13 || description == AlertDescription::UserCanceled => {
                self.patience.warnings = self
                    .patience
                    .warnings
                    .checked_sub(1)
                    .ok_or(PeerMisbehaved::TooManyWarningAlertsReceived)?;
                Ok(Opened::Message)
            }
            _ => Err(Error::AlertReceived(description)),
        }
    }

    /// Takes the messages of a handshake that came; what is left of the last one is kept.
    fn take_messages(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut all = std::mem::take(&mut self.message);
        all.extend_from_slice(payload);
        let mut rest = &all[..];
        while let [typ, a, b, c, behind @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MOST_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            self.take_message(*typ, body, behind.is_empty())?;
            rest = behind;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    /// `last`: nothing of another message follows in its record.
    fn take_message(&mut self, typ: u8, body: &[u8], last: bool) -> Result<(), Error> {
        match (typ, self.is_tls13) {
            (NEW_SESSION_TICKET, true) => self.peer.handle_new_session_ticket(body),
            // No record holds bytes of before and after a change of keys (RFC 8446, 5.1).
            (KEY_UPDATE, true) if !last => Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()),
            (KEY_UPDATE, true) => {
                let &[asked @ (0 | 1)] = body else {
                    return Err(InvalidMessage::InvalidKeyUpdate.into());
                };
                self.patience.key_updates = self
                    .patience
                    .key_updates
                    .checked_sub(1)
                    .ok_or(PeerMisbehaved::TooManyKeyUpdateRequests)?;
                let (opened, secrets) = self.peer.update_rx_secret()?;
                (self.opener, self.opened) = (opener(self.suite, secrets)?, opened);
                if asked == 1 {
                    self.owed = Some(Owed::KeyUpdate);
                }
                Ok(())
            }
            (HELLO_REQUEST, false) if body.is_empty() => {
                self.patience.renegotiations = self
                    .patience
                    .renegotiations
                    .checked_sub(1)
                    .ok_or(PeerMisbehaved::TooManyRenegotiationRequests)?;
                self.owed = Some(Owed::NoRenegotiation);
                Ok(())
            }
            _ => Err(InvalidMessage::UnexpectedMessage("a handshake message at this point").into()),
        }
    }

    /// What has to be sent before anything else, if there is any.
    pub(super) fn settle(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.owed.take() {
            Some(Owed::NoRenegotiation) => self.seal_alert(1, AlertDescription::NoRenegotiation).map(Some),
            Some(Owed::KeyUpdate) => self.renew().map(Some),
            // A key has done what its cipher is good for (RFC 8446, 5.5).
            None if self.is_tls13 && self.sealed + RESERVE >= self.most_sealed => self.renew().map(Some),
            None => Ok(None),
        }
    }

    /// Tells the peer of new keys with the old ones, and takes them.
    fn renew(&mut self) -> Result<Vec<u8>, Error> {
        // 0: the peer's own keys are its affair.
        let told = self.protect(ContentType::Handshake, OutboundChunks::Single(&[KEY_UPDATE, 0, 0, 1, 0]))?;
        let (sealed, secrets) = self.peer.update_tx_secret()?;
        (self.sealer, self.sealed) = (sealer(self.suite, secrets, sealed)?, sealed);
        Ok(told)
    }

    /// Makes a record of data, no longer than `FRAGMENT`.
    pub(super) fn seal(&mut self, data: OutboundChunks<'_>) -> Result<Vec<u8>, Error> {
        if self.sealed + RESERVE > self.most_sealed {
            return Err(Error::EncryptError);
        }
        self.protect(ContentType::ApplicationData, data)
    }

    /// Makes a record that says that nothing more comes.
    pub(super) fn seal_end(&mut self) -> Result<Vec<u8>, Error> {
        self.seal_alert(1, AlertDescription::CloseNotify)
    }

    /// Makes a record that tells the peer why this is the end, where it is to be told.
    pub(super) fn seal_failure(&mut self, error: &Error) -> Option<Vec<u8>> {
        let description = match error {
            // It has ended it itself.
            Error::AlertReceived(_) => return None,
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(InvalidMessage::UnexpectedMessage(_)) | Error::PeerMisbehaved(_) => {
                AlertDescription::UnexpectedMessage
            }
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::InternalError,
        };
        self.seal_alert(2, description).ok()
    }

    /// As if a key were good for so many records more.
    #[cfg(test)]
    pub(super) fn wear(&mut self, records: u64) {
        self.most_sealed = self.sealed + records;
    }

    fn seal_alert(&mut self, level: u8, description: AlertDescription) -> Result<Vec<u8>, Error> {
        self.protect(ContentType::Alert, OutboundChunks::Single(&[level, description.into()]))
    }

    fn protect(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, Error> {
        if self.sealed >= self.most_sealed {
            return Err(Error::EncryptError);
        }
        let record = self.sealer.encrypt(message(typ, payload), self.sealed)?;
        self.sealed += 1;
        Ok(record.encode())
    }
}

/// The length of the record that begins here, with its head, where it is whole. An error where none begins.
pub(super) fn whole_record(bytes: &[u8]) -> Result<Option<usize>, Error> {
    Ok(record_length(bytes)?.filter(|length| *length <= bytes.len()))
}

/// The length of the record that begins here, with its head, as soon as that is there.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(&[typ, major, _, high, low]) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
    if !(20..=23).contains(&typ) {
        return Err(InvalidMessage::InvalidContentType.into());
    }
    if major != 3 {
        return Err(InvalidMessage::UnknownProtocolVersion.into());
    }
    let length = HEAD + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST { Err(InvalidMessage::MessageTooLarge.into()) } else { Ok(Some(length)) }
}

fn confidentiality_limit(suite: SupportedCipherSuite) -> u64 {
    let limit = match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
    };
    limit.min(MOST_RECORDS)
}

/// What seals the record of number `sealed` next.
pub(super) fn sealer(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
    sealed: u64,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    let (key, iv) = parts(secrets)?;
    let mut sealer = match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    };
    if sealed > 0 {
        // aws-lc refuses numbers that do not rise, and counts from the first that it sees: it has to be the first. Nobody
        // ever sees this record.
        drop(sealer.encrypt(message(ContentType::Alert, OutboundChunks::Single(&[1, 0])), 0)?);
    }
    Ok(sealer)
}

fn message(typ: ContentType, payload: OutboundChunks<'_>) -> OutboundPlainMessage<'_> {
    OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload }
}

fn opener(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    let (key, iv) = parts(secrets)?;
    Ok(match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            // What is not fixed comes with each record.
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            suite.aead_alg.decrypter(key, &iv.as_ref()[..fixed])
        }
    })
}

fn parts(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher whose keys are not known".into())),
    }
}

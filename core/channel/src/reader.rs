//! The reader's side of handshake C1.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_NONCE_LEN, CryptoRng, ExchangeKey, HASH_LEN, Provider, Secret, SecureElement, UnixTime,
};
use countersign_pki::{CERTIFICATE_MAX, CertificateNumber, Leaf, Role as PkiRole, TrustStore};
use tls_codec::{DeserializeBytes, SerializeBytes, TlsByteVecU8};
use zeroize::Zeroizing;

use crate::link::{Link, Open, Received};
use crate::message::{self, Challenge, HANDSHAKE_V1, IdKind, Policy, Proof, ReaderId, ServerProof};
use crate::schedule::{self, SessionKeys};
use crate::transcript::{Role, Transcript};
use crate::wire::{Frame, Kind, Mode};
use crate::{Error, Exporter, HANDSHAKE_TIMEOUT, Refusal};

/// What a reader is provisioned with.
pub struct ReaderConfig {
    /// The suite's algorithms.
    pub provider: Provider,
    /// The security chip that holds the reader's private key.
    pub secure_element: Arc<dyn SecureElement>,
    /// The reader's certificate, DER, at most [`CERTIFICATE_MAX`] bytes.
    pub certificate: Vec<u8>,
    /// The reader's serial number.
    pub serial: String,
    /// The number of that certificate.
    pub certificate_number: CertificateNumber,
    /// The kind of id that is signed (the patent's first id, C4).
    pub signed_id: IdKind,
    /// The kind of id that is sent (the patent's second id, C4).
    pub sent_id: IdKind,
    /// Whom the reader trusts to certify servers.
    pub trust: Arc<TrustStore>,
    /// The server it was set up for; `None` takes any certified server.
    pub server_id: Option<String>,
}

/// What happened on the reader's side.
pub enum ReaderEvent {
    /// Both sides have confirmed; data may be sent.
    Connected,
    /// One record's data.
    Data(Zeroizing<Vec<u8>>),
    /// The server has closed properly; nothing is missing.
    Closed,
}

impl core::fmt::Debug for ReaderEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Connected => "Connected",
            Self::Data(_) => "Data(..)",
            Self::Closed => "Closed",
        })
    }
}

/// The reader's side of handshake C1 and the session after it. See the crate's grammar.
pub struct ReaderChannel {
    config: Arc<ReaderConfig>,
    link: Link,
    state: State,
    deadline: Option<UnixTime>,
    events: VecDeque<ReaderEvent>,
}

enum State {
    ExpectChallenge(ExpectChallenge),
    ExpectServerProof(ExpectServerProof),
    Open(Box<Open>),
    Dead,
}

/// Waiting for M1. The ephemeral share is ready, so that on `R1` the reader does nothing but sign
/// (C1: "at once, doing nothing else first").
struct ExpectChallenge {
    transcript: Transcript,
    ephemeral: Box<dyn ExchangeKey>,
}

/// Waiting for M3.
struct ExpectServerProof {
    transcript: Transcript,
    ephemeral: Box<dyn ExchangeKey>,
}

impl ReaderChannel {
    /// Starts the handshake: makes the ephemeral share and queues M0.
    ///
    /// # Errors
    /// [`Error::Local`] if the provider fails; [`Error::Misuse`] for a configuration outside
    /// bounds.
    pub fn new(
        config: Arc<ReaderConfig>,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let provider = &config.provider;
        let server_id = config.server_id.as_deref().unwrap_or_default();
        if config.certificate.len() > CERTIFICATE_MAX || server_id.len() > countersign_pki::ID_MAX {
            return Err(Error::Misuse("configuration outside its bounds"));
        }
        let ephemeral = provider.key_exchange.generate(rng).map_err(Error::Local)?;
        let request = message::Request {
            versions: alloc::vec![HANDSHAKE_V1],
            suites: alloc::vec![provider.suite.code()],
            policies: alloc::vec![Policy::EncryptAndMac.code()],
            server_id: server_id.as_bytes().to_vec().into(),
        };
        let body = encode(&request)?;
        let mut link = Link::new(Mode::C1);
        let m0 = link.send(Kind::Request, &[&body]);
        let transcript = Transcript::new(provider, Mode::C1).append(&*provider.hash, m0);
        Ok(Self {
            state: State::ExpectChallenge(ExpectChallenge { transcript, ephemeral }),
            config,
            link,
            deadline: Some(now.plus(HANDSHAKE_TIMEOUT)),
            events: VecDeque::new(),
        })
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// Any; the channel is dead afterwards.
    pub fn handle(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if matches!(self.state, State::Dead) {
            return Err(Error::Dead);
        }
        self.link.receive(bytes);
        loop {
            match core::mem::replace(&mut self.state, State::Dead) {
                State::Dead => return Err(Error::Dead),
                State::ExpectChallenge(expect) => {
                    let Some(frame) = self.link.next_or_alert(Kind::Challenge)? else {
                        self.state = State::ExpectChallenge(expect);
                        return Ok(());
                    };
                    let next = expect.handle(&self.config, &mut self.link, rng, &frame)?;
                    self.state = State::ExpectServerProof(next);
                }
                State::ExpectServerProof(expect) => {
                    let Some(frame) = self.link.next_or_alert(Kind::ServerProof)? else {
                        self.state = State::ExpectServerProof(expect);
                        return Ok(());
                    };
                    let open = expect.handle(&self.config, &mut self.link, now, &frame)?;
                    self.state = State::Open(Box::new(open));
                    self.deadline = None;
                    self.events.push_back(ReaderEvent::Connected);
                }
                State::Open(mut open) => {
                    let Some(frame) = self.link.next_or_alert(Kind::Record)? else {
                        self.state = State::Open(open);
                        return Ok(());
                    };
                    self.events.push_back(match open.receive(frame)? {
                        Received::Data(data) => ReaderEvent::Data(data),
                        Received::Closed => ReaderEvent::Closed,
                    });
                    self.state = State::Open(open);
                }
            }
        }
    }

    /// Bytes to send, if any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.link.poll_transmit()
    }

    /// What happened, if anything.
    pub fn poll_event(&mut self) -> Option<ReaderEvent> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`]; `None` once connected.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<UnixTime> {
        self.deadline
    }

    /// Ends a handshake that took too long.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the deadline has passed.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if now >= deadline => {
                self.state = State::Dead;
                Err(Error::Timeout)
            }
            _ => Ok(()),
        }
    }

    /// The byte stream has ended.
    ///
    /// # Errors
    /// [`Error::Truncated`] unless the server had closed properly.
    pub fn handle_end(&mut self) -> Result<(), Error> {
        match core::mem::replace(&mut self.state, State::Dead) {
            State::Open(open) if open.is_peer_closed() => Ok(()),
            State::Dead => Err(Error::Dead),
            _ => Err(Error::Truncated),
        }
    }

    /// Seals `data` (at most [`crate::RECORD_MAX`] bytes) into one record.
    ///
    /// # Errors
    /// [`Error::Misuse`] before [`ReaderEvent::Connected`] or for too much data;
    /// [`Error::KeyExhausted`].
    pub fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.open()?.send_on(data)
    }

    /// Queues the close record.
    ///
    /// # Errors
    /// [`Error::Misuse`] before the session is open.
    pub fn close(&mut self) -> Result<(), Error> {
        self.open()?.close_on()
    }

    fn open(&mut self) -> Result<OpenOn<'_>, Error> {
        match &mut self.state {
            State::Open(open) => Ok(OpenOn { open, link: &mut self.link }),
            State::Dead => Err(Error::Dead),
            _ => Err(Error::Misuse("the handshake is not done")),
        }
    }

    /// The server's certificate, once connected.
    #[must_use]
    pub fn peer(&self) -> Option<&Leaf> {
        match &self.state {
            State::Open(open) => Some(&open.peer),
            _ => None,
        }
    }

    /// The exporter, once connected.
    #[must_use]
    pub fn exporter(&self) -> Option<&Exporter> {
        match &self.state {
            State::Open(open) => Some(&open.exporter),
            _ => None,
        }
    }
}

/// An open session and the link it sends on.
pub(crate) struct OpenOn<'a> {
    pub(crate) open: &'a mut Open,
    pub(crate) link: &'a mut Link,
}

impl OpenOn<'_> {
    pub(crate) fn send_on(self, data: &[u8]) -> Result<(), Error> {
        self.open.send(self.link, data)
    }

    pub(crate) fn close_on(self) -> Result<(), Error> {
        self.open.close(self.link)
    }
}

pub(crate) fn encode(message: &impl SerializeBytes) -> Result<Vec<u8>, Error> {
    message.tls_serialize_bytes().map_err(|_| Error::Misuse("a field exceeds its length prefix"))
}

impl ExpectChallenge {
    fn handle(
        self,
        config: &ReaderConfig,
        link: &mut Link,
        rng: &mut dyn CryptoRng,
        frame: &Frame,
    ) -> Result<ExpectServerProof, Error> {
        let provider = &config.provider;
        let challenge = Challenge::tls_deserialize_exact_bytes(frame.body())
            .map_err(|_| Error::Malformed("M1"))?;
        // G8: the selection must be one of the offers.
        if challenge.version != HANDSHAKE_V1 {
            return Err(Error::Incompatible("version"));
        }
        if challenge.suite != provider.suite.code() {
            return Err(Error::Incompatible("suite"));
        }
        if challenge.policy != Policy::EncryptAndMac.code() {
            return Err(Error::Incompatible("protection policy"));
        }
        let id = |kind| ReaderId::of(kind, &config.serial, &config.certificate_number);
        let proof = encode(&Proof {
            challenge,
            share: self.ephemeral.share().to_vec().into(),
            sent_id: id(config.sent_id).to_wire(),
            signed_kind: config.signed_id.code(),
            certificate: config.certificate.clone().into(),
        })?;
        let transcript =
            self.transcript.append(&*provider.hash, &frame.raw).append(&*provider.hash, &proof);
        let message = transcript.to_be_signed(Role::Reader, id(config.signed_id).as_bytes());
        let signature = config.secure_element.sign(rng, &message).map_err(Error::Local)?;
        let signature = encode(&TlsByteVecU8::from(signature))?;
        link.send(Kind::Proof, &[&proof, &signature]);
        let transcript = transcript.append(&*provider.hash, &signature);
        Ok(ExpectServerProof { transcript, ephemeral: self.ephemeral })
    }
}

impl ExpectServerProof {
    /// S109–S112 of the patent: certificate, then signature, then decryption.
    fn handle(
        self,
        config: &ReaderConfig,
        link: &mut Link,
        now: UnixTime,
        frame: &Frame,
    ) -> Result<Open, Error> {
        let provider = &config.provider;
        let malformed = |_| Error::Malformed("M3");
        let body = frame.body();
        let (proof, rest) = ServerProof::tls_deserialize_bytes(body).map_err(malformed)?;
        let signed = &body[..body.len() - rest.len()];
        let (signature, fin) = TlsByteVecU8::tls_deserialize_bytes(rest).map_err(malformed)?;
        let fin: &[u8; HASH_LEN] = fin.try_into().map_err(|_| Error::Malformed("M3"))?;

        let leaf = config.trust.verify(proof.certificate.as_slice(), PkiRole::Server, now, None)?;
        if config.server_id.as_deref().is_some_and(|wanted| wanted != leaf.identity().id()) {
            return Err(Refusal::UnexpectedServer.into());
        }
        let before_m3 = self.transcript;
        let transcript = before_m3.clone().append(&*provider.hash, signed);
        leaf.key()
            .verify(&transcript.to_be_signed(Role::Server, &[]), signature.as_slice())
            .map_err(|_| Error::Authentication("server-signature"))?;

        let shared = self
            .ephemeral
            .agree(proof.share.as_slice())
            .map_err(|_| Error::Malformed("the server's share"))?;
        let r3 = open_r3(provider, &before_m3, &shared, &proof)?;
        let signature = &rest[..rest.len() - fin.len()];
        let transcript = transcript.append(&*provider.hash, signature);
        let keys = SessionKeys::derive(provider, &transcript, &r3, &shared)?;
        keys.verify_finished(provider, Role::Server, &transcript, fin)?;
        let transcript = transcript.append(&*provider.hash, fin);
        let confirmation = keys.finished(provider, Role::Reader, &transcript);
        link.send(Kind::Finished, &[&confirmation]);
        let (to_server, to_reader, exporter) = keys.into_parts(provider);
        Ok(Open::new(to_server, to_reader, exporter, leaf))
    }
}

/// Opens the patent's `E_reader(R3)`: a key used once, so the nonce is zero.
fn open_r3(
    provider: &Provider,
    before_m3: &Transcript,
    shared: &Secret,
    proof: &ServerProof,
) -> Result<Secret, Error> {
    let key = schedule::sealing_key(provider, before_m3, shared)?;
    let mut r3 = Zeroizing::new(proof.sealed_r3.as_slice().to_vec());
    key.open(&[0; AEAD_NONCE_LEN], before_m3.hash(), &mut r3)
        .map_err(|_| Error::Authentication("R3"))?;
    if r3.len() != HASH_LEN {
        return Err(Error::Malformed("length of R3"));
    }
    Ok(Secret::copied_from(&r3))
}

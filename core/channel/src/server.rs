//! The server's side of handshake C1.
//!
//! The order of checks on M2 is the design's (G11): length → window → MAC → bitmap peek → id map →
//! certificate → signature → atomic consumption → only now key generation and the private key.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoError, CryptoRng, HASH_LEN, Provider, Secret,
    SecureElement, UnixTime,
};
use countersign_pki::{CertificateNumber, Leaf, LeafCache, PkiError, Role as PkiRole, TrustStore};
use tls_codec::{DeserializeBytes, TlsByteVecU8};
use zeroize::Zeroizing;

use crate::challenge::{Issued, Selection};
use crate::link::{Link, Open, Received};
use crate::message::{self, HANDSHAKE_V1, IdKind, OFFER_MAX, Policy, Proof, ReaderId, ServerProof};
use crate::reader::{OpenOn, encode};
use crate::schedule::{self, SessionKeys};
use crate::transcript::{Role, Transcript};
use crate::wire::{Frame, Kind, Mode};
use crate::{ChallengeGate, Error, Exporter, HANDSHAKE_TIMEOUT, Refusal};

/// What a server's connections share.
pub struct ServerConfig {
    /// The suite's algorithms.
    pub provider: Provider,
    /// The server's private key.
    pub key: Arc<dyn SecureElement>,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
    /// The id in that certificate.
    pub server_id: String,
    /// Whom the server trusts to certify readers.
    pub trust: Arc<TrustStore>,
    /// Remembers verified certificates.
    pub leaf_cache: Arc<dyn LeafCache>,
    /// Issues and burns challenges.
    pub challenges: Arc<dyn ChallengeGate>,
}

/// What the directory knows of a reader: the mapping of C4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Serial number.
    pub serial: String,
    /// Number of its live certificate.
    pub certificate_number: CertificateNumber,
}

/// Why the directory does not vouch for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupRefusal {
    /// No such id, or no live certificate.
    Unknown,
    /// Its certificate was revoked.
    Revoked,
    /// The reader is blocked.
    Blocked,
    /// The directory cannot be asked now.
    Unavailable,
}

/// What happened on the server's side.
pub enum ServerEvent {
    /// Look this id up and call [`ServerChannel::reader_found`].
    LookUp(ReaderId),
    /// Both sides have confirmed; data may be sent.
    Connected,
    /// One record's data.
    Data(Zeroizing<Vec<u8>>),
    /// The reader has closed properly; nothing is missing.
    Closed,
}

impl core::fmt::Debug for ServerEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::LookUp(id) => f.debug_tuple("LookUp").field(id).finish(),
            Self::Connected => f.write_str("Connected"),
            Self::Data(_) => f.write_str("Data(..)"),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

/// The server's side of handshake C1 and the session after it. See the crate's grammar.
pub struct ServerChannel {
    config: Arc<ServerConfig>,
    /// What the challenge is tied to besides M0: the peer's IP address, as octets.
    address: Vec<u8>,
    link: Link,
    state: State,
    deadline: Option<UnixTime>,
    events: VecDeque<ServerEvent>,
}

enum State {
    ExpectRequest(ExpectRequest),
    ExpectProof(ExpectProof),
    ExpectReader(Box<ExpectReader>),
    ExpectFinished(Box<ExpectFinished>),
    Open(Box<Open>),
    Dead,
}

/// Waiting for M0.
struct ExpectRequest;

/// Waiting for M2. Nothing of the contact is kept but the transcript of M0.
struct ExpectProof {
    after_m0: Transcript,
}

/// M2's challenge is good; waiting for the owner to look the reader up.
struct ExpectReader {
    transcript: Transcript,
    issued: Issued,
    proof: Proof,
    sent_id: ReaderId,
    signed_kind: IdKind,
    signature: Vec<u8>,
    signature_field: Vec<u8>,
}

/// Waiting for M4.
struct ExpectFinished {
    transcript: Transcript,
    keys: SessionKeys,
    peer: Arc<Leaf>,
}

impl ServerChannel {
    /// Waits for a reader whose address is `address` (its IP octets).
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, address: &[u8], now: UnixTime) -> Self {
        Self {
            config,
            address: address.to_vec(),
            link: Link::new(Mode::C1),
            state: State::ExpectRequest(ExpectRequest),
            deadline: Some(now.plus(HANDSHAKE_TIMEOUT)),
            events: VecDeque::new(),
        }
    }

    /// Takes bytes from the reader.
    ///
    /// # Errors
    /// Any; the channel is dead afterwards. The caller decides on the incident id and then calls
    /// [`Self::refuse`] to queue the alert.
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
        self.advance(now, rng)
    }

    fn advance(&mut self, now: UnixTime, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        loop {
            match core::mem::replace(&mut self.state, State::Dead) {
                State::Dead => return Err(Error::Dead),
                State::ExpectRequest(expect) => {
                    let Some(frame) = self.link.next(Kind::Request)? else {
                        self.state = State::ExpectRequest(expect);
                        return Ok(());
                    };
                    let mut cx = Cx { config: &self.config, address: &self.address, now, rng };
                    let next = expect.handle(&mut cx, &mut self.link, &frame)?;
                    self.state = State::ExpectProof(next);
                }
                State::ExpectProof(expect) => {
                    let Some(frame) = self.link.next(Kind::Proof)? else {
                        self.state = State::ExpectProof(expect);
                        return Ok(());
                    };
                    let mut cx = Cx { config: &self.config, address: &self.address, now, rng };
                    let next = expect.handle(&mut cx, &frame)?;
                    self.events.push_back(ServerEvent::LookUp(next.sent_id.clone()));
                    self.state = State::ExpectReader(Box::new(next));
                }
                State::ExpectReader(expect) => {
                    self.link.check_ahead()?;
                    self.state = State::ExpectReader(expect);
                    return Ok(());
                }
                State::ExpectFinished(expect) => {
                    let Some(frame) = self.link.next(Kind::Finished)? else {
                        self.state = State::ExpectFinished(expect);
                        return Ok(());
                    };
                    let open = expect.handle(&self.config.provider, &frame)?;
                    self.state = State::Open(Box::new(open));
                    self.deadline = None;
                    self.events.push_back(ServerEvent::Connected);
                }
                State::Open(mut open) => {
                    let Some(frame) = self.link.next(Kind::Record)? else {
                        self.state = State::Open(open);
                        return Ok(());
                    };
                    self.events.push_back(match open.receive(frame)? {
                        Received::Data(data) => ServerEvent::Data(data),
                        Received::Closed => ServerEvent::Closed,
                    });
                    self.state = State::Open(open);
                }
            }
        }
    }

    /// Answers [`ServerEvent::LookUp`]; the handshake goes on.
    ///
    /// # Errors
    /// As [`Self::handle`]; [`Error::Misuse`] if nothing was asked.
    pub fn reader_found(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        found: Result<DirectoryEntry, LookupRefusal>,
    ) -> Result<(), Error> {
        // A directory may be slow; what comes after it is the dear part.
        self.handle_timeout(now)?;
        if !matches!(self.state, State::ExpectReader(_) | State::Dead) {
            return Err(Error::Misuse("no reader was asked for")); // and the session goes on
        }
        match core::mem::replace(&mut self.state, State::Dead) {
            State::ExpectReader(expect) => {
                let mut cx = Cx { config: &self.config, address: &self.address, now, rng };
                let next = expect.handle(&mut cx, &mut self.link, found)?;
                self.state = State::ExpectFinished(Box::new(next));
                self.advance(now, rng)
            }
            _ => Err(Error::Dead),
        }
    }

    /// Queues the alert for an error that [`Self::handle`] returned, with the incident id that
    /// leads
    /// the operator to the detail.
    pub fn refuse(&mut self, error: &Error, incident: &str) {
        self.state = State::Dead;
        self.link.send_alert(error, incident);
    }

    /// Bytes to send, if any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.link.poll_transmit()
    }

    /// What happened, if anything.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
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
    /// [`Error::Truncated`] unless the reader had closed properly.
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
    /// [`Error::Misuse`] before [`ServerEvent::Connected`] or for too much data;
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

    /// The reader's certificate, once connected.
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

/// What a state's handler may use.
struct Cx<'a> {
    config: &'a ServerConfig,
    address: &'a [u8],
    now: UnixTime,
    rng: &'a mut dyn CryptoRng,
}

impl Cx<'_> {
    /// The challenge is tied to the address and to M0 (through its transcript hash).
    fn binding(&self, after_m0: &Transcript) -> Vec<u8> {
        [self.address, after_m0.hash()].concat()
    }
}

impl ExpectRequest {
    fn handle(self, cx: &mut Cx<'_>, link: &mut Link, m0: &Frame) -> Result<ExpectProof, Error> {
        let request = message::Request::tls_deserialize_exact_bytes(m0.body())
            .map_err(|_| Error::Malformed("M0"))?;
        let server_id = request.server_id.as_slice();
        if !server_id.is_empty() && server_id != cx.config.server_id.as_bytes() {
            return Err(Refusal::WrongServer.into());
        }
        let selection = select(cx.config, &request)?;
        let provider = &cx.config.provider;
        let after_m0 = Transcript::new(provider, Mode::C1).append(&*provider.hash, &m0.raw);
        let binding = cx.binding(&after_m0);
        let issued = cx.config.challenges.issue(cx.now, cx.rng, selection, &binding)?;
        link.send(Kind::Challenge, &[&encode(&issued.to_wire())?]);
        Ok(ExpectProof { after_m0 })
    }
}

/// The server's choice among the offers: it prefers its own order.
fn select(config: &ServerConfig, request: &message::Request) -> Result<Selection, Error> {
    let versions = request.versions.as_slice();
    let suites = request.suites.as_slice();
    let policies = request.policies.as_slice();
    if versions.len().max(suites.len()).max(policies.len()) > OFFER_MAX {
        return Err(Error::Malformed("M0 offers too much"));
    }
    let selection = Selection {
        version: HANDSHAKE_V1,
        suite: config.provider.suite.code(),
        policy: Policy::EncryptAndMac.code(),
    };
    if !versions.contains(&selection.version) {
        return Err(Error::Incompatible("version"));
    }
    if !suites.contains(&selection.suite) {
        return Err(Error::Incompatible("suite"));
    }
    if !policies.contains(&selection.policy) {
        return Err(Error::Incompatible("protection policy"));
    }
    Ok(selection)
}

impl ExpectProof {
    fn handle(self, cx: &mut Cx<'_>, m2: &Frame) -> Result<ExpectReader, Error> {
        let malformed = |_| Error::Malformed("M2");
        let body = m2.body();
        let (proof, rest) = Proof::tls_deserialize_bytes(body).map_err(malformed)?;
        let signed = &body[..body.len() - rest.len()];
        let signature = TlsByteVecU8::tls_deserialize_exact_bytes(rest).map_err(malformed)?;
        let sent_id = ReaderId::from_wire(&proof.sent_id)?;
        let signed_kind = IdKind::from_code(proof.signed_kind)?;

        let issued = Issued::from_wire(&proof.challenge);
        let binding = cx.binding(&self.after_m0);
        cx.config.challenges.check(cx.now, &issued, &binding)?; // G11: one MAC so far

        // M1 is rebuilt from its authenticated echo: the server need not have kept it.
        let hash = &*cx.config.provider.hash;
        let m1 = crate::wire::frame(Mode::C1, Kind::Challenge, &[&encode(&proof.challenge)?]);
        let transcript = self.after_m0.append(hash, &m1).append(hash, signed);
        Ok(ExpectReader {
            transcript,
            issued,
            sent_id,
            signed_kind,
            signature: signature.into_vec(),
            signature_field: rest.to_vec(),
            proof,
        })
    }
}

impl ExpectReader {
    fn handle(
        self,
        cx: &mut Cx<'_>,
        link: &mut Link,
        found: Result<DirectoryEntry, LookupRefusal>,
    ) -> Result<ExpectFinished, Error> {
        if found == Err(LookupRefusal::Unavailable) {
            return Err(Refusal::Busy.into());
        }
        let certificate = self.proof.certificate.as_slice();
        let cache = Some(&*cx.config.leaf_cache);
        let leaf = cx.config.trust.verify(certificate, PkiRole::Reader, cx.now, cache)?;

        // C4: mapped first, then verified over the other kind of id. Where the directory has no
        // entry, or one that is not this certificate's, the certificate's own ids stand in: so that
        // only who has a reader's key learns what the directory says of it.
        let own = DirectoryEntry {
            serial: leaf.identity().id().into(),
            certificate_number: leaf.number().clone(),
        };
        let mapped = found.as_ref().unwrap_or(&own);
        let id = |kind| ReaderId::of(kind, &mapped.serial, &mapped.certificate_number);
        let matches = *mapped == own && id(self.sent_id.kind()) == self.sent_id;
        let signer = if matches { mapped } else { &own };
        let signed_id = ReaderId::of(self.signed_kind, &signer.serial, &signer.certificate_number);
        let message = self.transcript.to_be_signed(Role::Reader, signed_id.as_bytes());
        leaf.key()
            .verify(&message, &self.signature)
            .map_err(|_| Error::Authentication("reader-signature"))?;
        match found {
            _ if !matches => return Err(Refusal::ReaderIdMismatch.into()),
            Ok(_) => {}
            Err(LookupRefusal::Unknown) => return Err(Refusal::UnknownReader.into()),
            Err(LookupRefusal::Revoked) => return Err(PkiError::Revoked.into()),
            Err(LookupRefusal::Blocked) => return Err(Refusal::ReaderBlocked.into()),
            Err(LookupRefusal::Unavailable) => return Err(Refusal::Busy.into()),
        }
        // Only a proven reader burns a challenge.
        cx.config.challenges.consume(cx.now, &self.issued)?;

        // Only from here on: key generation, the private key.
        let hash = &*cx.config.provider.hash;
        let transcript = self.transcript.append(hash, &self.signature_field);
        let r1 = self.proof.challenge.r1();
        let reader_share = self.proof.share.as_slice();
        answer(cx, link, transcript, &r1, reader_share, leaf)
    }
}

/// Builds and queues M3 (S106–S108): `R2`, `R3 = f(R1, R2)` sealed to the reader, signature,
/// `Fin_S`.
fn answer(
    cx: &mut Cx<'_>,
    link: &mut Link,
    before_m3: Transcript,
    r1: &[u8],
    reader_share: &[u8],
    peer: Arc<Leaf>,
) -> Result<ExpectFinished, Error> {
    let provider = &cx.config.provider;
    let ephemeral = provider.key_exchange.generate(cx.rng).map_err(Error::Local)?;
    let share = ephemeral.share().to_vec();
    let shared =
        ephemeral.agree(reader_share).map_err(|_| Error::Malformed("the reader's share"))?;
    let r2 = Secret::try_filled(HASH_LEN, |out| {
        cx.rng.fill_bytes(out);
        Ok::<_, CryptoError>(())
    })
    .map_err(Error::Local)?;
    let r3 = schedule::r3(provider, r1, &r2)?;
    let proof = encode(&ServerProof {
        share: share.into(),
        sealed_r3: seal_r3(provider, &before_m3, &shared, &r3)?.into(),
        certificate: cx.config.certificate.clone().into(),
    })?;
    let transcript = before_m3.append(&*provider.hash, &proof);
    let signature = cx
        .config
        .key
        .sign(cx.rng, &transcript.to_be_signed(Role::Server, &[]))
        .map_err(Error::Local)?;
    let signature = encode(&TlsByteVecU8::from(signature))?;
    let transcript = transcript.append(&*provider.hash, &signature);
    let keys = SessionKeys::derive(provider, &transcript, &r3, &shared)?;
    let fin = keys.finished(provider, Role::Server, &transcript);
    link.send(Kind::ServerProof, &[&proof, &signature, &fin]);
    let transcript = transcript.append(&*provider.hash, &fin);
    Ok(ExpectFinished { transcript, keys, peer })
}

fn seal_r3(
    provider: &Provider,
    before_m3: &Transcript,
    shared: &Secret,
    r3: &Secret,
) -> Result<Vec<u8>, Error> {
    let key = schedule::sealing_key(provider, before_m3, shared)?;
    // At its final size from the start: growing would leave a copy of R3 behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(r3.len() + AEAD_TAG_LEN));
    sealed.extend_from_slice(r3.expose());
    key.seal(&[0; AEAD_NONCE_LEN], before_m3.hash(), &mut sealed).map_err(Error::Local)?;
    Ok(core::mem::take(&mut sealed))
}

impl ExpectFinished {
    fn handle(self, provider: &Provider, m4: &Frame) -> Result<Open, Error> {
        self.keys.verify_finished(provider, Role::Reader, &self.transcript, m4.body())?;
        let (to_server, to_reader, exporter) = self.keys.into_parts(provider);
        Ok(Open::new(to_reader, to_server, exporter, self.peer))
    }
}

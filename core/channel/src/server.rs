//! The server's side of handshakes C1 and C2.
//!
//! The order of checks on M2 is the design's (G11): length → window → MAC → bitmap peek → source
//! limit → id map → certificate → signature → atomic consumption → only now key generation and the
//! private key.

mod proof;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Domain, Suite, UnixTime};
use countersign_pki::{CertificateNumber, Leaf, LeafCache, Role as PkiRole};
use tls_codec::TlsByteVecU8;

use self::proof::{ExpectFinished, ExpectReader};
use crate::challenge::{EpochShare, Issued, Selection};
use crate::credential::{self, Credential};
use crate::endpoint::{Cx, Endpoint, Event, Party, Step};
use crate::link::Link;
use crate::message::{
    self, Contribution, EpochProof, HANDSHAKE_V1, IdKind, OFFER_MAX, Proof, ProofHead, ReaderId,
    decode, decode_whole, encode,
};
use crate::methods::channel;
use crate::source::SourceGate;
use crate::transcript::{Transcript, epoch_share_to_be_signed};
use crate::wire::{self, Frame, Kind, Mode};
use crate::{ChallengeGate, Error, Exporter, Heartbeat, Policy, Refusal};

/// What a server's connections share.
#[derive(Clone)]
pub struct ServerConfig {
    /// One credential per suite it can speak, the preferred one first.
    pub credentials: Vec<Credential>,
    /// The handshakes it answers.
    pub modes: Vec<Mode>,
    /// The policies it accepts, the preferred one first.
    pub policies: Vec<Policy>,
    /// The id in its certificates.
    pub server_id: String,
    /// Remembers verified certificates.
    pub leaf_cache: Arc<dyn LeafCache>,
    /// Issues and burns challenges.
    pub challenges: Arc<dyn ChallengeGate>,
    /// Limits what one source can make the server verify.
    pub sources: Arc<dyn SourceGate>,
    /// The roles of which the peer's certificate must have one. What a device of that role may do
    /// is for the owner of the channel to say.
    pub peer_roles: Vec<PkiRole>,
}

impl ServerConfig {
    /// Checks what the types do not: call this once, when the configuration is made.
    ///
    /// # Errors
    /// [`Error::Misuse`] for what can never work.
    pub fn check(&self) -> Result<(), Error> {
        credential::check_offers(&self.credentials, &self.modes, &self.policies)?;
        if !self.modes.iter().all(|mode| mode.is_of_readers()) {
            return Err(Error::Misuse("a mode of sleeves and managers"));
        }
        credential::check_id(Some(&self.server_id))?;
        self.credentials.iter().try_for_each(|credential| credential.number().map(drop))
    }
}

/// What the directory knows of a reader: the mapping of C4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Serial number.
    pub serial: String,
    /// Number of its live certificate.
    pub certificate_number: CertificateNumber,
}

/// What the directory knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its two ids.
    Mapped(DirectoryEntry),
    /// Its id only; its certificate may be any that verifies.
    ById(String),
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

/// What happened on the server's side. `Ask(id)`: look the reader up and call
/// [`ServerChannel::reader_found`].
pub type ServerEvent = Event<ReaderId>;

/// The server's side of a channel: handshake C1 or C2, as the reader begins, and the session after
/// it. See the crate's grammar.
pub struct ServerChannel(Endpoint<Server>);

channel!(ServerChannel, ServerEvent);

impl ServerChannel {
    /// Waits for a reader whose address is `address` (its IP octets).
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, address: &[u8], now: UnixTime) -> Self {
        let link = Link::new(config.modes.iter().copied().filter(|mode| mode.is_of_readers()));
        let delivery = config.policies.first().map(|policy| policy.delivery).unwrap_or_default();
        let server = Server { config, address: address.to_vec() };
        let state = State::Contact(Contact { asked: false });
        Self(Endpoint::new(server, delivery, link, state, now))
    }

    /// Answers [`Event::Ask`]; the handshake goes on.
    ///
    /// # Errors
    /// As [`Self::handle`]; [`Error::Misuse`] if nothing was asked.
    pub fn reader_found(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        found: Result<DirectoryEntry, LookupRefusal>,
    ) -> Result<(), Error> {
        self.found(now, rng, found.map(Known::Mapped))
    }

    /// Answers [`Event::Ask`] where the peer is not a reader with two ids that map to each other
    /// (C4), but a server that is known by the one in its certificate: `Ok` vouches for that id.
    ///
    /// # Errors
    /// As [`Self::reader_found`].
    pub fn peer_found(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        found: Result<String, LookupRefusal>,
    ) -> Result<(), Error> {
        self.found(now, rng, found.map(Known::ById))
    }

    fn found(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        found: Result<Known, LookupRefusal>,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::ExpectReader(_));
        self.0.answer(now, rng, waits, |server, state, cx| match state {
            State::ExpectReader(expect) => {
                let next = expect.handle(server, cx, found)?;
                Ok(Step::Await(State::ExpectFinished(Box::new(next))))
            }
            _ => Err(Error::Misuse("no reader was asked for")),
        })
    }

    /// Whether [`Event::Ask`] was or will be reported and waits for its answer: an M2 has come
    /// whose challenge is good, so the peer receives at its address. Over datagrams this is the
    /// moment to keep the machine.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.0.is_in(|state| matches!(state, State::ExpectReader(_)))
    }

    /// Queues the alert for an error that a call returned, with the incident id that leads the
    /// operator to the detail. Nothing else leaves any more.
    pub fn refuse(&mut self, error: &Error, incident: &str) {
        self.0.refuse(error, incident);
    }
}

pub(crate) struct Server {
    config: Arc<ServerConfig>,
    /// What a challenge is tied to besides M0: the peer's IP address, as octets.
    address: Vec<u8>,
}

pub(crate) enum State {
    Contact(Contact),
    ExpectReader(Box<ExpectReader>),
    ExpectFinished(Box<ExpectFinished>),
}

/// Waiting for M0 or M2. Nothing of a contact is kept between the two: M2 brings what there is to
/// know, under the challenge's MAC, and may come to another machine than M0.
pub(crate) struct Contact {
    /// A stream asks once.
    asked: bool,
}

impl Party for Server {
    type State = State;
    type Question = ReaderId;
    const HEARS_ALERTS: bool = false;

    fn awaited(state: &State) -> &'static [Kind] {
        match state {
            State::Contact(Contact { asked: true }) => &[Kind::Proof],
            State::Contact(_) => &[Kind::Request, Kind::Proof],
            State::ExpectReader(_) => &[],
            State::ExpectFinished(_) => &[Kind::Finished],
        }
    }

    fn repeats(state: &State) -> bool {
        matches!(state, State::ExpectFinished(_))
    }

    fn unchanged(state: &State) -> Option<State> {
        match state {
            State::Contact(Contact { asked }) => Some(State::Contact(Contact { asked: *asked })),
            _ => None,
        }
    }

    /// A challenge is stale when the server was restarted between M1 and M2: told so, the reader
    /// begins anew instead of waiting for an M3 that never comes. The alert is a fraction of the
    /// M2, and costs no operation.
    fn tells(error: &Error) -> bool {
        matches!(error, Error::Refused(Refusal::ChallengeStale))
    }

    fn handle(&self, state: State, cx: &mut Cx<'_>, frame: &Frame) -> Result<Step<Self>, Error> {
        match state {
            State::Contact(_) if frame.kind == Kind::Request => {
                let selection = self.challenge(cx, frame)?;
                // Over datagrams M1 may get lost, and the reader asks again.
                let asked = selection.delivery == crate::Delivery::Stream;
                Ok(Step::Await(State::Contact(Contact { asked })))
            }
            State::Contact(_) => {
                let next = self.proof(cx, frame)?;
                let id = next.sent_id.clone();
                Ok(Step::Ask(State::ExpectReader(Box::new(next)), id))
            }
            State::ExpectReader(_) => Err(Error::Unexpected),
            State::ExpectFinished(expect) => {
                let credential = self.credential(expect.suite.code())?;
                let (session, admission) = expect.handle(&credential.provider, frame)?;
                self.config.sources.forgive(admission);
                Ok(Step::Open(Box::new(session)))
            }
        }
    }
}

impl Server {
    /// The credential of a suite that this server has selected.
    fn credential(&self, suite: u16) -> Result<&Credential, Error> {
        credential::of_suite(&self.config.credentials, suite).ok_or(Error::Incompatible("suite"))
    }

    /// The challenge is tied to the address and to M0 (through its transcript hash).
    fn binding(&self, after_m0: &Transcript) -> Vec<u8> {
        [&self.address[..], after_m0.hash()].concat()
    }

    /// M0 to M1.
    fn challenge(&self, cx: &mut Cx<'_>, m0: &Frame) -> Result<Policy, Error> {
        let request = decode_whole::<message::Request>(m0.body(), "M0")?;
        let server_id = request.server_id.as_slice();
        if !server_id.is_empty() && server_id != self.config.server_id.as_bytes() {
            return Err(Refusal::WrongServer.into());
        }
        let (credential, policy) = self.select(m0.mode, &request)?;
        let selection = Selection {
            mode: m0.mode,
            version: HANDSHAKE_V1,
            suite: credential.suite().code(),
            policy: policy.code(),
        };
        let provider = &credential.provider;
        let after_m0 = Transcript::new(provider, m0.mode).append(&*provider.hash, &m0.raw);
        let binding = self.binding(&after_m0);
        let issued = self.config.challenges.issue(cx.now, cx.rng, selection, &binding)?;
        let (m1, _) = self.m1(cx, credential, policy, &issued)?;
        cx.link.send_frame(m1);
        Ok(policy)
    }

    /// The server's choice among the offers: it prefers its own order.
    fn select(
        &self,
        mode: Mode,
        request: &message::Request,
    ) -> Result<(&Credential, Policy), Error> {
        let message::Request { versions, suites, policies, .. } = request;
        if versions.len().max(suites.len()).max(policies.len()) > OFFER_MAX {
            return Err(Error::Malformed("M0 offers too much"));
        }
        if !versions.contains(&HANDSHAKE_V1) {
            return Err(Error::Incompatible("version"));
        }
        let offered = |one: &&Credential| suites.contains(&one.suite().code());
        let mut credentials = self.config.credentials.iter().filter(offered).peekable();
        if credentials.peek().is_none() {
            return Err(Error::Incompatible("suite"));
        }
        let receives = mode == Mode::C2;
        let policy_of = |credential: &Credential| {
            let serves = |policy: &&Policy| {
                policies.contains(&policy.code()) && credential.serves(**policy, receives)
            };
            self.config.policies.iter().find(serves).copied()
        };
        credentials
            .find_map(|credential| Some((credential, policy_of(credential)?)))
            .ok_or(Error::Incompatible("protection policy"))
    }

    /// M1 as it is sent, and as it is rebuilt from its authenticated echo.
    fn m1(
        &self,
        cx: &mut Cx<'_>,
        credential: &Credential,
        policy: Policy,
        issued: &Issued,
    ) -> Result<(Vec<u8>, Option<Arc<EpochShare>>), Error> {
        let mode = issued.selection.mode;
        let challenge = encode(&issued.to_wire())?;
        if mode == Mode::C1 {
            return Ok((wire::frame(mode, Kind::Challenge, &[&challenge]), None));
        }
        let epoch = self.epoch_share(cx, credential, issued)?;
        let encryption = credential.encryption.as_ref().filter(|_| policy.certificate_sealed);
        let proof = encode(&EpochProof {
            certificate: credential.certificate.clone().into(),
            share: epoch.key.share().to_vec().into(),
            signature: epoch.signature.clone().into(),
            encryption_certificate: encryption
                .map(|one| one.certificate.clone())
                .unwrap_or_default()
                .into(),
        })?;
        Ok((wire::frame(mode, Kind::Challenge, &[&challenge, &proof]), Some(epoch)))
    }

    fn epoch_share(
        &self,
        cx: &mut Cx<'_>,
        credential: &Credential,
        issued: &Issued,
    ) -> Result<Arc<EpochShare>, Error> {
        let (mode, suite) = (issued.selection.mode, credential.suite());
        let rng = &mut *cx.rng;
        let certificate = &credential.certificate;
        self.config.challenges.epoch_share(cx.now, issued, certificate, &mut || {
            let exchange = &credential.provider.key_exchange;
            let key = exchange.generate(rng).map_err(Error::Local)?;
            let message = epoch_share_to_be_signed(mode, suite, issued.epoch, key.share());
            let signature = credential.key.sign_in(rng, Domain::Handshake, &message);
            let signature = signature.map_err(Error::Local)?;
            Ok(EpochShare { key, certificate: certificate.clone(), signature })
        })
    }

    /// M2, up to the question who this is.
    fn proof(&self, cx: &mut Cx<'_>, m2: &Frame) -> Result<ExpectReader, Error> {
        // G11: window, MAC and bit are looked at before the rest is.
        let (head, _, _) = decode::<ProofHead>(m2.body(), "M2")?;
        let issued = Issued::from_wire(m2.mode, &head.challenge);
        let after_m0 = Transcript::resume(m2.mode, head.after_m0);
        self.config.challenges.check(cx.now, &issued, &self.binding(&after_m0))?;

        let (proof, signed, rest) = decode::<Proof>(m2.body(), "M2")?;
        let (contribution, contribution_field, rest) = match m2.mode {
            Mode::C1 => (None, &[][..], rest),
            _ => {
                let (contribution, field, rest) = decode::<Contribution>(rest, "M2")?;
                (Some(contribution), field, rest)
            }
        };
        let signature = decode_whole::<TlsByteVecU8>(rest, "M2")?;
        let sent_id = ReaderId::from_wire(&proof.sent_id)?;
        let signed_kind = IdKind::from_code(proof.signed_kind)?;
        let for_us =
            |one: &Contribution| one.server_id.as_slice() == self.config.server_id.as_bytes();
        if !contribution.as_ref().is_none_or(for_us) {
            return Err(Refusal::WrongServer.into());
        }
        let admission = self.config.sources.admit(cx.now, &self.address)?;

        let credential = self.credential(issued.selection.suite)?;
        // A gate may be shared by listeners that differ: what one selected another may not allow.
        let policy = Policy::from_code(issued.selection.policy)?;
        if !self.config.policies.contains(&policy) {
            return Err(Error::Incompatible("protection policy"));
        }
        let hash = &*credential.provider.hash;
        let (m1, epoch) = self.m1(cx, credential, policy, &issued)?;
        cx.link.fix(m2.mode);
        let before_contribution = after_m0.append(hash, &m1).append(hash, signed);
        let mut transcript = before_contribution.clone();
        if contribution.is_some() {
            transcript = transcript.append(hash, contribution_field);
        }
        let sealed = contribution.map(|one| one.sealed_r2.into_vec()).zip(epoch);
        Ok(ExpectReader {
            mode: m2.mode,
            policy,
            before_contribution,
            transcript,
            issued,
            admission,
            proof,
            sealed,
            sent_id,
            signed_kind,
            signature: signature.into_vec(),
            signature_field: rest.to_vec(),
        })
    }
}

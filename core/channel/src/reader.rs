//! The reader's side of handshakes C1 and C2.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

use countersign_crypto::{
    CryptoRng, Domain, ExchangeKey, HASH_LEN, Provider, Secret, Suite, UnixTime,
};
use countersign_pki::{CertificateNumber, Leaf, Role as PkiRole};
use tls_codec::TlsByteVecU8;

use crate::contribution::{Seal, random_secret};
use crate::credential::{self, Credential, certified_point};
use crate::endpoint::{Cx, Endpoint, Event, Party, Step};
use crate::link::Link;
use crate::message::{
    self, Challenge, Contribution, EpochProof, HANDSHAKE_V1, IdKind, Proof, ProofHead, ReaderId,
    ServerProof, ServerShare, decode, decode_whole, encode,
};
use crate::methods::channel;
use crate::schedule::SessionKeys;
use crate::session::Session;
use crate::transcript::{Role, Transcript, epoch_share_to_be_signed};
use crate::wire::{Frame, Kind, Mode, OPENING_DATAGRAM_LEN};
use crate::{Delivery, Error, Exporter, Heartbeat, Policy, Refusal};

/// What a reader is provisioned with.
#[derive(Clone)]
pub struct ReaderConfig {
    /// One credential per suite it can speak, the preferred one first.
    pub credentials: Vec<Credential>,
    /// The handshake it begins.
    pub mode: Mode,
    /// The policies it accepts, the preferred one first.
    pub policies: Vec<Policy>,
    /// The reader's serial number.
    pub serial: String,
    /// The kind of id that is signed (the patent's first id, C4).
    pub signed_id: IdKind,
    /// The kind of id that is sent (the patent's second id, C4).
    pub sent_id: IdKind,
    /// The server it was set up for; `None` takes any certified server.
    pub server_id: Option<String>,
    /// The role that the peer's certificate must have: [`PkiRole::Server`] for a reader. The
    /// certificates of both sides are signed, so neither can be taken for another role's.
    pub peer_role: PkiRole,
}

/// What happened on the reader's side; a reader is asked nothing.
pub type ReaderEvent = Event<Infallible>;

/// The reader's side of a channel: handshake C1 or C2, and the session after it. See the crate's
/// grammar.
pub struct ReaderChannel(Endpoint<Reader>);

channel!(ReaderChannel, ReaderEvent);

impl ReaderChannel {
    /// Starts the handshake: makes the ephemeral shares and queues M0.
    ///
    /// # Errors
    /// [`Error::Local`] if the provider fails; [`Error::Misuse`] for a configuration outside
    /// bounds.
    pub fn new(
        config: Arc<ReaderConfig>,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let ReaderConfig { credentials, mode, policies, server_id, .. } = &*config;
        if !mode.is_of_readers() {
            return Err(Error::Misuse("a mode of sleeves and managers"));
        }
        credential::check_offers(credentials, &[*mode], policies)?;
        let receives = *mode == Mode::C1;
        let served = |policy: &Policy| credentials.iter().any(|one| one.serves(*policy, receives));
        if !policies.iter().all(served) {
            return Err(Error::Misuse("a policy that no credential can serve"));
        }
        let request = message::Request {
            versions: alloc::vec![HANDSHAKE_V1],
            suites: credentials.iter().map(|one| one.suite().code()).collect(),
            policies: policies.iter().map(|policy| policy.code()).collect(),
            server_id: credential::check_id(server_id.as_ref())?.to_vec().into(),
        };
        let mut prepared = Vec::with_capacity(credentials.len());
        for credential in credentials {
            let number = credential.number()?;
            let exchange = &credential.provider.key_exchange;
            prepared.push((number, exchange.generate(rng).map_err(Error::Local)?));
        }
        let body = encode(&request)?;
        let mut link = Link::new([*mode]);
        let m0 = link.send(Kind::Request, &[&body]).to_vec();
        let delivery = policies[0].delivery;
        if delivery == Delivery::Datagrams {
            link.fill_up(OPENING_DATAGRAM_LEN);
        }
        let state = State::ExpectChallenge(ExpectChallenge { m0, prepared });
        Ok(Self(Endpoint::new(Reader { config }, delivery, link, state, now)))
    }
}

pub(crate) struct Reader {
    config: Arc<ReaderConfig>,
}

pub(crate) enum State {
    ExpectChallenge(ExpectChallenge),
    ExpectServerProof(Box<ExpectServerProof>),
}

/// Waiting for M1. Certificate numbers and shares are ready, so that on `R1` a reader in C1 does
/// nothing but sign ("at once, doing nothing else first").
pub(crate) struct ExpectChallenge {
    m0: Vec<u8>,
    /// For each credential: which suite it will be, M1 says.
    prepared: Vec<(CertificateNumber, Box<dyn ExchangeKey>)>,
}

/// Waiting for M3.
pub(crate) struct ExpectServerProof {
    agreed: Agreed,
    transcript: Transcript,
    ephemeral: Box<dyn ExchangeKey>,
    /// C2: the server that M1 showed, and this side's `R2`.
    shown: Option<(Arc<Leaf>, Secret)>,
}

/// What M1 settled.
struct Agreed {
    mode: Mode,
    suite: Suite,
    policy: Policy,
}

impl Party for Reader {
    type State = State;
    type Question = Infallible;
    const HEARS_ALERTS: bool = true;

    fn awaited(state: &State) -> &'static [Kind] {
        match state {
            State::ExpectChallenge(_) => &[Kind::Challenge],
            State::ExpectServerProof(_) => &[Kind::ServerProof],
        }
    }

    fn repeats(_: &State) -> bool {
        true
    }

    fn handle(&self, state: State, cx: &mut Cx<'_>, frame: &Frame) -> Result<Step<Self>, Error> {
        match state {
            State::ExpectChallenge(expect) => {
                let next = expect.handle(&self.config, cx, frame)?;
                Ok(Step::Await(State::ExpectServerProof(Box::new(next))))
            }
            State::ExpectServerProof(expect) => {
                let credential = credential_of(&self.config, expect.agreed.suite.code())?;
                Ok(Step::Open(Box::new(expect.handle(&self.config, credential, cx, frame)?)))
            }
        }
    }
}

/// G8: the selected suite must be one of the offers.
fn credential_of(config: &ReaderConfig, suite: u16) -> Result<&Credential, Error> {
    credential::of_suite(&config.credentials, suite).ok_or(Error::Incompatible("suite"))
}

/// The server that a certificate vouches for, if it is the one this reader was set up for.
fn check_server(
    config: &ReaderConfig,
    credential: &Credential,
    certificate: &[u8],
    now: UnixTime,
) -> Result<Arc<Leaf>, Error> {
    let leaf = credential.trust.verify(certificate, config.peer_role, now, None)?;
    if config.server_id.as_deref().is_some_and(|wanted| wanted != leaf.identity().id()) {
        return Err(Refusal::UnexpectedServer.into());
    }
    Ok(leaf)
}

impl ExpectChallenge {
    fn handle(
        self,
        config: &ReaderConfig,
        cx: &mut Cx<'_>,
        frame: &Frame,
    ) -> Result<ExpectServerProof, Error> {
        let (challenge, _, rest) = decode::<Challenge>(frame.body(), "M1")?;
        // G8: the selection must be one of the offers.
        if challenge.version != HANDSHAKE_V1 {
            return Err(Error::Incompatible("version"));
        }
        let credential = credential_of(config, challenge.suite)?;
        let policy = Policy::from_code(challenge.policy)?;
        if !config.policies.contains(&policy) || !credential.serves(policy, frame.mode == Mode::C1)
        {
            return Err(Error::Incompatible("protection policy"));
        }
        let agreed = Agreed { mode: frame.mode, suite: credential.suite(), policy };
        let at = config.credentials.iter().position(|one| one.suite() == agreed.suite);
        let prepared = at.and_then(|at| self.prepared.into_iter().nth(at));
        let (number, ephemeral) = prepared.ok_or(Error::Incompatible("suite"))?;

        let provider = &credential.provider;
        let hash = &*provider.hash;
        let after_m0 = Transcript::new(provider, frame.mode).append(hash, &self.m0);
        let epoch = match frame.mode {
            Mode::C1 if rest.is_empty() => None,
            Mode::C1 => return Err(Error::Malformed("M1")),
            _ => {
                let proof = decode_whole::<EpochProof>(rest, "M1")?;
                Some(CheckedEpoch::check(config, credential, &agreed, cx.now, &challenge, proof)?)
            }
        };

        let id = |kind| ReaderId::of(kind, &config.serial, &number);
        let sealed_to_us = policy.certificate_sealed && frame.mode == Mode::C1;
        let encryption = credential.encryption.as_ref().filter(|_| sealed_to_us);
        let proof = encode(&Proof {
            head: ProofHead { challenge, after_m0: *after_m0.hash() },
            share: ephemeral.share().to_vec().into(),
            sent_id: id(config.sent_id).to_wire(),
            signed_kind: config.signed_id.code(),
            certificate: credential.certificate.clone().into(),
            encryption_certificate: encryption
                .map(|one| one.certificate.clone())
                .unwrap_or_default()
                .into(),
        })?;
        let transcript = after_m0.append(hash, &frame.raw).append(hash, &proof);
        let (transcript, contribution, shown) = match epoch {
            None => (transcript, Vec::new(), None),
            Some(epoch) => {
                let (contribution, r2) = epoch.answer(provider, cx, &transcript, &*ephemeral)?;
                let transcript = transcript.append(hash, &contribution);
                (transcript, contribution, Some((epoch.leaf, r2)))
            }
        };
        let message = transcript.to_be_signed(Role::Reader, id(config.signed_id).as_bytes());
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        let signature = encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))?;
        cx.link.send(Kind::Proof, &[&proof, &contribution, &signature]);
        let transcript = transcript.append(hash, &signature);
        Ok(ExpectServerProof { agreed, transcript, ephemeral, shown })
    }
}

/// C2: an epoch share that a certified server has signed.
struct CheckedEpoch {
    leaf: Arc<Leaf>,
    share: Vec<u8>,
    /// The point of the server's encryption certificate, where the policy seals to it.
    certified: Option<Vec<u8>>,
}

impl CheckedEpoch {
    /// Certificate, then the epoch's signature.
    fn check(
        config: &ReaderConfig,
        credential: &Credential,
        agreed: &Agreed,
        now: UnixTime,
        challenge: &Challenge,
        proof: EpochProof,
    ) -> Result<Self, Error> {
        let leaf = check_server(config, credential, proof.certificate.as_slice(), now)?;
        let message = epoch_share_to_be_signed(
            agreed.mode,
            agreed.suite,
            challenge.epoch,
            proof.share.as_slice(),
        );
        leaf.key()
            .verify_in(Domain::Handshake, &message, proof.signature.as_slice())
            .map_err(|_| Error::Authentication("epoch-signature"))?;
        let certified = certified_point(
            credential,
            agreed.policy,
            proof.encryption_certificate.as_slice(),
            &leaf,
            now,
        )?;
        Ok(Self { leaf, share: proof.share.into_vec(), certified })
    }

    /// Makes `R2` and seals it to the epoch's share (the patent's `E_server(R2)`).
    fn answer(
        &self,
        provider: &Provider,
        cx: &mut Cx<'_>,
        before: &Transcript,
        ephemeral: &dyn ExchangeKey,
    ) -> Result<(Vec<u8>, Secret), Error> {
        let r2 = random_secret(cx.rng);
        let shared = ephemeral
            .agree(&self.share)
            .map_err(|_| Error::Malformed("the server's epoch share"))?;
        let seal = Seal { provider, transcript: before, shared: &shared, label: b"seal R2" };
        let sealed_r2 = seal.seal(cx.rng, self.certified.as_deref(), &r2)?;
        let contribution = encode(&Contribution {
            server_id: self.leaf.identity().id().as_bytes().to_vec().into(),
            sealed_r2: sealed_r2.into(),
        })?;
        Ok((contribution, r2))
    }
}

impl ExpectServerProof {
    /// S109–S112 of the patent: certificate, then signature, then decryption.
    fn handle(
        self,
        config: &ReaderConfig,
        credential: &Credential,
        cx: &mut Cx<'_>,
        frame: &Frame,
    ) -> Result<Session, Error> {
        let Agreed { suite, policy, .. } = self.agreed;
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let before_m3 = self.transcript;
        let (share, sealed_r3, signed, rest, leaf, r2) = match self.shown {
            None => {
                let (proof, signed, rest) = decode::<ServerProof>(frame.body(), "M3")?;
                let leaf = check_server(config, credential, proof.certificate.as_slice(), cx.now)?;
                (proof.share, proof.sealed_r3.into_vec(), signed, rest, leaf, None)
            }
            Some((leaf, r2)) => {
                let (proof, signed, rest) = decode::<ServerShare>(frame.body(), "M3")?;
                (proof.share, Vec::new(), signed, rest, leaf, Some(r2))
            }
        };
        let (signature, signature_field, fin) = decode::<TlsByteVecU8>(rest, "M3")?;
        let fin: &[u8; HASH_LEN] = fin.try_into().map_err(|_| Error::Malformed("M3"))?;
        let transcript = before_m3.clone().append(hash, signed);
        let message = transcript.to_be_signed(Role::Server, &[]);
        leaf.key()
            .verify_in(Domain::Handshake, &message, signature.as_slice())
            .map_err(|_| Error::Authentication("server-signature"))?;

        let shared = self
            .ephemeral
            .agree(share.as_slice())
            .map_err(|_| Error::Malformed("the server's share"))?;
        let contribution = match r2 {
            Some(r2) => r2,
            None => {
                let encryption = credential.encryption.as_ref();
                let certified = encryption.filter(|_| policy.certificate_sealed);
                let certified = certified.map(|one| &*one.key);
                let label = b"seal R3";
                let seal = Seal { provider, transcript: &before_m3, shared: &shared, label };
                seal.open(certified, &sealed_r3)?
            }
        };
        let transcript = transcript.append(hash, signature_field);
        let keys = SessionKeys::derive(provider, &transcript, &contribution, &shared)?;
        keys.verify_finished(provider, Role::Server, &transcript, fin)?;
        let transcript = transcript.append(hash, fin);
        let confirmation = keys.finished(provider, Role::Reader, &transcript);
        cx.link.send(Kind::Finished, &[&confirmation]);
        let keys = keys.into_directions(provider, &transcript, policy, Role::Reader)?;
        Ok(Session::new(keys, leaf, policy, suite))
    }
}

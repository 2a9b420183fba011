//! A2 and A3 as the sleeve sees them: the challenge, the manager's answer.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Domain, ExchangeKey, HASH_LEN, Secret};
use countersign_pki::{Leaf, Role as PkiRole};
use tls_codec::TlsByteVecU8;

use super::{Agreed, SleeveConfig};
use crate::contribution::{Seal, joined, random_secret};
use crate::credential::Credential;
use crate::endpoint::Cx;
use crate::link::Link;
use crate::message::connect::{ConnectAnswer, ConnectHead, ConnectRequest, EpochOffer};
use crate::message::{Challenge, HANDSHAKE_V1, ProofHead, decode, decode_whole, encode};
use crate::pairing::Pairing;
use crate::schedule::{self, SessionKeys};
use crate::session::Session;
use crate::transcript::{Role, Transcript, epoch_share_to_be_signed};
use crate::wire::{Frame, HEADER_LEN, Kind, Mode};
use crate::{Error, Refusal};

/// Waiting for M1.
pub(crate) struct ExpectChallenge {
    m0: Vec<u8>,
    pairing: Arc<Pairing>,
    ephemeral: Box<dyn ExchangeKey>,
}

impl ExpectChallenge {
    /// Queues M0.
    pub(super) fn begin(
        config: &SleeveConfig,
        pairing: Arc<Pairing>,
        link: &mut Link,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let credential = config
            .credential(pairing.suite.code())
            .map_err(|_| Error::Misuse("no credential of the pair's suite"))?;
        let ephemeral = credential.provider.key_exchange.generate(rng).map_err(Error::Local)?;
        let body = encode(&ConnectRequest {
            versions: alloc::vec![HANDSHAKE_V1],
            suite: pairing.suite.code(),
            policies: config.policies.iter().map(|policy| policy.code()).collect(),
            sleeve_id: config.sleeve_id.as_bytes().to_vec().into(),
            share: ephemeral.share().to_vec().into(),
        })?;
        let m0 = link.send(Kind::Request, &[&body]).to_vec();
        Ok(Self { m0, pairing, ephemeral })
    }

    /// Selection, A3's id, the pinned certificate, the epoch's signature; only then the keys.
    pub(super) fn handle(
        self,
        config: &SleeveConfig,
        cx: &mut Cx<'_>,
        m1: &Frame,
    ) -> Result<ExpectAnswer, Error> {
        let (challenge, _, rest) = decode::<Challenge>(m1.body(), "M1")?;
        if challenge.version != HANDSHAKE_V1 {
            return Err(Error::Incompatible("version"));
        }
        if challenge.suite != self.pairing.suite.code() {
            return Err(Error::Incompatible("suite"));
        }
        let credential = config.credential(challenge.suite)?;
        let policy = config.policy(challenge.policy)?;
        let rest = self.check_named(m1.mode, rest)?;
        let epoch = decode_whole::<EpochOffer>(rest, "M1")?;
        let peer = self.pairing.verify(credential, PkiRole::Manager, cx.now, None)?;
        let share = epoch.share.as_slice();
        let suite = credential.suite();
        let message = epoch_share_to_be_signed(m1.mode, suite, challenge.epoch, share);
        peer.key()
            .verify_in(Domain::Handshake, &message, epoch.signature.as_slice())
            .map_err(|_| Error::Authentication("epoch-signature"))?;

        let agreed = Agreed { suite, policy, peer };
        self.answer(config, credential, cx, (m1, challenge, share), agreed)
    }

    /// A3: the manager says who it is.
    fn check_named<'a>(&self, mode: Mode, rest: &'a [u8]) -> Result<&'a [u8], Error> {
        if mode != Mode::A3 {
            return Ok(rest);
        }
        let (named, _, rest) = decode::<TlsByteVecU8>(rest, "M1")?;
        if named.as_slice() != self.pairing.peer.as_bytes() {
            return Err(Refusal::UnexpectedManager.into());
        }
        Ok(rest)
    }

    /// Makes and queues M2: the contribution, sealed to the epoch's share; the binder; the
    /// signature.
    fn answer(
        self,
        config: &SleeveConfig,
        credential: &Credential,
        cx: &mut Cx<'_>,
        (m1, challenge, epoch_share): (&Frame, Challenge, &[u8]),
        agreed: Agreed,
    ) -> Result<ExpectAnswer, Error> {
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let own = random_secret(cx.rng);
        let (label, contribution) = match m1.mode {
            Mode::A3 => {
                let r7_r8 = joined([&challenge.r1(), own.expose()]);
                (&b"seal R7 R8"[..], r7_r8)
            }
            _ => (&b"seal R5"[..], Secret::copied_from(own.expose())),
        };
        let after_m0 = Transcript::new(provider, m1.mode).append(hash, &self.m0);
        let head = encode(&ConnectHead {
            head: ProofHead { challenge, after_m0: *after_m0.hash() },
            request: self.m0[HEADER_LEN..].to_vec().into(),
        })?;
        let before = after_m0.append(hash, &m1.raw).append(hash, &head);
        let shared = self
            .ephemeral
            .agree(epoch_share)
            .map_err(|_| Error::Malformed("the manager's epoch share"))?;
        let seal = Seal { provider, transcript: &before, shared: &shared, label };
        let sealed = TlsByteVecU8::from(seal.seal(cx.rng, None, &contribution)?);
        let sealed = encode(&sealed)?;
        let certificates = [&credential.certificate[..], &self.pairing.certificate];
        let transcript = before.append(hash, &sealed).pinned(hash, certificates);
        let binder = schedule::binder(provider, &transcript, &self.pairing.factor)?;
        let transcript = transcript.append(hash, &binder);
        let sleeve_id = config.sleeve_id.as_bytes();
        let manager_id = agreed.peer.identity().id().as_bytes();
        let message = transcript.to_be_signed_by_pair(Role::Sleeve, sleeve_id, manager_id);
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        let signature = encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))?;
        cx.link.send(Kind::Proof, &[&head, &sealed, &binder, &signature]);
        let transcript = transcript.append(hash, &signature);
        let Self { pairing, ephemeral, .. } = self;
        Ok(ExpectAnswer { agreed, pairing, ephemeral, transcript, own })
    }
}

/// Waiting for M3.
pub(crate) struct ExpectAnswer {
    agreed: Agreed,
    pairing: Arc<Pairing>,
    ephemeral: Box<dyn ExchangeKey>,
    transcript: Transcript,
    /// `R5` or `R8`.
    own: Secret,
}

impl ExpectAnswer {
    /// For tests: another `R5` than the one that M2 has.
    #[cfg(all(test, feature = "std"))]
    pub(super) fn expect_another_r5(&mut self) {
        self.own = Secret::copied_from(&[0; HASH_LEN]);
    }

    /// The manager's signature, then the exchange, in A2 `R5`, then `Fin_M`.
    pub(super) fn handle(
        self,
        config: &SleeveConfig,
        cx: &mut Cx<'_>,
        m3: &Frame,
    ) -> Result<Session, Error> {
        let (answer, signed, rest) = decode::<ConnectAnswer>(m3.body(), "M3")?;
        let (signature, signature_field, fin) = decode::<TlsByteVecU8>(rest, "M3")?;
        let fin: &[u8; HASH_LEN] = fin.try_into().map_err(|_| Error::Malformed("M3"))?;
        let Agreed { suite, policy, ref peer } = self.agreed;
        let provider = &config.credential(suite.code())?.provider;
        let hash = &*provider.hash;
        let before_m3 = self.transcript;
        let transcript = before_m3.clone().append(hash, signed);
        check_signature(config, peer, &transcript, signature.as_slice())?;

        let shared = self
            .ephemeral
            .agree(answer.share.as_slice())
            .map_err(|_| Error::Malformed("the manager's share"))?;
        let factor = self.pairing.factor.expose();
        let sealed = answer.sealed.as_slice();
        let contribution = match m3.mode {
            Mode::A3 if sealed.is_empty() => joined([self.own.expose(), factor]),
            Mode::A3 => return Err(Error::Malformed("M3")),
            _ => {
                let label = b"seal R5 R6";
                let seal = Seal { provider, transcript: &before_m3, shared: &shared, label };
                let opened = seal.open_of(2 * HASH_LEN, None, sealed)?;
                let (r5, r6) = opened.expose().split_at(HASH_LEN);
                if !self.own.ct_eq(r5) {
                    return Err(Error::Authentication("connect-nonce"));
                }
                joined([r6, factor])
            }
        };
        let transcript = transcript.append(hash, signature_field);
        let keys = SessionKeys::derive(provider, &transcript, &contribution, &shared)?;
        keys.verify_finished(provider, Role::Manager, &transcript, fin)?;
        let transcript = transcript.append(hash, fin);
        let confirmation = keys.finished(provider, Role::Sleeve, &transcript);
        cx.link.send(Kind::Finished, &[&confirmation]);
        let keys = keys.into_directions(provider, &transcript, policy, Role::Sleeve)?;
        Ok(Session::new(keys, self.agreed.peer, policy, suite))
    }
}

fn check_signature(
    config: &SleeveConfig,
    peer: &Leaf,
    transcript: &Transcript,
    signature: &[u8],
) -> Result<(), Error> {
    let (sleeve_id, manager_id) = (config.sleeve_id.as_bytes(), peer.identity().id().as_bytes());
    let message = transcript.to_be_signed_by_pair(Role::Manager, sleeve_id, manager_id);
    peer.key()
        .verify_in(Domain::Handshake, &message, signature)
        .map_err(|_| Error::Authentication("manager-signature"))
}

//! A1 as the sleeve sees it: the manager's answer, the user's word, the pending pairing, the
//! acknowledgement.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Domain, ExchangeKey, HASH_LEN, Secret};
use countersign_pki::{Leaf, Role as PkiRole};
use tls_codec::TlsByteVecU8;

use super::{Agreed, SleeveConfig, SleeveQuestion};
use crate::contribution::Seal;
use crate::credential::Credential;
use crate::endpoint::Cx;
use crate::link::Link;
use crate::message::pair::{PairAnswer, PairOffer, PairRequest};
use crate::message::{HANDSHAKE_V1, decode, decode_whole, encode};
use crate::pairing::Pairing;
use crate::schedule::SessionKeys;
use crate::session::Session;
use crate::transcript::{Role, Transcript};
use crate::wire::{Frame, Kind, Mode};
use crate::{Error, HANDSHAKE_FRAME_MAX, Refusal};

/// Waiting for M2.
pub(crate) struct ExpectPairAnswer {
    m1: Vec<u8>,
    r3: [u8; HASH_LEN],
    /// For each credential: which suite it will be, M2 says.
    shares: Vec<Box<dyn ExchangeKey>>,
}

impl ExpectPairAnswer {
    /// Queues M1.
    pub(super) fn begin(
        config: &SleeveConfig,
        link: &mut Link,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let mut r3 = [0; HASH_LEN];
        rng.fill_bytes(&mut r3);
        let mut shares = Vec::with_capacity(config.credentials.len());
        let mut offers = Vec::with_capacity(config.credentials.len());
        for credential in &config.credentials {
            let key = credential.provider.key_exchange.generate(rng).map_err(Error::Local)?;
            offers.push(PairOffer {
                suite: credential.suite().code(),
                share: key.share().to_vec().into(),
                certificate: credential.certificate.clone().into(),
            });
            shares.push(key);
        }
        let body = encode(&PairRequest {
            versions: alloc::vec![HANDSHAKE_V1],
            policies: config.policies.iter().map(|policy| policy.code()).collect(),
            r3,
            sleeve_id: config.sleeve_id.as_bytes().to_vec().into(),
            offers,
        })?;
        if body.len() > HANDSHAKE_FRAME_MAX {
            return Err(Error::Misuse("certificates that do not fit into one message"));
        }
        let m1 = link.send(Kind::PairRequest, &[&body]).to_vec();
        Ok(Self { m1, r3, shares })
    }

    /// For tests: another `R3` than the one that M1 has.
    #[cfg(all(test, feature = "std"))]
    pub(super) const fn expect_r3(&mut self, another: bool) {
        self.r3[0] ^= another as u8;
    }

    /// Certificate, id, signature; then decryption and `R3` (row A1; the signature comes first).
    pub(super) fn handle(
        self,
        config: &SleeveConfig,
        cx: &mut Cx<'_>,
        m2: &Frame,
    ) -> Result<AskConfirm, Error> {
        let (answer, signed, rest) = decode::<PairAnswer>(m2.body(), "M2")?;
        let signature = decode_whole::<TlsByteVecU8>(rest, "M2")?;
        if answer.version != HANDSHAKE_V1 {
            return Err(Error::Incompatible("version"));
        }
        let credential = config.credential(answer.suite)?;
        let policy = config.policy(answer.policy)?;
        let certificate = answer.certificate.into_vec();
        let peer = credential.trust.verify(&certificate, PkiRole::Manager, cx.now, None)?;
        let manager_id = peer.identity().id().as_bytes();
        if answer.manager_id.as_slice() != manager_id {
            return Err(Refusal::PeerIdMismatch.into());
        }
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let before_m2 = Transcript::new(provider, Mode::A1).append(hash, &self.m1);
        let transcript = before_m2.clone().append(hash, signed);
        let sleeve_id = config.sleeve_id.as_bytes();
        let message = transcript.to_be_signed_by_pair(Role::Manager, sleeve_id, manager_id);
        peer.key()
            .verify_in(Domain::Handshake, &message, signature.as_slice())
            .map_err(|_| Error::Authentication("manager-signature"))?;

        let at = config.credentials.iter().position(|one| one.suite() == credential.suite());
        let share = at.and_then(|at| self.shares.into_iter().nth(at));
        let share = share.ok_or(Error::Incompatible("suite"))?;
        let shared = share
            .agree(answer.share.as_slice())
            .map_err(|_| Error::Malformed("the manager's share"))?;
        let label = b"seal R3 R4";
        let seal = Seal { provider, transcript: &before_m2, shared: &shared, label };
        let opened = seal.open_of(2 * HASH_LEN, None, answer.sealed.as_slice())?;
        let (r3, r4) = opened.expose().split_at(HASH_LEN);
        if !Secret::copied_from(r3).ct_eq(&self.r3) {
            return Err(Error::Authentication("pairing-nonce"));
        }
        let r4 = Secret::copied_from(r4);
        let transcript = transcript.append(hash, rest);
        let agreed = Agreed { suite: credential.suite(), policy, peer };
        Ok(AskConfirm { agreed, certificate, transcript, shared, r4 })
    }
}

/// The manager has proven itself; waiting for the user's word. The sleeve has signed nothing yet.
pub(crate) struct AskConfirm {
    agreed: Agreed,
    certificate: Vec<u8>,
    transcript: Transcript,
    shared: Secret,
    r4: Secret,
}

impl AskConfirm {
    fn manager_id(&self) -> String {
        self.agreed.peer.identity().id().into()
    }

    pub(super) fn question(&self) -> SleeveQuestion {
        let number = self.agreed.peer.number().clone();
        SleeveQuestion::Confirm { manager_id: self.manager_id(), number }
    }

    /// Makes M3 and the binding factor; M3 does not leave yet.
    pub(super) fn confirmed(
        self,
        config: &SleeveConfig,
        cx: &mut Cx<'_>,
    ) -> Result<(AskStore, Pairing), Error> {
        let credential = config.credential(self.agreed.suite.code())?;
        let signature = self.sign(config, credential, cx)?;
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let peer = self.manager_id();
        let transcript = self.transcript.append(hash, &signature);
        let mut keys = SessionKeys::derive(provider, &transcript, &self.r4, &self.shared)?;
        let fin = keys.finished(provider, Role::Sleeve, &transcript);
        let factor = keys.take_binding_factor()?;
        let suite = self.agreed.suite;
        let pairing = Pairing { peer, certificate: self.certificate, factor, suite };
        let transcript = transcript.append(hash, &fin);
        let m3 = [&signature[..], &fin].concat();
        let next = ExpectAcknowledgement { agreed: self.agreed, transcript, keys };
        Ok((AskStore { m3, next }, pairing))
    }

    /// `S_sleeve(th2)`: over everything, `R3 ‖ R4` in its sealed form.
    fn sign(
        &self,
        config: &SleeveConfig,
        credential: &Credential,
        cx: &mut Cx<'_>,
    ) -> Result<Vec<u8>, Error> {
        let peer: &Arc<Leaf> = &self.agreed.peer;
        let manager_id = peer.identity().id().as_bytes();
        let sleeve_id = config.sleeve_id.as_bytes();
        let message = self.transcript.to_be_signed_by_pair(Role::Sleeve, sleeve_id, manager_id);
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))
    }
}

/// Waiting for the pending pairing to be on disk.
pub(crate) struct AskStore {
    m3: Vec<u8>,
    next: ExpectAcknowledgement,
}

impl AskStore {
    /// Lets M3 leave.
    pub(super) fn stored(self, cx: &mut Cx<'_>) -> ExpectAcknowledgement {
        cx.link.send(Kind::PairProof, &[&self.m3]);
        self.next
    }
}

/// Waiting for M4.
pub(crate) struct ExpectAcknowledgement {
    agreed: Agreed,
    transcript: Transcript,
    keys: SessionKeys,
}

impl ExpectAcknowledgement {
    pub(super) fn handle(self, config: &SleeveConfig, m4: &Frame) -> Result<Session, Error> {
        let Self { agreed: Agreed { suite, policy, peer }, transcript, keys } = self;
        let provider = &config.credential(suite.code())?.provider;
        keys.verify_finished(provider, Role::Manager, &transcript, m4.body())?;
        let keys = keys.into_directions(provider, &transcript, policy, Role::Sleeve)?;
        Ok(Session::new(keys, peer, policy, suite))
    }
}

//! A1 as the manager sees it: the window, the sleeve's proof, the pairing list.

use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::{Domain, HASH_LEN, Secret};
use countersign_pki::Role as PkiRole;
use tls_codec::TlsByteVecU8;

use super::{Agreed, Manager, ManagerConfig, claimed};
use crate::contribution::{Seal, joined, random_secret};
use crate::credential::Credential;
use crate::endpoint::Cx;
use crate::message::pair::{PairAnswer, PairOffer, PairRequest};
use crate::message::{HANDSHAKE_V1, OFFER_MAX, decode, decode_whole, encode};
use crate::pairing::Pairing;
use crate::schedule::SessionKeys;
use crate::session::Session;
use crate::source::Admission;
use crate::transcript::{Role, Transcript};
use crate::wire::{Frame, Kind, Mode};
use crate::{Error, Policy, Refusal};

/// M1 has come; waiting for the owner to say whether the window is open.
pub(crate) struct AskWindow {
    m1: Vec<u8>,
    request: PairRequest,
    claimed: String,
}

impl AskWindow {
    /// Parses M1; nothing of it is verified.
    pub(super) fn of(m1: &Frame) -> Result<Self, Error> {
        let request = decode_whole::<PairRequest>(m1.body(), "M1")?;
        let claimed = claimed(request.sleeve_id.as_slice(), "M1")?;
        Ok(Self { m1: m1.raw.clone(), request, claimed })
    }

    pub(super) fn claimed(&self) -> &str {
        &self.claimed
    }

    /// Source limit, selection, certificate, id; then `R4` and M2.
    pub(super) fn answered(
        self,
        manager: &Manager,
        cx: &mut Cx<'_>,
        open: bool,
    ) -> Result<ExpectPairProof, Error> {
        if !open {
            return Err(Refusal::PairingClosed.into());
        }
        let config = &*manager.config;
        let admission = config.sources.admit(cx.now, &manager.address)?;
        let (credential, policy, offer) = self.select(config)?;
        let certificate = offer.certificate.as_slice().to_vec();
        let cache = Some(&*config.leaf_cache);
        let peer = credential.trust.verify(&certificate, PkiRole::Sleeve, cx.now, cache)?;
        if peer.identity().id() != self.claimed {
            return Err(Refusal::PeerIdMismatch.into());
        }

        let provider = &credential.provider;
        let hash = &*provider.hash;
        let ephemeral = provider.key_exchange.generate(cx.rng).map_err(Error::Local)?;
        let shared = ephemeral
            .agree(offer.share.as_slice())
            .map_err(|_| Error::Malformed("the sleeve's share"))?;
        let r4 = random_secret(cx.rng);
        let before_m2 = Transcript::new(provider, Mode::A1).append(hash, &self.m1);
        let label = b"seal R3 R4";
        let seal = Seal { provider, transcript: &before_m2, shared: &shared, label };
        let sealed = seal.seal(cx.rng, None, &joined([&self.request.r3, r4.expose()]))?;
        let answer = encode(&PairAnswer {
            version: HANDSHAKE_V1,
            suite: credential.suite().code(),
            policy: policy.code(),
            share: ephemeral.share().to_vec().into(),
            sealed: sealed.into(),
            manager_id: config.manager_id.as_bytes().to_vec().into(),
            certificate: credential.certificate.clone().into(),
        })?;
        let transcript = before_m2.append(hash, &answer);
        let ids = (self.claimed.as_bytes(), config.manager_id.as_bytes());
        let message = transcript.to_be_signed_by_pair(Role::Manager, ids.0, ids.1);
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        let signature = encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))?;
        cx.link.send(Kind::PairAnswer, &[&answer, &signature]);
        let transcript = transcript.append(hash, &signature);
        let agreed = Agreed { suite: credential.suite(), policy, peer };
        Ok(ExpectPairProof { agreed, admission, certificate, transcript, shared, r4 })
    }

    /// The manager's choice among the offers: it prefers its own order.
    fn select<'a>(
        &'a self,
        config: &'a ManagerConfig,
    ) -> Result<(&'a Credential, Policy, &'a PairOffer), Error> {
        let PairRequest { versions, policies, offers, .. } = &self.request;
        if offers.len() > OFFER_MAX {
            return Err(Error::Malformed("M1"));
        }
        let policy = config.select_policy(versions, policies)?;
        let chosen = config.credentials.iter().find_map(|credential| {
            let suite = credential.suite().code();
            Some((credential, offers.iter().find(|offer| offer.suite == suite)?))
        });
        let (credential, offer) = chosen.ok_or(Error::Incompatible("suite"))?;
        Ok((credential, policy, offer))
    }
}

/// Waiting for M3, or for the user's no.
pub(crate) struct ExpectPairProof {
    agreed: Agreed,
    /// The source has paid until the sleeve is proven.
    admission: Admission,
    certificate: Vec<u8>,
    transcript: Transcript,
    shared: Secret,
    r4: Secret,
}

impl ExpectPairProof {
    /// The sleeve's signature, then its confirmation.
    pub(super) fn handle(
        self,
        manager: &Manager,
        m3: &Frame,
    ) -> Result<(AskStore, Pairing), Error> {
        let (signature, signature_field, fin) = decode::<TlsByteVecU8>(m3.body(), "M3")?;
        let fin: &[u8; HASH_LEN] = fin.try_into().map_err(|_| Error::Malformed("M3"))?;
        let Agreed { suite, ref peer, .. } = self.agreed;
        let config = &*manager.config;
        let provider = &config.credential(suite.code())?.provider;
        let hash = &*provider.hash;
        let ids = (peer.identity().id().as_bytes(), config.manager_id.as_bytes());
        let message = self.transcript.to_be_signed_by_pair(Role::Sleeve, ids.0, ids.1);
        peer.key()
            .verify_in(Domain::Handshake, &message, signature.as_slice())
            .map_err(|_| Error::Authentication("sleeve-signature"))?;
        let transcript = self.transcript.append(hash, signature_field);
        let mut keys = SessionKeys::derive(provider, &transcript, &self.r4, &self.shared)?;
        keys.verify_finished(provider, Role::Sleeve, &transcript, fin)?;
        config.sources.forgive(self.admission);
        let transcript = transcript.append(hash, fin);
        let pairing = Pairing {
            peer: peer.identity().id().into(),
            certificate: self.certificate,
            factor: keys.take_binding_factor()?,
            suite,
        };
        Ok((AskStore { agreed: self.agreed, transcript, keys }, pairing))
    }
}

/// Waiting for the pairing to be on disk.
pub(crate) struct AskStore {
    agreed: Agreed,
    transcript: Transcript,
    keys: SessionKeys,
}

impl AskStore {
    /// Lets M4 leave.
    pub(super) fn answered(
        self,
        manager: &Manager,
        cx: &mut Cx<'_>,
        stored: bool,
    ) -> Result<Session, Error> {
        if !stored {
            return Err(Refusal::PairingNotStored.into());
        }
        let Self { agreed: Agreed { suite, policy, peer }, transcript, keys } = self;
        let provider = &manager.config.credential(suite.code())?.provider;
        let confirmation = keys.finished(provider, Role::Manager, &transcript);
        cx.link.send(Kind::Finished, &[&confirmation]);
        let keys = keys.into_directions(provider, &transcript, policy, Role::Manager)?;
        Ok(Session::new(keys, peer, policy, suite))
    }
}

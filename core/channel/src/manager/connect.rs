//! A2 and A3 as the manager sees them: the challenge, the sleeve's proof, the confirmation.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{Domain, HASH_LEN, Secret};
use countersign_pki::{Leaf, PkiError, Role as PkiRole};
use tls_codec::TlsByteVecU8;

use super::{Agreed, Manager, claimed};
use crate::challenge::{EpochShare, Issued, Selection};
use crate::contribution::{Seal, joined, random_secret};
use crate::credential::Credential;
use crate::endpoint::Cx;
use crate::message::connect::{ConnectAnswer, ConnectHead, ConnectRequest, EpochOffer};
use crate::message::{HANDSHAKE_V1, ProofHead, decode, decode_whole, encode};
use crate::pairing::Pairing;
use crate::schedule::{self, SessionKeys};
use crate::server::LookupRefusal;
use crate::session::Session;
use crate::source::Admission;
use crate::transcript::{Role, Transcript, epoch_share_to_be_signed};
use crate::wire::{self, Frame, Kind, Mode};
use crate::{Error, Policy, Refusal};

impl Manager {
    /// The challenge is tied to the address and to M0 (through its transcript hash).
    fn binding(&self, after_m0: &Transcript) -> Vec<u8> {
        [&self.address[..], after_m0.hash()].concat()
    }

    /// M0 to M1. The id in M0 is not looked up yet: nothing is spent on who may not be there.
    pub(super) fn challenge(&self, cx: &mut Cx<'_>, m0: &Frame) -> Result<(), Error> {
        let request = decode_whole::<ConnectRequest>(m0.body(), "M0")?;
        claimed(request.sleeve_id.as_slice(), "M0")?;
        let policy = self.config.select_policy(&request.versions, &request.policies)?;
        let credential = self.config.credential(request.suite)?;
        let selection = Selection {
            mode: m0.mode,
            version: HANDSHAKE_V1,
            suite: request.suite,
            policy: policy.code(),
        };
        let provider = &credential.provider;
        let after_m0 = Transcript::new(provider, m0.mode).append(&*provider.hash, &m0.raw);
        let binding = self.binding(&after_m0);
        let issued = self.config.challenges.issue(cx.now, cx.rng, selection, &binding)?;
        let (m1, _) = self.m1(cx, credential, &issued)?;
        cx.link.send_frame(m1);
        Ok(())
    }

    /// M1 as it is sent, and as it is rebuilt from its authenticated echo.
    fn m1(
        &self,
        cx: &mut Cx<'_>,
        credential: &Credential,
        issued: &Issued,
    ) -> Result<(Vec<u8>, Arc<EpochShare>), Error> {
        let mode = issued.selection.mode;
        let challenge = encode(&issued.to_wire())?;
        let epoch = self.epoch_share(cx, credential, issued)?;
        let named = match mode {
            Mode::A3 => encode(&TlsByteVecU8::from(self.config.manager_id.as_bytes().to_vec()))?,
            _ => Vec::new(),
        };
        let offer = encode(&EpochOffer {
            share: epoch.key.share().to_vec().into(),
            signature: epoch.signature.clone().into(),
        })?;
        Ok((wire::frame(mode, Kind::Challenge, &[&challenge, &named, &offer]), epoch))
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
    pub(super) fn proof(&self, cx: &mut Cx<'_>, m2: &Frame) -> Result<AskSleeve, Error> {
        // G11: window, MAC and bit are looked at before the rest is.
        let (head, _, _) = decode::<ProofHead>(m2.body(), "M2")?;
        let issued = Issued::from_wire(m2.mode, &head.challenge);
        let after_m0 = Transcript::resume(m2.mode, head.after_m0);
        self.config.challenges.check(cx.now, &issued, &self.binding(&after_m0))?;

        let (head, head_field, rest) = decode::<ConnectHead>(m2.body(), "M2")?;
        let (sealed, sealed_field, rest) = decode::<TlsByteVecU8>(rest, "M2")?;
        let (binder, signature_field) =
            rest.split_first_chunk::<HASH_LEN>().ok_or(Error::Malformed("M2"))?;
        let signature = decode_whole::<TlsByteVecU8>(signature_field, "M2")?;
        let credential = self.config.credential(issued.selection.suite)?;
        // A gate may be shared by listeners that differ: what one selected another may not allow.
        let policy = Policy::from_code(issued.selection.policy)?;
        if !self.config.policies.contains(&policy) {
            return Err(Error::Incompatible("protection policy"));
        }
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let m0 = wire::frame(m2.mode, Kind::Request, &[head.request.as_slice()]);
        let again = Transcript::new(provider, m2.mode).append(hash, &m0);
        if again.hash() != after_m0.hash() {
            return Err(Error::Malformed("M2")); // not the M0 that the challenge answered
        }
        let request = decode_whole::<ConnectRequest>(head.request.as_slice(), "M2")?;
        let claimed = claimed(request.sleeve_id.as_slice(), "M2")?;
        let admission = self.config.sources.admit(cx.now, &self.address)?;

        let (m1, epoch) = self.m1(cx, credential, &issued)?;
        cx.link.fix(m2.mode);
        let before_contribution = after_m0.append(hash, &m1).append(hash, head_field);
        let transcript = before_contribution.clone().append(hash, sealed_field);
        Ok(AskSleeve {
            claimed,
            policy,
            issued,
            admission,
            before_contribution,
            transcript,
            share: request.share.into_vec(),
            sealed: sealed.into_vec(),
            epoch,
            binder: *binder,
            signature: signature.into_vec(),
            signature_field: signature_field.to_vec(),
        })
    }
}

/// M2's challenge is good; waiting for the owner to look the sleeve up.
pub(crate) struct AskSleeve {
    claimed: String,
    policy: Policy,
    issued: Issued,
    admission: Admission,
    /// Before the contribution and after it.
    before_contribution: Transcript,
    transcript: Transcript,
    share: Vec<u8>,
    sealed: Vec<u8>,
    /// What it is sealed to.
    epoch: Arc<EpochShare>,
    binder: [u8; HASH_LEN],
    signature: Vec<u8>,
    signature_field: Vec<u8>,
}

impl AskSleeve {
    pub(super) fn claimed(&self) -> &str {
        &self.claimed
    }

    /// For tests: as if M1 had had another `R7`.
    #[cfg(all(test, feature = "std"))]
    pub(super) const fn expect_another_r7(&mut self) {
        self.issued.mac[0] ^= 1;
    }

    pub(super) fn answered(
        self,
        manager: &Manager,
        cx: &mut Cx<'_>,
        found: Result<Arc<Pairing>, LookupRefusal>,
    ) -> Result<ExpectFinished, Error> {
        let config = &*manager.config;
        let pairing = match found {
            Ok(pairing) => pairing,
            Err(LookupRefusal::Unknown) => return Err(Refusal::UnknownSleeve.into()),
            Err(LookupRefusal::Revoked) => return Err(PkiError::Revoked.into()),
            Err(LookupRefusal::Blocked) => return Err(Refusal::SleeveBlocked.into()),
            Err(LookupRefusal::Unavailable) => {
                config.sources.forgive(self.admission); // it has cost nothing
                return Err(Refusal::Busy.into());
            }
        };
        pairing.check()?;
        if pairing.peer != self.claimed {
            return Err(Error::Misuse("another sleeve's pairing"));
        }
        if pairing.suite.code() != self.issued.selection.suite {
            return Err(Error::Incompatible("suite"));
        }
        let credential = config.credential(pairing.suite.code())?;
        let (leaf, transcript) = self.verify(manager, credential, cx, &pairing)?;
        // Only a proven sleeve burns a challenge.
        config.challenges.consume(cx.now, &self.issued)?;
        // Only from here on: key generation, the private key.
        self.answer(manager, credential, cx, (&pairing, leaf), transcript)
    }

    /// Binder, then the pinned certificate, then the signature: who does not know the factor costs
    /// symmetric operations only.
    fn verify(
        &self,
        manager: &Manager,
        credential: &Credential,
        cx: &Cx<'_>,
        pairing: &Pairing,
    ) -> Result<(Arc<Leaf>, Transcript), Error> {
        let config = &*manager.config;
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let certificates = [&pairing.certificate[..], &credential.certificate];
        let transcript = self.transcript.clone().pinned(hash, certificates);
        schedule::verify_binder(provider, &transcript, &pairing.factor, &self.binder)?;
        let cache = Some(&*config.leaf_cache);
        let leaf = pairing.verify(credential, PkiRole::Sleeve, cx.now, cache)?;
        let transcript = transcript.append(hash, &self.binder);
        let ids = (self.claimed.as_bytes(), config.manager_id.as_bytes());
        let message = transcript.to_be_signed_by_pair(Role::Sleeve, ids.0, ids.1);
        leaf.key()
            .verify_in(Domain::Handshake, &message, &self.signature)
            .map_err(|_| Error::Authentication("sleeve-signature"))?;
        Ok((leaf, transcript))
    }

    /// Opens the sleeve's contribution; builds and queues M3.
    fn answer(
        self,
        manager: &Manager,
        credential: &Credential,
        cx: &mut Cx<'_>,
        (pairing, peer): (&Pairing, Arc<Leaf>),
        transcript: Transcript,
    ) -> Result<ExpectFinished, Error> {
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let bad_share = |_| Error::Malformed("the sleeve's share");
        let opened = self.open(credential)?;
        let ephemeral = provider.key_exchange.generate(cx.rng).map_err(Error::Local)?;
        let shared = ephemeral.agree(&self.share).map_err(bad_share)?;
        let factor = pairing.factor.expose();
        let before_m3 = transcript.append(hash, &self.signature_field);
        let (contribution, sealed) = match opened {
            Opened::R8(r8) => (joined([r8.expose(), factor]), Vec::new()),
            Opened::R5(r5) => {
                let r6 = random_secret(cx.rng);
                let label = b"seal R5 R6";
                let seal = Seal { provider, transcript: &before_m3, shared: &shared, label };
                let sealed = seal.seal(cx.rng, None, &joined([r5.expose(), r6.expose()]))?;
                (joined([r6.expose(), factor]), sealed)
            }
        };
        let share = ephemeral.share().to_vec().into();
        let answer = encode(&ConnectAnswer { share, sealed: sealed.into() })?;
        let transcript = before_m3.append(hash, &answer);
        let ids = (self.claimed.as_bytes(), manager.config.manager_id.as_bytes());
        let message = transcript.to_be_signed_by_pair(Role::Manager, ids.0, ids.1);
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        let signature = encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))?;
        let transcript = transcript.append(hash, &signature);
        let keys = SessionKeys::derive(provider, &transcript, &contribution, &shared)?;
        let fin = keys.finished(provider, Role::Manager, &transcript);
        cx.link.send(Kind::ServerProof, &[&answer, &signature, &fin]);
        let transcript = transcript.append(hash, &fin);
        let agreed = Agreed { suite: credential.suite(), policy: self.policy, peer };
        // The source has paid until M4: a sleeve that breaks off here costs as much as a bad proof.
        Ok(ExpectFinished { agreed, admission: self.admission, transcript, keys })
    }

    fn open(&self, credential: &Credential) -> Result<Opened, Error> {
        let provider = &credential.provider;
        let shared = self
            .epoch
            .key
            .agree(&self.share)
            .map_err(|_| Error::Malformed("the sleeve's share"))?;
        let seal = |label| Seal {
            provider,
            transcript: &self.before_contribution,
            shared: &shared,
            label,
        };
        if self.issued.selection.mode != Mode::A3 {
            return seal(b"seal R5").open(None, &self.sealed).map(Opened::R5);
        }
        let r7 = self.issued.to_wire().r1();
        let opened = seal(b"seal R7 R8").open_of(r7.len() + HASH_LEN, None, &self.sealed)?;
        let (echoed, r8) = opened.expose().split_at(r7.len());
        if !Secret::copied_from(echoed).ct_eq(&r7) {
            return Err(Error::Authentication("connect-nonce"));
        }
        Ok(Opened::R8(Secret::copied_from(r8)))
    }
}

/// What the sleeve contributed.
enum Opened {
    R5(Secret),
    R8(Secret),
}

/// Waiting for M4.
pub(crate) struct ExpectFinished {
    agreed: Agreed,
    admission: Admission,
    transcript: Transcript,
    keys: SessionKeys,
}

impl ExpectFinished {
    pub(super) fn handle(self, manager: &Manager, m4: &Frame) -> Result<Session, Error> {
        let Self { agreed: Agreed { suite, policy, peer }, admission, transcript, keys } = self;
        let provider = &manager.config.credential(suite.code())?.provider;
        keys.verify_finished(provider, Role::Sleeve, &transcript, m4.body())?;
        let keys = keys.into_directions(provider, &transcript, policy, Role::Manager)?;
        manager.config.sources.forgive(admission);
        Ok(Session::new(keys, peer, policy, suite))
    }
}

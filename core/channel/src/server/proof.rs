//! From a proof whose challenge is good to an open session: who it is, M3, M4.

use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{Domain, Provider, Secret, Suite, UnixTime};
use countersign_pki::{Leaf, PkiError};
use tls_codec::TlsByteVecU8;

use super::{DirectoryEntry, Known, LookupRefusal, Server, ServerConfig};
use crate::challenge::{EpochShare, Issued};
use crate::contribution::{Seal, random_secret};
use crate::credential::{Credential, certified_point};
use crate::endpoint::Cx;
use crate::message::{IdKind, Proof, ReaderId, ServerProof, ServerShare, encode};
use crate::schedule::{self, SessionKeys};
use crate::session::Session;
use crate::source::Admission;
use crate::transcript::{Role, Transcript};
use crate::wire::{Frame, Kind, Mode};
use crate::{Error, Policy, Refusal};

/// M2's challenge is good; waiting for the owner to look the reader up.
pub(crate) struct ExpectReader {
    pub(super) mode: Mode,
    pub(super) policy: Policy,
    /// Before the contribution and after it, through what the reader signed.
    pub(super) before_contribution: Transcript,
    pub(super) transcript: Transcript,
    pub(super) issued: Issued,
    pub(super) admission: Admission,
    pub(super) proof: Proof,
    /// C2: `E_server(R2)` and the share it is sealed to.
    pub(super) sealed: Option<(Vec<u8>, Arc<EpochShare>)>,
    pub(super) sent_id: ReaderId,
    pub(super) signed_kind: IdKind,
    pub(super) signature: Vec<u8>,
    pub(super) signature_field: Vec<u8>,
}

impl ExpectReader {
    pub(super) fn handle(
        self,
        server: &Server,
        cx: &mut Cx<'_>,
        found: Result<Known, LookupRefusal>,
    ) -> Result<ExpectFinished, Error> {
        if found == Err(LookupRefusal::Unavailable) {
            server.config.sources.forgive(self.admission); // it has cost nothing
            return Err(Refusal::Busy.into());
        }
        let credential = server.credential(self.issued.selection.suite)?;
        let leaf = self.verify(&server.config, credential, cx.now, found)?;
        // Only a proven reader burns a challenge.
        server.config.challenges.consume(cx.now, &self.issued)?;
        let certificate = self.proof.encryption_certificate.as_slice();
        let certified = match self.mode {
            Mode::C1 => certified_point(credential, self.policy, certificate, &leaf, cx.now)?,
            _ if certificate.is_empty() => None,
            _ => return Err(Error::Malformed("M2")),
        };
        // Only from here on: key generation, the private key.
        // The source has paid until M4: a reader that breaks off here costs as much as a bad proof.
        Answer {
            admission: self.admission,
            policy: self.policy,
            proof: self.proof,
            sealed: self.sealed,
            before_contribution: self.before_contribution,
            before_m3: self.transcript.append(&*credential.provider.hash, &self.signature_field),
        }
        .send(credential, cx, leaf, certified.as_deref())
    }

    /// Whether the reader is who it says, and what the directory says of it.
    fn verify(
        &self,
        config: &ServerConfig,
        credential: &Credential,
        now: UnixTime,
        found: Result<Known, LookupRefusal>,
    ) -> Result<Arc<Leaf>, Error> {
        let certificate = self.proof.certificate.as_slice();
        let cache = Some(&*config.leaf_cache);
        // A role that does not fit is told before any signature is verified, so trying the next
        // one costs a parse.
        let mut leaf = Err(PkiError::WrongRole);
        for role in &config.peer_roles {
            leaf = credential.trust.verify(certificate, *role, now, cache);
            if !matches!(leaf, Err(PkiError::WrongRole)) {
                break;
            }
        }
        let leaf = leaf?;

        // C4: the directory was asked first; what it says is told last, so that only who has a
        // reader's key learns of it. The id that is signed is of the kind that M2 names.
        let own = DirectoryEntry {
            serial: leaf.identity().id().into(),
            certificate_number: leaf.number().clone(),
        };
        let id = |kind| ReaderId::of(kind, &own.serial, &own.certificate_number);
        let message = self.transcript.to_be_signed(Role::Reader, id(self.signed_kind).as_bytes());
        leaf.key()
            .verify_in(Domain::Handshake, &message, &self.signature)
            .map_err(|_| Error::Authentication("reader-signature"))?;
        if id(self.sent_id.kind()) != self.sent_id {
            return Err(Refusal::ReaderIdMismatch.into());
        }
        match found {
            Ok(Known::Mapped(mapped)) if mapped == own => Ok(leaf),
            Ok(Known::ById(id)) if id == own.serial => Ok(leaf),
            Ok(_) => Err(Refusal::ReaderIdMismatch.into()),
            Err(LookupRefusal::Unknown) => Err(Refusal::UnknownReader.into()),
            Err(LookupRefusal::Revoked) => Err(PkiError::Revoked.into()),
            Err(LookupRefusal::Blocked) => Err(Refusal::ReaderBlocked.into()),
            Err(LookupRefusal::Unavailable) => Err(Refusal::Busy.into()),
        }
    }
}

/// What the answer to a proven reader is made of.
struct Answer {
    admission: Admission,
    policy: Policy,
    proof: Proof,
    sealed: Option<(Vec<u8>, Arc<EpochShare>)>,
    before_contribution: Transcript,
    before_m3: Transcript,
}

impl Answer {
    /// Builds and queues M3. C1 (S106–S108): `R2`, `R3 = f(R1, R2)` sealed to the reader. C2: only
    /// now opens the reader's `R2`. Both: share, signature, `Fin_S`.
    fn send(
        self,
        credential: &Credential,
        cx: &mut Cx<'_>,
        peer: Arc<Leaf>,
        certified: Option<&[u8]>,
    ) -> Result<ExpectFinished, Error> {
        let provider = &credential.provider;
        let hash = &*provider.hash;
        let reader_share = self.proof.share.as_slice();
        let bad_share = |_| Error::Malformed("the reader's share");
        let ephemeral = provider.key_exchange.generate(cx.rng).map_err(Error::Local)?;
        let shared = ephemeral.agree(reader_share).map_err(bad_share)?;
        let before_m3 = self.before_m3;
        let share: TlsByteVecU8 = ephemeral.share().to_vec().into();
        let (contribution, proof) = match self.sealed {
            None => {
                let r2 = random_secret(cx.rng);
                let r3 = schedule::r3(provider, &self.proof.head.challenge.r1(), &r2)?;
                let label = b"seal R3";
                let seal = Seal { provider, transcript: &before_m3, shared: &shared, label };
                let sealed_r3 = seal.seal(cx.rng, certified, &r3)?.into();
                let certificate = credential.certificate.clone().into();
                (r3, encode(&ServerProof { share, sealed_r3, certificate })?)
            }
            Some((sealed, epoch)) => {
                let with_epoch = epoch.key.agree(reader_share).map_err(bad_share)?;
                let seal = Seal {
                    provider,
                    transcript: &self.before_contribution,
                    shared: &with_epoch,
                    label: b"seal R2",
                };
                let encryption = credential.encryption.as_ref();
                let certified = encryption.filter(|_| self.policy.certificate_sealed);
                let r2 = seal.open(certified.map(|one| &*one.key), &sealed)?;
                (r2, encode(&ServerShare { share })?)
            }
        };
        let m3 = M3 { provider, transcript: before_m3.append(hash, &proof), proof };
        let (transcript, keys) = m3.send(credential, cx, &contribution, &shared)?;
        let suite = credential.suite();
        let Self { admission, policy, .. } = self;
        Ok(ExpectFinished { suite, policy, admission, transcript, keys, peer })
    }
}

/// M3 before its signature.
struct M3<'a> {
    provider: &'a Provider,
    transcript: Transcript,
    proof: Vec<u8>,
}

impl M3<'_> {
    fn send(
        self,
        credential: &Credential,
        cx: &mut Cx<'_>,
        contribution: &Secret,
        shared: &Secret,
    ) -> Result<(Transcript, SessionKeys), Error> {
        let provider = self.provider;
        let hash = &*provider.hash;
        let message = self.transcript.to_be_signed(Role::Server, &[]);
        let signature = credential.key.sign_in(cx.rng, Domain::Handshake, &message);
        let signature = encode(&TlsByteVecU8::from(signature.map_err(Error::Local)?))?;
        let transcript = self.transcript.append(hash, &signature);
        let keys = SessionKeys::derive(provider, &transcript, contribution, shared)?;
        let fin = keys.finished(provider, Role::Server, &transcript);
        cx.link.send(Kind::ServerProof, &[&self.proof, &signature, &fin]);
        Ok((transcript.append(hash, &fin), keys))
    }
}

/// Waiting for M4.
pub(crate) struct ExpectFinished {
    pub(super) suite: Suite,
    policy: Policy,
    admission: Admission,
    transcript: Transcript,
    keys: SessionKeys,
    peer: Arc<Leaf>,
}

impl ExpectFinished {
    pub(super) fn handle(
        self,
        provider: &Provider,
        m4: &Frame,
    ) -> Result<(Session, Admission), Error> {
        self.keys.verify_finished(provider, Role::Reader, &self.transcript, m4.body())?;
        let Self { suite, policy, admission, transcript, keys, peer } = self;
        let keys = keys.into_directions(provider, &transcript, policy, Role::Server)?;
        Ok((Session::new(keys, peer, policy, suite), admission))
    }
}

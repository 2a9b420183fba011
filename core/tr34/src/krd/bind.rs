//! Whom the receiver is bound to, and by whose word that changes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use countersign_crypto::UnixTime;

use super::{CLOCK_SKEW_MAX, Receiver, Refused, State, check_later};
use crate::token::{CtKdh, Nonce, Rebind, SignedData, Unbind};
use crate::{Certificate, CertificateError, Crl, CrlError, CrlSeen, Error, IssuerAndSerial, Kdh};

impl Receiver<'_> {
    /// Binds to the KDH of `CT_KDH` (E2): its certificate comes from a pinned certification
    /// authority, is a KDH's and not a terminal's, and is not on the token's revocation list.
    /// From then on a token with a signing time from before is refused.
    ///
    /// # Errors
    /// [`Error::AlreadyBound`]; the token's, the certificate's and the list's.
    pub fn bind(&self, state: &State, ct_kdh: &[u8], now: UnixTime) -> Result<State, Error> {
        if state.kdh.is_some() {
            return Err(Error::AlreadyBound);
        }
        let token = CtKdh::parse(ct_kdh)?;
        self.check_dialect(&token.observed)?;
        let kdh = self.new_kdh(token.certificate, now)?;
        let crls = self.check_crl(state, token.crl, kdh.identity(), now);
        let crls = crls.map_err(|refused| refused.error)?;
        // Nothing that was signed before counts, also where an earlier state was lost.
        let since = Some(now.minus(CLOCK_SKEW_MAX));
        Ok(State {
            kdh: Some(kdh),
            outstanding: None,
            crls,
            key_signed: state.key_signed.max(since),
            ca_signed: state.ca_signed.max(since),
        })
    }

    /// Forgets the KDH at its own word, `UBT_KDH`.
    ///
    /// # Errors
    /// [`Refused`]; the order of the checks is that of [`Receiver::receive`].
    pub fn unbind(&self, state: &State, ubt: &[u8], now: UnixTime) -> Result<State, Refused> {
        let token = Unbind::parse(ubt)?;
        self.check_dialect(&token.signed().observed)?;
        if token.kdh.is_some() {
            return Err(Error::ContentType.into());
        }
        let next = self.check_answer(state, token.signed(), now)?;
        match self.check_recipient(&token.krd) {
            Ok(()) => Ok(State { kdh: None, ..next }),
            Err(error) => Err(Refused { error, state: Some(Box::new(next)) }),
        }
    }

    /// Takes a new KDH at the old one's word, `RBT_KDH`.
    ///
    /// # Errors
    /// [`Refused`]; the order of the checks is that of [`Receiver::receive`].
    pub fn rebind(&self, state: &State, rbt: &[u8], now: UnixTime) -> Result<State, Refused> {
        let token = Rebind::parse(rbt)?;
        self.check_dialect(&token.observed)?;
        if token.old_kdh.is_some() {
            return Err(Error::ContentType.into());
        }
        let next = self.check_answer(state, token.signed(), now)?;
        let outer = token.signed().crl;
        let rebound = self
            .check_recipient(&token.krd)
            .and_then(|()| self.rebound(&next, token.certificate, (token.crl, outer), now));
        // What the authority said of the old binding does not count for a later one.
        let since = Some(now.minus(CLOCK_SKEW_MAX));
        let rebound = rebound.map(|state| State { ca_signed: state.ca_signed.max(since), ..state });
        rebound.map_err(|error| Refused { error, state: Some(Box::new(next)) })
    }

    /// Forgets the KDH at the word of `CA_KRD`, `UBT_CA`. The token can be replayed, so the policy
    /// has to allow it.
    ///
    /// # Errors
    /// [`Error::CaUnbind`]; the token's.
    pub fn unbind_by_ca(&self, state: &State, ubt: &[u8], now: UnixTime) -> Result<State, Error> {
        if !self.policy.ca_unbind {
            return Err(Error::CaUnbind);
        }
        let token = Unbind::parse(ubt)?;
        self.check_dialect(&token.signed().observed)?;
        let from = token.kdh.as_ref().ok_or(Error::ContentType)?;
        if token.signed().crl.is_some() {
            return Err(Error::CrlCount);
        }
        self.check_signed_by_ca(token.signed(), now)?;
        self.check_recipient(&token.krd)?;
        check_bound(state, from)?;
        Ok(State { kdh: None, outstanding: None, ..state.clone() })
    }

    /// Takes a new KDH at the word of `CA_KRD`, `RBT_CA`. Its signing time is later than that of
    /// any such token before.
    ///
    /// # Errors
    /// [`Error`].
    pub fn rebind_by_ca(&self, state: &State, rbt: &[u8], now: UnixTime) -> Result<State, Error> {
        let token = Rebind::parse(rbt)?;
        self.check_dialect(&token.observed)?;
        let from = token.old_kdh.as_ref().ok_or(Error::ContentType)?;
        if token.signed().crl.is_some() {
            return Err(Error::CrlCount);
        }
        self.check_signed_by_ca(token.signed(), now)?;
        let attributes = token.signed().signer()?.attributes.as_ref();
        let at = attributes.ok_or(Error::Malformed)?.signing_time()?;
        let ca_signed = Some(check_later(at, state.ca_signed, now)?);
        self.check_recipient(&token.krd)?;
        check_bound(state, from)?;
        let next = State { ca_signed, outstanding: None, ..state.clone() };
        self.rebound(&next, token.certificate, (token.crl, None), now)
    }

    /// The checks of an answer of the bound KDH, up to the random number.
    fn check_answer(
        &self,
        state: &State,
        signed: &SignedData<'_>,
        now: UnixTime,
    ) -> Result<State, Refused> {
        let kdh = state.kdh.as_ref().ok_or(Error::NotBound)?;
        let crls = self.check_crl(state, signed.crl, kdh.identity(), now)?;
        self.check_signed_by_kdh(kdh, signed, now)?;
        let attributes = signed.signer()?.attributes.as_ref().ok_or(Error::Malformed)?;
        let nonce = Nonce::new(attributes.nonce()?)?;
        Ok(self.answered(&State { crls, ..state.clone() }, &nonce, now)?)
    }

    pub(super) fn check_signed_by_kdh(
        &self,
        kdh: &Certificate,
        signed: &SignedData<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if signed.signer()?.identity != *kdh.identity() {
            return Err(Error::Signer);
        }
        // Verified when it was bound; it may have expired since, or its authority been unpinned.
        self.verified(kdh.clone(), now)?;
        signed.verify(self.rsa, kdh.public_key())
    }

    fn check_signed_by_ca(&self, signed: &SignedData<'_>, now: UnixTime) -> Result<(), Error> {
        if signed.signer()?.identity != *self.krd_ca.identity() {
            return Err(Error::SignerNotCa);
        }
        self.krd_ca.check_window(now)?;
        signed.verify(self.rsa, self.krd_ca.public_key())
    }

    /// The state with a new KDH, which the inner list admits, or else the outer one.
    fn rebound(
        &self,
        state: &State,
        certificate: &[u8],
        (inner, outer): (Option<&[u8]>, Option<&[u8]>),
        now: UnixTime,
    ) -> Result<State, Error> {
        let kdh = self.new_kdh(certificate, now)?;
        if state.kdh.as_ref().is_some_and(|old| old.identity() == kdh.identity()) {
            return Err(Error::RebindSame);
        }
        let crls = self.check_crl(state, inner.or(outer), kdh.identity(), now);
        let crls = crls.map_err(|refused| refused.error)?;
        Ok(State { kdh: Some(kdh), crls, ..state.clone() })
    }

    /// A certificate that makes its holder our KDH.
    fn new_kdh(&self, certificate: &[u8], now: UnixTime) -> Result<Certificate, Error> {
        let certificate = Certificate::parse_with(certificate, self.policy.certificates)?;
        self.verified(certificate, now)
    }

    fn verified(&self, certificate: Certificate, now: UnixTime) -> Result<Certificate, Error> {
        // Where no role is in the certificate its issuer alone tells a KDH from a terminal, so one
        // that issues terminals' certificates, as ours, cannot tell.
        let issuer = certificate.identity().issuer();
        if certificate.party().is_none() && issuer == self.certificate.identity().issuer() {
            return Err(CertificateError::Role.into());
        }
        let mut failure = CertificateError::Issuer;
        for ca in self.kdh_cas.iter().filter(|ca| ca.subject() == issuer) {
            match Kdh::verify(self.rsa, certificate.clone(), ca, now) {
                Ok(kdh) => return Ok(kdh.certificate().clone()),
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }

    /// Verifies the revocation list and looks for the KDH on it. Returns what was seen.
    pub(super) fn check_crl(
        &self,
        state: &State,
        crl: Option<&[u8]>,
        kdh: &IssuerAndSerial,
        now: UnixTime,
    ) -> Result<Vec<CrlSeen>, Refused> {
        let Some(crl) = crl else {
            return if self.policy.without_crl {
                Ok(state.crls.clone())
            } else {
                Err(Error::CrlAbsent.into())
            };
        };
        let crl = Crl::parse(crl).map_err(Error::from)?;
        let last = state.crls.iter().find(|seen| seen.issuer() == crl.issuer());
        let mut seen = Err(CrlError::Issuer);
        for ca in self.kdh_cas.iter().filter(|ca| ca.subject() == crl.issuer()) {
            seen = crl.verify(self.rsa, ca, now, last);
            if seen.is_ok() {
                break;
            }
        }
        let seen = seen.map_err(Error::from)?;
        let pinned = |issuer: &[u8]| self.kdh_cas.iter().any(|ca| ca.subject() == issuer);
        let crls = state.with_seen(seen, pinned)?;
        crl.admits(kdh).map(|()| crls.clone()).map_err(|error| {
            // Kept, or whoever has the revoked key could come back with the list before.
            let revoked = error == CrlError::Revoked;
            let state = revoked.then(|| Box::new(State { crls, ..state.clone() }));
            Refused { error: error.into(), state }
        })
    }
}

fn check_bound(state: &State, kdh: &IssuerAndSerial) -> Result<(), Error> {
    match &state.kdh {
        None => Err(Error::NotBound),
        Some(bound) if bound.identity() == kdh => Ok(()),
        Some(_) => Err(Error::RebindFrom),
    }
}

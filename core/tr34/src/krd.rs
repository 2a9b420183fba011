//! The receiver's side (KRD): bind, ask, receive, rebind, unbind.
//!
//! [`Receiver`] does no input or output. What it keeps is a [`State`] that its owner stores; each
//! step returns the next one. Nothing changes with a token that is refused, but for this: once the
//! bound KDH has answered a random number, that number is used up, whatever else is wrong with the
//! answer; and a list that revokes the bound KDH is remembered ([`Refused::state`]).

mod bind;
mod state;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Secret, UnixTime};
use thiserror::Error as ThisError;
use tr31::{Ciphers, Header, Kcv, Tr31Error, kcv, policy};

pub use state::{CRLS_MAX, Outstanding, STATE_MAX, State};

use crate::token::{Enveloped, Freshness, KeyBlock, KtKdh, Nonce, Opened, RtKrd};
use crate::{Certificate, Dialect, Error, IssuerAndSerial, Leniency, Observed, Rsa, RsaKey};

/// How long a request waits for its answer unless the policy says otherwise.
pub const NONCE_LIFETIME: Duration = Duration::from_mins(5);
/// How far a signing time may lie in the future, for clocks that differ.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_mins(5);

/// What a receiver accepts. The default is the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The dialect of its KDH.
    pub dialect: Dialect,
    /// What is accepted of certificates beyond our own profile.
    pub certificates: Leniency,
    /// What is accepted of key block headers beyond X9.143.
    pub header: tr31::Leniency,
    /// How long a request waits for its answer.
    pub nonce_lifetime: Duration,
    /// Takes key tokens of one pass, which need a clock that nobody sets back.
    pub one_pass: bool,
    /// Takes tokens without a revocation list, as some products send them: a revoked KDH is then
    /// not noticed.
    pub without_crl: bool,
    /// Takes `UBT_CA`, which can be replayed.
    pub ca_unbind: bool,
    /// Takes keys that RSA or the content's cipher is too weak for: for old fleets only.
    pub weaker_wrapping: bool,
}

impl Policy {
    /// Everything that is a choice is off.
    pub const STRICT: Self = Self {
        dialect: Dialect::STRICT,
        certificates: Leniency::STRICT,
        header: tr31::Leniency::NONE,
        nonce_lifetime: NONCE_LIFETIME,
        one_pass: false,
        without_crl: false,
        ca_unbind: false,
        weaker_wrapping: false,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self::STRICT
    }
}

/// A receiver: its key, its certificate, whom it trusts, what it accepts.
#[derive(Clone, Copy)]
pub struct Receiver<'a> {
    /// RSA with public keys.
    pub rsa: &'a dyn Rsa,
    /// Block ciphers.
    pub ciphers: &'a dyn Ciphers,
    /// The receiver's private key.
    pub key: &'a dyn RsaKey,
    /// The receiver's own certificate.
    pub certificate: &'a Certificate,
    /// The pinned certification authorities of KDHs; the owner has verified them. Several while
    /// one is replaced by the next.
    pub kdh_cas: &'a [Certificate],
    /// The pinned certification authority of receivers, `CA_KRD`, whose tokens unbind and rebind.
    pub krd_ca: &'a Certificate,
    /// What is accepted.
    pub policy: Policy,
}

/// A token that was refused.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{error}")]
pub struct Refused {
    /// The check that failed.
    pub error: Error,
    /// The state to store all the same: the random number is used up, or a list was seen on which
    /// the KDH is.
    pub state: Option<Box<State>>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, state: None }
    }
}

/// A key that passed every check and is not installed yet.
#[derive(Debug)]
pub struct Verified {
    header: Header,
    key: Secret,
    kcv: Option<Kcv>,
    state: State,
}

/// What installing stores, all at once: the key under its header, and the state.
#[derive(Debug)]
pub struct Installation {
    /// What the key is for.
    pub header: Header,
    /// The key.
    pub key: Secret,
    /// Its check value (E7); none for keys that have none, such as HMAC's.
    pub kcv: Option<Kcv>,
    /// The next state.
    pub state: State,
}

impl Verified {
    /// What the key is for.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The key's check value.
    #[must_use]
    pub const fn kcv(&self) -> Option<&Kcv> {
        self.kcv.as_ref()
    }

    /// The state to store if the key is not installed after all: the request is answered.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Gives the key away for installing.
    #[must_use]
    pub fn install(self) -> Installation {
        let Self { header, key, kcv, state } = self;
        Installation { header, key, kcv, state }
    }
}

impl Receiver<'_> {
    /// Asks for a token: `RT_KRD` (E3). An earlier request is forgotten.
    ///
    /// # Errors
    /// [`Error::NotBound`].
    pub fn request(
        &self,
        state: &State,
        rng: &mut dyn CryptoRng,
        now: UnixTime,
    ) -> Result<(Vec<u8>, State), Error> {
        if state.kdh.is_none() {
            return Err(Error::NotBound);
        }
        let nonce = Nonce::random(rng);
        let token = RtKrd { nonce: nonce.clone() }.encode();
        let expires = now.plus(self.policy.nonce_lifetime);
        Ok((token, State { outstanding: Some(Outstanding { nonce, expires }), ..state.clone() }))
    }

    /// Checks a key token, `KT_KDH` (E6), and opens it.
    ///
    /// # Errors
    /// [`Refused`], with the first check that failed in the order of E6: structure and dialect; the
    /// revocation list, the KDH not on it; the signer; attributes, digest, signature; the random
    /// number or the signing time; the recipient; the envelope; sender and header inside; the key's
    /// fitness.
    pub fn receive(
        &self,
        state: &State,
        kt_kdh: &[u8],
        now: UnixTime,
    ) -> Result<Verified, Refused> {
        let token = KtKdh::parse(kt_kdh)?;
        let (kdh, next) = self.check_key_token(state, &token, now)?;
        match self.open(&token, kdh) {
            Ok((header, key, kcv)) => Ok(Verified { header, key, kcv, state: next }),
            Err(error) => Err(Refused { error, state: Some(Box::new(next)) }),
        }
    }

    /// The part of [`Self::receive`] that needs no private key: all up to the recipient, and that
    /// the envelope is in the dialect. Returns the state after it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn check(&self, state: &State, kt_kdh: &[u8], now: UnixTime) -> Result<State, Refused> {
        let token = KtKdh::parse(kt_kdh)?;
        let (_, next) = self.check_key_token(state, &token, now)?;
        match self.addressed(&token) {
            Ok(_) => Ok(next),
            Err(error) => Err(Refused { error, state: Some(Box::new(next)) }),
        }
    }

    /// Up to the random number or the signing time.
    fn check_key_token<'s>(
        &self,
        state: &'s State,
        token: &KtKdh<'_>,
        now: UnixTime,
    ) -> Result<(&'s Certificate, State), Refused> {
        self.check_dialect(&token.signed().observed)?;
        if matches!(token.freshness, Freshness::OnePass(_)) && !self.policy.one_pass {
            return Err(Error::OnePass.into());
        }
        let kdh = state.kdh.as_ref().ok_or(Error::NotBound)?;
        let crls = self.check_crl(state, token.signed().crl, kdh.identity(), now)?;
        self.check_signed_by_kdh(kdh, token.signed(), now)?;
        let next = State { crls, ..state.clone() };
        let next = match &token.freshness {
            Freshness::TwoPass(nonce) => self.answered(&next, nonce, now)?,
            Freshness::OnePass(at) => {
                let key_signed = Some(check_later(*at, state.key_signed, now)?);
                State { key_signed, ..next }
            }
        };
        Ok((kdh, next))
    }

    /// The envelope, if it is for this receiver.
    fn addressed<'t>(&self, token: &KtKdh<'t>) -> Result<(Enveloped<'t>, Observed), Error> {
        let (enveloped, observed) = token.enveloped()?;
        self.check_recipient(&enveloped.recipient)?;
        self.check_dialect(&observed)?;
        Ok((enveloped, observed))
    }

    /// The part of [`Self::receive`] after the random number: it depends on the private key.
    fn open(
        &self,
        token: &KtKdh<'_>,
        kdh: &Certificate,
    ) -> Result<(Header, Secret, Option<Kcv>), Error> {
        let (enveloped, mut observed) = self.addressed(token)?;
        let Opened { content_key, text } = enveloped.open(self.key, self.ciphers)?;
        let block = KeyBlock::parse(&text, &mut observed)?;
        self.check_dialect(&observed)?;
        if block.kdh != *kdh.identity() {
            return Err(Error::KeyBlockIdentity);
        }
        if block.header != token.header {
            return Err(Error::KeyBlockHeader);
        }
        // Nothing is encrypted in blocks behind this header, so its own need not fill any up.
        let departures = self.policy.header | tr31::Leniency::OPTIONAL_BLOCK_PADDING;
        let header = Header::parse(&block.header, departures)?;
        policy::check_header(&header)?;
        policy::check_whole(&header)?;
        policy::check_key(&header, &block.key)?;
        kcv::check_kc(self.ciphers, &header, &block.key)?;
        if !self.policy.weaker_wrapping {
            let rsa = self.rsa.bits(self.certificate.public_key()).map_err(|_| Error::Key)?;
            let algorithm =
                if enveloped.cipher == crate::token::ContentCipher::Tdes { b'T' } else { b'A' };
            let content = policy::strength_bits(algorithm, content_key.expose()).unwrap_or(0);
            let wrapped = policy::strength_bits(header.algorithm, block.key.expose());
            policy::check_wrapping(content.min(policy::rsa_strength_bits(rsa)), wrapped)?;
        }
        let kcv = match kcv::kcv(self.ciphers, header.algorithm, &block.key) {
            Ok(kcv) => Some(kcv),
            Err(Tr31Error::KcvMethod) => None,
            Err(error) => return Err(error.into()),
        };
        Ok((header, block.key, kcv))
    }

    fn check_dialect(&self, observed: &Observed) -> Result<(), Error> {
        match observed.differs_from(&self.policy.dialect) {
            Some(switch) => Err(Error::Dialect(switch)),
            None => Ok(()),
        }
    }

    fn check_recipient(&self, krd: &IssuerAndSerial) -> Result<(), Error> {
        if krd == self.certificate.identity() { Ok(()) } else { Err(Error::Recipient) }
    }

    /// The state after the outstanding request was answered with this random number.
    fn answered(&self, state: &State, nonce: &Nonce, now: UnixTime) -> Result<State, Error> {
        let outstanding = state.outstanding.as_ref().ok_or(Error::NonceAbsent)?;
        if outstanding.nonce != *nonce {
            return Err(Error::NonceMismatch);
        }
        // One that ends later than a request of now was made under a clock that was set back since.
        let latest = now.plus(self.policy.nonce_lifetime).plus(CLOCK_SKEW_MAX);
        if now > outstanding.expires || outstanding.expires > latest {
            return Err(Error::NonceExpired);
        }
        Ok(State { outstanding: None, ..state.clone() })
    }
}

/// A signing time that is later than the last one, and not in the future.
fn check_later(at: UnixTime, last: Option<UnixTime>, now: UnixTime) -> Result<UnixTime, Error> {
    if last.is_some_and(|last| at <= last) {
        return Err(Error::SigningTimeOld);
    }
    if at > now.plus(CLOCK_SKEW_MAX) {
        return Err(Error::SigningTimeFuture);
    }
    Ok(at)
}

//! `tr34 verify`, and what checking a token takes.

use clap::Args;
use countersign_crypto::{Secret, UnixTime};
use serde_json::{Map, Value};
use tr34::aws_lc::AwsLc;
use tr34::krd::{Outstanding, Policy, Receiver, Refused, State};
use tr34::token::{Freshness, Nonce, SignedData};
use tr34::{Certificate, Crl, Error, Kdh, RsaError, RsaKey, kdh};

use super::inspect::Token;
use super::{Terms, input, shown_identity, told};
use crate::failure::Failure;
use crate::output::Output;
use crate::secret_arg;

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    parties: Parties,
    /// The certificate of CA_KRD, for CT_KRD, UBT_CA and RBT_CA.
    #[arg(long, value_name = "FILE")]
    krd_ca: Option<String>,
}

/// The token and who has to do with it.
#[derive(Args)]
pub(super) struct Parties {
    /// The token: FILE in PEM, DER or hex digits, or - for stdin.
    #[arg(long, value_name = "FILE")]
    pub(super) token: String,
    /// The certificate of the KDH that is bound.
    #[arg(long, value_name = "FILE")]
    kdh: Option<String>,
    /// The certificate of the KDH's certification authority; several while one is replaced.
    #[arg(long, value_name = "FILE")]
    ca: Vec<String>,
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: Option<String>,
    /// The random number that was asked with, in hex digits. Without it a token is taken as the
    /// answer to whatever it answers.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// A revocation list of the KDH's authority, for a token that has none.
    #[arg(long, value_name = "FILE")]
    crl: Option<String>,
    /// Take a token without a revocation list.
    #[arg(long)]
    without_crl: bool,
    /// Take a key that RSA or the content's cipher is too weak for.
    #[arg(long)]
    weaker_wrapping: bool,
    #[command(flatten)]
    pub(super) terms: Terms,
}

/// What the command line's files hold.
pub(super) struct Known {
    pub(super) krd: Certificate,
    cas: Vec<Certificate>,
    pub(super) now: UnixTime,
    pub(super) policy: Policy,
}

impl Parties {
    pub(super) fn check_stdin(&self, more: &[Option<&str>]) -> Result<(), Failure> {
        let mut words = vec![
            Some(self.token.as_str()),
            self.kdh.as_deref(),
            self.krd.as_deref(),
            self.crl.as_deref(),
        ];
        words.extend(self.ca.iter().map(|word| Some(word.as_str())));
        words.extend(more);
        input::at_most_one_stdin(&words)
    }

    fn certificate(&self, name: &str, word: &str) -> Result<Certificate, Failure> {
        input::certificate(name, word, self.terms.leniency())
    }

    fn wanted(&self, name: &str, word: Option<&str>) -> Result<Certificate, Failure> {
        let missing = || Failure::usage(name, format!("this kind of token needs --{name}"));
        self.certificate(name, word.ok_or_else(missing)?)
    }

    fn cas(&self) -> Result<Vec<Certificate>, Failure> {
        let cas: Result<Vec<_>, _> = self.ca.iter().map(|ca| self.certificate("ca", ca)).collect();
        match cas {
            Ok(cas) if cas.is_empty() => Err(Failure::usage("ca", "this kind of token needs --ca")),
            cas => cas,
        }
    }

    fn policy(&self, signed_crl: Option<&[u8]>) -> Result<Policy, Failure> {
        Ok(Policy {
            dialect: self.terms.dialect()?,
            certificates: self.terms.leniency(),
            header: tr31::Leniency::OPTIONAL_BLOCK_PADDING,
            one_pass: true,
            without_crl: signed_crl.is_none() && (self.without_crl || self.crl.is_some()),
            ca_unbind: true,
            weaker_wrapping: self.weaker_wrapping,
            ..Policy::STRICT
        })
    }

    /// The receiver's side of a token with this revocation list.
    pub(super) fn known(&self, signed_crl: Option<&[u8]>) -> Result<Known, Failure> {
        Ok(Known {
            krd: self.wanted("krd", self.krd.as_deref())?,
            cas: self.cas()?,
            now: self.terms.now()?,
            policy: self.policy(signed_crl)?,
        })
    }

    /// Bound to the KDH that was named, and waiting for what was asked, or for this answer.
    pub(super) fn state(&self, known: &Known, answer: Option<&Nonce>) -> Result<State, Failure> {
        let kdh = self.wanted("kdh", self.kdh.as_deref())?;
        self.check_crl_beside(known, &kdh)?;
        let asked = match &self.nonce {
            Some(word) => Some(nonce(word)?),
            None => answer.cloned(),
        };
        let outstanding = asked.map(|nonce| Outstanding { nonce, expires: known.now });
        Ok(State::assumed(kdh, outstanding))
    }

    /// The list that came beside the token admits the KDH.
    fn check_crl_beside(&self, known: &Known, kdh: &Certificate) -> Result<(), Failure> {
        let Some(word) = &self.crl else { return Ok(()) };
        let crl = Crl::parse(&input::octets("crl", word)?)?;
        let mut verified = Err(tr34::CrlError::Issuer);
        for ca in known.cas.iter().filter(|ca| ca.subject() == crl.issuer()) {
            verified = crl.verify(&AwsLc, ca, known.now, None);
            if verified.is_ok() {
                break;
            }
        }
        verified?;
        Ok(crl.admits(kdh.identity())?)
    }
}

impl Known {
    pub(super) fn receiver<'a>(
        &'a self,
        key: &'a dyn RsaKey,
        krd_ca: &'a Certificate,
    ) -> Receiver<'a> {
        Receiver {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            key,
            certificate: &self.krd,
            kdh_cas: &self.cas,
            krd_ca,
            policy: self.policy,
        }
    }
}

impl Verify {
    pub(super) fn run(&self) -> Result<Output, Failure> {
        self.parties.check_stdin(&[self.krd_ca.as_deref()])?;
        let octets = input::octets("token", &self.parties.token)?;
        let token = Token::parse(&octets)?;
        let mut members = Map::new();
        members.insert("token".into(), token.kind().into());
        members.insert("verified".into(), true.into());
        match &token {
            Token::CtKrd(_) => self.ct_krd(&mut members, &octets)?,
            Token::CtKdh(token) => self.ct_kdh(&mut members, token.certificate, &octets)?,
            Token::RtKrd(token) => {
                return Err(Failure::usage(
                    "token",
                    format!("RT_KRD is not signed; it asks with {}", token.nonce),
                ));
            }
            Token::KtKdh(token) => {
                let answer = match &token.freshness {
                    Freshness::TwoPass(nonce) => Some(nonce),
                    Freshness::OnePass(_) => None,
                };
                self.answer(&mut members, token.signed(), answer, |receiver, state, now| {
                    receiver.check(state, &octets, now)
                })?;
            }
            Token::Unbind(token) if token.kdh.is_some() => {
                self.by_ca(&mut members, token.signed(), |receiver, state, now| {
                    receiver.unbind_by_ca(state, &octets, now)
                })?;
            }
            Token::Unbind(token) => {
                let nonce = answered(token.signed())?;
                self.answer(
                    &mut members,
                    token.signed(),
                    nonce.as_ref(),
                    |receiver, state, now| receiver.unbind(state, &octets, now),
                )?;
            }
            Token::Rebind(token) if token.old_kdh.is_some() => {
                self.by_ca(&mut members, token.signed(), |receiver, state, now| {
                    receiver.rebind_by_ca(state, &octets, now)
                })?;
            }
            Token::Rebind(token) => {
                let nonce = answered(token.signed())?;
                self.answer(
                    &mut members,
                    token.signed(),
                    nonce.as_ref(),
                    |receiver, state, now| receiver.rebind(state, &octets, now),
                )?;
            }
        }
        Ok(told(members))
    }

    fn krd_ca(&self) -> Result<Certificate, Failure> {
        self.parties.wanted("krd-ca", self.krd_ca.as_deref())
    }

    fn ct_krd(&self, members: &mut Map<String, Value>, octets: &[u8]) -> Result<(), Failure> {
        let (terms, ca) = (&self.parties.terms, self.krd_ca()?);
        let krd = kdh::receiver(&AwsLc, octets, &ca, None, terms.leniency(), terms.now()?)?;
        members.insert("krd".into(), shown_identity(krd.certificate().identity()));
        members.insert("deviceId".into(), krd.id().into());
        Ok(())
    }

    /// Binding needs no certificate of the receiver, unless both come from one authority.
    fn ct_kdh(
        &self,
        members: &mut Map<String, Value>,
        certificate: &[u8],
        octets: &[u8],
    ) -> Result<(), Failure> {
        let (terms, cas) = (&self.parties.terms, self.parties.cas()?);
        let krd = match &self.parties.krd {
            Some(word) => self.parties.certificate("krd", word)?,
            None => cas[0].clone(),
        };
        let policy = self.parties.policy(Some(&[]))?;
        let known = Known { krd, cas, now: terms.now()?, policy };
        let state =
            known.receiver(&NoKey, &known.krd).bind(&State::default(), octets, known.now)?;
        debug_assert_eq!(state.kdh().map(Certificate::raw), Some(certificate));
        show_kdh(members, &state);
        Ok(())
    }

    fn answer(
        &self,
        members: &mut Map<String, Value>,
        signed: &SignedData<'_>,
        answer: Option<&Nonce>,
        check: impl FnOnce(&Receiver<'_>, &State, UnixTime) -> Result<State, Refused>,
    ) -> Result<(), Failure> {
        let known = self.parties.known(signed.crl)?;
        let state = self.parties.state(&known, answer)?;
        let receiver = known.receiver(&NoKey, &known.krd);
        let state = check(&receiver, &state, known.now).map_err(|refused| refused.error)?;
        if answer.is_some() {
            members.insert("nonceCompared".into(), self.parties.nonce.is_some().into());
        }
        show_kdh(members, &state);
        Ok(())
    }

    fn by_ca(
        &self,
        members: &mut Map<String, Value>,
        signed: &SignedData<'_>,
        check: impl FnOnce(&Receiver<'_>, &State, UnixTime) -> Result<State, Error>,
    ) -> Result<(), Failure> {
        let known = self.parties.known(signed.crl)?;
        let state = self.parties.state(&known, None)?;
        let krd_ca = self.krd_ca()?;
        let state = check(&known.receiver(&NoKey, &krd_ca), &state, known.now)?;
        show_kdh(members, &state);
        Ok(())
    }
}

fn show_kdh(members: &mut Map<String, Value>, state: &State) {
    let bound = state.kdh().map(|kdh| shown_identity(kdh.identity()));
    members.insert("boundKdh".into(), bound.into());
}

fn answered(signed: &SignedData<'_>) -> Result<Option<Nonce>, Error> {
    let attributes = signed.signer.as_ref().and_then(|signer| signer.attributes.as_ref());
    attributes.map(|attributes| Nonce::new(attributes.nonce()?)).transpose()
}

/// A random number from the command line.
pub(super) fn nonce(word: &str) -> Result<Nonce, Failure> {
    let bytes = secret_arg::secret("nonce", word)?;
    Nonce::new(bytes.expose())
        .map_err(|_| Failure::usage("nonce", "--nonce takes 8 to 16 bytes in hex digits"))
}

/// Checks need none.
pub(super) struct NoKey;

impl RsaKey for NoKey {
    fn public_key(&self) -> &[u8] {
        &[]
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, RsaError> {
        Err(RsaError::Failed)
    }

    fn decrypt(&self, _: &[u8]) -> Result<Secret, RsaError> {
        Err(RsaError::Failed)
    }
}

/// A KDH's certificate, verified under the authority that was named.
pub(super) fn verified_kdh(
    certificate: Certificate,
    ca: &Certificate,
    now: UnixTime,
) -> Result<Kdh, Failure> {
    Ok(Kdh::verify(&AwsLc, certificate, ca, now)?)
}

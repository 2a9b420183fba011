//! `tr34 inspect`, and what kind of token one is.

use clap::Args;
use data_encoding::HEXUPPER;
use serde_json::{Map, Value, json};
use tr31::Header;
use tr34::token::{CtKdh, CtKrd, Freshness, KtKdh, Rebind, RtKrd, SignedData, Unbind};
use tr34::{Certificate, Crl, Error, Leniency, Observed, name_text};

use super::{dialect, input, shown_identity, shown_time, told};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Inspect {
    /// The token: FILE in PEM, DER or hex digits, or - for stdin.
    #[arg(long, value_name = "FILE")]
    token: String,
    /// Refuse the token unless it is in this dialect.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
}

/// A token of any kind.
pub(super) enum Token<'a> {
    CtKrd(CtKrd<'a>),
    CtKdh(CtKdh<'a>),
    RtKrd(RtKrd),
    KtKdh(Box<KtKdh<'a>>),
    Unbind(Box<Unbind<'a>>),
    Rebind(Box<Rebind<'a>>),
}

impl<'a> Token<'a> {
    /// By its structure: whether it is signed, and what its content is.
    pub(super) fn parse(octets: &'a [u8]) -> Result<Self, Error> {
        if let Ok(request) = RtKrd::parse(octets) {
            return Ok(Self::RtKrd(request));
        }
        let signed = SignedData::parse(octets)?;
        match (&signed.signer, signed.crl) {
            (None, None) => CtKrd::parse(octets).map(Self::CtKrd),
            (None, Some(_)) => CtKdh::parse(octets).map(Self::CtKdh),
            // id-data, id-signedData and id-envelopedData differ in the last octet.
            (Some(_), _) => match signed.content_type.last() {
                Some(1) => Unbind::parse(octets).map(|token| Self::Unbind(Box::new(token))),
                Some(2) => Rebind::parse(octets).map(|token| Self::Rebind(Box::new(token))),
                _ => KtKdh::parse(octets).map(|token| Self::KtKdh(Box::new(token))),
            },
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::CtKrd(_) => "CT_KRD",
            Self::CtKdh(_) => "CT_KDH",
            Self::RtKrd(_) => "RT_KRD",
            Self::KtKdh(_) => "KT_KDH",
            Self::Unbind(token) if token.kdh.is_some() => "UBT_CA",
            Self::Unbind(_) => "UBT_KDH",
            Self::Rebind(token) if token.old_kdh.is_some() => "RBT_CA",
            Self::Rebind(_) => "RBT_KDH",
        }
    }

    fn observed(&self) -> Result<Observed, Error> {
        Ok(match self {
            Self::CtKrd(_) | Self::RtKrd(_) => Observed::default(),
            Self::CtKdh(token) => token.observed,
            Self::KtKdh(token) => token.enveloped()?.1,
            Self::Unbind(token) => token.signed().observed,
            Self::Rebind(token) => token.observed,
        })
    }

    fn signed(&self) -> Option<&SignedData<'a>> {
        match self {
            Self::KtKdh(token) => Some(token.signed()),
            Self::Unbind(token) => Some(token.signed()),
            Self::Rebind(token) => Some(token.signed()),
            Self::CtKrd(_) | Self::CtKdh(_) | Self::RtKrd(_) => None,
        }
    }
}

impl Inspect {
    pub(super) fn run(&self) -> Result<Output, Failure> {
        let octets = input::octets("token", &self.token)?;
        let token = Token::parse(&octets)?;
        let observed = token.observed()?;
        if let Some(name) = &self.dialect
            && let Some(switch) = observed.differs_from(&dialect(name)?)
        {
            return Err(Error::Dialect(switch).into());
        }
        let mut members = Map::new();
        members.insert("token".into(), token.kind().into());
        members.insert("length".into(), octets.len().into());
        members.insert("dialects".into(), observed.fits().into());
        if let Some(signed) = token.signed() {
            show_signed(&mut members, signed);
        }
        show(&mut members, &token)?;
        Ok(told(members))
    }
}

fn show_signed(members: &mut Map<String, Value>, signed: &SignedData<'_>) {
    if let Some(signer) = &signed.signer {
        members.insert("signer".into(), shown_identity(&signer.identity));
        members.insert("signatureLength".into(), signer.signature.len().into());
        if let Some(attributes) = &signer.attributes {
            if let Ok(nonce) = attributes.nonce() {
                members.insert("nonce".into(), HEXUPPER.encode(nonce).into());
            }
            if let Ok(at) = attributes.signing_time() {
                members.insert("signingTime".into(), shown_time(at));
            }
            if let Ok(header) = attributes.header() {
                members.insert("header".into(), shown_header(header));
            }
        }
    }
    if let Some(crl) = signed.crl {
        members.insert("crl".into(), shown_crl(crl));
    }
}

fn show(members: &mut Map<String, Value>, token: &Token<'_>) -> Result<(), Error> {
    match token {
        Token::CtKrd(token) => {
            members.insert("certificate".into(), shown_certificate(token.certificate));
        }
        Token::CtKdh(token) => {
            members.insert("certificate".into(), shown_certificate(token.certificate));
            members.insert("crl".into(), token.crl.map_or(Value::Null, shown_crl));
        }
        Token::RtKrd(token) => {
            members.insert("nonce".into(), token.nonce.to_string().into());
        }
        Token::KtKdh(token) => {
            let passes = if matches!(token.freshness, Freshness::OnePass(_)) { 1 } else { 2 };
            let (enveloped, _) = token.enveloped()?;
            members.insert("passes".into(), passes.into());
            members.insert("recipient".into(), shown_identity(&enveloped.recipient));
            members.insert("contentCipher".into(), enveloped.cipher.name().into());
            members.insert("encryptedKeyLength".into(), enveloped.encrypted_key.len().into());
            members.insert("ciphertextLength".into(), enveloped.ciphertext.len().into());
        }
        Token::Unbind(token) => {
            members.insert("krd".into(), shown_identity(&token.krd));
            if let Some(kdh) = &token.kdh {
                members.insert("kdh".into(), shown_identity(kdh));
            }
        }
        Token::Rebind(token) => {
            members.insert("krd".into(), shown_identity(&token.krd));
            if let Some(kdh) = &token.old_kdh {
                members.insert("oldKdh".into(), shown_identity(kdh));
            }
            members.insert("certificate".into(), shown_certificate(token.certificate));
            if let Some(crl) = token.crl {
                members.insert("newCrl".into(), shown_crl(crl));
            }
        }
    }
    Ok(())
}

/// The header's fields, or why there are none.
pub(super) fn shown_header(bytes: &[u8]) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match Header::parse(bytes, tr31::Leniency::all()) {
        Ok(header) => json!({
            "text": text(bytes),
            "version": header.version.to_string(),
            "usage": text(&header.usage),
            "algorithm": text(&[header.algorithm]),
            "mode": text(&[header.mode]),
            "keyVersion": text(&header.key_version),
            "exportability": text(&[header.exportability]),
        }),
        // Nobody vouches for it: control characters do not reach a terminal.
        Err(error) => json!({ "text": bytes.escape_ascii().to_string(), "check": error.check() }),
    }
}

fn shown_certificate(der: &[u8]) -> Value {
    match Certificate::parse_with(der, Leniency::FOREIGN) {
        Ok(certificate) => {
            let mut shown = shown_identity(certificate.identity());
            shown["subject"] = name_text(certificate.subject()).into();
            shown["role"] = certificate.party().map(|party| party.to_uri()).into();
            shown["notBefore"] = shown_time(certificate.not_before());
            shown["notAfter"] = shown_time(certificate.not_after());
            shown
        }
        Err(error) => json!({ "check": error.check() }),
    }
}

fn shown_crl(der: &[u8]) -> Value {
    match Crl::parse(der) {
        Ok(crl) => json!({
            "issuer": name_text(crl.issuer()),
            "thisUpdate": shown_time(crl.this_update()),
            "nextUpdate": crl.next_update().map(shown_time),
            "number": crl.number().map(|number| number.to_string()),
            "entries": crl.len(),
        }),
        Err(error) => json!({ "check": error.check() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_header_are_not_printed() {
        let shown = shown_header(b"B0016K0T\x1b[2J0000");
        assert_eq!(shown, json!({ "text": "B0016K0T\\x1b[2J0000", "check": "character" }));
        assert_eq!(shown_header(b"B0016K0TB00S0000")["text"], "B0016K0TB00S0000");
    }
}

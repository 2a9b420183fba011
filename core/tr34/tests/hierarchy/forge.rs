//! Certificates and lists with any content, signed with any key: what our own issuing would never
//! make.

use countersign_crypto::UnixTime;
use tr34::reader::{tag, tlv, unsigned};
use tr34::{Certificate, CertificateError, Crl, CrlError, Leniency, RsaKey};

use crate::world::{Holder, NOW};

pub(crate) const SHA256_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
pub(crate) const SHA1_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];

pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
pub(crate) const CRL_SIGN: u8 = 0x02;

pub(crate) fn algorithm(oid: &[u8]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[oid]), &[tag::NULL, 0]])
}

pub(crate) fn generalized(time: &str) -> Vec<u8> {
    tlv(tag::GENERALIZED_TIME, &[time.as_bytes()])
}

pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    let parts = [&tlv(tag::OID, &[oid])[..], flag, &tlv(tag::OCTET_STRING, &[value])];
    tlv(tag::SEQUENCE, &parts)
}

pub(crate) fn basic_constraints(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let flag: &[u8] = if ca { &[1, 1, 0xff] } else { &[] };
    let length = path_length.map(|length| unsigned(&[length])).unwrap_or_default();
    extension(&[0x55, 0x1d, 19], true, &tlv(tag::SEQUENCE, &[flag, &length]))
}

pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 15], true, &tlv(tag::BIT_STRING, &[&[0, bits]]))
}

pub(crate) fn uri(text: &str) -> Vec<u8> {
    let name = tlv(tag::context(6), &[text.as_bytes()]);
    extension(&[0x55, 0x1d, 17], false, &tlv(tag::SEQUENCE, &[&name]))
}

pub(crate) fn authority_key_id(id: &[u8]) -> Vec<u8> {
    let value = tlv(tag::SEQUENCE, &[&tlv(tag::context(0), &[id])]);
    extension(&[0x55, 0x1d, 35], false, &value)
}

pub(crate) fn signed(tbs: &[u8], outer: &[u8], key: &dyn RsaKey) -> Vec<u8> {
    let bits = tlv(tag::BIT_STRING, &[&[0], &key.sign(tbs).unwrap()]);
    tlv(tag::SEQUENCE, &[tbs, outer, &bits])
}

/// A certificate to be. It begins as a good KDH or KRD of a CA.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner: Vec<u8>,
    pub(crate) outer: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: [Vec<u8>; 2],
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Forged {
    /// A leaf of `above` for the key of `model`, with this usage and URI.
    pub(crate) fn leaf(above: &Holder, model: &Holder, usage: u8, role_uri: &str) -> Self {
        Self {
            version: tlv(tag::context_constructed(0), &[&[2, 1, 2]]),
            serial: unsigned(&[0x41; 16]),
            inner: algorithm(&SHA256_WITH_RSA),
            outer: algorithm(&SHA256_WITH_RSA),
            issuer: above.certificate.subject().to_vec(),
            validity: [generalized("20260101000000Z"), generalized("20280101000000Z")],
            subject: model.certificate.subject().to_vec(),
            public_key: model.certificate.public_key().to_vec(),
            extensions: vec![basic_constraints(false, None), key_usage(usage), uri(role_uri)],
        }
    }

    /// A CA below `above`.
    pub(crate) fn ca(above: &Holder, model: &Holder, role_uri: &str) -> Self {
        let mut forged = Self::leaf(above, model, 0, role_uri);
        forged.extensions[0] = basic_constraints(true, None);
        forged.extensions[1] = key_usage(KEY_CERT_SIGN | CRL_SIGN);
        forged
    }

    pub(crate) fn tbs(&self) -> Vec<u8> {
        let list = tlv(tag::SEQUENCE, &[&self.extensions.concat()]);
        tlv(
            tag::SEQUENCE,
            &[
                &self.version,
                &self.serial,
                &self.inner,
                &self.issuer,
                &tlv(tag::SEQUENCE, &[&self.validity.concat()]),
                &self.subject,
                &self.public_key,
                &tlv(tag::context_constructed(3), &[&list]),
            ],
        )
    }

    pub(crate) fn der(&self, key: &dyn RsaKey) -> Vec<u8> {
        signed(&self.tbs(), &self.outer, key)
    }

    pub(crate) fn parse(&self, above: &Holder) -> Result<Certificate, CertificateError> {
        Certificate::parse(&self.der(&above.key))
    }

    pub(crate) fn parse_with(
        &self,
        above: &Holder,
        leniency: Leniency,
    ) -> Result<Certificate, CertificateError> {
        Certificate::parse_with(&self.der(&above.key), leniency)
    }
}

/// A list to be. It begins as a good one without entries and extensions, as the standard's sample.
#[derive(Clone)]
pub(crate) struct ForgedCrl {
    pub(crate) version: Vec<u8>,
    pub(crate) inner: Vec<u8>,
    pub(crate) outer: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) this_update: Vec<u8>,
    pub(crate) next_update: Vec<u8>,
    pub(crate) entries: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl ForgedCrl {
    pub(crate) fn of(above: &Holder) -> Self {
        Self {
            version: Vec::new(),
            inner: algorithm(&SHA256_WITH_RSA),
            outer: algorithm(&SHA256_WITH_RSA),
            issuer: above.certificate.subject().to_vec(),
            this_update: generalized("20270101000000Z"),
            next_update: generalized("20270201000000Z"),
            entries: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub(crate) fn version_2(mut self) -> Self {
        self.version = vec![2, 1, 1];
        self
    }

    pub(crate) fn number(mut self, number: &[u8]) -> Self {
        self.extensions.push(extension(&[0x55, 0x1d, 20], false, &unsigned(number)));
        self.version_2()
    }

    pub(crate) fn entry(serial: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = match extensions {
            [] => Vec::new(),
            some => tlv(tag::SEQUENCE, &[&some.concat()]),
        };
        let time = generalized("20270101000000Z");
        tlv(tag::SEQUENCE, &[&tlv(tag::INTEGER, &[serial]), &time, &extensions])
    }

    pub(crate) fn entries(mut self, entries: &[Vec<u8>]) -> Self {
        self.entries = tlv(tag::SEQUENCE, &[&entries.concat()]);
        self
    }

    pub(crate) fn der(&self, key: &dyn RsaKey) -> Vec<u8> {
        let extensions = match self.extensions.as_slice() {
            [] => Vec::new(),
            some => {
                let list = tlv(tag::SEQUENCE, &[&some.concat()]);
                tlv(tag::context_constructed(0), &[&list])
            }
        };
        let tbs = tlv(
            tag::SEQUENCE,
            &[
                &self.version,
                &self.inner,
                &self.issuer,
                &self.this_update,
                &self.next_update,
                &self.entries,
                &extensions,
            ],
        );
        signed(&tbs, &self.outer, key)
    }

    pub(crate) fn parse(&self, above: &Holder) -> Result<Crl, CrlError> {
        Crl::parse(&self.der(&above.key))
    }

    /// Parsed and verified `NOW`.
    pub(crate) fn check(&self, above: &Holder) -> Result<(), CrlError> {
        self.check_at(above, NOW)
    }

    pub(crate) fn check_at(&self, above: &Holder, now: UnixTime) -> Result<(), CrlError> {
        let rsa = tr34::aws_lc::AwsLc;
        self.parse(above)?.verify(&rsa, &above.certificate, now, None).map(drop)
    }
}

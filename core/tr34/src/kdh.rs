//! The sender's side: the key distribution host, and its certification authority for tokens that
//! unbind or rebind in its place.
//!
//! Every token is prepared, which checks everything, and then signed, which consumes what was
//! prepared: between the two the caller stores what it intends.

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::{CryptoRng, Secret, UnixTime};
use tr31::{Ciphers, Header, kcv, policy};

use crate::token::{Attributes, ContentCipher, CtKdh, CtKrd, Freshness, Nonce, Signing};
use crate::token::{ID_DATA, ID_ENVELOPED_DATA, ID_SIGNED_DATA, KeyBlock, Sealing, rebind_content};
use crate::{Certificate, Crl, Dialect, Error, IssuerAndSerial, Kdh, Krd, Leniency, Rsa, RsaKey};

/// Takes the receiver's certificate out of `CT_KRD` and verifies it (E2): issued by `ca` to a
/// terminal, valid now, and not on `crl`, a list of `ca` that the caller has verified. Whether this
/// device may have keys is the caller's to decide, by [`Krd::id`] and the certificate's identity.
///
/// # Errors
/// [`Error`].
pub fn receiver(
    rsa: &dyn Rsa,
    ct_krd: &[u8],
    ca: &Certificate,
    crl: Option<&Crl>,
    leniency: Leniency,
    now: UnixTime,
) -> Result<Krd, Error> {
    let certificate = CtKrd::parse(ct_krd)?.certificate;
    let certificate = Certificate::parse_with(certificate, leniency)?;
    let krd = Krd::verify(rsa, certificate, ca, now)?;
    if let Some(crl) = crl {
        crl.admits(krd.certificate().identity())?;
    }
    Ok(krd)
}

/// What a KDH makes tokens with.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// RSA with public keys.
    pub rsa: &'a dyn Rsa,
    /// Block ciphers.
    pub ciphers: &'a dyn Ciphers,
    /// The KDH's certificate.
    pub certificate: &'a Certificate,
    /// The revocation list of the KDH's certification authority in DER. A receiver wants one,
    /// unless it is told otherwise.
    pub crl: Option<&'a [u8]>,
    /// The dialect of the receivers.
    pub dialect: Dialect,
    /// Lets RSA or the content's cipher be weaker than the key that they carry: for old fleets
    /// only.
    pub weaker_wrapping: bool,
}

/// A key for a receiver.
#[derive(Debug, Clone, Copy)]
pub struct KeyOrder<'a> {
    /// The receiver.
    pub krd: &'a Krd,
    /// The receiver's random number, or the time in a token of one pass.
    pub freshness: &'a Freshness,
    /// The envelope's cipher.
    pub cipher: ContentCipher,
    /// What the key is for. Where the length is 0, it becomes the header's own.
    pub header: &'a Header,
    /// The key.
    pub key: &'a Secret,
}

impl Sender<'_> {
    /// `CT_KDH` (E2).
    #[must_use]
    pub fn credential(&self) -> Vec<u8> {
        CtKdh::encode(self.certificate.raw(), self.crl, &self.dialect)
    }

    /// Prepares `KT_KDH` (E5): checks header and key, makes the ephemeral key, seals.
    ///
    /// # Errors
    /// [`Error::Policy`] for a header or key that is unfit, or a wrapping weaker than the key.
    pub fn key_token(
        &self,
        rng: &mut dyn CryptoRng,
        order: &KeyOrder<'_>,
    ) -> Result<PreparedToken, Error> {
        let KeyOrder { krd, freshness, cipher, header, key } = *order;
        policy::check_header(header)?;
        policy::check_whole(header)?;
        policy::check_key(header, key)?;
        kcv::check_kc(self.ciphers, header, key)?;
        let krd = krd.certificate();
        if !self.weaker_wrapping {
            let rsa = policy::rsa_strength_bits(self.rsa.bits(krd.public_key())?);
            let content = policy::block_cipher_strength(cipher.cipher(), cipher.key_len());
            let wrapping = content.map_or(rsa, |content| content.min(rsa));
            let wrapped = policy::strength_bits(header.algorithm, key.expose());
            policy::check_wrapping(wrapping, wrapped)?;
        }
        let header = encoded(header)?;
        let signer = self.certificate.identity();
        let sealing = Sealing {
            rsa: self.rsa,
            ciphers: self.ciphers,
            recipient: krd.identity(),
            public_key: krd.public_key(),
            cipher,
            dialect: &self.dialect,
        };
        let block = KeyBlock::encode(signer, key, &header, &self.dialect);
        let content = sealing.seal(rng, &block)?;
        let (nonce, signing_time) = match freshness {
            Freshness::TwoPass(nonce) => (Some(nonce), None),
            Freshness::OnePass(time) => (None, Some(*time)),
        };
        let prepared = self.prepared(ID_ENVELOPED_DATA, content, self.crl);
        prepared.with_attributes(self.rsa, nonce, signing_time, Some(&header))
    }

    /// Prepares `UBT_KDH`: the receiver shall forget this KDH.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn unbind(&self, krd: &IssuerAndSerial, nonce: &Nonce) -> Result<PreparedToken, Error> {
        let prepared = self.prepared(ID_DATA, krd.as_der().to_vec(), self.crl);
        prepared.with_attributes(self.rsa, Some(nonce), None, None)
    }

    /// Prepares `RBT_KDH`: the receiver shall take `new` in the place of this KDH. `new_crl` is
    /// the list of the new one's certification authority, where that is another.
    ///
    /// # Errors
    /// [`Error::RebindSame`].
    pub fn rebind(
        &self,
        krd: &IssuerAndSerial,
        nonce: &Nonce,
        new: &Kdh,
        new_crl: Option<&[u8]>,
    ) -> Result<PreparedToken, Error> {
        let new = new.certificate();
        if new.identity() == self.certificate.identity() {
            return Err(Error::RebindSame);
        }
        let content = rebind_content(krd.as_der(), new.raw(), new_crl, &self.dialect);
        let prepared = self.prepared(ID_SIGNED_DATA, content, self.crl);
        prepared.with_attributes(self.rsa, Some(nonce), None, None)
    }

    fn prepared(
        &self,
        content_type: &'static [u8],
        content: Vec<u8>,
        crl: Option<&[u8]>,
    ) -> PreparedToken {
        PreparedToken::new(content_type, content, crl, self.certificate, self.dialect)
    }
}

/// The receivers' certification authority, in the place of a KDH that is lost.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    /// RSA with public keys.
    pub rsa: &'a dyn Rsa,
    /// The certificate of `CA_KRD`.
    pub certificate: &'a Certificate,
    /// The dialect of the receivers.
    pub dialect: Dialect,
}

impl Authority<'_> {
    /// Prepares `UBT_CA`. It has no signed attributes and nothing that makes it fresh: whoever
    /// keeps a copy can unbind the same receiver from the same KDH again. Receivers refuse it
    /// unless they are told to take it; `RBT_CA` is better.
    #[must_use]
    pub fn unbind(&self, krd: &IssuerAndSerial, kdh: &IssuerAndSerial) -> PreparedToken {
        let content = [krd.as_der(), kdh.as_der()].concat();
        PreparedToken::new(ID_DATA, content, None, self.certificate, self.dialect)
    }

    /// Prepares `RBT_CA`: the receiver shall take `new` in the place of `old`. `crl` is the list of
    /// the new one's certification authority.
    ///
    /// # Errors
    /// [`Error::RebindSame`]; [`Error::Time`].
    pub fn rebind(
        &self,
        krd: &IssuerAndSerial,
        old: &IssuerAndSerial,
        new: &Kdh,
        crl: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<PreparedToken, Error> {
        let new = new.certificate();
        if new.identity() == old {
            return Err(Error::RebindSame);
        }
        let identities = [krd.as_der(), old.as_der()].concat();
        let content = rebind_content(&identities, new.raw(), crl, &self.dialect);
        let prepared =
            PreparedToken::new(ID_SIGNED_DATA, content, None, self.certificate, self.dialect);
        prepared.with_attributes(self.rsa, None, Some(now), None)
    }
}

/// A token that is complete but for its signature. Signing consumes it.
pub struct PreparedToken {
    pub(crate) signing: Signing,
    public_key: Vec<u8>,
}

impl PreparedToken {
    fn new(
        content_type: &'static [u8],
        content: Vec<u8>,
        crl: Option<&[u8]>,
        signer: &Certificate,
        dialect: Dialect,
    ) -> Self {
        let signing = Signing {
            content_type,
            content,
            crl: crl.map(<[u8]>::to_vec),
            signer: signer.identity().clone(),
            attributes: None,
            dialect,
        };
        Self { signing, public_key: signer.public_key().to_vec() }
    }

    fn with_attributes(
        mut self,
        rsa: &dyn Rsa,
        nonce: Option<&Nonce>,
        signing_time: Option<UnixTime>,
        header: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let attributes = Attributes {
            content_type: self.signing.content_type,
            digest: &rsa.sha256(&self.signing.content),
            nonce: nonce.map(Nonce::as_bytes),
            signing_time,
            header,
        };
        self.signing.attributes = Some(attributes.encode(self.signing.dialect.attributes)?);
        Ok(self)
    }

    /// Who is to sign.
    #[must_use]
    pub const fn signer(&self) -> &IssuerAndSerial {
        &self.signing.signer
    }

    /// Signs, with the key of the certificate that it was prepared for.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`]; [`Error::Key`] if the key's holder fails.
    pub fn sign(self, key: &dyn RsaKey) -> Result<Vec<u8>, Error> {
        if key.public_key() != self.public_key {
            return Err(Error::KeyMismatch);
        }
        let signature = key.sign(self.signing.message()).map_err(|_| Error::Key)?;
        Ok(self.signing.token(&signature))
    }
}

impl fmt::Debug for PreparedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedToken({})", self.signing.signer)
    }
}

/// The header as it stands in a token.
fn encoded(header: &Header) -> Result<Vec<u8>, Error> {
    let mut header = header.clone();
    header.pad_optional()?;
    let bytes = header.encode()?;
    if header.length != 0 {
        return Ok(bytes);
    }
    header.length = u16::try_from(bytes.len()).map_err(|_| tr31::Tr31Error::TooLong)?;
    Ok(header.encode()?)
}

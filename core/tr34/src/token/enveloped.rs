//! EnvelopedData: one recipient under RSAES-OAEP, the content in CBC mode.

use alloc::vec;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Secret};
use tr31::Ciphers;

use super::algorithm::{ContentCipher, ID_DATA, oaep, oaep_form};
use crate::dialect::{ContentForm, Dialect, EncryptedContentPlace, Observed};
use crate::identity::IssuerAndSerial;
use crate::reader::{Element, Walker, tag, tlv};
use crate::{Error, Rsa, RsaError, RsaKey};

/// Version of the EnvelopedData and of its recipient.
const VERSION: u8 = 0;

/// An EnvelopedData as it arrived.
#[derive(Debug, Clone)]
pub struct Enveloped<'a> {
    /// The one recipient.
    pub recipient: IssuerAndSerial,
    /// The content encryption key under the recipient's RSA key.
    pub encrypted_key: &'a [u8],
    /// The content's cipher.
    pub cipher: ContentCipher,
    /// One block.
    pub iv: &'a [u8],
    /// The encrypted content: whole blocks.
    pub ciphertext: &'a [u8],
}

/// What an envelope held.
pub(crate) struct Opened {
    pub(crate) content_key: Secret,
    pub(crate) text: Secret,
}

impl<'a> Enveloped<'a> {
    /// Takes the octets of `eContent` apart. Notes in `observed` in which form they are.
    ///
    /// # Errors
    /// An [`Error`] about the structure; [`Error::Algorithm`].
    pub fn parse(content: &'a [u8], observed: &mut Observed) -> Result<Self, Error> {
        let mut outer = Walker::new(content);
        let mut inside = if outer.peek() == Some(tag::SEQUENCE) {
            observed.content = Some(ContentForm::Sequence);
            let inside = outer.element(tag::SEQUENCE)?.inside()?;
            outer.end()?;
            inside
        } else {
            observed.content = Some(ContentForm::Bare);
            outer
        };
        expect_version(&inside.element(tag::INTEGER)?)?;
        let mut recipients = inside.element(tag::SET)?.inside()?;
        let recipient = recipients.element(tag::SEQUENCE)?;
        if !recipients.is_at_end() {
            return Err(Error::TooMany);
        }
        let (recipient, encrypted_key) = key_transport(&recipient, observed)?;
        let mut encrypted = inside.element(tag::SEQUENCE)?.inside()?;
        inside.end()?;
        if encrypted.element(tag::OID)?.content != ID_DATA {
            return Err(Error::ContentType);
        }
        let mut algorithm = encrypted.element(tag::SEQUENCE)?.inside()?;
        let cipher = ContentCipher::of(algorithm.element(tag::OID)?.content)?;
        let iv = algorithm.element(tag::OCTET_STRING)?.content;
        let ciphertext = match algorithm.optional(tag::context(0))? {
            Some(ciphertext) => {
                observed.encrypted_content = Some(EncryptedContentPlace::InAlgorithm);
                ciphertext.content
            }
            None => {
                observed.encrypted_content = Some(EncryptedContentPlace::Sibling);
                encrypted.element(tag::context(0))?.content
            }
        };
        algorithm.end()?;
        encrypted.end()?;
        let block = cipher.cipher().block_len();
        if iv.len() != block || ciphertext.is_empty() || ciphertext.len() % block != 0 {
            return Err(Error::Malformed);
        }
        Ok(Self { recipient, encrypted_key, cipher, iv, ciphertext })
    }

    /// Decrypts the key, then the content.
    pub(crate) fn open(&self, key: &dyn RsaKey, ciphers: &dyn Ciphers) -> Result<Opened, Error> {
        let content_key = key.decrypt(self.encrypted_key).map_err(|error| match error {
            RsaError::Failed => Error::Key,
            _ => Error::Decryption,
        })?;
        if content_key.len() != self.cipher.key_len() {
            return Err(Error::Decryption);
        }
        let padded = Secret::try_filled(self.ciphertext.len(), |text| {
            text.copy_from_slice(self.ciphertext);
            ciphers.cbc_decrypt(self.cipher.cipher(), &content_key, self.iv, text)
        })
        .map_err(|_| Error::Decryption)?;
        let text = unpadded(padded.expose(), self.cipher.cipher().block_len())?;
        Ok(Opened { text: Secret::copied_from(text), content_key })
    }
}

/// Removes the padding of PKCS#7. Looks at each octet of it, whatever it finds.
fn unpadded(text: &[u8], block: usize) -> Result<&[u8], Error> {
    let count = usize::from(*text.last().ok_or(Error::Decryption)?);
    let mut differing = u8::from(count == 0 || count > block);
    let start = text.len().saturating_sub(count.clamp(1, block));
    for octet in &text[start..] {
        differing |= octet ^ text[text.len() - 1];
    }
    if differing == 0 { Ok(&text[..start]) } else { Err(Error::Decryption) }
}

fn expect_version(element: &Element<'_>) -> Result<(), Error> {
    if element.small()? == VERSION { Ok(()) } else { Err(Error::Malformed) }
}

/// KeyTransRecipientInfo.
fn key_transport<'a>(
    element: &Element<'a>,
    observed: &mut Observed,
) -> Result<(IssuerAndSerial, &'a [u8]), Error> {
    let mut inside = element.inside()?;
    expect_version(&inside.element(tag::INTEGER)?)?;
    let recipient = IssuerAndSerial::parse(inside.element(tag::SEQUENCE)?.whole)?;
    observed.oaep = Some(oaep_form(&inside.element(tag::SEQUENCE)?)?);
    let key = inside.element(tag::OCTET_STRING)?.content;
    inside.end()?;
    Ok((recipient, key))
}

/// To whom, and how, a sender seals.
pub(crate) struct Sealing<'a> {
    pub(crate) rsa: &'a dyn Rsa,
    pub(crate) ciphers: &'a dyn Ciphers,
    pub(crate) recipient: &'a IssuerAndSerial,
    pub(crate) public_key: &'a [u8],
    pub(crate) cipher: ContentCipher,
    pub(crate) dialect: &'a Dialect,
}

impl Sealing<'_> {
    /// The octets of `eContent`: a fresh key and IV from `rng`.
    pub(crate) fn seal(&self, rng: &mut dyn CryptoRng, text: &[u8]) -> Result<Vec<u8>, Error> {
        let content_key = fresh_key(rng, self.cipher)?;
        let block = self.cipher.cipher().block_len();
        let mut iv = vec![0; block];
        rng.fill_bytes(&mut iv);
        let padding = block - text.len() % block;
        let count = u8::try_from(padding).map_err(|_| Error::Cipher)?;
        let sealed = Secret::try_filled(text.len() + padding, |buffer| {
            buffer[..text.len()].copy_from_slice(text);
            buffer[text.len()..].fill(count);
            self.ciphers.cbc_encrypt(self.cipher.cipher(), &content_key, &iv, buffer)
        })
        .map_err(|_| Error::Cipher)?;
        let encrypted_key = self.rsa.encrypt(rng, self.public_key, &content_key)?;
        Ok(self.encode(&encrypted_key, &iv, sealed.expose()))
    }

    pub(crate) fn encode(&self, encrypted_key: &[u8], iv: &[u8], sealed: &[u8]) -> Vec<u8> {
        let version = tlv(tag::INTEGER, &[&[VERSION]]);
        let recipient = tlv(
            tag::SEQUENCE,
            &[
                &version,
                self.recipient.as_der(),
                &oaep(self.dialect.oaep),
                &tlv(tag::OCTET_STRING, &[encrypted_key]),
            ],
        );
        let sealed = tlv(tag::context(0), &[sealed]);
        let (within, beside): (&[u8], &[u8]) = match self.dialect.encrypted_content {
            EncryptedContentPlace::InAlgorithm => (&sealed, &[]),
            EncryptedContentPlace::Sibling => (&[], &sealed),
        };
        let oid = tlv(tag::OID, &[self.cipher.oid()]);
        let algorithm = tlv(tag::SEQUENCE, &[&oid, &tlv(tag::OCTET_STRING, &[iv]), within]);
        let data = tlv(tag::OID, &[ID_DATA]);
        let content = tlv(tag::SEQUENCE, &[&data, &algorithm, beside]);
        let inside = [version, tlv(tag::SET, &[&recipient]), content].concat();
        match self.dialect.content {
            ContentForm::Sequence => tlv(tag::SEQUENCE, &[&inside]),
            ContentForm::Bare => inside,
        }
    }
}

/// A content encryption key: for TDES of odd parity and in three different parts.
fn fresh_key(rng: &mut dyn CryptoRng, cipher: ContentCipher) -> Result<Secret, Error> {
    let key = Secret::try_filled(cipher.key_len(), |key| {
        rng.fill_bytes(key);
        if cipher == ContentCipher::Tdes {
            for octet in key.iter_mut() {
                *octet ^= u8::from(octet.count_ones() % 2 == 0);
            }
        }
        Ok::<(), Error>(())
    })?;
    let part = |number: usize| &key.expose()[number * 8..number * 8 + 8];
    let equal = cipher == ContentCipher::Tdes
        && (part(0) == part(1) || part(1) == part(2) || part(0) == part(2));
    // Only a broken generator gets here.
    if equal { Err(Error::Cipher) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_looked_at_whole() {
        assert_eq!(unpadded(&[7, 7, 7, 7, 7, 3, 3, 3], 8).unwrap(), [7, 7, 7, 7, 7]);
        assert_eq!(unpadded(&[8; 8], 8).unwrap(), [0; 0]);
        for bad in [&[1, 2, 3, 4, 5, 6, 7, 0][..], &[9; 16], &[1, 1, 1, 1, 1, 2, 3, 3], &[]] {
            assert_eq!(unpadded(bad, 8).unwrap_err(), Error::Decryption, "{bad:?}");
        }
    }
}

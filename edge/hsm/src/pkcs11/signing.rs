//! A person's signing key in a token, with its certificate beside it: a security device (D3).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::{CryptoError, CryptoRng, Domain, Provider, SecureElement, VerifyingKey};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::Session;
use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use x509_cert::Certificate;

use super::failure::Failure;
use super::objects::{self, ID_LEN};
use super::token::{Lease, Token};
use crate::{Description, HsmError, Pkcs11Config, TokenName, check_label};

/// Object identifier of P-256 (`prime256v1`), DER: `CKA_EC_PARAMS`.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Length of an uncompressed point (SEC 1), in bytes.
const POINT_LEN: usize = 65;
/// `CKA_EC_POINT` is the point in an OCTET STRING; old tokens leave that out.
const POINT_HEADER: [u8; 2] = [0x04, 0x41];
/// What `CKM_ECDSA` gives: r and s, each of the order's length.
const SIGNATURE_LEN: usize = 64;
/// Longest certificate that is read, in bytes of DER.
const CERTIFICATE_MAX: usize = 8192;
/// What a new key signs once to show that it works.
const PROBE: &[u8] = b"countersign: a key of a token shows that it works";

/// P-256 signing keys in a PKCS#11 token, made there, sensitive, not extractable; the token signs
/// for its user's PIN.
///
/// Opening it has the token try the PIN, whatever this process did before; dropping it and its keys
/// ends the login. So each opening stands for one consent of who knows the PIN.
pub struct SigningToken {
    token: Arc<Token>,
    provider: Provider,
    /// Keys are made one after the other, so that labels stay unique.
    making: Mutex<()>,
}

impl SigningToken {
    /// Loads the module, finds the token and has it try the PIN. `provider` is that of the suite
    /// `p256`: tokens that sign in another are not known here.
    ///
    /// # Errors
    /// As [`Pkcs11Vault::open`](crate::Pkcs11Vault::open); [`HsmError::LoggedIn`] if this process
    /// has the token in use; [`HsmError::MechanismUnsupported`].
    pub fn open(config: Pkcs11Config, provider: &Provider) -> Result<Self, HsmError> {
        let token = Arc::new(Token::open_by_pin(config)?);
        token.require(MechanismType::ECDSA, "CKM_ECDSA")?;
        Ok(Self { token, provider: provider.clone(), making: Mutex::new(()) })
    }

    /// What the token says of itself.
    ///
    /// # Errors
    /// [`HsmError::TokenLost`] and the like.
    pub fn describe(&self) -> Result<Description, HsmError> {
        self.token.describe()
    }

    /// Makes a key under `label`.
    ///
    /// # Errors
    /// [`HsmError::LabelTaken`], [`HsmError::LabelFormat`], [`HsmError::MechanismUnsupported`];
    /// [`HsmError::KeyInconsistent`] if what the token made does not work: it is not kept.
    pub fn generate(&self, label: &str) -> Result<Arc<dyn SecureElement>, HsmError> {
        self.token.require(MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN")?;
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.token.run(|lease| objects::check_free(lease, label))?;
        let made = self.token.run_once(|lease| {
            let made = make_pair(&lease.session, label)?;
            objects::check_alone(&lease.session, label, &made)?;
            Ok(made)
        })?;
        let tried = self.open_key(label).and_then(|key| {
            key.signature(PROBE)?;
            Ok(key)
        });
        let key = tried.inspect_err(|_| {
            let _gone = self.token.run_once(|lease| {
                objects::take_back(&lease.session, &made);
                Ok(())
            });
        })?;
        Ok(Arc::new(key))
    }

    /// The key under `label`.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`], [`HsmError::LabelAmbiguous`], [`HsmError::WrongKind`],
    /// [`HsmError::KeyExposed`], [`HsmError::KeyInconsistent`].
    pub fn key(&self, label: &str) -> Result<Arc<dyn SecureElement>, HsmError> {
        Ok(Arc::new(self.open_key(label)?))
    }

    fn open_key(&self, label: &str) -> Result<TokenEc, HsmError> {
        let point = self.token.run(|lease| {
            let private = the_private_key(&lease.session, label)?;
            point(&lease.session, private, label)
        })?;
        let inconsistent = |_| HsmError::KeyInconsistent(label.to_owned());
        let verifier = self.provider.signature.public_key(&point).map_err(inconsistent)?;
        let (token, provider) = (Arc::clone(&self.token), self.provider.clone());
        Ok(TokenEc { token, provider, label: label.to_owned(), point, verifier })
    }

    /// Destroys the key under `label` and the certificate beside it.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`] and the like.
    pub fn delete(&self, label: &str) -> Result<(), HsmError> {
        Ok(self.token.run(|lease| {
            let session = &lease.session;
            let private = the_private_key(session, label)?;
            for class in [ObjectClass::CERTIFICATE, ObjectClass::PUBLIC_KEY] {
                for object in session.find_objects(&template(class, label))? {
                    session.destroy_object(object)?;
                }
            }
            // Last: while it is there, this can be done again.
            Ok(session.destroy_object(private)?)
        })?)
    }

    /// The certificate (DER) beside the key under `label`, if there is one. It is public: no PIN is
    /// asked for. Nothing about it is verified: whoever knows the PIN can put another there.
    ///
    /// # Errors
    /// [`HsmError::LabelAmbiguous`] if there are several; [`HsmError::TokenAbsent`] and the like.
    pub fn certificate(
        module: &Path,
        token: &TokenName,
        label: &str,
    ) -> Result<Option<Vec<u8>>, HsmError> {
        check_label(label)?;
        let token = Token::open_public(module, token.clone())?;
        Ok(token.run(|lease| {
            lease.check_present()?;
            let found = lease.session.find_objects(&template(ObjectClass::CERTIFICATE, label))?;
            match found.as_slice() {
                [] => Ok(None),
                [one] => value(&lease.session, *one, label).map(Some),
                _ => Err(HsmError::LabelAmbiguous(label.to_owned()).into()),
            }
        })?)
    }

    /// Puts a certificate (DER) beside the key under `label`, in the place of the one before it.
    ///
    /// # Errors
    /// [`HsmError::Certificate`]; [`HsmError::LabelUnknown`] if there is no key.
    pub fn store_certificate(&self, label: &str, certificate: &[u8]) -> Result<(), HsmError> {
        let parsed = Certificate::from_der(certificate).map_err(|_| HsmError::Certificate)?;
        let named = Named::of(&parsed).map_err(|_| HsmError::Certificate)?;
        Ok(self.token.run_once(|lease| {
            let session = &lease.session;
            let private = the_private_key(session, label)?;
            let before = session.find_objects(&template(ObjectClass::CERTIFICATE, label))?;
            let made =
                session.create_object(&named.object(label, id(session, private)?, certificate))?;
            // The new one is there before the old one goes: a crash leaves two, and this again
            // leaves one.
            for object in before.into_iter().filter(|object| *object != made) {
                session.destroy_object(object)?;
            }
            Ok(())
        })?)
    }
}

/// What a certificate object names beside its bytes (PKCS#11 v2.40, section 4.6.3).
struct Named {
    subject: Vec<u8>,
    issuer: Vec<u8>,
    serial_number: Vec<u8>,
}

impl Named {
    fn of(certificate: &Certificate) -> Result<Self, der::Error> {
        let tbs = certificate.tbs_certificate();
        Ok(Self {
            subject: tbs.subject().to_der()?,
            issuer: tbs.issuer().to_der()?,
            serial_number: tbs.serial_number().to_der()?,
        })
    }

    fn object(&self, label: &str, id: Vec<u8>, certificate: &[u8]) -> [Attribute; 10] {
        [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Label(label.into()),
            Attribute::Id(id),
            Attribute::Subject(self.subject.clone()),
            Attribute::Issuer(self.issuer.clone()),
            Attribute::SerialNumber(self.serial_number.clone()),
            Attribute::Value(certificate.to_vec()),
        ]
    }
}

fn template(class: ObjectClass, label: &str) -> [Attribute; 3] {
    [Attribute::Token(true), Attribute::Class(class), Attribute::Label(label.into())]
}

/// Makes a pair: the public half first.
fn make_pair(session: &Session, label: &str) -> Result<[ObjectHandle; 2], Failure> {
    let id = session.generate_random_vec(ID_LEN as u32)?;
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.into()),
        Attribute::Id(id.clone()),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.into()),
        Attribute::Id(id),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    let (public, private) =
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok([public, private])
}

/// The one P-256 signing key under `label`, checked to be one that the token keeps to itself.
fn the_private_key(session: &Session, label: &str) -> Result<ObjectHandle, Failure> {
    check_label(label)?;
    let key = match objects::all(session, label)?.as_slice() {
        [] => return Err(HsmError::LabelUnknown(label.to_owned()).into()),
        [one] => *one,
        _ => return Err(HsmError::LabelAmbiguous(label.to_owned()).into()),
    };
    let kind = [AttributeType::Class, AttributeType::KeyType, AttributeType::Sign];
    let read = session.get_attributes(key, &kind)?;
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Sign(true),
    ];
    let on_curve = |read: Vec<Attribute>| read.contains(&Attribute::EcParams(P256.to_vec()));
    if !wanted.iter().all(|wanted| read.contains(wanted))
        || !on_curve(session.get_attributes(key, &[AttributeType::EcParams])?)
    {
        let found = "not a signing key on the curve P-256";
        return Err(HsmError::WrongKind { label: label.to_owned(), found }.into());
    }
    let kept = [AttributeType::Sensitive, AttributeType::Extractable];
    let read = session.get_attributes(key, &kept)?;
    let wanted = [Attribute::Sensitive(true), Attribute::Extractable(false)];
    if wanted.iter().all(|wanted| read.contains(wanted)) {
        Ok(key)
    } else {
        Err(HsmError::KeyExposed(label.to_owned()).into())
    }
}

/// `CKA_ID`, by which the objects of a key belong together.
fn id(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Failure> {
    let read = session.get_attributes(key, &[AttributeType::Id])?;
    let id = read.into_iter().find_map(|attribute| match attribute {
        Attribute::Id(id) => Some(id),
        _ => None,
    });
    Ok(id.unwrap_or_default())
}

/// The uncompressed point of the private key's other half.
fn point(session: &Session, private: ObjectHandle, label: &str) -> Result<Vec<u8>, Failure> {
    let inconsistent = || HsmError::KeyInconsistent(label.to_owned());
    let mut wanted = template(ObjectClass::PUBLIC_KEY, label).to_vec();
    let mut found = session.find_objects(&wanted)?;
    if found.len() > 1 {
        wanted.push(Attribute::Id(id(session, private)?));
        found = session.find_objects(&wanted)?;
    }
    // Whether it is this key's, the first signature shows.
    let [public] = found[..] else { return Err(inconsistent().into()) };
    let read = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let held = read.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(point),
        _ => None,
    });
    let held = held.ok_or_else(inconsistent)?;
    let bare = match held.strip_prefix(&POINT_HEADER) {
        Some(point) if held.len() == POINT_HEADER.len() + POINT_LEN => point,
        _ => &held,
    };
    if bare.len() == POINT_LEN && bare[0] == 0x04 {
        Ok(bare.to_vec())
    } else {
        Err(inconsistent().into())
    }
}

fn value(session: &Session, object: ObjectHandle, label: &str) -> Result<Vec<u8>, Failure> {
    let read = session.get_attributes(object, &[AttributeType::Value])?;
    let value = read.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(bytes) => Some(bytes).filter(|bytes| bytes.len() <= CERTIFICATE_MAX),
        _ => None,
    });
    Ok(value.ok_or_else(|| HsmError::Damaged(label.to_owned()))?)
}

/// A key that stays in its token.
struct TokenEc {
    token: Arc<Token>,
    provider: Provider,
    label: String,
    point: Vec<u8>,
    verifier: Arc<dyn VerifyingKey>,
}

impl TokenEc {
    /// A signature (DER), looked at before it leaves: a token that computes wrongly, or that has
    /// another key in this one's place by now, gives none.
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let digest = self.provider.hash.hash(&[message]);
        let raw = self.token.run(|lease| self.sign_digest(lease, digest.as_ref()))?;
        let inconsistent = || HsmError::KeyInconsistent(self.label.clone());
        let signature = to_der(&raw).ok_or_else(inconsistent)?;
        let verified = self.verifier.verify(message, &signature);
        verified.map_err(|_| inconsistent())?;
        Ok(signature)
    }

    fn sign_digest(&self, lease: &Lease<'_>, digest: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = the_private_key(&lease.session, &self.label)?;
        Ok(lease.session.sign(&Mechanism::Ecdsa, key, digest)?)
    }
}

impl SecureElement for TokenEc {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    // The token has its own randomness. ECDSA knows no domains (GB/T 32918 does).
    fn sign_in(
        &self,
        _rng: &mut dyn CryptoRng,
        _domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.signature(message).map_err(|_| CryptoError::Failed)
    }
}

/// `ECDSA-Sig-Value` (RFC 3279, section 2.2.3).
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != SIGNATURE_LEN {
        return None;
    }
    let (r, s) = raw.split_at(SIGNATURE_LEN / 2);
    EcdsaSigValue { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_signature_becomes_der() {
        let mut raw = [0; SIGNATURE_LEN];
        (raw[31], raw[32]) = (0x7f, 0x80);
        let der = to_der(&raw).unwrap();
        assert_eq!(der[..5], [0x30, 2 + 1 + 2 + 33, 0x02, 0x01, 0x7f]);
        assert_eq!(der[5..9], [0x02, 33, 0x00, 0x80]);
        assert_eq!(to_der(&raw[1..]), None);
        assert_eq!(to_der(&[0; 96]), None);
    }
}

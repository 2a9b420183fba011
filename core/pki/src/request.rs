use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::str::FromStr;

use countersign_crypto::{CryptoRng, Provider, SecureElement};
use der::asn1::{BitString, Ia5String};
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use x509_cert::builder::Builder;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq, RequestBuilder};

use crate::keys::{Algorithms, SignerInfo};
use crate::parsed::{CERTIFICATE_MAX, first_element, single_uri};
use crate::{Identity, PkiError, Usage};

/// A certificate request whose signature proved possession of its key. Only [`parse_request`]
/// makes one.
pub struct Requested {
    identity: Identity,
    usage: Usage,
    point: Vec<u8>,
}

impl Requested {
    /// Who asks.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the key is to be certified for.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// The public key asked for: SEC1 uncompressed point.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

/// Makes a PKCS#10 request (DER) for `identity`, signed by the device's own key.
///
/// # Errors
/// [`PkiError::SigningFailed`] if the element fails.
pub fn request(
    provider: &Provider,
    identity: &Identity,
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, PkiError> {
    request_for(provider, identity, Usage::Signing, key, rng)
}

/// Makes a PKCS#10 request (DER) for an encryption certificate.
///
/// Possession is proven as for a signing key, by the key's own signature on the request: a key of
/// either suite can make one, whatever it is certified for later. `key` is the encryption key,
/// loaded by `provider.signature` for this one signature. Where it cannot sign (a chip that forbids
/// it) or where a key centre makes it, as GB/T 38636 has it, the one who made the key makes the
/// request on the device's behalf. What could go wrong without the proof is little: somebody could
/// have another's key certified as his own, and then not open what is sealed to him.
///
/// # Errors
/// [`PkiError::SigningFailed`] if the element fails.
pub fn encryption_request(
    provider: &Provider,
    identity: &Identity,
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, PkiError> {
    request_for(provider, identity, Usage::Encryption, key, rng)
}

fn request_for(
    provider: &Provider,
    identity: &Identity,
    usage: Usage,
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, PkiError> {
    let malformed = |_| PkiError::Malformed;
    let algorithms = Algorithms::of(provider)?;
    let signer = SignerInfo { algorithms, point: key.public_key().to_vec() };
    let subject = Name::from_str(&format!("CN={},O=Countersign", identity.id()))?;
    let mut builder = RequestBuilder::new(subject).map_err(malformed)?;
    let uri = GeneralName::UniformResourceIdentifier(Ia5String::new(&identity.to_uri())?);
    builder.add_extension(&SubjectAltName(vec![uri]))?;
    // Without a keyUsage a request is for signing, as it was before there was another usage.
    if usage == Usage::Encryption {
        builder.add_extension(&usage.key_usage())?;
    }
    let info = builder.finalize(&signer).map_err(malformed)?;
    let signature = key.sign(rng, &info).map_err(|_| PkiError::SigningFailed)?;
    let request =
        builder.assemble(BitString::from_bytes(&signature)?, &signer).map_err(malformed)?;
    Ok(request.to_der()?)
}

/// Parses a PKCS#10 request, for either usage, and checks that it proves possession of its key
/// (E1).
///
/// # Errors
/// [`PkiError::Malformed`], [`PkiError::WrongAlgorithm`], [`PkiError::BadIdentity`],
/// [`PkiError::WrongUsage`] or [`PkiError::BadProofOfPossession`].
pub fn parse_request(provider: &Provider, der: &[u8]) -> Result<Requested, PkiError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(PkiError::Malformed);
    }
    let algorithms = Algorithms::of(provider)?;
    let request = CertReq::from_der(der)?;
    if request.algorithm != algorithms.signature_identifier() {
        return Err(PkiError::WrongAlgorithm);
    }
    let point = algorithms.point(&request.info.public_key)?.to_vec();
    let key = provider.signature.public_key(&point).map_err(|_| PkiError::BadProofOfPossession)?;
    // The signed bytes as they arrived: the first element of the outer SEQUENCE.
    let info = first_element(der)?;
    let signature = request.signature.as_bytes().ok_or(PkiError::Malformed)?;
    key.verify(info, signature).map_err(|_| PkiError::BadProofOfPossession)?;
    let mut wanted = Vec::new();
    for attribute in request.info.attributes.iter() {
        if attribute.oid == ExtensionReq::OID {
            for value in attribute.values.iter() {
                let extensions: ExtensionReq = value.decode_as()?;
                wanted.extend(extensions.0);
            }
        }
    }
    let identity = single_uri(&wanted)?;
    Ok(Requested { identity, usage: requested_usage(&wanted)?, point })
}

/// The usage that the one keyUsage among the wanted extensions stands for.
fn requested_usage(wanted: &[Extension]) -> Result<Usage, PkiError> {
    let mut found = wanted.iter().filter(|extension| extension.extn_id == KeyUsage::OID);
    match (found.next(), found.next()) {
        (None, _) => Ok(Usage::Signing),
        (Some(extension), None) => {
            let usage = KeyUsage::from_der(extension.extn_value.as_bytes())?;
            Usage::of(&usage).ok_or(PkiError::WrongUsage)
        }
        _ => Err(PkiError::Malformed),
    }
}

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::str::FromStr;

use countersign_crypto::{CryptoRng, Provider, SecureElement};
use der::asn1::{BitString, Ia5String};
use der::{Decode, Encode};
use x509_cert::builder::Builder;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq, RequestBuilder};

use crate::keys::{Algorithms, SignerInfo};
use crate::verify::{CERTIFICATE_MAX, single_uri};
use crate::{Identity, PkiError};

/// A certificate request whose signature proved possession of its key. Only [`parse_request`]
/// makes one.
pub struct Requested {
    identity: Identity,
    point: Vec<u8>,
}

impl Requested {
    /// Who asks.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
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
    let malformed = |_| PkiError::Malformed;
    let algorithms = Algorithms::of(provider.suite)?;
    let signer = SignerInfo { algorithms, point: key.public_key().to_vec() };
    let subject = Name::from_str(&format!("CN={},O=Countersign", identity.id()))?;
    let mut builder = RequestBuilder::new(subject).map_err(malformed)?;
    let uri = GeneralName::UniformResourceIdentifier(Ia5String::new(&identity.to_uri())?);
    builder.add_extension(&SubjectAltName(vec![uri]))?;
    let info = builder.finalize(&signer).map_err(malformed)?;
    let signature = key.sign(rng, &info).map_err(|_| PkiError::SigningFailed)?;
    let request =
        builder.assemble(BitString::from_bytes(&signature)?, &signer).map_err(malformed)?;
    Ok(request.to_der()?)
}

/// Parses a PKCS#10 request and checks that it proves possession of its key (E1).
///
/// # Errors
/// [`PkiError::Malformed`], [`PkiError::WrongAlgorithm`], [`PkiError::BadIdentity`] or
/// [`PkiError::BadProofOfPossession`].
pub fn parse_request(provider: &Provider, der: &[u8]) -> Result<Requested, PkiError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(PkiError::Malformed);
    }
    let algorithms = Algorithms::of(provider.suite)?;
    let request = CertReq::from_der(der)?;
    if request.algorithm != algorithms.signature_identifier() {
        return Err(PkiError::WrongAlgorithm);
    }
    let point = algorithms.point(&request.info.public_key)?.to_vec();
    let key = provider.signature.public_key(&point).map_err(|_| PkiError::BadProofOfPossession)?;
    // The signed bytes as they arrived: the first element of the outer SEQUENCE.
    let info = crate::verify::first_element(der)?;
    let signature = request.signature.as_bytes().ok_or(PkiError::Malformed)?;
    key.verify(info, signature).map_err(|_| PkiError::BadProofOfPossession)?;
    let mut uris = Vec::new();
    for attribute in request.info.attributes.iter() {
        if attribute.oid == <ExtensionReq as der::oid::AssociatedOid>::OID {
            for value in attribute.values.iter() {
                let extensions: ExtensionReq = value.decode_as()?;
                uris.extend(extensions.0);
            }
        }
    }
    let identity = single_uri(&uris)?;
    Ok(Requested { identity, point })
}

//! The suite's algorithm identifiers, and public keys as X.509 carries them.

use alloc::vec::Vec;

use countersign_crypto::Provider;
use der::asn1::{Any, BitString, ObjectIdentifier};
use der::{Document, Encode};
use signature::Keypair;
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfoOwned,
};

use crate::PkiError;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// The algorithm identifiers of one suite's certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithms {
    curve: ObjectIdentifier,
    signature: ObjectIdentifier,
}

impl Algorithms {
    pub(crate) fn of(provider: &Provider) -> Result<Self, PkiError> {
        let oid = |text| ObjectIdentifier::new(text).map_err(|_| PkiError::WrongAlgorithm);
        Ok(Self {
            curve: oid(provider.signature.curve_oid())?,
            signature: oid(provider.signature.signature_oid())?,
        })
    }

    pub(crate) fn signature_identifier(self) -> AlgorithmIdentifierOwned {
        AlgorithmIdentifierOwned { oid: self.signature, parameters: None }
    }

    pub(crate) fn spki(self, point: &[u8]) -> Result<SubjectPublicKeyInfoOwned, PkiError> {
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: EC_PUBLIC_KEY,
                parameters: Some(Any::from(self.curve)),
            },
            subject_public_key: BitString::from_bytes(point)?,
        })
    }

    pub(crate) fn point(self, spki: &SubjectPublicKeyInfoOwned) -> Result<&[u8], PkiError> {
        let curve = spki.algorithm.parameters.as_ref().map(Any::decode_as::<ObjectIdentifier>);
        if spki.algorithm.oid != EC_PUBLIC_KEY || curve != Some(Ok(self.curve)) {
            return Err(PkiError::WrongAlgorithm);
        }
        spki.subject_public_key.as_bytes().ok_or(PkiError::Malformed)
    }
}

/// What the certificate builder wants to know of a signer; the key itself stays in its element.
pub(crate) struct SignerInfo {
    pub(crate) algorithms: Algorithms,
    pub(crate) point: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Point {
    algorithms: Algorithms,
    point: Vec<u8>,
}

impl Keypair for SignerInfo {
    type VerifyingKey = Point;

    fn verifying_key(&self) -> Point {
        Point { algorithms: self.algorithms, point: self.point.clone() }
    }
}

impl DynSignatureAlgorithmIdentifier for SignerInfo {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(self.algorithms.signature_identifier())
    }
}

impl EncodePublicKey for Point {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        let spki = self.algorithms.spki(&self.point).map_err(|_| spki::Error::KeyMalformed)?;
        Ok(spki.to_der()?.try_into()?)
    }
}

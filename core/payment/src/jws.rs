//! Statements that a server signs: JSON Web Signatures (RFC 7515) with the certificates in `x5c`.

use countersign_crypto::{CryptoRng, Provider, SecureElement, Suite, UnixTime, provider_of};
use countersign_pki::{CERTIFICATE_MAX, Role, TrustStore, certified_point};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use serde::{Deserialize, Serialize};

use crate::PaymentError;
use crate::wire::canonical;

/// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
const ES256: &str = "ES256";
/// SM2 with SM3 has no registered name; an object identifier is a collision-resistant one
/// (RFC 7515 §2), here GM/T 0006's. The signature is `r ‖ s` as for ES256.
const SM2_WITH_SM3: &str = "1.2.156.10197.1.501";
/// Half of a signature `r ‖ s`, in bytes.
const HALF: usize = 32;
/// Longest header, in bytes of base64url: two certificates, base64 within base64.
const HEADER_MAX: usize = 2 * CERTIFICATE_MAX * 2 + 512;

/// What a server signs its statements with (receipts, evidence): its own key and certificate, as at
/// its gateway.
#[derive(Clone, Copy)]
pub struct StatementKey<'a> {
    /// The suite of key and certificates.
    pub provider: &'a Provider,
    /// The server's key.
    pub key: &'a dyn SecureElement,
    /// The server's certificate (DER), for [`Role::Server`].
    pub certificate: &'a [u8],
    /// The certificate (DER) that issued it, which the root issued.
    pub issuer: &'a [u8],
}

/// The protected header: these members and no others, so nothing critical passes unseen.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    /// The server's certificate, then its issuer's; base64 (RFC 7515 §4.1.6).
    x5c: [String; 2],
}

/// `SEQUENCE { r INTEGER, s INTEGER }`, as secure elements sign.
#[derive(Sequence)]
struct Pair<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// A signature over a payload that is carried beside it or not at all.
pub(crate) struct Signature<'a> {
    pub(crate) protected: &'a str,
    pub(crate) signature: &'a str,
}

/// Who signed.
pub(crate) struct Signer {
    pub(crate) server_id: String,
    /// The issuing certificate (DER).
    pub(crate) issuer: Vec<u8>,
}

const fn algorithm(suite: Suite) -> Option<&'static str> {
    match suite {
        Suite::X25519_P256_AES128GCM_SHA256 => Some(ES256),
        Suite::SM2_SM4GCM_SM3 => Some(SM2_WITH_SM3),
        _ => None,
    }
}

/// Signs `payload` as a statement of type `typ`; gives the protected header and the signature, both
/// in base64url.
pub(crate) fn sign(
    key: &StatementKey<'_>,
    typ: &str,
    payload: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<(String, String), PaymentError> {
    let point = certified_point(key.provider, key.certificate);
    if point.ok().as_deref() != Some(key.key.public_key()) {
        return Err(PaymentError::StatementCertificate);
    }
    let alg = algorithm(key.provider.suite).ok_or(PaymentError::StatementCertificate)?;
    let x5c = [BASE64.encode(key.certificate), BASE64.encode(key.issuer)];
    let header = Header { alg: alg.to_string(), typ: typ.to_string(), x5c };
    let protected = BASE64URL_NOPAD.encode(canonical(&header)?.as_bytes());
    let signed = key.key.sign(rng, &input(&protected, payload));
    let signature = signed.ok().and_then(|der| to_raw(&der)).ok_or(PaymentError::Signing)?;
    Ok((protected, BASE64URL_NOPAD.encode(&signature)))
}

/// Verifies a statement of type `typ` over `payload`: the certificates up to `root` as they stood
/// `at` the time of the statement, and the signature.
pub(crate) fn verify(
    signed: &Signature<'_>,
    typ: &str,
    payload: &[u8],
    root: &[u8],
    at: UnixTime,
) -> Result<Signer, PaymentError> {
    let header = header(signed.protected)?;
    if header.typ != typ {
        return Err(PaymentError::StatementForm);
    }
    let [certificate, issuer] = header.x5c;
    let der = |text: String| BASE64.decode(text.as_bytes()).ok();
    let certificate = der(certificate).ok_or(PaymentError::StatementForm)?;
    let issuer = der(issuer).ok_or(PaymentError::StatementForm)?;
    let provider = provider_for(root).ok_or(PaymentError::StatementCertificate)?;
    if algorithm(provider.suite) != Some(header.alg.as_str()) {
        return Err(PaymentError::StatementForm);
    }
    let mut trust = TrustStore::new(provider);
    let leaf = trust
        .trust(root, &issuer, Role::Server, at)
        .and_then(|()| trust.verify(&certificate, Role::Server, at, None))
        .map_err(|_| PaymentError::StatementCertificate)?;
    let refused = PaymentError::StatementSignature;
    let raw = BASE64URL_NOPAD.decode(signed.signature.as_bytes()).map_err(|_| refused)?;
    let signature = to_der(&raw).ok_or(refused)?;
    leaf.key().verify(&input(signed.protected, payload), &signature).map_err(|_| refused)?;
    Ok(Signer { server_id: leaf.identity().id().to_string(), issuer })
}

/// The provider of the suite that a root's key belongs to.
pub(crate) fn provider_for(root: &[u8]) -> Option<Provider> {
    Suite::known().filter_map(provider_of).find(|provider| certified_point(provider, root).is_ok())
}

fn header(protected: &str) -> Result<Header, PaymentError> {
    let wrong = PaymentError::StatementForm;
    if protected.len() > HEADER_MAX {
        return Err(wrong);
    }
    let json = BASE64URL_NOPAD.decode(protected.as_bytes()).map_err(|_| wrong)?;
    serde_json::from_slice(&json).map_err(|_| wrong)
}

/// RFC 7515 §5.1: `BASE64URL(header) . BASE64URL(payload)`.
fn input(protected: &str, payload: &[u8]) -> Vec<u8> {
    [protected, ".", &BASE64URL_NOPAD.encode(payload)].concat().into_bytes()
}

/// From DER to `r ‖ s` (RFC 7518 §3.4).
fn to_raw(der: &[u8]) -> Option<Vec<u8>> {
    let pair = Pair::from_der(der).ok()?;
    let mut raw = Vec::with_capacity(2 * HALF);
    for number in [pair.r.as_bytes(), pair.s.as_bytes()] {
        raw.extend(core::iter::repeat_n(0, HALF.checked_sub(number.len())?));
        raw.extend_from_slice(number);
    }
    Some(raw)
}

fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = (raw.len() == 2 * HALF).then(|| raw.split_at(HALF))?;
    let pair = Pair { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? };
    pair.to_der().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_keep_their_width() {
        let mut raw = vec![0; 64];
        (raw[31], raw[63]) = (1, 0x80);
        let der = to_der(&raw).unwrap();
        assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(to_raw(&der), Some(raw));
        for wrong in [&[][..], &[0; 63], &[0; 65]] {
            assert_eq!(to_der(wrong), None);
        }
        // 33 bytes of r.
        let long = [&[0x30, 38, 2, 33, 1][..], &[0; 32], &[2, 1, 1]].concat();
        assert_eq!(to_raw(&long), None);
    }

    proptest! {
        #[test]
        fn raw_and_der_are_one_to_one(raw in prop::collection::vec(any::<u8>(), 64)) {
            prop_assert_eq!(to_raw(&to_der(&raw).unwrap()), Some(raw));
        }
    }
}

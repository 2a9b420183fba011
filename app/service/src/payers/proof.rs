//! Proofs of possession: a phone with a key of its own shows with each request that it holds it, so
//! that its token alone is of no use to a thief (D2, D5). The subset of RFC 9449 (DPoP) that a
//! page in a browser needs, and one claim of ours: `bh`, the hash of the body.

use std::fmt;
use std::time::Duration;

use countersign_crypto::{Provider, Suite, UnixTime, provider_of};
use countersign_store::SESSION_KEY_LEN;
use data_encoding::BASE64URL_NOPAD;
use der::asn1::UintRef;
use der::{Encode, Sequence};
use serde::Deserialize;
use url::Url;

use crate::ServiceError;

/// Longest proof in characters.
const PROOF_MAX: usize = 2048;
/// RFC 9449 §4.2.
const TYPE: &str = "dpop+jwt";
/// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4); no other algorithm, and never `none`.
const ALGORITHM: &str = "ES256";
/// How far a proof's time may be from this server's, before and after.
const PROOF_WINDOW: Duration = Duration::from_secs(60);
/// How long after that a used proof is remembered: servers' clocks differ.
const KEPT_AFTER: Duration = Duration::from_secs(300);
/// Fewest and most characters of a proof's id: at least 96 bits of chance (RFC 9449 §11.1).
const ID_LEN: std::ops::RangeInclusive<usize> = 16..=128;
/// Half of a signature, and of a point, in bytes.
const HALF: usize = 32;
/// What a used proof's hash begins with, so that it is the hash of nothing else.
const USED: &[u8] = b"countersign phone proof v1";

/// A phone's public key: P-256, made in its browser, from where the private key cannot be taken.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; SESSION_KEY_LEN]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl SessionKey {
    /// From the members of a JSON Web Key (RFC 7517): `EC`, `P-256`, and the coordinates in
    /// base64url, 32 bytes each.
    ///
    /// # Errors
    /// `session-key` for another type of key, another form, or a point that is not on the curve.
    pub fn from_jwk(kty: &str, crv: &str, x: &str, y: &str) -> Result<Self, ServiceError> {
        let detail = "a session key is a point of P-256 as a JSON Web Key";
        Self::parse(kty, crv, x, y).ok_or_else(|| ServiceError::refused("session-key", detail))
    }

    fn parse(kty: &str, crv: &str, x: &str, y: &str) -> Option<Self> {
        let point = point(&Jwk { kty, crv, x, y })?;
        p256()?.signature.public_key(&point).ok()?;
        Some(Self(point))
    }

    /// The uncompressed point.
    #[must_use]
    pub const fn point(&self) -> &[u8; SESSION_KEY_LEN] {
        &self.0
    }
}

/// What a phone with a key shows beside its token.
#[derive(Clone, Copy)]
pub struct PhoneProof<'a> {
    /// The header `DPoP`: a compact JWS.
    pub jwt: &'a str,
    /// The request's method, as `GET`.
    pub method: &'a str,
    /// The URL at which the request came: scheme, host and path. Query and fragment do not count.
    pub url: &'a str,
    /// The body as it came; empty if there is none.
    pub body: &'a [u8],
}

/// A proof that is good but for one thing: whether it was used before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unused {
    /// By which the database knows it.
    pub(super) hash: [u8; 32],
    /// When no server takes it any more.
    pub(super) until: UnixTime,
}

/// These members and no others: nothing critical passes unseen, and a private key neither.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
    #[serde(borrow)]
    jwk: Jwk<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk<'a> {
    kty: &'a str,
    crv: &'a str,
    x: &'a str,
    y: &'a str,
}

/// A number that is whole, and each member once: who sends another form is another program.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    ath: &'a str,
    bh: Option<&'a str>,
}

/// `SEQUENCE { r INTEGER, s INTEGER }`, as signatures are verified.
#[derive(Sequence)]
struct Pair<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn p256() -> Option<Provider> {
    provider_of(Suite::X25519_P256_AES128GCM_SHA256)
}

fn point(jwk: &Jwk<'_>) -> Option<[u8; SESSION_KEY_LEN]> {
    if (jwk.kty, jwk.crv) != ("EC", "P-256") {
        return None;
    }
    let half = |text: &str| {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        <[u8; HALF]>::try_from(bytes).ok()
    };
    let (x, y) = (half(jwk.x)?, half(jwk.y)?);
    let mut point = [4; SESSION_KEY_LEN];
    point[1..=HALF].copy_from_slice(&x);
    point[1 + HALF..].copy_from_slice(&y);
    Some(point)
}

/// Verifies a proof (RFC 9449 §4.3) but for its being new, which the database says.
///
/// # Errors
/// The name of the first check that fails, for the audit.
pub(super) fn verify(
    own: &Provider,
    proof: &PhoneProof<'_>,
    (phone, token): (&str, &str),
    key: &[u8; SESSION_KEY_LEN],
    now: UnixTime,
) -> Result<Unused, &'static str> {
    if proof.jwt.len() > PROOF_MAX {
        return Err("proof-size");
    }
    let form = "proof-form";
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| form);
    let (input, signature) = proof.jwt.rsplit_once('.').ok_or(form)?;
    let (header, payload) = input.split_once('.').ok_or(form)?;
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| form)?;
    let claims: Claims<'_> = serde_json::from_slice(&payload).map_err(|_| form)?;
    if header.typ != TYPE {
        return Err("proof-type");
    }
    if header.alg != ALGORITHM {
        return Err("proof-algorithm");
    }
    if point(&header.jwk).as_ref() != Some(key) {
        return Err("proof-key");
    }
    let provider = match own.suite {
        Suite::X25519_P256_AES128GCM_SHA256 => own.clone(),
        _ => p256().ok_or("proof-algorithm")?,
    };
    let verifier = provider.signature.public_key(key).map_err(|_| "proof-key")?;
    let signature = to_der(&signature).ok_or("proof-signature")?;
    verifier.verify(input.as_bytes(), &signature).map_err(|_| "proof-signature")?;
    let sha256 = |bytes: &[u8]| BASE64URL_NOPAD.encode(&provider.hash.hash(&[bytes]));
    check_claims(&claims, proof, &sha256(token.as_bytes()), &sha256(proof.body), now)?;
    let until = UnixTime::from_secs(claims.iat).plus(PROOF_WINDOW + KEPT_AFTER);
    let length = (phone.len() as u64).to_be_bytes();
    let hash = provider.hash.hash(&[USED, &length, phone.as_bytes(), claims.jti.as_bytes()]);
    Ok(Unused { hash, until })
}

fn check_claims(
    claims: &Claims<'_>,
    proof: &PhoneProof<'_>,
    token_hash: &str,
    body_hash: &str,
    now: UnixTime,
) -> Result<(), &'static str> {
    if !ID_LEN.contains(&claims.jti.len()) {
        return Err("proof-id");
    }
    if claims.htm != proof.method {
        return Err("proof-method");
    }
    let asked = place(proof.url);
    if asked.is_none() || place(claims.htu) != asked {
        return Err("proof-url");
    }
    if claims.ath != token_hash {
        return Err("proof-token");
    }
    let wanted = if proof.body.is_empty() { claims.bh } else { Some(claims.bh.unwrap_or("")) };
    if wanted.is_some_and(|bh| bh != body_hash) {
        return Err("proof-body");
    }
    let (now, window) = (now.as_secs(), PROOF_WINDOW.as_secs());
    if claims.iat < now.saturating_sub(window) {
        return Err("proof-old");
    }
    if claims.iat > now.saturating_add(window) {
        return Err("proof-future");
    }
    Ok(())
}

/// A URL in one form, without query and fragment (RFC 9449 §4.3, check 9).
fn place(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// From `r ‖ s` (RFC 7518 §3.4) to DER.
fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = (raw.len() == 2 * HALF).then(|| raw.split_at(HALF))?;
    Pair { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

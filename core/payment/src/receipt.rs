//! The receipt of an executed payment: a compact JWS (RFC 7515) over canonical JSON (RFC 8785),
//! with the server's certificates in `x5c`, that anyone checks who trusts the root.

use countersign_crypto::{CryptoRng, HASH_LEN, UnixTime};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::jws::{self, Signature, StatementKey};
use crate::{AccountNumber, Amount, PaymentError, wire};

/// Longest receipt, in bytes.
pub const RECEIPT_MAX: usize = 16 * 1024;

/// The `typ` of the header.
const TYP: &str = "countersign-receipt";
const TYPE: &str = "countersign.payment.receipt";
const VERSION: u32 = 1;

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Receipt {
    /// The payment's id.
    pub payment: String,
    /// The initiating party's own name of it (pain.001 `EndToEndIdentification`).
    #[serde(rename = "endToEndIdentification")]
    pub end_to_end_id: String,
    /// The account that paid.
    #[serde(with = "wire::text")]
    pub payer_account: AccountNumber,
    /// The account that was paid.
    #[serde(with = "wire::text")]
    pub payee_account: AccountNumber,
    /// Who was paid.
    pub payee_name: String,
    /// What was paid for.
    pub order: String,
    /// How much.
    #[serde(with = "wire::money")]
    pub amount: Amount,
    /// When it was posted.
    #[serde(with = "wire::text")]
    pub executed_at: UnixTime,
    /// The posting's id.
    pub posting: String,
    /// The accepted answer's id.
    pub authorisation: String,
    /// [`request_hash`](crate::request_hash) of the bytes that were confirmed.
    #[serde(with = "wire::text")]
    pub request_hash: [u8; HASH_LEN],
    /// When the receipt was made.
    #[serde(with = "wire::text")]
    pub issued_at: UnixTime,
}

/// The payload: what it is, and the receipt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    receipt: Receipt,
}

/// A receipt whose signature and certificates were verified. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    receipt: Receipt,
    server_id: String,
}

impl Verified {
    /// What it says.
    #[must_use]
    pub const fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The id of the server that says it, from its certificate.
    #[must_use]
    pub fn server_id(&self) -> &str {
        &self.server_id
    }
}

/// Makes a receipt.
///
/// # Errors
/// [`PaymentError::Signing`] if the key does not sign, [`PaymentError::StatementCertificate`] if
/// the certificate is not of this key, [`PaymentError::StatementForm`] if it would be longer than
/// [`RECEIPT_MAX`].
pub fn make(
    receipt: &Receipt,
    key: &StatementKey<'_>,
    rng: &mut dyn CryptoRng,
) -> Result<String, PaymentError> {
    let payload = Payload { kind: TYPE.to_string(), version: VERSION, receipt: receipt.clone() };
    let payload = wire::canonical(&payload)?;
    let (protected, signature) = jws::sign(key, TYP, payload.as_bytes(), rng)?;
    let payload = BASE64URL_NOPAD.encode(payload.as_bytes());
    let jws = [protected, payload, signature].join(".");
    if jws.len() <= RECEIPT_MAX { Ok(jws) } else { Err(PaymentError::StatementForm) }
}

/// Verifies a receipt: its form, its signature, and its certificates up to `root` (DER) at the time
/// at which it says it was made.
///
/// # Errors
/// [`PaymentError::StatementForm`], [`PaymentError::StatementCertificate`] or
/// [`PaymentError::StatementSignature`].
pub fn verify(jws: &str, root: &[u8]) -> Result<Verified, PaymentError> {
    let wrong = PaymentError::StatementForm;
    if jws.len() > RECEIPT_MAX {
        return Err(wrong);
    }
    let mut parts = jws.split('.');
    let (Some(protected), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong);
    };
    let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).map_err(|_| wrong)?;
    let said: Payload = serde_json::from_slice(&payload).map_err(|_| wrong)?;
    if said.kind != TYPE || said.version != VERSION {
        return Err(wrong);
    }
    let signed = Signature { protected, signature };
    let signer = jws::verify(&signed, TYP, &payload, root, said.receipt.issued_at)?;
    Ok(Verified { receipt: said.receipt, server_id: signer.server_id })
}

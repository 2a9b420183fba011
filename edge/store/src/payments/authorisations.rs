use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::tx::Many;
use crate::value::check_texts;
use crate::{Column, MAX_PAGE, Row, SignMethod, StoreError, Tx, Value};

/// Longest certificate of an answer, in bytes.
const CERTIFICATE_MAX: usize = 64 * 1024;
/// Longest signature of an answer, in bytes.
const SIGNATURE_MAX: usize = 1024;
/// Longest commitment of an answer, in bytes.
const COMMITMENT_MAX: usize = 1024;

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerOutcome {
    /// It verified: the payment was approved.
    Accepted,
    /// It did not verify.
    Refused,
    /// It was the payer's rejection.
    Rejected,
}

stored_as_text!(AnswerOutcome, "answer outcome", {
    Accepted => "accepted",
    Refused => "refused",
    Rejected => "rejected",
});

/// How a rejection is stored in place of a signing method.
const NO_METHOD: &str = "none";

/// An answer to a payment, as it was decided. At most one of a payment is accepted: a rule of the
/// database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorisation {
    /// `aut_…`.
    pub id: String,
    /// The payment.
    pub payment_id: String,
    /// SHA-256 of the answer: the same one again is answered as before.
    pub answer_hash: [u8; 32],
    /// What became of it.
    pub outcome: AnswerOutcome,
    /// How it was signed; a rejection is not.
    pub method: Option<SignMethod>,
    /// The security device, `sdv_…`, if it is known.
    pub device_id: Option<String>,
    /// The phone that brought it, `phn_…`.
    pub phone_id: Option<String>,
    /// The number of the certificate under which it was accepted.
    pub certificate_number: Option<String>,
    /// That certificate, in DER.
    pub certificate: Option<Vec<u8>>,
    /// The signature, or the digits as text.
    pub signature: Option<Vec<u8>>,
    /// A signing card's: the commitment to its joint password, which the signature covers. The
    /// password itself is never stored.
    pub commitment: Option<Vec<u8>>,
    /// The check that refused it, or why it was rejected: a stable name, for the audit's readers.
    pub failed_check: Option<String>,
    /// Under which incident the audit has it.
    pub incident: Option<String>,
    /// When.
    pub at: UnixTime,
}

pub(super) const COLUMNS: &str = "a.id, a.payment_id, a.answer_hash, a.outcome, a.method, \
     a.device_id, a.phone_id, a.certificate_number, a.certificate, a.signature, a.failed_check, \
     a.incident, a.at, a.commitment";

pub(super) fn authorisation(row: &Row) -> Result<Authorisation, StoreError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let method = match row.text(4)? {
        NO_METHOD => None,
        name => Some(SignMethod::stored(name)?),
    };
    Ok(Authorisation {
        id: row.text(0)?.to_owned(),
        payment_id: row.text(1)?.to_owned(),
        answer_hash: row.array(2)?,
        outcome: AnswerOutcome::stored(row.text(3)?)?,
        method,
        device_id: owned(row.opt_text(5)?),
        phone_id: owned(row.opt_text(6)?),
        certificate_number: owned(row.opt_text(7)?),
        certificate: row.opt_blob(8)?.map(<[u8]>::to_vec),
        signature: row.opt_blob(9)?.map(<[u8]>::to_vec),
        failed_check: owned(row.opt_text(10)?),
        incident: owned(row.opt_text(11)?),
        at: row.time(12)?,
        commitment: row.opt_blob(13)?.map(<[u8]>::to_vec),
    })
}

fn cells(answer: &Authorisation) -> Vec<Value> {
    vec![
        (&answer.id).into(),
        (&answer.payment_id).into(),
        (&answer.answer_hash).into(),
        answer.outcome.name().into(),
        answer.method.map_or(NO_METHOD, SignMethod::name).into(),
        answer.device_id.as_deref().into(),
        answer.phone_id.as_deref().into(),
        answer.certificate_number.as_deref().into(),
        answer.certificate.as_deref().into(),
        answer.signature.as_deref().into(),
        answer.failed_check.as_deref().into(),
        answer.incident.as_deref().into(),
        answer.at.into(),
        answer.commitment.as_deref().into(),
    ]
}

/// The statement that stores answers.
pub(super) fn store(answers: &[Authorisation]) -> Result<Many, StoreError> {
    for answer in answers {
        check_texts([answer.id.as_str()])?;
        check_texts(
            [&answer.certificate_number, &answer.failed_check, &answer.incident]
                .into_iter()
                .filter_map(Option::as_deref),
        )?;
        let long = |bytes: &Option<Vec<u8>>, max| bytes.as_ref().is_some_and(|b| b.len() > max);
        if long(&answer.certificate, CERTIFICATE_MAX)
            || long(&answer.signature, SIGNATURE_MAX)
            || long(&answer.commitment, COMMITMENT_MAX)
        {
            return Err(StoreError::Refused { check: "text-too-long" });
        }
    }
    Ok(Many::insert(
        "payment_authorisations",
        "id, payment_id, answer_hash, outcome, method, device_id, phone_id, certificate_number,
         certificate, signature, failed_check, incident, at, commitment",
        &[
            Column::Text,
            Column::Text,
            Column::Blob,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Blob,
            Column::Blob,
            Column::Text,
            Column::Text,
            Column::Int,
            Column::Blob,
        ],
        answers.iter().map(cells).collect(),
    ))
}

impl Tx<'_> {
    /// The answers to a payment, oldest first, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn authorisations(&mut self, payment_id: &str) -> Result<Vec<Authorisation>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM payment_authorisations a
             WHERE a.payment_id = ?1 ORDER BY a.id LIMIT ?2"
        );
        let rows = self.query(&sql, &[payment_id.into(), MAX_PAGE.into()])?;
        rows.iter().map(authorisation).collect()
    }
}

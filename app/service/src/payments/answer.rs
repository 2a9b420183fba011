use std::fmt;

use countersign_crypto::Secret;
use countersign_payment::ocra;
use countersign_pki::{Identity, Role};
use countersign_store::{AnswerKey, Authorisation, PaymentRecord, SignerRecord};

pub use countersign_payment::machine::RejectReason;

use super::checkout::CHECKOUT_ACTOR;
use super::decide::{Brought, Case, Digits, Seen, Verdict};
use crate::refusals::{Party, Refusal};
use crate::{Actor, PhoneActor, Service, ServiceError};

/// Longest signature, in bytes: DER of two numbers of 32 bytes, with room.
pub(super) const SIGNATURE_MAX: usize = 80;
/// Digits of the number to match.
const MATCH_DIGITS: usize = 2;
/// How often an answer is verified anew because its device changed meanwhile.
pub(super) const VERIFICATIONS_MAX: usize = 3;

/// What a phone brings (step 104), or the page of a checkout.
#[derive(Clone, PartialEq, Eq)]
pub enum PaymentAnswer {
    /// A signature over the request, of a device with a certificate.
    Pki {
        /// The device's serial number.
        device_serial: String,
        /// DER.
        signature: Vec<u8>,
    },
    /// A dynamic password over the request (OCRA).
    Ocra {
        /// The device's serial number.
        device_serial: String,
        /// The digits.
        digits: String,
    },
    /// The payer says no.
    Reject {
        /// Why.
        reason: RejectReason,
    },
}

impl fmt::Debug for PaymentAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pki { device_serial, .. } => write!(f, "Pki({device_serial})"),
            Self::Ocra { device_serial, .. } => write!(f, "Ocra({device_serial})"),
            Self::Reject { reason } => write!(f, "Reject({})", reason.name()),
        }
    }
}

/// Who brings an answer.
#[derive(Clone, Copy)]
pub(super) enum Bearer<'a> {
    /// A payer's phone.
    Phone(&'a PhoneActor),
    /// The page of the payment's checkout, by its key.
    Checkout,
}

impl<'a> Bearer<'a> {
    const fn phone(self) -> Option<&'a PhoneActor> {
        match self {
            Self::Phone(phone) => Some(phone),
            Self::Checkout => None,
        }
    }
}

/// The actor of an answer in audit rows, timelines and postings.
pub(super) fn bearer(phone_id: Option<&str>) -> Actor {
    Actor::Device(phone_id.unwrap_or(CHECKOUT_ACTOR).to_owned())
}

impl PaymentAnswer {
    fn serial(&self) -> Option<&str> {
        match self {
            Self::Pki { device_serial, .. } | Self::Ocra { device_serial, .. } => {
                Some(device_serial)
            }
            Self::Reject { .. } => None,
        }
    }

    /// What can be said of an answer without looking at anything secret.
    fn check_form(&self) -> Result<(), ServiceError> {
        let serial = self.serial();
        serial.map_or(Ok(()), check_serial)?;
        let detail = match self {
            Self::Pki { signature, .. } if !(1..=SIGNATURE_MAX).contains(&signature.len()) => {
                format!("a signature has 1 to {SIGNATURE_MAX} bytes")
            }
            Self::Ocra { digits, .. } if !is_digits(digits, ocra::PAYMENT_DIGITS) => {
                format!("a dynamic password has {} digits", ocra::PAYMENT_DIGITS)
            }
            _ => return Ok(()),
        };
        Err(ServiceError::refused("answer-format", detail))
    }

    /// Whether the number to match is there where it is needed: a phone with a key of its own is a
    /// browser, whose payer has read it at the initiating terminal. It is no secret that it is
    /// missing.
    fn check_match(&self, from: Bearer<'_>, code: Option<&str>) -> Result<(), ServiceError> {
        let phone = from.phone().map(|phone| &phone.record.phone);
        let needed = phone.is_some_and(|phone| phone.session_key.is_some());
        let fits = match code {
            Some(code) => is_digits(code, MATCH_DIGITS),
            None => !needed || matches!(self, Self::Reject { .. }),
        };
        let detail = "the number to match has two digits, and this phone must send it";
        if fits { Ok(()) } else { Err(ServiceError::refused("answer-format", detail)) }
    }

    /// The texts that make the answer what it is, in one form.
    fn parts(&self) -> [&[u8]; 3] {
        match self {
            Self::Pki { device_serial, signature } => [b"pki", device_serial.as_bytes(), signature],
            Self::Ocra { device_serial, digits } => {
                [b"ocra", device_serial.as_bytes(), digits.as_bytes()]
            }
            Self::Reject { reason } => [b"reject", b"", reason.name().as_bytes()],
        }
    }
}

/// Whether a text can be a security device's serial number.
pub(super) fn check_serial(serial: &str) -> Result<(), ServiceError> {
    let detail = "a serial number has 1 to 64 of A-Z a-z 0-9 . _ -";
    Identity::new(Role::SecurityDevice, serial)
        .map(drop)
        .map_err(|_| ServiceError::refused("answer-format", detail))
}

/// What is said when every verification was overtaken by a change of the device.
pub(super) fn changing() -> ServiceError {
    let detail = "the security device is being changed: try again".to_owned();
    ServiceError::Unavailable { detail }
}

fn is_digits(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|c| c.is_ascii_digit())
}

/// What became of an answer that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The payment after it: executed, rejected, or, where the ledger refused it, not executed.
    pub record: PaymentRecord,
    /// The answer as it is stored.
    pub authorisation: Authorisation,
    /// Whether it had come before, and this is what it was answered then.
    pub replayed: bool,
}

impl Service {
    /// Decides over an answer that a phone brings (steps 104 to 107): verified against the bytes
    /// that the server stored, it executes the payment; a wrong one is counted. The same answer
    /// again is answered as before. A phone with a key of its own must send the number to match
    /// with a confirmation ([`Service::match_code`]), another one may; a wrong one is a wrong
    /// answer of the payment, not of the device. A rejection needs none.
    ///
    /// A rejection as not the payer's own freezes the payer's account in the same transaction.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for a payment of another account; `answer-format`;
    /// `payment-expired`, `payment-cancelled`, `payment-rejected`, `payment-failed`,
    /// `payment-settled`; [`ServiceError::AuthorisationRefused`] for everything that is wrong with
    /// signature, digits, device or certificate, and for a wrong number.
    pub async fn answer_payment(
        &self,
        phone: &PhoneActor,
        id: &str,
        answer: PaymentAnswer,
        match_code: Option<String>,
    ) -> Result<Answered, ServiceError> {
        let answered = self.answer(Bearer::Phone(phone), id, answer, match_code).await;
        if let Err(error) = &answered
            && error.is_refusal()
        {
            // A wrong answer has its row already, in the transaction that counted it.
            let (party, check) = (Party::Phone, error.check());
            let (action, subject, reason) = ("payment.answer", id, error.to_string());
            let (actor, reader) = (phone.id(), Some(phone.id()));
            self.audit_refusal(Refusal { party, actor, action, subject, check, reason, reader })
                .await;
        }
        answered
    }

    pub(super) async fn answer(
        &self,
        from: Bearer<'_>,
        id: &str,
        answer: PaymentAnswer,
        match_code: Option<String>,
    ) -> Result<Answered, ServiceError> {
        answer.check_form()?;
        answer.check_match(from, match_code.as_deref())?;
        let match_code = match_code.filter(|_| answer.serial().is_some());
        let matches = match &match_code {
            Some(code) => {
                let wanted = Secret::copied_from(self.match_code(id).await?.as_bytes());
                Some(wanted.ct_eq(code.as_bytes()))
            }
            None => None,
        };
        let key = AnswerKey {
            payment_id: id.to_owned(),
            answer_hash: self.answer_hash(&answer, match_code.as_deref()),
            phone_id: from.phone().map(|phone| phone.id().to_owned()),
            device_serial: answer.serial().map(str::to_owned),
        };
        for _ in 0..VERIFICATIONS_MAX {
            let digits = match &answer {
                PaymentAnswer::Ocra { device_serial, digits } => {
                    Some(self.verify_digits(from, id, device_serial, digits).await?)
                }
                _ => None,
            };
            let brought = Brought::ByPayer { answer: answer.clone(), digits };
            let case = Case { key: key.clone(), brought, matches };
            if let Some(answered) = self.decided(case).await? {
                return Ok(answered);
            }
        }
        Err(changing())
    }

    /// What an answer came to; `None` if what it was verified under has changed meanwhile.
    pub(super) async fn decided(&self, case: Case) -> Result<Option<Answered>, ServiceError> {
        match self.payments.lane.decide(case).await? {
            Verdict::Answered { record, authorisation, replayed } => {
                let (record, authorisation) = (*record, *authorisation);
                Ok(Some(Answered { record, authorisation, replayed }))
            }
            Verdict::Refused { incident } => Err(ServiceError::AuthorisationRefused { incident }),
            Verdict::Closed(refusal) => Err(refusal.into()),
            Verdict::Unknown => Err(super::read::missing()),
            Verdict::Stale => Ok(None),
        }
    }

    /// Hash by which the same answer is known again. Each part has its length before it. The same
    /// digits beside another number to match are another answer.
    fn answer_hash(&self, answer: &PaymentAnswer, match_code: Option<&str>) -> [u8; 32] {
        let mut framed = Vec::new();
        for part in answer.parts().into_iter().chain(match_code.map(str::as_bytes)) {
            framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
            framed.extend_from_slice(part);
        }
        self.authority.provider.hash.hash(&[&framed])
    }

    /// Verifies a dynamic password over the stored request. Its key may lie in a token, which
    /// takes its time: outside any lock, and only for a phone and a device of the payer. A phone
    /// that names another's device sets no token to work, and learns nothing by error or by time.
    async fn verify_digits(
        &self,
        from: Bearer<'_>,
        id: &str,
        serial: &str,
        digits: &str,
    ) -> Result<Digits, ServiceError> {
        let (id, serial) = (id.to_owned(), serial.to_owned());
        let (payment, signer) = self
            .store
            .read("answer_digits", move |tx| {
                Ok::<_, ServiceError>((tx.payment(&id)?, tx.signer_by_serial(&serial)?))
            })
            .await?;
        let serve = |signer: &SignerRecord| {
            let payer = payment.as_ref().map(|record| record.payment.payer_account.as_str());
            let phone_serves = |payer| from.phone().is_none_or(|phone| phone.serves(payer));
            payer.is_some_and(|payer| phone_serves(payer) && signer.serves(payer))
        };
        let signer = signer.filter(|signer| signer.signer.ocra_key.is_some() && serve(signer));
        let seen = payment.map(|record| Seen::new(record.payment.request));
        let (Some(request), Some(signer)) = (&seen, signer) else {
            return Ok(Digits { seen, block: None, good: false });
        };
        let key = self.ocra_key(&signer).await?;
        let good = ocra::verify(&key, request.bytes(), digits);
        Ok(Digits { seen, block: signer.signer.ocra_key, good })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pki(serial: &str, signature: &[u8]) -> PaymentAnswer {
        let (device_serial, signature) = (serial.to_owned(), signature.to_vec());
        PaymentAnswer::Pki { device_serial, signature }
    }

    fn ocra(serial: &str, digits: &str) -> PaymentAnswer {
        let (device_serial, digits) = (serial.to_owned(), digits.to_owned());
        PaymentAnswer::Ocra { device_serial, digits }
    }

    #[test]
    fn an_answer_of_another_form_is_refused_before_anything_is_looked_at() {
        for good in [
            pki("SD-1", &[1]),
            pki("SD-1", &[1; SIGNATURE_MAX]),
            ocra("SD-1", "01234567"),
            PaymentAnswer::Reject { reason: RejectReason::NotMine },
        ] {
            assert_eq!(good.check_form(), Ok(()), "{good:?}");
        }
        for bad in [
            pki("", &[1]),
            pki("SD 1", &[1]),
            pki("SD-1", &[]),
            pki("SD-1", &[1; SIGNATURE_MAX + 1]),
            ocra("SD-1", "0123456"),
            ocra("SD-1", "012345678"),
            ocra("SD-1", "0123456x"),
            ocra("SD-1", "١٢٣٤"),
        ] {
            let refused = bad.check_form().err().map(|error| error.check());
            assert_eq!(refused, Some("answer-format"), "{bad:?}");
        }
    }

    #[test]
    fn digits_and_signatures_are_not_printed() {
        let text = format!("{:?} {:?}", ocra("SD-1", "01234567"), pki("SD-2", b"abcd"));
        assert_eq!(text, "Ocra(SD-1) Pki(SD-2)");
    }
}

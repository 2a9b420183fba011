//! Payments that are confirmed on a signing card with a joint password (B7, B8): the terminal into
//! which the card was put asks what is to be signed, and brings what the card signed together with
//! the joint password that the payer got from the card.

use std::fmt;
use std::sync::Arc;

use countersign_crypto::{DecryptionKey, Secret, UnixTime};
use countersign_payment::joint::{self, COMMITMENT_MAX, Commitment, Form, JointPassword, Opener};
use countersign_payment::{REQUEST_MAX, machine};
use countersign_store::{AnswerKey, CertificateState, PaymentRecord, SignMethod, SignerRecord};

use super::answer::{Answered, SIGNATURE_MAX, VERIFICATIONS_MAX, changing, check_serial};
use super::decide::{Brought, Case, Joint, JointProof, Seen};
use super::read::missing;
use super::settle::view;
use super::verify::Verifier;
use crate::{Actor, Scope, Service, ServiceError};

/// What a terminal needs before it lets a card sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JointTerms {
    /// The very bytes that the card is to sign: the stored confirmation request.
    pub transaction: Vec<u8>,
    /// The forms that this server takes, best first.
    pub forms: Vec<Form>,
    /// Until when an answer counts.
    pub expires_at: UnixTime,
}

/// What a terminal brings of a signing card.
pub struct JointAnswer {
    /// The bytes that the card has signed, 1 to [`REQUEST_MAX`].
    pub transaction: Vec<u8>,
    /// The card's serial number.
    pub device_serial: String,
    /// Its commitment to the joint password, as it was signed.
    pub commitment: Vec<u8>,
    /// The card's signature, DER.
    pub signature: Vec<u8>,
    /// The joint password as it was typed or read: nine digits, perhaps in groups.
    pub password: Secret,
}

impl fmt::Debug for JointAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JointAnswer({})", self.device_serial)
    }
}

/// An answer whose every field has its form.
struct Parsed {
    transaction: Vec<u8>,
    serial: String,
    commitment: Commitment,
    signature: Vec<u8>,
    password: JointPassword,
}

impl JointAnswer {
    /// What can be said of it without looking at anything stored or secret. Nothing of this counts
    /// as a wrong answer: a slip of the finger is found by the check digit.
    fn parse(self) -> Result<Parsed, ServiceError> {
        let refused = |detail: String| ServiceError::refused("answer-format", detail);
        let bounded = |what: &str, len: usize, max: usize| {
            let fits = (1..=max).contains(&len);
            if fits { Ok(()) } else { Err(refused(format!("{what} has 1 to {max} bytes"))) }
        };
        check_serial(&self.device_serial)?;
        bounded("a transaction", self.transaction.len(), REQUEST_MAX)?;
        bounded("a commitment", self.commitment.len(), COMMITMENT_MAX)?;
        bounded("a signature", self.signature.len(), SIGNATURE_MAX)?;
        let commitment = Commitment::parse(&self.commitment)
            .map_err(|_| refused("this is no commitment of a signing card".to_owned()))?;
        let password = std::str::from_utf8(self.password.expose())
            .ok()
            .and_then(|text| JointPassword::parse(text).ok())
            .ok_or_else(|| {
                let detail = "a joint password has nine digits, and the last one checks the others";
                refused(detail.to_owned())
            })?;
        Ok(Parsed {
            transaction: self.transaction,
            serial: self.device_serial,
            commitment,
            signature: self.signature,
            password,
        })
    }
}

impl Service {
    /// What a card is to sign for this payment, while it waits for its answer. One whose time is
    /// over is ended first.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`], also for another's payment;
    /// `payment-expired`, `payment-cancelled`, `payment-rejected`, `payment-failed`,
    /// `payment-settled`.
    pub async fn joint_terms(&self, actor: &Actor, id: &str) -> Result<JointTerms, ServiceError> {
        actor.require(Scope::PaymentsCreate)?;
        let record = self.find_as_of_now(id).await?;
        if record.payment.created_by != actor.id() {
            return Err(missing());
        }
        // Asked of a payment that takes no answer, this says why.
        let max = self.policy.payments.wrong_answers_max;
        let refused = machine::refuse_answer(&view(&record.payment), self.now(), max);
        if let Some(refusal) = refused.refusal {
            return Err(refusal.into());
        }
        Ok(JointTerms {
            transaction: record.payment.request,
            forms: self.policy.payments.joint_forms.clone(),
            expires_at: record.payment.expires_at,
        })
    }

    /// Decides over what a terminal brings of a signing card (B8): the same bytes as are stored, a
    /// live card of the payer, its signature, and the joint password that only the card's owner
    /// could let it show. All of it is right and the payment is executed, or nothing is. What is
    /// wrong is counted, at most [`joint::TRIES_MAX`] times for a payment; what has no form is
    /// not. The same answer again is answered as before.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`], also for another's payment;
    /// `answer-format`; `payment-expired`, `payment-cancelled`, `payment-rejected`,
    /// `payment-failed`, `payment-settled`; [`ServiceError::AuthorisationRefused`] for everything
    /// else that is wrong.
    pub async fn answer_joint(
        &self,
        actor: &Actor,
        id: &str,
        answer: JointAnswer,
    ) -> Result<Answered, ServiceError> {
        let answered = self.decide_joint(actor, id, answer).await;
        if let Err(error) = &answered {
            // A wrong answer has its row already, in the transaction that counted it.
            self.refused_operator(actor, "payment.answer", id, error).await;
        }
        answered
    }

    async fn decide_joint(
        &self,
        actor: &Actor,
        id: &str,
        answer: JointAnswer,
    ) -> Result<Answered, ServiceError> {
        actor.require(Scope::PaymentsCreate)?;
        let answer = Arc::new(answer.parse()?);
        let key = AnswerKey {
            payment_id: id.to_owned(),
            answer_hash: self.joint_hash(&answer).await?,
            phone_id: None,
            device_serial: Some(answer.serial.clone()),
        };
        for _ in 0..VERIFICATIONS_MAX {
            let proof = self.verify_joint(actor, id, &answer).await?;
            let brought = Brought::ByTerminal(Joint {
                actor: actor.clone(),
                commitment: answer.commitment.as_bytes().to_vec(),
                signature: answer.signature.clone(),
                proof,
            });
            let case = Case { key: key.clone(), brought, matches: None };
            if let Some(answered) = self.decided(case).await? {
                return Ok(answered);
            }
        }
        Err(changing())
    }

    /// Hash by which the same answer is known again; each part has its length before it. It is
    /// keyed, and the key is not in the database: a joint password is short, and whoever reads the
    /// rows of answers that were refused, perhaps for another reason, would else find it by trying
    /// all, while the payment may still wait for it.
    async fn joint_hash(&self, answer: &Parsed) -> Result<[u8; 32], ServiceError> {
        let parts = [
            b"joint".as_slice(),
            answer.serial.as_bytes(),
            &answer.transaction,
            answer.commitment.as_bytes(),
            &answer.signature,
            answer.password.digits().as_bytes(),
        ];
        let lengths = parts.map(|part| (part.len() as u64).to_be_bytes());
        let framed: Vec<&[u8]> =
            lengths.iter().zip(parts).flat_map(|(len, part)| [len.as_slice(), part]).collect();
        let key = &self.checkout_keys().await?.joint_answers;
        Ok(self.authority.provider.mac.mac(key.expose(), &framed))
    }

    /// Verifies an answer under the stored bytes and the card's certificate and key, outside any
    /// lock: that these are still so is looked at under it. Only a card of the payer is looked at,
    /// and only a good signature lets a secret key be used.
    async fn verify_joint(
        &self,
        actor: &Actor,
        id: &str,
        answer: &Arc<Parsed>,
    ) -> Result<JointProof, ServiceError> {
        let (payment_id, serial) = (id.to_owned(), answer.serial.clone());
        let (payment, signer) = self
            .store
            .read("answer_joint", move |tx| {
                Ok::<_, ServiceError>((tx.payment(&payment_id)?, tx.signer_by_serial(&serial)?))
            })
            .await?;
        let own = |record: &PaymentRecord| record.payment.created_by == actor.id();
        let Some(PaymentRecord { payment, .. }) = payment.filter(own) else {
            return Ok(JointProof::default());
        };
        let message = if !self.policy.payments.joint_forms.contains(&answer.commitment.form()) {
            Some("joint-form")
        } else if answer.transaction != payment.request {
            Some("joint-transaction")
        } else {
            None
        };
        let (now, is_open) = (self.now(), payment.state.is_open());
        let seen = Some(Seen::new(payment.request));
        let proof = JointProof { seen, message, ..JointProof::default() };
        let serves = |signer: &SignerRecord| {
            signer.signer.method == SignMethod::Joint
                && signer.serves(&payment.payer_account)
                && signer.device.blocked(now).is_none()
        };
        match signer.filter(serves) {
            // An answer to a payment that has ended is only looked up: it never opens again.
            Some(signer) if is_open && proof.message.is_none() => {
                self.verify_card(&signer, answer, proof, now).await
            }
            _ => Ok(proof),
        }
    }

    async fn verify_card(
        &self,
        signer: &SignerRecord,
        answer: &Arc<Parsed>,
        proof: JointProof,
        now: UnixTime,
    ) -> Result<JointProof, ServiceError> {
        let live = signer.device.certificate.as_ref();
        let live = live.filter(|it| it.state == CertificateState::Issued);
        let live = live.and_then(|it| Some((it.number.clone(), it.der.clone()?)));
        let Some((number, der)) = live else { return Ok(proof) };
        let block = signer.signer.joint_key.clone();
        let proof = JointProof { certificate: Some(number), block: block.clone(), ..proof };
        let Some(block) = block else { return Ok(proof) };
        let (verifier, of) = (self.payments.lane.verifier(), answer.clone());
        let signed = aside(move || verifier.card_signature(&of, &der, now)).await?;
        if let Err(check) = signed {
            return Ok(JointProof { verified: Some(Err(check)), ..proof });
        }
        let keys = match answer.commitment.form() {
            Form::Sealed | Form::SealedRandom => {
                Keys::Server(self.authority.server_encryption.key.clone())
            }
            Form::Digest => Keys::Shared(self.open_hmac(&signer.signer.device_id, &block).await?),
        };
        let (provider, of) = (self.authority.provider.clone(), answer.clone());
        let shown = aside(move || {
            let (serial, transaction) = (&of.serial, &of.transaction);
            let (commitment, password) = (&of.commitment, &of.password);
            let opener = keys.opener();
            joint::verify_password(&provider, opener, serial, transaction, commitment, password)
        });
        let verified = shown.await?.map_err(|error| error.check());
        Ok(JointProof { verified: Some(verified), ..proof })
    }
}

/// What a joint password is verified with.
enum Keys {
    Server(Arc<dyn DecryptionKey>),
    Shared(Secret),
}

impl Keys {
    fn opener(&self) -> Opener<'_> {
        match self {
            Self::Server(key) => Opener::Server(&**key),
            Self::Shared(key) => Opener::Shared(key),
        }
    }
}

impl Verifier {
    /// As [`Verifier::joint_signature`].
    fn card_signature(
        &self,
        answer: &Parsed,
        certificate: &[u8],
        now: UnixTime,
    ) -> Result<(), &'static str> {
        let Parsed { transaction, commitment, signature, .. } = answer;
        let of = (answer.serial.as_str(), certificate);
        self.joint_signature(of, transaction, commitment, signature, now)
    }
}

/// Does what computes for long where it holds up nobody.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ServiceError::Internal {
        detail: format!("verifying a card's answer failed: {error}"),
    })
}

//! A signing card of a payer, and what a terminal brings of it.

use std::sync::Arc;

use countersign_crypto::{Provider, Secret, SecureElement};
use countersign_payment::joint::{self, Commitment, Form, JointPassword, SealTo};
use countersign_pki::{Identity, Role, request};
use countersign_service::{Answered, JointAnswer, ServiceError};
use countersign_store::PaymentRecord;

use crate::bank::{Bank, rng, to_enrol};

/// A card: its key, and the one that it shares with the server.
pub(crate) struct Card {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) key: Arc<dyn SecureElement>,
    pub(crate) shared: Secret,
    /// What it enrols with.
    pub(crate) csr: Vec<u8>,
    pub(crate) server_point: Vec<u8>,
}

/// What a terminal has after a card has signed and its owner has consented.
#[derive(Clone)]
pub(crate) struct Brought {
    pub(crate) transaction: Vec<u8>,
    pub(crate) serial: String,
    pub(crate) commitment: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) password: String,
}

impl Card {
    pub(crate) async fn enrol(bank: &Bank, serial: &str, accounts: &[&str]) -> Self {
        let key = bank.provider().signature.generate(&mut rng()).unwrap().key;
        let csr = csr_of(bank, serial, &*key);
        let made = bank.service.enrol_joint(&bank.admin, &csr, &to_enrol(accounts)).await.unwrap();
        assert_eq!(made.record.signer.method.name(), "joint");
        let server_point = bank.server_point();
        let id = made.record.signer.device_id;
        Self { id, serial: serial.to_owned(), key, shared: made.key, csr, server_point }
    }

    /// The same card, with the key that the server shares with it now.
    pub(crate) async fn enrol_again(&self, bank: &Bank) -> Self {
        let new = to_enrol(&["PAYER1"]);
        let made = bank.service.enrol_joint(&bank.admin, &self.csr, &new).await.unwrap();
        Self {
            id: made.record.signer.device_id,
            serial: self.serial.clone(),
            key: self.key.clone(),
            shared: made.key,
            csr: self.csr.clone(),
            server_point: self.server_point.clone(),
        }
    }

    pub(crate) fn sign(&self, bank: &Bank, record: &PaymentRecord, form: Form) -> Brought {
        self.sign_bytes(bank.provider(), &record.payment.request, form)
    }

    /// Signs these bytes with a new joint password.
    pub(crate) fn sign_bytes(&self, provider: &Provider, bytes: &[u8], form: Form) -> Brought {
        let password = JointPassword::random(&mut rng()).unwrap();
        let to = SealTo { server_point: &self.server_point, shared: &self.shared };
        let (serial, rng) = (&self.serial, &mut rng());
        let commitment = joint::commit(provider, rng, form, serial, bytes, &password, &to);
        let commitment = commitment.unwrap();
        Brought {
            transaction: bytes.to_vec(),
            serial: serial.clone(),
            signature: self.sign_commitment(provider, bytes, &commitment),
            commitment: commitment.as_bytes().to_vec(),
            password: password.digits().to_owned(),
        }
    }

    pub(crate) fn sign_commitment(
        &self,
        provider: &Provider,
        bytes: &[u8],
        commitment: &Commitment,
    ) -> Vec<u8> {
        joint::sign(&*self.key, &mut rng(), &*provider.hash, bytes, commitment).unwrap()
    }
}

/// A request of a new key under this serial number.
pub(crate) fn csr(bank: &Bank, serial: &str) -> Vec<u8> {
    csr_of(bank, serial, &*bank.provider().signature.generate(&mut rng()).unwrap().key)
}

fn csr_of(bank: &Bank, serial: &str, key: &dyn SecureElement) -> Vec<u8> {
    let identity = Identity::new(Role::SecurityDevice, serial).unwrap();
    request(bank.provider(), &identity, key, &mut rng()).unwrap()
}

impl Brought {
    pub(crate) fn answer(&self) -> JointAnswer {
        JointAnswer {
            transaction: self.transaction.clone(),
            device_serial: self.serial.clone(),
            commitment: self.commitment.clone(),
            signature: self.signature.clone(),
            password: Secret::copied_from(self.password.as_bytes()),
        }
    }

    /// The same with a joint password that is not the card's.
    pub(crate) fn guessed(&self, guess: u32) -> Self {
        let mut digits = format!("{guess:08}");
        let check = joint::check_digit(digits.as_bytes());
        digits.push(char::from(b'0' + check));
        assert_ne!(digits, self.password);
        Self { password: digits, ..self.clone() }
    }
}

impl Bank {
    /// The shop's terminal brings what it has of a card.
    pub(crate) async fn bring(
        &self,
        record: &PaymentRecord,
        brought: &Brought,
    ) -> Result<Answered, ServiceError> {
        self.service.answer_joint(&self.shop, &record.payment.id, brought.answer()).await
    }

    /// It is refused: the exact check, which only the audit says.
    pub(crate) async fn why_not(&self, record: &PaymentRecord, brought: &Brought) -> String {
        let error = self.bring(record, brought).await.unwrap_err();
        assert_eq!(error.check(), "authorisation-refused", "{error}");
        self.incident(&error).await
    }

    /// Wrong answers in a row of this card.
    pub(crate) async fn failures(&self, card: &Card) -> u32 {
        self.service.signer(&card.id).await.unwrap().signer.failures
    }

    /// The point of the server's encryption certificate.
    fn server_point(&self) -> Vec<u8> {
        let key = &self.house().authority.server_encryption.key;
        key.public_key().to_vec()
    }
}

//! A payer's signing card, and the terminal that speaks to the server for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_crypto::{Provider, Secret, SecureElement};
use countersign_payment::joint::{Commitment, Form, JointPassword, SealTo, commit, sign};
use countersign_pki::{Role as PkiRole, certified_point};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use testkit::rng::seeded;

use crate::bank::Bank;
use crate::world::{Answer, build, csr_of, key_of, pem_of, provider};

/// A signing card that is enrolled.
pub(crate) struct Card {
    provider: Provider,
    key: Arc<dyn SecureElement>,
    shared: Secret,
    server_point: Vec<u8>,
    /// Its serial number.
    pub(crate) serial: String,
    /// `sdv_…`.
    pub(crate) device: String,
    /// For the next randomness.
    seed: AtomicU64,
}

/// What a card made of a transaction, and the joint password that it then shows.
pub(crate) struct Made {
    transaction: Vec<u8>,
    serial: String,
    commitment: Commitment,
    signature: Vec<u8>,
    pub(crate) password: String,
}

impl Card {
    /// Signs a transaction in this form, under a joint password of its own.
    pub(crate) fn signed(&self, form: Form, transaction: &[u8]) -> Made {
        let mut rng = seeded(self.seed.fetch_add(1, Ordering::Relaxed));
        let password = JointPassword::random(&mut rng).unwrap();
        let to = SealTo { server_point: &self.server_point, shared: &self.shared };
        let (provider, serial) = (&self.provider, self.serial.as_str());
        let commitment =
            commit(provider, &mut rng, form, serial, transaction, &password, &to).unwrap();
        let hash = &*self.provider.hash;
        let signature = sign(&*self.key, &mut rng, hash, transaction, &commitment).unwrap();
        Made {
            transaction: transaction.to_vec(),
            serial: self.serial.clone(),
            commitment,
            signature,
            password: password.digits().to_owned(),
        }
    }
}

impl Made {
    /// What the terminal sends.
    pub(crate) fn body(&self) -> Value {
        json!({
            "transaction": BASE64URL_NOPAD.encode(&self.transaction),
            "deviceSerial": self.serial,
            "commitment": BASE64URL_NOPAD.encode(self.commitment.as_bytes()),
            "signature": BASE64URL_NOPAD.encode(&self.signature),
            "jointPassword": self.password,
        })
    }

    /// The same with another value for one member.
    pub(crate) fn with(&self, member: &str, value: impl Into<Value>) -> Value {
        let mut body = self.body();
        body[member] = value.into();
        body
    }
}

/// Whose key a card has: the same for the same serial number.
fn card_key(provider: &Provider, serial: &str) -> Arc<dyn SecureElement> {
    let seed = serial.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    key_of(provider, seed)
}

/// The body that enrols a card.
pub(crate) fn enrolment(provider: &Provider, serial: &str, accounts: &[&str]) -> Value {
    let key = card_key(provider, serial);
    let request = csr_of(provider, PkiRole::SecurityDevice, serial, &*key);
    json!({ "request": pem_of(&request), "label": "signing card", "accounts": accounts })
}

impl Bank {
    /// A card with this serial number for an account.
    pub(crate) async fn card(&self, serial: &str, account: &str) -> Card {
        self.card_of(provider(), serial, account).await
    }

    /// A card of this suite.
    pub(crate) async fn card_of(&self, provider: Provider, serial: &str, account: &str) -> Card {
        let body = enrolment(&provider, serial, &[account]);
        let enrolled = self.world.post("/v1/devices/joint", &body).await;
        assert_eq!(enrolled.status, StatusCode::CREATED, "{enrolled:?}");
        card_from(provider, &enrolled.json())
    }

    /// What the terminal is told of a payment.
    pub(crate) async fn joint_terms(&self, token: &str, id: &str) -> Answer {
        self.world.get_with(token, &format!("/v1/payments/{id}/joint")).await
    }

    /// The bytes that a card is to sign, as the terminal gets them.
    pub(crate) async fn transaction(&self, id: &str) -> Vec<u8> {
        let terms = self.joint_terms(&self.till, id).await.json();
        let text = terms["transaction"].as_str().unwrap_or_else(|| panic!("{terms}"));
        BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
    }

    /// What somebody brings for a payment.
    pub(crate) async fn brings(&self, token: &str, id: &str, body: &Value) -> Answer {
        let path = format!("/v1/payments/{id}/joint");
        self.world.send(build(Method::POST, &path, token, Body::from(body.to_string()))).await
    }

    /// What the terminal that asked for the payment brings.
    pub(crate) async fn submit(&self, id: &str, body: &Value) -> Answer {
        self.brings(&self.till, id, body).await
    }

    /// A payment that waits, and its transaction.
    pub(crate) async fn transacted(&self, key: &str) -> (String, Vec<u8>) {
        let id = self.pending(key).await["id"].as_str().unwrap().to_owned();
        let transaction = self.transaction(&id).await;
        (id, transaction)
    }

    /// The payment now.
    pub(crate) async fn payment(&self, id: &str) -> Value {
        self.world.get_with(&self.till, &format!("/v1/payments/{id}")).await.json()
    }
}

/// The card for which the server answered this.
pub(crate) fn card_from(provider: Provider, enrolled: &Value) -> Card {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{enrolled}")).to_owned();
    let serial = text(&enrolled["device"]["serial"]);
    let shared = HEXLOWER.decode(text(&enrolled["sharedKey"]).as_bytes()).unwrap();
    let certificate = pem::parse(text(&enrolled["serverEncryptionCertificate"])).unwrap();
    Card {
        key: card_key(&provider, &serial),
        shared: Secret::copied_from(&shared),
        server_point: certified_point(&provider, certificate.contents()).unwrap(),
        device: text(&enrolled["device"]["id"]),
        seed: AtomicU64::new(serial.bytes().map(u64::from).sum::<u64>() * 1_000_000),
        serial,
        provider,
    }
}

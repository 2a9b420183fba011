//! A server with a ledger, an initiating terminal, and payers.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use countersign_crypto::SecureElement;
use countersign_payment::sign;
use countersign_pki::Role as PkiRole;
use countersign_store::Role;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use testkit::rng::seeded;

use crate::world::{Answer, World, build, csr, key, pem_of};

/// A request under an `Idempotency-Key`.
pub(crate) fn keyed(token: &str, path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = build(Method::POST, path, token, body.into());
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

/// The number of a payer's account in yen.
pub(crate) const YEN: &str = "JPYPAYER1";

/// A server with a ledger and an initiating terminal.
pub(crate) struct Bank {
    pub(crate) world: World,
    /// The terminal's token.
    pub(crate) till: String,
}

impl Bank {
    pub(crate) async fn new() -> Self {
        Self::on(World::new().await).await
    }

    /// With the ledger of this server.
    pub(crate) async fn on(world: World) -> Self {
        let till = world.token("till", &[Role::Integrator]).await;
        let bank = Self { world, till };
        for (number, currency, kind) in [
            ("OUTSIDE01", "CNY", "external"),
            ("PAYER0001", "CNY", "customer"),
            ("SHOP0001", "CNY", "customer"),
            (YEN, "JPY", "customer"),
            ("JPYSHOP01", "JPY", "customer"),
        ] {
            let account = json!({ "identification": number, "holder": "Tea Shop",
                "currency": currency, "kind": kind });
            let opened = bank.world.post("/v1/accounts", &account).await;
            assert_eq!(opened.status, StatusCode::CREATED, "{opened:?}");
            let id = opened.json()["id"].as_str().unwrap().to_owned();
            assert_eq!(opened.header("location"), format!("/v1/accounts/{id}"));
        }
        let posted = bank.post_money("cash-1", "OUTSIDE01", "PAYER0001", "1000.00").await;
        assert_eq!(posted.status, StatusCode::CREATED, "{posted:?}");
        bank
    }

    pub(crate) async fn post_money(
        &self,
        reference: &str,
        from: &str,
        to: &str,
        amount: &str,
    ) -> Answer {
        let body = json!({ "reference": reference, "debtorAccount": { "identification": from },
            "creditorAccount": { "identification": to },
            "amount": { "amount": amount, "currency": "CNY" } });
        let admin = &self.world.admin;
        self.world.send(keyed(admin, "/v1/postings", reference, body.to_string())).await
    }

    pub(crate) async fn ask(&self, key: &str, body: &Value) -> Answer {
        self.world.send(keyed(&self.till, "/v1/payments", key, body.to_string())).await
    }

    pub(crate) async fn pending(&self, key: &str) -> Value {
        let asked = self.ask(key, &order()).await;
        assert_eq!(asked.status, StatusCode::CREATED, "{asked:?}");
        asked.json()
    }

    pub(crate) async fn balance(&self, number: &str) -> String {
        let path = format!("/v1/accounts?identification={number}");
        let found = self.world.get(&path).await.json();
        found["items"][0]["balance"]["amount"].as_str().unwrap().to_owned()
    }
}

/// A payment that nothing is wrong with.
pub(crate) fn order() -> Value {
    json!({
        "endToEndIdentification": "ORDER-7",
        "instructedAmount": { "amount": "12.34", "currency": "CNY" },
        "debtorAccount": { "identification": "PAYER0001" },
        "creditorAccount": { "identification": "SHOP0001" },
        "creditor": { "name": "Tea Shop" },
        "remittanceInformation": "Order 7: 2 teas",
        "initiatingParty": { "name": "Web shop" },
    })
}

/// The same with one member replaced, by JSON pointer.
pub(crate) fn order_with(pointer: &str, value: Value) -> Value {
    let mut order = order();
    *order.pointer_mut(pointer).unwrap() = value;
    order
}

pub(crate) fn amount(amount: &str, currency: &str) -> Value {
    order_with("/instructedAmount", json!({ "amount": amount, "currency": currency }))
}

/// A payer's security device and phone.
pub(crate) struct Payer {
    key: Arc<dyn SecureElement>,
    /// The device's serial number.
    pub(crate) serial: String,
    /// `sdv_…`.
    pub(crate) device: String,
    /// The phone's token.
    pub(crate) phone: String,
    /// `phn_…`.
    pub(crate) phone_id: String,
}

impl Bank {
    /// A payer's device with this serial number and a phone, both for an account.
    pub(crate) async fn payer(&self, serial: &str, account: &str) -> Payer {
        let key = key(u64::from(serial.as_bytes()[serial.len() - 1]) + 1000);
        let request = pem_of(&csr(PkiRole::SecurityDevice, serial, &*key));
        let enrol = json!({ "request": request, "label": "card", "accounts": [account] });
        let enrolled = self.world.post("/v1/devices", &enrol).await;
        assert_eq!(enrolled.status, StatusCode::CREATED, "{enrolled:?}");
        let allow = json!({ "label": "phone", "accounts": [account] });
        let allowed = self.world.post("/v1/phones", &allow).await.json();
        let code = json!({ "code": allowed["enrolmentCode"] });
        let phone = self.world.post("/v1/phone/enrolments", &code).await;
        assert_eq!(phone.status, StatusCode::CREATED, "{phone:?}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Payer {
            key,
            serial: serial.to_owned(),
            device: text(&enrolled.json()["device"]["id"]),
            phone: text(&phone.json()["token"]),
            phone_id: text(&phone.json()["phone"]["id"]),
        }
    }

    /// The bytes of a payment that a device is to sign, as the phone gets them.
    pub(crate) async fn request(&self, payer: &Payer, id: &str) -> Vec<u8> {
        let path = format!("/v1/phone/payments/{id}");
        let payment = self.world.get_with(&payer.phone, &path).await.json();
        BASE64URL_NOPAD.decode(payment["request"].as_str().unwrap().as_bytes()).unwrap()
    }

    /// An answer to a payment.
    pub(crate) async fn answer(&self, payer: &Payer, id: &str, body: &Value) -> Answer {
        let path = format!("/v1/payments/{id}/authorisations");
        let request = build(Method::POST, &path, &payer.phone, Body::from(body.to_string()));
        self.world.send(request).await
    }

    /// Confirms a payment as its payer does.
    pub(crate) async fn confirm(&self, payer: &Payer, id: &str) -> Answer {
        let body = payer.signed(&self.request(payer, id).await);
        self.answer(payer, id, &body).await
    }

    /// A POST by the admin under an `Idempotency-Key`.
    pub(crate) async fn once(&self, path: &str, key: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.world.send(keyed(&self.world.admin, path, key, body)).await
    }
}

impl Payer {
    /// The body of an answer with the device's signature over these bytes.
    pub(crate) fn signed(&self, request: &[u8]) -> Value {
        let signature = sign(&*self.key, &mut seeded(5), request).unwrap();
        json!({ "method": "pki", "deviceSerial": self.serial,
            "signature": BASE64URL_NOPAD.encode(&signature) })
    }
}

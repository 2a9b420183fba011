//! What the flow runs on: a server of its own, a shop, a payer's accounts, phone and devices.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use countersign_crypto::Secret;
use countersign_device::{Api, KeyDir, KeyEnrolment, Phone, SignWith, device_suite};
use countersign_server::{DataDir, ServeOptions, Server, ambient, open_service_with_vault};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};

use super::{CURRENCY, FUNDS, KEY, OCRA, OUTSIDE, PAYER, PIN, SERVER_ID, SHOP};
use crate::demo::{blocking, make_data_dir};
use crate::device::provider_of;
use crate::failure::Failure;
use crate::init;

/// Everything the flow runs on.
pub(super) struct Stage {
    _dir: tempfile::TempDir,
    pub(super) server: Server,
    /// The CA's root, DER.
    pub(super) root: Vec<u8>,
    /// The operator.
    pub(super) office: Arc<Api>,
    /// The initiating terminal: a shop's web server, say (D8: it has no driver for any device).
    pub(super) shop: Arc<Api>,
    pub(super) phone: Arc<Phone>,
    /// Signs with a key of its own.
    pub(super) key: Arc<Mutex<KeyDir>>,
    /// Answers with dynamic passwords.
    pub(super) otp: Arc<Mutex<KeyDir>>,
    requests: AtomicU32,
}

impl Stage {
    pub(super) async fn set_up() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let path = dir.path().join("data");
        let admin = make_data_dir(&path, SERVER_ID, &passphrase).await?;
        let data = DataDir::open(&path)?;
        let service = open_service_with_vault(&data, &passphrase, None).await?;
        let (_, shop) = service.add_operator(&Actor::Console, "shop", &[Role::Integrator]).await?;
        let root = service.authority().root.clone();
        drop(service);
        let options = ServeOptions { https_port: 0, gateway_port: 0, ..ServeOptions::default() };
        let server = Server::start(&data, &passphrase, &options).await?;
        let ca = data.certificate_pem("tls/root.pem")?;
        let office = Arc::new(Api::new(&server.url(), &ca, &admin)?);
        let shop = Arc::new(Api::new(&server.url(), &ca, &shop.secret)?);
        let requests = AtomicU32::new(0);
        accounts(&office).await?;
        let phone = phone(&office, dir.path().join("phone"), server.url(), ca).await?;
        let key = device(&office, dir.path().join("key"), KEY, SignWith::Pki).await?;
        let otp = device(&office, dir.path().join("otp"), OCRA, SignWith::Ocra).await?;
        Ok(Self { _dir: dir, server, root, office, shop, phone, key, otp, requests })
    }

    /// D1: the terminal asks for a payment. `order` also says what is paid for.
    pub(super) async fn ask(&self, amount: &str, order: &str) -> Result<Value, Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let body = self.request(amount, order);
        once(&self.shop, "/v1/payments", format!("demo-{number}"), body).await
    }

    /// The body of such a request, in pain.001's words.
    pub(super) fn request(&self, amount: &str, order: &str) -> Value {
        json!({
            "endToEndIdentification": order,
            "instructedAmount": { "amount": amount, "currency": CURRENCY },
            "debtorAccount": { "identification": PAYER },
            "creditorAccount": { "identification": SHOP },
            "creditor": { "name": "Tea Shop" },
            "remittanceInformation": order,
            "initiatingParty": { "name": "Tea Shop's web page" },
        })
    }

    /// What the API tells the shop.
    pub(super) async fn seen_by_shop(&self, path: &str) -> Result<Value, Failure> {
        let (api, path) = (self.shop.clone(), path.to_owned());
        blocking(move || Ok(api.get(&path)?)).await
    }

    /// An account's balance, as the office sees it.
    pub(super) async fn balance(&self, number: &str) -> Result<String, Failure> {
        let path = format!("/v1/accounts?identification={number}");
        let page = see(&self.office, &path).await?;
        Ok(page["items"][0]["balance"]["amount"].as_str().unwrap_or_default().to_owned())
    }
}

/// A GET in an operator's name.
pub(super) async fn see(api: &Arc<Api>, path: &str) -> Result<Value, Failure> {
    let (api, path) = (api.clone(), path.to_owned());
    blocking(move || Ok(api.get(&path)?)).await
}

/// A POST under an idempotency key.
pub(super) async fn once(
    api: &Arc<Api>,
    path: &'static str,
    key: String,
    body: Value,
) -> Result<Value, Failure> {
    let api = api.clone();
    blocking(move || Ok(api.post_once(path, &key, &body)?)).await
}

/// The payer's account with money in it, the shop's, and one for the outside world.
async fn accounts(office: &Arc<Api>) -> Result<(), Failure> {
    let open = [
        (PAYER, "Li Lei", "customer"),
        (SHOP, "Tea Shop", "customer"),
        (OUTSIDE, "Outside world", "external"),
    ];
    for (number, holder, kind) in open {
        let body = json!({
            "identification": number, "holder": holder, "currency": CURRENCY, "kind": kind,
        });
        let api = office.clone();
        let _opened: Value = blocking(move || Ok(api.post("/v1/accounts", &body)?)).await?;
    }
    let body = json!({
        "reference": "FUNDS",
        "debtorAccount": { "identification": OUTSIDE },
        "creditorAccount": { "identification": PAYER },
        "amount": { "amount": FUNDS, "currency": CURRENCY },
    });
    once(office, "/v1/postings", "funds".to_owned(), body).await?;
    Ok(())
}

/// The payer's phone, enrolled by its one-time code.
async fn phone(
    office: &Arc<Api>,
    path: PathBuf,
    url: String,
    ca: String,
) -> Result<Arc<Phone>, Failure> {
    let office = office.clone();
    blocking(move || {
        let body = json!({ "label": "Li Lei's phone", "accounts": [PAYER] });
        let allowed: Value = office.post("/v1/phones", &body)?;
        let code = allowed["enrolmentCode"].as_str().unwrap_or_default();
        Ok(Arc::new(Phone::enroll(&path, &url, &ca, code)?))
    })
    .await
}

/// A security device of the payer.
async fn device(
    office: &Arc<Api>,
    path: PathBuf,
    serial: &'static str,
    method: SignWith,
) -> Result<Arc<Mutex<KeyDir>>, Failure> {
    let office = office.clone();
    blocking(move || {
        let ambient = ambient();
        let provider = provider_of(device_suite(&office)?)?;
        let enrolment = KeyEnrolment {
            serial: serial.to_owned(),
            label: format!("Li Lei's {serial}"),
            accounts: vec![PAYER.to_owned()],
            method,
            pin: Secret::copied_from(PIN.as_bytes()),
        };
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let dir = KeyDir::enroll(&path, &enrolment, &office, &provider, now, &mut *rng)?;
        Ok(Arc::new(Mutex::new(dir)))
    })
    .await
}

//! What the flow runs on: a server of its own, a shop, a payer's accounts, phone and devices.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Secret;
use countersign_device::{
    Api, CardKey, InProcessCard, KeyChip, KeyDir, KeyEnrolment, Phone, SignWith, device_suite,
};
use countersign_payment::Line;
use countersign_payment::card::{PinEntry, Screen};
use countersign_server::{DataDir, ServeOptions, Server, ambient, open_service_with_vault};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};

use super::{CURRENCY, FUNDS, KEY, OCRA, OFFLINE, OUTSIDE, PAYER, PIN, SERVER_ID, SHOP};
use crate::demo::{blocking, make_data_dir};
use crate::device::provider_of;
use crate::failure::Failure;
use crate::init;

/// Everything the flow runs on.
pub(super) struct Stage {
    _dir: tempfile::TempDir,
    pub(super) server: Server,
    /// The root of its HTTPS certificate, PEM.
    pub(super) ca: String,
    /// The CA's root, DER.
    pub(super) root: Vec<u8>,
    /// The operator.
    pub(super) office: Arc<Api>,
    /// The initiating terminal: a shop's web server, say (D8: it has no driver for any device).
    pub(super) shop: Arc<Api>,
    pub(super) phone: Arc<Phone>,
    /// A card with a keypad, which signs with a key of its own.
    pub(super) key: Arc<Device>,
    /// A card without one, which answers with dynamic passwords.
    pub(super) otp: Arc<Device>,
    /// A device that nothing reaches but its camera.
    pub(super) offline: Arc<Mutex<KeyDir>>,
    requests: AtomicU32,
}

/// A card of this process and its display.
pub(super) struct Device {
    pub(super) card: Mutex<CardKey<InProcessCard<Face>>>,
    pub(super) face: Face,
}

/// A device's face: its display, which keeps what it showed last, and the payer at its keypad.
#[derive(Clone, Default)]
pub(super) struct Face(Arc<Mutex<Vec<Line>>>);

impl Face {
    /// What is on the display.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Screen for Face {
    fn shown(&mut self, lines: &[Line]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lines.to_vec();
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        self.shown(lines);
        Some(Secret::copied_from(PIN.as_bytes()))
    }
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
        let phone = phone(&office, dir.path().join("phone"), server.url(), ca.clone()).await?;
        let at = |name: &str| dir.path().join(name);
        let key = enrolled(&office, at("key"), KEY, SignWith::Pki).await?;
        let key = card(key, PinEntry::Keypad)?;
        let otp = enrolled(&office, at("otp"), OCRA, SignWith::Ocra).await?;
        let otp = card(otp, PinEntry::Host)?;
        let offline = enrolled(&office, at("offline"), OFFLINE, SignWith::Ocra).await?;
        let offline = Arc::new(Mutex::new(offline));
        Ok(Self { _dir: dir, server, ca, root, office, shop, phone, key, otp, offline, requests })
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

/// A security device as a card that lies on its reader.
fn card(dir: KeyDir, entry: PinEntry) -> Result<Arc<Device>, Failure> {
    let face = Face::default();
    let chip = KeyChip::new(dir, entry)?;
    let card = InProcessCard::new(chip, face.clone(), (ambient().rng)());
    Ok(Arc::new(Device { card: Mutex::new(CardKey::new(card)?), face }))
}

/// A security device of the payer.
async fn enrolled(
    office: &Arc<Api>,
    path: PathBuf,
    serial: &'static str,
    method: SignWith,
) -> Result<KeyDir, Failure> {
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
        Ok(KeyDir::enroll(&path, &enrolment, &office, &provider, now, &mut *rng)?)
    })
    .await
}

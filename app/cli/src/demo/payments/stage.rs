//! What the flow runs on: a bank, the payer's phone and devices.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Secret;
use countersign_device::{
    Api, CardKey, InProcessCard, KeyChip, KeyDir, KeyEnrolment, Phone, SignWith, device_suite,
};
use countersign_payment::Line;
use countersign_payment::card::{PinEntry, Screen};
use countersign_server::ambient;
use serde_json::{Value, json};

use super::{KEY, OCRA, OFFLINE, PIN, SERVER_ID};
use crate::demo::bank::{Bank, CURRENCY, PAYER, SHOP, once};
use crate::demo::blocking;
use crate::device::provider_of;
use crate::failure::Failure;

/// Everything the flow runs on.
pub(super) struct Stage {
    /// Its shop is the initiating terminal (D8: it has no driver for any device).
    pub(super) bank: Bank,
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
        let bank = Bank::open(SERVER_ID).await?;
        let Bank { dir, server, ca, office, .. } = &bank;
        let phone = phone(office, dir.path().join("phone"), server.url(), ca.clone()).await?;
        let at = |name: &str| dir.path().join(name);
        let key = enrolled(office, at("key"), KEY, SignWith::Pki).await?;
        let key = card(key, PinEntry::Keypad)?;
        let otp = enrolled(office, at("otp"), OCRA, SignWith::Ocra).await?;
        let otp = card(otp, PinEntry::Host)?;
        let offline = enrolled(office, at("offline"), OFFLINE, SignWith::Ocra).await?;
        let offline = Arc::new(Mutex::new(offline));
        let requests = AtomicU32::new(0);
        Ok(Self { bank, phone, key, otp, offline, requests })
    }

    /// D1: the terminal asks for a payment. `order` also says what is paid for.
    pub(super) async fn ask(&self, amount: &str, order: &str) -> Result<Value, Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let body = self.request(amount, order);
        once(&self.bank.shop, "/v1/payments", format!("demo-{number}"), body).await
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
        let (api, path) = (self.bank.shop.clone(), path.to_owned());
        blocking(move || Ok(api.get(&path)?)).await
    }
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

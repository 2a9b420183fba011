//! A payer's phone as a program (D2, D3, D5): it is told of payments, carries their bytes to a
//! security device, and the device's answer back. What it carries it cannot change: the device
//! shows and signs the bytes, and the server verifies them as it holds them.

mod files;
mod helper;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_payment::{ConfirmationRequest, PaymentError};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{DeviceAnswer, KeyError};
use crate::{Api, ApiError};
use files::PhoneFiles;
pub use helper::{
    Confirm, Helper, HelperError, HelperEvent, PageOrigin, Refusal, WRONG_TOKENS_MAX,
};

/// Pushes that a phone remembers so as to tell of each once.
const TOLD_MAX: usize = 1024;

/// The pause before a stream of pushes that ended is asked for again.
const COME_BACK: Duration = Duration::from_secs(1);

/// Why a phone did not do what it was asked.
#[derive(Debug, Error)]
pub enum PhoneError {
    /// Not there, or not one of ours.
    #[error("{0} is no phone's directory: run `countersign device phone enroll` first")]
    NotOurs(PathBuf),
    /// There is a phone already.
    #[error("{0} belongs to a phone already: use another --phone directory")]
    Taken(PathBuf),
    /// A file is damaged, or the system refused.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The security device.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What the server sent as a confirmation request is none.
    #[error("what the server asks to confirm: {0}")]
    Request(#[from] PaymentError),
    /// The request is another payment's than the one it was sent for.
    #[error("the server sent the confirmation request of another payment")]
    OtherPayment,
    /// The payment does not wait for an answer.
    #[error("this payment is {status}: there is nothing to answer")]
    NotPending {
        /// Where it stands.
        status: String,
    },
}

impl PhoneError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::NotOurs(_) => "phone-not-ours",
            Self::Taken(_) => "phone-taken",
            Self::File { .. } => "phone-file",
            Self::Api(_) => "server",
            Self::Key(error) => error.check(),
            Self::Request(error) => error.check(),
            Self::OtherPayment => "payment-other",
            Self::NotPending { status } => match status.as_str() {
                "expired" => "payment-expired",
                "cancelled" => "payment-cancelled",
                "rejected" => "payment-rejected",
                "failed" => "payment-failed",
                "executed" | "execution_failed" => "payment-settled",
                _ => "payment-not-pending",
            },
        }
    }
}

/// Why a payer says no (D7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectBecause {
    /// The payer did not begin this payment.
    NotMine,
    /// It is not what the payer agreed to.
    WrongDetails,
    /// The payer does not want it any more.
    ChangedMind,
}

impl RejectBecause {
    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotMine => "not-mine",
            Self::WrongDetails => "wrong-details",
            Self::ChangedMind => "changed-mind",
        }
    }
}

/// A payment as the server tells a phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingPayment {
    /// `pay_…`.
    pub id: String,
    /// The push by which the phone was told.
    pub push_id: Option<String>,
    /// Where it stands.
    pub status: String,
    /// Why it ended as it did.
    pub status_reason: Option<String>,
    /// The bytes to be signed, in base64url.
    request: String,
    /// When it was made.
    pub created_at: String,
    /// Until when it may be answered.
    pub expires_at: String,
}

impl WaitingPayment {
    /// The bytes to be signed, as they came.
    ///
    /// # Errors
    /// [`PhoneError::Request`] if they are not base64url.
    pub fn request(&self) -> Result<Vec<u8>, PhoneError> {
        let decoded = BASE64URL_NOPAD.decode(self.request.as_bytes());
        decoded.map_err(|_| PaymentError::RequestForm.into())
    }

    /// The bytes for a security device, of a payment that waits for an answer, if they are this
    /// payment's. What is in them the device shows, not the phone.
    ///
    /// # Errors
    /// [`PhoneError::NotPending`], [`PhoneError::OtherPayment`], [`PhoneError::Request`].
    pub fn to_confirm(&self) -> Result<Vec<u8>, PhoneError> {
        if self.status != "pending" {
            return Err(PhoneError::NotPending { status: self.status.clone() });
        }
        let request = self.request()?;
        if ConfirmationRequest::parse(&request)?.payment != self.id {
            return Err(PhoneError::OtherPayment);
        }
        Ok(request)
    }
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerTaken {
    /// `aut_…`.
    pub authorisation_id: String,
    /// `finalised`, or `failed` for a rejection.
    pub sca_status: String,
    /// `pay_…`.
    pub payment_id: String,
    /// Where the payment stands now.
    pub status: String,
    /// The same as pain.002 says it.
    pub transaction_status: String,
    /// Why it ended as it did, if there is more to say.
    pub status_reason: Option<String>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<WaitingPayment>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enrolment {
    token: String,
    server_id: String,
    phone: Named,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    label: String,
}

/// What a phone knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneSettings {
    /// `phn_…`.
    pub id: String,
    /// For people.
    pub label: String,
    /// The server's API.
    pub server: String,
    /// The id in that server's certificate.
    pub server_id: String,
}

/// A phone that is enrolled. Its calls block.
pub struct Phone {
    settings: PhoneSettings,
    api: Api,
}

impl Phone {
    /// Enrols a phone for its one-time code, and keeps what it needs in the directory `path`: the
    /// server, the root of its HTTPS certificate (`ca`, PEM) and the token.
    ///
    /// # Errors
    /// [`PhoneError::Taken`]; [`PhoneError::Api`]; [`PhoneError::File`].
    pub fn enroll(path: &Path, server: &str, ca: &str, code: &str) -> Result<Self, PhoneError> {
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'a str,
        }

        let api = Api::new(server, ca, "")?;
        // Before the code is used up: a directory that cannot be written costs nothing.
        let files = PhoneFiles::make(path)?;
        let answer: Enrolment = api.post("/v1/phone/enrolments", &Body { code })?;
        let token = Zeroizing::new(answer.token);
        let settings = PhoneSettings {
            id: answer.phone.id,
            label: answer.phone.label,
            server: server.to_owned(),
            server_id: answer.server_id,
        };
        files.store(&settings, ca, &token)?;
        Ok(Self { settings, api: Api::new(server, ca, &token)? })
    }

    /// Opens an enrolled phone's directory.
    ///
    /// # Errors
    /// [`PhoneError::NotOurs`], [`PhoneError::File`], [`PhoneError::Api`].
    pub fn open(path: &Path) -> Result<Self, PhoneError> {
        let (settings, ca, token) = PhoneFiles::open(path)?;
        let api = Api::new(&settings.server, &ca, &token)?;
        Ok(Self { settings, api })
    }

    /// What it knows of itself.
    #[must_use]
    pub const fn settings(&self) -> &PhoneSettings {
        &self.settings
    }

    /// The payments that wait for an answer, oldest first.
    ///
    /// # Errors
    /// [`PhoneError::Api`].
    pub fn payments(&self) -> Result<Vec<WaitingPayment>, PhoneError> {
        let List { items } = self.api.get("/v1/phone/payments")?;
        Ok(items)
    }

    /// One payment, by its id or by that of the push that told of it.
    ///
    /// # Errors
    /// [`PhoneError::Api`].
    pub fn payment(&self, id: &str) -> Result<WaitingPayment, PhoneError> {
        Ok(self.api.get(&format!("/v1/phone/payments/{}", segment(id)))?)
    }

    /// Sends a security device's answer (D5).
    ///
    /// # Errors
    /// [`PhoneError::Api`]: the server says in one word for all of them that it was refused.
    pub fn answer(&self, id: &str, answer: &DeviceAnswer) -> Result<AnswerTaken, PhoneError> {
        self.send(id, &answer_body(answer))
    }

    /// The same with the two digits that the initiating terminal shows, which a phone may send and
    /// a payer's browser must: typed by whoever has both before them.
    ///
    /// # Errors
    /// [`PhoneError::Api`]: wrong digits are refused as a wrong signature is.
    pub fn answer_matched(
        &self,
        id: &str,
        answer: &DeviceAnswer,
        match_code: &str,
    ) -> Result<AnswerTaken, PhoneError> {
        let mut body = answer_body(answer);
        body["matchCode"] = match_code.into();
        self.send(id, &body)
    }

    /// Says no (D7).
    ///
    /// # Errors
    /// [`PhoneError::Api`].
    pub fn reject(&self, id: &str, because: RejectBecause) -> Result<AnswerTaken, PhoneError> {
        self.send(id, &serde_json::json!({ "method": "reject", "reason": because.name() }))
    }

    fn send(&self, id: &str, body: &serde_json::Value) -> Result<AnswerTaken, PhoneError> {
        let path = format!("/v1/payments/{}/authorisations", segment(id));
        Ok(self.api.post(&path, body)?)
    }

    /// Waits for pushes and tells of each once, by its id: those that wait at first, then each as
    /// it comes, until `told` breaks off. Comes back by itself when a stream ends in its time.
    ///
    /// # Errors
    /// [`PhoneError::Api`]: the server cannot be reached, or the phone was revoked.
    pub fn watch(&self, mut told: impl FnMut(&str) -> ControlFlow<()>) -> Result<(), PhoneError> {
        #[derive(Deserialize)]
        struct Push {
            id: String,
        }

        let mut known: Vec<String> = Vec::new();
        loop {
            let ended = self.api.events("/v1/phone/events", |event| {
                if event.kind != "push" {
                    return ControlFlow::Continue(());
                }
                let Ok(Push { id }) = serde_json::from_str(&event.data) else {
                    return ControlFlow::Continue(());
                };
                if known.contains(&id) {
                    return ControlFlow::Continue(());
                }
                if known.len() >= TOLD_MAX {
                    known.remove(0);
                }
                known.push(id.clone());
                told(&id)
            })?;
            if ended.is_break() {
                return Ok(());
            }
            std::thread::sleep(COME_BACK);
        }
    }
}

/// A security device's answer as the API takes it.
fn answer_body(answer: &DeviceAnswer) -> serde_json::Value {
    match answer {
        DeviceAnswer::Pki { serial, signature } => serde_json::json!({
            "method": "pki",
            "deviceSerial": serial,
            "signature": BASE64URL_NOPAD.encode(signature),
        }),
        DeviceAnswer::Ocra { serial, digits } => serde_json::json!({
            "method": "ocra",
            "deviceSerial": serial,
            "digits": digits,
        }),
    }
}

/// An id as a part of a path: what is none cannot become another path.
pub(crate) fn segment(id: &str) -> String {
    let harmless = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let kept: String = id.chars().filter(harmless).collect();
    if kept == id && !kept.is_empty() { kept } else { "none".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_part_of_a_path() {
        assert_eq!(segment("pay_0193-a"), "pay_0193-a");
        for bad in ["", "../x", "a/b", "a?b", "a#b", "a b", "é"] {
            assert_eq!(segment(bad), "none", "{bad}");
        }
    }

    /// A proxy that closes every stream at once is not asked as fast as it answers.
    #[test]
    fn a_stream_that_ends_at_once_is_not_asked_for_in_a_loop() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (came, comings) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _head = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
                let _told = write!(stream, "{head}connection: close\r\n\r\n");
                if came.send(()).is_err() {
                    return;
                }
            }
        });
        let pki = testkit::pki::TestPki::new(countersign_crypto::aws_lc::provider(), 1);
        let ca = pem::encode(&pem::Pem::new("CERTIFICATE", pki.root()));
        let settings = PhoneSettings {
            id: "phn_1".to_owned(),
            label: "x".to_owned(),
            server: server.clone(),
            server_id: "srv".to_owned(),
        };
        let phone = Phone { settings, api: Api::new(&server, &ca, "csp_x").unwrap() };
        std::thread::spawn(move || phone.watch(|_| ControlFlow::Continue(())));
        std::thread::sleep(COME_BACK / 2);
        assert_eq!(comings.try_iter().count(), 1);
        comings.recv_timeout(COME_BACK * 5).expect("it comes back");
    }

    #[test]
    fn a_request_that_is_no_base64url_is_refused() {
        let payment = |request: &str| WaitingPayment {
            id: "pay_1".to_owned(),
            push_id: None,
            status: "pending".to_owned(),
            status_reason: None,
            request: request.to_owned(),
            created_at: String::new(),
            expires_at: String::new(),
        };
        assert_eq!(payment("e30").request().unwrap(), b"{}");
        for bad in ["e30=", "e3+", "é"] {
            assert_eq!(payment(bad).request().unwrap_err().check(), "request-form", "{bad}");
        }
    }
}

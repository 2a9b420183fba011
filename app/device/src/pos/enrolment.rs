//! Enrolment (E1): two keys here, two certificates from the server, by a one-time code.

use std::path::Path;

use countersign_crypto::{CryptoRng, Provider, Suite, UnixTime};
use countersign_pki::{Identity, request};
use pem::Pem;
use serde::{Deserialize, Serialize};
use tr34::{Certificate, CertificateError, IssuingCa, Krd, Party, Role, aws_lc::AwsLc, krd};

use super::kept::{Hex, Kept, StateFiles};
use super::{Element, KRD_LABEL, Pos, PosError, STORAGE_LABEL, krd_key};
use crate::device_dir::{Certificates, DeviceKind};
use crate::{Api, ApiError, DeviceDir, EnrollError};

/// Size of a terminal's RSA key unless it is told another: enough to carry AES-128 keys.
pub const RSA_BITS: u32 = 3072;

/// What a terminal enrols with.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Its serial number, which is on the server's list.
    pub serial: String,
    /// The one-time code that goes with it.
    pub code: String,
    /// Its secure element.
    pub element: Element,
    /// Size of its RSA key: 2048, 3072 or 4096.
    pub bits: u32,
}

#[derive(Deserialize)]
struct Terms {
    suite: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    serial: &'a str,
    code: &'a str,
    request: String,
    krd_request: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    certificate: String,
    krd_certificate: String,
    ca_krd: String,
    ca_kdh: String,
    rki_root: String,
    device_issuer: String,
    server_issuer: String,
    root: String,
    server_id: String,
}

impl Pos {
    /// In which suite the server certifies terminals. Blocking.
    ///
    /// # Errors
    /// [`PosError`].
    pub fn server_suite(api: &Api) -> Result<Suite, PosError> {
        let Terms { suite } = api.get("/v1/terminals/terms")?;
        Suite::from_name(&suite).ok_or_else(|| EnrollError::UnknownSuite(suite).into())
    }

    /// Makes (or finds) the terminal's keys, has the server certify them, checks the answer, pins
    /// root and CAs, and stores it. Blocking. Repeating it after a break-off, with the same code,
    /// is safe. `provider` is of the [`server_suite`](Self::server_suite).
    ///
    /// # Errors
    /// [`PosError`]; [`PosError::OtherRoot`] if it was enrolled under another root before.
    pub fn enroll(
        path: &Path,
        enrolment: &Enrolment,
        api: &Api,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, PosError> {
        let Enrolment { serial, code, element, bits } = enrolment;
        let kind = DeviceKind::Terminal;
        let mut dir = DeviceDir::open_or_make_of(kind, path, serial, provider, rng)?;
        let files = StateFiles::new(path);
        let lock = files.lock()?;
        let vault = element.open(path)?;
        let storage = vault.storage_key(STORAGE_LABEL)?;
        // In another element than the terminal's it does not open: the terminal stays as it was.
        let before = files.load(&*storage)?;
        let key = krd_key(&*vault, *bits)?;
        files.store_element(element)?; // it can do what a terminal's has to

        let identity = Identity::new(kind.role(), serial).map_err(EnrollError::from)?;
        let own_key = dir.key(provider)?;
        let own = request(provider, &identity, &*own_key, rng).map_err(EnrollError::from)?;
        let party = Party::new(Role::Krd, serial).map_err(|error| PosError::Certificates {
            check: "serial-format",
            detail: error.to_string(),
        })?;
        let krd = tr34::request(&*key, &party).map_err(|error| PosError::Certificates {
            check: error.check(),
            detail: error.to_string(),
        })?;
        let body = Body { serial, code, request: request_pem(own), krd_request: request_pem(krd) };
        let answer: Answer = api.post(kind.path(), &body)?;

        let kept = pinned(&answer, before, (serial, key.public_key()), now)?;
        files.store(&*storage, &kept)?;
        let certificates = Certificates {
            own: &answer.certificate,
            encryption: None,
            device_issuer: &answer.device_issuer,
            server_issuer: &answer.server_issuer,
            root: &answer.root,
        };
        dir.store_enrolment(&answer.server_id, &certificates, provider, now)?;
        Self::with(dir, files, vault, lock)
    }

    /// Label of the RSA key in the element, for people who look into a token.
    #[must_use]
    pub const fn key_label() -> &'static str {
        KRD_LABEL
    }
}

/// What is kept from now on, if the certificates hold together.
fn pinned(
    answer: &Answer,
    before: Option<Kept>,
    (serial, public_key): (&str, &[u8]),
    now: UnixTime,
) -> Result<Kept, PosError> {
    let rsa = &AwsLc;
    let root = certificate("rkiRoot", &answer.rki_root)?;
    if before.as_ref().is_some_and(|kept| kept.root.0 != root.raw()) {
        return Err(PosError::OtherRoot);
    }
    root.verify_root(rsa, now).map_err(bad("rkiRoot"))?;
    let ca_krd = certificate("caKrd", &answer.ca_krd)?;
    let ca_krd = IssuingCa::verify(rsa, ca_krd, &root, Role::CaKrd, now).map_err(bad("caKrd"))?;
    let ca_kdh = certificate("caKdh", &answer.ca_kdh)?;
    let ca_kdh = IssuingCa::verify(rsa, ca_kdh, &root, Role::CaKdh, now).map_err(bad("caKdh"))?;
    let krd = certificate("krdCertificate", &answer.krd_certificate)?;
    let krd = Krd::verify(rsa, krd, ca_krd.certificate(), now).map_err(bad("krdCertificate"))?;
    if krd.id() != Some(serial) || krd.certificate().public_key() != public_key {
        return Err(PosError::Certificates {
            check: "certificate-foreign",
            detail: "the certificate is for another terminal or key".to_owned(),
        });
    }
    let hex = |certificate: &Certificate| Hex(certificate.raw().to_vec());
    let fresh = Kept {
        krd: hex(krd.certificate()),
        ca_krd: hex(ca_krd.certificate()),
        root: hex(&root),
        ca_kdh: hex(ca_kdh.certificate()),
        receiver: Hex(krd::State::default().to_bytes()),
        slots: Default::default(),
    };
    // A terminal that enrols again keeps its keys, and whom it is bound to.
    Ok(match before {
        None => fresh,
        Some(before) => {
            Kept { ca_kdh: before.ca_kdh, receiver: before.receiver, slots: before.slots, ..fresh }
        }
    })
}

fn request_pem(der: Vec<u8>) -> String {
    pem::encode(&Pem::new("CERTIFICATE REQUEST", der))
}

fn certificate(name: &'static str, text: &str) -> Result<Certificate, PosError> {
    let pem = pem::parse(text).ok().filter(|pem| pem.tag() == "CERTIFICATE");
    let pem = pem.ok_or_else(|| ApiError::NotOurs {
        url: DeviceKind::Terminal.path().to_owned(),
        detail: format!("{name} is no certificate"),
    })?;
    Certificate::parse(pem.contents()).map_err(bad(name))
}

fn bad(name: &'static str) -> impl FnOnce(CertificateError) -> PosError {
    move |error| PosError::Certificates { check: error.check(), detail: format!("{name}: {error}") }
}

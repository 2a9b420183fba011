//! The service over a database, with accounts, security devices and phones.

use std::path::Path;
use std::sync::Arc;

use countersign_crypto::{Provider, Secret, SoftwareKey};
use countersign_pki::{self as pki, Identity};
use countersign_server::{DataDir, open_service};
use countersign_service::{Actor, PhoneActor, Service, SignerToEnrol};
use countersign_store::{BOUND_ACCOUNTS_MAX, StoreError};

use super::seed;
use super::slice::{PAYERS, numbered};
use crate::Fallible;
use crate::card_read::make_data_dir;

/// Security devices, each with a phone: more than clients, so that no client waits for another
/// one's device; a device serves so many payers, none of which are neighbours.
const SIGNERS: u64 = PAYERS / BOUND_ACCOUNTS_MAX as u64;

/// The service, and who confirms.
pub(super) struct House {
    pub(super) service: Arc<Service>,
    signers: Vec<Signer>,
}

/// A security device with its phone; some payers share one.
pub(super) struct Signer {
    pub(super) serial: String,
    pub(super) phone: PhoneActor,
    key: SoftwareKey,
}

impl House {
    /// Makes a data directory, the accounts and the devices; in SQLite, or in the PostgreSQL
    /// database with this URL.
    pub(super) async fn new(path: &Path, database: Option<&str>) -> Fallible<Arc<Self>> {
        let passphrase = Secret::copied_from(b"a bench protects nothing");
        make_data_dir(path, &passphrase).await?;
        let data = DataDir::open(path)?;
        let (service, _keys) = open_service(&data, &passphrase, database, &[]).await?;
        seed::accounts(&service).await?;
        let mut signers = Vec::new();
        let provider = countersign_crypto::aws_lc::provider();
        for number in 0..SIGNERS {
            let accounts = (number..PAYERS).step_by(usize::try_from(SIGNERS)?);
            let accounts = accounts.map(|account| numbered("acc", account)).collect();
            signers.push(Signer::enrol(&service, &provider, number, accounts).await?);
        }
        Ok(Arc::new(Self { service, signers }))
    }

    /// Whose device confirms what this account pays.
    pub(super) fn signer_of(&self, account: u64) -> &Signer {
        &self.signers[usize::try_from(account % SIGNERS).unwrap_or_default()]
    }

    /// The ledger's own check: every balance is the sum of its entries, and all sum to zero.
    pub(super) async fn check(&self) -> Fallible<()> {
        let check = |tx: &mut countersign_store::Tx<'_>| tx.ledger_check();
        let findings: Result<_, StoreError> =
            self.service.store().read("bench_ledger", check).await;
        match findings?.first() {
            None => Ok(()),
            Some(finding) => Err(format!("the ledger is wrong: {finding:?}").into()),
        }
    }
}

impl Signer {
    async fn enrol(
        service: &Service,
        provider: &Provider,
        number: u64,
        accounts: Vec<String>,
    ) -> Fallible<Self> {
        let serial = format!("SD-BENCH-{number}");
        let key = provider.signature.generate(&mut *service.rng())?;
        let identity = Identity::new(pki::Role::SecurityDevice, &serial)?;
        let request = pki::request(provider, &identity, &*key.key, &mut *service.rng())?;
        let new = SignerToEnrol { label: serial.clone(), accounts: accounts.clone() };
        service.enrol_signer(&Actor::Console, &request, &new).await?;
        let allowed = service.allow_phone(&Actor::Console, &serial, &accounts).await?;
        let code = Secret::copied_from(allowed.code.expose().as_bytes());
        let enrolled = service.enrol_phone("bench", &code, None).await?;
        let phone = service.authorise_phone(&enrolled.token).await?;
        Ok(Self { serial, phone, key })
    }

    /// What the device answers to the bytes of a confirmation request.
    pub(super) fn sign(&self, service: &Service, request: &[u8]) -> Fallible<Vec<u8>> {
        Ok(countersign_payment::sign(&*self.key.key, &mut *service.rng(), request)?)
    }
}

//! What flows with money run on: a server of its own, its office, a shop, and accounts.

use std::sync::Arc;

use countersign_device::Api;
use countersign_server::{DataDir, ServeOptions, Server, open_service_with_vault};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};

use super::{blocking, make_data_dir};
use crate::failure::Failure;
use crate::init;

pub(super) const PAYER: &str = "DEMOPAYER001";
pub(super) const SHOP: &str = "DEMOSHOP0001";
/// Where money comes from and goes to.
const OUTSIDE: &str = "DEMOOUTSIDE1";
pub(super) const CURRENCY: &str = "CNY";
/// What the payer has at first.
const FUNDS: &str = "100.00";

/// A server with accounts.
pub(super) struct Bank {
    pub(super) dir: tempfile::TempDir,
    pub(super) server: Server,
    /// The root of its HTTPS certificate, PEM.
    pub(super) ca: String,
    /// The CA's root, DER.
    pub(super) root: Vec<u8>,
    /// The operator.
    pub(super) office: Arc<Api>,
    /// Who initiates payments: a shop's web server or its till.
    pub(super) shop: Arc<Api>,
}

impl Bank {
    pub(super) async fn open(server_id: &str) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let path = dir.path().join("data");
        let admin = make_data_dir(&path, server_id, &passphrase).await?;
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
        accounts(&office).await?;
        Ok(Self { dir, server, ca, root, office, shop })
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

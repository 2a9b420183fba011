//! Whoever alters the server's database puts no key, and nobody's KDH, into a terminal: each
//! defect is refused under its own name, which the audit has, and the terminal stays as it was.

use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use countersign_net::SystemRng;
use countersign_server::{DataDir, ambient, open_service_with_vault};
use countersign_service::{Hierarchy, Service};
use libtest_mimic::Failed;
use rusqlite::Connection;
use serde_json::{Value, json};
use tr34::aws_lc::AwsLc;
use tr34::{CrlTerms, Issuer, Party, Role, Validity, parse_request, request};

use crate::Alone;
use crate::host::{Database, Host};
use crate::shop::Shop;

pub(crate) const TRIALS: [(&str, Alone); 2] = [
    ("an_altered_database_gives_terminals_nothing", an_altered_database_gives_terminals_nothing),
    ("a_key_that_nothing_may_carry_is_not_sent", a_key_that_nothing_may_carry_is_not_sent),
];

/// The server's keys in the intruder's hands: all of them, for the worst case.
struct Stolen {
    hierarchy: std::sync::Arc<Hierarchy>,
    service: std::sync::Arc<Service>,
}

impl Stolen {
    fn of(host: &Host) -> Result<Self, Failed> {
        let passphrase = std::fs::read(host.data().join("passphrase"))?;
        let passphrase = Secret::copied_from(passphrase.trim_ascii_end());
        let data = DataDir::open(&host.data())?;
        let runtime = tokio::runtime::Runtime::new()?;
        let service = runtime.block_on(open_service_with_vault(&data, &passphrase, None))?;
        let hierarchy = runtime.block_on(service.hierarchy())?;
        Ok(Self { hierarchy, service })
    }

    fn now() -> UnixTime {
        ambient().clock.now()
    }

    /// A list under the CA_KDH's own signature.
    fn crl(&self, number: u64, next_update: UnixTime) -> Result<Vec<u8>, Failed> {
        let label = format!("ca-kdh.{}", self.hierarchy.ca_kdh_id);
        let key = self.service.vault()?.rsa_open(&label)?;
        let this_update = Self::now().minus(Duration::from_secs(1800));
        let terms = CrlTerms { number, this_update, next_update };
        let prepared = Issuer::new(self.hierarchy.ca_kdh.clone())?.prepare_crl(terms, &[])?;
        Ok(prepared.sign(&AwsLc, &*key)?)
    }

    /// A terminal's certificate, of the same root, for the KDH's own key.
    fn krd_certificate(&self) -> Result<Vec<u8>, Failed> {
        let Hierarchy { kdh_key, ca_krd, ca_krd_key, .. } = &*self.hierarchy;
        let der = request(&**kdh_key, &Party::new(Role::Krd, "POS-9")?)?;
        let requested = parse_request(&AwsLc, &der)?;
        let validity = Validity::from(Self::now(), Duration::from_secs(86_400));
        let issuer = Issuer::new(ca_krd.clone())?;
        let mut rng = SystemRng::default();
        let prepared = issuer.prepare(&AwsLc, &requested, Role::Krd, &mut rng, validity)?;
        Ok(prepared.sign(&AwsLc, &**ca_krd_key)?)
    }
}

/// The server is stopped, somebody alters its database, and it runs again.
fn alter(
    shop: &mut Shop,
    change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), Failed> {
    shop.server.take().ok_or("no server")?.kill()?;
    let database = Connection::open(shop.host.data().join("store.sqlite"))?;
    change(&database)?;
    drop(database);
    shop.server = Some(shop.host.serve(&shop.ports)?);
    Ok(())
}

/// The update is refused, under `told` to people; the audit has the check under the incident, and
/// the keys are those from before.
fn refused(shop: &Shop, serial: &str, told: &str, action: &str, check: &str) -> Result<(), Failed> {
    let before = shop.held(serial)?;
    let error = shop.refused(serial, 1, told)?["error"].to_string();
    let at = error.find("inc_").ok_or_else(|| format!("no incident: {error}"))?;
    let end = error[at..].find(['"', ')']).unwrap_or_default();
    let incident = &error[at..at + end];
    let words = ["--json", "audit", "show", incident, "--data", "data"];
    let rows = shop.host.run(&words)?.ok()?.json()?;
    let row = |row: &Value| row["action"] == action && row["check"] == check;
    assert!(rows["items"].as_array().is_some_and(|rows| rows.iter().any(row)), "{check}: {rows}");
    assert_eq!(shop.held(serial)?, before, "{check}: the keys stay");
    Ok(())
}

fn an_altered_database_gives_terminals_nothing() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let mut shop = Shop::on(host, &["--bits", "2048"])?;
    shop.tmk()?;
    for serial in ["POS-1", "POS-2"] {
        shop.enroll(serial)?;
        shop.assign("tmk", "0", serial)?;
        shop.updated(serial)?;
    }
    shop.enroll("POS-3")?; // not bound yet
    let stolen = Stolen::of(&shop.host)?;
    let (day, now) = (Duration::from_secs(86_400), Stolen::now());
    let lists = "UPDATE rki_crls SET der = ?1 WHERE issuer_id = ?2";
    let ca_kdh = stolen.hierarchy.ca_kdh_id.clone();

    // A revocation list that has run out; then one that is good, and after it the one before.
    let good = stolen.hierarchy.crl.clone();
    let expired = stolen.crl(7, now.minus(Duration::from_secs(60)))?;
    let newer = stolen.crl(8, now.plus(day))?;
    let put = |der: &[u8]| {
        let values = (der.to_vec(), ca_kdh.clone());
        move |database: &Connection| database.execute(lists, values).map(drop)
    };
    alter(&mut shop, put(&expired))?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    refused(&shop, "POS-1", "token-refused", "injection.fail", "crl-expired")?;
    assert_eq!(shop.injection(&injection)?.2, json!("crl-expired"));
    refused(&shop, "POS-3", "token-refused", "terminal.bind", "crl-expired")?;
    alter(&mut shop, put(&newer))?;
    shop.updated("POS-3")?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    shop.updated("POS-1")?;
    assert_eq!(shop.injection(&injection)?.0, "installed");
    alter(&mut shop, put(&good))?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    refused(&shop, "POS-1", "crl-behind", "token.request", "crl-behind")?;
    assert_eq!(shop.injection(&injection)?.0, "assigned", "and it waits");
    alter(&mut shop, put(&newer))?;
    shop.updated("POS-1")?;

    // Another terminal's certificate: the token is for that one.
    let exchange = "UPDATE krd_certificates SET der = (SELECT other.der FROM krd_certificates other
        JOIN devices d ON d.id = other.device_id WHERE d.serial = ?1)
        WHERE device_id = (SELECT id FROM devices WHERE serial = ?2)";
    let own = "UPDATE krd_certificates SET der = ?1
        WHERE device_id = (SELECT id FROM devices WHERE serial = 'POS-1')";
    let mut kept = Vec::new();
    alter(&mut shop, |database| {
        let of = "SELECT k.der FROM krd_certificates k JOIN devices d ON d.id = k.device_id
            WHERE d.serial = 'POS-1'";
        kept = database.query_row(of, (), |row| row.get(0))?;
        database.execute(exchange, ("POS-2", "POS-1")).map(drop)
    })?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    refused(&shop, "POS-1", "token-refused", "injection.fail", "token-recipient")?;
    assert_eq!(shop.injection(&injection)?.2, json!("token-recipient"));
    alter(&mut shop, |database| database.execute(own, (kept,)).map(drop))?;

    // A terminal's certificate in the place of the KDH's: the root is the same, the CA is not.
    let (krd, kdh) = (stolen.krd_certificate()?, stolen.hierarchy.kdh_id.clone());
    let authority = "UPDATE rki_authorities SET der = ?1 WHERE id = ?2";
    let proper = stolen.hierarchy.kdh.raw().to_vec();
    shop.enroll("POS-4")?;
    alter(&mut shop, |database| database.execute(authority, (krd, &kdh)).map(drop))?;
    refused(&shop, "POS-4", "certificate-issuer", "terminal.bind", "certificate-issuer")?;
    alter(&mut shop, |database| database.execute(authority, (proper, &kdh)).map(drop))?;
    shop.updated("POS-4")?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    shop.updated("POS-1")?;
    assert_eq!(shop.injection(&injection)?.0, "installed", "all is as it was");
    shop.audit_holds()
}

/// An AES-128 key is stronger than RSA-2048, which would carry it.
fn a_key_that_nothing_may_carry_is_not_sent() -> Result<(), Failed> {
    let mut shop = Shop::new(&Database::Sqlite)?;
    shop.tmk()?;
    let code = shop.code("POS-1")?;
    shop.try_enroll_with("POS-1", "POS-1", &code, &["--bits", "2048"], &[])?.ok()?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    assert_eq!(shop.updated("POS-1")?["keys"], json!([]));
    let (state, _, check) = shop.injection(&injection)?;
    assert_eq!((state.as_str(), check), ("failed", json!("wrapping-key-weaker")));
    let page = shop.done(&["inject", "list"])?;
    let incident = page["items"][0]["incident"].as_str().ok_or("no incident")?.to_owned();
    let words = ["--json", "audit", "show", &incident, "--data", "data"];
    let rows = shop.host.run(&words)?.ok()?.json()?;
    assert_eq!(rows["items"][0]["check"], "wrapping-key-weaker", "{rows}");
    assert_eq!(shop.held("POS-1")?, []);
    shop.audit_holds()
}

//! Terminals in the field while the hierarchy above them changes: a CA is rolled over, a KDH is
//! revoked (E2, E5, E8).

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, wait_for};
use crate::shop::Shop;

/// What is said of a terminal at the server.
fn terminal(shop: &Shop, serial: &str) -> Result<Value, Failed> {
    shop.done(&["terminal", "show", serial])
}

/// The members of a role, the newest first: id and state.
fn members(shop: &Shop, role: &str) -> Result<Vec<(String, String)>, Failed> {
    let status = shop.done(&["rki", "status"])?;
    let all = status["authorities"].as_array().ok_or("no authorities")?.iter();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let of_role = all.filter(|one| one["role"] == role);
    Ok(of_role.map(|one| (text(one, "id"), text(one, "state"))).collect())
}

fn states(shop: &Shop, role: &str) -> Result<Vec<String>, Failed> {
    Ok(members(shop, role)?.into_iter().map(|(_, state)| state).collect())
}

/// A key comes to the terminal, which is or is not bound anew on the way.
fn key_comes(shop: &Shop, serial: &str, bound: bool) -> Result<(), Failed> {
    let injection = shop.assign("tmk", "0", serial)?;
    let told = shop.updated(serial)?;
    assert_eq!((&told["bound"], told["keys"].as_array().map(Vec::len)), (&json!(bound), Some(1)));
    let held = shop.held(serial)?;
    let installed = ("installed".to_owned(), held[0].2.clone(), Value::Null);
    assert_eq!(shop.injection(&injection)?, installed, "{serial}");
    Ok(())
}

fn krd(shop: &Shop, serial: &str) -> Result<Value, Failed> {
    let status = shop.host.run(&["--json", "device", "pos", "status", "--device", serial])?;
    Ok(status.ok()?.json()?["krdCertificate"].clone())
}

/// Neither CA's roll-over stops a terminal that is in the field, in whatever state it is found.
pub(crate) fn terminals_outlive_a_roll_over_of_each_ca(database: &Database) -> Result<(), Failed> {
    let mut shop = Shop::new(database)?;
    shop.tmk()?;
    shop.enroll("POS-1")?;
    key_comes(&shop, "POS-1", true)?;
    let code = shop.code("POS-2")?;
    shop.try_enroll("POS-2", "POS-2", &code)?.ok()?; // not bound yet

    shop.gated(&["rki", "roll", "ca-kdh"])?;
    assert_eq!(states(&shop, "ca-kdh")?, ["active", "retiring"]);
    assert_eq!(states(&shop, "kdh")?, ["active", "retiring"], "with a KDH of its own");
    key_comes(&shop, "POS-1", false)?; // from the KDH that it is bound to
    key_comes(&shop, "POS-2", true)?; // it pinned the older CA, and takes the newer one's KDH
    shop.enroll("POS-3")?;
    key_comes(&shop, "POS-3", true)?;

    let begun = shop.gated(&["rki", "rebind", "begin"])?;
    assert_eq!((&begun["state"], &begun["open"]), (&json!("open"), &json!(1)), "{begun}");
    key_comes(&shop, "POS-1", true)?;
    let newest = members(&shop, "kdh")?.swap_remove(0).0;
    for serial in ["POS-1", "POS-2", "POS-3"] {
        assert_eq!(terminal(&shop, serial)?["boundKdh"], json!(newest), "{serial}");
    }
    wait_for("the retirement of what nobody needs", || {
        let retired = |role| Ok::<_, Failed>(states(&shop, role)? == ["active", "retired"]);
        Ok((retired("kdh")? && retired("ca-kdh")?).then_some(()))
    })?;
    key_comes(&shop, "POS-1", false)?;

    // The other CA: what it certified before holds; who enrols again comes under the new one.
    shop.gated(&["rki", "roll", "ca-krd"])?;
    assert_eq!(states(&shop, "ca-krd")?, ["active", "retiring"]);
    let (before, kept) = (krd(&shop, "POS-1")?, shop.held("POS-1")?);
    key_comes(&shop, "POS-2", false)?;
    shop.try_enroll("POS-2", "POS-2", &code)?.ok()?; // its answer had been lost, and comes again
    key_comes(&shop, "POS-2", false)?;
    shop.enroll("POS-4")?;
    key_comes(&shop, "POS-4", true)?;
    let code = shop.done(&["terminal", "code", "POS-1"])?;
    let code = code["enrolmentCode"].as_str().ok_or("no code")?;
    shop.try_enroll("POS-1", "POS-1", code)?.ok()?;
    assert_ne!(krd(&shop, "POS-1")?, before, "a certificate of the new CA");
    assert_eq!(shop.held("POS-1")?, kept, "its keys stay");
    key_comes(&shop, "POS-1", false)?;
    assert_eq!(states(&shop, "ca-krd")?, ["active", "retiring"], "others are still under it");
    shop.audit_holds()
}

/// A KDH is revoked: its terminals get nothing until a campaign binds them to another, at the word
/// of the CA that certified them.
pub(crate) fn a_revoked_kdhs_terminals_come_back(database: &Database) -> Result<(), Failed> {
    let mut shop = Shop::new(database)?;
    shop.tmk()?;
    shop.enroll("POS-1")?;
    key_comes(&shop, "POS-1", true)?;
    let kept = shop.held("POS-1")?;
    let revoked = members(&shop, "kdh")?.swap_remove(0).0;
    shop.gated(&["rki", "revoke", &revoked, "--reason", "token lost"])?;
    let injection = shop.assign("tmk", "0", "POS-1")?;
    shop.refused("POS-1", 1, "kdh-revoked")?;
    let early = shop.run("ann", &["rki", "rebind", "begin"])?;
    assert_eq!(early.json()?["error"]["check"], "rki-no-kdh", "nothing to bind to");

    shop.gated(&["rki", "roll", "kdh"])?;
    assert_eq!(states(&shop, "kdh")?, ["active", "revoked"]);
    shop.refused("POS-1", 1, "kdh-revoked")?;
    assert_eq!(shop.held("POS-1")?, kept, "the keys in use stay");
    assert_eq!(shop.injection(&injection)?.0, "assigned", "and what waits, waits");
    let begun = shop.gated(&["rki", "rebind", "begin"])?;
    assert_eq!((&begun["state"], &begun["open"]), (&json!("open"), &json!(1)), "{begun}");
    let told = shop.updated("POS-1")?;
    assert_eq!((&told["bound"], told["keys"].as_array().map(Vec::len)), (&json!(true), Some(1)));
    assert_eq!(shop.injection(&injection)?.0, "installed");
    let newest = members(&shop, "kdh")?.swap_remove(0).0;
    assert_eq!(terminal(&shop, "POS-1")?["boundKdh"], json!(newest));
    let campaign = shop.done(&["rki", "rebind", "list"])?["items"][0].clone();
    assert_eq!((&campaign["state"], &campaign["done"]), (&json!("done"), &json!(1)), "{campaign}");
    key_comes(&shop, "POS-1", false)?;
    shop.audit_holds()
}

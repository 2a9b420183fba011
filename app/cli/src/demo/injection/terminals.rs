//! Enrolment, binding, and what becomes of a terminal whose KDH is revoked (E1, E2, E5, E8).

use tokio::time::Instant;

use countersign_device::{Pos, PosError, Updated};
use serde_json::{Value, json};

use super::stage::Stage;
use super::{MASTER_SLOT, OTHER_SERIAL};
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// E1: a key pair in the terminal, a request that proves it, a certificate; the code is good once.
pub(super) async fn enrolled(
    flow: &mut Flow,
    stage: &Stage,
    serial: &'static str,
) -> Result<Pos, Failure> {
    let started = Instant::now();
    let code = stage.allow(serial).await?;
    let pos = stage.enroll(serial, &code, serial).await?;
    let took = started.elapsed();
    let again = stage.enroll(serial, &code, "another-device").await.err().map(|error| error.check);
    let state = stage.terminal(serial).await?["state"].clone();
    let checked = expect("the terminal's state", &state, &json!("enrolled"))
        .and_then(|()| expect("another device's try", &again.as_deref(), &Some("enrolment-code")));
    let what = "a terminal of the list enrols by its one-time code: its key pair is certified";
    flow.step("E1", what, checked, took);
    Ok(pos)
}

/// E2: the terminal takes the KDH's certificate from the server, and that only of its `CA_KDH`.
pub(super) async fn bound(flow: &mut Flow, stage: &Stage, pos: &mut Pos) -> Result<(), Failure> {
    let started = Instant::now();
    let updated = stage.update(pos).await;
    let took = started.elapsed();
    let kdh = active_kdh(stage).await?;
    let status = pos.status()?;
    let checked = match &updated.failure {
        Some(failure) => Err(failure.to_string()),
        None => expect("bound", &updated.bound, &true)
            .and_then(|()| expect("its KDH", &status.kdh, &Some(kdh))),
    };
    let what = "bound: the terminal has the KDH's certificate, checked against the pinned CA_KDH";
    flow.step("E2", what, checked, took);
    Ok(())
}

/// E8, E5 and E2: a KDH is replaced, and one terminal bound to the new one at the old one's word. A
/// terminal that stayed behind gets nothing once the old one is revoked, until a campaign brings it
/// back at the word of the `Sub_CA_KRD`.
pub(super) async fn rebound_and_revoked(
    flow: &mut Flow,
    stage: &Stage,
    pos: &mut Pos,
    master: &str,
) -> Result<(), Failure> {
    let code = stage.allow(OTHER_SERIAL).await?;
    let mut other = stage.enroll(OTHER_SERIAL, &code, OTHER_SERIAL).await?;
    stage.update(&mut other).await;
    let started = Instant::now();
    let old = active_authority(stage).await?;
    stage.office.agreed("/v1/rki/roll", json!({ "role": "kdh" })).await?;
    let campaign = stage.office.agreed("/v1/rebinds", json!({})).await?;
    let updated = stage.update(pos).await;
    let checked = bound_to_the_active_kdh(stage, pos, &updated).await?;
    let what = "another KDH is in use: the terminal is bound to it, by the old one's signature";
    flow.step("E8", what, checked, started.elapsed());
    let path = format!("/v1/rebinds/{}/cancel", campaign["id"].as_str().unwrap_or_default());
    stage.office.done(&path, json!({})).await?;

    let started = Instant::now();
    let id = old["id"].as_str().unwrap_or_default();
    let path = format!("/v1/rki/authorities/{id}/revoke");
    stage.office.agreed(&path, json!({ "reason": "the demo revokes it" })).await?;
    let assigned = json!({ "keyId": master, "slot": MASTER_SLOT, "terminals": [OTHER_SERIAL] });
    stage.office.agreed("/v1/injections", assigned).await?;
    let refused = stage.update(&mut other).await;
    let check = refused.failure.as_ref().map(PosError::check);
    let keys = other.keys()?.len();
    let checked = expect("the refusal", &check, &Some("kdh-revoked"))
        .and_then(|()| expect("keys in the terminal", &keys, &0));
    let what = "a KDH that is revoked signs nothing more: a terminal bound to it is refused";
    flow.step("E5", what, checked, started.elapsed());

    let started = Instant::now();
    stage.office.agreed("/v1/rebinds", json!({})).await?;
    let updated = stage.update(&mut other).await;
    let checked = bound_to_the_active_kdh(stage, &other, &updated).await?;
    let keys = other.keys()?.len();
    let checked = checked.and_then(|()| expect("keys in the terminal", &keys, &1));
    let what = "a campaign brings it back: Sub_CA_KRD names the new KDH, and its key comes";
    flow.step("E2", what, checked, started.elapsed());
    Ok(())
}

/// Whether all went well and the terminal is bound to the KDH in use.
async fn bound_to_the_active_kdh(
    stage: &Stage,
    pos: &Pos,
    updated: &Updated,
) -> Result<Result<(), String>, Failure> {
    let kdh = active_kdh(stage).await?;
    Ok(match &updated.failure {
        Some(failure) => Err(failure.to_string()),
        None => expect("its KDH", &pos.status()?.kdh, &Some(kdh)),
    })
}

async fn active_authority(stage: &Stage) -> Result<Value, Failure> {
    let rki = stage.office.see("/v1/rki").await?;
    let authorities = rki["authorities"].as_array().cloned().unwrap_or_default();
    let active = |one: &Value| one["role"] == "kdh" && one["state"] == "active";
    let found = authorities.into_iter().find(active);
    found.ok_or_else(|| Failure::check("rki", "no KDH is in use"))
}

/// Issuer and serial number, as a terminal shows them.
async fn active_kdh(stage: &Stage) -> Result<String, Failure> {
    let kdh = active_authority(stage).await?;
    let pem = kdh["certificate"].as_str().unwrap_or_default();
    let bad = |detail: String| Failure::check("rki", detail);
    let der = pem::parse(pem).map_err(|error| bad(error.to_string()))?;
    let certificate = tr34::Certificate::parse(der.contents());
    Ok(certificate.map_err(|error| bad(error.to_string()))?.identity().to_string())
}

//! Where keys come from, how they get into the terminal, how they are replaced (E3–E8).

use tokio::time::Instant;

use countersign_crypto::Secret;
use countersign_device::{KeyState, Pos, SlotKey};
use countersign_server::ambient;
use serde_json::{Value, json};
use tr31::aws_lc::AwsLc;
use tr31::{Header, Kbpk, Leniency, Padding};

use super::office::post;
use super::stage::Stage;
use super::{MASTER_SLOT, SERIAL, ZONE_SLOT};
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// A key that came from elsewhere, and the check value that it must have.
pub(super) struct Zone {
    id: String,
    kcv: String,
}

/// E4, made here: a master key that is another one in each terminal; who asks may not agree.
pub(super) async fn generated(flow: &mut Flow, stage: &Stage) -> Result<String, Failure> {
    let started = Instant::now();
    let office = &stage.office;
    let body = json!({
        "name": "master", "scope": "per-terminal", "usage": "K0", "algorithm": "A", "mode": "B",
        "length": 16,
    });
    let asked = office.done("/v1/keys", body.clone()).await?;
    let own = office.agree_with_oneself(&asked).await.err().map(|error| error.check);
    let early = office.repeat("/v1/keys", body.clone(), &asked).await.err();
    let early = early.map(|error| error.check);
    office.agree(&asked).await?;
    let key = office.repeat("/v1/keys", body, &asked).await?;
    let checked = expect("agreeing with oneself", &own.as_deref(), &Some("approval-own-request"))
        .and_then(|()| expect("before anybody agreed", &early.is_some(), &true))
        .and_then(|()| expect("the key's state", &key["state"], &json!("active")));
    let what = "a key is made at the server, after another operator agreed";
    flow.step("E4", what, checked, started.elapsed());
    Ok(text(&key, "id"))
}

/// E4, from elsewhere: a TR-31 block under a key that two operators enter in two components.
pub(super) async fn taken_in(flow: &mut Flow, stage: &Stage) -> Result<Zone, Failure> {
    let office = &stage.office;
    let sender = Sender::new()?;
    let started = Instant::now();
    let body = json!({ "name": "from-the-bank", "algorithm": "A", "length": 32, "components": 2 });
    let kek = office.agreed("/v1/keks", body).await?;
    let path = format!("/v1/keks/{}/components", text(&kek, "id"));
    let component = |number: usize| {
        let component = &sender.components[number];
        let hex = data_encoding::HEXUPPER.encode(component.expose());
        Ok::<_, Failure>(json!({
            "number": number + 1, "component": hex, "kcv": kcv(component)?,
        }))
    };
    post(&office.keeper, &path, component(0)?).await?;
    let alone = post(&office.keeper, &path, component(1)?).await.err().map(|error| error.check);
    let complete = post(&office.custodian, &path, component(1)?).await?;
    let body = json!({
        "name": "zone", "kekId": kek["id"], "scope": "shared", "block": sender.block,
    });
    let key = office.agreed("/v1/keys/import", body).await?;
    let checked = expect("one operator with both", &alone.as_deref(), &Some("component-operator"))
        .and_then(|()| expect("the key from two parts", &complete["state"], &json!("active")))
        .and_then(|()| expect("the key's check value", &key["kcv"], &json!(sender.kcv)));
    let what = "a key comes in a TR-31 block; two operators enter the key above it in components";
    flow.step("E4", what, checked, started.elapsed());
    Ok(Zone { id: text(&key, "id"), kcv: sender.kcv })
}

/// E3, E5, E6: a fresh random number, a token for it, all checks, a key in its place.
pub(super) async fn requested_and_installed(
    flow: &mut Flow,
    stage: &Stage,
    pos: &mut Pos,
    master: &str,
) -> Result<(), Failure> {
    let injection = assign(stage, master, MASTER_SLOT).await?;
    let started = Instant::now();
    let updated = stage.update(pos).await;
    let took = started.elapsed();
    let record = stage.office.see(&format!("/v1/injections/{injection}")).await?;
    let failed = updated.failure.map(|failure| failure.to_string());
    let outstanding = pos.status()?.outstanding;
    let checked = expect("what went wrong", &failed, &None)
        .and_then(|()| expect("a request after the key", &outstanding, &true));
    let what = "the terminal asks with a random number (RT_KRD), then with another for more";
    flow.step("E3", what, checked, took);
    let tries = record["attempts"].clone();
    let checked = expect("tokens that were signed", &tries, &json!(1));
    flow.step("E5", "the server signs one token for it (KT_KDH), with its CRL", checked, took);
    let held = in_slot(pos, MASTER_SLOT, KeyState::Active)?;
    let seen = held.map(|key| (key.usage, key.algorithm, key.mode, key.exportability));
    let wanted = Some(("K0".to_owned(), 'A', 'B', 'N'));
    let checked = expect("the key in its place", &seen, &wanted);
    let what = "CRL, KDH, signature, random number, key and header are right: it is installed";
    flow.step("E6", what, checked, took);
    Ok(())
}

/// E7: what the terminal reports is the check value of the key that the bank sent.
pub(super) async fn value_is_right(
    flow: &mut Flow,
    stage: &Stage,
    pos: &mut Pos,
    zone: &Zone,
) -> Result<(), Failure> {
    let injection = assign(stage, &zone.id, ZONE_SLOT).await?;
    let before = state(stage, &injection).await?;
    let started = Instant::now();
    let updated = stage.update(pos).await;
    let took = started.elapsed();
    let after = state(stage, &injection).await?;
    let told = updated.keys.first().map(|key| data_encoding::HEXUPPER.encode(&key.kcv));
    let checked = expect("before", &before, &json!("assigned"))
        .and_then(|()| expect("the terminal's check value", &told, &Some(zone.kcv.clone())))
        .and_then(|()| expect("after", &after, &json!("installed")));
    let what = "the terminal reports the check value; only then the key counts as installed";
    flow.step("E7", what, checked, took);
    Ok(())
}

/// E8: another key in the same place; the one before stays until the new one is confirmed.
pub(super) async fn updated(
    flow: &mut Flow,
    stage: &Stage,
    pos: &mut Pos,
    master: &str,
) -> Result<(), Failure> {
    let first = in_slot(pos, MASTER_SLOT, KeyState::Active)?.map(|key| key.kcv);
    let injection = assign(stage, master, MASTER_SLOT).await?;
    let meanwhile = in_slot(pos, MASTER_SLOT, KeyState::Active)?.map(|key| key.kcv);
    let started = Instant::now();
    let updated = stage.update(pos).await;
    let took = started.elapsed();
    let second = in_slot(pos, MASTER_SLOT, KeyState::Active)?;
    let replaced = second.as_ref().map(|key| Some(&key.kcv) != first.as_ref());
    let brought_by = second.map(|key| key.injection);
    let failed = updated.failure.map(|failure| failure.to_string());
    let checked = expect("what went wrong", &failed, &None)
        .and_then(|()| expect("the key in the meantime", &meanwhile, &first))
        .and_then(|()| expect("another key since", &replaced, &Some(true)))
        .and_then(|()| expect("who brought it", &brought_by, &Some(injection)));
    flow.step("E8", "one button replaces a key in the field", checked, took);
    Ok(())
}

async fn assign(stage: &Stage, key: &str, slot: u8) -> Result<String, Failure> {
    let body = json!({ "keyId": key, "slot": slot, "terminals": [SERIAL] });
    let assigned = stage.office.agreed("/v1/injections", body).await?;
    Ok(text(&assigned["items"][0], "id"))
}

async fn state(stage: &Stage, injection: &str) -> Result<Value, Failure> {
    let record = stage.office.see(&format!("/v1/injections/{injection}")).await?;
    Ok(record["state"].clone())
}

fn in_slot(pos: &Pos, slot: u8, state: KeyState) -> Result<Option<SlotKey>, Failure> {
    let mut keys = pos.keys()?.into_iter();
    Ok(keys.find(|key| key.slot == slot && key.state == state))
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn kcv(key: &Secret) -> Result<String, Failure> {
    Ok(tr31::kcv::kcv(&AwsLc, b'A', key).map_err(refused)?.to_string())
}

fn refused(error: tr31::Tr31Error) -> Failure {
    Failure::check(error.check(), error.to_string())
}

/// The bank that sends a key: the components of its key-encrypting key, and the block.
struct Sender {
    components: [Secret; 2],
    block: String,
    kcv: String,
}

impl Sender {
    fn new() -> Result<Self, Failure> {
        let mut rng = (ambient().rng)();
        let mut random = |length| {
            Secret::try_filled(length, |bytes| {
                rng.fill_bytes(bytes);
                Ok::<_, Failure>(())
            })
        };
        let components = [random(32)?, random(32)?];
        let key = random(16)?;
        let mut whole = components[0].expose().to_vec();
        whole.iter_mut().zip(components[1].expose()).for_each(|(byte, other)| *byte ^= other);
        let kek = Secret::new(whole);
        let header = Header::parse(b"D0016P0AE00E0000", Leniency::NONE).map_err(refused)?;
        let padding = Padding::Random(&mut *rng);
        let block = tr31::wrap(&AwsLc, Kbpk::Clear(&kek), &header, &key, padding, Leniency::NONE);
        Ok(Self { components, block: block.map_err(refused)?, kcv: kcv(&key)? })
    }
}

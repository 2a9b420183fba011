//! What a manager is, its cards, and the sleeves on its pairing list.

use clap::Args;
use countersign_device::{HeldCards, ManagerCardSettings, ManagerDir, PairedSleeve, card_source};
use countersign_server::ambient;
use serde_json::{Value, json};

use super::Which;
use crate::device::wallet::time;
use crate::failure::Failure;
use crate::output::Output;

/// One of the sleeves.
#[derive(Args)]
pub(crate) struct OneSleeve {
    #[command(flatten)]
    which: Which,
    /// Its serial number.
    sleeve: String,
}

/// What the manager is.
pub(super) fn show(which: &Which) -> Result<Output, Failure> {
    let dir = ManagerDir::open(&which.manager)?;
    let number = dir.certificate_number()?;
    let settings = dir.settings();
    let all = dir.sleeves();
    let sleeves = all.iter().filter(|sleeve| sleeve.revoked_at.is_none()).count();
    let place = |place: &Option<String>| place.clone().unwrap_or_else(|| "-".to_owned());
    let password = if dir.has_password() { "set" } else { "not set: nobody can log in" };
    let text = format!(
        "Manager     {}\nCertificate {number}\nSleeves     {sleeves}\nCards       {}\n\
         Password    {password}\nListens     {}\nServer      {}\nDirectory   {}",
        dir.serial(),
        settings.cards.len(),
        place(&settings.listen),
        place(&settings.gateway),
        dir.path().display()
    );
    let json = json!({
        "serial": dir.serial(),
        "certificateNumber": number.to_string(),
        "sleeves": sleeves,
        "cards": settings.cards.len(),
        "hasPassword": dir.has_password(),
        "listen": settings.listen,
        "gateway": settings.gateway,
        "manager": dir.path(),
    });
    Ok(Output::new(json, text))
}

/// The cards of the settings, and whether each is in its reader.
pub(super) fn cards(which: &Which) -> Result<Output, Failure> {
    let dir = ManagerDir::open(&which.manager)?;
    let settings = dir.settings();
    let mut items = Vec::new();
    let mut lines = Vec::new();
    for card in &settings.cards {
        let present = is_present(card)?;
        let state = match (&card.reader, present) {
            (None, _) => "in no reader".to_owned(),
            (Some(reader), true) => format!("in {reader}"),
            (Some(reader), false) => format!("not in {reader}"),
        };
        let decoy = if card.decoy { ", a decoy" } else { "" };
        lines.push(format!("{}  {}  ({state}{decoy})", card.id, card.label));
        items.push(json!({
            "id": card.id, "label": card.label, "reader": card.reader, "present": present,
            "decoy": card.decoy, "leaseSeconds": card.lease_seconds,
        }));
    }
    if lines.is_empty() {
        let path = dir.path().join("manager.toml");
        lines.push(format!("There are no cards: name them in {}", path.display()));
    }
    Ok(Output::new(json!({ "cards": items }), lines.join("\n")))
}

/// Whether a card lies in its reader; one without a reader is nowhere while nothing serves.
fn is_present(card: &ManagerCardSettings) -> Result<bool, Failure> {
    if card.reader.is_none() {
        return Ok(false);
    }
    let only = countersign_device::ManagerSettings {
        cards: vec![card.clone()],
        ..countersign_device::ManagerSettings::default()
    };
    Ok(card_source(&only, HeldCards::default())?.is_present(card))
}

/// The sleeves on the pairing list.
pub(super) fn sleeves(which: &Which) -> Result<Output, Failure> {
    let sleeves = ManagerDir::open(&which.manager)?.sleeves();
    // What is revoked is on the list only so that it does not come back.
    let (revoked, paired): (Vec<_>, Vec<_>) =
        sleeves.iter().partition(|sleeve| sleeve.revoked_at.is_some());
    let values = |sleeves: &[&PairedSleeve]| sleeves.iter().map(|one| value(one)).collect();
    let (paired_json, revoked_json): (Value, Value) = (values(&paired), values(&revoked));
    let json = json!({ "sleeves": paired_json, "revoked": revoked_json });
    let lines: Vec<_> = sleeves.iter().map(line).collect();
    let text = if lines.is_empty() { "Paired with nobody.".to_owned() } else { lines.join("\n") };
    Ok(Output::new(json, text))
}

fn value(sleeve: &PairedSleeve) -> Value {
    json!({
        "serial": sleeve.id,
        "certificateNumber": sleeve.number.to_string(),
        "suite": sleeve.suite.name(),
        "pairedAt": time(sleeve.paired_at),
        "revokedAt": sleeve.revoked_at.map(time),
    })
}

fn line(sleeve: &PairedSleeve) -> String {
    let (id, number, since) = (&sleeve.id, &sleeve.number, time(sleeve.paired_at));
    let revoked = sleeve.revoked_at.map(|at| format!(", revoked {}", time(at)));
    format!("{id}  certificate {number}, since {since}{}", revoked.unwrap_or_default())
}

impl OneSleeve {
    /// Ends its pairing.
    pub(super) fn revoke(self) -> Result<Output, Failure> {
        let (mut dir, ambient) = (ManagerDir::open(&self.which.manager)?, ambient());
        dir.revoke(&self.sleeve, ambient.clock.now(), &mut *(ambient.rng)())?;
        let text = format!(
            "The sleeve {} is paired no more, and cannot pair again until it is forgotten.",
            self.sleeve
        );
        Ok(Output::new(json!({ "revoked": self.sleeve }), text))
    }

    /// Takes it off the list.
    pub(super) fn forget(self) -> Result<Output, Failure> {
        let (mut dir, ambient) = (ManagerDir::open(&self.which.manager)?, ambient());
        if !dir.forget(&self.sleeve, ambient.clock.now(), &mut *(ambient.rng)())? {
            let detail = format!("the sleeve {} is not on the list", self.sleeve);
            return Err(Failure::check("sleeve-unknown", detail));
        }
        let text = format!("The manager does not know the sleeve {} any more.", self.sleeve);
        Ok(Output::new(json!({ "forgotten": self.sleeve }), text))
    }
}

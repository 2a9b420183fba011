//! What a security device is.

use countersign_device::KeyDir;
use data_encoding::BASE64;
use serde_json::json;

use crate::device::which_device::{Card, Kept, WhichDevice};
use crate::failure::Failure;
use crate::output::Output;

/// Shows a directory, a card or a token.
pub(super) fn show(which: &WhichDevice) -> Result<Output, Failure> {
    if let Some(token) = which.token() {
        return token.show();
    }
    match which.keep()? {
        Kept::Directory(dir) => directory(&dir),
        Kept::Card(card, _) => of_card(card),
    }
}

/// Shows a card: what anyone may read of it.
fn of_card(mut card: Card) -> Result<Output, Failure> {
    let (tries, certificate) = (card.tries()?, card.certificate()?);
    let info = card.info();
    let number = certificate.as_deref().map(countersign_pki::number).transpose();
    let number = number.map_err(|error| Failure::check(error.check(), error.to_string()))?;
    let number = number.map(|number| number.to_string());
    let text = format!(
        "Card        {} ({}) at {}\nSuite       {}\nCertificate {}\nPIN         at the {}\n\
         PIN tries   {}\nPUK tries   {}",
        info.serial,
        info.method.name(),
        info.server_id,
        info.suite,
        number.as_deref().unwrap_or("-"),
        info.pin_entry.name(),
        tries.pin,
        tries.puk,
    );
    let json = json!({
        "serial": info.serial,
        "method": info.method.name(),
        "suite": info.suite.name(),
        "serverId": info.server_id,
        "certificateNumber": number,
        "certificate": certificate.map(|der| BASE64.encode(&der)),
        "pinEntry": info.pin_entry.name(),
        "pinTriesLeft": tries.pin,
        "pukTriesLeft": tries.puk,
    });
    Ok(Output::new(json, text))
}

/// Shows a directory.
pub(super) fn directory(dir: &KeyDir) -> Result<Output, Failure> {
    let settings = dir.settings();
    let number = dir.certificate_number()?;
    let (tries, puk) = (dir.tries_left()?, dir.puk_tries_left()?);
    let text = format!(
        "Security device {} ({}) at {}\nSuite       {}\nCertificate {}\nPIN tries   {tries}\n\
         PUK tries   {}\nDirectory   {}",
        settings.serial,
        settings.method.name(),
        settings.server_id,
        settings.suite,
        number.as_deref().unwrap_or("-"),
        puk.map_or_else(|| "- (there is no PUK)".to_owned(), |left| left.to_string()),
        dir.path().display(),
    );
    let json = json!({
        "serial": settings.serial,
        "method": settings.method.name(),
        "suite": settings.suite.name(),
        "serverId": settings.server_id,
        "certificateNumber": number,
        "pinTriesLeft": tries,
        "pukTriesLeft": puk,
        "key": dir.path(),
    });
    Ok(Output::new(json, text))
}

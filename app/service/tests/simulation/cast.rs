//! Opens accounts and enrols who plays in a world, through the service as an operator does.

use countersign_crypto::{CryptoRng, Provider, Secret};
use countersign_pki::{Identity, Role, request};
use countersign_service::{Actor, NewAccount, Service, ServiceError, SessionKey, SignerToEnrol};
use countersign_store::AccountKind;

use crate::house::House;
use crate::judge::decimal;
use crate::signing::{Blank, SigningCard};
use crate::world::{CURRENCY, Key};

/// The id of a new account.
pub(crate) async fn open_account(
    service: &Service,
    number: &str,
    kind: AccountKind,
    overdraft: Option<i64>,
) -> Result<String, ServiceError> {
    let new = NewAccount {
        number: number.to_owned(),
        holder: format!("Holder of {number}"),
        currency: CURRENCY.to_owned(),
        kind,
        overdraft: overdraft.map(|minor| decimal(minor, CURRENCY)),
    };
    Ok(service.open_account(&Actor::Console, &new).await?.id)
}

fn signer(serial: &str, account: &str) -> SignerToEnrol {
    SignerToEnrol { label: format!("Key {serial}"), accounts: vec![account.to_owned()] }
}

/// A security device with a key of its own: its id, the key, the certificate.
pub(crate) async fn enrol_pki(
    service: &Service,
    provider: &Provider,
    serial: &str,
    account: &str,
    mut rng: impl CryptoRng,
) -> Result<(String, Key, Option<Vec<u8>>), ServiceError> {
    let element = provider.signature.generate(&mut rng).unwrap().key;
    let identity = Identity::new(Role::SecurityDevice, serial).unwrap();
    let csr = request(provider, &identity, &*element, &mut rng).unwrap();
    let new = signer(serial, account);
    let enrolled = service.enrol_signer(&Actor::Console, &csr, &new).await?;
    let certificate = enrolled.enrolled.certificate;
    Ok((enrolled.record.signer.device_id, Key::Pki(element), Some(certificate)))
}

/// A security device for dynamic passwords: its id, and the key.
pub(crate) async fn enrol_ocra(
    service: &Service,
    serial: &str,
    account: &str,
) -> Result<(String, Key, Option<Vec<u8>>), ServiceError> {
    let new = signer(serial, account);
    let enrolled = service.enrol_ocra(&Actor::Console, serial, &new).await?;
    let key = Key::Ocra(enrolled.key.expose().to_vec());
    Ok((enrolled.record.signer.device_id, key, None))
}

/// A card that signs at terminals, of the payer with this account and its number: its id, and what
/// it is.
pub(crate) async fn enrol_card(
    service: &Service,
    house: &House,
    serial: &str,
    (account, number): (&str, &str),
) -> Result<(String, SigningCard), ServiceError> {
    let (provider, mut rng) = (house.provider(), house.rng());
    let element = provider.signature.generate(&mut rng).unwrap().key;
    let identity = Identity::new(Role::SecurityDevice, serial).unwrap();
    let csr = request(provider, &identity, &*element, &mut rng).unwrap();
    let enrolled = service.enrol_joint(&Actor::Console, &csr, &signer(serial, account)).await?;
    let blank = Blank {
        provider: provider.clone(),
        serial,
        account: number,
        certificate: enrolled.enrolled.certificate,
        element,
        server_point: house.authority().server_encryption.key.public_key().to_vec(),
        shared: enrolled.key,
    };
    Ok((enrolled.record.signer.device_id, SigningCard::new(blank, house.now())))
}

/// A phone: its id, and its token.
pub(crate) async fn enrol_phone(
    service: &Service,
    source: &str,
    account: &str,
    session: Option<SessionKey>,
) -> Result<(String, String), ServiceError> {
    let accounts = [account.to_owned()];
    let allowed = service.allow_phone(&Actor::Console, "A phone", &accounts).await?;
    let code = Secret::copied_from(allowed.code.expose().as_bytes());
    let enrolled = service.enrol_phone(source, &code, session).await?;
    Ok((enrolled.record.phone.id, enrolled.token.to_string()))
}

//! The security devices that a phone offers its payer to confirm a payment with (D3).

use countersign_crypto::UnixTime;
use countersign_store::{CertificateState, SignMethod, SignerRecord};

use super::phones::PhoneActor;
use crate::{Service, ServiceError};

/// A security device that may confirm a payment, as a phone of its payer offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneDevice {
    /// Its serial number.
    pub serial: String,
    /// Its label.
    pub label: String,
    /// How it answers.
    pub method: SignMethod,
}

/// Whether answers of a security device are taken at `now`.
fn is_usable(signer: &SignerRecord, now: UnixTime) -> bool {
    if signer.device.blocked(now).is_some() {
        return false;
    }
    match signer.signer.method {
        SignMethod::Ocra => signer.signer.ocra_key.is_some(),
        SignMethod::Pki => signer.device.certificate.as_ref().is_some_and(|live| {
            live.state == CertificateState::Issued && live.der.is_some() && live.not_after > now
        }),
        // A signing card answers at the terminal that it was put into, and not over a phone.
        SignMethod::Joint => false,
    }
}

impl Service {
    /// The security devices with which a payment of one of the phone's accounts may be confirmed
    /// now, by their serial numbers.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for a payment of another account.
    pub async fn phone_devices(
        &self,
        phone: &PhoneActor,
        payment_id: &str,
    ) -> Result<Vec<PhoneDevice>, ServiceError> {
        let (phone, id, now) = (phone.clone(), payment_id.to_owned(), self.now());
        let found = self
            .store
            .read("phone_devices", move |tx| {
                let missing = || ServiceError::NotFound { what: "payment" };
                let payment = tx.payment(&id)?.ok_or_else(missing)?.payment;
                if !phone.serves(&payment.payer_account) {
                    return Err(missing());
                }
                Ok(tx.signers_of_account(&payment.payer_account)?)
            })
            .await?;
        let usable = found.into_iter().filter(|signer| is_usable(signer, now));
        let mut devices: Vec<PhoneDevice> = usable
            .map(|signer| PhoneDevice {
                serial: signer.device.device.serial,
                label: signer.signer.label,
                method: signer.signer.method,
            })
            .collect();
        devices.sort_unstable_by(|one, other| one.serial.cmp(&other.serial));
        Ok(devices)
    }
}

//! What the payer does: takes a push, reads a device's display, types a PIN.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Secret;
use countersign_device::{
    AnswerTaken, DeviceAnswer, Holder, InProcessCard, KeyDir, KeyError, OfflineAnswer, Phone,
    PhoneError, SecurityDevice,
};
use countersign_payment::Line;
use countersign_server::ambient;

use super::PIN;
use super::stage::{Device, Face};
use crate::demo::blocking;
use crate::failure::Failure;

/// The payer at the phone: types the PIN of a card that has no keypad.
struct Typing;

impl Holder for Typing {
    fn asked(&mut self, _display: &[Line]) -> Result<Option<Secret>, KeyError> {
        Ok(Some(Secret::copied_from(PIN.as_bytes())))
    }
}

/// Holds the phone to a card: what the card showed, and what it answers (D3, D4).
pub(super) async fn confirm(
    device: &Arc<Device>,
    request: Vec<u8>,
) -> Result<(Vec<Line>, DeviceAnswer), Failure> {
    let answer = try_confirm(device, request, |_| ()).await??;
    Ok((device.face.lines(), answer))
}

/// The same, after something was done to the card.
pub(super) async fn try_confirm(
    device: &Arc<Device>,
    request: Vec<u8>,
    done: impl FnOnce(&mut InProcessCard<Face>) + Send + 'static,
) -> Result<Result<DeviceAnswer, KeyError>, Failure> {
    let device = device.clone();
    blocking(move || {
        let mut card = device.card.lock().unwrap_or_else(PoisonError::into_inner);
        done(card.link_mut());
        let mut rng = (ambient().rng)();
        Ok(card.confirm(&request, &mut Typing, &mut *rng))
    })
    .await
}

/// Shows a QR code to a device that nothing else reaches, and types its PIN: the digits.
pub(super) async fn answer_offline(
    device: &Arc<Mutex<KeyDir>>,
    text: String,
) -> Result<Result<OfflineAnswer, KeyError>, Failure> {
    let device = device.clone();
    blocking(move || {
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(device.answer_offline(&text, ambient().clock.now(), &mut Typing))
    })
    .await
}

/// The bytes to be signed, as the phone has them from the server.
pub(super) async fn request(phone: &Arc<Phone>, id: &str) -> Result<Vec<u8>, Failure> {
    let (phone, id) = (phone.clone(), id.to_owned());
    blocking(move || Ok(phone.payment(&id)?.to_confirm()?)).await
}

/// Waits for the next push; its id says nothing.
pub(super) async fn next_push(phone: &Arc<Phone>) -> Result<String, Failure> {
    let phone = phone.clone();
    blocking(move || {
        let mut told = String::new();
        phone.watch(|id| {
            id.clone_into(&mut told);
            ControlFlow::Break(())
        })?;
        Ok(told)
    })
    .await
}

/// Sends an answer (step 104).
pub(super) async fn send(
    phone: &Arc<Phone>,
    id: &str,
    answer: &DeviceAnswer,
) -> Result<Result<AnswerTaken, PhoneError>, Failure> {
    let (phone, id, answer) = (phone.clone(), id.to_owned(), answer.clone());
    blocking(move || Ok(phone.answer(&id, &answer))).await
}

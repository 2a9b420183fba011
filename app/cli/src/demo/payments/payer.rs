//! What the payer does: takes a push, reads a device's display, types a PIN.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Secret;
use countersign_device::{
    AnswerTaken, DeviceAnswer, Holder, KeyDir, KeyError, Phone, PhoneError, SecurityDevice,
};
use countersign_payment::Line;
use countersign_server::ambient;

use super::PIN;
use crate::demo::blocking;
use crate::failure::Failure;

/// Reads the display, notes what it says, and agrees.
#[derive(Default)]
struct Reading(Vec<Line>);

impl Holder for Reading {
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError> {
        display.clone_into(&mut self.0);
        Ok(Some(Secret::copied_from(PIN.as_bytes())))
    }
}

/// Holds the phone to a device: what the device showed, and what it answers (D3, D4).
pub(super) async fn confirm(
    device: &Arc<Mutex<KeyDir>>,
    request: Vec<u8>,
) -> Result<(Vec<Line>, DeviceAnswer), Failure> {
    let device = device.clone();
    blocking(move || {
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = Reading::default();
        let mut rng = (ambient().rng)();
        let answer = device.confirm(&request, &mut reading, &mut *rng)?;
        Ok((reading.0, answer))
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

//! Ours: phones answer with the signatures of their security devices, and the service verifies,
//! executes and stores.

use std::sync::Arc;

use countersign_service::PaymentAnswer;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::seed;
use super::slice::{Slice, numbered, payer, steady_rate};
use super::stage::House;
use crate::Fallible;

/// Makes the slice's payments and signs them, then measures how many the clients, all at the same
/// time, have confirmed in a second.
pub(super) async fn run(house: &Arc<House>, slice: Slice) -> Fallible<f64> {
    let requests = seed::payments(&house.service, slice).await?;
    let mut signatures = Vec::with_capacity(requests.len());
    for (number, request) in slice.numbers().zip(&requests) {
        signatures.push(house.signer_of(payer(number)).sign(&house.service, request)?);
    }
    let signatures = Arc::new(signatures);
    let start = Arc::new(Barrier::new(usize::try_from(slice.clients)?));
    let (mut clients, zero) = (JoinSet::new(), Instant::now());
    for client in 0..slice.clients {
        let (house, signatures, start) = (house.clone(), signatures.clone(), start.clone());
        clients.spawn(async move {
            start.wait().await;
            let mut done = Vec::new();
            for number in slice.of_client(client) {
                let at = usize::try_from(number - slice.first)?;
                house.answer(number, signatures[at].clone()).await?;
                done.push(zero.elapsed().as_secs_f64());
            }
            Fallible::Ok(done)
        });
    }
    let mut ends = Vec::new();
    while let Some(client) = clients.join_next().await {
        ends.push(client??);
    }
    let executed = seed::executed(&house.service, slice).await?;
    if executed != slice.payments() {
        return Err(format!("{executed} of {} payments are executed", slice.payments()).into());
    }
    Ok(steady_rate(&ends).ok_or("the slice is too short for its clients")?)
}

impl House {
    /// The payer's phone sends what the payer's security device signed.
    async fn answer(&self, number: u64, signature: Vec<u8>) -> Fallible<()> {
        let signer = self.signer_of(payer(number));
        let answer = PaymentAnswer::Pki { device_serial: signer.serial.clone(), signature };
        let id = numbered("pay", number);
        let answered = self.service.answer_payment(&signer.phone, &id, answer, None).await?;
        let state = answered.record.payment.state;
        if state.name() == "executed" { Ok(()) } else { Err(format!("{id}: {state:?}").into()) }
    }
}

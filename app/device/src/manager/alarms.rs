//! The outbox of alarms (A5): what lies in the logins' files goes to the server until it is taken,
//! and no answer to a sleeve waits for that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_wallet::relay::{Alarm, AlarmId, Serial};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::logins::WaitingAlarm;
use super::{ManagerError, Shared, on_disk};
use crate::RaisedAlarm;

/// How often the files are looked at although nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Raises what waits, at the start, after every login, and now and then. Runs until it is dropped.
pub(super) async fn raise(shared: Arc<Shared>, to: mpsc::Sender<RaisedAlarm>) {
    let mut under_way = BTreeSet::new();
    let mut answers: JoinSet<(WaitingAlarm, bool)> = JoinSet::new();
    loop {
        let looking = shared.clone();
        let waiting = on_disk(move || Ok(looking.logins.waiting())).await;
        for alarm in waiting.unwrap_or_default() {
            if under_way.contains(&alarm.attempt.id) {
                continue;
            }
            let Some(message) = message(&alarm) else { continue };
            let (taken, answer) = oneshot::channel();
            if to.send(RaisedAlarm { alarm: message, taken }).await.is_err() {
                return; // the way to the server is closed for good; the files stay
            }
            under_way.insert(alarm.attempt.id.clone());
            answers.spawn(async move { (alarm, answer.await.is_ok()) });
        }
        tokio::select! {
            () = shared.alarms.notified() => {}
            () = sleep(LOOK_EVERY) => {}
            Some(answer) = answers.join_next() => {
                let Ok((alarm, taken)) = answer else { continue };
                let id = alarm.attempt.id.clone();
                if taken && let Err(error) = settle(&shared, alarm).await {
                    // It is raised again under the same id, which the server knows.
                    tracing::debug!(%error, "that the server has taken a message is not on disk");
                }
                under_way.remove(&id);
            }
        }
    }
}

async fn settle(shared: &Arc<Shared>, alarm: WaitingAlarm) -> Result<(), ManagerError> {
    let shared = shared.clone();
    on_disk(move || shared.logins.taken(&alarm)).await
}

fn message(waiting: &WaitingAlarm) -> Option<Alarm> {
    Some(Alarm {
        id: AlarmId::new(&waiting.attempt.id)?,
        sleeve: Serial::new(&waiting.sleeve)?,
        session: waiting.attempt.session,
        at: waiting.attempt.at,
    })
}

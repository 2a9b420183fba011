//! Sleeve and manager get to know each other (A1).

use countersign_device::{ManagerHappening, ManagerOrder, Shown};
use tokio::time::Instant;

use super::stage::Stage;
use super::{MANAGER, SLEEVE};
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// How long the owner leaves the window open, in seconds.
const WINDOW: u32 = 60;

/// Nobody has opened a window.
pub(super) async fn closed(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    let started = Instant::now();
    let paired = stage.sleeve().pair(&stage.relayed(), Some(MANAGER), |_| true).await;
    let refused = paired.map(|_| ()).map_err(|error| error.check().to_owned());
    let told = failed(stage).await?;
    let kept = stage.sleeve().dir().managers()?.len();
    let wanted = Err("pairing-closed".to_owned());
    let checked = expect("what the sleeve is told", &refused, &wanted)
        .and_then(|()| expect("what the manager tells", &told, &wanted))
        .and_then(|()| expect("the sleeve's list", &kept, &0));
    let what = "no pairing without a window that the owner opened";
    flow.step("A1", what, checked, started.elapsed());
    Ok(())
}

/// How the manager says that a pairing ended.
async fn failed(stage: &mut Stage) -> Result<Result<(), String>, Failure> {
    let ended = |told: &ManagerHappening| match told {
        ManagerHappening::PairingFailed { check, .. } => Some(Err(check.clone())),
        ManagerHappening::Paired { .. } => Some(Ok(())),
        _ => None,
    };
    stage.home.tells(ended).await
}

/// The window is open, but the user says no to the number that the sleeve shows.
pub(super) async fn declined(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    stage.home.order(ManagerOrder::OpenWindow { seconds: WINDOW }).await?;
    let started = Instant::now();
    let paired = stage.sleeve().pair(&stage.relayed(), Some(MANAGER), |_| false).await;
    let refused = paired.map(|_| ()).map_err(|error| error.check().to_owned());
    let told = failed(stage).await?;
    let wanted = Err("pairing-refused".to_owned());
    let kept = stage.sleeve().dir().managers()?.len();
    let checked = expect("the sleeve's word", &refused, &wanted)
        .and_then(|()| expect("what the manager tells", &told, &wanted))
        .and_then(|()| expect("the sleeve's list", &kept, &0));
    let what = "the user says no to the id that the sleeve shows: both lists are as before";
    flow.step("A1", what, checked, started.elapsed());
    Ok(())
}

/// The window is open, and the user says yes.
pub(super) async fn paired(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    stage.home.order(ManagerOrder::OpenWindow { seconds: WINDOW }).await?;
    let started = Instant::now();
    // The user compares the id with the label on the manager.
    let is_right = |shown: Shown| shown.manager == MANAGER;
    let paired = stage.sleeve().pair(&stage.relayed(), Some(MANAGER), is_right).await?;
    let sleeve = stage
        .home
        .tells(|told| match told {
            ManagerHappening::Paired { sleeve, .. } => Some(sleeve.clone()),
            _ => None,
        })
        .await?;
    let kept = stage.sleeve().dir().managers()?;
    let kept: Vec<_> = kept.iter().map(|one| (one.id.as_str(), one.pending)).collect();
    let checked = expect("the manager", &paired.id.as_str(), &MANAGER)
        .and_then(|()| expect("the sleeve's list", &kept, &vec![(MANAGER, false)]))
        .and_then(|()| expect("whom the manager has in its list", &sleeve.as_str(), &SLEEVE));
    let what = "paired through the server, after the user compared the manager's certified id";
    flow.step("A1", what, checked, started.elapsed());
    Ok(())
}

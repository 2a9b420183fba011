//! Whether the time of a login tells the alarm password from the login password (A5).

use countersign_channel::Mode;
use countersign_device::{RaisedAlarm, Sleeve};
use countersign_wallet::message::LoginOutcome;
use rand_core::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::home::{ALARM, Cards, Home, MANAGER, PASSWORD, WRONG, typed};
use super::percentile::largest_t;
use super::stage::Stage;
use crate::Fallible;
use crate::measure::{median, micros};
use crate::report::Row;

/// What dudect takes for a difference that is there.
const THRESHOLD: f64 = 4.5;
/// The kinds, and whether they let in.
const KINDS: [(&str, &str, bool); 3] =
    [("normal", PASSWORD, true), ("alarm", ALARM, true), ("wrong", WRONG, false)];
/// Rounds of three whose times are thrown away.
const WARM_UP: usize = 5;

/// From the request to its answer, as the sleeve and whoever is on the wire sees it.
async fn login(home: &Home, sleeve: &Sleeve, password: &str, lets_in: bool) -> Fallible<f64> {
    let (session, _happenings) = sleeve.connect(&home.way(), Mode::A2, Some(MANAGER)).await?;
    let password = typed(password);
    let begun = Instant::now();
    let result = session.login(password).await?;
    let took = begun.elapsed();
    session.close().await;
    let wanted = if lets_in { LoginOutcome::Ok } else { LoginOutcome::Refused };
    if result.outcome != wanted {
        return Err(format!("the login ended as {result:?}").into());
    }
    Ok(micros(took))
}

/// Says to each alarm that it is on record, and counts them.
async fn on_record(mut alarms: mpsc::Receiver<RaisedAlarm>) -> usize {
    let mut count = 0;
    while let Some(raised) = alarms.recv().await {
        count += 1;
        let _nobody_waits = raised.taken.send(());
    }
    count
}

/// Measures and compares.
pub(super) async fn rows(logins: usize) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let stage = Stage::set_up(&dir.path().join("data"), [127, 0, 0, 1].into(), 64).await?;
    let (raised, alarms) = mpsc::channel(64);
    let counted = tokio::spawn(on_record(alarms));
    let mut home = Home::open(&stage, dir.path(), Cards::default(), None, Some(raised)).await?;
    let sleeve = home.paired(&stage, dir.path(), "SLV-LOGIN").await?;
    let mut rng = testkit::rng::seeded(1);
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..WARM_UP + logins {
        let mut order = [0, 1, 2];
        for at in (1..order.len()).rev() {
            order.swap(at, rng.next_u64() as usize % (at + 1));
        }
        for kind in order {
            let (_, password, lets_in) = KINDS[kind];
            let took = login(&home, &sleeve, password, lets_in).await?;
            if round >= WARM_UP {
                times[kind].push(took);
            }
        }
        home.forget();
    }
    drop(sleeve);
    home.stop().await?;
    stage.server.stop().await;
    let raised = counted.await?;
    if raised != WARM_UP + logins {
        return Err(format!("{raised} alarms of {} were raised", WARM_UP + logins).into());
    }
    let normal = median(&times[0]);
    let mut rows = vec![Row::new("a normal login", normal, "us")];
    for (kind, times) in KINDS.iter().zip(&times).skip(1) {
        let name = format!("a login with the {} password", kind.0);
        rows.push(Row::new(name, median(times), "us").against("a normal login", normal));
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let name = format!("largest |t|, {} and {} logins", KINDS[one].0, KINDS[other].0);
        let t = Row::new(name, largest_t(&times[one], &times[other]), "");
        let t = t.against("dudect's threshold", THRESHOLD);
        // Only of the first two must nobody tell one from the other.
        rows.push(if other == 1 { t.at_most(1.0) } else { t });
    }
    Ok(rows)
}

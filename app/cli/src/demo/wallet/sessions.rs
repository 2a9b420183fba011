//! Connecting, logging in, sleeping, and what ends a session (A2 to A7, A9).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_channel::{Heartbeat, Mode, Policy, Protection};
use countersign_device::{
    ManagerHappening, ManagerOrder, SleeveError, SleeveHappening, SleeveSession, Way,
};
use countersign_wallet::message::LoginOutcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::stage::{PATIENCE, Stage, typed};
use super::{ALARM, CARD, DECOY, MANAGER, PASSWORD, SLEEVE};
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// A6: a probe every *t1*, an answer within *t2*.
const SLEEP: Heartbeat =
    Heartbeat { every: Duration::from_millis(200), within: Duration::from_millis(400) };

/// A2: by the binding factor, through the server.
pub(super) async fn by_factor(
    flow: &mut Flow,
    stage: &mut Stage,
) -> Result<SleeveSession, Failure> {
    let started = Instant::now();
    let (session, _told) = stage.sleeve().connect(&stage.relayed(), Mode::A2, None).await?;
    let took = started.elapsed();
    let checked = expect("the manager", &session.manager(), &MANAGER)
        .and_then(|()| expect("the handshake", &session.mode(), &Mode::A2))
        .and_then(|()| {
            let protection = session.policy().protection;
            expect("the protection", &protection, &Protection::EncryptAndMac)
        });
    let what = "connected by the binding factor, which never travels; through the server";
    flow.step("A2", what, checked, took);
    Ok(session)
}

/// A4: a wrong password, then the right one. A9: how long the way is.
pub(super) async fn logged_in(
    flow: &mut Flow,
    stage: &mut Stage,
    session: &SleeveSession,
) -> Result<(), Failure> {
    let started = Instant::now();
    let listed = session.list().await.map(|_| ()).map_err(|error| error.check().to_owned());
    let wrong = session.login(typed("wrong horse")).await?.outcome;
    let right = session.login(typed(PASSWORD)).await?.outcome;
    let took = started.elapsed();
    stage.home.session().await?;
    let cards = names(session).await?;
    let checked = expect("the cards before a login", &listed.is_err(), &true)
        .and_then(|()| expect("a wrong password", &wrong, &LoginOutcome::Refused))
        .and_then(|()| expect("the right one", &right, &LoginOutcome::Ok))
        .and_then(|()| expect("the cards", &cards, &vec![CARD.to_owned()]));
    let what =
        "no card before the login; a wrong password is refused, the right one lists the cards";
    flow.step("A4", what, checked, took);
    let round = session.probe().await?;
    let checked = expect("there and back within a second", &(round.as_secs() < 1), &true);
    flow.step("A9", "a probe to the manager and back, sealed, through the server", checked, round);
    Ok(())
}

async fn names(session: &SleeveSession) -> Result<Vec<String>, Failure> {
    let cards = session.list().await?;
    Ok(cards.iter().map(|card| card.card.as_str().to_owned()).collect())
}

/// A3, A7, A9: by the pairing list, directly; a password does not go where it could be read.
pub(super) async fn by_list(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    let way = Way::Direct(stage.home.at.to_string());
    let started = Instant::now();
    let (session, _told) = stage.sleeve().connect(&way, Mode::A3, Some(MANAGER)).await?;
    let took = started.elapsed();
    let right = session.login(typed(PASSWORD)).await?.outcome;
    stage.home.session().await?;
    session.close().await;
    let checked = expect("the handshake", &session.mode(), &Mode::A3)
        .and_then(|()| expect("the login", &right, &LoginOutcome::Ok));
    let what = "connected by the pairing list, directly; both confirmed the key to each other";
    flow.step("A3", what, checked, took);

    let mac = Policy { protection: Protection::Mac, ..Policy::default() };
    let started = Instant::now();
    stage.speak(mac);
    let (session, _told) = stage.sleeve().connect(&way, Mode::A3, Some(MANAGER)).await?;
    let readable = session.login(typed(PASSWORD)).await.map(|_| ());
    let readable = readable.map_err(|error| error.check().to_owned());
    session.close().await;
    stage.speak(Policy::default());
    let checked = expect("the protection", &session.policy().protection, &Protection::Mac)
        .and_then(|()| expect("a login there", &readable, &Err("login-readable".to_owned())));
    let what = "a channel that only authenticates: no password goes over it";
    flow.step("A7", what, checked, started.elapsed());
    Ok(())
}

/// A6: asleep, it is probed; a peer that falls silent is given up on both sides.
pub(super) async fn asleep(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    let line = Line::to(stage.home.at).await?;
    let way = Way::Direct(line.at.to_string());
    let (session, mut told) = stage.sleeve().connect(&way, Mode::A2, Some(MANAGER)).await?;
    session.login(typed(PASSWORD)).await?;
    let number = stage.home.session().await?;
    let started = Instant::now();
    session.sleep(SLEEP).await?;
    sleep(SLEEP.every * 5).await;
    let lives = session.ended().is_none();
    line.is_dead.store(true, Ordering::SeqCst);
    let lost = timeout(PATIENCE, async {
        while let Some(event) = told.recv().await {
            if let SleeveHappening::Lost { check, .. } = event {
                return Some(check);
            }
        }
        None
    });
    let lost = lost.await.ok().flatten();
    let ended = stage.home.ended(number).await?;
    let wanted = "heartbeat".to_owned();
    let checked = expect("alive after five probes", &lives, &true)
        .and_then(|()| expect("what the sleeve says of a dead line", &lost, &Some(wanted.clone())))
        .and_then(|()| expect("what the manager says of it", &ended, &wanted));
    let what = "asleep, it probes every 0.2 s; on a line that goes dead both sides give up and \
                wipe their keys";
    flow.step("A6", what, checked, started.elapsed());
    Ok(())
}

/// A5: the alarm password.
pub(super) async fn alarm(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    let before = stage.alarms().await?.len();
    let first_shown = stage.home.shown.len();
    let way = stage.relayed();
    let (session, _told) = stage.sleeve().connect(&way, Mode::A2, None).await?;
    let started = Instant::now();
    let outcome = session.login(typed(ALARM)).await?.outcome;
    let took = started.elapsed();
    let number = stage.home.session().await?;
    let cards = names(&session).await?;
    let refused = session.take(CARD).await.map(|_| ()).map_err(|error| error.check().to_owned());
    let alarms = timeout(PATIENCE, async {
        loop {
            let alarms = stage.alarms().await?;
            if alarms.len() > before {
                return Ok::<_, Failure>(alarms);
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let alarms = alarms.await.map_err(|_| Failure::check("demo", "no alarm came"))??;
    session.close().await;
    stage.home.ended(number).await?;
    let shown = stage.home.shown[first_shown..].join(" ").to_lowercase();
    let sleeve = alarms[0]["sleeve"].as_str().unwrap_or_default();
    let checked = expect("the login", &outcome, &LoginOutcome::Ok)
        .and_then(|()| expect("the cards", &cards, &vec![DECOY.to_owned()]))
        .and_then(|()| expect("the usual card", &refused.is_err(), &true))
        .and_then(|()| expect("whose alarm the server has", &sleeve, &SLEEVE))
        .and_then(|()| expect("a word of it on the screen", &shown.contains("alarm"), &false));
    let what = "the alarm password logs in as the other does; only the decoy is there, the server \
                has the alarm, the screen says nothing";
    flow.step("A5", what, checked, took);
    Ok(())
}

/// The sleeve is lost: the owner revokes it.
pub(super) async fn revoked(flow: &mut Flow, stage: &mut Stage) -> Result<(), Failure> {
    let way = stage.relayed();
    let (session, _told) = stage.sleeve().connect(&way, Mode::A2, None).await?;
    session.login(typed(PASSWORD)).await?;
    session.take(CARD).await?;
    let started = Instant::now();
    stage.home.order(ManagerOrder::Revoke { sleeve: SLEEVE.to_owned() }).await?;
    stage.home.tells(|told| matches!(told, ManagerHappening::Revoked { .. }).then_some(())).await?;
    let select = session.transmit(&[0x00, 0xa4, 0x04, 0x00]).await;
    let ended = select.map(|_| ()).map_err(|error: SleeveError| error.is_environment());
    let again = stage.sleeve().connect(&way, Mode::A2, None).await;
    let again = again.map(|_| ()).map_err(|error| error.check().to_owned());
    let checked = expect("the open session", &ended.is_err(), &true)
        .and_then(|()| expect("coming again", &again, &Err("certificate-revoked".to_owned())));
    let what = "a lost sleeve is revoked: its session ends at once, and it does not get in again";
    flow.step("A4", what, checked, started.elapsed());
    Ok(())
}

/// A line that can go dead without anybody being told: what is sent into it is gone.
struct Line {
    at: SocketAddr,
    is_dead: Arc<AtomicBool>,
}

impl Line {
    async fn to(manager: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::environment("line", error.to_string());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        let is_dead = Arc::new(AtomicBool::new(false));
        let dead = is_dead.clone();
        tokio::spawn(async move {
            let Ok((sleeve, _)) = listener.accept().await else { return };
            let Ok(manager) = TcpStream::connect(manager).await else { return };
            let (from_sleeve, to_sleeve) = sleeve.into_split();
            let (from_manager, to_manager) = manager.into_split();
            let there = carry(from_sleeve, to_manager, dead.clone());
            tokio::join!(there, carry(from_manager, to_sleeve, dead));
        });
        Ok(Self { at, is_dead })
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    dead: Arc<AtomicBool>,
) {
    let mut chunk = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let sent = dead.load(Ordering::SeqCst) || to.write_all(&chunk[..read]).await.is_ok();
        if !sent {
            return;
        }
    }
}

//! Sleeves and managers at the gateway, with the device's own link (A9): they meet, and what the
//! server carries is what they said, however it is lost in between.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{AlertCode, Error, Heartbeat, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_crypto::aws_lc;
use countersign_device::{
    Api, DeviceDir, DeviceKind as Kind, Incoming, LinkStatus, Meeting, RaisedAlarm, RelayError,
    RelayLink, enroll_as,
};
use countersign_net::{Connection, Next, SystemClock, SystemRng};
use countersign_service::Actor;
use countersign_store::{DeviceKind, Role};
use countersign_wallet::relay::{
    Alarm, AlarmId, CloseReason, DeviceMessage, RelayMessage, Serial, WINDOW,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stage::{Stage, now};

/// Nothing here takes so long; a test that waits for ever says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

/// The directories of devices that have enrolled over HTTPS.
struct Devices {
    dir: tempfile::TempDir,
    api: Arc<Api>,
}

impl Devices {
    async fn of(stage: &Stage) -> Self {
        let service = stage.server.service();
        let admin = service.add_operator(&Actor::Console, "admin", &[Role::Admin]).await.unwrap();
        let ca = stage.data().certificate_pem("tls/root.pem").unwrap();
        let url = stage.server.url().replace("127.0.0.1", "localhost"); // its certificate's name
        let api = Api::new(&url, &ca, &admin.1.secret).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), api: Arc::new(api) }
    }

    fn path(&self, serial: &str) -> PathBuf {
        self.dir.path().join(serial)
    }

    async fn enrolled(&self, kind: Kind, serial: &str) -> DeviceDir {
        let (path, api, serial) = (self.path(serial), self.api.clone(), serial.to_owned());
        let enroll = move || {
            let (provider, mut rng) = (aws_lc::provider(), SystemRng::default());
            enroll_as(kind, &path, &serial, &api, &provider, now(), &mut rng).unwrap()
        };
        tokio::task::spawn_blocking(enroll).await.unwrap()
    }

    async fn link(&self, kind: Kind, serial: &str, gateway: SocketAddr) -> RelayLink {
        link(&self.enrolled(kind, serial).await, gateway)
    }
}

fn link(dir: &DeviceDir, gateway: SocketAddr) -> RelayLink {
    let clock = Arc::new(SystemClock::default());
    let rng = Arc::new(|| Box::new(SystemRng::default()) as _);
    RelayLink::new(dir, &gateway.to_string(), clock, rng).unwrap()
}

/// A manager that waits to be met.
struct Manager {
    incoming: mpsc::Receiver<Incoming>,
    alarms: mpsc::Sender<RaisedAlarm>,
    status: watch::Receiver<LinkStatus>,
    served: JoinHandle<Result<(), RelayError>>,
}

impl Manager {
    fn start(link: RelayLink) -> Self {
        let (to, incoming) = mpsc::channel(1);
        let (alarms, raised) = mpsc::channel(4);
        let (told, status) = watch::channel(LinkStatus::Connecting);
        let served = tokio::spawn(async move { link.serve(to, raised, told).await });
        Self { incoming, alarms, status, served }
    }

    async fn is(&mut self, wanted: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        soon(self.status.wait_for(|status| wanted(status))).await.unwrap().clone()
    }

    async fn is_registered(&mut self) {
        self.is(|status| *status == LinkStatus::Registered).await;
    }

    async fn meets(&mut self, sleeve: &str) -> Meeting {
        let come = soon(self.incoming.recv()).await.unwrap();
        assert_eq!(come.sleeve, sleeve);
        come.meeting
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// One byte stream each way, and back.
async fn said(from: &mut Meeting, to: &mut Meeting, what: &[u8]) -> Vec<u8> {
    from.write_all(what).await.unwrap();
    from.flush().await.unwrap();
    let mut heard = vec![0; what.len()];
    soon(to.read_exact(&mut heard)).await.unwrap();
    heard
}

/// Reads to the end, and why it ended.
async fn ended(meeting: &mut Meeting) -> CloseReason {
    let mut rest = Vec::new();
    soon(meeting.read_to_end(&mut rest)).await.unwrap();
    meeting.ended().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_meet_and_long_streams_arrive_whole_both_ways_at_once() {
    const LONG: usize = 6 * WINDOW as usize + 17;
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let sleeve = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let absent = sleeve.meet("MGR-1").await.unwrap_err();
    assert!(absent.check() == "manager-absent" && absent.is_lost());
    let manager = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let mut home = manager.meets("SLV-1").await;
    assert_eq!(said(&mut away, &mut home, b"a record").await, b"a record");
    assert_eq!(said(&mut home, &mut away, b"its answer").await, b"its answer");
    assert_eq!(stage.server.service().relay().counts().meetings, 1);

    let long: Vec<u8> = (0..LONG).map(|at| (at * 31 % 251) as u8).collect();
    let [mut ends_away, mut ends_home] = [away, home].map(tokio::io::split);
    let (mut at_home, mut at_away) = (vec![0; LONG], vec![0; LONG]);
    let all = async {
        tokio::try_join!(
            ends_away.1.write_all(&long),
            ends_home.1.write_all(&long),
            ends_home.0.read_exact(&mut at_home),
            ends_away.0.read_exact(&mut at_away),
        )
    };
    soon(all).await.unwrap();
    assert!(at_home == long && at_away == long);

    // What was written before the end still arrives.
    ends_away.1.write_all(b"last words").await.unwrap();
    drop(ends_away);
    let mut rest = Vec::new();
    soon(ends_home.0.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"last words");
}

/// A manager that does not read holds its sleeve back, costs the server one window, and nobody else
/// anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_does_not_read_holds_only_its_peer_back() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let manager = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let first = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let mut pours = first.meet("MGR-1").await.unwrap();
    let mut deaf = manager.meets("SLV-1").await;
    let second = devices.link(Kind::Sleeve, "SLV-2", stage.gateway()).await;
    let mut other = second.meet("MGR-1").await.unwrap();
    let mut heard = manager.meets("SLV-2").await;

    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = written.clone();
    let pouring = tokio::spawn(async move {
        while let Ok(wrote) = pours.write(&[7; 8192]).await {
            counted.fetch_add(wrote, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // One window is under way, one waits with the sleeve: then it is held back. Meanwhile another
    // pair of the same manager is served.
    let full = 2 * WINDOW as usize;
    let most = || written.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..200 {
        assert_eq!(said(&mut other, &mut heard, b"a command").await, b"a command");
        assert_eq!(said(&mut heard, &mut other, b"its answer").await, b"its answer");
        assert!(most() <= full && stage.server.service().relay().queued() <= full);
    }
    let mut all = vec![0; 4 * full];
    soon(deaf.read_exact(&mut all)).await.unwrap();
    assert!(all.iter().all(|byte| *byte == 7), "and it goes on");
    drop(deaf);
    soon(pouring).await.unwrap();
}

/// What happens to all connections that a [`Wire`] has.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// They are cut.
    Cut,
    /// They stay, and carry nothing any more.
    Mute,
}

/// Between a device and the server, by hand.
struct Wire {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
}

impl Wire {
    async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::Cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut faults = faults.clone();
                faults.mark_unchanged(); // only what happens from now on
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(gateway).await.unwrap();
                    tokio::select! {
                        _ended = copy_bidirectional(&mut near, &mut far) => {}
                        _fault = faults.changed() => {
                            while matches!(*faults.borrow_and_update(), Fault::Mute) {
                                if faults.changed().await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { address, fault }
    }

    fn cut(&self) {
        self.fault.send_replace(Fault::Cut);
    }

    fn mute(&self) {
        self.fault.send_replace(Fault::Mute);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_whose_link_is_cut_comes_again_and_is_met_again() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let wire = Wire::to(stage.gateway()).await;
    let manager = devices.link(Kind::Manager, "MGR-1", wire.address).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let sleeve = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let mut home = manager.meets("SLV-1").await;
    wire.cut();
    assert_eq!(ended(&mut away).await, CloseReason::PeerGone);
    assert_eq!(ended(&mut home).await, CloseReason::PeerGone);
    manager.is(|status| matches!(status, LinkStatus::Lost { .. })).await;
    let mut away = soon(sleeve.meet_within("MGR-1", PATIENCE)).await.unwrap();
    let mut home = manager.meets("SLV-1").await;
    assert_eq!(said(&mut away, &mut home, b"again").await, b"again");
}

/// The newer connection of a manager wins: what a router forgot does not keep it out.
#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_a_manager_wins() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let link = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut older = Manager::start(link.clone());
    older.is_registered().await;
    let mut newer = Manager::start(link);
    newer.is_registered().await;
    let lost = older.is(|status| matches!(status, LinkStatus::Lost { .. })).await;
    let LinkStatus::Lost { check, retry_in } = lost else { panic!("{lost:?}") };
    assert_eq!(check, "manager-replaced");
    assert!(retry_in >= Duration::from_secs(60), "they do not throw each other out in turns");
    let sleeve = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let mut home = newer.meets("SLV-1").await;
    assert_eq!(said(&mut away, &mut home, b"hello").await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_busy_says_so_and_a_sleeve_that_comes_again_replaces_itself() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let manager = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let first = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let second = devices.link(Kind::Sleeve, "SLV-2", stage.gateway()).await;
    // The owner takes nobody: one waits, the next is told.
    let mut waits = first.meet("MGR-1").await.unwrap();
    let mut turned_away = second.meet("MGR-1").await.unwrap();
    assert_eq!(ended(&mut turned_away).await, CloseReason::Busy);
    let mut home = manager.meets("SLV-1").await;
    assert_eq!(said(&mut waits, &mut home, b"here").await, b"here");
    let mut again = first.meet("MGR-1").await.unwrap();
    assert_eq!(ended(&mut waits).await, CloseReason::Replaced);
    assert_eq!(ended(&mut home).await, CloseReason::Replaced);
    let mut home = manager.meets("SLV-1").await;
    assert_eq!(said(&mut again, &mut home, b"here again").await, b"here again");
}

/// The server looks every few seconds; a blocked device's next handshake is refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_device_is_sent_away_and_does_not_come_again() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let manager = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let sleeve = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let service = stage.server.service();
    let page = service.devices(DeviceKind::Manager, None, 10).await.unwrap();
    let id = &page.items[0].device.id;
    service.block_device(DeviceKind::Manager, &Actor::Console, id, "stolen").await.unwrap();
    service.keep_relay().await.unwrap();
    assert_eq!(ended(&mut away).await, CloseReason::PeerDismissed);
    let lost = soon(&mut manager.served).await.unwrap().unwrap_err();
    assert_eq!((lost.check(), lost.is_lost()), ("device-blocked", false));
    assert_eq!(sleeve.meet("MGR-1").await.unwrap_err().check(), "manager-absent");

    let page = service.devices(DeviceKind::Sleeve, None, 10).await.unwrap();
    let id = &page.items[0].device.id;
    service.block_device(DeviceKind::Sleeve, &Actor::Console, id, "lost").await.unwrap();
    let refused = sleeve.meet("MGR-1").await.unwrap_err();
    let RelayError::Channel(Error::Alert { code, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!((*code, refused.is_lost()), (AlertCode::ReaderBlocked, false));
    assert!(refused.incident().is_some());
}

/// An alarm goes out beside everything else, waits while the link is down, and is on record once.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_told_until_it_is_on_record() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let wire = Wire::to(stage.gateway()).await;
    let manager = devices.link(Kind::Manager, "MGR-1", wire.address).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let raise = |name: &str| {
        let (taken, on_record) = oneshot::channel();
        let alarm = Alarm {
            id: AlarmId::new(name).unwrap(),
            sleeve: Serial::new("SLV-1").unwrap(),
            session: 3,
            at: now().as_millis(),
        };
        (RaisedAlarm { alarm, taken }, on_record)
    };
    let (first, on_record) = raise("a-1");
    manager.alarms.send(first).await.unwrap();
    soon(on_record).await.unwrap();
    wire.cut();
    let (second, on_record) = raise("a-2");
    manager.alarms.send(second).await.unwrap();
    soon(on_record).await.unwrap();
    let rows = stage.server.service().audit_page(None, 100).await.unwrap().items;
    assert_eq!(rows.iter().filter(|row| row.entry.action == "sleeve.alarm").count(), 2);
}

type Line = Connection<ReaderChannel, TcpStream>;

async fn connected(stage: &Stage, config: ReaderConfig) -> Line {
    let mut rng = SystemRng::default();
    let channel = ReaderChannel::new(Arc::new(config), now(), &mut rng).unwrap();
    let stream = TcpStream::connect(stage.gateway()).await.unwrap();
    let clock = Arc::new(SystemClock::default());
    let mut line = Connection::new(channel, stream, clock, Box::new(rng));
    assert!(matches!(line.next(None).await.unwrap(), Next::Event(ReaderEvent::Connected)));
    line
}

/// The server's answer; none if it has ended the connection.
async fn answer(line: &mut Line, message: &[u8]) -> Option<RelayMessage> {
    line.machine().send(message).unwrap();
    line.flush().await.unwrap();
    match soon(line.next(None)).await {
        Ok(Next::Event(ReaderEvent::Data(said))) => Some(RelayMessage::decode(&said).unwrap()),
        _ => None,
    }
}

/// What breaks the protocol ends that connection with its meeting, and harms nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_protocol_is_cut_off_and_nobody_else() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let manager = devices.link(Kind::Manager, "MGR-1", stage.gateway()).await;
    let mut manager = Manager::start(manager);
    manager.is_registered().await;
    let sleeve = devices.enrolled(Kind::Sleeve, "SLV-1").await;
    let config = sleeve.relay_config(&aws_lc::provider(), now()).unwrap();
    let credit = countersign_wallet::relay::Credited { meeting: 1, bytes: WINDOW };
    let meet = DeviceMessage::Meet(Serial::new("MGR-1").unwrap()).encode();
    for (message, check) in [
        (b"nonsense".to_vec(), "message-format"),
        (DeviceMessage::Register.encode(), "message-role"),
        (DeviceMessage::Credit(credit).encode(), "window-exceeded"),
    ] {
        let mut line = connected(&stage, config.clone()).await;
        let met = answer(&mut line, &meet).await;
        let Some(RelayMessage::Met(met)) = met else { panic!("{met:?}") };
        let message = match DeviceMessage::decode(&message) {
            Ok(DeviceMessage::Credit(credit)) => {
                let meeting = met.meeting;
                DeviceMessage::Credit(countersign_wallet::relay::Credited { meeting, ..credit })
                    .encode()
            }
            _ => message,
        };
        assert_eq!(answer(&mut line, &message).await, None, "{check}");
        let mut home = manager.meets("SLV-1").await;
        assert_eq!(ended(&mut home).await, CloseReason::PeerGone, "{check}");
    }
    // The manager's own connection has noticed nothing.
    let mut line = connected(&stage, config).await;
    assert!(matches!(answer(&mut line, &meet).await, Some(RelayMessage::Met(_))));
    manager.meets("SLV-1").await;
}

/// A link lives by its own heartbeats, and is given up when the server falls silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_falls_silent_is_given_up_and_comes_again() {
    let stage = Stage::new().await;
    let devices = Devices::of(&stage).await;
    let wire = Wire::to(stage.gateway()).await;
    let often = Heartbeat { every: Duration::from_millis(20), within: Duration::from_millis(500) };
    let manager = devices.link(Kind::Manager, "MGR-1", wire.address).await;
    let mut manager = Manager::start(manager.with_heartbeat(often));
    manager.is_registered().await;
    let sleeve = devices.link(Kind::Sleeve, "SLV-1", stage.gateway()).await;
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let mut home = manager.meets("SLV-1").await;
    for _ in 0..500 {
        assert_eq!(said(&mut away, &mut home, b"awake").await, b"awake");
    }
    wire.mute();
    let lost = manager.is(|status| matches!(status, LinkStatus::Lost { .. })).await;
    let LinkStatus::Lost { check, .. } = lost else { panic!("{lost:?}") };
    assert_eq!(check, Error::Silent.check());
    assert_eq!(ended(&mut home).await, CloseReason::PeerGone);
    // The server has not noticed: the newer connection wins all the same.
    manager.is_registered().await;
    assert_eq!(ended(&mut away).await, CloseReason::PeerGone);
    let mut away = sleeve.meet("MGR-1").await.unwrap();
    let mut home = manager.meets("SLV-1").await;
    assert_eq!(said(&mut away, &mut home, b"awake").await, b"awake");
}

//! What an open session may no longer do once something was decided about its reader, and what the
//! audit keeps of its reads.

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_device::Source as Seen;
use countersign_idcard::ReadId;
use countersign_idcard::message::{AbortReason, ReadBegin, ReaderMessage, ServerMessage, Source};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_net::{Connection, Next, SystemRng};
use countersign_service::Actor;
use countersign_store::{AuditEntry, DeviceKind, StoreError};
use serde_json::Value;
use tokio::net::TcpStream;

use super::stage::{Stage, card, now};

/// An authenticated reader that says what the test wants.
struct Session(Connection<ReaderChannel, TcpStream>);

impl Session {
    async fn open(stage: &Stage, config: impl Into<Arc<ReaderConfig>>) -> Self {
        let mut rng = SystemRng::default();
        let channel = ReaderChannel::new(config.into(), now(), &mut rng).unwrap();
        let stream = TcpStream::connect(stage.gateway()).await.unwrap();
        let mut connection =
            Connection::new(channel, stream, stage.server.service().clock(), Box::new(rng));
        let connected = connection.next(None).await.unwrap();
        assert!(matches!(connected, Next::Event(ReaderEvent::Connected)));
        Self(connection)
    }

    async fn say(&mut self, message: &ReaderMessage) {
        self.0.machine().send(&message.encode()).unwrap();
        self.0.flush().await.unwrap();
    }

    async fn hear(&mut self) -> ServerMessage {
        match self.0.next(Some(now().plus(super::stage::DAY))).await.unwrap() {
            Next::Event(ReaderEvent::Data(bytes)) => ServerMessage::decode(&bytes).unwrap(),
            other => panic!("no message: {other:?}"),
        }
    }

    /// Begins a read with data from the cache, for which no SAM is needed at first.
    async fn begin(&mut self, read_id: ReadId) -> ServerMessage {
        let configuration = card(DocumentType::Citizen).configuration().clone();
        let begin = ReadBegin { read_id, configuration, source: Source::Cache };
        self.say(&ReaderMessage::ReadBegin(begin)).await;
        self.hear().await
    }

    async fn assert_may_read(&mut self, read_id: ReadId) {
        assert!(matches!(self.begin(read_id).await, ServerMessage::SendPackets));
        self.say(&ReaderMessage::Abort(AbortReason::Cancelled)).await;
    }

    async fn assert_refused(&mut self, check: &str) {
        match self.begin([9; 16]).await {
            ServerMessage::Refused(refused) => {
                assert_eq!(refused.check.as_str(), check);
                assert!(!refused.retry(), "a retry does not help");
            }
            other => panic!("not refused: {}", other.name()),
        }
    }
}

async fn audited(stage: &Stage, action: &str) -> Vec<AuditEntry> {
    let page = stage.server.service().audit_page(None, 200).await.unwrap();
    let entries = page.items.into_iter().map(|row| row.entry);
    entries.filter(|entry| entry.action == action).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_open_session() {
    let stage = Stage::new().await;
    let reader = stage.enroll("RD-1").await;
    let (id, old) = (reader.id, reader.config);
    let mut session = Session::open(&stage, old).await;
    session.assert_may_read([1; 16]).await;
    session.assert_may_read([2; 16]).await;
    let service = stage.server.service();
    service.revoke_device(DeviceKind::Reader, &Actor::Console, &id, "lost").await.unwrap();
    session.assert_refused("certificate-revoked").await;

    // Enrolled again with another key, the reader is welcome; the old key's session is not.
    let again = stage.enroll("RD-1").await;
    assert_eq!(again.id, id);
    session.assert_refused("certificate-revoked").await;
    Session::open(&stage, again.config).await.assert_may_read([3; 16]).await;

    let refusals = audited(&stage, "read.begin").await;
    assert_eq!(refusals.len(), 2);
    for entry in refusals {
        assert_eq!(entry.check.as_deref(), Some("certificate-revoked"));
        assert_eq!((&entry.actor, &entry.subject), (&id, &id));
    }
    assert_eq!(stage.reads().await.len(), 3, "refused reads leave no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_and_a_block_end_open_sessions() {
    let stage = Stage::new().await;
    let expiring = stage.enroll("RD-1").await;
    let mut session = Session::open(&stage, expiring.config).await;
    session.assert_may_read([1; 16]).await;
    let (id, passed) = (expiring.id, now());
    let store = stage.server.service().store();
    let expire = store.run_tx("test_expire", move |tx| {
        let sql = "UPDATE certificates SET not_after = ?2 WHERE device_id = ?1";
        tx.execute(sql, &[id.as_str().into(), passed.into()])?;
        Ok::<_, StoreError>(())
    });
    expire.await.unwrap();
    session.assert_refused("certificate-expired").await;

    let blocked = stage.enroll("RD-2").await;
    let mut session = Session::open(&stage, blocked.config).await;
    session.assert_may_read([1; 16]).await;
    let service = stage.server.service();
    service.block_device(DeviceKind::Reader, &Actor::Console, &blocked.id, "stolen").await.unwrap();
    session.assert_refused("reader-blocked").await;
    service.unblock_device(DeviceKind::Reader, &Actor::Console, &blocked.id).await.unwrap();
    session.assert_may_read([2; 16]).await;
    let checks: Vec<_> =
        audited(&stage, "read.begin").await.into_iter().map(|entry| entry.check).collect();
    assert_eq!(checks, [Some("reader-blocked".into()), Some("certificate-expired".into())]);
}

/// Two connections with one read id: the later attempt owns the row, the earlier one still leaves
/// its trace.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_superseded_is_audited_all_the_same() {
    let stage = Stage::new().await;
    let config = Arc::new(stage.enroll("RD-1").await.config);
    let mut earlier = Session::open(&stage, config.clone()).await;
    let mut later = Session::open(&stage, config).await;
    assert!(matches!(earlier.begin([1; 16]).await, ServerMessage::SendPackets));
    assert!(matches!(later.begin([1; 16]).await, ServerMessage::SendPackets));
    earlier.say(&ReaderMessage::Abort(AbortReason::CardRemoved)).await;
    // The next read of the same connection is begun only after the abort was taken.
    earlier.assert_may_read([2; 16]).await;
    let first = &audited(&stage, "read.fail").await[..];
    assert_eq!(first.last().unwrap().check.as_deref(), Some("card-removed"));
    let page = stage.server.service().reads(None, None, 10).await.unwrap();
    let row = page.items.iter().find(|read| read.client_read_id == [1; 16]).unwrap();
    assert_eq!((row.state.name(), row.attempts), ("started", 2), "the later attempt's");
    later.say(&ReaderMessage::Abort(AbortReason::CardTimeout)).await;
    let ended = stage.reads().await;
    assert!(ended.contains(&("failed".to_owned(), Some("card-timeout".to_owned()))), "{ended:?}");
}

/// C7 lets a reader send data without the card; the audit tells which reads were such.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_whether_the_data_came_from_a_card_or_a_cache() {
    let stage = Stage::new().await;
    let (mut reader, _field) = stage.reader(stage.enroll("RD-1").await.config);
    for seen in [Seen::Server, Seen::ServerFromCache] {
        assert_eq!(reader.read(ReadOptions::default()).await.unwrap().source, seen);
    }
    let source = |entry: &AuditEntry| {
        let detail: Value = serde_json::from_str(&entry.detail).unwrap();
        detail["source"].as_str().unwrap().to_owned()
    };
    let sources: Vec<_> = audited(&stage, "read.done").await.iter().map(source).collect();
    assert_eq!(sources, ["cache", "card"], "newest first");

    let mut session = Session::open(&stage, stage.enroll("RD-2").await.config).await;
    session.assert_may_read([1; 16]).await;
    session.assert_may_read([2; 16]).await;
    let failed = audited(&stage, "read.fail").await;
    assert_eq!(source(failed.last().unwrap()), "cache");
}

/// A server that is stopped closes whoever reads no card, at once and in good order; whoever reads
/// one may finish, and the server waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_waits_for_reads_and_for_nobody_else() {
    let stage = Stage::new().await;
    let mut idle = Session::open(&stage, stage.enroll("RD-1").await.config).await;
    let mut reading = Session::open(&stage, stage.enroll("RD-2").await.config).await;
    assert!(matches!(reading.begin([2; 16]).await, ServerMessage::SendPackets));
    let Stage { server, .. } = stage;
    let mut stopping = tokio::spawn(server.stop());
    assert!(matches!(idle.0.next(None).await.unwrap(), Next::Event(ReaderEvent::Closed)));
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut stopping).await;
    assert!(waited.is_err(), "the read is under way");
    reading.say(&ReaderMessage::Abort(AbortReason::Cancelled)).await;
    loop {
        match reading.0.next(None).await.unwrap() {
            Next::Event(ReaderEvent::Closed) => break,
            Next::Event(ReaderEvent::Data(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    stopping.await.unwrap();
}

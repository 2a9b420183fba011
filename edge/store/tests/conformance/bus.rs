use std::time::Duration;

use countersign_store::{Bus, BusState, Listener, Notice, Store, Topic};
use testkit::parts::Postgres;
use tokio::time::{sleep, timeout};

/// Much longer than any notice takes.
const PATIENCE: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(300);

async fn connected(bus: &Bus) {
    let waiting = async {
        while bus.state() != BusState::Connected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

async fn woken(listener: &mut Listener) {
    timeout(PATIENCE, listener.changed()).await.unwrap();
}

async fn settled(listener: &mut Listener) {
    while timeout(QUIET, listener.changed()).await.is_ok() {}
}

/// Two servers on one database.
pub(crate) async fn a_notice_reaches_another_server(url: String) {
    let (one, other) = (Store::postgres(&url).await.unwrap(), Store::postgres(&url).await.unwrap());
    assert_eq!(one.bus().state(), BusState::Apart, "nobody has used it yet");
    let mut mine = one.bus().listen(Topic::Payment, "pay_1");
    let mut theirs = other.bus().listen(Topic::Payment, "pay_1");
    let mut another = other.bus().listen(Topic::Payment, "pay_2");
    connected(&one.bus()).await;
    connected(&other.bus()).await;
    for listener in [&mut mine, &mut theirs, &mut another] {
        settled(listener).await; // of connecting
    }
    one.bus().publish(&[Notice::new(Topic::Payment, "pay_1")]);
    woken(&mut mine).await;
    woken(&mut theirs).await;
    assert!(timeout(QUIET, mine.changed()).await.is_err(), "its own echo wakes nobody twice");
    assert!(timeout(QUIET, another.changed()).await.is_err());
    other.bus().publish(&[Notice::new(Topic::Payment, "pay_1")]);
    woken(&mut mine).await;
}

/// What anyone with the database in hands sees go by.
pub(crate) async fn nothing_but_ids_travels(url: String) {
    let store = Store::postgres(&url).await.unwrap();
    let (client, mut connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                heard.send(notification.payload().to_owned()).unwrap();
            }
        }
    });
    client.batch_execute("LISTEN countersign").await.unwrap();
    let id = "pay_01997c3e-0000-7000-8000-000000000000";
    store.bus().publish(&[
        Notice::new(Topic::Payment, "6222 0212 3456 7890"),
        Notice::new(Topic::Payment, "Li Lei"),
        Notice::new(Topic::Payment, id),
    ]);
    let payload = timeout(PATIENCE, hearing.recv()).await.unwrap().unwrap();
    assert_eq!(payload, format!("payment:{id}"));
    // Who speaks on the channel without being a server harms nobody.
    let mut listener = store.bus().listen(Topic::Payment, id);
    settled(&mut listener).await;
    for nonsense in ["", "weather:fine", "payment", "payment:pay_2", ",,,:"] {
        client.execute("SELECT pg_notify('countersign', $1)", &[&nonsense]).await.unwrap();
    }
    assert!(timeout(QUIET, listener.changed()).await.is_err());
    client
        .execute("SELECT pg_notify('countersign', $1)", &[&format!("payment:{id}")])
        .await
        .unwrap();
    woken(&mut listener).await;
}

pub(crate) async fn a_killed_connection_is_made_again(url: String) {
    let (one, other) = (Store::postgres(&url).await.unwrap(), Store::postgres(&url).await.unwrap());
    let mut theirs = other.bus().listen(Topic::Phone, "phn_1");
    let _uses_it = one.bus().listen(Topic::Phone, "phn_2");
    connected(&one.bus()).await;
    connected(&other.bus()).await;
    settled(&mut theirs).await;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let killed = client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'countersign-bus'",
            &[],
        )
        .await
        .unwrap();
    assert!(killed >= 1, "there is a connection of the bus");
    // Coming back wakes: what was said in between may be lost.
    woken(&mut theirs).await;
    connected(&one.bus()).await;
    connected(&other.bus()).await;
    settled(&mut theirs).await;
    one.bus().publish(&[Notice::new(Topic::Phone, "phn_1")]);
    woken(&mut theirs).await;
}

pub(crate) async fn a_restarted_database_is_found_again(own: &mut Postgres) {
    let store = Store::postgres(own.url()).await.unwrap();
    let mut listener = store.bus().listen(Topic::Event, "all");
    connected(&store.bus()).await;
    settled(&mut listener).await;
    own.kill().unwrap();
    own.restart().unwrap();
    woken(&mut listener).await;
    connected(&store.bus()).await;
}

/// In one process notices go by memory, whatever the database.
pub(crate) async fn waiters_of_one_process_are_woken(db: crate::fixture::Db) {
    let mut listener = db.store.bus().listen(Topic::Payment, "pay_1");
    settled(&mut listener).await;
    db.store.bus().publish(&[Notice::new(Topic::Payment, "pay_1")]);
    woken(&mut listener).await;
}

//! The bus between servers: `LISTEN` and `NOTIFY` on a PostgreSQL connection of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket, tls::NoTlsStream};

use super::{Notice, Registry, Topic};

/// The channel of `NOTIFY`.
const CHANNEL: &str = "countersign";
/// By this name the database's own views show the connection.
const APPLICATION: &str = "countersign-bus";
/// Most notices in one `NOTIFY`: PostgreSQL takes less than 8000 bytes, a notice has at most 50.
const TOGETHER_MAX: usize = 128;
/// The rest after one, in which further notices gather: each costs the database a transaction,
/// beside those that it is about.
const REST: Duration = Duration::from_millis(10);
/// Connecting and every statement take at most this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Without traffic, the connection is asked so often whether it still is one.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// Pause before connecting again: doubles from the first to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

type Line = Connection<Socket, NoTlsStream>;

/// Starts the thread; it ends with the last sender. Without a thread the servers are apart.
pub(super) fn start(mut config: Config, inbox: mpsc::Receiver<Notice>, registry: Arc<Registry>) {
    config.application_name(APPLICATION);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(keep_connected(&config, inbox, &registry));
        }
    };
    let _thread = std::thread::Builder::new().name("store-bus".to_owned()).spawn(run);
}

async fn keep_connected(config: &Config, mut inbox: mpsc::Receiver<Notice>, registry: &Registry) {
    let mut pause = PAUSE_FIRST;
    loop {
        // A failure shows as the state; the store's own connections say why in their errors.
        if let Ok(Ok((client, line))) = timeout(ANSWER_TIMEOUT, config.connect(NoTls)).await {
            let over = serve(&client, line, &mut inbox, registry, &mut pause).await;
            registry.connected.store(false, Ordering::Relaxed);
            if over {
                return;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = drained(&mut inbox) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Drops what cannot be passed on, until the last sender is gone.
async fn drained(inbox: &mut mpsc::Receiver<Notice>) {
    while inbox.recv().await.is_some() {}
}

/// Serves one connection. Returns whether the bus is over, rather than the connection.
async fn serve(
    client: &Client,
    mut line: Line,
    inbox: &mut mpsc::Receiver<Notice>,
    registry: &Registry,
    pause: &mut Duration,
) -> bool {
    let (heard, mut arriving) = mpsc::channel(super::NOTICES_MAX);
    let mut receiving = pin!(async move {
        while let Some(Ok(message)) = poll_fn(|cx| line.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message
                && heard.send(notification).await.is_err()
            {
                return;
            }
        }
    });
    let own = Cell::new(None);
    let mut sending = pin!(async {
        own.set(Some(begin(client).await?));
        registry.connected.store(true, Ordering::Relaxed);
        *pause = PAUSE_FIRST;
        registry.wake_all();
        pass_on(client, inbox).await
    });
    loop {
        tokio::select! {
            () = &mut receiving => return false,
            over = &mut sending => return over.is_some(),
            notification = arriving.recv() => {
                let Some(notification) = notification else { return false };
                // Who listens here was woken when it was said.
                if own.get() == Some(notification.process_id()) {
                    continue;
                }
                for notice in parse(notification.payload()) {
                    registry.wake(&notice);
                }
            }
        }
    }
}

/// Sends notices until the last sender is gone; `None` if the connection is.
async fn pass_on(client: &Client, inbox: &mut mpsc::Receiver<Notice>) -> Option<()> {
    let mut together = Vec::with_capacity(TOGETHER_MAX);
    let notify = client.prepare("SELECT pg_notify($1, $2)");
    let notify = timeout(ANSWER_TIMEOUT, notify).await.ok()?.ok()?;
    loop {
        together.clear();
        match timeout(ASK_EVERY, inbox.recv_many(&mut together, TOGETHER_MAX)).await {
            Ok(0) => return Some(()),
            Ok(_) => {
                let text = payload(&together);
                let sent = async { client.execute(&notify, &[&CHANNEL, &text]).await };
                timeout(ANSWER_TIMEOUT, sent).await.ok()?.ok()?;
                sleep(REST).await;
            }
            Err(_quiet) => {
                timeout(ANSWER_TIMEOUT, client.batch_execute("SELECT 1")).await.ok()?.ok()?;
            }
        }
    }
}

/// Begins to listen; returns the number of the connection's own process at the database.
async fn begin(client: &Client) -> Option<i32> {
    let asked = async {
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
        // A notice that a crash of the database loses costs one look: no need to wait for its disk.
        let listen = format!("SET synchronous_commit = off; LISTEN {CHANNEL}");
        client.batch_execute(&listen).await?;
        row.try_get(0)
    };
    timeout(ANSWER_TIMEOUT, asked).await.ok()?.ok()
}

/// `topic:id`, separated by commas.
fn payload(notices: &[Notice]) -> String {
    let mut text = String::new();
    for notice in notices {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(notice.topic.name());
        text.push(':');
        text.push_str(&notice.id);
    }
    text
}

/// What another program on the channel says, or a newer server, is passed over.
fn parse(payload: &str) -> impl Iterator<Item = Notice> + '_ {
    payload.split(',').filter_map(|part| {
        let (topic, id) = part.split_once(':')?;
        Some(Notice::new(Topic::stored(topic).ok()?, id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_ID_LEN;

    #[test]
    fn notices_travel_as_text_and_fit() {
        let notices = [Notice::new(Topic::Payment, "pay_1"), Notice::events()];
        assert_eq!(payload(&notices), "payment:pay_1,event:all");
        assert_eq!(parse(&payload(&notices)).collect::<Vec<_>>(), notices);
        let longest = vec![Notice::new(Topic::Payment, "x".repeat(MAX_ID_LEN)); TOGETHER_MAX];
        assert!(payload(&longest).len() < 8000);
        for nonsense in ["", ",", "payment", "weather:fine", ":"] {
            assert_eq!(parse(nonsense).count(), 0, "{nonsense}");
        }
    }
}

//! What the log says about requests, and what it must not say.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, Once};

use serde_json::Value;

use crate::world::World;

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static OF_THREAD: RefCell<Lines> = RefCell::default();
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// One subscriber for the process, which writes for each thread apart: one per test would race
    /// with what other tests' threads log for the first time.
    pub(crate) fn start() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let writer = || OF_THREAD.with_borrow(Clone::clone);
            tracing_subscriber::fmt().json().with_writer(writer).init();
        });
        let lines = Self::default();
        OF_THREAD.set(lines.clone());
        lines
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn with_id(&self, id: &str) -> Vec<Value> {
        let lines = self.text();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["fields"]["requestId"] == id).collect()
    }
}

#[tokio::test]
async fn a_request_is_one_line_without_its_secrets() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let lines = Lines::start();
    let answer = world.get(&format!("/v1/readers?cursor={id}&limit=7")).await;
    let events = lines.with_id(answer.header("x-request-id"));
    assert_eq!(events.len(), 1, "{}", lines.text());
    let (level, fields) = (&events[0]["level"], &events[0]["fields"]);
    assert_eq!(level, "INFO");
    assert_eq!(fields["method"], "GET");
    assert_eq!(fields["route"], "/v1/readers");
    assert_eq!(fields["status"], 200);
    assert!(fields["ms"].as_f64().unwrap() > 0.0);
    assert_eq!(fields.as_object().unwrap().len(), 6, "{fields}");
    world.get(&format!("/v1/readers/{id}/none?secret={id}")).await;
    world.get_with("cst_unknown", "/v1/readers").await;
    for secret in [&*world.admin, "cst_unknown", &*id, "limit"] {
        assert!(!lines.text().contains(secret), "{secret} in {}", lines.text());
    }
}

#[tokio::test]
async fn the_reason_of_an_internal_error_is_in_the_log_under_the_request_id() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let damage = world.service.store().run_tx("test_damage", |tx| {
        tx.execute("UPDATE devices SET status = 'damaged'", &[]).map(|_| ())
    });
    damage.await.unwrap();
    let lines = Lines::start();
    let answer = world.get(&format!("/v1/readers/{id}")).await;
    answer.assert_check(500, "internal");
    let events = lines.with_id(answer.header("x-request-id"));
    assert_eq!(events.len(), 2, "{}", lines.text());
    let reason = events[0]["fields"]["reason"].as_str().unwrap();
    assert!(reason.contains("unknown device status"), "{reason}");
    assert!(!answer.text.contains(reason));
}

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Host, Ports, reader_words, wait_for};

/// Reads of one command; the server is killed several times while they run.
const READS: usize = 120;
const KILLS: usize = 5;

/// `kill -9` of the server at any moment: what was committed stays, the reader recovers by itself,
/// and the audit still verifies.
pub(crate) fn a_killed_server_loses_nothing(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(database)?;
    let _sam = host.sam()?;
    let mut server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let (gateway, reads) = (ports.gateway(), READS.to_string());
    let reader = host.spawn(&reader_words(&gateway, "emulated:citizen", &reads))?;

    let mut done_before = BTreeMap::new();
    for kill in 0..KILLS {
        // Let some reads through, then strike at a moment that differs each time.
        let wanted = done_before.len() + 3;
        done_before = wait_for("a read", || {
            let done = done(&host, &ports)?;
            Ok((done.len() >= wanted).then_some(done))
        })?;
        std::thread::sleep(Duration::from_millis(3 * kill as u64 + 1));
        server.kill()?;
        server = host.serve(&ports)?;
        let after = done(&host, &ports)?;
        for (id, row) in &done_before {
            assert_eq!(after.get(id), Some(row), "a committed read must stay as it was");
        }
    }

    let ended = reader.finish()?.ok()?.json()?;
    let reads = ended["reads"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), READS);
    let attempts: u64 = reads.iter().filter_map(|read| read["attempts"].as_u64()).sum();
    assert!(attempts > READS as u64, "the server was away, so something was tried again");
    assert_eq!(done(&host, &ports)?.len(), READS, "one row per read, however often it was tried");

    server.kill()?;
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    Ok(())
}

/// Over datagrams nobody tells a reader that its server was killed in mid-read: the attempt ends by
/// its own time, and the next one of the same read succeeds.
pub(crate) fn a_killed_server_costs_a_datagram_read_time_only() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    let slow = ["--json", "emulator", "sam", "--link", "sam", "--answer-after", "200"];
    let mut sam = host.spawn(&slow)?;
    sam.first_json()?;
    let server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let gateway = format!("udp:{}", ports.gateway());
    let reader = host.spawn(&reader_words(&gateway, "emulated:citizen", "1"))?;
    wait_for("a read under way", || {
        let page: Value = host.api(&ports)?.get("/v1/reads")?;
        Ok((page["items"][0]["state"] == "started").then_some(()))
    })?;
    server.kill()?;
    let server = host.serve(&ports)?;
    let ended = reader.finish()?.ok()?.json()?;
    assert_eq!(ended["reads"][0]["attempts"], 2, "{ended}");
    assert_eq!(done(&host, &ports)?.len(), 1, "one row");
    server.kill()
}

/// The reads that are done, by id, without what a later page order could change.
fn done(host: &Host, ports: &Ports) -> Result<BTreeMap<String, Value>, Failed> {
    let page: Value = host.api(ports)?.get("/v1/reads?limit=200")?;
    let items = page["items"].as_array().ok_or("no items")?;
    let done = items.iter().filter(|read| read["state"] == "done");
    let id = |read: &Value| read["id"].as_str().unwrap_or_default().to_owned();
    Ok(done.map(|read| (id(read), read.clone())).collect())
}

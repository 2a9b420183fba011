//! SIGTERM while a card is read: the read under way succeeds, then the program ends.

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Ended, Host, Ports, Process, reader_words};
use crate::sams::{attach, enroll_host, module, serve, serve_host, wait_state};

type Trials = [(&'static str, fn() -> Result<(), Failed>); 2];

pub(crate) const TRIALS: Trials = [
    ("a_stopped_server_finishes_its_reads", a_stopped_server_finishes_its_reads),
    ("a_stopped_sam_host_finishes_its_reads", a_stopped_sam_host_finishes_its_reads),
];

/// What a module that takes its time needs for one command, in milliseconds: a read needs several.
const ANSWER_AFTER: &str = "150";

/// The read went well at the first try, as its reader tells it.
fn went_well(reader: Ended) -> Result<(), Failed> {
    let read = reader.ok()?.json()?;
    assert_eq!(read["reads"][0]["attempts"], 1, "{read}");
    assert_eq!(read["reads"][0]["record"]["documentType"], "citizen", "{read}");
    Ok(())
}

fn ended_well(process: Process) -> Result<(), Failed> {
    process.finish()?.ok()?;
    Ok(())
}

fn states(host: &Host, ports: &Ports) -> Result<Vec<Value>, Failed> {
    let reads: Value = host.api(ports)?.get("/v1/reads")?;
    let items = reads["items"].as_array().ok_or("no reads")?;
    Ok(items.iter().map(|read| read["state"].clone()).collect())
}

fn a_stopped_server_finishes_its_reads() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    let _module = module(&host, "sam", "1", ANSWER_AFTER)?;
    let mut server = serve(&host, "data", Some("sam"), &ports)?;
    host.enroll(&ports, "RD-1")?;
    let gateways = [ports.gateway(), format!("udp:{}", ports.gateway())];
    for gateway in &gateways {
        wait_state(&host, &ports, "sam", "ready")?;
        let reader = host.spawn(&reader_words(gateway, "emulated:citizen", "1"))?;
        wait_state(&host, &ports, "sam", "leased")?;
        server.terminate()?;
        went_well(reader.finish()?)?;
        ended_well(server)?;
        server = serve(&host, "data", Some("sam"), &ports)?;
    }
    assert_eq!(states(&host, &ports)?, ["done"; 2]);
    server.terminate()?;
    ended_well(server)
}

fn a_stopped_sam_host_finishes_its_reads() -> Result<(), Failed> {
    let host = Host::new()?;
    let (ports, at) = (Ports::pick()?, Ports::pick()?.https);
    host.init(&Database::Sqlite)?;
    let _module = module(&host, "sam", "1", ANSWER_AFTER)?;
    let server = serve(&host, "data", None, &ports)?;
    host.enroll(&ports, "RD-1")?;
    enroll_host(&host, "SAMHOST-1", &ports.api(), ["ca.pem", "admin.token"])?;
    server.kill()?;
    let sams = serve_host(&host, "SAMHOST-1", "sam", at)?;
    attach(&host, "data", at, "SAMHOST-1", 1)?;
    let _server = serve(&host, "data", None, &ports)?;
    let at = format!("127.0.0.1:{at}");
    wait_state(&host, &ports, &at, "ready")?;
    let gateway = ports.gateway();
    let reader = host.spawn(&reader_words(&gateway, "emulated:citizen", "1"))?;
    wait_state(&host, &ports, &at, "leased")?;
    sams.terminate()?;
    went_well(reader.finish()?)?;
    ended_well(sams)?;
    wait_state(&host, &ports, &at, "failed")?;
    assert_eq!(states(&host, &ports)?, ["done"]);
    Ok(())
}

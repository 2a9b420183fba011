use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Host, Ports};

/// The flow of the README: `serve`, `emulator sam` and `device reader` as processes of their own.
pub(crate) fn three_processes_read_a_card(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(database)?;
    let sam = host.sam()?;
    let server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    host.enroll(&ports, "RD-1")?; // again, as after a break-off: the same certificate

    let gateway = ports.gateway();
    for document in ["citizen", "foreigner2017", "foreigner2023", "residencePermit"] {
        let card = format!("emulated:{document}");
        let words = [
            "--json",
            "device",
            "reader",
            "--device",
            "RD-1",
            "--gateway",
            &gateway,
            "--card",
            &card,
            "--reads",
            "2",
        ];
        let read = host.run(&words)?.ok()?.json()?;
        let [first, second] = read["reads"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(format!("not two reads: {read}").into());
        };
        assert_eq!(first["record"]["documentType"], document);
        assert_eq!(first["record"], second["record"]);
        assert_eq!(first["photoBytes"], 1024);
        assert_eq!(first["source"], "server");
        // The plaintext cache is off by default: the second read asks the server again.
        assert_eq!(second["source"], "serverFromCache");
    }

    let api = host.api(&ports)?;
    let readers: Value = api.get("/v1/readers")?;
    assert_eq!(readers["items"].as_array().map(Vec::len), Some(1));
    let reads: Value = api.get("/v1/reads")?;
    let reads = reads["items"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 8);
    for read in reads {
        assert_eq!(read["state"], "done");
        assert_eq!(read["readerId"], readers["items"][0]["id"]);
        assert!(!read.to_string().contains('名'), "no content of a card is kept");
    }
    let health: Value = api.get("/v1/health")?;
    assert_eq!(health["status"], "ok");
    let backend = if matches!(database, Database::Sqlite) { "sqlite" } else { "postgresql" };
    assert_eq!(health["store"]["backend"], backend);

    // A blocked reader is refused by name; the incident leads the operator to the check.
    let id = reads[0]["readerId"].as_str().ok_or("no id")?;
    let body = serde_json::json!({ "reason": "reported stolen" });
    let _blocked: Value = api.post(&format!("/v1/readers/{id}/block"), &body)?;
    let words = [
        "--json",
        "device",
        "reader",
        "--device",
        "RD-1",
        "--gateway",
        &gateway,
        "--card",
        "emulated:citizen",
    ];
    let refused = host.run(&words)?;
    assert_eq!(refused.code, 1);
    let error = refused.json()?["error"].clone();
    assert_eq!(error["check"], "reader-blocked");
    let detail = error["detail"].as_str().unwrap_or_default();
    let incident = detail.split(['(', ')', ' ']).find(|word| word.starts_with("inc_"));
    let incident = incident.ok_or_else(|| format!("no incident in {detail:?}"))?;
    let shown = host.run(&["--json", "audit", "show", "--data", "data", incident])?.ok()?.json()?;
    assert_eq!(shown["items"][0]["check"], "reader-blocked");

    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true);
    server.kill()?;
    sam.kill()
}

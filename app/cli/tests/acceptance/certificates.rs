use std::process::Command;

use libtest_mimic::Failed;

use crate::host::{Database, Host, Ports};

/// Another implementation's word on our certificates.
pub(crate) fn openssl_accepts_the_certificates() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    for what in ["root", "server"] {
        let pem = host.run(&["ca", "export", "--data", "data", what])?.ok()?.stdout;
        std::fs::write(host.path(&format!("{what}.pem")), pem)?;
    }
    // The server export is leaf, then intermediate: verify the leaf with the rest as untrusted.
    let openssl = |words: &[&str]| -> Result<String, Failed> {
        let output = Command::new("openssl").args(words).current_dir(host.path(".")).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text.into()) }
    };
    openssl(&[
        "verify",
        "-x509_strict",
        "-CAfile",
        "root.pem",
        "-untrusted",
        "server.pem",
        "server.pem",
    ])?;
    let ports = Ports::pick()?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let data = host.data();
    let devices = data.join("ca/devices.pem").display().to_string();
    openssl(&[
        "verify",
        "-x509_strict",
        "-CAfile",
        "root.pem",
        "-untrusted",
        &devices,
        "RD-1/certificate.pem",
    ])?;
    let wrong = openssl(&["verify", "-CAfile", "ca.pem", "RD-1/certificate.pem"]);
    assert!(wrong.is_err(), "the HTTPS root must not vouch for devices");
    let text = openssl(&["x509", "-in", "RD-1/certificate.pem", "-noout", "-text"])?;
    for wanted in ["URI:countersign://reader/RD-1", "CA:FALSE", "Digital Signature"] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    Ok(())
}

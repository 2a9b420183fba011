use std::process::Command;

use libtest_mimic::Failed;

use crate::host::{Database, Host, Ports};

/// OpenSSL on a host.
struct OpenSsl<'a>(&'a Host);

impl OpenSsl<'_> {
    fn run(&self, words: &[&str]) -> Result<String, Failed> {
        let output = Command::new("openssl").args(words).current_dir(self.0.path(".")).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text.into()) }
    }

    /// Writes a certificate of the host's as `NAME.pem`.
    fn export(&self, what: &str) -> Result<(), Failed> {
        let pem = self.0.run(&["ca", "export", "--data", "data", what])?.ok()?.stdout;
        Ok(std::fs::write(self.0.path(&format!("{what}.pem")), pem)?)
    }
}

/// Enrols `RD-1` at a server of this directory.
fn enroll(host: &Host) -> Result<(), Failed> {
    let ports = Ports::pick()?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")
}

/// Another implementation's word on our certificates.
pub(crate) fn openssl_accepts_p256() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let openssl = OpenSsl(&host);
    openssl.export("root")?;
    openssl.export("server")?;
    openssl.export("server-encryption")?;
    // The server export is leaf, then intermediate: verify the leaf with the rest as untrusted.
    let strict = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted"];
    openssl.run(&[&strict[..], &["server.pem", "server.pem"]].concat())?;
    openssl.run(&[&strict[..], &["server.pem", "server-encryption.pem"]].concat())?;
    let second = openssl.run(&["x509", "-in", "server-encryption.pem", "-noout", "-text"])?;
    for wanted in ["URI:countersign://server/", "CA:FALSE", "Key Encipherment"] {
        assert!(second.contains(wanted), "{wanted} is missing in\n{second}");
    }
    enroll(&host)?;
    let devices = host.data().join("ca/devices.pem").display().to_string();
    openssl.run(&[&strict[..], &[&devices, "RD-1/certificate.pem"]].concat())?;
    let wrong = openssl.run(&["verify", "-CAfile", "ca.pem", "RD-1/certificate.pem"]);
    assert!(wrong.is_err(), "the HTTPS root must not vouch for devices");
    let text = openssl.run(&["x509", "-in", "RD-1/certificate.pem", "-noout", "-text"])?;
    for wanted in ["URI:countersign://reader/RD-1", "CA:FALSE", "Digital Signature"] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    Ok(())
}

/// The same for SM2. OpenSSL 3.0 gives the distinguishing id of `-vfyopt` to the one certificate on
/// its command line and none to the others of the chain, so it is asked about each link.
pub(crate) fn openssl_accepts_sm2() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init_with(&["--suite", "sm2"], &Database::Sqlite)?;
    let openssl = OpenSsl(&host);
    for what in ["root", "server", "server-encryption"] {
        openssl.export(what)?;
    }
    enroll(&host)?;
    let link = |id: &str, issuer: &str, certificate: &str| {
        let id = format!("distid:{id}");
        let words = ["verify", "-x509_strict", "-partial_chain", "-vfyopt", &id, "-CAfile", issuer];
        openssl.run(&[&words[..], &[certificate]].concat())
    };
    let id = "1234567812345678";
    let [servers, devices] = ["servers", "devices"].map(|name| format!("data/ca/{name}.pem"));
    for (issuer, certificate) in [
        ("root.pem", &*servers),
        ("root.pem", &devices),
        // The exports are leaf, then intermediate: OpenSSL verifies the first.
        (&servers, "server.pem"),
        (&servers, "server-encryption.pem"),
        (&devices, "RD-1/certificate.pem"),
        (&devices, "RD-1/encryption-certificate.pem"),
    ] {
        link(id, issuer, certificate)?;
        assert!(link("8765432187654321", issuer, certificate).is_err(), "{certificate}");
    }
    assert!(link(id, &servers, "RD-1/certificate.pem").is_err(), "another issuer");
    let exported = std::fs::read_to_string(host.path("server.pem"))?;
    assert!(exported.ends_with(&std::fs::read_to_string(host.path(&servers))?), "the intermediate");

    let text = |name: &str| openssl.run(&["x509", "-in", name, "-noout", "-text"]);
    let (server, second) = (text("server.pem")?, text("RD-1/encryption-certificate.pem")?);
    for wanted in ["SM2-with-SM3", "URI:countersign://server/", "Digital Signature"] {
        assert!(server.contains(wanted), "{wanted} is missing in\n{server}");
    }
    for wanted in ["SM2-with-SM3", "URI:countersign://reader/RD-1", "Key Encipherment"] {
        assert!(second.contains(wanted), "{wanted} is missing in\n{second}");
    }
    let https = text("ca.pem")?;
    assert!(https.contains("ecdsa-with-SHA256"), "HTTPS is P-256\n{https}");
    Ok(())
}

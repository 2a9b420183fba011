use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use countersign_server::DataDir;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// The CA's certificates.
#[derive(Subcommand)]
pub(crate) enum Ca {
    /// Print a certificate as PEM.
    ///
    /// Example: countersign ca export --data ./countersign-data tls-root > ca.pem
    Export {
        /// The data directory.
        #[arg(long, value_name = "DIR", default_value = "./countersign-data")]
        data: PathBuf,
        /// Which certificate.
        what: What,
    },
}

/// What can be exported.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The root of devices and servers.
    Root,
    /// This server's certificate, then the intermediate that issued it.
    Server,
    /// This server's encryption certificate, then the intermediate that issued it.
    ServerEncryption,
    /// The root of the HTTPS certificate.
    TlsRoot,
}

impl Ca {
    pub(crate) fn run(self) -> Result<Output, Failure> {
        let Self::Export { data, what } = self;
        let data = DataDir::open(&data)?;
        let files: &[&str] = match what {
            What::Root => &["ca/root.pem"],
            What::Server => &["ca/server.pem", "ca/servers.pem"],
            What::ServerEncryption => &["ca/server-encryption.pem", "ca/servers.pem"],
            What::TlsRoot => &["tls/root.pem"],
        };
        let pems = files.iter().map(|file| data.certificate_pem(file));
        let pem = pems.collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Output::new(json!({ "pem": pem }), pem))
    }
}

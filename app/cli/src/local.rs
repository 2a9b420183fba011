//! Commands that work on a data directory: where it is, how it is opened.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use countersign_crypto::Secret;
use countersign_server::{DataDir, open_service};
use countersign_service::Service;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest passphrase file, in bytes.
const PASSPHRASE_MAX: u64 = 4096;

/// Which data directory, and how to open it.
#[derive(Args)]
pub(crate) struct Local {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-data")]
    pub(crate) data: PathBuf,
    /// File that holds the passphrase of the keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// PostgreSQL database, before the one in config.toml: postgres://user@host:port/name
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
}

impl Local {
    pub(crate) fn open(&self) -> Result<DataDir, Failure> {
        Ok(DataDir::open(&self.data)?)
    }

    /// The passphrase: the file, else a systemd credential, else what `init` kept, else a prompt.
    pub(crate) fn passphrase(&self, data: &DataDir) -> Result<Secret, Failure> {
        if let Some(given) = given_passphrase(self.passphrase_file.as_deref())? {
            return Ok(given);
        }
        if let Some(kept) = data.kept_passphrase()? {
            return Ok(kept);
        }
        if std::io::stdin().is_terminal() {
            return prompt("Passphrase: ");
        }
        let detail = "no passphrase: use --passphrase-file or a systemd credential";
        Err(Failure::usage("passphrase-missing", detail))
    }

    /// The use cases over this directory, without a server.
    pub(crate) async fn service(&self) -> Result<(DataDir, Arc<Service>), Failure> {
        let data = self.open()?;
        let passphrase = self.passphrase(&data)?;
        let (service, _keys) =
            open_service(&data, &passphrase, self.database.as_deref(), &[]).await?;
        Ok((data, service))
    }
}

/// The passphrase from a file or a systemd credential, if there is either.
pub(crate) fn given_passphrase(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(dir) => {
                let path = PathBuf::from(dir).join("countersign-passphrase");
                if !path.exists() {
                    return Ok(None);
                }
                path
            }
            None => return Ok(None),
        },
    };
    let read = || {
        if fs::metadata(&path)?.len() > PASSPHRASE_MAX {
            return Err(std::io::Error::other("too long for a passphrase"));
        }
        fs::read(&path)
    };
    let bytes = Zeroizing::new(read().map_err(|error| Failure::file(&path, &error))?);
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::usage("passphrase-empty", "the passphrase file is empty"));
    }
    Ok(Some(Secret::copied_from(text)))
}

pub(crate) fn prompt(text: &str) -> Result<Secret, Failure> {
    let typed = rpassword::prompt_password(text)
        .map_err(|error| Failure::environment("prompt", error.to_string()))?;
    if typed.is_empty() {
        return Err(Failure::usage("passphrase-empty", "an empty passphrase protects nothing"));
    }
    Ok(Secret::new(typed.into_bytes()))
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure::file(path, &error))
}

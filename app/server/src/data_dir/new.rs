//! Making a data directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_crypto::{CryptoRng, Provider, Secret, UnixTime};
use countersign_pki::TlsName;

use super::files::{is_occupied, make_dir, parent, sync_dir, write_new};
use super::{
    DataError, ENCRYPTION, KDF, MARKER, RISK, TLS_NAMES, certificate_path, key_path, marker,
    names_to_text, to_pem,
};
use crate::ca::{Made, Maker, Trees};
use crate::config::Config;
use crate::risk_file::INITIAL_RULES;
use crate::seal::{Derivation, Sealer};

/// From when on a directory that is still being made counts as left behind.
const LEFTOVER_AFTER: Duration = Duration::from_secs(86_400);
/// Random bytes in the name of a directory being made.
const SUFFIX_BYTES: usize = 8;

/// A data directory that is being made beside its final place; [`Self::publish`] puts it there at
/// once.
///
/// A crash leaves at the final place either nothing or the whole directory, with its keys and, if
/// that is SQLite, its store. A PostgreSQL database is not part of it: what is done there is done
/// after publishing, so that a database never depends on keys that are lost. A crash may leave
/// `.NAME.init-…` beside the final place; the next [`Self::build`] for the same place removes it
/// once it is a day old.
pub struct NewDataDir {
    building: PathBuf,
    target: PathBuf,
}

/// What a new data directory holds.
pub struct Init<'a> {
    /// Opens the keys.
    pub passphrase: &'a Secret,
    /// The passphrase was made up: leave it in the directory.
    pub keep_passphrase: bool,
    /// The id in the server's certificate, which readers are set up for.
    pub server_id: &'a str,
    /// Names in the HTTPS certificate.
    pub tls_names: &'a [TlsName],
    /// First settings.
    pub config: &'a Config,
}

impl NewDataDir {
    /// Makes everything but the store. The devices' certificates are of the provider's suite, for
    /// as long as the directory lives.
    ///
    /// # Errors
    /// [`DataError::NotEmpty`] and what making files may meet.
    pub fn build(
        target: &Path,
        init: &Init<'_>,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DataError> {
        if is_occupied(target)? {
            return Err(DataError::NotEmpty(target.to_owned()));
        }
        remove_leftovers(target, now);
        let mut random = [0; SUFFIX_BYTES];
        rng.fill_bytes(&mut random);
        let suffix = data_encoding::HEXLOWER.encode(&random);
        let building = target.with_file_name(format!("{}{suffix}", building_prefix(target)));
        let new = Self { building, target: target.to_owned() };
        new.fill(init, provider, now, rng)?;
        Ok(new)
    }

    fn fill(
        &self,
        init: &Init<'_>,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DataError> {
        make_dir(&self.building)?;
        for dir in SUBDIRS {
            make_dir(&self.building.join(dir))?;
        }
        let trees = Maker { provider, rng, now }.trees(init.server_id, init.tls_names)?;
        let derivation = Derivation::fresh(rng);
        let sealer = derivation.derive(init.passphrase)?;
        let text = toml::to_string(&derivation).expect("numbers and short strings");
        self.write(KDF, text.as_bytes())?;
        self.write_trees(&trees, &sealer, rng)?;
        self.write(TLS_NAMES, names_to_text(init.tls_names).as_bytes())?;
        self.write("config.toml", init.config.initial().as_bytes())?;
        self.write(RISK, INITIAL_RULES.as_bytes())?;
        if init.keep_passphrase {
            self.write("passphrase", init.passphrase.expose())?;
        }
        self.write(MARKER, marker(provider.suite).as_bytes())
    }

    fn write_trees(
        &self,
        trees: &Trees,
        sealer: &Sealer,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DataError> {
        let made: [(&str, &str, &Made); 6] = [
            ("ca/root.pem", "root", &trees.root),
            ("ca/devices.pem", "devices", &trees.devices),
            ("ca/servers.pem", "servers", &trees.servers),
            ("ca/server.pem", "server", &trees.server),
            ("tls/root.pem", "tls-root", &trees.tls_root),
            ("tls/server.pem", "tls", &trees.tls),
        ];
        for (path, name, made) in made {
            self.write(path, to_pem(&made.certificate).as_bytes())?;
            self.write(&key_path(name), &sealer.seal(name, &made.key.pkcs8, rng)?)?;
        }
        let second = &trees.server_encryption;
        self.write(&certificate_path(ENCRYPTION), to_pem(&second.certificate).as_bytes())?;
        let sealed = sealer.seal(ENCRYPTION, &second.key.pkcs8, rng)?;
        self.write(&key_path(ENCRYPTION), &sealed)?;
        self.write(&key_path("audit"), &sealer.seal("audit", &trees.audit.pkcs8, rng)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        write_new(&self.building.join(name), bytes)
    }

    /// Where the store is to be made before [`Self::publish`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.building
    }

    /// Puts the directory in its place, once all of it is on the disk.
    ///
    /// # Errors
    /// [`DataError::NotEmpty`] if something appeared there meanwhile; the system's.
    pub fn publish(self) -> Result<PathBuf, DataError> {
        for dir in SUBDIRS {
            sync_dir(&self.building.join(dir))?;
        }
        sync_dir(&self.building)?;
        fs::rename(&self.building, &self.target).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                DataError::NotEmpty(self.target.clone())
            }
            _ => DataError::Io { path: self.target.clone(), source },
        })?;
        let target = self.target.clone();
        sync_dir(parent(&target))?;
        Ok(target)
    }
}

impl Drop for NewDataDir {
    fn drop(&mut self) {
        // After publishing there is nothing left under this name.
        let _gone = fs::remove_dir_all(&self.building);
    }
}

/// The directory's own directories.
const SUBDIRS: [&str; 4] = ["ca", "tls", "keys", "audit"];

/// What a directory being made for this place is called, up to its random suffix.
fn building_prefix(target: &Path) -> String {
    format!(".{}.init-", target.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what an `init` for the same place left behind when it was killed. Another that still
/// runs is younger than [`LEFTOVER_AFTER`]. A leftover that stays is no reason to make nothing.
fn remove_leftovers(target: &Path, now: UnixTime) {
    let prefix = building_prefix(target);
    let Ok(entries) = fs::read_dir(parent(target)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let ours = suffix.is_some_and(|suffix| {
            suffix.len() == 2 * SUFFIX_BYTES && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if ours && is_leftover(&entry.path(), now) {
            let _stays = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_leftover(path: &Path, now: UnixTime) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    found.is_dir() && UnixTime::from_secs(found.mtime().unsigned_abs()).plus(LEFTOVER_AFTER) < now
}

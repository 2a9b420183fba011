//! Where a new PUK goes: into a file of its holder's, or on the screen.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_crypto::Secret;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Where a new PUK goes.
#[derive(Args)]
pub(crate) struct PukFile {
    /// New file for the PUK, for its owner only; without, the PUK is printed.
    #[arg(long, value_name = "FILE")]
    puk_file: Option<PathBuf>,
}

impl PukFile {
    /// Makes the file, before there is a PUK: none is made that cannot be kept.
    pub(in crate::device) fn create(&self) -> Result<KeptPuk, Failure> {
        let Some(path) = &self.puk_file else { return Ok(KeptPuk { file: None, filled: false }) };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(KeptPuk { file: Some((path.clone(), file)), filled: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let detail = format!("{} exists: a PUK replaces no file", path.display());
                Err(Failure::usage("puk-file", detail))
            }
            Err(error) => Err(Failure::file(path, &error)),
        }
    }
}

/// The place for a PUK. A file that was not filled goes again.
pub(in crate::device) struct KeptPuk {
    file: Option<(PathBuf, File)>,
    filled: bool,
}

impl KeptPuk {
    /// Keeps a PUK in its file, or tells it.
    pub(in crate::device) fn keep(
        &mut self,
        puk: &Secret,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.file else {
            let digits = String::from_utf8_lossy(puk.expose());
            output.text += &format!("\nPUK         {digits} (shown once: keep it, not here)");
            output.json["puk"] = json!(digits);
            return Ok(());
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        file.write_all(puk.expose())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|error| {
                let mut failure = Failure::file(path, &error);
                failure.detail += "; the device has a PUK that nobody has seen: its command \
                                   `puk` makes another";
                failure
            })?;
        self.filled = true;
        output.text += &format!("\nPUK         in {}", path.display());
        output.json["pukFile"] = json!(path);
        Ok(())
    }

    /// Says that there is no new PUK, where a file was to have it: that is not made.
    pub(in crate::device) fn keep_none(&self, output: &mut Output) {
        if let Some((path, _)) = &self.file {
            let path = path.display();
            output.text += &format!("\nPUK         as it was; {path} is not written");
            output.json["pukFile"] = json!(null);
        }
    }
}

impl Drop for KeptPuk {
    fn drop(&mut self) {
        if let (Some((path, _)), false) = (&self.file, self.filled) {
            let _gone = remove_file(path);
        }
    }
}

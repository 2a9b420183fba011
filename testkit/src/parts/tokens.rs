//! Software tokens behind PKCS#11 modules: SoftHSM2, and kryoptic, whose OAEP does SHA-256.
//!
//! A module reads where its tokens are from a variable when it is initialised, so whoever loads it
//! is a child process that was given [`Pkcs11Token::environment`].

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::PartError;

/// Where distributions put SoftHSM2's module.
const SOFTHSM_MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];
/// Where `cargo xtask ci` puts the other's, below the folder of builds.
const KRYOPTIC_MODULE: &str = "parts/kryoptic/libkryoptic_pkcs11.so";
/// The PIN of every token's user, and of its security officer. Tests only.
const PIN: &str = "135792468013";
const SO_PIN: &str = "864208642086";

/// SoftHSM2, the Debian package. Version 2.6 does OAEP with SHA-1 only.
#[derive(Debug)]
pub struct SoftHsm {
    module: PathBuf,
}

/// kryoptic, built by `cargo xtask ci --only parts`. Its OAEP does SHA-256.
#[derive(Debug)]
pub struct Kryoptic {
    module: PathBuf,
}

/// A fresh token in a folder of its own, gone with this value.
#[derive(Debug)]
pub struct Pkcs11Token {
    module: PathBuf,
    label: String,
    variable: &'static str,
    folder: TempDir,
}

impl SoftHsm {
    /// Finds the module and its program.
    ///
    /// # Errors
    /// [`PartError::Absent`].
    pub fn find() -> Result<Self, PartError> {
        let module = SOFTHSM_MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        // Tests look at its tokens with a program of another maker.
        let module = module.filter(|_| on_path("softhsm2-util") && on_path("pkcs11-tool"));
        let install = "run: apt-get install -y softhsm2 opensc";
        let module = module.ok_or(PartError::Absent { what: "SoftHSM2", install })?;
        Ok(Self { module })
    }

    /// A fresh token with this label.
    ///
    /// # Errors
    /// [`PartError::Failed`], [`PartError::System`].
    pub fn token(&self, label: &str) -> Result<Pkcs11Token, PartError> {
        let token = Pkcs11Token::new(&self.module, label, "SOFTHSM2_CONF")?;
        let folder = token.files();
        fs::create_dir(&folder).map_err(PartError::system("making the token's folder"))?;
        token.configure(&format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = true\n",
            folder.display()
        ))?;
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN]);
        token.run("softhsm2-util", &mut init)?;
        Ok(token)
    }
}

impl Kryoptic {
    /// Finds the module, and the program that sets its tokens up.
    ///
    /// # Errors
    /// [`PartError::Absent`].
    pub fn find() -> Result<Self, PartError> {
        let install = "run: cargo xtask ci --only packages,parts";
        let module = built(KRYOPTIC_MODULE).filter(|_| on_path("pkcs11-tool"));
        let module = module.ok_or(PartError::Absent { what: "kryoptic", install })?;
        Ok(Self { module })
    }

    /// A fresh token with this label.
    ///
    /// # Errors
    /// [`PartError::Failed`], [`PartError::System`].
    pub fn token(&self, label: &str) -> Result<Pkcs11Token, PartError> {
        self.token_without(label, &[])
    }

    /// A fresh token whose user has no PIN yet.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub fn token_without_pin(&self, label: &str) -> Result<Pkcs11Token, PartError> {
        self.initialised(label, &[])
    }

    /// A fresh token that does not have these mechanisms (`CKM_…`).
    ///
    /// # Errors
    /// As [`Self::token`].
    pub fn token_without(
        &self,
        label: &str,
        mechanisms: &[&str],
    ) -> Result<Pkcs11Token, PartError> {
        let token = self.initialised(label, mechanisms)?;
        let login = ["--init-pin", "--login", "--login-type", "so", "--new-pin", PIN];
        token.run("pkcs11-tool", self.tool().args(login))?;
        Ok(token)
    }

    fn initialised(&self, label: &str, denied: &[&str]) -> Result<Pkcs11Token, PartError> {
        let token = Pkcs11Token::new(&self.module, label, "KRYOPTIC_CONF")?;
        let mut slot = format!(
            "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            token.files().display()
        );
        if !denied.is_empty() {
            let denied: Vec<_> = denied.iter().map(|name| format!(", \"{name}\"")).collect();
            slot += &format!("mechanisms = [\"DENY\"{}]\n", denied.concat());
        }
        token.configure(&slot)?;
        token.run("pkcs11-tool", self.tool().args(["--init-token", "--label", label]))?;
        Ok(token)
    }

    fn tool(&self) -> Command {
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(&self.module).args(["--slot", "1", "--so-pin", SO_PIN]);
        tool
    }
}

impl Pkcs11Token {
    fn new(module: &Path, label: &str, variable: &'static str) -> Result<Self, PartError> {
        let folder = tempfile::Builder::new()
            .prefix("countersign-token-")
            .tempdir()
            .map_err(PartError::system("making a token's folder"))?;
        Ok(Self { module: module.to_owned(), label: label.to_owned(), variable, folder })
    }

    /// The module to load.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The PIN of its user.
    #[must_use]
    pub const fn pin(&self) -> &'static str {
        PIN
    }

    /// The variable by which the module finds the token: for child processes.
    #[must_use]
    pub fn environment(&self) -> (&'static str, PathBuf) {
        (self.variable, self.folder.path().join("module.conf"))
    }

    /// The file or folder that is the token: moved away, the token is gone.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn configure(&self, text: &str) -> Result<(), PartError> {
        fs::write(self.environment().1, text).map_err(PartError::system("configuring a token"))
    }

    fn run(&self, what: &'static str, command: &mut Command) -> Result<(), PartError> {
        let (name, value) = self.environment();
        let output = command.env(name, value).output();
        let output = output.map_err(PartError::system("setting up a token"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let detail = String::from_utf8_lossy(&said).trim().to_owned();
        Err(PartError::Failed { what, detail })
    }
}

pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(OsStr::new(program)).is_file())
}

/// What was made below the folder of builds that this program is in.
pub(super) fn built(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join(name)).find(|path| path.is_file())
}

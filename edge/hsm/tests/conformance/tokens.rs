//! The suite over tokens, and what only tokens do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use countersign_crypto::Secret;
use countersign_hsm::{HsmError, Pkcs11Config, Pkcs11Vault, TokenName};
use libtest_mimic::{Failed, Trial};
use testkit::parts::{Kryoptic, PartError, Pkcs11Token, Required, SoftHsm, require};

use crate::cases::CASES;
use crate::stage::{Able, Stage};

mod exchange;
mod refusals;
mod signing;

/// The label of every token here.
pub(crate) const LABEL: &str = "countersign test";
const STEP: &str = "--step";

pub(crate) fn trials() -> Vec<Trial> {
    let softhsm = require(SoftHsm::find());
    let kryoptic = require(Kryoptic::find());
    let mut trials = suite("SoftHSM2", &softhsm, Able::NoTdesNoOaepSha256, SoftHsm::token);
    trials.extend(suite("kryoptic", &kryoptic, Able::NoTdes, Kryoptic::token));
    for (name, steps) in refusals::SOFTHSM.iter().chain(signing::SOFTHSM) {
        trials.push(softhsm.trial(format!("SoftHSM2: {name}"), move |softhsm| {
            run_steps(&softhsm.token(LABEL)?, Able::NoTdesNoOaepSha256, steps)
        }));
    }
    for (name, steps) in signing::TRIALS {
        trials.push(softhsm.trial(format!("SoftHSM2: {name}"), move |softhsm| {
            run_steps(&softhsm.token(LABEL)?, Able::NoTdesNoOaepSha256, steps)
        }));
        trials.push(kryoptic.trial(format!("kryoptic: {name}"), move |kryoptic| {
            run_steps(&kryoptic.token(LABEL)?, Able::NoTdes, steps)
        }));
    }
    let both = require(SoftHsm::find().and_then(|softhsm| Ok((softhsm, Kryoptic::find()?))));
    trials.push(both.trial("SoftHSM2 and kryoptic: a whole injection", |(softhsm, kryoptic)| {
        let (server, terminal) = (softhsm.token(LABEL)?, kryoptic.token(LABEL)?);
        let folder = tempfile::tempdir()?;
        ["inject", "after-restart"].into_iter().try_for_each(|step| {
            let (name, value) = server.environment();
            let mut command = step_command(&terminal, server.module(), folder.path(), step)?;
            run_step(step, command.arg("all").env(name, value))
        })
    }));
    trials.push(kryoptic.trial("kryoptic: a PIN that was refused is not sent again", |kryoptic| {
        run_steps(&kryoptic.token(LABEL)?, Able::NoTdes, &["pin-changed"])
    }));
    trials.push(kryoptic.trial("kryoptic: a locked PIN is named", |kryoptic| {
        run_steps(&kryoptic.token(LABEL)?, Able::NoTdes, &["pin-locked"])
    }));
    trials.push(kryoptic.trial("kryoptic: a token without a PIN is named", |kryoptic| {
        run_steps(&kryoptic.token_without_pin(LABEL)?, Able::NoTdes, &["pin-not-set"])
    }));
    trials.push(kryoptic.trial("kryoptic: a token without the mechanisms", |kryoptic| {
        let lacking = ["CKM_AES_CMAC", "CKM_SHA256_RSA_PKCS"];
        let token = kryoptic.token_without(LABEL, &lacking)?;
        run_steps(&token, Able::NoTdes, &["without-mechanisms"])
    }));
    trials
}

/// A fresh token for each case, a process for each step.
fn suite<P: Send + Sync + 'static>(
    name: &str,
    part: &Required<P>,
    able: Able,
    token: fn(&P, &str) -> Result<Pkcs11Token, PartError>,
) -> Vec<Trial> {
    let trial = |case: &'static crate::cases::Case| {
        part.trial(format!("{name}: {}", case.name), move |part| {
            let token = token(part, LABEL)?;
            let folder = tempfile::tempdir()?;
            for number in 0..case.steps.len() {
                child(&token, able, folder.path(), &format!("{number}:{}", case.name))?;
            }
            Ok(())
        })
    };
    CASES.iter().map(trial).collect()
}

fn run_steps(token: &Pkcs11Token, able: Able, steps: &[&str]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    steps.iter().try_for_each(|step| child(token, able, folder.path(), step))
}

/// Runs one step in a process that knows where the token is.
fn child(token: &Pkcs11Token, able: Able, folder: &Path, step: &str) -> Result<(), Failed> {
    let mut command = step_command(token, &token.files(), folder, step)?;
    run_step(step, command.arg(if able == Able::NoTdes { "all" } else { "no-oaep-sha256" }))
}

fn step_command(
    token: &Pkcs11Token,
    files: &Path,
    folder: &Path,
    step: &str,
) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([STEP, step]).arg(token.module()).arg(files).arg(folder).arg(token.pin());
    let (name, value) = token.environment();
    command.env(name, value);
    Ok(command)
}

fn run_step(step: &str, command: &mut Command) -> Result<(), Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{step} ({}): {said}", output.status).into())
}

/// What this program does as such a process.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) module: PathBuf,
    /// Where the token's files are, or another module.
    pub(crate) files: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) pin: String,
    pub(crate) able: Able,
}

impl Step {
    pub(crate) fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        if arguments.next()? != STEP {
            return None;
        }
        let mut next = || arguments.next().unwrap();
        let (name, module, files, folder) = (next(), next().into(), next().into(), next().into());
        let pin = next();
        let able = if next() == "all" { Able::NoTdes } else { Able::NoTdesNoOaepSha256 };
        Some(Self { name, module, files, folder, pin, able })
    }

    pub(crate) fn run(&self) {
        if let Some((number, name)) = self.name.split_once(':') {
            let case = CASES.iter().find(|case| case.name == name).unwrap();
            let vault = Arc::new(self.open().unwrap());
            let stage = Stage::over_token(vault, self.able, &self.folder);
            case.steps[number.parse::<usize>().unwrap()](&stage);
            return;
        }
        match self.name.as_str() {
            "inject" => exchange::inject(self),
            "after-restart" => exchange::after_restart(self),
            _ if signing::run(self) => {}
            _ => refusals::run(self),
        }
    }

    pub(crate) fn config(&self) -> Pkcs11Config {
        Pkcs11Config {
            module: self.module.clone(),
            token: TokenName::Label(LABEL.into()),
            pin: Secret::copied_from(self.pin.as_bytes()),
        }
    }

    pub(crate) fn open(&self) -> Result<Pkcs11Vault, HsmError> {
        self.open_with(self.config())
    }

    pub(crate) fn open_with(&self, config: Pkcs11Config) -> Result<Pkcs11Vault, HsmError> {
        Pkcs11Vault::open(config, testkit::rng::seeded(3))
    }
}

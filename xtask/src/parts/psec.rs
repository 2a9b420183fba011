//! psec, a foreign implementation of TR-31 in Python, in an environment of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::child::run;

const REQUIREMENTS: &str = include_str!("../../parts/psec/requirements.txt");
/// The interpreter, as the tests know it.
const PYTHON: &str = "bin/python";
/// What the environment was made from; written last.
const MADE_FROM: &str = "made-from";

/// Makes the environment under `parts`, unless it was made from the same versions before.
///
/// # Errors
/// If Python has no `venv`, or pip cannot fetch the packages.
pub(super) fn build(parts: &Path) -> Result<()> {
    let folder = parts.join("psec");
    if is_made(&folder) {
        println!("   made before: psec");
        return Ok(());
    }
    let _none_before = fs::remove_file(folder.join(MADE_FROM));
    fs::create_dir_all(&folder).context("making psec's folder")?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let python = || Command::new(folder.join(PYTHON));
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(python().args(quiet).arg(&requirements))?;
    run(python().args(["-c", "import psec.tr31"]))?;
    fs::write(folder.join(MADE_FROM), REQUIREMENTS)?;
    Ok(())
}

fn is_made(folder: &Path) -> bool {
    let same = fs::read_to_string(folder.join(MADE_FROM)).is_ok_and(|text| text == REQUIREMENTS);
    same && folder.join(PYTHON).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_or_no_interpreter_is_made_again() {
        let folder = std::env::temp_dir().join(format!("countersign-psec-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        assert!(!is_made(&folder));
        fs::write(folder.join(MADE_FROM), REQUIREMENTS).unwrap();
        assert!(!is_made(&folder), "no interpreter");
        fs::write(folder.join(PYTHON), "").unwrap();
        assert!(is_made(&folder));
        fs::write(folder.join(MADE_FROM), "psec==0").unwrap();
        assert!(!is_made(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_version_is_fixed() {
        let packages = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        assert!(packages.clone().count() >= 2);
        for package in packages {
            assert!(package.contains("=="), "{package}");
        }
    }
}

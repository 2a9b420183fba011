//! A PKCS#11 software token that does OAEP with SHA-256, which SoftHSM2 2.6 does not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::child::{cargo, run};

const MANIFEST: &str = include_str!("../../parts/kryoptic/manifest.toml");
const LOCK: &str = include_str!("../../parts/kryoptic/packages.lock");
/// The module, as the tests know it.
const MODULE: &str = "libkryoptic_pkcs11.so";
/// What the module was built from; written last.
const BUILT_FROM: &str = "built-from";

/// Builds the module under `parts`, unless it was built from the same versions before. About a
/// minute.
///
/// # Errors
/// If cargo cannot fetch or build it.
pub(super) fn build(parts: &Path) -> Result<()> {
    let folder = parts.join("kryoptic");
    if is_built(&folder) {
        println!("   built before: kryoptic");
        return Ok(());
    }
    fs::create_dir_all(&folder).context("making kryoptic's folder")?;
    fs::write(folder.join("Cargo.toml"), MANIFEST)?;
    fs::write(folder.join("Cargo.lock"), LOCK)?;
    fs::write(folder.join("lib.rs"), "")?;
    let mut build = cargo(&["build", "--locked", "--release", "-p", "kryoptic"]);
    // A folder of its own, whatever the caller's cargo uses.
    build.current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
    run(&mut build)?;
    fs::copy(folder.join("target/release").join(MODULE), folder.join(MODULE))
        .context("taking kryoptic's module")?;
    fs::write(folder.join(BUILT_FROM), built_from())?;
    Ok(())
}

fn is_built(folder: &Path) -> bool {
    let same = fs::read_to_string(folder.join(BUILT_FROM)).is_ok_and(|text| text == built_from());
    same && folder.join(MODULE).is_file()
}

fn built_from() -> String {
    format!("{MANIFEST}{LOCK}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_has_the_versions_that_the_manifest_wants() {
        let manifest: toml::Table = toml::from_str(MANIFEST).unwrap();
        let lock: toml::Table = toml::from_str(LOCK).unwrap();
        let packages = lock["package"].as_array().unwrap();
        for (name, wanted) in manifest["dependencies"].as_table().unwrap() {
            let version = wanted["version"].as_str().unwrap().strip_prefix('=').unwrap();
            let locked = packages.iter().find(|package| package["name"].as_str() == Some(name));
            assert_eq!(locked.unwrap()["version"].as_str(), Some(version), "{name}");
        }
    }

    #[test]
    fn another_version_or_no_module_is_built_again() {
        let folder = std::env::temp_dir().join(format!("countersign-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(!is_built(&folder));
        fs::write(folder.join(BUILT_FROM), built_from()).unwrap();
        assert!(!is_built(&folder), "no module");
        fs::write(folder.join(MODULE), "").unwrap();
        assert!(is_built(&folder));
        fs::write(folder.join(BUILT_FROM), "an older version").unwrap();
        assert!(!is_built(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}

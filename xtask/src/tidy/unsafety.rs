//! `unsafe` is forbidden in every crate.

use std::fs;

use anyhow::{Context, Result};
use toml::Table;

use super::Findings;
use crate::workspace::Metadata;

/// Every package takes the workspace's lints, and those forbid `unsafe` everywhere in it: library,
/// programs, tests. `forbid` cannot be lifted again inside.
pub(super) fn check(manifest: &str, metadata: &Metadata, findings: &mut Findings) -> Result<()> {
    if !workspace_forbids(manifest)? {
        findings.error("Cargo.toml: the workspace's lints do not forbid unsafe_code");
    }
    for package in &metadata.packages {
        if !metadata.workspace_members.contains(&package.id) {
            continue;
        }
        let text = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("{}", package.manifest_path.display()))?;
        if !takes_the_lints(&text)? {
            findings.error(format!("{}: [lints] workspace = true is missing", package.name));
        }
    }
    Ok(())
}

fn workspace_forbids(manifest: &str) -> Result<bool> {
    let manifest: Table = manifest.parse().context("Cargo.toml")?;
    let lint = ["workspace", "lints", "rust", "unsafe_code"];
    let (first, rest) = lint.split_first().context("a lint has a name")?;
    let value = rest.iter().try_fold(manifest.get(*first), |value, key| Some(value?.get(key)));
    Ok(value.flatten().and_then(toml::Value::as_str) == Some("forbid"))
}

fn takes_the_lints(manifest: &str) -> Result<bool> {
    let manifest: Table = manifest.parse().context("a package's Cargo.toml")?;
    let workspace = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(workspace.and_then(toml::Value::as_bool) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_must_forbid_not_merely_deny() {
        assert!(workspace_forbids("[workspace.lints.rust]\nunsafe_code = \"forbid\"").unwrap());
        assert!(!workspace_forbids("[workspace.lints.rust]\nunsafe_code = \"deny\"").unwrap());
        assert!(!workspace_forbids("[workspace]").unwrap());
    }

    #[test]
    fn a_package_must_take_the_lints() {
        assert!(takes_the_lints("[lints]\nworkspace = true").unwrap());
        assert!(!takes_the_lints("[lints]\nworkspace = false").unwrap());
        assert!(!takes_the_lints("[package]\nname = \"a\"").unwrap());
    }
}

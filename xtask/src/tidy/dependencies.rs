//! Every dependency has its reason on one page.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use toml::Table;

use super::Findings;
use crate::workspace::Metadata;

/// The page, relative to the workspace.
pub(super) const PAGE: &str = "docs/dependencies.md";

/// Compares the workspace's manifest, the page, and what the packages use.
pub(super) fn check(
    manifest: &str,
    page: &str,
    metadata: &Metadata,
    findings: &mut Findings,
) -> Result<()> {
    let declared = declared(manifest)?;
    let explained = explained(page);
    for name in declared.difference(&explained) {
        findings.error(format!("{PAGE}: no reason for `{name}`"));
    }
    for name in explained.difference(&declared) {
        findings.error(format!("{PAGE}: `{name}` is no dependency any more"));
    }
    let members = metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id));
    let used: BTreeSet<String> =
        members.flat_map(|package| &package.dependencies).map(|d| d.name.clone()).collect();
    for name in declared.difference(&used) {
        findings.warn(format!("Cargo.toml: nothing uses `{name}`"));
    }
    Ok(())
}

/// Names under `[workspace.dependencies]`, our own crates excepted.
fn declared(manifest: &str) -> Result<BTreeSet<String>> {
    let manifest: Table = manifest.parse().context("Cargo.toml")?;
    let dependencies = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(|dependencies| dependencies.as_table())
        .context("Cargo.toml has no [workspace.dependencies]")?;
    let foreign = dependencies.iter().filter(|(_, value)| value.get("path").is_none());
    Ok(foreign.map(|(name, _)| name.clone()).collect())
}

/// Names in the first column of the page's tables, written as code.
fn explained(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let names = cells.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`'));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        [workspace.dependencies]
        ours = { path = "core/ours" }
        hex = "0.4"
        der = { version = "0.8" }
    "#;

    fn findings(page: &str) -> Findings {
        let json = r#"{"target_directory":"","workspace_members":["a"],"resolve":null,"packages":[
            {"id":"a","name":"a","manifest_path":"","dependencies":[
                {"name":"hex","kind":"dev"}]}]}"#;
        let mut findings = Findings::default();
        let metadata = serde_json::from_str(json).unwrap();
        check(MANIFEST, page, &metadata, &mut findings).unwrap();
        findings
    }

    #[test]
    fn each_dependency_has_a_reason_and_each_reason_a_dependency() {
        let good = findings("| Crate | Why |\n|---|---|\n| `hex`, `der` | they are good |\n");
        assert_eq!(good.errors, [""; 0]);
        assert_eq!(good.warnings, ["Cargo.toml: nothing uses `der`"]);
        let bad = findings("| `hex` | good, and `der` is mentioned only |\n| `gone` | old |\n");
        assert_eq!(
            bad.errors,
            [
                "docs/dependencies.md: no reason for `der`",
                "docs/dependencies.md: `gone` is no dependency any more",
            ]
        );
    }

    #[test]
    fn a_manifest_without_the_table_is_an_error() {
        assert!(declared("[workspace]").is_err());
        assert!(declared("no toml").is_err());
    }
}

//! The project's own rules, those no other tool checks. CONTRIBUTING.md says them in words.

mod dependencies;
mod text;
mod tiers;
mod unsafety;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::child::root;
use crate::workspace;

/// What the rules found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Each fails the step.
    errors: Vec<String>,
    /// Each is printed only.
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
}

/// Applies all rules to all files and all packages.
///
/// # Errors
/// If a rule is broken, after all were printed; or if the files cannot be read.
pub(crate) fn check() -> Result<()> {
    let root = root();
    let mut findings = Findings::default();
    let files = workspace::files()?;
    for path in &files {
        let bytes = fs::read(root.join(path)).with_context(|| format!("{}", path.display()))?;
        // What is no text (a photo, a vector) has no lines.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            text::check(path, text, &root, &mut findings);
        }
    }
    let metadata = workspace::metadata()?;
    tiers::check(&metadata, &root, &mut findings);
    let manifest = read(&root, "Cargo.toml")?;
    let page = read(&root, dependencies::PAGE)?;
    dependencies::check(&manifest, &page, &metadata, &mut findings)?;
    unsafety::check(&manifest, &metadata, &mut findings)?;
    report(&findings, files.len())
}

fn read(root: &std::path::Path, name: &str) -> Result<String> {
    fs::read_to_string(root.join(name)).with_context(|| name.to_owned())
}

fn report(findings: &Findings, files: usize) -> Result<()> {
    for warning in &findings.warnings {
        println!("   warning: {warning}");
    }
    for error in &findings.errors {
        println!("   error: {error}");
    }
    if !findings.errors.is_empty() {
        bail!("{} broken rules in {files} files", findings.errors.len());
    }
    println!("   {files} files are tidy");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_pass_and_errors_fail() {
        let mut findings = Findings::default();
        findings.warn("large");
        assert!(report(&findings, 1).is_ok());
        findings.error("too large");
        assert!(report(&findings, 1).is_err());
    }
}

//! What cargo and git say about this workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::child::{capture, cargo, root};

/// Folders that a build or a run makes, and git's own.
const MADE: [&str; 6] =
    [".git", "target", "countersign-data", "fuzz/artifacts", "fuzz/coverage", "fuzz/target"];

/// The part of `cargo metadata` that is looked at here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) target_directory: PathBuf,
    pub(crate) resolve: Option<Resolve>,
}

/// A package, of the workspace or not.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// The resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package in the resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// An edge of the resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

/// How an edge is used.
#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    /// `None` for normal.
    pub(crate) kind: Option<String>,
}

/// Everything, with all features on.
pub(crate) fn metadata() -> Result<Metadata> {
    parse(&["metadata", "--format-version=1", "--all-features"])
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    Ok(parse(&["metadata", "--format-version=1", "--no-deps"])?.target_directory)
}

fn parse(arguments: &[&str]) -> Result<Metadata> {
    let json = capture(&mut cargo(arguments))?;
    serde_json::from_str(&json).context("cargo metadata is not as expected")
}

/// The project's files relative to its folder: tracked, or new and not ignored. Without git's
/// knowledge (an unpacked archive) all that do not look made by a build or a run.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let root = root();
    if !root.join(".git").exists() {
        let mut files = Vec::new();
        walk(&root, Path::new(""), &mut files)?;
        return Ok(files);
    }
    let mut git = Command::new("git");
    // A checkout made by another user is still only listed here.
    git.args(["-c", "safe.directory=*", "ls-files", "-z"]);
    git.args(["--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let listing = capture(&mut git)?;
    let exists = |path: &&Path| root.join(path).is_file();
    let paths = listing.split('\0').filter(|name| !name.is_empty()).map(Path::new);
    Ok(paths.filter(exists).map(Path::to_path_buf).collect())
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_file() {
            files.push(path);
        } else if kind.is_dir() && !MADE.iter().any(|made| path == Path::new(made)) {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_listing_find_the_sources_and_no_build() {
        let mut walked = Vec::new();
        walk(&root(), Path::new(""), &mut walked).unwrap();
        for files in [files().unwrap(), walked] {
            assert!(files.contains(&PathBuf::from("xtask/src/workspace.rs")));
            assert!(!files.iter().any(|path| path.starts_with("target")));
        }
    }
}

//! Dependencies only point down: `core` < `edge` < `app`; and what each floor must not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Findings;
use crate::workspace::{Metadata, Package};

/// Runtimes and sockets: nothing in `core` reaches them, not even through another crate.
const NO_RUNTIME: [&str; 7] = ["tokio", "mio", "socket2", "async-std", "smol", "polling", "hyper"];
/// What `core` must not name itself either: storage, clocks, the system, its randomness.
const NO_WORLD: [&str; 10] = [
    "rusqlite",
    "tokio-postgres",
    "nix",
    "getrandom",
    "axum",
    "rustls",
    "chrono",
    "serialport",
    "tempfile",
    "tracing-subscriber",
];
/// HTTP: `service` has none of its types.
const NO_HTTP: [&str; 6] = ["axum", "axum-server", "hyper", "http", "tower", "tower-http"];
/// Who may carry `testkit` in its product: the tools only.
const TOOLS: [&str; 3] = ["bench", "fuzz-entry", "xtask"];
/// The package of use cases.
const SERVICE: &str = "countersign-service";
const TESTKIT: &str = "testkit";
/// The folder of the fuzz targets.
const FUZZ: &str = "fuzz";

/// Applies the rules to every package of the workspace; development dependencies are free.
pub(super) fn check(metadata: &Metadata, root: &Path, findings: &mut Findings) {
    let members: BTreeMap<&str, (&Package, &str)> = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .filter_map(|package| Some((package.name.as_str(), (package, floor(package, root)?))))
        .collect();
    for (&name, &(package, floor)) in &members {
        let named: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.as_str())
            .collect();
        for dependency in &named {
            let below = members.get(dependency).map(|(_, floor)| *floor);
            if let Some(reason) = forbidden(name, floor, dependency, below) {
                findings.error(format!("{name} depends on {dependency}: {reason}"));
            }
        }
        if floor == "core" {
            for reached in reached(metadata, package).intersection(&NO_RUNTIME.into()) {
                findings.error(format!("{name} reaches {reached}: core has no runtime, no socket"));
            }
        }
    }
}

/// The first folder under the workspace: `core`, `edge`, `app`, or the tool's own.
fn floor<'a>(package: &'a Package, root: &Path) -> Option<&'a str> {
    package.manifest_path.strip_prefix(root).ok()?.iter().next()?.to_str()
}

/// Why the package `name` on `floor` may not name `dependency` (a member if `below` is known).
fn forbidden(
    name: &str,
    floor: &str,
    dependency: &str,
    below: Option<&str>,
) -> Option<&'static str> {
    let world = NO_WORLD.contains(&dependency) || NO_RUNTIME.contains(&dependency);
    match (floor, below) {
        ("core", Some("core")) => None,
        ("core", Some(_)) => Some("core depends on core only"),
        ("core", None) if world => Some("core does not know the outside world"),
        ("edge", Some("app")) => Some("dependencies point down"),
        (TESTKIT, Some("edge" | "app")) => Some("testkit stands on core only"),
        (FUZZ, Some("edge" | "app")) => Some("what is fuzzed is core: nothing else parses alone"),
        (TESTKIT, Some(_)) if TOOLS.contains(&dependency) => Some("a tool"),
        _ if name == SERVICE && NO_HTTP.contains(&dependency) => Some("service has no HTTP types"),
        ("edge" | "app", Some(_)) if dependency == TESTKIT => Some("testkit is for tests"),
        ("edge" | "app", Some(_)) if TOOLS.contains(&dependency) => Some("a tool"),
        _ => None,
    }
}

/// Names of all packages that `package` reaches by normal dependencies.
fn reached<'a>(metadata: &'a Metadata, package: &'a Package) -> BTreeSet<&'a str> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let graph: BTreeMap<&str, _> = nodes.map(|node| (node.id.as_str(), &node.deps)).collect();
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![package.id.as_str()];
    while let Some(id) = open.pop() {
        for edge in graph.get(id).into_iter().copied().flatten() {
            if edge.dep_kinds.iter().any(|kind| kind.kind.is_none()) && seen.insert(&*edge.pkg) {
                open.push(&edge.pkg);
            }
        }
    }
    seen.into_iter().filter_map(|id| names.get(id).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_down() {
        assert!(forbidden("countersign-pki", "core", "countersign-crypto", Some("core")).is_none());
        assert!(forbidden("countersign-pki", "core", "countersign-net", Some("edge")).is_some());
        assert!(forbidden("countersign-net", "edge", "countersign-pki", Some("core")).is_none());
        assert!(forbidden("countersign-net", "edge", "countersign-server", Some("app")).is_some());
        assert!(forbidden(SERVICE, "app", "countersign-store", Some("edge")).is_none());
    }

    #[test]
    fn core_does_not_know_the_world_and_service_no_http() {
        assert!(forbidden("countersign-pki", "core", "der", None).is_none());
        assert!(forbidden("countersign-pki", "core", "tokio", None).is_some());
        assert!(forbidden("countersign-pki", "core", "getrandom", None).is_some());
        assert!(forbidden("countersign-net", "edge", "tokio", None).is_none());
        assert!(forbidden(SERVICE, "app", "axum", None).is_some());
        assert!(forbidden("countersign-server", "app", "axum", None).is_none());
    }

    #[test]
    fn testkit_is_for_tests_and_tools() {
        assert!(forbidden("countersign-net", "edge", TESTKIT, Some(TESTKIT)).is_some());
        assert!(forbidden("bench", "bench", TESTKIT, Some(TESTKIT)).is_none());
        assert!(forbidden(TESTKIT, TESTKIT, "countersign-crypto", Some("core")).is_none());
        assert!(forbidden(TESTKIT, TESTKIT, "countersign-store", Some("edge")).is_some());
        assert!(forbidden("fuzz-entry", FUZZ, TESTKIT, Some(TESTKIT)).is_none());
        assert!(forbidden("fuzz-entry", FUZZ, "countersign-pki", Some("core")).is_none());
        assert!(forbidden("fuzz-entry", FUZZ, "countersign-net", Some("edge")).is_some());
        for (name, floor) in [("countersign-net", "edge"), (TESTKIT, TESTKIT)] {
            assert!(forbidden(name, floor, "fuzz-entry", Some(FUZZ)).is_some());
        }
    }

    /// `core/a` reaches tokio through `middle`; its development dependency `tool` is free.
    fn workspace(kind: &str) -> Metadata {
        let json = format!(
            r#"{{"target_directory":"/w/target","workspace_members":["a"],
            "packages":[
              {{"id":"a","name":"a","manifest_path":"/w/core/a/Cargo.toml","dependencies":[
                {{"name":"middle","kind":null}},{{"name":"nix","kind":"dev"}}]}},
              {{"id":"m","name":"middle","manifest_path":"/r/Cargo.toml","dependencies":[]}},
              {{"id":"t","name":"tokio","manifest_path":"/r/Cargo.toml","dependencies":[]}}],
            "resolve":{{"nodes":[
              {{"id":"a","deps":[{{"pkg":"m","dep_kinds":[{{"kind":{kind}}}]}}]}},
              {{"id":"m","deps":[{{"pkg":"t","dep_kinds":[{{"kind":null}}]}}]}},
              {{"id":"t","deps":[]}}]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn what_core_reaches_through_others_counts_unless_for_development() {
        let errors = |kind| {
            let mut findings = Findings::default();
            check(&workspace(kind), Path::new("/w"), &mut findings);
            findings.errors
        };
        assert_eq!(errors("null"), ["a reaches tokio: core has no runtime, no socket"]);
        assert_eq!(errors("\"dev\""), [""; 0]);
    }
}

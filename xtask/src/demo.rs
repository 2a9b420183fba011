//! The first command of the README, as a newcomer runs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::child::{capture_within, cargo, root, run as run_child};
use crate::workspace;

/// A second run finds what the first one leaves behind: ports, files, processes.
const RUNS: u32 = 2;
/// The demo takes seconds; a loaded machine may take longer, a hang longer still.
const LIMIT: Duration = Duration::from_secs(180);

/// What `countersign demo --json` prints.
#[derive(Deserialize)]
struct Report {
    ok: bool,
    flows: Vec<Flow>,
}

#[derive(Deserialize)]
struct Flow {
    id: String,
    ok: bool,
    steps: Vec<FlowStep>,
}

#[derive(Deserialize)]
struct FlowStep {
    id: String,
    ok: bool,
}

/// Builds the release program with default features only and runs its demo.
///
/// # Errors
/// If it does not build, does not end, or does not report success for every step.
pub(crate) fn run() -> Result<()> {
    run_child(&mut cargo(&["build", "--release", "--package", "countersign-cli"]))?;
    let program = workspace::target_folder()?.join("release/countersign");
    for _ in 0..RUNS {
        let mut demo = Command::new(&program);
        demo.args(["demo", "--json"]).current_dir(root());
        let steps = check(&capture_within(&mut demo, LIMIT)?)?;
        println!("   {steps} steps ok");
    }
    Ok(())
}

/// The number of steps, all successful, of exactly one JSON object.
fn check(stdout: &str) -> Result<usize> {
    let report: Report =
        serde_json::from_str(stdout).context("stdout of the demo is not one JSON report")?;
    let mut count = 0;
    for flow in &report.flows {
        for step in &flow.steps {
            ensure!(step.ok, "step {} of flow {} failed", step.id, flow.id);
        }
        ensure!(flow.ok && !flow.steps.is_empty(), "flow {} failed or has no step", flow.id);
        count += flow.steps.len();
    }
    ensure!(report.ok && count > 0, "the demo reports failure or no step at all");
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = r#"{"id":"C1","what":"handshake","ok":true,"ms":1.2}"#;

    fn report(ok: bool, flow_ok: bool, steps: &str) -> String {
        format!(r#"{{"ok":{ok},"flows":[{{"id":"C","ok":{flow_ok},"steps":[{steps}]}}]}}"#)
    }

    #[test]
    fn a_report_of_success_counts_its_steps() {
        let two = format!("{STEP},{STEP}");
        assert_eq!(check(&report(true, true, &two)).unwrap(), 2);
        assert_eq!(check(&format!("{}\n", report(true, true, STEP))).unwrap(), 1);
    }

    #[test]
    fn anything_less_is_a_failure() {
        let failed = STEP.replace("true", "false");
        for bad in [
            report(false, true, STEP),
            report(true, false, STEP),
            report(true, true, &failed),
            report(true, true, ""),
            r#"{"ok":true,"flows":[]}"#.to_owned(),
            r#"{"ok":true}"#.to_owned(),
            format!("step C1\n{}", report(true, true, STEP)),
            format!("{0}{0}", report(true, true, STEP)),
            String::new(),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}

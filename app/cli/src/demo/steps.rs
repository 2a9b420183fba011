//! Steps: what was done, whether its effect was right, and how long it took.

use std::time::Duration;

use serde_json::{Value, json};

use crate::device::millis;
use crate::output;

/// One step, by requirement id.
pub(crate) struct Step {
    id: &'static str,
    what: String,
    ok: bool,
    took: Duration,
}

/// A flow's steps.
pub(crate) struct Flow {
    id: &'static str,
    quiet: bool,
    pub(crate) steps: Vec<Step>,
}

impl Flow {
    /// A flow that prints its steps as they come, unless `quiet`.
    pub(crate) const fn new(id: &'static str, quiet: bool) -> Self {
        Self { id, quiet, steps: Vec::new() }
    }

    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            output::print(text);
        }
    }

    /// Notes a step. `checked` is the comparison of its effect with what it must be; what was seen
    /// instead goes into `what`.
    pub(crate) fn step(
        &mut self,
        id: &'static str,
        what: &str,
        checked: Result<(), String>,
        took: Duration,
    ) {
        let (ok, what) = match checked {
            Ok(()) => (true, what.to_owned()),
            Err(seen) => (false, format!("{what}: {seen}")),
        };
        let mark = if ok { "ok " } else { "BAD" };
        self.say(&format!("  {mark} {id:<4}{:>9.1} ms  {what}", millis(took)));
        self.steps.push(Step { id, what, ok, took });
    }

    pub(crate) fn ok(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.ok)
    }

    pub(crate) fn to_json(&self) -> Value {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "id": step.id,
                    "what": step.what,
                    "ok": step.ok,
                    "ms": millis(step.took),
                })
            })
            .collect();
        json!({ "id": self.id, "ok": self.ok(), "steps": steps })
    }
}

/// Compares an effect with what it must be.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    seen: &T,
    wanted: &T,
) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{what} is {seen:?}, not {wanted:?}")) }
}

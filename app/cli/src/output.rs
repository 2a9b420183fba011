//! What a command prints: one JSON value with `--json`, else text; people's words go to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::{Blame, Failure};

/// The one name of all checks that depend on a secret.
const SECRET_DEPENDENT: &str = "authentication";

/// A command's result in both forms.
pub(crate) struct Output {
    pub(crate) json: Value,
    pub(crate) text: String,
    /// The command ran, but what it found is bad news (exit code 1).
    pub(crate) refused: bool,
}

impl Output {
    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), refused: false }
    }

    /// For commands that have printed all they had to say.
    pub(crate) fn none() -> Self {
        Self::new(Value::Null, "")
    }
}

/// Prints a command's result and gives its exit code.
pub(crate) fn finish(json: bool, result: Result<Output, Failure>) -> ExitCode {
    match result {
        Ok(output) => {
            if json {
                if !output.json.is_null() {
                    print(&output.json.to_string());
                }
            } else if !output.text.is_empty() {
                print(&output.text);
            }
            ExitCode::from(u8::from(output.refused))
        }
        Err(failure) => {
            if json {
                print(&failure_json(&failure).to_string());
            } else {
                eprintln!("error: {} [{}]", failure.detail, failure.check);
            }
            ExitCode::from(failure.blame.exit_code())
        }
    }
}

/// A failure that depends on a secret names the incident instead of the check (interfaces.md).
fn failure_json(failure: &Failure) -> Value {
    match &failure.incident {
        Some(incident) if failure.check == SECRET_DEPENDENT => {
            json!({"error": {"incident": incident, "detail": failure.detail}})
        }
        _ => json!({"error": {"check": failure.check, "detail": failure.detail}}),
    }
}

/// Prints to stdout; a reader that went away is no failure of ours.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let _gone = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
}

/// Help and version as clap prints them; a usage error as JSON if `--json` was among the words.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && json {
        let detail = error.render().to_string();
        let detail = detail.trim_start_matches("error: ").trim_end().to_owned();
        return finish(true, Err(Failure::usage("usage", detail)));
    }
    let _gone = error.print();
    if error.use_stderr() { ExitCode::from(Blame::Usage.exit_code()) } else { ExitCode::SUCCESS }
}

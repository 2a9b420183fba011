//! What a command prints: one JSON value with `--json`, else text; people's words go to stderr.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use countersign_device::TOKEN_REFUSED;
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
    let last = Last::of(json, result);
    if let Some(text) = last.stdout {
        print(&text);
    }
    if let Some(text) = last.stderr {
        print_error(&text);
    }
    ExitCode::from(last.code)
}

/// A command's last words.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    stdout: Option<String>,
    stderr: Option<String>,
    code: u8,
}

impl Last {
    fn of(json: bool, result: Result<Output, Failure>) -> Self {
        match result {
            Ok(output) => {
                let stdout = if json {
                    Some(output.json).filter(|json| !json.is_null()).map(|json| json.to_string())
                } else {
                    Some(output.text).filter(|text| !text.is_empty())
                };
                Self { stdout, stderr: None, code: u8::from(output.refused) }
            }
            Err(failure) => {
                let code = failure.blame.exit_code();
                if json && !failure.late {
                    let stdout = Some(failure_json(&failure).to_string());
                    return Self { stdout, stderr: None, code };
                }
                let text = format!("error: {} [{}]", failure.detail, failure.check);
                Self { stdout: None, stderr: Some(text), code }
            }
        }
    }
}

/// A failure that depends on a secret names the incident instead of the check (interfaces.md).
pub(crate) fn failure_json(failure: &Failure) -> Value {
    let error = error_json(failure);
    match failure.done.as_deref() {
        Some(Value::Object(done)) => {
            let mut value = done.clone();
            value.insert("error".to_owned(), error);
            value.into()
        }
        _ => json!({ "error": error }),
    }
}

/// The failure alone.
pub(crate) fn error_json(failure: &Failure) -> Value {
    match &failure.incident {
        Some(incident) if failure.check == SECRET_DEPENDENT => {
            json!({"incident": incident, "detail": failure.detail})
        }
        // One name for all that may be wrong with a token; the incident tells an operator which.
        Some(incident) if failure.check == TOKEN_REFUSED => {
            json!({"check": failure.check, "incident": incident, "detail": failure.detail})
        }
        _ => json!({"check": failure.check, "detail": failure.detail}),
    }
}

/// Prints to stderr.
pub(crate) fn print_error(text: &str) {
    eprintln!("{}", harmless(text));
}

/// Control characters, which may be a peer's, as JSON escapes: they shall not steer a terminal.
/// Ends of lines, also those of PEM, stay.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    let lines = text.split("\r\n").map(|line| line.chars().map(shown).collect::<String>());
    lines.collect::<Vec<_>>().join("\r\n").into()
}

/// Prints to stdout; a reader that went away is no failure of ours.
pub(crate) fn print(text: &str) {
    let text = harmless(text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sent_steers_no_terminal_and_json_stays_the_same_json() {
        let sent = "读\ta\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\r";
        assert_eq!(harmless(sent), "读\ta\\u001b]0;x\\u0007\\u009b2J\\u007f\\u000d");
        let value = json!({ "serial": sent });
        let (text, printed) = (value.to_string(), harmless(&value.to_string()).into_owned());
        assert!(text.contains('\u{9b}') && !printed.contains(char::is_control));
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
        assert_eq!(harmless("-----\r\nA\r\r\nB\r"), "-----\r\nA\\u000d\r\nB\\u000d");
        assert!(matches!(harmless("two\nlines"), Cow::Borrowed("two\nlines")));
    }

    #[test]
    fn stdout_has_one_json_value_also_when_a_running_command_fails() {
        let failure = || Failure::environment("sam", "it ended");
        let early = Last::of(true, Err(failure()));
        let value = r#"{"error":{"check":"sam","detail":"it ended"}}"#;
        assert_eq!(early, Last { stdout: Some(value.into()), stderr: None, code: 3 });
        let text = Last { stdout: None, stderr: Some("error: it ended [sam]".into()), code: 3 };
        assert_eq!(Last::of(true, Err(failure().late())), text);
        assert_eq!(Last::of(false, Err(failure())), text);
        assert_eq!(Last::of(false, Err(failure().late())), text);
        let nothing = Last { stdout: None, stderr: None, code: 0 };
        assert_eq!(Last::of(true, Ok(Output::none())), nothing);
        assert_eq!(Last::of(false, Ok(Output::none())), nothing);
        let partly = Last::of(true, Err(failure().after(json!({"reads": [1]}))));
        let value = r#"{"reads":[1],"error":{"check":"sam","detail":"it ended"}}"#;
        assert_eq!(partly, Last { stdout: Some(value.into()), stderr: None, code: 3 });
        let done = Last::of(true, Ok(Output::new(json!({"a": 1}), "text")));
        assert_eq!(done.stdout.as_deref(), Some(r#"{"a":1}"#));
    }
}

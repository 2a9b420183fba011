//! What the card's display shows: to people, to programs, and as a picture in a file.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_device::Rendering;
use countersign_payment::Line;
use countersign_payment::joint::Language;
use countersign_payment::joint::card::View;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::device::key::{display_json, display_text};
use crate::failure::Failure;

/// The picture's name in the directory that was given for it.
const FILE: &str = "display.png";

/// What is displayed, on its own.
#[derive(PartialEq, Eq)]
pub(super) struct Shown {
    view: &'static str,
    lines: Vec<Line>,
    tries_left: Option<u8>,
    password: Option<Password>,
}

/// A joint password in one rendering. What is said of it to programs is the secret itself: this
/// program's output is the card's display.
#[derive(PartialEq, Eq)]
struct Password {
    rendering: Rendering,
    /// Of the pictures.
    names: Vec<&'static str>,
    text: Zeroizing<String>,
    png: Zeroizing<Vec<u8>>,
}

impl Shown {
    pub(super) fn of(view: &View<'_>, rendering: Rendering, language: Language) -> Self {
        let plain = |view| Self { view, lines: Vec::new(), tries_left: None, password: None };
        match view {
            View::Idle => plain("idle"),
            View::Loaded => plain("loaded"),
            View::TakeOut { lines } => Self { lines: lines.to_vec(), ..plain("take-out") },
            View::Consent { lines, tries_left } => {
                Self { lines: lines.to_vec(), tries_left: *tries_left, ..plain("consent") }
            }
            View::Password { lines, password } => Self {
                lines: lines.to_vec(),
                password: Some(Password {
                    rendering,
                    names: password.pictures().map(|picture| picture.name(language)).to_vec(),
                    text: rendering.text(password, language),
                    png: rendering.image(password).png(),
                }),
                ..plain("password")
            },
            View::Declined => plain("declined"),
            View::TimedOut => plain("timed-out"),
            View::Blocked => plain("blocked"),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut event = json!({ "event": "display", "view": self.view });
        if !self.lines.is_empty() {
            event["display"] = display_json(&self.lines);
        }
        if let Some(left) = self.tries_left {
            event["triesLeft"] = json!(left);
        }
        if let Some(password) = &self.password {
            event["rendering"] = json!(password.rendering.name());
            event["shown"] = json!(*password.text);
            if password.rendering == Rendering::Pictures {
                event["pictures"] = json!(password.names);
            }
        }
        event
    }

    pub(super) fn text(&self) -> String {
        let said = match self.view {
            "loaded" => "a payment has come, and is to be signed",
            "take-out" => "take the card out, and look at this payment (out)",
            "consent" => "is this the payment that you mean? PIN and confirm (pin, ok), or no",
            "password" => "give this to the terminal, and to nobody else",
            "declined" => "declined; the joint password is destroyed",
            "timed-out" => "the time is over; the joint password is destroyed",
            "blocked" => "blocked by wrong PINs: its PUK unblocks it",
            _ => "ready",
        };
        let mut text = format!("The card shows: {said}");
        if !self.lines.is_empty() {
            text += &format!("\n{}", display_text(&self.lines));
        }
        if let Some(left) = self.tries_left.filter(|left| *left < PIN_TRIES) {
            text += &format!("\n  PIN tries {left}");
        }
        if let Some(password) = &self.password {
            text += &format!("\n\n{}\n", password.text.trim_end_matches('\n'));
        }
        text
    }
}

/// Tries of a PIN; only fewer are worth a word.
const PIN_TRIES: u8 = 3;

/// The display as a picture in a directory, there only while a joint password is displayed.
pub(super) struct Picture {
    file: PathBuf,
}

impl Picture {
    /// In this directory, which is made, private to its owner, if it is not there. What an earlier
    /// program left is removed.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| Failure::file(dir, &error))?;
        let picture = Self { file: dir.join(FILE) };
        picture.clear().map_err(|error| Failure::file(&picture.file, &error))?;
        Ok(picture)
    }

    /// Shows what is shown: replaced at once, so that who waits for the file never sees half of it.
    pub(super) fn show(&self, shown: &Shown) -> Result<(), Failure> {
        let done = match &shown.password {
            Some(password) => self.write(&password.png),
            None => self.clear(),
        };
        done.map_err(|error| Failure::file(&self.file, &error))
    }

    fn write(&self, png: &[u8]) -> io::Result<()> {
        let new = self.file.with_extension("new");
        remove(&new)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&new)?.write_all(png)?;
        fs::rename(&new, &self.file)
    }

    fn clear(&self) -> io::Result<()> {
        remove(&self.file.with_extension("new"))?;
        remove(&self.file)
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        let _gone = self.clear();
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

//! How the terminal comes by the joint password (B7): typed, scanned, or from the card itself.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::mem::replace;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_device::{CardSigned, SCAN_BYTES_MAX, scan};
use countersign_payment::PaymentError;
use countersign_payment::joint::{JointPassword, Picture};
use countersign_server::ambient;

use super::stop::Stop;
use crate::device::typed_line::TypedLine;
use crate::device::which_device::{Place, link};
use crate::failure::Failure;
use crate::output::print_error;

/// How often something mistyped, which the server is not asked about, is asked for again.
const MISTYPED_MAX: u32 = 10;
/// Between two looks at a file, or at a card that is not confirmed yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where joint passwords come from.
pub(super) enum Source {
    /// From whoever stands at the terminal.
    Typed,
    /// From pictures in a file.
    File(PathBuf),
    /// From one picture on stdin.
    Stdin,
    /// From the card at a contactless reader.
    Contactless(Option<String>),
}

impl Source {
    pub(super) fn scan(file: &str) -> Self {
        if file == "-" { Self::Stdin } else { Self::File(PathBuf::from(file)) }
    }

    /// Refused where there is no such contactless reader: looked for before anybody pays. What is
    /// held to it does not matter yet.
    pub(super) fn is_there(&self) -> Result<(), Failure> {
        let Self::Contactless(Some(reader)) = self else { return Ok(()) };
        match link(Some(reader), Duration::ZERO) {
            Err(failure) if NO_READER.contains(&&*failure.check) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Begins to wait: a picture that is there already is of another payment.
    /// `signed_at` is the place of the card when it signed.
    pub(super) fn begin(&self, ends: Ends, signed_at: Place) -> Begun<'_> {
        let seen = match self {
            Self::File(file) => version(file),
            _ => None,
        };
        Begun { source: self, ends, seen, signed_at }
    }
}

/// What is said where there is no reader of a name.
const NO_READER: [&str; 5] =
    ["pcsc-not-built", "pcsc-service", "reader-absent", "reader-unknown", "reader-ambiguous"];

/// When nobody waits any more.
pub(super) struct Ends {
    /// The payment's time is over.
    pub(super) at: UnixTime,
    /// The same as the server told it, for people.
    pub(super) told: String,
    /// The terminal was stopped.
    pub(super) stop: Stop,
}

impl Ends {
    fn check(&self) -> Result<(), Failure> {
        self.stop.check()?;
        if ambient().clock.now() >= self.at {
            return Err(Failure::check("payment-expired", "the payment's time is over"));
        }
        Ok(())
    }

    /// A moment's wait.
    fn pause(&self) -> Result<(), Failure> {
        self.check()?;
        self.stop.pause(LOOK_EVERY)
    }

    /// Does what blocks, on a thread that nobody waits for once it has ended.
    fn before<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = sync_channel(1);
        thread::spawn(move || {
            let _nobody_waits = tell.send(work());
        });
        loop {
            match told.recv_timeout(LOOK_EVERY) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::environment("task", "reading broke off"));
                }
            }
        }
    }
}

/// Which version of a file: of one that is replaced, the inode or the time differs.
type Version = (u64, i64, i64, u64);

fn version(file: &Path) -> Option<Version> {
    let of = |data: Metadata| (data.ino(), data.mtime(), data.mtime_nsec(), data.len());
    file.metadata().ok().map(of)
}

/// A source at work.
pub(super) struct Begun<'a> {
    source: &'a Source,
    ends: Ends,
    /// The picture that was looked at last.
    seen: Option<Version>,
    /// Where the card was when it signed.
    signed_at: Place,
}

impl Begun<'_> {
    /// Whether a wrong joint password may be followed by another.
    pub(super) const fn may_ask_again(&self) -> bool {
        matches!(self.source, Source::Typed)
    }

    /// The joint password, once there is one.
    pub(super) fn obtain(&mut self, signed: &CardSigned) -> Result<JointPassword, Failure> {
        match self.source {
            Source::Typed => self.typed(),
            Source::File(file) => self.in_file(file),
            Source::Stdin => Ok(scan(&self.ends.before(|| picture(io::stdin().lock()))??)?),
            Source::Contactless(reader) => self.at_card(reader.as_deref(), signed),
        }
    }

    /// Waits for a picture that has a code, until the payment's time is over.
    fn in_file(&mut self, file: &Path) -> Result<JointPassword, Failure> {
        print_error(&format!("Scan the code that the card shows: {}", file.display()));
        let mut last = None;
        loop {
            let found = version(file);
            if found.is_some() && found != self.seen {
                self.seen = found;
                let opened = File::open(file).map_err(|error| Failure::file(file, &error));
                match opened.and_then(picture).and_then(|bytes| Ok(scan(&bytes)?)) {
                    Ok(password) => return Ok(password),
                    Err(failure) => {
                        print_error(&format!("{}; waiting for another.", failure.detail));
                        last = Some(failure);
                    }
                }
            }
            self.ends.pause().map_err(|over| match last.take() {
                Some(last) if !self.ends.stop.is_set() => last,
                _ => over,
            })?;
        }
    }

    /// The card gives it itself, once its holder has confirmed and holds it to the reader.
    fn at_card(&self, reader: Option<&str>, signed: &CardSigned) -> Result<JointPassword, Failure> {
        print_error("Then hold the card to the contactless reader.");
        let mut is_told = false;
        loop {
            let (place, released) = released(reader, signed);
            match released {
                Err(failure) if AWAITED.contains(&&*failure.check) => {}
                Err(failure) if OTHER_CARD.contains(&&*failure.check) => {
                    // The one that is still in the terminal is not held to it yet.
                    let is_in = place.as_ref() == Some(&self.signed_at);
                    if !is_in && !replace(&mut is_told, true) {
                        print_error(
                            "The card at the contactless reader has nothing for this payment; \
                             waiting for the one that signed it.",
                        );
                    }
                }
                settled => return settled,
            }
            self.ends.pause()?;
        }
    }

    /// Whoever stands at the terminal types it; an empty line, or the end, is a no.
    fn typed(&self) -> Result<JointPassword, Failure> {
        for _ in 0..MISTYPED_MAX {
            print_error(&format!(
                "Joint password, until {} (its digits, or the names of its pictures; empty: no):",
                self.ends.told
            ));
            let typed = self.ends.before(|| TypedLine::read(&mut io::stdin().lock()))?;
            let typed = typed.map_err(|error| Failure::environment("prompt", error.to_string()))?;
            match given(&typed) {
                Ok(password) => return Ok(password),
                Err(failure) if failure.check == DECLINED => return Err(failure),
                Err(failure) => print_error(&format!("{}; look again.", failure.detail)),
            }
        }
        Err(Failure::check(MISTYPED, "no joint password was typed as it is"))
    }
}

/// What a card at a contactless reader may say, or not say, before it gives its joint password.
const AWAITED: [&str; 8] = [
    "card-absent",
    "card-ambiguous",
    "card-removed",
    "card-reset",
    "card-mute",
    "card-busy",
    "card-link",
    "card-consent",
];

/// What another card says than the one that signed, or one that has lost its joint password.
const OTHER_CARD: [&str; 3] = ["card-not-ours", "card-nothing-released", "card-other-signature"];

/// What the card at a reader gives, and where that is.
fn released(
    reader: Option<&str>,
    signed: &CardSigned,
) -> (Option<Place>, Result<JointPassword, Failure>) {
    match link(reader, Duration::ZERO) {
        Ok((link, place)) => (Some(place), signed.fetch_password(link).map_err(Failure::from)),
        Err(failure) => (None, Err(failure)),
    }
}

/// A picture's bytes, of which there are not too many.
fn picture(source: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more, for the scanner to refuse it.
    let read = source.take(SCAN_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::environment("scan-file", error.to_string()))?;
    Ok(bytes)
}

/// Nobody gave a joint password.
const DECLINED: &str = "declined";
/// What was given has not the form of a joint password. It may be one all the same, with a slip in
/// it: it is not repeated.
const MISTYPED: &str = "joint-password-form";

fn mistyped() -> Failure {
    Failure::check(MISTYPED, "that is neither nine digits nor nine names of pictures")
}

/// The joint password of a line.
fn given(line: &TypedLine) -> Result<JointPassword, Failure> {
    match line {
        TypedLine::Text(line) if !line.is_empty() && **line != "no" => parsed(line),
        TypedLine::Unreadable => Err(mistyped()),
        TypedLine::Text(_) | TypedLine::End => {
            Err(Failure::check(DECLINED, "no joint password was given"))
        }
    }
}

/// Digits, or as many names of pictures.
fn parsed(line: &str) -> Result<JointPassword, Failure> {
    let refused = |error: PaymentError| Failure::check(error.check(), error.to_string());
    if !line.contains(char::is_alphabetic) {
        return JointPassword::parse(line).map_err(refused);
    }
    let is_between = |c: char| c.is_whitespace() || c == ',';
    let names = line.split(is_between).filter(|name| !name.is_empty());
    let pictures: Option<Vec<_>> = names.map(Picture::from_name).collect();
    JointPassword::from_pictures(&pictures.ok_or_else(mistyped)?).map_err(refused)
}

#[cfg(test)]
mod tests {
    use countersign_payment::joint::Language;
    use zeroize::Zeroizing;

    use super::*;

    fn typed(line: &str) -> Result<String, Failure> {
        let line = TypedLine::Text(Zeroizing::new(line.to_owned()));
        given(&line).map(|password| password.digits().to_owned())
    }

    #[test]
    fn digits_and_names_are_taken_and_a_slip_is_not_repeated() {
        let right = "0000 0000 3";
        let picture = |digit: usize| Picture::ALL[digit].name(Language::En).to_owned();
        let names = [vec![picture(0); 8], vec![picture(3)]].concat().join(", ");
        assert_eq!(typed(right).unwrap(), "000000003");
        assert_eq!(typed(&names).unwrap(), "000000003");
        for slip in ["0000 0000 2", "34282494O", "3428 2494", "cup tower bell", "数字"] {
            let failure = typed(slip).unwrap_err();
            assert_eq!(failure.check, MISTYPED, "{failure:?}");
            assert!(!failure.detail.contains(slip), "{failure:?}");
            assert!(!failure.detail.contains("34282494") && !failure.detail.contains("tower"));
        }
        assert_eq!(given(&TypedLine::Unreadable).unwrap_err().check, MISTYPED);
        for no in ["", "no"] {
            assert_eq!(typed(no).unwrap_err().check, DECLINED);
        }
        assert_eq!(given(&TypedLine::End).unwrap_err().check, DECLINED);
    }

    #[test]
    fn whoever_types_nothing_is_waited_for_until_the_end_and_no_longer() {
        let now = ambient().clock.now();
        let ends = |at| Ends { at, told: String::new(), stop: Stop::default() };
        let later = ends(now.plus(Duration::from_secs(600)));
        assert_eq!(later.before(|| 7).unwrap(), 7);
        // It would block for ever.
        let blocks = || {
            loop {
                thread::park();
            }
        };
        let over = ends(now).before::<()>(blocks).unwrap_err();
        assert_eq!(over.check, "payment-expired");
        later.stop.stop();
        assert_eq!(later.before::<()>(blocks).unwrap_err().check, "interrupted");
    }
}

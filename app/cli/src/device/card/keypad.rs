//! The card's keypad and its holder's hand: lines typed at this program.

use std::io::{self, BufRead, IsTerminal};

use countersign_crypto::Secret;
use countersign_device::Rendering;
use countersign_payment::joint::card::Interface;

use crate::device::typed_line::TypedLine;
use crate::output::print_error;

/// What its holder does with the card.
#[derive(Debug)]
pub(super) enum Key {
    /// Types a PIN.
    Pin(Secret),
    /// Presses "confirm".
    Confirm,
    /// Presses "no".
    Decline,
    /// Has the joint password shown in another way.
    Show(Rendering),
    /// Takes the card out of its reader, or away from it.
    Out,
    /// Puts it into a reader, or holds it to one.
    Into(Interface),
    /// The card's own power is gone.
    PowerLost,
    /// Ends the program.
    Quit,
    /// Looks at the display again.
    Look,
    /// Asks what there is to do.
    Help,
    /// A line that means nothing.
    Unknown,
}

/// What can be typed.
pub(super) const HELP: &str = "\
  out       take the card out of its reader
  pin, ok   type the PIN (not shown), and confirm
  no        decline: the payment is not made
  show WAY  show the joint password as digits, qr, code128 or pictures
  tap       hold the card to the contactless reader
  in        put the card into the reader with contacts
  look      look at the display again
  battery   take the card's battery out for a moment
  quit      end this program";

/// The key that a line stands for.
fn key(line: &str) -> Key {
    let mut words = line.split_whitespace();
    let (word, more) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() {
        return Key::Unknown;
    }
    match (word, more) {
        ("pin", Some(digits)) => Key::Pin(Secret::copied_from(digits.as_bytes())),
        ("ok", None) => Key::Confirm,
        ("no", None) => Key::Decline,
        ("show", Some(way)) => Rendering::from_name(way).map_or(Key::Unknown, Key::Show),
        ("out", None) => Key::Out,
        ("in", None) => Key::Into(Interface::Contact),
        ("tap", None) => Key::Into(Interface::Contactless),
        ("battery", None) => Key::PowerLost,
        ("look", None) => Key::Look,
        ("help" | "?", None) => Key::Help,
        ("quit", None) => Key::Quit,
        _ => Key::Unknown,
    }
}

/// Reads keys from stdin until it ends or nobody wants them. A PIN is asked for without an echo
/// where there is a terminal and it was not typed behind the word.
pub(super) fn read_keys(press: impl FnMut(Key) -> bool) {
    let stdin = io::stdin();
    let is_terminal = stdin.is_terminal();
    let is_over = read_keys_of(&mut stdin.lock(), is_terminal, press);
    if is_over && is_terminal {
        print_error("The keypad's input has ended: no key is taken any more (Ctrl-C ends all).");
    }
}

/// The same from any input; true when that ended.
fn read_keys_of(
    input: &mut impl BufRead,
    is_terminal: bool,
    mut press: impl FnMut(Key) -> bool,
) -> bool {
    loop {
        let wanted = match TypedLine::read(input) {
            Ok(TypedLine::Text(line)) => match line.as_str() {
                "" => continue,
                "pin" if is_terminal => {
                    let Ok(pin) = rpassword::prompt_password("PIN: ") else { continue };
                    Key::Pin(Secret::new(pin.into_bytes()))
                }
                line => key(line),
            },
            Ok(TypedLine::Unreadable) => Key::Unknown,
            Ok(TypedLine::End) | Err(_) => return true,
        };
        if !press(wanted) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_key_or_none() {
        assert!(matches!(key("pin 1234"), Key::Pin(pin) if pin.ct_eq(b"1234")));
        assert!(matches!(key("  ok "), Key::Confirm));
        assert!(matches!(key("tap"), Key::Into(Interface::Contactless)));
        assert!(matches!(key("in"), Key::Into(Interface::Contact)));
        assert!(matches!(key("show code128"), Key::Show(Rendering::Code128)));
        for unknown in ["pin", "pin 1 2", "ok now", "show", "show me", "OUT", "1234"] {
            assert!(matches!(key(unknown), Key::Unknown), "{unknown}");
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_an_unknown_key_and_not_the_last() {
        let mut keys = Vec::new();
        let press = |key| {
            keys.push(key);
            true
        };
        assert!(read_keys_of(&mut &b"out\n\n\xff\nok\npin 12\xc3\nno"[..], false, press));
        let [Key::Out, Key::Unknown, Key::Confirm, Key::Unknown, Key::Decline] = &keys[..] else {
            panic!("{keys:?}");
        };
        assert!(!read_keys_of(&mut &b"out\nok\n"[..], false, |_| false), "nobody wants them");
    }
}

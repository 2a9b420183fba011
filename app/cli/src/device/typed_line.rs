//! Lines that people type, and that may hold a secret.

use std::io::{self, BufRead, Read};
use std::mem::take;

use zeroize::{Zeroize, Zeroizing};

/// Longest line that is read, in bytes; a longer one is read as several.
const LINE_MAX: u64 = 256;

/// What was typed.
pub(super) enum TypedLine {
    /// A line, without the spaces around it.
    Text(Zeroizing<String>),
    /// Bytes that are no text.
    Unreadable,
    /// Nobody types any more.
    End,
}

impl TypedLine {
    /// Reads one line.
    pub(super) fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX as usize));
        if input.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Self::End);
        }
        let text = String::from_utf8(take(&mut *bytes)).map(Zeroizing::new);
        Ok(match text {
            Ok(text) => Self::Text(Zeroizing::new(text.trim().to_owned())),
            Err(error) => {
                error.into_bytes().zeroize();
                Self::Unreadable
            }
        })
    }
}

/// Reads lines until they end or nobody wants them: empty ones are passed over, `None` is one that
/// is no text.
pub(super) fn read_lines(input: &mut impl BufRead, mut typed: impl FnMut(Option<&str>) -> bool) {
    loop {
        let is_wanted = match TypedLine::read(input) {
            Ok(TypedLine::Text(line)) if line.is_empty() => continue,
            Ok(TypedLine::Text(line)) => typed(Some(&line)),
            Ok(TypedLine::Unreadable) => typed(None),
            Ok(TypedLine::End) | Err(_) => return,
        };
        if !is_wanted {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_until_nobody_wants_them() {
        let mut lines = Vec::new();
        read_lines(&mut &b"list\n\n\xff\nquit\nlist"[..], |line| {
            lines.push(line.map(str::to_owned));
            line != Some("quit")
        });
        assert_eq!(lines, [Some("list".to_owned()), None, Some("quit".to_owned())]);
    }

    #[test]
    fn what_is_no_text_is_one_line_and_not_the_end() {
        let long = "1".repeat(LINE_MAX as usize + 3);
        let typed = [b" ok \r\n\n\xff1\n", long.as_bytes(), b"\nno"].concat();
        let mut input = &*typed;
        let mut seen = Vec::new();
        loop {
            seen.push(match TypedLine::read(&mut input).unwrap() {
                TypedLine::Text(text) => text.to_string(),
                TypedLine::Unreadable => "?".to_owned(),
                TypedLine::End => break,
            });
        }
        let whole = "1".repeat(LINE_MAX as usize);
        assert_eq!(seen, ["ok", "", "?", &whole, "111", "no"]);
    }
}

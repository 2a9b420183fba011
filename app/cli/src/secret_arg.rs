//! Arguments that take a value, `@FILE` or `-` for stdin (interfaces.md): secrets in hex digits and
//! texts like key blocks.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use countersign_crypto::Secret;
use data_encoding::HEXUPPER_PERMISSIVE;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest value from a file or stdin, in bytes.
const VALUE_MAX: u64 = 64 * 1024;

/// The text itself, the content of `@FILE`, or of stdin for `-`; blanks around it do not count.
pub(crate) fn text(word: &str) -> Result<Zeroizing<String>, Failure> {
    let value = if word == "-" {
        limited(io::stdin().lock(), "stdin")?
    } else if let Some(path) = word.strip_prefix('@') {
        let path = Path::new(path);
        let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
        limited(file, &path.display().to_string())?
    } else {
        Zeroizing::new(word.to_owned())
    };
    Ok(Zeroizing::new(value.trim().to_owned()))
}

/// A secret in hex digits, from where [`text`] finds it. `name` is the argument's.
pub(crate) fn secret(name: &str, word: &str) -> Result<Secret, Failure> {
    digits(name, &text(word)?)
}

/// A secret from its hex digits.
pub(crate) fn digits(name: &str, digits: &str) -> Result<Secret, Failure> {
    let bytes = HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| {
        // What was given is not repeated: it may be most of a key.
        Failure::usage(name, format!("--{name} takes pairs of hex digits, @FILE or - for stdin"))
    })?;
    if bytes.is_empty() {
        return Err(Failure::usage(name, format!("--{name} is empty")));
    }
    Ok(Secret::new(bytes))
}

/// Stdin can be read once.
pub(crate) fn at_most_one_stdin(words: &[&str]) -> Result<(), Failure> {
    if words.iter().filter(|word| **word == "-").count() > 1 {
        return Err(Failure::usage("stdin", "only one argument can be - (stdin)"));
    }
    Ok(())
}

fn limited(source: impl Read, name: &str) -> Result<Zeroizing<String>, Failure> {
    let mut value = Zeroizing::new(Vec::with_capacity(VALUE_MAX as usize + 1));
    source
        .take(VALUE_MAX + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::environment("file", format!("{name}: {error}")))?;
    if value.len() as u64 > VALUE_MAX {
        return Err(Failure::usage("value-length", format!("{name} has more than 64 KiB")));
    }
    let text = std::str::from_utf8(&value)
        .map_err(|_| Failure::usage("value-text", format!("{name} is not text")))?;
    Ok(Zeroizing::new(text.to_owned()))
}

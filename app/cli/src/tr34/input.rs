//! What the commands take: tokens, certificates, lists and keys, each as PEM, DER or hex digits
//! from a file or, for `-`, from stdin.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use countersign_crypto::Secret;
use data_encoding::HEXUPPER_PERMISSIVE;
use tr34::aws_lc::SoftwareRsaKey;
use tr34::token::TOKEN_MAX;
use tr34::{Certificate, Leniency};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest file: the longest token in hex digits or PEM, and some text around it.
const FILE_MAX: u64 = 3 * TOKEN_MAX as u64;

/// The octets that a file has in one of the three forms; `name` is the argument's.
pub(super) fn octets(name: &str, word: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let content = content(word)?;
    let bad = |detail: &str| Failure::check(name, format!("--{name} {word}: {detail}"));
    if content.windows(11).any(|octets| octets == b"-----BEGIN ") {
        let pem = pem::parse(&*content).map_err(|_| bad("not one piece of PEM"))?;
        return Ok(Zeroizing::new(pem.into_contents()));
    }
    // DER begins with a SEQUENCE, which is the digit 0 in text.
    // At its final size at once, here and in what reads: growing would leave copies of a key.
    let mut digits = Zeroizing::new(Vec::with_capacity(content.len()));
    digits.extend(content.iter().filter(|octet| !octet.is_ascii_whitespace()));
    if !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) {
        let decoded = HEXUPPER_PERMISSIVE.decode(&digits).map_err(|_| bad("half a hex digit"))?;
        return Ok(Zeroizing::new(decoded));
    }
    if content.is_empty() { Err(bad("empty")) } else { Ok(content) }
}

pub(super) fn certificate(
    name: &str,
    word: &str,
    leniency: Leniency,
) -> Result<Certificate, Failure> {
    Ok(Certificate::parse_with(&octets(name, word)?, leniency)?)
}

/// A private key: PKCS#8 or PKCS#1.
pub(super) fn key(name: &str, word: &str) -> Result<SoftwareRsaKey, Failure> {
    let der = Secret::new(std::mem::take(&mut *octets(name, word)?));
    SoftwareRsaKey::from_pkcs8(&der).or_else(|_| SoftwareRsaKey::from_pkcs1(&der)).map_err(|_| {
        let detail = format!("--{name}: not an unencrypted RSA key of 2048, 3072 or 4096 bits");
        Failure::check("private-key", detail)
    })
}

/// Stdin can be read once.
pub(super) fn at_most_one_stdin(words: &[Option<&str>]) -> Result<(), Failure> {
    let words: Vec<&str> = words.iter().copied().flatten().collect();
    crate::secret_arg::at_most_one_stdin(&words)
}

fn content(word: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if word == "-" {
        return limited(io::stdin().lock(), "stdin");
    }
    let path = Path::new(word.strip_prefix('@').unwrap_or(word));
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    let size = file.metadata().map_err(|error| Failure::file(path, &error))?.len();
    if size > FILE_MAX {
        return Err(too_long(&path.display().to_string()));
    }
    limited(file, &path.display().to_string())
}

fn limited(source: impl Read, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 1));
    let read = source.take(FILE_MAX + 1).read_to_end(&mut content);
    read.map_err(|error| Failure::environment("file", format!("{name}: {error}")))?;
    if content.len() as u64 > FILE_MAX { Err(too_long(name)) } else { Ok(content) }
}

fn too_long(name: &str) -> Failure {
    Failure::check("token-too-long", format!("{name} is longer than any token"))
}

//! `config.toml` in the data directory.

use serde::{Deserialize, Serialize};

/// What an operator sets once. Command-line flags go before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `postgres://…`; absent: `store.sqlite` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What readers may do.
    pub readers: Readers,
    /// The SAM modules attached to this machine.
    #[serde(rename = "sam", skip_serializing_if = "Vec::is_empty")]
    pub sams: Vec<Sam>,
}

/// Policy for readers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Readers {
    /// C13: a reader may keep the decrypted record, under a random key of its own, to answer the
    /// next read of the same card. Off unless turned on here.
    pub plaintext_cache: bool,
}

/// One SAM module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sam {
    /// Path of the serial port.
    pub port: String,
    /// Speed; the modules' default is 115200.
    #[serde(default = "default_baud")]
    pub baud: u32,
}

const fn default_baud() -> u32 {
    countersign_net::serial::BAUD
}

impl Config {
    /// Parses the file's text.
    ///
    /// # Errors
    /// A sentence that names line and field, and quotes no value: it may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| before.matches('\n').count() + 1);
            let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{at}{}", without_value(error.message()))
        })
    }

    /// The file as `init` writes it, with what each setting means.
    #[must_use]
    pub fn initial(&self) -> String {
        let sams: String = self.sams.iter().map(Sam::section).collect();
        let database = match &self.database {
            Some(url) => format!("database = {}\n", quoted(url)),
            None => "# database = \"postgres://user@host/countersign\"  # else store.sqlite here\n"
                .to_owned(),
        };
        format!(
            "# Countersign server configuration. Command-line flags go before these settings.\n\
             {database}\n\
             [readers]\n\
             # A reader may keep a decrypted record, under a random key of its own, to answer the\n\
             # next read of the same card without the server (C13). Off by default.\n\
             plaintext_cache = {}\n\n\
             # One section per SAM module attached to this machine:\n\
             # [[sam]]\n\
             # port = \"/dev/ttyUSB0\"\n\
             # baud = 115200\n\
             {sams}",
            self.readers.plaintext_cache
        )
    }
}

impl Sam {
    fn section(&self) -> String {
        format!("\n[[sam]]\nport = {}\nbaud = {}\n", quoted(&self.port), self.baud)
    }
}

/// A TOML string of any text.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The parser's sentence without the string that it found in the wrong place.
fn without_value(message: &str) -> String {
    let quoted = ["invalid type: string \"", "invalid value: string \""]
        .iter()
        .find_map(|start| message.strip_prefix(start).map(|rest| (start, rest)));
    match quoted.and_then(|(start, rest)| Some((start, rest.rsplit_once('"')?))) {
        Some((start, (_value, after))) => format!("{}{after}", start.trim_end_matches(" \"")),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_what_serve_reads() {
        let sam = |port: &str| Sam { port: port.to_owned(), baud: 9600 };
        for (database, sams) in [
            (None, vec![]),
            (Some("postgres://cs@127.0.0.1:5432/db".to_owned()), vec![sam("/dev/ttyUSB0")]),
            (Some("postgres://cs:\u{7f}\"\\é@h/db".to_owned()), vec![sam("a\"b"), sam("c'\n")]),
        ] {
            let config = Config { database, readers: Readers { plaintext_cache: true }, sams };
            assert_eq!(Config::parse(&config.initial()).unwrap(), config);
        }
        let text = "[[sam]]\nport = \"/dev/ttyUSB0\"\n";
        assert_eq!(Config::parse(text).unwrap().sams[0].baud, 115_200);
    }

    #[test]
    fn a_mistyped_setting_is_named() {
        let error = Config::parse("[readers]\nplaintext_cash = true\n").unwrap_err();
        assert!(error.contains("plaintext_cash"), "{error}");
    }

    #[test]
    fn an_error_names_the_line_and_quotes_no_password() {
        let url = "postgres://cs:s3cret@h/db";
        for (text, line) in [
            (format!("database = \"{url}\nx = 1\n"), 1),
            (format!("\ndatabase = \"{url}\" junk\n"), 2),
            (format!("database = {url}\n"), 1),
            (format!("{url}\n"), 1),
            (format!("[readers]\nplaintext_cache = \"{url}\"\n"), 2),
            (format!("[[sam]]\nport = \"a\"\nbaud = \"x\\\"{url}\"\n"), 3),
            (format!("readers = '{url}'\n"), 1),
            (format!("databse = \"{url}\"\n"), 1),
        ] {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{text:?}: {error}");
            assert!(!error.contains("s3cret"), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }
}

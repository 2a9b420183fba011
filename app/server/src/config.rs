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
    /// next
    /// read of the same card. Off unless turned on here.
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
    /// A sentence that names line and field.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The file as `init` writes it, with what each setting means.
    #[must_use]
    pub fn initial(&self) -> String {
        let database = match &self.database {
            // A debug string is a valid TOML basic string for printable ASCII URLs.
            Some(url) => format!("database = {url:?}\n"),
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
             # baud = 115200\n",
            self.readers.plaintext_cache
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_what_serve_reads() {
        for database in [None, Some("postgres://cs@127.0.0.1:5432/db".to_owned())] {
            let config =
                Config { database, readers: Readers { plaintext_cache: true }, sams: vec![] };
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
}

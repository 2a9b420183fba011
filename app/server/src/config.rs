//! `config.toml` in the data directory.

mod approvals;
mod gateway;
mod http;
mod payments;
mod webhooks;

use std::path::PathBuf;

use countersign_crypto::Suite;
use countersign_net::policy_name;
use serde::Deserialize;

pub use approvals::{APPROVAL_HOURS_MAX, Approvals};
pub use gateway::{CONNECTIONS_LIMIT, Gateway};
pub use http::Http;
pub use payments::Payments;
pub use webhooks::Webhooks;

/// What an operator sets once. Command-line flags go before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `postgres://…`; absent: `store.sqlite` in the data directory.
    pub database: Option<String>,
    /// What readers may do.
    pub readers: Readers,
    /// How clients reach the API and the pages.
    pub http: Http,
    /// How devices may connect.
    pub gateway: Gateway,
    /// Who must agree to what changes keys.
    pub approvals: Approvals,
    /// Where the keys of injection live.
    pub keys: Keys,
    /// How payments are confirmed.
    pub payments: Payments,
    /// What webhooks may reach.
    pub webhooks: Webhooks,
    /// The SAM modules: attached to this machine, and at SAM hosts.
    #[serde(rename = "sam")]
    pub sams: Vec<SamAt>,
}

/// Policy for readers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Readers {
    /// C13: a reader may keep the decrypted record, under a random key of its own, to answer the
    /// next read of the same card. Off unless turned on here.
    pub plaintext_cache: bool,
}

/// Where the keys of injection live, and how long its CRLs hold: `[keys]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "KeysSection")]
pub struct Keys {
    /// The vault.
    pub vault: VaultAt,
    /// Days from the making of a CRL to its end, 1 to [`CRL_DAYS_MAX`].
    pub crl_days: u16,
}

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultAt {
    /// Sealed files in the data directory.
    File,
    /// A PKCS#11 token.
    Token {
        /// The module: a shared library.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// The file with the user's PIN; from the data directory if it is not absolute.
        pin_file: PathBuf,
    },
}

/// Days that a CRL holds unless said otherwise, and at most.
const CRL_DAYS: u16 = 7;
/// Most days that a CRL may hold.
pub const CRL_DAYS_MAX: u16 = 90;

impl Default for Keys {
    fn default() -> Self {
        Self { vault: VaultAt::File, crl_days: CRL_DAYS }
    }
}

/// A `[keys]` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KeysSection {
    vault: Option<String>,
    module: Option<PathBuf>,
    token: Option<String>,
    pin_file: Option<PathBuf>,
    crl_days: Option<u16>,
}

impl TryFrom<KeysSection> for Keys {
    type Error = String;

    fn try_from(section: KeysSection) -> Result<Self, String> {
        let KeysSection { vault, module, token, pin_file, crl_days } = section;
        let crl_days = crl_days.unwrap_or(CRL_DAYS);
        if !(1..=CRL_DAYS_MAX).contains(&crl_days) {
            return Err(format!("crl-days is a number from 1 to {CRL_DAYS_MAX}"));
        }
        let vault = match (vault.as_deref().unwrap_or("file"), module, token, pin_file) {
            ("file", None, None, None) => VaultAt::File,
            ("pkcs11", Some(module), Some(token), Some(pin_file)) => {
                VaultAt::Token { module, token, pin_file }
            }
            ("file" | "pkcs11", ..) => {
                let detail = "a vault \"pkcs11\" has a module, a token and a pin-file, and a \
                              vault \"file\" has none of these";
                return Err(detail.to_owned());
            }
            _ => return Err("vault is \"file\" or \"pkcs11\"".to_owned()),
        };
        Ok(Self { vault, crl_days })
    }
}

impl Keys {
    fn section(&self) -> String {
        let vault = match &self.vault {
            VaultAt::File => "vault = \"file\"\n\
                              # vault = \"pkcs11\"\n\
                              # module = \"/usr/lib/softhsm/libsofthsm2.so\"\n\
                              # token = \"countersign\"\n\
                              # pin-file = \"/run/credentials/countersign-pin\"\n"
                .to_owned(),
            VaultAt::Token { module, token, pin_file } => format!(
                "vault = \"pkcs11\"\nmodule = {}\ntoken = {}\npin-file = {}\n",
                quoted(&module.to_string_lossy()),
                quoted(token),
                quoted(&pin_file.to_string_lossy())
            ),
        };
        format!(
            "[keys]\n\
             # Where the private keys of the injection hierarchy live, and the key that protects\n\
             # every symmetric key in the database: \"file\" (sealed in keys/vault) or \"pkcs11\"\n\
             # (a token; in a build with the feature pkcs11). To be chosen before `rki init`.\n\
             {vault}\
             # Days that a CRL holds; it is made anew at half of it, and at each revocation.\n\
             crl-days = {}\n\n",
            self.crl_days
        )
    }
}

/// Most connections to one SAM host.
const HOST_CONNECTIONS_MAX: u8 = 32;

/// Where SAM modules are: a `[[sam]]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SamSection")]
pub enum SamAt {
    /// At a port of this machine.
    Port(Sam),
    /// At a SAM host.
    Host(SamHostAt),
}

/// One SAM module at a port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sam {
    /// Path of the serial port.
    pub port: String,
    /// Speed; the modules' default is 115200.
    pub baud: u32,
}

/// The modules of a SAM host (C12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamHostAt {
    /// `host:port`.
    pub host: String,
    /// The id in the host's certificate: its serial number.
    pub id: String,
    /// How many connections to keep: as many reads it serves at once.
    pub modules: u8,
}

/// A `[[sam]]` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SamSection {
    port: Option<String>,
    baud: Option<u32>,
    host: Option<String>,
    id: Option<String>,
    modules: Option<u8>,
}

impl TryFrom<SamSection> for SamAt {
    type Error = String;

    fn try_from(section: SamSection) -> Result<Self, String> {
        match section {
            SamSection { port: Some(port), baud, host: None, id: None, modules: None } => {
                Ok(Self::Port(Sam { port, baud: baud.unwrap_or_else(default_baud) }))
            }
            SamSection { port: None, baud: None, host: Some(host), id: Some(id), modules } => {
                let modules = modules.unwrap_or(1);
                if !(1..=HOST_CONNECTIONS_MAX).contains(&modules) {
                    return Err(format!("modules is a number from 1 to {HOST_CONNECTIONS_MAX}"));
                }
                Ok(Self::Host(SamHostAt { host, id, modules }))
            }
            _ => Err("a [[sam]] has a port (and a baud), or a host, its id (and modules)".into()),
        }
    }
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
        toml::from_str(text).map_err(|error| sentence(text, &error))
    }

    /// Whether a server of this suite can do what is set here.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self, suite: Suite) -> Result<(), String> {
        let sealed = self.gateway.policies.iter().find(|policy| policy.certificate_sealed);
        match sealed {
            Some(policy) if suite != Suite::SM2_SM4GCM_SM3 => Err(format!(
                "[gateway] policies: {} needs the suite sm2, and this server's is {}",
                policy_name(*policy),
                suite.name().unwrap_or("unknown")
            )),
            _ => Ok(()),
        }
    }

    /// The file as `init` writes it, with what each setting means.
    #[must_use]
    pub fn initial(&self) -> String {
        let sams: String = self.sams.iter().map(SamAt::section).collect();
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
             {}\
             {}\
             {}\
             {}\
             {}\
             {}\
             # One section per SAM module attached to this machine:\n\
             # [[sam]]\n\
             # port = \"/dev/ttyUSB0\"\n\
             # baud = 115200\n\
             # Or one per SAM host, with how many of its modules to use at once:\n\
             # [[sam]]\n\
             # host = \"sam1:8445\"\n\
             # id = \"SAMHOST-1\"\n\
             # modules = 2\n\
             {sams}",
            self.readers.plaintext_cache,
            self.gateway.section(),
            self.http.section(),
            self.approvals.section(),
            self.keys.section(),
            self.payments.section(),
            self.webhooks.section()
        )
    }
}

/// The file of `sam serve --config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SamPorts {
    #[serde(default, rename = "sam")]
    sams: Vec<toml::Spanned<SamAt>>,
}

/// Parses a SAM host's file: at least one `[[sam]]` with a port and, if wanted, a baud, as in
/// `config.toml`.
///
/// # Errors
/// As [`Config::parse`]; a section that names another host, for a host serves its own modules.
pub fn parse_sam_ports(text: &str) -> Result<Vec<Sam>, String> {
    let file: SamPorts = toml::from_str(text).map_err(|error| sentence(text, &error))?;
    if file.sams.is_empty() {
        return Err("there is no [[sam]] section".to_owned());
    }
    let port = |section: toml::Spanned<SamAt>| {
        let at = section.span().start;
        match section.into_inner() {
            SamAt::Port(sam) => Ok(sam),
            SamAt::Host(_) => Err(format!("{}a SAM host serves ports, not hosts", line(text, at))),
        }
    };
    file.sams.into_iter().map(port).collect()
}

fn line(text: &str, at: usize) -> String {
    let before = text.get(..at);
    before.map(|text| format!("line {}: ", text.matches('\n').count() + 1)).unwrap_or_default()
}

/// Line and field of an error, and no value.
fn sentence(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map(|span| line(text, span.start)).unwrap_or_default();
    format!("{at}{}", without_value(error.message()))
}

impl SamAt {
    fn section(&self) -> String {
        match self {
            Self::Port(Sam { port, baud }) => {
                format!("\n[[sam]]\nport = {}\nbaud = {baud}\n", quoted(port))
            }
            Self::Host(SamHostAt { host, id, modules }) => format!(
                "\n[[sam]]\nhost = {}\nid = {}\nmodules = {modules}\n",
                quoted(host),
                quoted(id)
            ),
        }
    }
}

/// The inside of a TOML array of plain names.
fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
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
    use countersign_channel::Mode;
    use countersign_net::policy_of;

    use super::*;

    #[test]
    fn what_init_writes_is_what_serve_reads() {
        let sam = |port: &str| SamAt::Port(Sam { port: port.to_owned(), baud: 9600 });
        let at = SamHostAt { host: "sam\"1:8445".into(), id: "H-1".into(), modules: 3 };
        let all = ["certificate-sealed", "mac", "encrypt", "encrypt+mac"].map(policy_of);
        let all = all.map(Result::unwrap).to_vec();
        let other = Gateway {
            handshakes: vec![Mode::C2],
            policies: all,
            datagrams: false,
            connections: 18_000,
            per_source: 20,
            advertise: Some("a.example:8444".to_owned()),
        };
        for (database, sams) in [
            (None, vec![]),
            (Some("postgres://cs@127.0.0.1:5432/db".to_owned()), vec![sam("/dev/ttyUSB0")]),
            (
                Some("postgres://cs:\u{7f}\"\\é@h/db".to_owned()),
                vec![sam("a\"b"), SamAt::Host(at), sam("c'\n")],
            ),
        ] {
            let readers = Readers { plaintext_cache: true };
            for gateway in [Gateway::default(), other.clone()] {
                let (database, sams) = (database.clone(), sams.clone());
                let keys = Keys { vault: token_vault(), crl_days: 3 };
                let readers = readers.clone();
                let approvals = Approvals { needed: 2, expires_hours: 8 };
                let config = Config {
                    database,
                    readers,
                    gateway,
                    approvals,
                    keys,
                    sams,
                    ..Config::default()
                };
                assert_eq!(Config::parse(&config.initial()).unwrap(), config);
            }
        }
        let text = "[[sam]]\nport = \"/dev/ttyUSB0\"\n";
        let expected = Sam { port: "/dev/ttyUSB0".into(), baud: 115_200 };
        assert_eq!(Config::parse(text).unwrap().sams, [SamAt::Port(expected)]);
        let text = "[[sam]]\nhost = \"sam1:8445\"\nid = \"H-1\"\n";
        let expected = SamHostAt { host: "sam1:8445".into(), id: "H-1".into(), modules: 1 };
        assert_eq!(Config::parse(text).unwrap().sams, [SamAt::Host(expected)]);
    }

    fn token_vault() -> VaultAt {
        let (module, pin_file) = (PathBuf::from("/lib/t\"oken.so"), PathBuf::from("pin"));
        VaultAt::Token { module, token: "hsm 1".into(), pin_file }
    }

    #[test]
    fn a_vault_is_files_or_a_whole_token() {
        let keys = |text: &str| Config::parse(&format!("[keys]\n{text}\n")).map(|c| c.keys);
        assert_eq!(keys("").unwrap(), Keys::default());
        assert_eq!(keys("vault = \"file\"\ncrl-days = 90").unwrap().crl_days, 90);
        for (section, words) in [
            ("vault = \"tpm\"", "vault is \"file\" or \"pkcs11\""),
            ("vault = \"pkcs11\"\nmodule = \"m\"\ntoken = \"t\"", "a pin-file"),
            ("vault = \"file\"\nmodule = \"m\"", "has none of these"),
            ("crl-days = 0", "from 1 to 90"),
            ("crl-days = 91", "from 1 to 90"),
            ("pin = \"1234\"", "unknown field `pin`"),
        ] {
            let error = keys(section).unwrap_err();
            assert!(error.starts_with("line ") && error.contains(words), "{section}: {error}");
            assert!(!error.contains("1234"), "{error}");
        }
    }

    #[test]
    fn a_sam_is_at_a_port_or_at_a_host_and_not_in_between() {
        for (section, words) in [
            ("", "has a port"),
            ("baud = 9600", "has a port"),
            ("host = \"h:1\"", "its id"),
            ("id = \"H\"", "its id"),
            ("host = \"h:1\"\nid = \"H\"\nport = \"p\"", "has a port"),
            ("port = \"p\"\nmodules = 2", "has a port"),
            ("host = \"h:1\"\nid = \"H\"\nmodules = 0", "from 1 to 32"),
            ("host = \"h:1\"\nid = \"H\"\nmodules = 33", "from 1 to 32"),
            ("host = \"h:1\"\nid = \"H\"\nmodule = 3", "module"),
        ] {
            let error = Config::parse(&format!("[[sam]]\n{section}\n")).unwrap_err();
            assert!(error.starts_with("line ") && error.contains(words), "{section}: {error}");
        }
    }

    #[test]
    fn a_sam_hosts_file_has_ports_only() {
        let text = "[[sam]]\nport = \"a\"\n\n[[sam]]\nport = \"b\"\nbaud = 9600\n";
        let [a, b] = [("a", 115_200), ("b", 9600)];
        let sam = |(port, baud): (&str, u32)| Sam { port: port.into(), baud };
        assert_eq!(parse_sam_ports(text).unwrap(), [sam(a), sam(b)]);
        for (text, words) in [
            ("", "no [[sam]] section"),
            ("# [[sam]]\n", "no [[sam]] section"),
            ("\n\n[[sam]]\nhost = \"h:1\"\nid = \"H\"\n", "line 3: a SAM host serves ports"),
            ("[[sam]]\nport = \"a\"\nbuad = 9600\n", "line 3: unknown field `buad`"),
            ("[[sam]]\nport = \"a\"\n[readers]\n", "line 3: unknown field `readers`"),
            ("[[sam]]\nport = \"a\"\nbaud = \"fast\"\n", "line 3: invalid type"),
            ("[[sam]]\nport = \"a\n", "line 2: "),
        ] {
            let error = parse_sam_ports(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_mistyped_setting_is_named() {
        let error = Config::parse("[readers]\nplaintext_cash = true\n").unwrap_err();
        assert!(error.contains("plaintext_cash"), "{error}");
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_and_the_known_ones_are_named() {
        for (setting, known) in [
            ("handshakes = [\"c1\", \"c3\"]", "there are c1 and c2"),
            ("policies = [\"none\"]", "encrypt+mac, mac, encrypt and certificate-sealed"),
            ("handshakes = []", "at least one"),
            ("policies = [\"mac\", \"mac\"]", "twice"),
            ("handshakes = \"c1\"", "expected a sequence"),
            ("datagrams = \"yes\"", "expected a boolean"),
        ] {
            let error = Config::parse(&format!("[gateway]\n{setting}\n")).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(known), "{setting}: {error}");
        }
    }

    #[test]
    fn only_a_suite_with_encryption_certificates_can_seal_to_them() {
        let text = "[gateway]\npolicies = [\"encrypt+mac\", \"certificate-sealed\"]\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.check(Suite::SM2_SM4GCM_SM3), Ok(()));
        let error = config.check(Suite::X25519_P256_AES128GCM_SHA256).unwrap_err();
        for word in ["policies", "certificate-sealed", "sm2", "p256"] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(Config::default().check(Suite::X25519_P256_AES128GCM_SHA256), Ok(()));
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
            (format!("[gateway]\nhandshakes = [\"{url}\"]\n"), 2),
            (format!("[gateway]\npolicies = \"{url}\"\n"), 2),
        ] {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{text:?}: {error}");
            assert!(!error.contains("s3cret"), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }
}

//! `[gateway]`: what the device gateway speaks, and how many it serves.

use countersign_channel::{Mode, Policy};
use countersign_net::{UnknownName, mode_name, mode_of, policy_name, policy_of};
use countersign_wallet::relay::message::ADDRESS_MAX;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{list, quoted};
use crate::gateway::{CONNECTIONS_MAX, PER_SOURCE_MAX};

/// Most contacts that a server may be set to; each takes a descriptor, which the system limits.
pub const CONNECTIONS_LIMIT: usize = 1_000_000;

/// What the device gateway speaks, and how many it serves: `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Gateway {
    /// The handshakes that devices may begin, by name: `c1`, `c2`.
    #[serde(deserialize_with = "handshakes")]
    pub handshakes: Vec<Mode>,
    /// The protection policies that devices may choose (A7), by name, the preferred one first.
    #[serde(deserialize_with = "policies")]
    pub policies: Vec<Policy>,
    /// Whether readers may also come over UDP, on the port with the same number: those behind a
    /// host do (C16). On by default: nothing is kept for a stranger, and none is answered with more
    /// than three times what he sent.
    pub datagrams: bool,
    /// Contacts at once, 1 to [`CONNECTIONS_LIMIT`].
    #[serde(deserialize_with = "number")]
    pub connections: usize,
    /// Contacts at once from one IPv4 address or IPv6 network, 1 to [`CONNECTIONS_LIMIT`].
    #[serde(deserialize_with = "number")]
    pub per_source: usize,
    /// Where devices reach this server's gateway, `host:port`: what sleeves are told that come to
    /// another server of the same database (A9). By default the address that it listens on, unless
    /// that is all of the machine's.
    #[serde(deserialize_with = "address")]
    pub advertise: Option<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            handshakes: vec![Mode::C1, Mode::C2],
            policies: vec![Policy::default()],
            datagrams: true,
            connections: CONNECTIONS_MAX,
            per_source: PER_SOURCE_MAX,
            advertise: None,
        }
    }
}

impl Gateway {
    pub(super) fn section(&self) -> String {
        let handshakes = list(self.handshakes.iter().map(|mode| mode_name(*mode)));
        let policies = list(self.policies.iter().map(|policy| policy_name(*policy)));
        let advertise = match &self.advertise {
            Some(address) => format!("advertise = {}\n", quoted(address)),
            None => "# advertise = \"cs1.example:8444\"\n".to_owned(),
        };
        format!(
            "[gateway]\n\
             # Handshakes that readers may begin: c1 (the reader proves itself first), c2 (the\n\
             # server shows its certificate first).\n\
             handshakes = [{handshakes}]\n\
             # How what they say may be protected, the preferred way first: encrypt+mac;\n\
             # encrypt (the same with keys of its own); mac (readable on the wire!);\n\
             # certificate-sealed (encrypt+mac, and the handshake's secret sealed to an\n\
             # encryption certificate as well: suite sm2 only).\n\
             policies = [{policies}]\n\
             # Whether they may also come over UDP, on the port with the same number, as readers\n\
             # behind a host do (countersign host).\n\
             datagrams = {}\n\
             # Contacts with devices at once, and of them from one address. Each takes an open\n\
             # file (ulimit -n, LimitNOFILE).\n\
             connections = {}\n\
             per-source = {}\n\
             # With several servers on one database: where this one's gateway is reached. Sleeves\n\
             # whose manager is connected here are sent to it. By default where it listens.\n\
             {advertise}\n",
            self.datagrams, self.connections, self.per_source
        )
    }
}

fn handshakes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Mode>, D::Error> {
    named(from, mode_of)
}

fn policies<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Policy>, D::Error> {
    named(from, policy_of)
}

/// At least one name, none twice.
fn named<'de, D: Deserializer<'de>, T: PartialEq>(
    from: D,
    of: fn(&str) -> Result<T, UnknownName>,
) -> Result<Vec<T>, D::Error> {
    let mut found = Vec::new();
    for name in Vec::<String>::deserialize(from)? {
        let one = of(&name).map_err(D::Error::custom)?;
        if found.contains(&one) {
            return Err(D::Error::custom("a name stands here twice"));
        }
        found.push(one);
    }
    if found.is_empty() {
        return Err(D::Error::custom("at least one name must stand here"));
    }
    Ok(found)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let number = usize::deserialize(from)?;
    if (1..=CONNECTIONS_LIMIT).contains(&number) {
        return Ok(number);
    }
    Err(D::Error::custom(format!("this is a number from 1 to {CONNECTIONS_LIMIT}")))
}

/// A host and a port; whether there is such a host is not looked at.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let address = String::deserialize(from)?;
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    if is_host && is_port && address.len() <= ADDRESS_MAX {
        return Ok(Some(address));
    }
    Err(D::Error::custom("advertise is a host and a port, host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn gateway(text: &str) -> Result<Gateway, String> {
        Config::parse(&format!("[gateway]\n{text}\n")).map(|config| config.gateway)
    }

    #[test]
    fn how_many_and_where_is_as_it_is_set() {
        assert_eq!(gateway("").unwrap(), Gateway::default());
        let text = "connections = 18000\nper-source = 20000\nadvertise = \"[2001:db8::1]:8444\"";
        let set = gateway(text).unwrap();
        assert_eq!((set.connections, set.per_source), (18_000, 20_000));
        assert_eq!(set.advertise.as_deref(), Some("[2001:db8::1]:8444"));
        for gateway in [Gateway::default(), set] {
            let config = Config { gateway: gateway.clone(), ..Config::default() };
            assert_eq!(Config::parse(&config.initial()).unwrap().gateway, gateway);
        }
    }

    #[test]
    fn numbers_and_addresses_that_cannot_be_are_refused() {
        for (text, words) in [
            ("connections = 0", "from 1 to"),
            ("connections = 1000001", "from 1 to"),
            ("per-source = 0", "from 1 to"),
            ("per_source = 1", "unknown field"),
            ("advertise = \"\"", "host:port"),
            ("advertise = \"host\"", "host:port"),
            ("advertise = \"host:0\"", "host:port"),
            ("advertise = \"host:x\"", "host:port"),
            ("advertise = \":8444\"", "host:port"),
            ("advertise = \"a host:8444\"", "host:port"),
        ] {
            let error = gateway(text).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(words), "{text}: {error}");
        }
        let long = format!("advertise = \"{}:8444\"", "a".repeat(ADDRESS_MAX));
        assert!(gateway(&long).unwrap_err().contains("host:port"));
    }
}

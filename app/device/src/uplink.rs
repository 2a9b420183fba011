//! How a reader reaches its server (C16): directly, over TCP or UDP, or through a host.

use std::fmt;
use std::net::SocketAddr;

use countersign_idcard::Delivery;
use countersign_net::serial::BAUD;

/// The way to the server, as `--gateway` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// `HOST:PORT`: a TCP connection of the reader's own.
    Tcp(String),
    /// `udp:HOST:PORT`: datagrams of the reader's own.
    Udp(String),
    /// `serial:PATH` or `serial:PATH:BAUD`: datagrams through the host at the other end of this
    /// serial line (`countersign host`).
    Serial {
        /// Path of the port.
        path: String,
        /// Speed.
        baud: u32,
    },
}

impl Uplink {
    /// What lies under the channel there.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        match self {
            Self::Tcp(_) => Delivery::Stream,
            Self::Udp(_) | Self::Serial { .. } => Delivery::Datagrams,
        }
    }
}

/// A name without `udp:` or `serial:` before it is a TCP address. Behind a serial port's path a
/// colon and digits are its speed.
impl From<&str> for Uplink {
    fn from(text: &str) -> Self {
        if let Some(address) = text.strip_prefix("udp:") {
            return Self::Udp(address.to_owned());
        }
        let Some(port) = text.strip_prefix("serial:") else { return Self::Tcp(text.to_owned()) };
        let with_baud = port.rsplit_once(':').and_then(|(path, baud)| {
            let baud = baud.parse().ok().filter(|baud| *baud > 0)?;
            Some(Self::Serial { path: path.to_owned(), baud })
        });
        with_baud.unwrap_or_else(|| Self::Serial { path: port.to_owned(), baud: BAUD })
    }
}

impl From<String> for Uplink {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<SocketAddr> for Uplink {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Serial { path, baud } => write!(f, "serial:{path}:{baud}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_apart_and_shown_as_it_is_read() {
        let serial = |path: &str, baud| Uplink::Serial { path: path.to_owned(), baud };
        for (text, uplink) in [
            ("localhost:8444", Uplink::Tcp("localhost:8444".into())),
            ("[::1]:8444", Uplink::Tcp("[::1]:8444".into())),
            ("udp:localhost:8444", Uplink::Udp("localhost:8444".into())),
            ("serial:/dev/ttyS0:9600", serial("/dev/ttyS0", 9600)),
            ("serial:/dev/ttyS0", serial("/dev/ttyS0", BAUD)),
            ("serial:/dev/by-path/pci-0:1.0", serial("/dev/by-path/pci-0:1.0", BAUD)),
            ("serial:/dev/ttyS0:0", serial("/dev/ttyS0:0", BAUD)),
        ] {
            assert_eq!(Uplink::from(text), uplink, "{text}");
            assert_eq!(Uplink::from(uplink.to_string()), uplink);
        }
        assert_eq!(Uplink::from("udp:a:1").delivery(), Delivery::Datagrams);
        assert_eq!(Uplink::from("a:1").delivery(), Delivery::Stream);
    }
}

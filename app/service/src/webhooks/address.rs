//! Where a webhook may point. The server stands inside a network that its customers do not: a URL
//! must not make it ask its own neighbours (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use countersign_store::WEBHOOK_URL_MAX;
use url::{Host, Url};

use super::WebhookPolicy;
use crate::ServiceError;

/// What is wrong with an address: the stable name of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inward {
    Unspecified,
    Loopback,
    Private,
    /// Also where clouds give out credentials: 169.254.169.254.
    LinkLocal,
    /// Behind a carrier's address translation (RFC 6598).
    Shared,
    Multicast,
    /// Nobody's to reach: documentation, benchmarks, translation, future use.
    Reserved,
}

impl Inward {
    pub(super) const fn check(self) -> &'static str {
        match self {
            Self::Unspecified => "webhook-address-unspecified",
            Self::Loopback => "webhook-address-loopback",
            Self::Private => "webhook-address-private",
            Self::LinkLocal => "webhook-address-link-local",
            Self::Shared => "webhook-address-shared",
            Self::Multicast => "webhook-address-multicast",
            Self::Reserved => "webhook-address-reserved",
        }
    }

    /// Whether `allow_private` lets it pass: someone's own network, rather than nobody's.
    const fn may_be_allowed(self) -> bool {
        matches!(self, Self::Loopback | Self::Private | Self::LinkLocal | Self::Shared)
    }
}

/// Refuses an address that the policy does not let webhooks reach.
pub(super) fn check(policy: &WebhookPolicy, address: IpAddr) -> Result<(), Inward> {
    match inward(address) {
        Some(inward) if policy.allow_private && inward.may_be_allowed() => Ok(()),
        Some(inward) => Err(inward),
        None => Ok(()),
    }
}

/// What keeps an address from being one on the public internet.
fn inward(address: IpAddr) -> Option<Inward> {
    match address {
        IpAddr::V4(address) => inward_v4(address),
        IpAddr::V6(address) => inward_v6(address),
    }
}

/// RFC 6890 and the registry of special-purpose addresses.
fn inward_v4(address: Ipv4Addr) -> Option<Inward> {
    Some(match address.octets() {
        [0, 0, 0, 0] => Inward::Unspecified,
        [127, ..] => Inward::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Inward::Private,
        [169, 254, ..] => Inward::LinkLocal,
        [100, 64..=127, ..] => Inward::Shared,
        [224..=239, ..] => Inward::Multicast,
        [0, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Inward::Reserved,
        _ => return None,
    })
}

/// RFC 4291: only global unicast is outside, and none of it that wraps an IPv4 address.
fn inward_v6(address: Ipv6Addr) -> Option<Inward> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return inward_v4(mapped).or(Some(Inward::Reserved));
    }
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Inward::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Inward::Loopback,
        [0xFC00..=0xFDFF, ..] => Inward::Private,
        [0xFE80..=0xFEFF, ..] => Inward::LinkLocal,
        [0xFF00..=0xFFFF, ..] => Inward::Multicast,
        // Protocol assignments with Teredo, documentation, 6to4.
        [0x2001, 0x0000..=0x01FF | 0x0DB8, ..] | [0x2002, ..] | [0x3FFF, 0..=0x0FFF, ..] => {
            Inward::Reserved
        }
        [0x2000..=0x3FFF, ..] => return None,
        // IPv4-compatible, NAT64, and what is not given out.
        _ => Inward::Reserved,
    })
}

/// A receiver's URL, checked in its form. Names are resolved when something is delivered, each
/// time, and what they resolve to is checked then.
///
/// # Errors
/// `webhook-url`, `webhook-url-scheme`; for a host that is an address, its check.
pub(super) fn parse(policy: &WebhookPolicy, text: &str) -> Result<Url, ServiceError> {
    let refused = |check, detail: &str| Err(ServiceError::refused(check, detail));
    if text.len() > WEBHOOK_URL_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = format!("a URL has at most {WEBHOOK_URL_MAX} visible ASCII characters");
        return Err(ServiceError::refused("webhook-url", detail));
    }
    let Ok(url) = Url::parse(text) else {
        return refused("webhook-url", "this is not a URL");
    };
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_http => {}
        _ => return refused("webhook-url-scheme", "a webhook's URL has to begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return refused(
            "webhook-url",
            "a webhook's URL must not have a user, password or fragment",
        );
    }
    let address = match url.host() {
        None => return refused("webhook-url", "this URL has no host"),
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
    };
    if let Some(Err(inward)) = address.map(|address| check(policy, address)) {
        let detail = "this address is not on the internet, and webhooks go nowhere else";
        return refused(inward.check(), detail);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: WebhookPolicy = WebhookPolicy { allow_private: false, allow_http: false };
    const LOOSE: WebhookPolicy = WebhookPolicy { allow_private: true, allow_http: true };

    #[test]
    fn inward_addresses_have_names() {
        for (name, addresses) in [
            ("unspecified", &["0.0.0.0", "::", "::ffff:0.0.0.0"][..]),
            ("loopback", &["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]),
            (
                "private",
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "fd00:ec2::254",
                    "fc00::1",
                    "::ffff:10.1.2.3",
                ],
            ),
            ("link-local", &["169.254.169.254", "fe80::1", "fec0::1", "::ffff:169.254.169.254"]),
            ("shared", &["100.64.0.1", "100.127.255.255", "::ffff:100.64.0.1"]),
            ("multicast", &["224.0.0.1", "239.255.255.250", "ff02::1", "::ffff:224.0.0.1"]),
            (
                "reserved",
                &[
                    "0.1.2.3",
                    "192.0.0.8",
                    "192.0.2.1",
                    "192.88.99.1",
                    "198.18.0.1",
                    "198.51.100.7",
                    "203.0.113.9",
                    "240.0.0.1",
                    "255.255.255.255",
                    "::127.0.0.1",
                    "64:ff9b::7f00:1",
                    "2001::1",
                    "2001:db8::1",
                    "2002:7f00:1::",
                    "3fff::1",
                    "4000::1",
                    "::ffff:8.8.8.8",
                    "100::1",
                ],
            ),
        ] {
            for address in addresses {
                let found = check(&STRICT, address.parse().unwrap()).unwrap_err();
                assert_eq!(found.check(), format!("webhook-address-{name}"), "{address}");
            }
        }
        for address in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
        ] {
            assert_eq!(check(&STRICT, address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    #[test]
    fn allowing_private_networks_allows_no_more() {
        for address in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "100.64.0.1"] {
            assert_eq!(check(&LOOSE, address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "2002:7f00:1::"] {
            assert!(check(&LOOSE, address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn urls_are_https_and_point_outward() {
        for good in
            ["https://shop.example/hooks?a=1", "https://shop.example:8443/", "https://8.8.8.8/"]
        {
            assert!(parse(&STRICT, good).is_ok(), "{good}");
        }
        for (bad, check) in [
            ("", "webhook-url"),
            ("shop.example/hooks", "webhook-url"),
            ("https://", "webhook-url"),
            ("https://user@shop.example/", "webhook-url"),
            ("https://user:pass@shop.example/", "webhook-url"),
            ("https://shop.example/#part", "webhook-url"),
            ("https://shop.example/ä", "webhook-url"),
            ("https://shop.example/a b", "webhook-url"),
            ("http://shop.example/", "webhook-url-scheme"),
            ("ftp://shop.example/", "webhook-url-scheme"),
            ("file:///etc/passwd", "webhook-url-scheme"),
            ("https://127.0.0.1/", "webhook-address-loopback"),
            // The many ways to write it.
            ("https://127.1/", "webhook-address-loopback"),
            ("https://2130706433/", "webhook-address-loopback"),
            ("https://0x7f000001/", "webhook-address-loopback"),
            ("https://0177.0.0.1/", "webhook-address-loopback"),
            ("https://[::1]/", "webhook-address-loopback"),
            ("https://[::ffff:7f00:1]/", "webhook-address-loopback"),
            ("https://169.254.169.254/latest/meta-data", "webhook-address-link-local"),
            ("https://0/", "webhook-address-unspecified"),
        ] {
            assert_eq!(parse(&STRICT, bad).unwrap_err().check(), check, "{bad}");
        }
        let long = format!("https://shop.example/{}", "a".repeat(WEBHOOK_URL_MAX));
        assert_eq!(parse(&STRICT, &long).unwrap_err().check(), "webhook-url");
        assert!(parse(&LOOSE, "http://127.0.0.1:8080/").is_ok());
    }
}

//! The names that handshakes and policies have in configurations, commands and answers.

use countersign_channel::{Mode, Policy, Protection};
use thiserror::Error;

const MODES: [(Mode, &str); 2] = [(Mode::C1, "c1"), (Mode::C2, "c2")];

const WALLET_MODES: [(Mode, &str); 3] = [(Mode::A1, "a1"), (Mode::A2, "a2"), (Mode::A3, "a3")];

const AEAD: Policy = Policy {
    protection: Protection::EncryptAndMac,
    delivery: countersign_channel::Delivery::Stream,
    certificate_sealed: false,
};

const POLICIES: [(Policy, &str); 4] = [
    (AEAD, "encrypt+mac"),
    (Policy { protection: Protection::Mac, ..AEAD }, "mac"),
    (Policy { protection: Protection::Encrypt, ..AEAD }, "encrypt"),
    (Policy { certificate_sealed: true, ..AEAD }, "certificate-sealed"),
];

/// A name that nobody has. What was given is not repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnknownName {
    /// Of a handshake.
    #[error("no such handshake; there are c1 and c2")]
    Handshake,
    /// Of a protection policy.
    #[error(
        "no such protection policy; there are encrypt+mac, mac, encrypt and certificate-sealed"
    )]
    Policy,
}

/// A handshake's name: `c1`, `c2`, `a1`, `a2`, `a3`.
#[must_use]
pub fn mode_name(mode: Mode) -> &'static str {
    let mut known = MODES.iter().chain(&WALLET_MODES);
    known.find(|(known, _)| *known == mode).map_or("unknown", |(_, name)| name)
}

/// The handshake between readers and servers with this name.
///
/// # Errors
/// [`UnknownName::Handshake`].
pub fn mode_of(name: &str) -> Result<Mode, UnknownName> {
    let found = MODES.iter().find(|(_, known)| *known == name);
    found.map(|(mode, _)| *mode).ok_or(UnknownName::Handshake)
}

/// A policy's name, as it is offered over a stream: `encrypt+mac`, `mac`, `encrypt`,
/// `certificate-sealed`; `unknown` for a combination that has none.
#[must_use]
pub fn policy_name(policy: Policy) -> &'static str {
    POLICIES.iter().find(|(known, _)| *known == policy).map_or("unknown", |(_, name)| name)
}

/// The policy with this name.
///
/// # Errors
/// [`UnknownName::Policy`].
pub fn policy_of(name: &str) -> Result<Policy, UnknownName> {
    let found = POLICIES.iter().find(|(_, known)| *known == name);
    found.map(|(policy, _)| *policy).ok_or(UnknownName::Policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_stand_for_belong_together() {
        for (mode, name) in MODES {
            assert_eq!((mode_name(mode), mode_of(name)), (name, Ok(mode)));
            assert!(UnknownName::Handshake.to_string().contains(name));
        }
        for (policy, name) in POLICIES {
            assert_eq!((policy_name(policy), policy_of(name)), (name, Ok(policy)));
            assert!(UnknownName::Policy.to_string().contains(name));
        }
        assert_eq!(policy_of("encrypt+mac"), Ok(Policy::default()));
        let unnamed = Policy { certificate_sealed: true, protection: Protection::Mac, ..AEAD };
        assert_eq!(policy_name(unnamed), "unknown");
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "C1", "c3", "c1 ", "mac"] {
            assert_eq!(mode_of(name), Err(UnknownName::Handshake), "{name}");
        }
        for name in ["", "none", "MAC", "encrypt+mac ", "c1"] {
            assert_eq!(policy_of(name), Err(UnknownName::Policy), "{name}");
        }
    }
}

use countersign_crypto::Suite;
use countersign_pki::Role;
use serde::{Deserialize, Serialize};

/// What a device knows beside its key and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Serial number.
    pub serial: String,
    /// The suite of its keys. A directory of before there was a second suite names none.
    #[serde(default = "first_suite", with = "suite_name")]
    pub suite: Suite,
    /// The server it was enrolled with; empty until then.
    #[serde(default)]
    pub server_id: String,
    /// What it is. A directory of before there was a second kind names none.
    #[serde(default)]
    pub kind: DeviceKind,
    /// Of a SAM host: the servers that it serves, by the ids in their certificates. The one that
    /// enrolled it is put here; an operator may add others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

/// What a device is; its certificate has the role of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// An ID-card reader without a SAM.
    #[default]
    Reader,
    /// A host of SAM modules (C12).
    SamHost,
    /// A POS terminal (E).
    Terminal,
    /// A card sleeve (A).
    Sleeve,
    /// A manager of real cards (A).
    Manager,
}

impl DeviceKind {
    /// The role in its certificate.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Reader => Role::Reader,
            Self::SamHost => Role::SamHost,
            Self::Terminal => Role::Terminal,
            Self::Sleeve => Role::Sleeve,
            Self::Manager => Role::Manager,
        }
    }

    /// The role of the devices that it meets without a server between them (A1–A3).
    pub(crate) const fn meets(self) -> Option<Role> {
        match self {
            Self::Sleeve => Some(Role::Manager),
            Self::Manager => Some(Role::Sleeve),
            Self::Reader | Self::SamHost | Self::Terminal => None,
        }
    }

    /// Where it is enrolled.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Reader => "/v1/readers",
            Self::SamHost => "/v1/sam-hosts",
            Self::Terminal => "/v1/terminals/enrolments",
            Self::Sleeve => "/v1/sleeves",
            Self::Manager => "/v1/managers",
        }
    }
}

pub(super) const fn first_suite() -> Suite {
    Suite::X25519_P256_AES128GCM_SHA256
}

pub(super) fn short(suite: Suite) -> &'static str {
    suite.name().unwrap_or("unknown")
}

/// A suite by its short name.
pub(crate) mod suite_name {
    use countersign_crypto::Suite;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(suite: &Suite, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(super::short(*suite))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Suite, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

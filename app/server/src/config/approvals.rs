//! `[approvals]`: who must agree to what changes keys.

use std::time::Duration;

use countersign_service::ApprovalPolicy;
use countersign_store::MAX_VOTES_NEEDED;
use serde::Deserialize;

/// How many must agree to what changes keys or the injection hierarchy: `[approvals]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ApprovalsSection")]
pub struct Approvals {
    /// Different operators beside the one who asks, 1 to [`MAX_VOTES_NEEDED`]: with one it is dual
    /// control.
    pub needed: u32,
    /// Hours from the request on in which they vote and the approval is used, 1 to
    /// [`APPROVAL_HOURS_MAX`].
    pub expires_hours: u32,
}

/// Most hours that an approval may stand.
pub const APPROVAL_HOURS_MAX: u32 = 30 * 24;

impl Default for Approvals {
    fn default() -> Self {
        Self { needed: 1, expires_hours: 24 }
    }
}

impl Approvals {
    pub(super) fn section(self) -> String {
        format!(
            "[approvals]\n\
             # How many operators beside the one who asks must agree before keys or the injection\n\
             # hierarchy change, and for how many hours a request stands.\n\
             needed = {}\n\
             expires-hours = {}\n\n",
            self.needed, self.expires_hours
        )
    }

    /// As the use cases take it.
    #[must_use]
    pub fn policy(self) -> ApprovalPolicy {
        let expires = Duration::from_secs(u64::from(self.expires_hours) * 3600);
        ApprovalPolicy { needed: self.needed, expires }
    }
}

/// An `[approvals]` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ApprovalsSection {
    needed: Option<u32>,
    expires_hours: Option<u32>,
}

impl TryFrom<ApprovalsSection> for Approvals {
    type Error = String;

    fn try_from(section: ApprovalsSection) -> Result<Self, String> {
        let usual = Self::default();
        let needed = section.needed.unwrap_or(usual.needed);
        let expires_hours = section.expires_hours.unwrap_or(usual.expires_hours);
        if !(1..=MAX_VOTES_NEEDED).contains(&needed) {
            return Err(format!("needed is a number from 1 to {MAX_VOTES_NEEDED}"));
        }
        if !(1..=APPROVAL_HOURS_MAX).contains(&expires_hours) {
            return Err(format!("expires-hours is a number from 1 to {APPROVAL_HOURS_MAX}"));
        }
        Ok(Self { needed, expires_hours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn approvals_are_bounded() {
        let approvals = |text: &str| {
            Config::parse(&format!("[approvals]\n{text}\n")).map(|config| config.approvals)
        };
        assert_eq!(approvals("").unwrap(), Approvals::default());
        let most = approvals("needed = 32\nexpires-hours = 720").unwrap();
        assert_eq!((most.needed, most.expires_hours), (32, 720));
        for bad in ["needed = 0", "needed = 33", "expires-hours = 0", "expires-hours = 721"] {
            let error = approvals(bad).unwrap_err();
            assert!(error.contains("is a number from 1 to"), "{bad}: {error}");
        }
        assert!(approvals("voters = 2").unwrap_err().contains("unknown field"));
    }
}

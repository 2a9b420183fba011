//! `[webhooks]`: what webhooks may reach.

use std::path::PathBuf;

use countersign_service::WebhookPolicy;
use serde::Deserialize;

use super::quoted;

/// What webhooks may reach: `[webhooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Webhooks {
    /// Whether receivers may be in private networks, or on this machine.
    pub allow_private: bool,
    /// Whether receivers may be reached without TLS.
    pub allow_http: bool,
    /// A PEM file of roots that are trusted beside the system's; from the data directory if it is
    /// not absolute.
    pub roots: Option<PathBuf>,
}

impl Webhooks {
    pub(super) fn section(&self) -> String {
        let roots = match &self.roots {
            Some(path) => format!("roots = {}\n", quoted(&path.to_string_lossy())),
            None => "# roots = \"receivers-ca.pem\"\n".to_owned(),
        };
        format!(
            "[webhooks]\n\
             # Whether receivers of events may be in private networks or on this machine, and\n\
             # without TLS. Leave both off where others than you register webhooks: they could\n\
             # make this server ask its neighbours.\n\
             allow-private = {}\n\
             allow-http = {}\n\
             # Roots that are trusted beside the system's.\n\
             {roots}\n",
            self.allow_private, self.allow_http
        )
    }

    /// As the use cases take it.
    #[must_use]
    pub const fn policy(&self) -> WebhookPolicy {
        WebhookPolicy { allow_private: self.allow_private, allow_http: self.allow_http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn nothing_inward_is_reached_unless_it_is_said() {
        let webhooks = |text: &str| {
            Config::parse(&format!("[webhooks]\n{text}\n")).map(|config| config.webhooks)
        };
        assert_eq!(webhooks("").unwrap(), Webhooks::default());
        let strict = WebhookPolicy { allow_private: false, allow_http: false };
        assert_eq!(Webhooks::default().policy(), strict);
        let open = webhooks("allow-private = true\nroots = \"ca.pem\"").unwrap();
        assert!(open.policy().allow_private && !open.policy().allow_http);
        assert_eq!(open.roots, Some(PathBuf::from("ca.pem")));
        assert!(webhooks("allow = true").unwrap_err().contains("unknown field"));
        for written in [Webhooks::default(), open] {
            let config = Config { webhooks: written.clone(), ..Config::default() };
            assert_eq!(Config::parse(&config.initial()).unwrap().webhooks, written);
        }
    }
}

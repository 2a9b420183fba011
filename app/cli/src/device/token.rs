//! A PKCS#11 token as a security device, in builds that can use one.

use std::path::Path;

use countersign_crypto::Provider;
use countersign_device::{Api, KeyEnrolment, SecurityDevice};

use crate::failure::Failure;
use crate::output::Output;

/// Which token.
#[derive(Clone, Copy)]
pub(crate) struct WhichToken<'a> {
    /// The token's label.
    pub(crate) label: &'a str,
    /// Its module.
    pub(crate) module: &'a Path,
}

#[cfg(feature = "pkcs11")]
mod built {
    use countersign_device::{TOKEN_KEY_LABEL, TokenKey, TokenName, TokenPlace};
    use countersign_server::ambient;
    use data_encoding::BASE64;
    use serde_json::json;

    use super::*;

    impl WhichToken<'_> {
        fn place(self) -> TokenPlace {
            let token = TokenName::Label(self.label.to_owned());
            TokenPlace { module: self.module.to_owned(), token }
        }

        /// Opens it, ready to confirm payments.
        pub(crate) fn open(self) -> Result<Box<dyn SecurityDevice>, Failure> {
            Ok(Box::new(TokenKey::open(self.place())?))
        }

        /// Makes its key and has the server certify it.
        pub(crate) fn enroll(
            self,
            enrolment: &KeyEnrolment,
            api: &Api,
            provider: &Provider,
        ) -> Result<Output, Failure> {
            let ambient = ambient();
            let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
            let key = TokenKey::enroll(self.place(), enrolment, api, provider, now, &mut *rng)?;
            self.told(&key)
        }

        /// What anyone may read of it.
        pub(crate) fn show(self) -> Result<Output, Failure> {
            self.told(&TokenKey::open(self.place())?)
        }

        fn told(self, key: &TokenKey) -> Result<Output, Failure> {
            let (serial, number) = (key.serial(), key.certificate_number()?);
            let text = format!(
                "Security device {serial} (pki) in the token {}\nKey         {TOKEN_KEY_LABEL}\n\
                 Certificate {number}",
                self.label
            );
            let json = json!({
                "serial": serial,
                "method": "pki",
                "certificateNumber": number,
                "certificate": BASE64.encode(key.certificate()),
                "token": self.label,
                "keyLabel": TOKEN_KEY_LABEL,
            });
            Ok(Output::new(json, text))
        }
    }
}

#[cfg(not(feature = "pkcs11"))]
impl WhichToken<'_> {
    /// Says that this build cannot.
    pub(crate) fn open(self) -> Result<Box<dyn SecurityDevice>, Failure> {
        Err(self.not_built())
    }

    /// Says that this build cannot.
    pub(crate) fn enroll(
        self,
        _enrolment: &KeyEnrolment,
        _api: &Api,
        _provider: &Provider,
    ) -> Result<Output, Failure> {
        Err(self.not_built())
    }

    /// Says that this build cannot.
    pub(crate) fn show(self) -> Result<Output, Failure> {
        Err(self.not_built())
    }

    fn not_built(self) -> Failure {
        let detail = format!(
            "this program was built without PKCS#11, so that {} of {} is out of reach: build it \
             with the feature pkcs11",
            self.label,
            self.module.display()
        );
        Failure::check("pkcs11-not-built", detail)
    }
}

//! Whoever confirms payments: security devices that sign (D3, D4), phones that carry what is to be
//! signed and the answer to it (D2, D5), and the pushes that wait for a phone.

mod authorise;
mod joint;
mod offered;
mod phones;
mod proof;
mod pushes;
mod signers;

pub use joint::EnrolledJoint;
pub use offered::PhoneDevice;
pub use phones::{AllowedPhone, EnrolledPhone, PhoneActor};
pub use proof::{PhoneProof, SessionKey};
pub use pushes::{PUSHES_TAKEN_MAX, PushIds};
pub use signers::{EnrolledOcra, EnrolledSigner, SIGNER_LABEL_MAX, SignerToEnrol};

use crate::ServiceError;

/// A label has 1 to [`SIGNER_LABEL_MAX`] characters, of those that may be shown to a payer too: it
/// stands in lists beside others.
fn check_label(label: &str) -> Result<(), ServiceError> {
    let detail = |error: countersign_payment::PaymentError| {
        format!("a label has 1 to {SIGNER_LABEL_MAX} characters that can be shown: {error}")
    };
    countersign_payment::text::check("label", label, SIGNER_LABEL_MAX)
        .map_err(|error| ServiceError::refused("label-format", detail(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_printable() {
        assert!(check_label("Li Lei's key").is_ok());
        for bad in ["", " x", "x ", "a\nb", "\u{202e}iL iL", "a\u{200b}b", &"x".repeat(65)] {
            assert_eq!(check_label(bad).expect_err(bad).check(), "label-format");
        }
    }
}

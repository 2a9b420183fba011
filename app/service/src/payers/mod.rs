//! Whoever confirms payments: security devices that sign (D3, D4), phones that carry what is to be
//! signed and the answer to it (D2, D5), and the pushes that wait for a phone.

mod phones;
mod pushes;
mod signers;

pub use phones::{AllowedPhone, EnrolledPhone, PhoneActor};
pub use pushes::{PUSHES_TAKEN_MAX, PushIds};
pub use signers::{EnrolledOcra, EnrolledSigner, SIGNER_LABEL_MAX, SignerToEnrol};

use crate::ServiceError;

/// A label has 1 to [`SIGNER_LABEL_MAX`] printable characters.
fn check_label(label: &str) -> Result<(), ServiceError> {
    let fits = !label.is_empty() && label.chars().count() <= SIGNER_LABEL_MAX;
    if fits && !label.chars().any(char::is_control) && label.trim() == label {
        return Ok(());
    }
    let detail =
        format!("a label has 1 to {SIGNER_LABEL_MAX} printable characters, no space at its ends");
    Err(ServiceError::refused("label-format", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_printable() {
        assert!(check_label("Li Lei's key").is_ok());
        for bad in ["", " x", "x ", "a\nb", &"x".repeat(65)] {
            assert_eq!(check_label(bad).expect_err(bad).check(), "label-format");
        }
    }
}

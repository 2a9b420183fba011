//! The tokens byte by byte: what is read keeps the received slices, what is written is DER in the
//! dialect that the caller names.

pub(crate) mod algorithm;
pub(crate) mod attributes;
mod credential;
mod enveloped;
mod key;
mod key_block;
mod random;
mod rebind;
mod signed;
mod unbind;

pub use algorithm::ContentCipher;
pub use attributes::{NONCE_MAX, NONCE_MIN, SignedAttributes};
pub use credential::{CtKdh, CtKrd};
pub use enveloped::Enveloped;
pub use key::{Freshness, KtKdh};
pub use key_block::KeyBlock;
pub use random::{Nonce, RtKrd};
pub use rebind::Rebind;
pub use signed::{SignedData, SignerInfo};
pub use unbind::Unbind;

pub(crate) use algorithm::{ID_DATA, ID_ENVELOPED_DATA, ID_SIGNED_DATA};
pub(crate) use attributes::Attributes;
pub(crate) use enveloped::{Opened, Sealing};
pub(crate) use rebind::content as rebind_content;
pub(crate) use signed::Signing;

use crate::CRL_MAX;

/// Longest token, in bytes. The longest revocation list fits.
pub const TOKEN_MAX: usize = CRL_MAX + 32 * 1024;
/// Longest key block header with its optional blocks, in bytes.
pub const HEADER_MAX: usize = 2048;
/// Longest symmetric key or other key material in a token, in bytes.
pub const KEY_MAX: usize = 2048;

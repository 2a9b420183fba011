//! A secret as hexadecimal digits in a file that only its owner may read, in buffers that are
//! wiped; for `serde(with)`.

use countersign_crypto::Secret;
use data_encoding::HEXLOWER;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use zeroize::Zeroizing;

pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&Zeroizing::new(HEXLOWER.encode(secret.expose())))
}

/// Borrowed from the input, which its owner wipes.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    let text = <&str>::deserialize(from)?;
    HEXLOWER.decode(text.as_bytes()).map(Secret::new).map_err(|_| D::Error::custom("no secret"))
}

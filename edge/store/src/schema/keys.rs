/// Keys that are injected, and the key-encrypting keys under which they are taken in (E4).
pub(super) const V3_KEYS: &str = "
";

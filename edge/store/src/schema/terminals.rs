/// The RSA hierarchy of injection, its revocation lists, and the terminals (E1, E2).
pub(super) const V3_TERMINALS: &str = "
";

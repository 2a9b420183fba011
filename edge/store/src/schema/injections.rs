/// Injections of keys into terminals, and runs over an inventory (E3, E5–E8).
pub(super) const V3_INJECTIONS: &str = "
";

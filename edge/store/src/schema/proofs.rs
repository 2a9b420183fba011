/// Phones that prove a key of their own, and the proofs that they have used (D2, D5).
pub(super) const V5_PROOFS: &str = "
-- The key whose holder alone may use the phone's token: an uncompressed P-256 point. NULL: the
-- token alone counts.
ALTER TABLE phones ADD COLUMN session_key {bytes};

-- Each proof counts once, at whichever server. Removed when no server would take it any more.
CREATE TABLE phone_proofs (
    hash {bytes} NOT NULL CONSTRAINT phone_proofs_hash_key PRIMARY KEY,
    expires_at {int} NOT NULL
) {strict};
CREATE INDEX phone_proofs_by_age ON phone_proofs (expires_at);
";

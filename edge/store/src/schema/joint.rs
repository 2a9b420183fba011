/// Signing cards with joint passwords (B3–B5, B8).
pub(super) const V6_JOINT: &str = "
-- The key that a signing card shares with the server, as a TR-31 block under the storage key. NULL:
-- no signing card, or its key was erased.
ALTER TABLE security_devices ADD COLUMN joint_key {text};

-- What a signing card signed beside the request: its joint password sealed to the server, or the
-- digest of that. Neither says anything of the password to who reads this table.
ALTER TABLE payment_authorisations ADD COLUMN commitment {bytes};

-- The keys that all servers of this database have in common, by the hash of the public one: what a
-- card sealed for one of them each of them must open.
CREATE TABLE server_keys (
    name {text} NOT NULL CONSTRAINT server_keys_name_key PRIMARY KEY,
    hash {bytes} NOT NULL,
    at {int} NOT NULL
) {strict};
";

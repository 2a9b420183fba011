/// Security devices, payers' phones, pushes (D2–D5).
pub(super) const V4_SIGNERS: &str = "
-- Beside the row in devices.
CREATE TABLE security_devices (
    device_id {text} NOT NULL CONSTRAINT security_devices_device_id_key PRIMARY KEY
        REFERENCES devices (id),
    method {text} NOT NULL,
    label {text} NOT NULL,
    -- OCRA only: the suite, and the key as a TR-31 block under the storage key.
    ocra_suite {text},
    ocra_key {text},
    -- Wrong answers since the last good one.
    failures {int} NOT NULL CHECK (failures >= 0),
    alerted_at {int}
) {strict};

CREATE TABLE security_device_accounts (
    device_id {text} NOT NULL REFERENCES security_devices (device_id),
    account_id {text} NOT NULL REFERENCES ledger_accounts (id),
    CONSTRAINT security_device_accounts_device_id_account_id_key
        PRIMARY KEY (device_id, account_id)
) {strict};
CREATE INDEX security_device_accounts_by_account ON security_device_accounts (account_id);

CREATE TABLE phones (
    id {text} NOT NULL CONSTRAINT phones_id_key PRIMARY KEY,
    label {text} NOT NULL,
    -- SHA-256 of the one-time code, and of the session's token.
    code_hash {bytes} CONSTRAINT phones_code_hash_key UNIQUE,
    code_expires_at {int},
    token_hash {bytes} CONSTRAINT phones_token_hash_key UNIQUE,
    created_at {int} NOT NULL,
    enrolled_at {int},
    seen_at {int},
    revoked_at {int},
    revoke_reason {text}
) {strict};

CREATE TABLE phone_accounts (
    phone_id {text} NOT NULL REFERENCES phones (id),
    account_id {text} NOT NULL REFERENCES ledger_accounts (id),
    CONSTRAINT phone_accounts_phone_id_account_id_key PRIMARY KEY (phone_id, account_id)
) {strict};
CREATE INDEX phone_accounts_by_account ON phone_accounts (account_id);

-- What waits for a phone (D2): an opaque id; the phone asks for the rest.
CREATE TABLE pushes (
    id {text} NOT NULL CONSTRAINT pushes_id_key PRIMARY KEY,
    phone_id {text} NOT NULL REFERENCES phones (id),
    payment_id {text} NOT NULL REFERENCES payments (id),
    created_at {int} NOT NULL,
    expires_at {int} NOT NULL,
    delivered_at {int},
    CONSTRAINT pushes_phone_id_payment_id_key UNIQUE (phone_id, payment_id)
) {strict};
CREATE INDEX pushes_by_payment ON pushes (payment_id);
CREATE INDEX pushes_by_phone ON pushes (phone_id, expires_at);
";

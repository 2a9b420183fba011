/// The RSA hierarchy of injection, its revocation lists, and the terminals (E1, E2).
pub(super) const V3_TERMINALS: &str = "
-- The key under which everything symmetric lies in this database, by its check value: a server
-- with another vault must not write here.
CREATE TABLE storage_keys (
    label {text} NOT NULL CONSTRAINT storage_keys_label_key PRIMARY KEY,
    check_value {bytes} NOT NULL,
    at {int} NOT NULL
) {strict};

-- Intended before the key is made and the certificate signed; `label` names the key in the vault.
CREATE TABLE rki_authorities (
    id {text} NOT NULL CONSTRAINT rki_authorities_id_key PRIMARY KEY,
    role {text} NOT NULL,
    generation {int} NOT NULL CHECK (generation > 0),
    state {text} NOT NULL,
    issuer_id {text} REFERENCES rki_authorities (id),
    label {text} NOT NULL CONSTRAINT rki_authorities_label_key UNIQUE,
    bits {int} NOT NULL,
    serial {text},
    der {bytes},
    not_after {int},
    intended_at {int} NOT NULL,
    issued_at {int},
    ended_at {int},
    end_reason {text},
    CONSTRAINT rki_authorities_role_generation_key UNIQUE (role, generation)
) {strict};
CREATE UNIQUE INDEX rki_authorities_role_key ON rki_authorities (role) WHERE state = 'active';
CREATE INDEX rki_authorities_by_issuer ON rki_authorities (issuer_id);

-- Numbered before it is signed: the number is the database's, whoever signs.
CREATE TABLE rki_crls (
    issuer_id {text} NOT NULL REFERENCES rki_authorities (id),
    number {int} NOT NULL CHECK (number > 0),
    listed {int} NOT NULL,
    this_update {int} NOT NULL,
    next_update {int} NOT NULL,
    der {bytes},
    CONSTRAINT rki_crls_issuer_id_number_key PRIMARY KEY (issuer_id, number)
) {strict};

-- A terminal is a device; here is what only terminals have. The code lets it enrol once.
CREATE TABLE terminals (
    device_id {text} NOT NULL CONSTRAINT terminals_device_id_key PRIMARY KEY
        REFERENCES devices (id),
    model {text} NOT NULL,
    owner {text} NOT NULL,
    code_hash {bytes},
    code_expires_at {int},
    code_used_at {int},
    code_used_by {bytes},
    wrong_codes {int} NOT NULL,
    wrong_since {int} NOT NULL,
    bound_kdh {text} REFERENCES rki_authorities (id),
    bound_at {int},
    unbind_asked_at {int},
    unbound_at {int}
) {strict};
CREATE INDEX terminals_by_kdh ON terminals (bound_kdh) WHERE bound_kdh IS NOT NULL;

-- Terminals' RSA certificates; the serial number is unique under its issuer.
CREATE TABLE krd_certificates (
    issuer_id {text} NOT NULL REFERENCES rki_authorities (id),
    serial {text} NOT NULL,
    device_id {text} NOT NULL REFERENCES devices (id),
    public_key {bytes} NOT NULL,
    state {text} NOT NULL,
    der {bytes},
    not_after {int} NOT NULL,
    intended_at {int} NOT NULL,
    issued_at {int},
    revoked_at {int},
    revoke_reason {text},
    CONSTRAINT krd_certificates_issuer_id_serial_key PRIMARY KEY (issuer_id, serial)
) {strict};
CREATE UNIQUE INDEX krd_certificates_device_id_key ON krd_certificates (device_id)
    WHERE state IN ('intended', 'issued');

-- A campaign binds terminals of older KDHs to another one.
CREATE TABLE rebinds (
    id {text} NOT NULL CONSTRAINT rebinds_id_key PRIMARY KEY,
    to_kdh {text} NOT NULL REFERENCES rki_authorities (id),
    state {text} NOT NULL,
    actor {text} NOT NULL,
    created_at {int} NOT NULL,
    ended_at {int}
) {strict};
CREATE UNIQUE INDEX rebinds_state_key ON rebinds (state) WHERE state = 'open';

CREATE TABLE rebind_terminals (
    rebind_id {text} NOT NULL REFERENCES rebinds (id),
    device_id {text} NOT NULL REFERENCES devices (id),
    from_kdh {text} NOT NULL REFERENCES rki_authorities (id),
    state {text} NOT NULL,
    failed_check {text},
    at {int} NOT NULL,
    CONSTRAINT rebind_terminals_rebind_id_device_id_key PRIMARY KEY (rebind_id, device_id)
) {strict};
CREATE INDEX rebind_terminals_by_device ON rebind_terminals (device_id);
";

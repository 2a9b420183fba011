/// Injections of keys into terminals, and runs over an inventory (E3, E5–E8).
pub(super) const V3_INJECTIONS: &str = "
-- What one run may inject, and into which terminals, by their serial numbers: they need not be
-- enrolled yet.
CREATE TABLE injection_runs (
    id {text} NOT NULL CONSTRAINT injection_runs_id_key PRIMARY KEY,
    label {text} NOT NULL CONSTRAINT injection_runs_label_key UNIQUE,
    state {text} NOT NULL,
    begun_by {text} NOT NULL,
    begun_at {int} NOT NULL,
    closed_by {text},
    closed_at {int}
) {strict};
CREATE INDEX injection_runs_open ON injection_runs (id) WHERE state = 'open';

CREATE TABLE injection_run_terminals (
    run_id {text} NOT NULL REFERENCES injection_runs (id),
    serial {text} NOT NULL,
    CONSTRAINT injection_run_terminals_run_id_serial_key PRIMARY KEY (run_id, serial)
) {strict};
CREATE INDEX injection_run_terminals_by_serial ON injection_run_terminals (serial);

CREATE TABLE injection_run_keys (
    run_id {text} NOT NULL REFERENCES injection_runs (id),
    slot {int} NOT NULL CHECK (slot >= 0),
    key_id {text} NOT NULL REFERENCES keys (id),
    CONSTRAINT injection_run_keys_run_id_slot_key PRIMARY KEY (run_id, slot)
) {strict};

-- Terminals outside the inventory that asked for keys while the run was open.
CREATE TABLE injection_run_strangers (
    run_id {text} NOT NULL REFERENCES injection_runs (id),
    device_id {text} NOT NULL REFERENCES devices (id),
    first_at {int} NOT NULL,
    last_at {int} NOT NULL,
    CONSTRAINT injection_run_strangers_run_id_device_id_key PRIMARY KEY (run_id, device_id)
) {strict};

-- One key for one place in one terminal.
CREATE TABLE injections (
    id {text} NOT NULL CONSTRAINT injections_id_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    key_id {text} NOT NULL REFERENCES keys (id),
    slot {int} NOT NULL CHECK (slot >= 0),
    run_id {text} REFERENCES injection_runs (id),
    state {text} NOT NULL,
    attempts {int} NOT NULL,
    kdh_id {text} REFERENCES rki_authorities (id),
    header {text},
    kcv {bytes},
    ksn {bytes},
    failed_check {text},
    incident {text},
    assigned_by {text} NOT NULL,
    assigned_at {int} NOT NULL,
    issued_at {int},
    ended_at {int}
) {strict};
-- What waits for a place in a terminal is one key.
CREATE UNIQUE INDEX injections_device_id_slot_key ON injections (device_id, slot)
    WHERE state IN ('assigned', 'issued');
CREATE INDEX injections_by_device ON injections (device_id, id);
CREATE INDEX injections_by_key ON injections (key_id, id);
CREATE INDEX injections_by_run ON injections (run_id, id) WHERE run_id IS NOT NULL;

-- The intent of every token, before it is signed: a terminal's nonce makes one token only.
CREATE TABLE injection_tokens (
    device_id {text} NOT NULL REFERENCES devices (id),
    nonce {bytes} NOT NULL,
    kind {text} NOT NULL,
    kdh_id {text} NOT NULL REFERENCES rki_authorities (id),
    injection_id {text} REFERENCES injections (id),
    at {int} NOT NULL,
    CONSTRAINT injection_tokens_device_id_nonce_key PRIMARY KEY (device_id, nonce)
) {strict};
CREATE INDEX injection_tokens_by_time ON injection_tokens (device_id, at);
";

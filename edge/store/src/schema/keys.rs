/// Keys that are injected, and the key-encrypting keys under which they are taken in (E4).
///
/// A `block` is a TR-31 key block under the storage key, whose header names the row it belongs to.
pub(super) const V3_KEYS: &str = "
CREATE TABLE keks (
    id {text} NOT NULL CONSTRAINT keks_id_key PRIMARY KEY,
    name {text} NOT NULL CONSTRAINT keks_name_key UNIQUE,
    state {text} NOT NULL,
    algorithm {text} NOT NULL,
    length {int} NOT NULL CHECK (length > 0),
    components {int} NOT NULL CHECK (components > 1),
    expected_kcv {text},
    kcv {text},
    block {text},
    label {text},
    created_by {text} NOT NULL REFERENCES operators (id),
    created_at {int} NOT NULL,
    activated_at {int},
    retired_at {int}
) {strict};

-- Who entered which component, with its check value; the block only until all are there.
CREATE TABLE kek_components (
    kek_id {text} NOT NULL REFERENCES keks (id),
    number {int} NOT NULL CHECK (number > 0),
    operator_id {text} NOT NULL REFERENCES operators (id),
    kcv {text} NOT NULL,
    block {text},
    at {int} NOT NULL,
    CONSTRAINT kek_components_kek_id_number_key PRIMARY KEY (kek_id, number),
    CONSTRAINT kek_components_kek_id_operator_id_key UNIQUE (kek_id, operator_id)
) {strict};

CREATE TABLE keys (
    id {text} NOT NULL CONSTRAINT keys_id_key PRIMARY KEY,
    name {text} NOT NULL CONSTRAINT keys_name_key UNIQUE,
    scope {text} NOT NULL,
    state {text} NOT NULL,
    origin {text} NOT NULL,
    key_usage {text} NOT NULL,
    algorithm {text} NOT NULL,
    mode_of_use {text} NOT NULL,
    exportability {text} NOT NULL,
    length {int} NOT NULL CHECK (length > 0),
    kek_id {text} REFERENCES keks (id),
    kcv {text},
    block {text},
    ksn_base {bytes} CONSTRAINT keys_ksn_base_key UNIQUE,
    ksn_first {int} NOT NULL,
    ksn_next {int} NOT NULL,
    ksn_end {int} NOT NULL,
    created_by {text} NOT NULL REFERENCES operators (id),
    created_at {int} NOT NULL,
    activated_at {int},
    retired_at {int}
) {strict};
CREATE INDEX keys_pending ON keys (id) WHERE state = 'pending';
CREATE INDEX keys_by_kek ON keys (kek_id) WHERE kek_id IS NOT NULL;

-- Each injection of a DUKPT key takes the next device number, whatever becomes of it.
CREATE TABLE ksn_allotments (
    key_id {text} NOT NULL REFERENCES keys (id),
    counter {int} NOT NULL CHECK (counter >= 0),
    injection_id {text} NOT NULL CONSTRAINT ksn_allotments_injection_id_key UNIQUE,
    device_id {text} NOT NULL REFERENCES devices (id),
    at {int} NOT NULL,
    CONSTRAINT ksn_allotments_key_id_counter_key PRIMARY KEY (key_id, counter)
) {strict};

-- What one injection sends: stored before it is sent, so that a retry sends the same.
CREATE TABLE key_values (
    injection_id {text} NOT NULL CONSTRAINT key_values_injection_id_key PRIMARY KEY,
    key_id {text} NOT NULL REFERENCES keys (id),
    device_id {text} NOT NULL REFERENCES devices (id),
    kcv {text} NOT NULL,
    ksn {bytes},
    block {text},
    at {int} NOT NULL
) {strict};
CREATE INDEX key_values_by_key ON key_values (key_id, device_id);
";

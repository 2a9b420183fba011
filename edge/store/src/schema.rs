//! The schema, in numbered steps that are never edited once released.
//!
//! Every uniqueness rule is named `<table>_<columns>_key`: PostgreSQL reports that name, and the
//! name derived from SQLite's message is the same, so [`StoreError::Conflict`] is stable.
//! Words in braces are explained in `dialect.rs`.

mod events;
mod injections;
mod joint;
mod keys;
mod ledger;
mod payments;
mod proofs;
mod signers;
mod terminals;
mod wallets;

use crate::dialect::Dialect;
use crate::{StoreError, Tx};

/// Tables that only ever grow, in each step.
struct Step {
    texts: &'static [&'static str],
    append_only: &'static [&'static str],
    /// (table, queue): each new row's id goes into the queue.
    enqueue: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step {
        texts: &[V1],
        append_only: &["audit_rows", "audit_chain", "audit_checkpoints"],
        enqueue: &[("audit_rows", "audit_pending")],
    },
    Step { texts: &[V2_RISK, V2_SAMS], append_only: &[], enqueue: &[] },
    Step {
        texts: &[terminals::V3_TERMINALS, keys::V3_KEYS, injections::V3_INJECTIONS],
        append_only: &[],
        enqueue: &[],
    },
    Step {
        texts: &[ledger::V4_LEDGER, payments::V4_PAYMENTS, signers::V4_SIGNERS, events::V4_EVENTS],
        append_only: &["ledger_postings", "payment_events"],
        enqueue: &[],
    },
    Step { texts: &[proofs::V5_PROOFS], append_only: &[], enqueue: &[] },
    Step { texts: &[joint::V6_JOINT], append_only: &[], enqueue: &[] },
    Step { texts: &[wallets::V7_WALLETS], append_only: &["wallet_alarms"], enqueue: &[] },
];

/// Newest schema version this program knows.
pub const SCHEMA_VERSION: i64 = STEPS.len() as i64;

/// Operators, approvals, devices, reads, audit (interfaces.md; C4 for the serial/number mapping).
const V1: &str = "
CREATE TABLE operators (
    id {text} NOT NULL CONSTRAINT operators_id_key PRIMARY KEY,
    name {text} NOT NULL CONSTRAINT operators_name_key UNIQUE,
    roles {text} NOT NULL,
    created_at {int} NOT NULL,
    disabled_at {int}
) {strict};

CREATE TABLE tokens (
    id {text} NOT NULL CONSTRAINT tokens_id_key PRIMARY KEY,
    operator_id {text} NOT NULL REFERENCES operators (id),
    hash {bytes} NOT NULL CONSTRAINT tokens_hash_key UNIQUE,
    label {text} NOT NULL,
    created_at {int} NOT NULL,
    expires_at {int},
    revoked_at {int}
) {strict};
CREATE INDEX tokens_by_operator ON tokens (operator_id);

CREATE TABLE approvals (
    id {text} NOT NULL CONSTRAINT approvals_id_key PRIMARY KEY,
    action {text} NOT NULL,
    subject {text} NOT NULL,
    needed {int} NOT NULL CHECK (needed > 0),
    requested_by {text} NOT NULL REFERENCES operators (id),
    created_at {int} NOT NULL,
    expires_at {int} NOT NULL,
    state {text} NOT NULL
) {strict};
CREATE INDEX approvals_by_state ON approvals (state, id);

CREATE TABLE approval_votes (
    approval_id {text} NOT NULL REFERENCES approvals (id),
    operator_id {text} NOT NULL REFERENCES operators (id),
    vote {text} NOT NULL,
    at {int} NOT NULL,
    CONSTRAINT approval_votes_approval_id_operator_id_key PRIMARY KEY (approval_id, operator_id)
) {strict};

CREATE TABLE devices (
    id {text} NOT NULL CONSTRAINT devices_id_key PRIMARY KEY,
    kind {text} NOT NULL,
    serial {text} NOT NULL,
    status {text} NOT NULL,
    block_reason {text},
    created_at {int} NOT NULL,
    updated_at {int} NOT NULL,
    CONSTRAINT devices_kind_serial_key UNIQUE (kind, serial)
) {strict};
CREATE INDEX devices_by_kind ON devices (kind, id);

CREATE TABLE certificates (
    number {text} NOT NULL CONSTRAINT certificates_number_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    public_key {bytes} NOT NULL,
    state {text} NOT NULL,
    der {bytes},
    not_after {int} NOT NULL,
    intended_at {int} NOT NULL,
    issued_at {int},
    revoked_at {int},
    revoke_reason {text}
) {strict};
CREATE UNIQUE INDEX certificates_device_id_key ON certificates (device_id)
    WHERE state IN ('intended', 'issued');
CREATE INDEX certificates_intended ON certificates (intended_at) WHERE state = 'intended';

CREATE TABLE reads (
    id {text} NOT NULL CONSTRAINT reads_id_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    client_read_id {bytes} NOT NULL,
    state {text} NOT NULL,
    failed_check {text},
    sam_id {text},
    document_type {text},
    attempts {int} NOT NULL,
    started_at {int} NOT NULL,
    finished_at {int},
    CONSTRAINT reads_device_id_client_read_id_key UNIQUE (device_id, client_read_id)
) {strict};
CREATE INDEX reads_by_device ON reads (device_id, id);
CREATE INDEX reads_started ON reads (started_at) WHERE state = 'started';

CREATE TABLE leases (
    name {text} NOT NULL CONSTRAINT leases_name_key PRIMARY KEY,
    holder {text} NOT NULL,
    until {int} NOT NULL
) {strict};

CREATE TABLE audit_rows (
    id {serial},
    at {int} NOT NULL,
    actor {text} NOT NULL,
    action {text} NOT NULL,
    subject {text} NOT NULL,
    outcome {text} NOT NULL,
    failed_check {text},
    incident {text},
    detail {text} NOT NULL,
    CONSTRAINT audit_rows_id_key {serial_key}
) {strict};
CREATE INDEX audit_rows_by_incident ON audit_rows (incident) WHERE incident IS NOT NULL;

-- No foreign key: checking it would read what every other appender writes, and PostgreSQL would
-- make a quarter of them try again. Only the trigger inserts here, and verifying looks at it.
CREATE TABLE audit_pending (
    row_id {int} NOT NULL CONSTRAINT audit_pending_row_id_key PRIMARY KEY
) {strict};

CREATE TABLE audit_chain (
    position {int} NOT NULL CONSTRAINT audit_chain_position_key PRIMARY KEY CHECK (position > 0),
    row_id {int} NOT NULL CONSTRAINT audit_chain_row_id_key UNIQUE REFERENCES audit_rows (id),
    hash {bytes} NOT NULL
) {strict};

CREATE TABLE audit_checkpoints (
    position {int} NOT NULL CONSTRAINT audit_checkpoints_position_key PRIMARY KEY
        REFERENCES audit_chain (position),
    hash {bytes} NOT NULL,
    at {int} NOT NULL,
    signature {bytes} NOT NULL
) {strict};
";

/// A reader's record and the decisions of the risk rules (C5).
const V2_RISK: &str = "
-- Which session has begun the latest attempt: two at once present one certificate twice.
ALTER TABLE reads ADD COLUMN session_id {text};
CREATE INDEX certificates_by_device ON certificates (device_id, intended_at);
CREATE INDEX reads_under_way ON reads (device_id) WHERE state = 'started';

CREATE TABLE reader_factory (
    device_id {text} NOT NULL CONSTRAINT reader_factory_device_id_key PRIMARY KEY
        REFERENCES devices (id),
    maker {text} NOT NULL,
    model {text} NOT NULL,
    hardware {text} NOT NULL,
    firmware {text} NOT NULL,
    batch {text} NOT NULL,
    made_on {text} NOT NULL,
    note {text} NOT NULL,
    set_by {text} NOT NULL,
    set_at {int} NOT NULL
) {strict};

CREATE TABLE reader_reports (
    id {text} NOT NULL CONSTRAINT reader_reports_id_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    reference {text} NOT NULL,
    kind {text} NOT NULL,
    said {text} NOT NULL,
    told_by {text} NOT NULL,
    at {int} NOT NULL,
    CONSTRAINT reader_reports_device_id_reference_key UNIQUE (device_id, reference)
) {strict};
CREATE INDEX reader_reports_by_device ON reader_reports (device_id, id);

CREATE TABLE reader_transactions (
    id {text} NOT NULL CONSTRAINT reader_transactions_id_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    reference {text} NOT NULL,
    amount {text} NOT NULL,
    currency {text} NOT NULL,
    outcome {text} NOT NULL,
    told_by {text} NOT NULL,
    at {int} NOT NULL,
    CONSTRAINT reader_transactions_device_id_reference_key UNIQUE (device_id, reference)
) {strict};
CREATE INDEX reader_transactions_by_device ON reader_transactions (device_id, id);

-- What the rules count; removed when older than the longest window.
CREATE TABLE risk_events (
    id {serial},
    device_id {text} NOT NULL REFERENCES devices (id),
    kind {text} NOT NULL,
    label {text} NOT NULL,
    amount {int} NOT NULL CHECK (amount > 0),
    at {int} NOT NULL,
    CONSTRAINT risk_events_id_key {serial_key}
) {strict};
CREATE INDEX risk_events_by_device ON risk_events (device_id, id);
CREATE INDEX risk_events_by_kind ON risk_events (device_id, kind, at);
CREATE INDEX risk_events_by_age ON risk_events (at);

-- What the events came to since the reader was enrolled.
CREATE TABLE reader_counts (
    device_id {text} NOT NULL REFERENCES devices (id),
    kind {text} NOT NULL,
    label {text} NOT NULL,
    total {int} NOT NULL,
    last_at {int} NOT NULL,
    CONSTRAINT reader_counts_device_id_kind_label_key PRIMARY KEY (device_id, kind, label)
) {strict};
INSERT INTO reader_counts (device_id, kind, label, total, last_at)
    SELECT device_id, 'reads', '', CAST(sum(attempts) AS BIGINT), max(started_at)
    FROM reads GROUP BY device_id;
INSERT INTO reader_counts (device_id, kind, label, total, last_at)
    SELECT device_id, 'done', '', count(*), max(finished_at)
    FROM reads WHERE state = 'done' GROUP BY device_id;
INSERT INTO reader_counts (device_id, kind, label, total, last_at)
    SELECT device_id, 'errors', failed_check, count(*), max(finished_at)
    FROM reads WHERE state = 'failed' AND failed_check <> 'abandoned'
      AND failed_check NOT LIKE 'sam-%' GROUP BY device_id, failed_check;

-- How fast a reader begins reads, and from where.
CREATE TABLE reader_meters (
    device_id {text} NOT NULL CONSTRAINT reader_meters_device_id_key PRIMARY KEY
        REFERENCES devices (id),
    begun_at {int} NOT NULL,
    empty_at {int} NOT NULL,
    peer {text} NOT NULL,
    peer_before {text} NOT NULL,
    peer_before_at {int} NOT NULL
) {strict};

CREATE TABLE risk_decisions (
    id {text} NOT NULL CONSTRAINT risk_decisions_id_key PRIMARY KEY,
    device_id {text} NOT NULL REFERENCES devices (id),
    rule {text} NOT NULL,
    terms {text} NOT NULL,
    counted {int} NOT NULL,
    action {text} NOT NULL,
    pause {int},
    reason {text} NOT NULL,
    at {int} NOT NULL,
    until {int},
    up_to_event {int} NOT NULL,
    ended_at {int},
    ended_by {text},
    end_reason {text}
) {strict};
CREATE INDEX risk_decisions_by_device ON risk_decisions (device_id, id);
CREATE INDEX risk_decisions_by_rule ON risk_decisions (device_id, rule, up_to_event);
CREATE INDEX risk_decisions_until ON risk_decisions (until) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX risk_decisions_device_id_rule_key ON risk_decisions (device_id, rule)
    WHERE ended_at IS NULL;
";

/// SAM modules out of service (C12).
const V2_SAMS: &str = "
CREATE TABLE sam_drains (
    sam_id {text} NOT NULL CONSTRAINT sam_drains_sam_id_key PRIMARY KEY,
    reason {text} NOT NULL,
    actor {text} NOT NULL,
    at {int} NOT NULL
) {strict};
";

/// Brings an empty or older database to [`SCHEMA_VERSION`], inside the caller's transaction.
pub(crate) fn migrate(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let dialect = tx.dialect();
    if let Some(lock) = dialect.migration_lock() {
        tx.query(lock, &[])?;
    }
    let counts = tx.query_one(dialect.table_counts(), &[])?;
    let counts = counts.ok_or_else(|| StoreError::misuse("counting returned no row"))?;
    let found = match (counts.int(0)?, counts.int(1)?) {
        (0, 0) => {
            tx.batch(&dialect.schema("CREATE TABLE countersign_schema (version {int} NOT NULL)"))?;
            tx.execute("INSERT INTO countersign_schema (version) VALUES (?1)", &[0_i64.into()])?;
            0
        }
        (0, _) => return Err(StoreError::NotOurs),
        _ => version(tx)?,
    };
    let done = usize::try_from(found)
        .map_err(|_| StoreError::corrupt("the schema version is negative"))?;
    if done > STEPS.len() {
        return Err(StoreError::TooNew { found, known: SCHEMA_VERSION });
    }
    for step in &STEPS[done..] {
        apply(tx, dialect, step)?;
    }
    if done < STEPS.len() {
        tx.execute("UPDATE countersign_schema SET version = ?1", &[SCHEMA_VERSION.into()])?;
    }
    Ok(())
}

fn version(tx: &mut Tx<'_>) -> Result<i64, StoreError> {
    tx.query_one("SELECT version FROM countersign_schema", &[])?
        .ok_or_else(|| StoreError::corrupt("the schema version is missing"))?
        .int(0)
}

fn apply(tx: &mut Tx<'_>, dialect: Dialect, step: &Step) -> Result<(), StoreError> {
    for text in step.texts {
        tx.batch(&dialect.schema(text))?;
    }
    for table in step.append_only {
        tx.batch(&dialect.append_only(table))?;
    }
    for (table, queue) in step.enqueue {
        tx.batch(&dialect.enqueue(table, queue))?;
    }
    Ok(())
}

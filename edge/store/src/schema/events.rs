/// Repeated requests, and what webhooks are told.
pub(super) const V4_EVENTS: &str = "
-- An Idempotency-Key and what was answered to it. Without an answer: in flight until claimed_until.
CREATE TABLE idempotency_keys (
    operator_id {text} NOT NULL,
    idempotency_key {text} NOT NULL,
    request_hash {bytes} NOT NULL,
    claim {bytes} NOT NULL,
    claimed_until {int} NOT NULL,
    status {int},
    body {bytes},
    created_at {int} NOT NULL,
    CONSTRAINT idempotency_keys_operator_id_idempotency_key_key
        PRIMARY KEY (operator_id, idempotency_key)
) {strict};
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);

-- What happened, in the transaction in which it happened, for webhooks.
CREATE TABLE events (
    id {text} NOT NULL CONSTRAINT events_id_key PRIMARY KEY,
    type {text} NOT NULL,
    subject {text} NOT NULL,
    -- JSON.
    data {text} NOT NULL,
    -- The operator whose own webhooks may be told it.
    owner {text},
    at {int} NOT NULL,
    -- Whether there is a delivery for each webhook that wants it.
    spread {int} NOT NULL
) {strict};
CREATE INDEX events_to_spread ON events (id) WHERE spread = 0;

CREATE TABLE webhooks (
    id {text} NOT NULL CONSTRAINT webhooks_id_key PRIMARY KEY,
    url {text} NOT NULL,
    -- Types of events, joined by commas; empty: all.
    types {text} NOT NULL,
    -- Whether it is told only events of who registered it.
    own_only {int} NOT NULL,
    -- The signing secret as a TR-31 block under the storage key.
    secret {text} NOT NULL,
    status {text} NOT NULL,
    status_reason {text},
    created_by {text} NOT NULL,
    created_at {int} NOT NULL,
    updated_at {int} NOT NULL
) {strict};

CREATE TABLE webhook_deliveries (
    id {text} NOT NULL CONSTRAINT webhook_deliveries_id_key PRIMARY KEY,
    webhook_id {text} NOT NULL REFERENCES webhooks (id),
    event_id {text} NOT NULL REFERENCES events (id),
    state {text} NOT NULL,
    attempts {int} NOT NULL,
    next_at {int} NOT NULL,
    claimed_until {int},
    last_status {int},
    last_error {text},
    created_at {int} NOT NULL,
    updated_at {int} NOT NULL,
    CONSTRAINT webhook_deliveries_webhook_id_event_id_key UNIQUE (webhook_id, event_id)
) {strict};
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, id);
";

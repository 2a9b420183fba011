/// Payments, their timelines, and the answers to them (D1, D5–D7).
pub(super) const V4_PAYMENTS: &str = "
CREATE TABLE payments (
    id {text} NOT NULL CONSTRAINT payments_id_key PRIMARY KEY,
    state {text} NOT NULL,
    payer_account {text} NOT NULL,
    payee_account {text} NOT NULL,
    currency {text} NOT NULL,
    amount {int} NOT NULL CHECK (amount > 0),
    -- How much of it has gone back by refunds and a reversal.
    refunded {int} NOT NULL CONSTRAINT payments_refunded_check
        CHECK (refunded >= 0 AND refunded <= amount),
    end_to_end_id {text} NOT NULL,
    order_text {text} NOT NULL,
    initiating_party {text} NOT NULL,
    -- Names of alerts for whoever confirms, joined by commas.
    alerts {text} NOT NULL,
    created_by {text} NOT NULL,
    -- The very bytes that a device signs.
    request {bytes} NOT NULL,
    wrong_answers {int} NOT NULL,
    -- Why it ended as it did: a stable name.
    reason {text},
    incident {text},
    -- One more with every change.
    version {int} NOT NULL,
    created_at {int} NOT NULL,
    expires_at {int} NOT NULL,
    updated_at {int} NOT NULL,
    FOREIGN KEY (payer_account, currency) REFERENCES ledger_accounts (id, currency),
    FOREIGN KEY (payee_account, currency) REFERENCES ledger_accounts (id, currency)
) {strict};
CREATE INDEX payments_by_payer ON payments (payer_account, id);
CREATE INDEX payments_by_creator ON payments (created_by, id);
CREATE INDEX payments_open ON payments (expires_at) WHERE state IN ('created', 'pending');

-- The timeline: one row per change of state.
CREATE TABLE payment_events (
    payment_id {text} NOT NULL REFERENCES payments (id),
    number {int} NOT NULL,
    state {text} NOT NULL,
    actor {text} NOT NULL,
    reason {text},
    at {int} NOT NULL,
    CONSTRAINT payment_events_payment_id_number_key PRIMARY KEY (payment_id, number)
) {strict};

CREATE TABLE payment_authorisations (
    id {text} NOT NULL CONSTRAINT payment_authorisations_id_key PRIMARY KEY,
    payment_id {text} NOT NULL REFERENCES payments (id),
    -- SHA-256 of the answer: the same answer again is answered as before.
    answer_hash {bytes} NOT NULL,
    outcome {text} NOT NULL,
    method {text} NOT NULL,
    device_id {text},
    phone_id {text},
    certificate_number {text},
    -- The certificate (DER) under which it was accepted, and the signature or the digits.
    certificate {bytes},
    signature {bytes},
    -- The failed check, for the audit's readers, and the incident for the others.
    failed_check {text},
    incident {text},
    at {int} NOT NULL,
    CONSTRAINT payment_authorisations_payment_id_answer_hash_key UNIQUE (payment_id, answer_hash)
) {strict};
-- One approval executes one payment, once.
CREATE UNIQUE INDEX payment_authorisations_payment_id_key ON payment_authorisations (payment_id)
    WHERE outcome = 'accepted';
CREATE INDEX payment_authorisations_by_device ON payment_authorisations (device_id, id)
    WHERE device_id IS NOT NULL;
";

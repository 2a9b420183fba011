/// Accounts and postings (D6).
pub(super) const V4_LEDGER: &str = "
-- Amounts are integers in minor units of the account's currency.
CREATE TABLE ledger_accounts (
    id {text} NOT NULL CONSTRAINT ledger_accounts_id_key PRIMARY KEY,
    number {text} NOT NULL CONSTRAINT ledger_accounts_number_key UNIQUE,
    holder {text} NOT NULL,
    currency {text} NOT NULL,
    kind {text} NOT NULL,
    status {text} NOT NULL,
    status_reason {text},
    balance {int} NOT NULL,
    -- How far below zero the balance may go; NULL: without bound (accounts of the outside world).
    overdraft {int} CHECK (overdraft >= 0),
    -- How many entries it has: the number of the last one.
    entries {int} NOT NULL CHECK (entries >= 0),
    created_at {int} NOT NULL,
    updated_at {int} NOT NULL,
    CONSTRAINT ledger_accounts_id_currency_key UNIQUE (id, currency),
    CONSTRAINT ledger_accounts_within_overdraft
        CHECK (overdraft IS NULL OR balance >= -overdraft)
) {strict};

-- A posting is one row with both its entries: what one account loses another one gets, so there is
-- no way to write entries that do not sum to zero. The currency is both accounts'.
CREATE TABLE ledger_postings (
    id {text} NOT NULL CONSTRAINT ledger_postings_id_key PRIMARY KEY,
    kind {text} NOT NULL,
    -- What is posted at most once: the payment, the refund.
    reference {text} NOT NULL,
    payment_id {text},
    debit_account {text} NOT NULL,
    credit_account {text} NOT NULL,
    currency {text} NOT NULL,
    amount {int} NOT NULL CHECK (amount > 0),
    -- The number of the entry in each account, without gaps, and the balance after it.
    debit_entry {int} NOT NULL,
    debit_balance {int} NOT NULL,
    credit_entry {int} NOT NULL,
    credit_balance {int} NOT NULL,
    actor {text} NOT NULL,
    at {int} NOT NULL,
    CONSTRAINT ledger_postings_kind_reference_key UNIQUE (kind, reference),
    CONSTRAINT ledger_postings_accounts_check CHECK (debit_account <> credit_account),
    FOREIGN KEY (debit_account, currency) REFERENCES ledger_accounts (id, currency),
    FOREIGN KEY (credit_account, currency) REFERENCES ledger_accounts (id, currency)
) {strict};
CREATE UNIQUE INDEX ledger_postings_debit_account_debit_entry_key
    ON ledger_postings (debit_account, debit_entry);
CREATE UNIQUE INDEX ledger_postings_credit_account_credit_entry_key
    ON ledger_postings (credit_account, credit_entry);
CREATE INDEX ledger_postings_by_payment ON ledger_postings (payment_id)
    WHERE payment_id IS NOT NULL;
-- Whether one account has ever paid another.
CREATE INDEX ledger_postings_by_pair ON ledger_postings (debit_account, credit_account)
    WHERE kind = 'payment';

CREATE VIEW ledger_entries AS
SELECT id AS posting_id, debit_account AS account_id, debit_entry AS entry,
    -amount AS amount, debit_balance AS balance, credit_account AS other_account
FROM ledger_postings
UNION ALL
SELECT id, credit_account, credit_entry, amount, credit_balance, debit_account
FROM ledger_postings;
";

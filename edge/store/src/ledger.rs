//! The ledger as a whole (D6): its trial balance, and whether everything in it fits together.

use crate::{Row, StoreError, Tx};

/// Most findings of one kind that [`Tx::ledger_check`] returns.
pub const FINDINGS_MAX: u32 = 100;
/// Sums are made in two halves of this many minor units, because the sum of balances may need more
/// than 64 bits.
const HALF: i64 = 1_000_000_000;

/// What the accounts of one currency have, in minor units. Debit and credit balances are equal in a
/// ledger that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialBalance {
    /// ISO 4217 code.
    pub currency: String,
    /// How many accounts.
    pub accounts: i64,
    /// What the balances below zero come to, without the sign.
    pub debit: i128,
    /// What the balances above zero come to.
    pub credit: i128,
}

impl TrialBalance {
    /// Whether the balances sum to zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.debit == self.credit
    }
}

/// Something in the ledger that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFinding {
    /// The rule: a stable name.
    pub rule: &'static str,
    /// The account, payment, posting or currency that breaks it.
    pub subject: String,
}

/// A rule, and the query that selects what breaks it.
type Rule = (&'static str, &'static str);

/// Checked over all rows. Sums are compared as the database adds: PostgreSQL without bound, SQLite
/// with an error where 64 bits are not enough.
const RULES: &[Rule] = &[
    // An account's balance is the sum of its entries, which are numbered without gaps.
    (
        "balance",
        "SELECT a.id FROM ledger_accounts a LEFT JOIN (
             SELECT account_id, sum(amount) AS amount FROM ledger_entries GROUP BY account_id) e
           ON e.account_id = a.id
         WHERE coalesce(e.amount, 0) <> a.balance ORDER BY a.id LIMIT ?1",
    ),
    (
        "entry-numbers",
        "SELECT a.id FROM ledger_accounts a LEFT JOIN (
             SELECT account_id, count(DISTINCT entry) AS numbers, count(*) AS entries,
                 min(entry) AS first, max(entry) AS last
             FROM ledger_entries GROUP BY account_id) e ON e.account_id = a.id
         WHERE coalesce(e.entries, 0) <> a.entries OR coalesce(e.numbers, 0) <> a.entries
            OR coalesce(e.last, 0) <> a.entries OR coalesce(e.first, 1) <> 1
         ORDER BY a.id LIMIT ?1",
    ),
    // The balance beside each entry is the sum up to it.
    (
        "running-balance",
        "SELECT DISTINCT account_id FROM (
             SELECT account_id, balance,
                 sum(amount) OVER (PARTITION BY account_id ORDER BY entry) AS up_to
             FROM ledger_entries) e
         WHERE balance <> up_to ORDER BY account_id LIMIT ?1",
    ),
    ("overdraft", "SELECT id FROM ledger_accounts WHERE balance < -overdraft ORDER BY id LIMIT ?1"),
    (
        "currency",
        "SELECT p.id FROM ledger_postings p
         JOIN ledger_accounts d ON d.id = p.debit_account
         JOIN ledger_accounts c ON c.id = p.credit_account
         WHERE d.currency <> p.currency OR c.currency <> p.currency ORDER BY p.id LIMIT ?1",
    ),
    // A payment is executed if and only if it is posted, as it was confirmed, and an answer to it
    // was accepted.
    (
        "executed-unposted",
        "SELECT y.id FROM payments y WHERE y.state = 'executed' AND NOT EXISTS (
             SELECT 1 FROM ledger_postings p
             WHERE p.kind = 'payment' AND p.reference = y.id AND p.payment_id = y.id
               AND p.debit_account = y.payer_account AND p.credit_account = y.payee_account
               AND p.currency = y.currency AND p.amount = y.amount)
         ORDER BY y.id LIMIT ?1",
    ),
    (
        "posted-unexecuted",
        "SELECT p.id FROM ledger_postings p WHERE p.kind = 'payment' AND NOT EXISTS (
             SELECT 1 FROM payments y
             WHERE y.id = p.reference AND y.id = p.payment_id AND y.state = 'executed')
         ORDER BY p.id LIMIT ?1",
    ),
    (
        "executed-unconfirmed",
        "SELECT y.id FROM payments y
         WHERE y.state IN ('approved', 'executing', 'executed', 'execution_failed')
           AND NOT EXISTS (SELECT 1 FROM payment_authorisations a
               WHERE a.payment_id = y.id AND a.outcome = 'accepted')
         ORDER BY y.id LIMIT ?1",
    ),
    (
        "confirmed-unexecuted",
        "SELECT a.payment_id FROM payment_authorisations a JOIN payments y ON y.id = a.payment_id
         WHERE a.outcome = 'accepted'
           AND y.state NOT IN ('approved', 'executing', 'executed', 'execution_failed')
         ORDER BY a.payment_id LIMIT ?1",
    ),
    (
        "refunded",
        "SELECT y.id FROM payments y LEFT JOIN (
             SELECT payment_id, sum(amount) AS amount FROM ledger_postings
             WHERE kind IN ('refund', 'reversal') GROUP BY payment_id) r ON r.payment_id = y.id
         WHERE coalesce(r.amount, 0) <> y.refunded ORDER BY y.id LIMIT ?1",
    ),
    // A payment stands where its timeline's last row says.
    (
        "timeline",
        "SELECT y.id FROM payments y WHERE NOT EXISTS (
             SELECT 1 FROM payment_events e WHERE e.payment_id = y.id AND e.state = y.state
               AND e.number <= y.version AND e.number = (
                 SELECT max(l.number) FROM payment_events l WHERE l.payment_id = y.id))
         ORDER BY y.id LIMIT ?1",
    ),
];

fn trial_balance(row: &Row) -> Result<TrialBalance, StoreError> {
    let whole = |high: usize, low: usize| {
        Ok::<_, StoreError>(
            i128::from(row.int(high)?) * i128::from(HALF) + i128::from(row.int(low)?),
        )
    };
    Ok(TrialBalance {
        currency: row.text(0)?.to_owned(),
        accounts: row.int(1)?,
        debit: -whole(2, 3)?,
        credit: whole(4, 5)?,
    })
}

impl Tx<'_> {
    /// The trial balance of each currency, in the order of their codes.
    ///
    /// # Errors
    /// What the database answers.
    pub fn trial_balance(&mut self) -> Result<Vec<TrialBalance>, StoreError> {
        let rows = self.query(
            "SELECT currency, count(*),
                 CAST(sum(CASE WHEN balance < 0 THEN balance / ?1 ELSE 0 END) AS BIGINT),
                 CAST(sum(CASE WHEN balance < 0 THEN balance % ?1 ELSE 0 END) AS BIGINT),
                 CAST(sum(CASE WHEN balance > 0 THEN balance / ?1 ELSE 0 END) AS BIGINT),
                 CAST(sum(CASE WHEN balance > 0 THEN balance % ?1 ELSE 0 END) AS BIGINT)
             FROM ledger_accounts GROUP BY currency ORDER BY currency",
            &[HALF.into()],
        )?;
        rows.iter().map(trial_balance).collect()
    }

    /// What of the ledger and the payments does not fit together; empty if all does. Reads every
    /// row: for tests and for an operator's check, not for every request. Of each rule at most
    /// [`FINDINGS_MAX`].
    ///
    /// The rules: `trial-balance` (a currency whose balances do not sum to zero), `balance`,
    /// `entry-numbers`, `running-balance`, `overdraft` (an account), `currency`,
    /// `posted-unexecuted` (a posting), `executed-unposted`, `executed-unconfirmed`,
    /// `confirmed-unexecuted`, `refunded`, `timeline` (a payment).
    ///
    /// # Errors
    /// What the database answers.
    pub fn ledger_check(&mut self) -> Result<Vec<LedgerFinding>, StoreError> {
        let mut findings: Vec<LedgerFinding> = self
            .trial_balance()?
            .into_iter()
            .filter(|currency| !currency.is_zero())
            .map(|found| LedgerFinding { rule: "trial-balance", subject: found.currency })
            .collect();
        for (rule, sql) in RULES {
            for row in self.query(sql, &[FINDINGS_MAX.into()])? {
                findings.push(LedgerFinding { rule, subject: row.text(0)?.to_owned() });
            }
        }
        Ok(findings)
    }
}

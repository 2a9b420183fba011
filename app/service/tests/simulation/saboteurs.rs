//! That worlds go wrong when something is wrong: the database is made to undo or alter what the
//! service does, as a fault in the service would, and a world has to notice.

use countersign_store::StoreError;
use libtest_mimic::{Failed, Trial};

use crate::block_on;
use crate::house::Place;
use crate::run::live;

/// Worlds that a saboteur may take until it is noticed, and their length.
const WORLDS: u64 = 6;
const STEPS: usize = 150;

/// What is done to the database before the world begins, and under which names it may be noticed.
type Saboteur = (&'static str, &'static str, &'static [&'static str]);

const SABOTEURS: [Saboteur; 9] = [
    (
        "an_answer_is_not_kept_for_retries",
        "CREATE TRIGGER sabotage AFTER UPDATE ON idempotency_keys WHEN NEW.body IS NOT NULL
         BEGIN DELETE FROM idempotency_keys WHERE idempotency_key = NEW.idempotency_key; END",
        &["retry-answered-otherwise", "key-for-two-requests"],
    ),
    (
        "an_answer_is_altered_for_retries",
        "CREATE TRIGGER sabotage AFTER UPDATE ON idempotency_keys WHEN NEW.status <> 200
         BEGIN UPDATE idempotency_keys SET status = 200
         WHERE idempotency_key = NEW.idempotency_key; END",
        &["retry-answered-otherwise"],
    ),
    (
        "refused_answers_are_not_known_again",
        "CREATE TRIGGER sabotage AFTER INSERT ON payment_authorisations
         WHEN NEW.outcome = 'refused'
         BEGIN UPDATE payment_authorisations SET answer_hash = randomblob(32)
         WHERE id = NEW.id; END",
        &["answer-answered-otherwise"],
    ),
    (
        "a_cent_comes_from_nowhere",
        "CREATE TRIGGER sabotage AFTER INSERT ON ledger_postings WHEN NEW.kind = 'payment'
         BEGIN UPDATE ledger_accounts SET balance = balance + 1
         WHERE number = 'PAYEE0001'; END",
        &["sum-of-balances"],
    ),
    (
        "what_was_cancelled_comes_back",
        "CREATE TRIGGER sabotage AFTER UPDATE ON payments WHEN NEW.state = 'cancelled'
         BEGIN UPDATE payments SET state = 'pending' WHERE id = NEW.id; END",
        &["timeline-end", "state-step"],
    ),
    (
        "a_payment_waits_longer_than_it_says",
        "CREATE TRIGGER sabotage AFTER INSERT ON payments
         BEGIN UPDATE payments SET expires_at = expires_at + 60000 WHERE id = NEW.id; END",
        &["request-differs"],
    ),
    (
        "what_is_signed_is_another_amount",
        "CREATE TRIGGER sabotage AFTER INSERT ON payments
         BEGIN UPDATE payments SET amount = amount + 1 WHERE id = NEW.id; END",
        &["request-differs"],
    ),
    (
        "blocks_do_not_last",
        "CREATE TRIGGER sabotage AFTER UPDATE ON devices WHEN NEW.status = 'blocked'
         BEGIN UPDATE devices SET status = 'enrolled' WHERE id = NEW.id; END",
        &["barred-signer"],
    ),
    (
        "whose_device_it_is_does_not_matter",
        "CREATE TRIGGER sabotage AFTER INSERT ON security_device_accounts
         BEGIN INSERT OR IGNORE INTO security_device_accounts (device_id, account_id)
         SELECT NEW.device_id, id FROM ledger_accounts; END",
        &["foreign-device"],
    ),
];

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    SABOTEURS.into_iter().map(|saboteur| {
        Trial::test(format!("a_world_notices::{}", saboteur.0), move || is_noticed(&saboteur))
    })
}

fn is_noticed((name, sql, names): &Saboteur) -> Result<(), Failed> {
    let sql = *sql;
    for seed in 1..=WORLDS {
        let ended = block_on(async {
            let place = Place::memory().await;
            let sabotage = place.open().await;
            sabotage.run_tx("sabotage", move |tx| tx.execute(sql, &[]).map(|_| ())).await?;
            Ok::<_, StoreError>(live(place, seed, STEPS).await)
        });
        if let Err(failure) = ended? {
            let found: Vec<_> = failure.violations.iter().map(|one| one.name).collect();
            if names.iter().any(|name| found.contains(name)) {
                return Ok(());
            }
            return Err(format!("{name} is noticed as something else: {failure}").into());
        }
    }
    Err(format!("{name} is not noticed in {WORLDS} worlds").into())
}

//! That worlds go wrong when something is wrong: the database is made to undo or alter what the
//! service does, as a fault in the service would, and a world has to notice.

use countersign_store::StoreError;
use libtest_mimic::{Failed, Trial};

use crate::block_on;
use crate::house::Place;
use crate::plan::CARDS_IN;
use crate::run::{Failure, live, live_with};
use crate::world::World;

/// Worlds that a saboteur may take until it is noticed, and their length.
const WORLDS: u64 = 6;
const STEPS: usize = 150;

/// What is wrong on purpose with a world's cards, or with its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// Gives the joint password without contact before there is consent.
    CardReleasesEarly,
    /// Draws the same joint password each time.
    CardRepeatsPassword,
    /// Any PIN will do.
    CardTakesAnyPin,
    /// Keeps everything when its holder declines.
    CardForgetsNothing,
    /// Do not look at the joint password, the signature, or the transaction.
    ServerSkipsPassword,
    ServerSkipsSignature,
    ServerSkipsTransaction,
}

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

/// The same of what terminals bring.
const OF_TERMINALS: [Saboteur; 3] = [
    (
        "another_commitment_is_stored",
        "CREATE TRIGGER sabotage AFTER INSERT ON payment_authorisations
         WHEN NEW.method = 'joint' AND NEW.outcome = 'accepted'
         BEGIN UPDATE payment_authorisations SET commitment = randomblob(49)
         WHERE id = NEW.id; END",
        &["executed-without-consent"],
    ),
    (
        "a_wrong_joint_password_is_forgotten",
        "CREATE TRIGGER sabotage AFTER INSERT ON payment_authorisations
         WHEN NEW.failed_check = 'joint-password'
         BEGIN DELETE FROM payment_authorisations WHERE id = NEW.id; END",
        &["wrong-answers"],
    ),
    (
        "a_card_is_blamed_for_who_never_had_it",
        "CREATE TRIGGER sabotage AFTER INSERT ON payment_authorisations
         WHEN NEW.failed_check = 'answer-signature' AND NEW.method = 'joint'
         BEGIN UPDATE security_devices SET failures = failures + 1
         WHERE device_id = NEW.device_id; END",
        &["blamed-for-others"],
    ),
];

/// Cards and servers that are broken, and under which names a world may notice.
const BROKEN: [(&str, Sabotage, &[&str]); 7] = [
    (
        "a_card_that_releases_before_consent",
        Sabotage::CardReleasesEarly,
        &["password-without-consent"],
    ),
    ("a_card_that_repeats_its_password", Sabotage::CardRepeatsPassword, &["password-again"]),
    ("a_card_that_takes_any_pin", Sabotage::CardTakesAnyPin, &["consent-without-pin"]),
    ("a_card_that_forgets_nothing", Sabotage::CardForgetsNothing, &["consent-to-nothing"]),
    (
        "a_server_that_skips_the_joint_password",
        Sabotage::ServerSkipsPassword,
        &["executed-without-consent", "forgery-accepted"],
    ),
    (
        "a_server_that_skips_the_signature",
        Sabotage::ServerSkipsSignature,
        &["executed-without-consent", "forgery-accepted"],
    ),
    (
        "a_server_that_skips_the_transaction",
        Sabotage::ServerSkipsTransaction,
        &["forgery-accepted", "refused-for-another-reason"],
    ),
];

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    let by_sql = SABOTEURS.into_iter().map(|saboteur| (saboteur, 1));
    let by_sql = by_sql.chain(OF_TERMINALS.into_iter().map(|saboteur| (saboteur, CARDS_IN)));
    let by_sql = by_sql.map(|(saboteur, every)| {
        let noticed = move || is_noticed(&saboteur, every);
        Trial::test(format!("a_world_notices::{}", saboteur.0), noticed)
    });
    let broken = BROKEN.into_iter().map(|(name, sabotage, names)| {
        let noticed = move || {
            noticed((name, names), CARDS_IN, |seed| {
                block_on(async {
                    Ok(live_with(Place::memory().await, (seed, STEPS), sabotage).await)
                })
            })
        };
        Trial::test(format!("a_world_notices::{name}"), noticed)
    });
    by_sql.chain(broken)
}

fn is_noticed((name, sql, names): &Saboteur, every: u64) -> Result<(), Failed> {
    let sql = *sql;
    noticed((name, names), every, |seed| {
        block_on(async {
            let place = Place::memory().await;
            let sabotage = place.open().await;
            sabotage.run_tx("sabotage", move |tx| tx.execute(sql, &[]).map(|_| ())).await?;
            Ok::<_, StoreError>(live(place, seed, STEPS).await)
        })
    })
}

/// Whether one of a few worlds, of every so-many-th seed, goes wrong, and under one of these names.
fn noticed(
    (name, names): (&str, &[&str]),
    every: u64,
    ends: impl Fn(u64) -> Result<Result<World, Failure>, StoreError>,
) -> Result<(), Failed> {
    for seed in 1..=WORLDS {
        let ended = ends(seed * every);
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

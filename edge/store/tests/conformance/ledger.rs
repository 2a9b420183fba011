//! Accounts and postings (D6): what the database keeps true whoever writes.

use countersign_store::{
    Account, AccountKind, AccountStatus, IdKind, LedgerFinding, Posting, PostingKind, Store,
    StoreError, Tx,
};
use tokio::task::JoinSet;

use crate::fixture::{Backend, Db, at, id};

pub(crate) fn acc(name: &str) -> String {
    id(IdKind::Account, name)
}

pub(crate) fn account(name: &str, overdraft: Option<i64>) -> Account {
    Account {
        id: acc(name),
        number: format!("NO{name}"),
        holder: format!("Holder of {name}"),
        currency: "CNY".to_owned(),
        kind: AccountKind::Customer,
        status: AccountStatus::Open,
        status_reason: None,
        balance: 0,
        overdraft,
        entries: 0,
        created_at: at(0),
        updated_at: at(0),
    }
}

/// Opens accounts that have 1000.00 each, from the outside world.
pub(crate) async fn funded(db: &Db, names: &'static [&'static str]) {
    let world = Account { kind: AccountKind::External, ..account("world", None) };
    db.tx(move |tx| {
        if tx.account(&world.id)?.is_none() {
            tx.insert_account(&world)?;
        }
        for name in names {
            tx.insert_account(&account(name, Some(0)))?;
            let posting = between(tx, "world", name, 100_000, &format!("opening-{name}"))?;
            tx.insert_postings(&[posting])?;
        }
        Ok(())
    })
    .await;
}

/// The posting of `amount` as the accounts stand, whether or not it is allowed.
fn between(
    tx: &mut Tx<'_>,
    debit: &str,
    credit: &str,
    amount: i64,
    reference: &str,
) -> Result<Posting, StoreError> {
    let accounts = tx.lock_accounts(&[&acc(debit), &acc(credit)])?;
    let (from, to) = (&accounts[&acc(debit)], &accounts[&acc(credit)]);
    Ok(Posting {
        id: id(IdKind::Posting, reference),
        kind: PostingKind::Manual,
        reference: reference.to_owned(),
        payment_id: None,
        debit_account: from.id.clone(),
        credit_account: to.id.clone(),
        currency: from.currency.clone(),
        amount,
        debit_entry: from.entries + 1,
        debit_balance: from.balance - amount,
        credit_entry: to.entries + 1,
        credit_balance: to.balance + amount,
        actor: "opr_test".to_owned(),
        at: at(1),
    })
}

/// Tries to store what `change` makes of a good posting of 1.00 from `a` to `b`.
async fn tried(db: &Db, change: impl Fn(&mut Posting) + Send + 'static) -> Result<(), StoreError> {
    let done = db.store.run_locked("test", move |tx| {
        let mut posting = between(tx, "a", "b", 100, "once")?;
        change(&mut posting);
        tx.insert_postings(&[posting])
    });
    done.await
}

pub(crate) async fn in_order(db: &Db) {
    assert_eq!(db.tx(|tx| tx.ledger_check()).await, []);
}

pub(crate) async fn accounts_are_opened_found_and_changed(db: Db) {
    let new = Account { overdraft: Some(500), ..account("a", None) };
    let wanted = new.clone();
    db.tx(move |tx| tx.insert_account(&new)).await;
    let found = db.tx(|tx| Ok((tx.account(&acc("a"))?, tx.account_by_number("NOa")?))).await;
    assert_eq!(found, (Some(wanted.clone()), Some(wanted)));
    assert_eq!(db.tx(|tx| tx.account(&acc("b"))).await, None);

    let taken = Account { id: acc("b"), ..account("a", None) };
    let error = db.refused(move |tx| tx.insert_account(&taken)).await;
    assert_eq!(error, StoreError::Conflict { constraint: "ledger_accounts_number_key".into() });
    for (balance, entries) in [(1, 0), (0, 1)] {
        let full = Account { balance, entries, ..account("b", None) };
        let error = db.refused(move |tx| tx.insert_account(&full)).await;
        assert_eq!(error, StoreError::Refused { check: "account-not-empty" });
    }
    let error = db.refused(|tx| tx.insert_account(&account("b", Some(-1)))).await;
    assert_eq!(error, StoreError::Refused { check: "row-check" });

    for (status, reason) in [
        (AccountStatus::Frozen, Some("a court's order")),
        (AccountStatus::Open, None),
        (AccountStatus::Closed, Some("the holder left")),
    ] {
        db.tx(move |tx| tx.set_account_status(&acc("a"), status, reason, at(5))).await;
        let found = db.tx(|tx| tx.account(&acc("a"))).await.unwrap();
        assert_eq!((found.status, found.status_reason.as_deref()), (status, reason));
        assert_eq!(found.updated_at, at(5));
    }
    let unknown =
        db.refused(|tx| tx.set_account_status(&acc("x"), AccountStatus::Frozen, None, at(5)));
    assert_eq!(unknown.await, StoreError::NotFound { what: "account" });

    for name in ["b", "c", "d"] {
        db.tx(move |tx| tx.insert_account(&account(name, None))).await;
    }
    let first = db.tx(|tx| tx.accounts_page(None, 3)).await;
    let cursor = first.next.clone().unwrap();
    let rest = db.tx(move |tx| tx.accounts_page(Some(&cursor), 3)).await;
    let mut all: Vec<_> = first.items.iter().chain(&rest.items).map(|a| &a.number).collect();
    assert_eq!((all.len(), rest.next), (4, None));
    all.sort();
    assert_eq!(all, ["NOa", "NOb", "NOc", "NOd"]);
}

pub(crate) async fn postings_move_and_are_found(db: Db) {
    funded(&db, &["a", "b"]).await;
    let posted = db
        .store
        .run_locked::<_, StoreError, _>("test", |tx| {
            let posting = between(tx, "a", "b", 12_34, "rent")?;
            tx.insert_postings(std::slice::from_ref(&posting))?;
            // What was written last is seen by the next statement.
            assert_eq!(tx.posting(&posting.id)?.as_ref(), Some(&posting));
            Ok(posting)
        })
        .await
        .unwrap();
    let id = posted.id.clone();
    let found = db.tx(move |tx| tx.posting(&id)).await;
    assert_eq!(found.as_ref(), Some(&posted));
    let found = db.tx(|tx| tx.posting_by_reference(PostingKind::Manual, "rent")).await;
    assert_eq!(found.as_ref(), Some(&posted));
    let other = db.tx(|tx| tx.posting_by_reference(PostingKind::Refund, "rent")).await;
    assert_eq!(other, None);

    let accounts =
        db.tx(|tx| tx.lock_accounts(&[&acc("b"), &acc("a"), &acc("x"), &acc("a")])).await;
    let shown: Vec<_> = accounts.values().map(|a| (&*a.number, a.balance, a.entries)).collect();
    let mut shown_sorted = shown.clone();
    shown_sorted.sort_unstable();
    assert_eq!(shown_sorted, [("NOa", 98_766, 2), ("NOb", 101_234, 2)]);

    let entries = db.tx(|tx| tx.entries_page(&acc("b"), None, 1)).await;
    let newest = &entries.items[0];
    assert_eq!((newest.number, newest.amount, newest.balance), (2, 12_34, 101_234));
    assert_eq!((&*newest.other_number, &*newest.reference), ("NOa", "rent"));
    let cursor = entries.next.unwrap();
    let entries = db.tx(move |tx| tx.entries_page(&acc("b"), Some(&cursor), 1)).await;
    assert_eq!((entries.items[0].number, entries.items[0].balance), (1, 100_000));
    assert_eq!((entries.items.len(), entries.next), (1, None));
    let lost = db.tx(|tx| tx.entries_page(&acc("a"), None, 10)).await.items;
    assert_eq!(lost.iter().map(|e| e.amount).collect::<Vec<_>>(), [-12_34, 100_000]);
    for cursor in ["x", "", "1.5"] {
        let error = db.refused(move |tx| tx.entries_page(&acc("a"), Some(cursor), 10)).await;
        assert_eq!(error, StoreError::Refused { check: "page-cursor" });
    }

    let balances = db.tx(|tx| tx.trial_balance()).await;
    let shown: Vec<_> =
        balances.iter().map(|b| (&*b.currency, b.accounts, b.debit, b.credit)).collect();
    assert_eq!(shown, [("CNY", 3, 200_000, 200_000)]);
    in_order(&db).await;
}

/// Each of these would break the ledger; the database refuses it whoever asks, and all of it.
pub(crate) async fn postings_that_do_not_fit_are_refused(db: Db) {
    funded(&db, &["a", "b"]).await;
    let dollars = Account { currency: "USD".to_owned(), ..account("usd", None) };
    db.tx(move |tx| tx.insert_account(&dollars)).await;
    let row = Err(StoreError::Refused { check: "row-check" });
    let missing = Err(StoreError::NotFound { what: "referenced row" });
    // An amount that is none.
    assert_eq!(tried(&db, |p| p.amount = 0).await, row);
    assert_eq!(tried(&db, |p| p.amount = -100).await, row);
    // Below the overdraft.
    assert_eq!(tried(&db, |p| p.debit_balance = -1).await, row);
    // One account on both sides.
    let same = tried(&db, |p| {
        p.credit_account.clone_from(&p.debit_account);
        p.credit_entry = p.debit_entry + 1;
    });
    assert_eq!(same.await, row);
    // A number that is not the account's next: taken, and with a gap.
    for (debit, credit) in [(1, 2), (3, 2), (2, 1), (2, 3), (0, 2)] {
        let tried = tried(&db, move |p| (p.debit_entry, p.credit_entry) = (debit, credit));
        assert_eq!(tried.await, row, "{debit} {credit}");
    }
    // Accounts in another currency, on either side or both, and one that is not there.
    assert_eq!(tried(&db, |p| p.currency = "USD".to_owned()).await, missing);
    let other = |p: &mut Posting| {
        p.credit_account = acc("usd");
        p.credit_entry = 1;
    };
    assert_eq!(tried(&db, other).await, missing);
    assert_eq!(tried(&db, |p| p.credit_account = acc("x")).await, missing);
    // Nothing of all that was stored; the good one is, once.
    assert_eq!(db.tx(|tx| tx.posting_by_reference(PostingKind::Manual, "once")).await, None);
    assert_eq!(tried(&db, |_| ()).await, Ok(()));
    let again = tried(&db, |p| p.id = id(IdKind::Posting, "again")).await;
    let constraint = "ledger_postings_kind_reference_key".to_owned();
    assert_eq!(again, Err(StoreError::Conflict { constraint }));
    let shown = db.tx(|tx| Ok(tx.account(&acc("a"))?.map(|a| (a.balance, a.entries)))).await;
    assert_eq!(shown, Some((99_900, 2)));
    in_order(&db).await;
}

pub(crate) async fn overdrafts_bound_balances(db: Db) {
    funded(&db, &["a", "b"]).await;
    db.tx(|tx| tx.set_overdraft(&acc("a"), Some(50), at(2))).await;
    let exact = db.store.run_locked::<_, StoreError, _>("test", |tx| {
        let posting = between(tx, "a", "b", 100_050, "all")?;
        tx.insert_postings(&[posting])
    });
    exact.await.unwrap();
    // The balance is lower than that already.
    for overdraft in [49, -1] {
        let error = db.refused(move |tx| tx.set_overdraft(&acc("a"), Some(overdraft), at(3))).await;
        assert_eq!(error, StoreError::Refused { check: "row-check" });
    }
    assert_eq!(tried(&db, |_| ()).await, Err(StoreError::Refused { check: "row-check" }));
    db.tx(|tx| tx.set_overdraft(&acc("a"), None, at(3))).await;
    assert_eq!(tried(&db, |_| ()).await, Ok(()));
    in_order(&db).await;
}

pub(crate) async fn postings_are_never_changed(db: Db) {
    funded(&db, &["a"]).await;
    for sql in [
        "UPDATE ledger_postings SET amount = amount + 1",
        "UPDATE ledger_postings SET actor = 'someone'",
        "DELETE FROM ledger_postings",
    ] {
        let error = db.refused(move |tx| tx.execute(sql, &[])).await;
        assert_eq!(error, StoreError::Refused { check: "append-only" }, "{sql}");
    }
    in_order(&db).await;
}

/// Two stores post to one account at once: every posting counts, and the numbers have no gaps.
pub(crate) async fn racing_postings_all_count(db: Db) {
    const EACH: usize = 40;
    funded(&db, &["a", "b", "c"]).await;
    let other =
        if db.backend == Backend::Memory { db.store.clone() } else { db.open().await.unwrap() };
    let mut tasks = JoinSet::new();
    for number in 0..2 * EACH {
        let store: Store = if number % 2 == 0 { db.store.clone() } else { other.clone() };
        // Both directions, so that the order of locks matters.
        let (from, to) = [("a", "b"), ("b", "a"), ("c", "a"), ("b", "c")][number % 4];
        tasks.spawn(async move {
            let done = store.run_locked::<_, StoreError, _>("post", move |tx| {
                let posting = between(tx, from, to, 7, &format!("r{number}"))?;
                tx.insert_postings(&[posting])
            });
            done.await
        });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
    // Locks are waited for; nothing is tried again.
    for store in [&db.store, &other] {
        assert_eq!(store.stats()["post"].retries, 0);
    }
    let entries = db.tx(|tx| Ok(tx.account(&acc("a"))?.map(|a| a.entries))).await;
    assert_eq!(entries, Some(1 + 60));
    in_order(&db).await;
}

/// Sums that need more than 64 bits are still sums.
pub(crate) async fn the_trial_balance_does_not_overflow(db: Db) {
    const MUCH: i64 = i64::MAX - 1_000_000;
    funded(&db, &["a"]).await;
    db.tx(|tx| {
        for name in ["deep", "deeper", "high", "higher"] {
            tx.insert_account(&account(name, None))?;
        }
        for (from, to) in [("deep", "high"), ("deeper", "higher")] {
            let posting = between(tx, from, to, MUCH, from)?;
            tx.insert_postings(&[posting])?;
        }
        Ok(())
    })
    .await;
    let balances = db.tx(|tx| tx.trial_balance()).await;
    let sum = 2 * i128::from(MUCH) + 100_000;
    assert_eq!((balances[0].debit, balances[0].credit), (sum, sum));
    in_order(&db).await;
}

/// Whoever has the database in hands can break every rule; the check names what is broken.
pub(crate) async fn the_check_names_what_is_broken(db: Db) {
    funded(&db, &["a", "b"]).await;
    assert_eq!(tried(&db, |_| ()).await, Ok(()));
    let world = acc("world");
    let (a, posting) = (acc("a"), id(IdKind::Posting, "once"));
    let finding = |rule, subject: &str| LedgerFinding { rule, subject: subject.to_owned() };
    let cases: &[(&str, &str, Vec<LedgerFinding>)] = &[
        (
            "UPDATE ledger_accounts SET balance = balance + 1 WHERE id = '{a}'",
            "UPDATE ledger_accounts SET balance = balance - 1 WHERE id = '{a}'",
            vec![finding("trial-balance", "CNY"), finding("balance", &a)],
        ),
        (
            "UPDATE ledger_accounts SET entries = entries + 1 WHERE id = '{a}'",
            "UPDATE ledger_accounts SET entries = entries - 1 WHERE id = '{a}'",
            vec![finding("entry-numbers", &a)],
        ),
        (
            "UPDATE ledger_postings SET debit_balance = 1 WHERE id = '{p}'",
            "UPDATE ledger_postings SET debit_balance = 99900 WHERE id = '{p}'",
            vec![finding("running-balance", &a)],
        ),
        (
            "UPDATE ledger_postings SET debit_entry = 9 WHERE id = '{p}'",
            "UPDATE ledger_postings SET debit_entry = 2 WHERE id = '{p}'",
            vec![finding("entry-numbers", &a)],
        ),
        (
            "UPDATE ledger_postings SET currency = 'USD' WHERE id = '{p}'",
            "UPDATE ledger_postings SET currency = 'CNY' WHERE id = '{p}'",
            vec![finding("currency", &posting)],
        ),
        (
            "UPDATE ledger_postings SET kind = 'payment' WHERE id = '{p}'",
            "UPDATE ledger_postings SET kind = 'manual' WHERE id = '{p}'",
            vec![finding("posted-unexecuted", &posting)],
        ),
    ];
    for (breaks, mends, findings) in cases {
        let filled = |sql: &str| sql.replace("{a}", &a).replace("{p}", &posting);
        db.tamper(&filled(breaks)).await;
        assert_eq!(&db.tx(|tx| tx.ledger_check()).await, findings, "{breaks}");
        db.tamper(&filled(mends)).await;
        in_order(&db).await;
    }
    // The world's balance is below zero: a bound that it breaks would show, if one could be set.
    let set = format!("UPDATE ledger_accounts SET overdraft = 1 WHERE id = '{world}'");
    let error = db.refused(move |tx| tx.execute(&set, &[])).await;
    assert_eq!(error, StoreError::Refused { check: "row-check" });
}

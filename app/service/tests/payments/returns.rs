//! What goes back, what is posted by hand, and what may happen to accounts.

use countersign_service::{NewAccount, NewPosting, Settled};
use countersign_store::{AccountKind, AccountStatus, PostingKind};

use crate::bank::{Bank, Place, check, fresh, money, once, value};

pub(crate) async fn refunds_are_at_most_what_was_paid(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.executed("10.00").await;
    let id = record.payment.id.as_str();
    let first = value(bank.refund(id, "4.00").await.unwrap());
    assert_eq!((first.posting.kind, first.posting.amount), (PostingKind::Refund, 400));
    assert_eq!(first.record.payment.refunded, 400);
    assert_eq!(first.record.payment.state.name(), "executed");
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (99_400, 600));
    assert_eq!(check(bank.refund(id, "6.01").await), "refund-too-much");
    assert_eq!(check(bank.refund(id, "0").await), "amount-range");
    assert_eq!(check(bank.refund(id, "1.001").await), "amount-decimals");
    // A part is back: the whole cannot be.
    let whole = bank.service.reverse_payment(&bank.admin, id, fresh()).await;
    assert_eq!(check(whole), "payment-refunded");
    value(bank.refund(id, "6.00").await.unwrap());
    assert_eq!(check(bank.refund(id, "0.01").await), "refund-too-much");
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (100_000, 0));
    // The same request again is answered as before, and nothing moves.
    let again = bank.executed("1.00").await.payment.id;
    let refund = async || {
        let once = once("refund", "1.00");
        bank.service.refund_payment(&bank.admin, &again, "1.00", once).await.unwrap()
    };
    let (first, second) = (refund().await, refund().await);
    assert!(matches!(second, Settled::Replay { .. }));
    assert_eq!(first.answer(), second.answer());
    // Only what was executed gives anything back.
    let pending = bank.pending("1.00").await;
    assert_eq!(check(bank.refund(&pending.payment.id, "1.00").await), "payment-not-executed");
    assert_eq!(check(bank.refund("pay_x", "1.00").await), "not-found");
    bank.in_order().await;
}

/// Evidence has every posting of a payment: so there are not more than it can have.
pub(crate) async fn refunds_are_counted(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.executed("10.00").await;
    let id = record.payment.id.as_str();
    let mut done = 0;
    let last = loop {
        match bank.refund(id, "0.01").await {
            Ok(_) => done += 1,
            Err(error) => break error.check(),
        }
        assert!(done <= 200, "no end of refunds");
    };
    assert_eq!((done, last), (100, "refund-too-many"));
    let postings = bank.service.payment_postings(&bank.admin, id).await.unwrap();
    assert_eq!(postings.len(), 101, "all of them are told");
    // What is left can go back still.
    value(bank.refund(id, "9.00").await.unwrap());
    assert_eq!(bank.payment(id).await.payment.refunded, 1000);
    bank.in_order().await;
}

pub(crate) async fn a_payment_is_reversed_once(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.executed("10.00").await;
    let id = record.payment.id.as_str();
    let reverse =
        async |key: &str| bank.service.reverse_payment(&bank.admin, id, once(key, "")).await;
    let reversed = value(reverse("r1").await.unwrap());
    assert_eq!((reversed.posting.kind, reversed.posting.amount), (PostingKind::Reversal, 1000));
    assert_eq!(reversed.posting.reference, id);
    assert!(matches!(reverse("r1").await.unwrap(), Settled::Replay { .. }));
    assert_eq!(check(reverse("r2").await), "payment-reversed");
    assert_eq!(check(bank.refund(id, "0.01").await), "payment-reversed");
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (100_000, 0));
    // The payee has spent it: nothing moves.
    let record = bank.executed("10.00").await;
    let new = NewPosting {
        reference: "payout".into(),
        debit: "PAYEE1".into(),
        credit: "OUTSIDE".into(),
        amount: money("9.99", "CNY"),
    };
    bank.service.post(&bank.admin, &new, fresh()).await.unwrap();
    let whole = bank.service.reverse_payment(&bank.admin, &record.payment.id, fresh()).await;
    assert_eq!(check(whole), "insufficient-funds");
    assert_eq!(bank.payment(&record.payment.id).await.payment.refunded, 0);
    let actions: Vec<_> = bank.audit_of(id).await.into_iter().map(|row| row.entry.action).collect();
    assert_eq!(
        actions.iter().filter(|action| *action == "payment.reverse").count(),
        2,
        "{actions:?}"
    );
    bank.in_order().await;
}

pub(crate) async fn refunds_at_once_do_not_exceed_it(place: Place) {
    let bank = Bank::new(place).await;
    let servers = [bank.service.clone(), bank.another().await];
    for round in 1..=8_i64 {
        let id = bank.executed("10.00").await.payment.id;
        let mut tasks = Vec::new();
        for number in 0..4 {
            let (service, admin) = (servers[number % 2].clone(), bank.admin.clone());
            let id = id.clone();
            tasks.push(tokio::spawn(async move {
                match number {
                    3 => service.reverse_payment(&admin, &id, fresh()).await,
                    _ => service.refund_payment(&admin, &id, "6.00", fresh()).await,
                }
            }));
        }
        let mut back = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(settled) => back += value(settled).posting.amount,
                Err(error) => assert!(
                    ["refund-too-much", "payment-reversed", "payment-refunded"]
                        .contains(&error.check()),
                    "{error}"
                ),
            }
        }
        assert!(back == 600 || back == 1000, "round {round}: {back}");
        assert_eq!(bank.payment(&id).await.payment.refunded, back);
    }
    bank.in_order().await;
}

pub(crate) async fn postings_by_hand_happen_once(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let new = |reference: &str, debit: &str, credit: &str, amount: &str| NewPosting {
        reference: reference.into(),
        debit: debit.into(),
        credit: credit.into(),
        amount: money(amount, "CNY"),
    };
    let post = async |new: &NewPosting| service.post(&bank.admin, new, fresh()).await;
    let salary = new("salary 1", "OUTSIDE", &bank.payee.id, "5.00");
    let posted = value(post(&salary).await.unwrap());
    assert_eq!((posted.kind, posted.credit_balance), (PostingKind::Manual, 500));
    assert_eq!(check(post(&salary).await), "reference-taken");
    for (bad, expected) in [
        (new("x", "PAYEE1", "PAYEE1", "1"), "same-account"),
        (new("x", "PAYEE1", "NOBODY", "1"), "account-unknown"),
        (new("x", "PAYEE1", "OUTSIDE", "5.01"), "insufficient-funds"),
        (new("", "PAYEE1", "OUTSIDE", "1"), "text-empty"),
        (new("x", "PAYEE1", "OUTSIDE", "0"), "amount-range"),
        (
            NewPosting { amount: money("1", "EUR"), ..new("x", "PAYEE1", "OUTSIDE", "1") },
            "currency-mismatch",
        ),
    ] {
        assert_eq!(check(post(&bad).await), expected, "{bad:?}");
    }
    assert_eq!(check(service.post(&bank.shop, &salary, fresh()).await), "scope");
    // At once, with one reference: one.
    let mut tasks = Vec::new();
    let servers = [bank.service.clone(), bank.another().await];
    for number in 0..6 {
        let (service, admin) = (servers[number % 2].clone(), bank.admin.clone());
        let new = new("salary 2", "OUTSIDE", "PAYEE1", "5.00");
        tasks.push(tokio::spawn(async move { service.post(&admin, &new, fresh()).await }));
    }
    let mut fresh = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => fresh += 1,
            Err(error) => assert_eq!(error.check(), "reference-taken"),
        }
    }
    assert_eq!((fresh, bank.balance("PAYEE1").await), (1, 1000));
    let balances = service.trial_balance(&bank.admin).await.unwrap();
    assert_eq!(balances.len(), 1);
    assert!(balances[0].is_zero() && balances[0].currency == "CNY", "{balances:?}");
    bank.in_order().await;
}

pub(crate) async fn accounts_are_opened_frozen_and_closed(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let new = |number: &str, currency: &str, overdraft: Option<&str>| NewAccount {
        number: number.into(),
        holder: "Han Meimei".into(),
        currency: currency.into(),
        kind: AccountKind::Customer,
        overdraft: overdraft.map(str::to_owned),
    };
    let open = async |new: NewAccount| service.open_account(&bank.admin, &new).await;
    let account = open(new("DE89370400440532013000", "EUR", Some("50.00"))).await.unwrap();
    assert_eq!(
        (account.balance, account.overdraft, account.status),
        (0, Some(5000), AccountStatus::Open)
    );
    for (bad, expected) in [
        (new("DE89370400440532013000", "EUR", None), "account-number-taken"),
        (new("DE89370400440532013001", "EUR", None), "account-check-digits"),
        (new("abcd", "EUR", None), "account-form"),
        (new("ACC2", "EURO", None), "currency-unknown"),
        (new("ACC2", "EUR", Some("-1")), "amount-form"),
        (NewAccount { holder: "a\u{202e}b".into(), ..new("ACC2", "EUR", None) }, "text-direction"),
    ] {
        assert_eq!(check(open(bad.clone()).await), expected, "{bad:?}");
    }
    assert_eq!(check(service.open_account(&bank.shop, &new("ACC3", "EUR", None)).await), "scope");
    let (admin, id) = (&bank.admin, bank.payer.id.as_str());
    let frozen = service.freeze_account(admin, id, "dispute").await.unwrap();
    assert_eq!(
        (frozen.status, frozen.status_reason.as_deref()),
        (AccountStatus::Frozen, Some("dispute"))
    );
    assert_eq!(check(service.freeze_account(admin, id, "").await), "reason-length");
    assert_eq!(check(service.close_account(admin, id, "gone").await), "account-not-empty");
    let thawed = service.unfreeze_account(admin, id).await.unwrap();
    assert_eq!((thawed.status, thawed.status_reason), (AccountStatus::Open, None));
    let id = account.id.as_str();
    let closed = service.close_account(admin, id, "gone").await.unwrap();
    assert_eq!(closed.status, AccountStatus::Closed);
    assert_eq!(check(service.unfreeze_account(admin, id).await), "account-closed");
    assert_eq!(check(service.set_overdraft(admin, id, "0").await), "account-closed");
    assert_eq!(check(service.freeze_account(admin, "acc_x", "why").await), "not-found");
    assert_eq!(check(service.freeze_account(&bank.shop, id, "why").await), "scope");
    // An overdraft that is in use stays.
    service.set_overdraft(admin, &bank.payer.id, "10.00").await.unwrap();
    bank.executed("1005.00").await;
    assert_eq!(check(service.set_overdraft(admin, &bank.payer.id, "4.99").await), "overdraft-used");
    assert!(service.set_overdraft(admin, &bank.payer.id, "5.00").await.is_ok());
    let entries = service.account_entries(admin, &bank.payer.id, None, 10).await.unwrap();
    let amounts: Vec<_> = entries.items.iter().map(|entry| (entry.number, entry.amount)).collect();
    assert_eq!(amounts, [(2, -100_500), (1, 100_000)]);
    assert_eq!(check(service.account_entries(admin, "acc_x", None, 10).await), "not-found");
    let actions: Vec<_> = bank.audit_of(id).await.into_iter().map(|row| row.entry.action).collect();
    assert!(
        actions.starts_with(&["account.open".to_owned(), "account.close".to_owned()]),
        "{actions:?}"
    );
    bank.in_order().await;
}

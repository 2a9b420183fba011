//! Money: what one account loses another one gets, and nothing is posted twice.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, find};
use crate::snapshot::{Posting, Snapshot};

pub(super) fn check(now: &Snapshot, found: &mut Vec<Violation>) {
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for account in now.accounts.values() {
        *sums.entry(&account.currency).or_default() += i128::from(account.balance);
    }
    for (currency, sum) in sums {
        find(found, sum != 0, "sum-of-balances", format!("{currency}: {sum}"));
    }
    accounts(now, found);
    postings(now, found);
    find(found, !now.ledger_is_right, "store-check", "the store's own check finds a fault");
}

/// Every account is the sum of its entries, which are numbered without gaps.
fn accounts(now: &Snapshot, found: &mut Vec<Violation>) {
    let mut entries: BTreeMap<&str, BTreeMap<i64, (i64, i64)>> = BTreeMap::new();
    for posting in &now.postings {
        for (side, amount) in [(&posting.debit, -posting.amount), (&posting.credit, posting.amount)]
        {
            let of_account = entries.entry(&side.account).or_default();
            let taken = of_account.insert(side.entry, (amount, side.balance)).is_some();
            find(found, taken, "entry-numbers", &posting.id);
        }
    }
    for (id, account) in &now.accounts {
        let of_account = entries.remove(id.as_str()).unwrap_or_default();
        let mut balance = 0;
        for (at, (number, (amount, after))) in of_account.iter().enumerate() {
            balance += amount;
            find(found, *number != at as i64 + 1, "entry-numbers", format!("{id} {number}"));
            find(found, *after != balance, "running-balance", format!("{id} {number}"));
        }
        let count = of_account.len() as i64;
        find(found, count != account.entries, "entry-numbers", format!("{id} has {count}"));
        let detail = format!("{id}: {} is not {balance}", account.balance);
        find(found, account.balance != balance, "balance-of-entries", detail);
        let floor = account.overdraft.map(|overdraft| -overdraft);
        let below = floor.is_some_and(|floor| account.balance < floor);
        find(found, below, "overdraft", format!("{id}: {}", account.balance));
    }
    for id in entries.keys() {
        find(found, true, "posting-shape", format!("entries of no account {id}"));
    }
}

/// Each posting is what its payment says, and there is one for each that executed.
fn postings(now: &Snapshot, found: &mut Vec<Violation>) {
    let mut executions: BTreeMap<&str, u32> = BTreeMap::new();
    let mut back: BTreeMap<&str, i64> = BTreeMap::new();
    let mut references = BTreeSet::new();
    for posting in &now.postings {
        let currency = |account: &str| now.accounts.get(account).map(|account| &account.currency);
        let alike = [&posting.debit, &posting.credit]
            .iter()
            .all(|side| currency(&side.account) == Some(&posting.currency));
        let apart = posting.debit.account != posting.credit.account;
        find(found, !(alike && apart && posting.amount > 0), "posting-shape", &posting.id);
        let once = references.insert((&posting.kind, &posting.reference));
        find(found, !once, "posted-twice", format!("{} {}", posting.kind, posting.reference));
        let Some(payment) = &posting.payment else {
            find(found, posting.kind == "payment", "posting-without-payment", &posting.id);
            continue;
        };
        let fits = match posting.kind.as_str() {
            "payment" => {
                *executions.entry(payment).or_default() += 1;
                is_as_agreed(now, payment, posting)
            }
            _ => {
                *back.entry(payment).or_default() += posting.amount;
                goes_back(now, payment, posting)
            }
        };
        find(found, !fits, "posting-differs", format!("{} of {payment}", posting.id));
    }
    for (id, payment) in &now.payments {
        let count = executions.get(id.as_str()).copied().unwrap_or_default();
        find(found, count > 1, "executed-twice", id);
        let executed = payment.state == "executed";
        find(found, executed && count == 0, "execution-without-posting", id);
        find(found, !executed && count > 0, "posting-without-execution", id);
        let back = back.get(id.as_str()).copied().unwrap_or_default();
        let wrong = back != payment.refunded || back > payment.amount || (back > 0 && !executed);
        find(found, wrong, "refunded", format!("{id}: {back} of {}", payment.amount));
    }
}

fn is_as_agreed(now: &Snapshot, payment: &str, posting: &Posting) -> bool {
    now.payments.get(payment).is_some_and(|payment| {
        posting.amount == payment.amount
            && posting.currency == payment.currency
            && posting.debit.account == payment.payer
            && posting.credit.account == payment.payee
    })
}

fn goes_back(now: &Snapshot, payment: &str, posting: &Posting) -> bool {
    now.payments.get(payment).is_some_and(|payment| {
        posting.debit.account == payment.payee && posting.credit.account == payment.payer
    })
}

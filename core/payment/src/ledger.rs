//! What a posting does to two balances (D6): double entry in integers of minor units. Pure, so that
//! it runs on rows that a transaction has locked.

use thiserror::Error;

use crate::{Amount, Currency};

/// Whether an account takes postings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountStatus {
    /// It does.
    Open,
    /// Not for now; an operator may open it again.
    Frozen,
    /// Never again.
    Closed,
}

impl AccountStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Frozen, Self::Closed];

    /// The name in the API and in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// An account as a posting sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountView<'a> {
    /// Its id, to tell it from the other one.
    pub id: &'a str,
    /// Its currency.
    pub currency: Currency,
    /// What is on it, in minor units.
    pub balance: i64,
    /// How far below zero the balance may go, in minor units; none: without bound, for accounts of
    /// the outside world.
    pub overdraft: Option<i64>,
    /// Whether it takes postings.
    pub status: AccountStatus,
}

/// Which of the two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that loses.
    Debit,
    /// The one that gets.
    Credit,
}

impl core::fmt::Display for Side {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Debit => "debited",
            Self::Credit => "credited",
        })
    }
}

/// The two balances after a posting; their sum is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Of the account that lost.
    pub debit_balance: i64,
    /// Of the account that got.
    pub credit_balance: i64,
}

/// Why nothing was posted. [`LedgerError::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Both sides are one account.
    #[error("an account cannot pay itself")]
    SameAccount,
    /// An account is closed.
    #[error("the {0} account is closed")]
    AccountClosed(Side),
    /// An account is frozen.
    #[error("the {0} account is frozen")]
    AccountFrozen(Side),
    /// An account, or the amount, is in another currency.
    #[error("the {0} account has another currency")]
    CurrencyMismatch(Side),
    /// The balance would fall below what the overdraft allows.
    #[error("the balance and the overdraft do not suffice")]
    InsufficientFunds,
    /// A balance would leave the range of its integer.
    #[error("the balance of the {0} account would overflow")]
    BalanceOverflow(Side),
}

impl LedgerError {
    /// Stable name: the reason of a failed execution.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::SameAccount => "same-account",
            Self::AccountClosed(_) => "account-closed",
            Self::AccountFrozen(_) => "account-frozen",
            Self::CurrencyMismatch(_) => "currency-mismatch",
            Self::InsufficientFunds => "insufficient-funds",
            Self::BalanceOverflow(_) => "balance-overflow",
        }
    }
}

/// Moves `amount` from one account to the other.
///
/// # Errors
/// The first check that fails; nothing has changed then.
pub fn post(
    debit: &AccountView<'_>,
    credit: &AccountView<'_>,
    amount: Amount,
) -> Result<Posted, LedgerError> {
    if debit.id == credit.id {
        return Err(LedgerError::SameAccount);
    }
    for (account, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
        match account.status {
            AccountStatus::Open => {}
            AccountStatus::Frozen => return Err(LedgerError::AccountFrozen(side)),
            AccountStatus::Closed => return Err(LedgerError::AccountClosed(side)),
        }
        if account.currency != amount.currency() {
            return Err(LedgerError::CurrencyMismatch(side));
        }
    }
    let overflow = LedgerError::BalanceOverflow;
    let debit_balance = debit.balance.checked_sub(amount.minor()).ok_or(overflow(Side::Debit))?;
    if let Some(overdraft) = debit.overdraft {
        // A negative overdraft is none; zero is the least.
        let least = overdraft.max(0).checked_neg().ok_or(overflow(Side::Debit))?;
        if debit_balance < least {
            return Err(LedgerError::InsufficientFunds);
        }
    }
    let credit_balance =
        credit.balance.checked_add(amount.minor()).ok_or(overflow(Side::Credit))?;
    Ok(Posted { debit_balance, credit_balance })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MAX_MINOR;

    fn cny() -> Currency {
        Currency::parse("CNY").unwrap()
    }

    fn account(id: &str, balance: i64) -> AccountView<'_> {
        let status = AccountStatus::Open;
        AccountView { id, currency: cny(), balance, overdraft: Some(0), status }
    }

    fn amount(minor: i64) -> Amount {
        Amount::new(minor, cny()).unwrap()
    }

    #[test]
    fn what_one_loses_the_other_gets_down_to_the_last_unit() {
        let posted = post(&account("a", 100), &account("b", 7), amount(100)).unwrap();
        assert_eq!(posted, Posted { debit_balance: 0, credit_balance: 107 });
        let refused = post(&account("a", 99), &account("b", 7), amount(100));
        assert_eq!(refused, Err(LedgerError::InsufficientFunds));
    }

    #[test]
    fn an_overdraft_goes_as_far_as_it_says() {
        let with = |overdraft| AccountView { overdraft, ..account("a", 0) };
        let b = account("b", 0);
        assert!(post(&with(Some(100)), &b, amount(100)).is_ok());
        assert_eq!(post(&with(Some(99)), &b, amount(100)), Err(LedgerError::InsufficientFunds));
        assert_eq!(post(&with(Some(-5)), &b, amount(1)), Err(LedgerError::InsufficientFunds));
        assert!(post(&with(None), &b, amount(MAX_MINOR)).is_ok(), "without bound");
    }

    #[test]
    fn each_check_refuses_by_its_name() {
        let (a, b) = (account("a", 100), account("b", 0));
        let checks = |debit: AccountView<'_>, credit: AccountView<'_>| {
            post(&debit, &credit, amount(1)).unwrap_err().check()
        };
        let yen = Currency::parse("JPY").unwrap();
        assert_eq!(checks(a, a), "same-account");
        for (status, check) in
            [(AccountStatus::Frozen, "account-frozen"), (AccountStatus::Closed, "account-closed")]
        {
            assert_eq!(checks(AccountView { status, ..a }, b), check);
            assert_eq!(checks(a, AccountView { status, ..b }), check);
        }
        assert_eq!(checks(AccountView { currency: yen, ..a }, b), "currency-mismatch");
        assert_eq!(checks(a, AccountView { currency: yen, ..b }), "currency-mismatch");
        assert_eq!(checks(a, AccountView { balance: i64::MAX, ..b }), "balance-overflow");
        let empty = AccountView { balance: i64::MIN, overdraft: None, ..a };
        assert_eq!(checks(empty, b), "balance-overflow");
    }

    #[test]
    fn statuses_are_read_back() {
        for status in AccountStatus::ALL {
            assert_eq!(AccountStatus::from_name(status.name()), Some(status));
        }
        assert_eq!(AccountStatus::from_name("Open"), None);
    }

    proptest! {
        /// The sum of two balances stays, and nobody falls below his overdraft.
        #[test]
        fn the_sum_stays(
            a in any::<i64>(), b in any::<i64>(), minor in 1..=MAX_MINOR,
            overdraft in prop::option::of(0..i64::MAX),
        ) {
            let debit = AccountView { overdraft, ..account("a", a) };
            if let Ok(posted) = post(&debit, &account("b", b), amount(minor)) {
                let sum = |a: i64, b: i64| i128::from(a) + i128::from(b);
                prop_assert_eq!(sum(posted.debit_balance, posted.credit_balance), sum(a, b));
                prop_assert_eq!(posted.credit_balance - b, minor);
                prop_assert!(overdraft.is_none_or(|least| posted.debit_balance >= -least));
            }
        }
    }
}

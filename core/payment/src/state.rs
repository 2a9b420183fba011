use core::fmt;

/// A payment's state. Terminal states never leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Taken from the initiating terminal (D1).
    Created,
    /// Offered to the payer's phones; waits for an answer (D2).
    Pending,
    /// An answer was verified (D5).
    Approved,
    /// Being posted (D6).
    Executing,
    /// Posted.
    Executed,
    /// The payer said no.
    Rejected,
    /// Nobody answered in time.
    Expired,
    /// Too many wrong answers (D7).
    Failed,
    /// The initiating terminal took it back.
    Cancelled,
    /// Approved, but the ledger refused it: insufficient funds, a frozen account.
    ExecutionFailed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Created,
        Self::Pending,
        Self::Approved,
        Self::Executing,
        Self::Executed,
        Self::Rejected,
        Self::Expired,
        Self::Failed,
        Self::Cancelled,
        Self::ExecutionFailed,
    ];

    /// The name in the API, in rows and in evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Executing => "executing",
            Self::Executed => "executed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::ExecutionFailed => "execution_failed",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Created | Self::Pending | Self::Approved | Self::Executing => false,
            Self::Executed
            | Self::Rejected
            | Self::Expired
            | Self::Failed
            | Self::Cancelled
            | Self::ExecutionFailed => true,
        }
    }

    /// Whether an answer, a cancellation or the clock may still end it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Created | Self::Pending)
    }

    /// Whether `next` may follow directly.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Created => matches!(
                next,
                Self::Pending | Self::Rejected | Self::Expired | Self::Failed | Self::Cancelled
            ),
            Self::Pending => matches!(
                next,
                Self::Approved | Self::Rejected | Self::Expired | Self::Failed | Self::Cancelled
            ),
            Self::Approved => matches!(next, Self::Executing),
            Self::Executing => matches!(next, Self::Executed | Self::ExecutionFailed),
            Self::Executed
            | Self::Rejected
            | Self::Expired
            | Self::Failed
            | Self::Cancelled
            | Self::ExecutionFailed => false,
        }
    }

    /// The status code of pain.002 (ISO 20022 `ExternalPaymentTransactionStatus1Code`).
    #[must_use]
    pub const fn iso20022(self) -> &'static str {
        match self {
            Self::Created => "RCVD",
            Self::Pending => "PDNG",
            Self::Approved => "ACCP",
            Self::Executing => "ACSP",
            Self::Executed => "ACSC",
            Self::Cancelled => "CANC",
            Self::Rejected | Self::Expired | Self::Failed | Self::ExecutionFailed => "RJCT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_differ() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        for wrong in ["", "Pending", "execution-failed", "pending "] {
            assert_eq!(State::from_name(wrong), None);
        }
    }

    #[test]
    fn terminal_states_never_leave_and_the_others_do() {
        for from in State::ALL {
            let next = State::ALL.into_iter().filter(|next| from.may_become(*next)).count();
            assert_eq!(next == 0, from.is_terminal(), "{from}");
        }
    }

    #[test]
    fn the_allowed_changes_are_these_and_no_others() {
        use State::{
            Approved, Cancelled, Created, Executed, Executing, ExecutionFailed, Expired, Failed,
            Pending, Rejected,
        };
        let allowed = [
            (Created, Pending),
            (Created, Rejected),
            (Created, Expired),
            (Created, Failed),
            (Created, Cancelled),
            (Pending, Approved),
            (Pending, Rejected),
            (Pending, Expired),
            (Pending, Failed),
            (Pending, Cancelled),
            (Approved, Executing),
            (Executing, Executed),
            (Executing, ExecutionFailed),
        ];
        for from in State::ALL {
            for to in State::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&(from, to)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn money_moves_only_behind_an_approval() {
        // Whatever path leads to executed, approved lies on it: without it nothing leads there.
        fn reaches(from: State, to: State, without: State) -> bool {
            from == to
                || State::ALL
                    .into_iter()
                    .filter(|next| from.may_become(*next) && *next != without)
                    .any(|next| reaches(next, to, without))
        }
        assert!(!reaches(State::Created, State::Executed, State::Approved));
        assert!(reaches(State::Created, State::Executed, State::Rejected));
    }
}

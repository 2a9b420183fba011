//! A slice: so many payments, by so many clients, of one side; and how sides take turns.

/// Accounts that pay, and as many that are paid: more than clients, so that no client waits for
/// another one's rows unless all are to pay one account.
pub(super) const PAYERS: u64 = 1024;
/// The account that all payments go to where the payee is hot: after the others.
pub(super) const HOT: u64 = 2 * PAYERS;
/// The account of the outside world that the payers' money came from.
pub(super) const OUTSIDE: u64 = HOT + 1;
/// Minor units that each payment moves.
pub(super) const AMOUNT: i64 = 125;
/// What every payment and account is in.
pub(super) const CURRENCY: &str = "CNY";

/// So many payments, made ready, that `clients` confirm at the same time. Client `c` confirms the
/// payments `first + c`, `first + clients + c` and so on, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// The number of its first payment.
    pub(super) first: u64,
    /// How many confirm at the same time.
    pub(super) clients: u64,
    /// How many payments each of them confirms.
    pub(super) each: u64,
    /// Whether all pay one account.
    pub(super) hot: bool,
}

impl Slice {
    /// How many payments it has.
    pub(super) const fn payments(self) -> u64 {
        self.clients * self.each
    }

    /// The numbers of its payments.
    pub(super) const fn numbers(self) -> std::ops::Range<u64> {
        self.first..self.first + self.payments()
    }

    /// The payments of one client.
    pub(super) fn of_client(self, client: u64) -> impl Iterator<Item = u64> {
        (0..self.each).map(move |turn| self.first + turn * self.clients + client)
    }

    /// The account that is paid. It moves on with every lap over the payers.
    pub(super) const fn payee(self, number: u64) -> u64 {
        if self.hot { HOT } else { PAYERS + (number + number / PAYERS) % PAYERS }
    }
}

/// Payments at the start of each client's share that do not count: a fresh connection of pgbench
/// plans its statements and fills its caches, and ours must not gain by that.
const WARM: usize = 5;

/// Payments in a second while all clients were at work: from when the last of them had its first
/// few behind it until the first was through. If there was no such time, because the slice is short
/// or the machine busy, from the first payment's end to the last one's. Of each client, when each
/// payment was done, in seconds, in order. `None` without two payments.
pub(super) fn steady_rate(clients: &[Vec<f64>]) -> Option<f64> {
    let warm = clients.iter().filter_map(|done| done.get(WARM.min(done.len() / 4)).copied());
    let through = clients.iter().filter_map(|done| done.last().copied());
    let (from, until) = (warm.reduce(f64::max)?, through.clone().reduce(f64::min)?);
    rate_between(clients, from, until).or_else(|| {
        let first = clients.iter().filter_map(|done| done.first().copied()).reduce(f64::min)?;
        rate_between(clients, first, through.reduce(f64::max)?)
    })
}

fn rate_between(clients: &[Vec<f64>], from: f64, until: f64) -> Option<f64> {
    let within = |at: &&f64| **at > from && **at <= until;
    let payments = clients.iter().flatten().filter(within).count();
    (payments > 0).then(|| payments as f64 / (until - from))
}

/// The account that pays.
pub(super) const fn payer(number: u64) -> u64 {
    number % PAYERS
}

/// An id of the usual form and length whose last digits are a number, so that pgbench can make it
/// too. Later numbers sort later, as later ids do.
pub(super) fn numbered(prefix: &str, number: u64) -> String {
    format!("{prefix}_{NUMBERED}{number:0WIDTH$}")
}

/// What stands between a numbered id's prefix and its number.
pub(super) const NUMBERED: &str = "00000000-0000-7000-8000-";
/// Digits of the number.
pub(super) const WIDTH: usize = 12;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SLICE: Slice = Slice { first: 5_000, clients: 32, each: 40, hot: false };

    #[test]
    fn each_payment_has_one_client() {
        let by_clients: Vec<_> = (0..32).flat_map(|client| SLICE.of_client(client)).collect();
        let distinct: BTreeSet<_> = by_clients.iter().copied().collect();
        assert_eq!(by_clients.len(), distinct.len());
        assert!(distinct.into_iter().eq(SLICE.numbers()));
    }

    #[test]
    fn clients_that_keep_pace_share_no_account() {
        for start in SLICE.numbers().step_by(32) {
            let at_once = start..start + 32;
            let payers: BTreeSet<_> = at_once.clone().map(payer).collect();
            let payees: BTreeSet<_> = at_once.map(|number| SLICE.payee(number)).collect();
            assert_eq!(payers.len(), 32);
            assert!(payees.len() >= 31, "a lap's end may meet its start: {}", payees.len());
        }
        let hot = Slice { hot: true, ..SLICE };
        assert!(hot.numbers().all(|number| hot.payee(number) == HOT));
    }

    #[test]
    fn only_the_time_in_which_all_clients_work_counts() {
        // A payment each 10 ms; one client starts half a second late and is through first.
        let client = |start: f64, payments: u32| -> Vec<f64> {
            (1..=payments).map(|turn| start + f64::from(turn) * 0.01).collect()
        };
        let clients = [client(0.0, 200), client(0.5, 100), client(0.0, 200)];
        let rate = steady_rate(&clients).unwrap();
        assert!((rate - 300.0).abs() < 4.0, "{rate}");
        // Never both at work: 399 payments after the first one's end, in 6.99 seconds.
        let apart = steady_rate(&[client(0.0, 200), client(5.0, 200)]).unwrap();
        assert!((apart - 399.0 / 6.99).abs() < 0.1, "{apart}");
        assert_eq!(steady_rate(&[client(0.0, 1)]), None);
        assert_eq!(steady_rate(&[Vec::new()]), None);
        assert_eq!(steady_rate(&[]), None);
    }

    #[test]
    fn a_numbered_id_has_the_usual_length() {
        let id = numbered("pay", 7);
        assert_eq!(id, "pay_00000000-0000-7000-8000-000000000007");
        let now = countersign_crypto::UnixTime::from_secs(1);
        let mut rng = (countersign_server::ambient().rng)();
        let usual = countersign_store::new_id(countersign_store::IdKind::Payment, now, &mut *rng);
        assert_eq!(id.len(), usual.len());
    }
}

//! The peer: pgbench sends the statements that confirm one payment, one transaction for each.
//!
//! It writes the rows that the service writes, into the same tables with the same constraints. It
//! verifies nothing: no signature, no device, no certificate, no phone.

use std::path::PathBuf;
use std::process::Command;

use testkit::parts::Postgres;

use super::slice::{AMOUNT, CURRENCY, NUMBERED, Slice, WIDTH, steady_rate};
use crate::Fallible;

/// Threads of pgbench: as many as this machine has cores, within reason.
const THREADS_MAX: usize = 8;
/// Bytes of a device's certificate (DER) and of a signature, as the service stores them.
const CERTIFICATE_LEN: usize = 640;
const SIGNATURE_LEN: usize = 71;

/// How it sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As a program does: a statement, its answer, the next one.
    Statements,
    /// All statements of a transaction in one pipeline, so in one round trip.
    Pipeline,
}

/// pgbench with its scripts, on one database.
pub(super) struct Pgbench {
    program: PathBuf,
    scripts: tempfile::TempDir,
    port: u16,
    database: String,
}

impl Pgbench {
    /// On the database of this URL of `postgres`.
    pub(super) fn new(postgres: &Postgres, url: &str) -> Fallible<Self> {
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        let scripts = tempfile::tempdir()?;
        for manner in [Manner::Statements, Manner::Pipeline] {
            std::fs::write(scripts.path().join(file(manner)), script(manner))?;
        }
        let program = postgres.program("pgbench");
        Ok(Self { program, scripts, port: postgres.port(), database })
    }

    /// Confirms the slice's payments; returns how many in a second.
    pub(super) fn run(&self, manner: Manner, slice: Slice) -> Fallible<f64> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(THREADS_MAX).min(usize::try_from(slice.clients)?);
        let mut pgbench = Command::new(&self.program);
        // No vacuum before: the tables are not pgbench's own.
        pgbench.args(["--no-vacuum", "--protocol=prepared", "--host=127.0.0.1", "--username=cs"]);
        pgbench.arg(format!("--port={}", self.port));
        pgbench.arg(format!("--client={}", slice.clients)).arg(format!("--jobs={threads}"));
        pgbench.arg(format!("--transactions={}", slice.each));
        pgbench.arg(format!("--define=first={}", slice.first));
        pgbench.arg(format!("--define=clients={}", slice.clients)).arg("--define=turn=-1");
        // One line for each transaction, with the time of its end.
        let log = tempfile::tempdir()?;
        pgbench.arg("--log").arg("--log-prefix").arg(log.path().join("log"));
        pgbench.arg("--file").arg(self.scripts.path().join(file(manner))).arg(&self.database);
        pgbench.env("PGOPTIONS", "-c synchronous_commit=on").env("LC_ALL", "C");
        let output = pgbench.output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !all_done(&told, slice.payments()) {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("pgbench did not confirm all payments: {told}{why}").into());
        }
        let mut lines = String::new();
        for file in std::fs::read_dir(log.path())? {
            lines += &std::fs::read_to_string(file?.path())?;
        }
        let clients = ends(&lines, usize::try_from(slice.clients)?);
        let clients = clients.ok_or("pgbench's log has another form")?;
        Ok(steady_rate(&clients).ok_or("the slice is too short for its clients")?)
    }
}

const fn file(manner: Manner) -> &'static str {
    match manner {
        Manner::Statements => "statements.sql",
        Manner::Pipeline => "pipeline.sql",
    }
}

/// Whether pgbench says that it did all transactions.
fn all_done(told: &str, payments: u64) -> bool {
    let after = |start: &str| told.lines().find_map(|line| line.strip_prefix(start));
    let done = after("number of transactions actually processed: ");
    let failed = after("number of failed transactions: ");
    done == Some(&format!("{payments}/{payments}"))
        && failed.is_some_and(|failed| failed.starts_with("0 "))
}

/// When each client's transactions ended, in seconds. A line of the log has the client, the number
/// of its transaction, microseconds, the script, and the end as seconds and microseconds.
fn ends(lines: &str, clients: usize) -> Option<Vec<Vec<f64>>> {
    let mut ends = vec![Vec::new(); clients];
    // The seconds of the first line are the zero: as they are they would leave no digits.
    let mut zero = None;
    for line in lines.lines() {
        let fields = line.split(' ').map(str::parse);
        let fields: Vec<i64> = fields.collect::<Result<_, _>>().ok()?;
        let &[client, _, _, _, seconds, micros] = fields.as_slice() else { return None };
        let seconds = seconds - *zero.get_or_insert(seconds);
        let end = seconds as f64 + micros as f64 / 1e6;
        ends.get_mut(usize::try_from(client).ok()?)?.push(end);
    }
    Some(ends)
}

/// The transaction. Where answers are awaited, balances come back with the updates; in a pipeline
/// the posting takes them from the rows just changed.
fn script(manner: Manner) -> String {
    let id = |prefix: &str| format!("'{prefix}_{NUMBERED}' || lpad((:n)::text, {WIDTH}, '0')");
    let (payment, posting, authorisation, event) = (id("pay"), id("pst"), id("aut"), id("evt"));
    let certificate = "30".repeat(CERTIFICATE_LEN);
    let signature = "30".repeat(SIGNATURE_LEN);
    let (begin, end) = match manner {
        Manner::Statements => ("BEGIN;", "COMMIT;"),
        Manner::Pipeline => ("\\startpipeline\nBEGIN;", "COMMIT;\n\\endpipeline"),
    };
    let gset = |text: &str| match manner {
        Manner::Statements => format!("{text} \\gset"),
        Manner::Pipeline => format!("{text};"),
    };
    let lock = gset(&format!(
        "SELECT payer_account AS payer, payee_account AS payee, state, expires_at, version \
         FROM payments WHERE id = {payment} AND state = 'pending' FOR UPDATE"
    ));
    let account = |column: &str, variable: &str| match manner {
        Manner::Statements => format!(":{variable}"),
        Manner::Pipeline => format!("(SELECT {column} FROM payments WHERE id = {payment})"),
    };
    let (payer, payee) = (account("payer_account", "payer"), account("payee_account", "payee"));
    let debit = gset(&format!(
        "UPDATE ledger_accounts SET balance = balance - {AMOUNT}, entries = entries + 1, \
         updated_at = :now WHERE id = {payer} AND status = 'open' \
         RETURNING balance AS debit_balance, entries AS debit_entry"
    ));
    let credit = gset(&format!(
        "UPDATE ledger_accounts SET balance = balance + {AMOUNT}, entries = entries + 1, \
         updated_at = :now WHERE id = {payee} AND status = 'open' \
         RETURNING balance AS credit_balance, entries AS credit_entry"
    ));
    let columns = "id, kind, reference, payment_id, debit_account, credit_account, currency, \
                   amount, debit_entry, debit_balance, credit_entry, credit_balance, actor, at";
    let from = format!("{posting}, 'payment', {payment}, {payment}");
    let post = match manner {
        Manner::Statements => format!(
            "INSERT INTO ledger_postings ({columns}) VALUES ({from}, :payer, :payee, '{CURRENCY}', \
             {AMOUNT}, :debit_entry, :debit_balance, :credit_entry, :credit_balance, \
             '{PHONE}', :now);"
        ),
        Manner::Pipeline => format!(
            "INSERT INTO ledger_postings ({columns}) SELECT {from}, d.id, c.id, '{CURRENCY}', \
             {AMOUNT}, d.entries, d.balance, c.entries, c.balance, '{PHONE}', :now \
             FROM payments p JOIN ledger_accounts d ON d.id = p.payer_account \
             JOIN ledger_accounts c ON c.id = p.payee_account WHERE p.id = {payment};"
        ),
    };
    let timeline: Vec<_> = ["approved", "executing", "executed"]
        .into_iter()
        .zip(3..)
        .map(|(state, number)| format!("({payment}, {number}, '{state}', '{PHONE}', :now)"))
        .collect();
    let lines = [
        "\\set turn :turn + 1".to_owned(),
        "\\set n :first + :turn * :clients + :client_id".to_owned(),
        "\\set now 1763800000000".to_owned(),
        begin.to_owned(),
        lock,
        format!(
            "INSERT INTO payment_authorisations (id, payment_id, answer_hash, outcome, method, \
             device_id, phone_id, certificate_number, certificate, signature, at) \
             VALUES ({authorisation}, {payment}, sha256(({payment})::bytea), 'accepted', 'pki', \
             '{DEVICE}', '{PHONE}', '{NUMBER}', '\\x{certificate}', '\\x{signature}', :now);"
        ),
        debit,
        credit,
        post,
        format!(
            "INSERT INTO payment_events (payment_id, number, state, actor, at) VALUES {};",
            timeline.join(", ")
        ),
        format!(
            "INSERT INTO audit_rows (at, actor, action, subject, outcome, detail) \
             VALUES (:now, '{PHONE}', 'payment.execute', {payment}, 'done', '{DETAIL}');"
        ),
        format!(
            "INSERT INTO events (id, type, subject, owner, data, at, spread) \
             VALUES ({event}, 'payment.executed', {payment}, 'console', '{DETAIL}', :now, 0);"
        ),
        format!(
            "UPDATE payments SET state = 'executed', version = version + 3, updated_at = :now \
             WHERE id = {payment};"
        ),
        end.to_owned(),
    ];
    lines.join("\n") + "\n"
}

/// What stands where the service writes ids of its devices and phones, and details.
const PHONE: &str = "phn_00000000-0000-7000-8000-000000000000";
const DEVICE: &str = "sdv_00000000-0000-7000-8000-000000000000";
const NUMBER: &str = "00000000000000000000000000000000";
const DETAIL: &str = "{\"device\":\"sdv_00000000-0000-7000-8000-000000000000\"}";

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "pgbench (15.14)\nnumber of transactions actually processed: 64/64\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 3.1 ms\n";

    #[test]
    fn a_slice_counts_only_if_every_payment_was_confirmed() {
        assert!(all_done(TOLD, 64));
        assert!(!all_done(TOLD, 65));
        assert!(!all_done(&TOLD.replace("64/64", "63/64"), 64));
        assert!(!all_done(&TOLD.replace(": 0 (", ": 1 ("), 64));
        assert!(!all_done("", 64));
    }

    #[test]
    fn the_log_tells_when_each_transaction_ended() {
        let log = "0 1 400 0 1763856000 250000\n1 1 900 0 1763856001 500000\n\
            0 2 300 0 1763856002 0\n";
        assert_eq!(ends(log, 2), Some(vec![vec![0.25, 2.0], vec![1.5]]));
        assert_eq!(ends(log, 1), None);
        assert_eq!(ends("0 1 400 0 1763856000\n", 1), None);
        assert_eq!(ends("0 1 skipped 0 1763856000 1\n", 1), None);
    }

    #[test]
    fn both_scripts_write_the_same_rows() {
        let (one, other) = (script(Manner::Statements), script(Manner::Pipeline));
        let written = |script: &str| -> Vec<String> {
            let starts = script.lines().filter_map(|line| {
                let mut words = line.split(' ');
                let start = [words.next()?, words.next()?, words.next().unwrap_or_default()];
                matches!(start[0], "INSERT" | "UPDATE").then(|| start.join(" "))
            });
            starts.collect()
        };
        assert_eq!(written(&one), written(&other));
        assert_eq!(written(&one).len(), 8);
        assert!(
            one.lines()
                .chain(other.lines())
                .all(|line| !line.contains(['{', '}']) || line.contains(DETAIL))
        );
    }
}

//! The command as its users run it: real processes, real sockets, a real pty, real databases.

mod audit;
mod certificates;
mod crash;
mod host;
mod read;
mod setup;
mod several;
mod suites;
mod words;

use libtest_mimic::{Arguments, Failed, Trial};
use testkit::parts::{self, Postgres};

use crate::host::Database;

type Alone = fn() -> Result<(), Failed>;
type Check = fn(&Database) -> Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let alone: [(&str, Alone); 16] = [
        (
            "a_credential_opens_the_keys_and_plain_http_stays_at_home",
            several::a_credential_opens_the_keys_and_plain_http_stays_at_home,
        ),
        ("a_killed_init_loses_no_token", setup::a_killed_init_loses_no_token),
        ("no_token_is_lost", setup::no_token_is_lost),
        ("demo_prints_one_json_object", words::demo_prints_one_json_object),
        ("every_command_has_help_and_an_example", words::every_command_has_help_and_an_example),
        ("wrong_words_are_usage_errors", words::wrong_words_are_usage_errors),
        ("wrong_directories_are_refused", words::wrong_directories_are_refused),
        ("wrong_surroundings_are_named", words::wrong_surroundings_are_named),
        ("wrong_clients_are_refused", words::wrong_clients_are_refused),
        ("audit_tampering_is_found::p256", || audit::tampering_is_found("p256")),
        ("audit_tampering_is_found::sm2", || audit::tampering_is_found("sm2")),
        ("a_cut_tail_is_found_by_the_file", audit::a_cut_tail_is_found_by_the_file),
        ("openssl_accepts_the_certificates::p256", certificates::openssl_accepts_p256),
        ("openssl_accepts_the_certificates::sm2", certificates::openssl_accepts_sm2),
        ("an_sm2_server_serves_its_readers", suites::an_sm2_server_serves_its_readers),
        ("handshakes_are_as_configured", suites::handshakes_are_as_configured),
    ];
    trials.extend(alone.into_iter().map(|(name, run)| Trial::test(name, run)));

    let both: [(&str, Check); 2] = [
        ("three_processes_read_a_card", read::three_processes_read_a_card),
        ("a_killed_server_loses_nothing", crash::a_killed_server_loses_nothing),
    ];
    let postgres = parts::require(Postgres::start());
    for (name, run) in both {
        trials.push(Trial::test(format!("{name}::sqlite"), move || run(&Database::Sqlite)));
        trials.push(postgres.trial(format!("{name}::postgres"), move |postgres: &Postgres| {
            run(&Database::Postgres(postgres.fresh_database()?))
        }));
    }
    let name = "a_used_database_is_gone_on_with::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        setup::a_used_database_is_gone_on_with(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "two_servers_behave_as_one::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        several::two_servers_behave_as_one(&Database::Postgres(postgres.fresh_database()?))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(postgres);
    conclusion.exit();
}

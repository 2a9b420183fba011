//! The command as its users run it: real processes, real sockets, a real pty, real databases.

mod altered;
mod audit;
mod bank;
mod cache;
mod certificates;
mod checkout;
mod crash;
mod device_card;
mod helper;
mod host;
mod inject;
mod interrupted;
mod joint;
mod keys;
mod links;
mod papers;
mod payers;
mod payments;
mod payments_crash;
mod pcsc;
mod read;
mod reads;
mod risk;
mod rki;
mod rollover;
mod sam_hosts;
mod sams;
mod setup;
mod several;
mod shop;
mod stops;
mod suites;
mod tokens;
mod tr31;
mod tr34;
mod wallet;
mod wallet_devices;
mod webhooks;
mod words;

use libtest_mimic::{Arguments, Failed, Trial};
use testkit::parts::{self, Postgres};

use crate::host::Database;

type Alone = fn() -> Result<(), Failed>;
type Check = fn(&Database) -> Result<(), Failed>;

/// Tests at once.
const THREADS: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    // They wait for processes more than they compute.
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let mut trials = Vec::new();
    let alone: [(&str, Alone); 29] = [
        ("the_receiver_of_the_command_verifies", webhooks::the_receiver_of_the_command_verifies),
        ("receivers_inside_are_refused", webhooks::receivers_inside_are_refused),
        (
            "what_a_receiver_prints_steers_no_terminal",
            webhooks::what_a_receiver_prints_steers_no_terminal,
        ),
        ("a_flood_is_slowed", risk::a_flood_is_slowed),
        ("a_readers_record_is_kept", risk::a_readers_record_is_kept),
        ("one_certificate_twice_is_noticed", risk::one_certificate_twice_is_noticed),
        ("wrong_rules_are_refused", risk::wrong_rules_are_refused),
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
        ("a_card_is_read_by_every_link", links::a_card_is_read_by_every_link),
        ("a_lossy_link_costs_time_and_no_record", links::a_lossy_link_costs_time_and_no_record),
        ("a_host_survives_its_port_and_its_server", links::a_host_survives_its_port_and_its_server),
        ("a_host_names_what_is_wrong_on_the_line", links::a_host_names_what_is_wrong_on_the_line),
        ("a_link_to_nobody_is_named", links::a_link_to_nobody_is_named),
        (
            "a_killed_server_costs_a_datagram_read_time_only",
            crash::a_killed_server_costs_a_datagram_read_time_only,
        ),
    ];
    let alone = alone.into_iter().chain(cache::TRIALS).chain(reads::TRIALS).chain(sams::TRIALS);
    let alone = alone.chain(sam_hosts::TRIALS).chain(stops::TRIALS);
    let alone = alone
        .chain(tr31::TRIALS)
        .chain(tr34::TRIALS)
        .chain(keys::TRIALS)
        .chain(rki::TRIALS)
        .chain(inject::TRIALS)
        .chain(payments::TRIALS)
        .chain(payers::TRIALS)
        .chain(interrupted::TRIALS)
        .chain(papers::TRIALS)
        .chain(altered::TRIALS)
        .chain(checkout::TRIALS)
        .chain(device_card::TRIALS)
        .chain(wallet_devices::TRIALS);
    trials.extend(alone.map(|(name, run)| Trial::test(name, run)));
    trials.extend(tokens::trials());
    trials.extend(helper::trials());
    trials.extend(pcsc::trials());
    trials.extend(wallet::trials());

    let both: [(&str, Check); 17] = [
        (
            "sleeves_and_managers_are_enrolled_blocked_and_revoked",
            wallet_devices::are_enrolled_blocked_and_revoked,
        ),
        ("a_shop_is_told_of_its_payment", webhooks::a_shop_is_told_of_its_payment),
        (
            "a_payment_is_confirmed_on_a_second_device",
            payments::a_payment_is_confirmed_on_a_second_device,
        ),
        ("a_refused_payment_ends_with_code_one", payments::a_refused_payment_ends_with_code_one),
        (
            "a_replay_is_the_same_bytes_after_a_restart",
            payments::a_replay_is_the_same_bytes_after_a_restart,
        ),
        (
            "a_phone_is_told_and_its_device_confirms",
            payers::a_phone_is_told_and_its_device_confirms,
        ),
        ("a_revoked_phone_is_refused_at_once", payers::a_revoked_phone_is_refused_at_once),
        ("a_revoked_kdhs_terminals_come_back", rollover::a_revoked_kdhs_terminals_come_back),
        (
            "terminals_outlive_a_roll_over_of_each_ca",
            rollover::terminals_outlive_a_roll_over_of_each_ca,
        ),
        ("a_killed_rki_init_is_gone_on_with", rki::a_killed_rki_init_is_gone_on_with),
        (
            "a_roll_over_takes_two_and_survives_a_kill",
            rki::a_roll_over_takes_two_and_survives_a_kill,
        ),
        ("keys_come_to_a_terminal", inject::keys_come_to_a_terminal),
        ("a_killed_update_leaves_a_usable_key", inject::a_killed_update_leaves_a_usable_key),
        ("the_key_ceremony", keys::the_key_ceremony),
        ("a_bad_card_is_warned_of_and_blocked", risk::a_bad_card_is_warned_of_and_blocked),
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
    let name = "a_reversal_holds_on_all_servers::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        risk::a_reversal_holds_on_all_servers(&Database::Postgres(postgres.fresh_database()?))
    }));
    trials.extend(payments_crash::trials(&postgres));
    trials.extend(joint::trials(&postgres));
    let name = "a_payment_goes_over_two_servers::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        payments::a_payment_goes_over_two_servers(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "both_servers_tell_at_once::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        interrupted::both_servers_tell_at_once(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "two_servers_share_a_sam_host::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        sams::two_servers_share_a_sam_host(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "two_servers_share_a_hierarchy::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        rki::two_servers_share_a_hierarchy(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "a_terminal_alternates_between_two_servers::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        let database = Database::Postgres(postgres.fresh_database()?);
        inject::a_terminal_alternates_between_two_servers(&database)
    }));
    let name = "two_servers_behave_as_one::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        several::two_servers_behave_as_one(&Database::Postgres(postgres.fresh_database()?))
    }));
    let name = "wallet::a_sleeve_finds_its_manager_at_another_server::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        wallet::found_at_another_server(&Database::Postgres(postgres.fresh_database()?))
    }));
    trials.push(Trial::test("several_servers_share_one_encryption_key::sqlite", || {
        several::servers_share_one_encryption_key(&Database::Sqlite)
    }));
    let name = "several_servers_share_one_encryption_key::postgres";
    trials.push(postgres.trial(name, |postgres: &Postgres| {
        several::servers_share_one_encryption_key(&Database::Postgres(postgres.fresh_database()?))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(postgres);
    conclusion.exit();
}

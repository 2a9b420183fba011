//! One suite, run on SQLite in memory, on a SQLite file, and on PostgreSQL.
//!
//! Where PostgreSQL is not installed its trials are shown as skipped, and fail in CI.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod approvals;
mod audit;
mod batches;
mod bus;
mod crash;
mod devices;
mod events;
mod fixture;
mod idempotency;
mod injection_parties;
mod injections;
mod joint;
mod keys;
mod ledger;
mod opening;
mod operators;
mod payers;
mod payments;
mod reads;
mod records;
mod risk;
mod sams;
mod tamper;
mod transactions;
mod wallets;

use std::future::Future;
use std::pin::Pin;

use fixture::{Backend, Db};
use libtest_mimic::{Arguments, Failed, Trial};
use testkit::parts::{Postgres, Required, require};

type Case = fn(Db) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($module), "::", stringify!($case)),
            (|db| Box::pin($module::$case(db))) as Case,
        )),*]
    };
}

/// Run on all three.
const EVERYWHERE: &[(&str, Case)] = cases![
    transactions::acknowledged_work_is_seen,
    transactions::an_error_undoes_only_itself,
    transactions::a_panic_undoes_only_itself,
    transactions::a_failed_statement_dooms_its_transaction,
    transactions::conflicts_have_one_name_everywhere,
    transactions::bad_statements_are_misuse,
    transactions::reads_cannot_write,
    transactions::values_keep_their_types,
    transactions::many_rows_at_once,
    transactions::lost_updates_do_not_happen,
    transactions::a_full_queue_is_busy,
    transactions::counters_count,
    transactions::a_dropped_caller_does_not_stop_the_work,
    operators::operators_and_their_names,
    operators::tokens_live_and_die,
    approvals::enough_distinct_operators,
    approvals::objections_expiry_and_use,
    approvals::racing_votes_count_each_once,
    keys::components_are_one_per_number_and_operator_and_erased_together,
    keys::racing_components_are_each_stored_once,
    keys::keys_are_pending_then_active_then_erased,
    keys::device_numbers_are_given_out_once,
    keys::racing_allotments_never_repeat_a_number,
    devices::serial_and_number_are_mapped_both_ways,
    devices::certificates_are_intended_then_issued,
    devices::one_live_certificate_per_device,
    devices::pages_walk_all_devices_once,
    reads::a_retry_is_the_same_read,
    reads::only_the_latest_attempt_ends_a_read,
    reads::racing_starts_make_one_row,
    reads::stale_reads_are_abandoned,
    reads::pages_walk_newest_first,
    risk::windows_count_what_is_in_them,
    risk::events_count_with_those_that_come_with_them,
    risk::a_rule_decides_once_and_counts_anew_after_it,
    risk::racing_decisions_make_one,
    risk::racing_reads_of_one_reader_all_count,
    risk::decisions_end_with_their_time,
    risk::blocks_are_kept_apart,
    risk::the_gate_shows_what_decides,
    risk::a_read_ends_with_its_events,
    risk::old_events_go_in_bounded_turns,
    records::factory_data_are_the_latest_word,
    records::a_reference_names_one_thing_per_reader,
    records::pages_of_a_record_walk_newest_first,
    records::the_history_of_certificates_is_kept,
    injection_parties::one_authority_of_a_role_is_active,
    injection_parties::racing_roll_overs_make_distinct_generations,
    injection_parties::revoked_authorities_are_to_be_listed,
    injection_parties::crl_numbers_rise_whoever_signs,
    injection_parties::racing_crls_never_share_a_number,
    injection_parties::a_storage_key_is_kept_once,
    injection_parties::a_code_is_used_once,
    injection_parties::a_terminal_has_one_live_rsa_certificate,
    injection_parties::terminals_are_bound_and_unbound,
    injection_parties::who_is_blocked_or_revoked_is_not_served,
    injection_parties::a_retiring_kdh_is_needed_while_terminals_are_bound_to_it,
    injection_parties::a_campaign_follows_each_terminal,
    injection_parties::a_campaign_that_was_followed_is_found_after_its_end,
    sams::drains_are_kept_by_module_until_they_are_removed,
    wallets::a_manager_waits_where_it_came_last,
    wallets::places_that_are_lost_are_told,
    wallets::blocked_and_revoked_devices_are_found,
    wallets::an_alarm_is_kept_once_and_never_changed,
    wallets::racing_alarms_are_stored_once,
    wallets::pages_of_alarms_walk_newest_first,
    injections::a_key_waits_is_issued_and_installed,
    injections::a_nonce_makes_one_token_per_terminal,
    injections::one_injection_waits_for_a_place,
    injections::a_terminals_keys_are_the_last_of_each_place,
    injections::pages_of_injections_walk_newest_first,
    injections::a_run_is_reconciled_with_its_inventory,
    injections::runs_are_named_once_and_bounded,
    ledger::accounts_are_opened_found_and_changed,
    ledger::postings_move_and_are_found,
    ledger::postings_that_do_not_fit_are_refused,
    ledger::overdrafts_bound_balances,
    ledger::postings_are_never_changed,
    ledger::racing_postings_all_count,
    ledger::the_trial_balance_does_not_overflow,
    payers::security_devices_are_bound_to_accounts,
    payers::bindings_that_do_not_fit_are_refused,
    payers::keys_and_failures_of_a_device_are_changed,
    payers::a_phone_enrols_once_per_code,
    payers::racing_phones_use_a_code_once,
    payers::a_revoked_phone_has_no_key,
    payers::a_proof_counts_once,
    payers::pushes_wait_until_they_are_settled,
    payers::a_phone_sees_payments_of_its_accounts_only,
    payments::payments_are_stored_and_found,
    payments::payments_that_do_not_fit_are_refused,
    joint::a_cards_shared_key_is_given_replaced_and_erased,
    joint::a_commitment_is_kept_with_the_answer,
    joint::a_servers_key_is_kept_once,
    batches::a_batch_is_read_as_it_stands,
    batches::outcomes_are_stored_together,
    batches::accounts_are_frozen_with_what_was_decided,
    batches::outcomes_that_do_not_fit_are_refused,
    batches::refunds_are_counted_and_bounded,
    batches::racing_batches_execute_once,
    payments::overdue_payments_are_found,
    payments::injected_faults_fail_as_asked,
    events::events_go_to_the_webhooks_that_want_them,
    events::events_are_bounded_and_undone_with_their_transaction,
    events::a_delivery_is_claimed_once_and_again_when_its_claim_ends,
    events::failures_wait_and_successes_settle,
    events::a_slow_receiver_holds_up_itself_only,
    events::racing_claims_share_the_deliveries,
    events::webhooks_are_bounded_and_removed_with_their_secret,
    events::old_events_are_swept_and_what_waits_is_not,
    idempotency::a_key_is_answered_once_and_the_same_again,
    idempotency::a_claim_that_ended_is_taken_over,
    idempotency::claim_and_answer_are_undone_with_their_transaction,
    idempotency::racing_requests_are_done_once,
    idempotency::old_keys_are_swept_in_turns,
    bus::waiters_of_one_process_are_woken,
    audit::rows_are_found_again,
    audit::rows_cannot_be_changed,
    audit::rows_are_linked_and_verified,
    audit::one_chainer_at_a_time,
    audit::racing_chainers_never_fork,
    audit::undone_decisions_leave_no_row,
    audit::long_chains_are_walked_in_pages,
    audit::verifying_while_others_write_finds_nothing,
];

/// Run where someone else can reach the database: not in memory.
const ON_DISK: &[(&str, Case)] = cases![
    opening::reopening_keeps_everything,
    opening::a_database_from_before_injection_is_brought_up_to_date,
    opening::an_older_database_is_brought_up_to_date,
    opening::a_database_from_before_proofs_is_brought_up_to_date,
    joint::a_database_from_before_cards_is_brought_up_to_date,
    wallets::a_database_from_before_sleeves_is_brought_up_to_date,
    payers::a_damaged_key_lets_nobody_in,
    payers::two_servers_take_a_proof_once,
    opening::a_newer_schema_is_refused,
    opening::a_foreign_database_is_refused,
    opening::two_stores_share_one_database,
    opening::two_stores_may_create_it_together,
    ledger::the_check_names_what_is_broken,
    payments::the_check_names_payments_that_do_not_fit,
    tamper::a_changed_row_is_named,
    tamper::a_deleted_row_is_named,
    tamper::a_missing_link_is_named,
    tamper::a_cut_tail_shows_against_the_file,
    tamper::a_rewritten_chain_shows_without_the_file,
    tamper::links_added_without_the_key_show,
    tamper::a_removed_checkpoint_shows,
    tamper::rows_beside_the_chain_show,
    tamper::a_forged_chain_is_not_continued,
    tamper::a_foreign_key_verifies_nothing,
    crash::acknowledged_rows_survive_a_killed_process,
];

fn main() {
    if crash::is_child() {
        return crash::child();
    }
    let postgres = require(Postgres::start());
    let mut trials = Vec::new();
    for &(name, case) in EVERYWHERE {
        trials.push(local(name, case, Backend::Memory));
    }
    for &(name, case) in EVERYWHERE.iter().chain(ON_DISK) {
        trials.push(local(name, case, Backend::File));
        trials.push(remote(name, case, &postgres));
    }
    trials.push(Trial::test("file::files_that_are_no_database_are_refused", || {
        fixture::block_on(opening::files_that_are_no_database_are_refused());
        Ok(())
    }));
    trials.push(Trial::test("postgres::unusable_urls_say_why", || {
        fixture::block_on(opening::unusable_urls_say_why());
        Ok(())
    }));
    for (backend, label) in [(Backend::Memory, "memory"), (Backend::File, "file")] {
        trials.push(Trial::test(format!("{label}::a_full_disk_loses_nothing"), move || {
            fixture::block_on(async {
                let db = Db::local(backend).await;
                transactions::a_full_disk_loses_nothing_acknowledged(db).await;
            });
            Ok(())
        }));
    }
    trials.push(postgres.trial("postgres::a_commit_without_answer_is_uncertain", |postgres| {
        let url = postgres.fresh_database()?;
        fixture::block_on(crash::a_commit_without_answer_is_uncertain(url));
        Ok(())
    }));
    trials.push(bus_trial(&postgres, "a_notice_reaches_another_server", |url| {
        Box::pin(bus::a_notice_reaches_another_server(url))
    }));
    trials.push(bus_trial(&postgres, "nothing_but_ids_travels", |url| {
        Box::pin(bus::nothing_but_ids_travels(url))
    }));
    trials.push(bus_trial(&postgres, "a_killed_connection_is_made_again", |url| {
        Box::pin(bus::a_killed_connection_is_made_again(url))
    }));
    trials.push(postgres.trial("postgres::bus::a_restarted_database_is_found_again", |_| {
        let mut own = Postgres::start()?;
        fixture::block_on(bus::a_restarted_database_is_found_again(&mut own));
        Ok(())
    }));
    trials.push(remote(
        "batches::a_revocation_waits_for_answers_being_decided",
        |db| Box::pin(batches::a_revocation_waits_for_answers_being_decided(db)),
        &postgres,
    ));
    trials.push(remote(
        "joint::a_new_shared_key_waits_for_answers_being_decided",
        |db| Box::pin(joint::a_new_shared_key_waits_for_answers_being_decided(db)),
        &postgres,
    ));
    trials.push(postgres.trial("postgres::the_store_reconnects", |_| {
        let mut own = Postgres::start()?;
        fixture::block_on(crash::the_store_reconnects(&mut own));
        Ok(())
    }));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(postgres); // `exit` runs no destructors
    conclusion.exit();
}

fn local(name: &str, case: Case, backend: Backend) -> Trial {
    let label = if backend == Backend::Memory { "memory" } else { "file" };
    Trial::test(format!("{label}::{name}"), move || {
        fixture::block_on(async { case(Db::local(backend).await).await });
        Ok(())
    })
}

fn bus_trial(
    postgres: &Required<Postgres>,
    name: &str,
    case: fn(String) -> Pin<Box<dyn Future<Output = ()>>>,
) -> Trial {
    postgres.trial(format!("postgres::bus::{name}"), move |postgres| {
        let url = postgres.fresh_database()?;
        fixture::block_on(case(url));
        Ok(())
    })
}

fn remote(name: &str, case: Case, postgres: &Required<Postgres>) -> Trial {
    postgres.trial(format!("postgres::{name}"), move |postgres| {
        let url = postgres.fresh_database().map_err(Failed::from)?;
        fixture::block_on(async { case(Db::remote(url).await).await });
        Ok(())
    })
}

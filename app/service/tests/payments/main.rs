//! Payments end to end below HTTP, on SQLite in memory and on PostgreSQL, where two servers share
//! the database. Where PostgreSQL is not installed its trials are shown as skipped, and fail in CI.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod bank;
mod card;
mod checkout;
mod counted;
mod joint;
mod joint_wrong;
mod papers;
mod proofs;
mod races;
mod requests;
mod returns;
mod rows;

use std::future::Future;
use std::pin::Pin;

use bank::Place;
use libtest_mimic::{Arguments, Failed, Trial};
use testkit::parts::{Postgres, require};

type Case = fn(Place) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($module), "::", stringify!($case)),
            (|place| Box::pin($module::$case(place))) as Case,
        )),*]
    };
}

const CASES: &[(&str, Case)] = cases![
    requests::the_server_extracts_what_is_confirmed,
    requests::what_is_not_fit_is_refused_by_name,
    requests::the_same_request_happens_once,
    requests::retries_at_once_make_one_payment,
    requests::a_key_that_another_server_works_on_is_in_flight,
    requests::an_initiator_sees_its_own_payments,
    requests::who_waits_is_woken,
    requests::the_policy_says_name_and_bounds,
    answers::a_signature_executes_the_payment,
    answers::a_dynamic_password_executes_the_payment,
    answers::a_signature_with_sm2_executes_the_payment,
    answers::only_the_stored_bytes_are_what_was_signed,
    answers::a_signature_counts_for_its_payment_only,
    answers::wrong_devices_are_refused_alike,
    answers::certificates_are_verified_to_the_root,
    answers::what_happens_to_a_device_meanwhile_counts,
    answers::the_same_answer_is_answered_as_before,
    answers::wrong_answers_end_the_payment,
    answers::a_device_is_alerted_and_then_blocked,
    answers::wrong_answers_block_no_strangers_device,
    answers::the_payer_says_no,
    answers::a_phone_sees_its_own_payments_only,
    answers::time_ends_a_payment,
    answers::what_cannot_be_executed_fails_by_name,
    answers::a_closed_payee_and_a_full_one_get_nothing,
    answers::a_row_that_is_not_what_was_signed_pays_nothing,
    answers::names_of_others_devices_tell_nothing,
    answers::an_answer_needs_a_stored_request,
    races::two_phones_at_once_execute_once,
    races::one_end_whoever_comes_first,
    races::a_hot_payee_is_no_bottleneck_and_loses_nothing,
    races::bad_answers_harm_no_others,
    races::a_spoilt_batch_is_decided_one_by_one,
    races::a_caller_that_goes_away_loses_nothing,
    races::an_uncertain_commit_is_settled,
    races::a_block_holds_from_its_acknowledgement,
    returns::refunds_are_at_most_what_was_paid,
    returns::refunds_are_counted,
    returns::a_payment_is_reversed_once,
    returns::refunds_at_once_do_not_exceed_it,
    returns::postings_by_hand_happen_once,
    returns::accounts_are_opened_frozen_and_closed,
    proofs::a_proof_opens_once,
    proofs::one_proof_at_two_servers_opens_once,
    proofs::a_proof_is_verified_in_every_suite,
    proofs::wrong_claims_are_refused_alike,
    proofs::what_is_no_proof_is_refused,
    proofs::tokens_and_proofs_are_not_mixed,
    proofs::a_key_is_replaced_and_revoked,
    proofs::used_proofs_go_although_events_cannot,
    proofs::a_session_key_is_a_point_of_the_curve,
    checkout::a_browser_matches_the_number,
    checkout::numbers_are_guessed_three_times_at_most,
    checkout::a_program_may_send_the_number,
    checkout::a_checkout_is_its_creators,
    checkout::a_checkout_shows_how_it_ends,
    checkout::a_checkouts_key_ends_a_day_after_the_payment,
    checkout::what_anybody_shows_sets_no_vault_to_work,
    checkout::digits_without_a_phone_execute_it,
    checkout::wrong_digits_count_without_a_phone_too,
    checkout::what_is_not_the_payers_freezes_the_account,
    checkout::a_freeze_counts_within_its_batch,
    checkout::a_phone_is_told_the_devices_that_may_answer,
    joint::every_form_executes_the_payment,
    joint::sm2_cards_execute_it_too,
    joint::a_card_is_told_what_to_sign,
    joint::the_same_answer_is_answered_as_before,
    joint::no_joint_password_lies_in_the_database,
    joint::evidence_says_what_rests_on_the_server,
    joint::a_card_and_a_phone_at_once_execute_once,
    joint::the_ledger_has_the_last_word,
    joint::a_card_is_enrolled_again,
    joint_wrong::slips_count_for_nothing,
    joint_wrong::everything_else_is_refused_alike,
    joint_wrong::a_cards_certificate_is_verified_to_the_root,
    joint_wrong::joint_passwords_belong_to_one_signing,
    joint_wrong::a_joint_password_is_guessed_three_times_at_most,
    joint_wrong::guesses_at_once_are_three_at_most,
    joint_wrong::a_card_is_blocked_by_wrong_passwords_only,
    joint_wrong::what_does_not_open_is_not_the_cards_fault,
    joint_wrong::all_servers_have_one_encryption_key,
    joint_wrong::a_payment_is_its_terminals,
    joint_wrong::a_key_that_changed_meanwhile_verifies_nothing,
    joint_wrong::phones_bring_nothing_of_a_card,
    papers::a_receipt_says_what_was_executed,
    papers::evidence_holds_for_every_end,
    papers::sm2_makes_papers_too,
    papers::a_clock_that_lags_spoils_no_evidence,
];

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

fn main() {
    let postgres = require(Postgres::start());
    let mut trials = Vec::new();
    for &(name, case) in CASES {
        trials.push(Trial::test(format!("memory::{name}"), move || {
            block_on(async { case(Place::Memory).await });
            Ok(())
        }));
        trials.push(postgres.trial(format!("postgres::{name}"), move |postgres| {
            let url = postgres.fresh_database().map_err(Failed::from)?;
            block_on(async { case(Place::Postgres(url)).await });
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(postgres); // `exit` runs no destructors
    conclusion.exit();
}

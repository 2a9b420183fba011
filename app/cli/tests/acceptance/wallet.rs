//! A sleeve and its manager (A1–A9): the real commands, and for cards a real PC/SC service at each
//! end.

#[cfg(feature = "pcsc")]
mod cards;
mod login;
mod owner;
mod pairing;
mod stage;
#[cfg(feature = "pcsc")]
mod trouble;
mod ways;
mod wire;

use libtest_mimic::{Failed, Trial};

use crate::Alone;
use crate::host::Database;

/// Cards that need no reader: one for real use, one that is there after an alarm alone (A5).
const CARDS: &str = r#"
[[card]]
id = "bank"
label = "Bank card"
aids = "any"

[[card]]
id = "spare"
label = "Spare card"
aids = "any"
decoy = true
"#;

/// Needs a database that two servers can share.
pub(crate) fn found_at_another_server(database: &Database) -> Result<(), Failed> {
    ways::found_at_another_server(database)
}

pub(crate) fn trials() -> Vec<Trial> {
    let alone: [(&str, Alone); 17] = [
        (
            "a_pairing_needs_the_window_and_the_users_yes",
            pairing::needs_the_window_and_the_users_yes,
        ),
        ("a_sleeve_shows_the_managers_certified_id", pairing::shows_the_certified_id),
        ("pairs_survive_a_killed_manager", pairing::survives_a_restart),
        ("a_second_sleeve_with_the_same_id_is_refused", pairing::same_id_twice),
        ("a_sleeve_connects_in_both_modes_by_both_ways", ways::in_both_modes_by_both_ways),
        ("a_revoked_sleeve_is_out", ways::a_revoked_sleeve_is_out),
        ("a_killed_relay_costs_time_only", ways::a_killed_relay_costs_time_only),
        ("lost_heartbeats_end_a_session_on_both_sides", ways::lost_heartbeats_end_it_on_both_sides),
        ("a_bad_wire_between_sleeve_and_manager_is_found_out", ways::a_bad_wire_is_found_out),
        (
            "forged_words_of_the_server_are_not_the_last",
            ways::forged_words_of_the_server_are_not_the_last,
        ),
        ("a_replayed_connect_is_refused", ways::a_replayed_connect_is_refused),
        ("a_managers_owner_has_the_last_word", ways::the_owner_has_the_last_word),
        ("an_altered_audit_of_a_manager_shows", owner::an_altered_audit_shows),
        ("a_managers_settings_are_checked", owner::settings_are_checked),
        ("wrong_passwords_lock_a_sleeve_out", login::wrong_passwords_lock_it_out),
        ("a_managers_passwords_are_changed_and_reset", login::passwords_are_changed_and_reset),
        ("an_alarm_is_raised_and_not_seen", login::an_alarm_is_raised_and_not_seen),
    ];
    let named = |(name, run)| Trial::test(format!("wallet::{name}"), run);
    let mut trials: Vec<_> = alone.into_iter().map(named).collect();
    #[cfg(feature = "pcsc")]
    trials.extend(behind_readers());
    trials
}

#[cfg(feature = "pcsc")]
fn behind_readers() -> Vec<Trial> {
    use testkit::parts::{Pcscd, require};

    type Check = fn(Pcscd) -> Result<(), Failed>;
    let trials: [(&str, Check); 6] = [
        ("a_payment_is_signed_through_the_whole_relay", cards::sign_through_the_whole_relay),
        ("a_bank_card_at_home_pays_elsewhere", cards::pay_as_a_bank_card),
        ("a_card_at_home_is_pulled_in_mid_command", trouble::pulled_in_mid_command),
        ("smart_card_services_restart_at_both_ends", trouble::services_restarted),
        ("a_policy_forbids_an_application", trouble::policy_forbids_the_application),
        ("commands_of_64_kib_go_through_the_relay", trouble::long_commands),
    ];
    let part = require(Pcscd::start());
    let trial = |(name, run): (&str, Check)| {
        part.trial(format!("wallet::{name}::pcsc"), move |_| run(Pcscd::start()?))
    };
    trials.into_iter().map(trial).collect()
}

//! Evidence of payments that a signing card confirmed with a joint password: what it proves without
//! the server, and what it says to rest on the server's word.

use countersign_crypto::Suite;
use countersign_payment::State;
use countersign_payment::evidence::{Evidence, Method, verify};
use countersign_payment::joint::Form;
use countersign_pki::Role;
use serde_json::Value;

use crate::case::{Case, after, amount};

#[test]
fn the_card_was_asked_is_proven_and_the_consent_is_the_servers_word() {
    for suite in Suite::known() {
        for form in Form::ALL {
            let mut case = Case::new(suite, 1);
            let evidence = case.executed_jointly(form);
            let report = case.verified(&evidence);
            assert!(report.is_good(), "{report:#?}");
            assert!(report.rests_on_server, "nobody else saw the password");
            assert_eq!(report.state, Some(State::Executed));
            let detail = |name| {
                let found = report.checks.iter().find(|check| check.name == name);
                found.unwrap_or_else(|| panic!("{name} was not checked")).detail.clone()
            };
            assert_eq!(detail("answer-commitment"), form.name());
            assert!(detail("answer-signature").contains("the commitment to the joint password"));
            assert!(detail("answer-joint-password").contains("the server's word"));
            for name in ["answer-certificate", "answer-issuer", "answer-device", "revocation"] {
                detail(name);
            }
        }
    }
}

/// What a server that lies, or errs, cannot hide: each alteration sealed again with its own key.
#[test]
fn what_does_not_fit_together_fails_its_check_even_when_sealed() {
    type Change = fn(&mut Evidence);
    let table: &[(&str, Change)] = &[
        ("answer-commitment", |e| e.answers[1].commitment = None),
        ("answer-commitment", |e| e.answers[1].commitment = Some(Vec::new())),
        ("answer-commitment", |e| e.answers[1].commitment.as_mut().unwrap()[0] = 4),
        ("answer-commitment", |e| e.answers[1].commitment = Some(vec![1; 1 << 16])),
        ("answer-signature", |e| e.answers[1].commitment = None),
        ("answer-signature", |e| e.answers[1].commitment.as_mut().unwrap()[0] ^= 3),
        ("answer-signature", |e| {
            *e.answers[1].commitment.as_mut().unwrap().last_mut().unwrap() ^= 1;
        }),
        ("answer-signature", |e| e.answers[1].commitment.as_mut().unwrap().push(0)),
        ("answer-signature", |e| e.answers[1].signature = None),
        ("answer-signature", |e| e.answers[1].signature.as_mut().unwrap()[10] ^= 1),
        ("answer-signature", |e| e.answers[1].method = Method::Pki),
        ("answers-listed", |e| e.answers[1].method = Method::Pki),
        ("answers-listed", |e| e.answers[1].method = Method::Ocra),
        ("answer-digits", |e| e.answers[1].method = Method::Ocra),
        ("answer-signature", |e| e.answers[1].method = Method::None),
        ("answers-listed", |e| e.answers[0].commitment = Some(vec![1])),
        ("answer-certificate", |e| e.answers[1].certificate = None),
        ("answer-device", |e| e.answers[1].device = Some("SD-2".into())),
        ("revocation", |e| e.revocation = None),
        ("revocation", |e| e.revocation.as_mut().unwrap().revoked_at = Some(after(20))),
    ];
    let mut case = Case::p256();
    let good = case.executed_jointly(Form::SealedRandom);
    for (at, (name, change)) in table.iter().enumerate() {
        let mut altered = good.clone();
        change(&mut altered);
        assert_ne!(altered, good, "{name} {at}");
        let report = case.verified(&altered);
        let failed: Vec<_> = report.failed().collect();
        assert!(failed.contains(name), "{name} {at}: {failed:?}");
        assert!(!failed.contains(&"bundle-signature"), "{name} {at}: it was sealed again");
    }
}

#[test]
fn the_signature_must_be_of_this_card_this_payment_and_this_commitment() {
    let mut case = Case::p256();
    let good = case.executed_jointly(Form::Digest);
    let (commitment, signature) = case.signed_jointly(Form::Digest, &good.request);
    let failed_with = |case: &mut Case, change: &dyn Fn(&mut Evidence)| {
        let mut altered = good.clone();
        change(&mut altered);
        case.verified(&altered).failed().collect::<Vec<_>>()
    };
    // Another signing of the same card for the same payment: whole it is as good, in parts not.
    let (new, by) = (commitment.clone(), signature.clone());
    let whole = |e: &mut Evidence| {
        (e.answers[1].commitment, e.answers[1].signature) = (Some(new.clone()), Some(by.clone()));
    };
    assert_eq!(failed_with(&mut case, &whole), Vec::<&str>::new());
    let new_commitment = |e: &mut Evidence| e.answers[1].commitment = Some(commitment.clone());
    let new_signature = |e: &mut Evidence| e.answers[1].signature = Some(signature.clone());
    let parts: [&dyn Fn(&mut Evidence); 2] = [&new_commitment, &new_signature];
    for part in parts {
        assert_eq!(failed_with(&mut case, part), ["answer-signature"]);
    }
    let mut other = case.request();
    other.amount = amount("12990.00");
    let (commitment, signature) = case.signed_jointly(Form::Digest, &other.to_bytes().unwrap());
    let other = |e: &mut Evidence| {
        (e.answers[1].commitment, e.answers[1].signature) =
            (Some(commitment.clone()), Some(signature.clone()));
    };
    assert_eq!(failed_with(&mut case, &other), ["answer-signature"]);
    let stranger = case.pki.party(Role::SecurityDevice, "SD-1").certificate;
    let of_stranger = |e: &mut Evidence| e.answers[1].certificate = Some(stranger.clone());
    assert_eq!(failed_with(&mut case, &of_stranger), ["answer-signature", "revocation"]);
}

/// The signature of a device of the other kind, which signs after consent, is none of a card's, and
/// a card's, which proves no consent, is none of the other kind.
#[test]
fn signatures_of_the_two_methods_are_not_exchanged() {
    let mut case = Case::p256();
    let (with_phone, with_card) = (case.executed(), case.executed_jointly(Form::Sealed));
    let mut altered = with_phone.clone();
    altered.answers[1].method = Method::Joint;
    altered.answers[1].commitment = with_card.answers[1].commitment.clone();
    assert_eq!(case.verified(&altered).failed().collect::<Vec<_>>(), ["answer-signature"]);
    let mut altered = with_phone;
    altered.answers[1].signature = with_card.answers[1].signature.clone();
    assert_eq!(case.verified(&altered).failed().collect::<Vec<_>>(), ["answer-signature"]);
}

/// A bundle from before there were cards has no such member, and still verifies; one that has it
/// writes it in one way.
#[test]
fn the_commitment_is_left_out_where_there_is_none() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let text = String::from_utf8(case.sealed(&evidence)).unwrap();
    assert!(!text.contains("commitment"));
    let with_null = text.replacen("\"certificate\":", "\"commitment\":null,\"certificate\":", 1);
    assert_ne!(with_null, text);
    let failed = |text: &str| {
        let report = verify(text.as_bytes(), &case.root());
        report.failed().collect::<Vec<_>>()
    };
    assert_eq!(failed(&text), Vec::<&str>::new());
    assert_eq!(failed(&with_null), ["bundle-form"]);
}

#[test]
fn an_altered_commitment_is_noticed_in_the_bundle() {
    let mut case = Case::p256();
    let evidence = case.executed_jointly(Form::Digest);
    let bundle = case.sealed(&evidence);
    let json: Value = serde_json::from_slice(&bundle).unwrap();
    let place = "/evidence/answers/1/commitment";
    assert!(json.pointer(place).is_some_and(Value::is_string));
    for other in ["", "AwAA", "!"] {
        let mut altered = json.clone();
        *altered.pointer_mut(place).unwrap() = other.into();
        let report = verify(altered.to_string().as_bytes(), &case.root());
        let failed: Vec<_> = report.failed().collect();
        let named = failed.contains(&"bundle-form") || failed.contains(&"bundle-signature");
        assert!(named, "{other}: {failed:?}");
    }
    let mut altered = json.clone();
    altered
        .pointer_mut("/evidence/answers/1")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove("commitment");
    let report = verify(altered.to_string().as_bytes(), &case.root());
    assert!(report.failed().any(|name| name == "bundle-signature"));
}

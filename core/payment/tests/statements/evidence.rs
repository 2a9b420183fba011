use countersign_crypto::{Provider, Suite};
use countersign_payment::evidence::{
    self, Answer, BUNDLE_MAX, Evidence, KIND_REFUND, KIND_REVERSAL, Method, Outcome, ROWS_MAX,
    verify,
};
use countersign_payment::{PaymentError, State, StatementKey};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, Validity, parse_request, request, self_signed,
};
use proptest::prelude::*;
use serde_json::Value;
use testkit::pki::{LEAF_VALIDITY, NOW};
use testkit::rng::seeded;

use crate::case::{Case, PAYEE, PAYER, account, after, amount, posting, timeline, wrong_answer};

#[test]
fn an_executed_payment_is_proven_in_both_suites() {
    for suite in Suite::known() {
        let mut case = Case::new(suite, 1);
        let evidence = case.executed();
        let report = case.verified(&evidence);
        assert!(report.is_good(), "{report:#?}");
        assert_eq!(report.server_id.as_deref(), Some("server-1"));
        assert_eq!((report.state, report.rests_on_server), (Some(State::Executed), false));
        assert_eq!(report.request, Some(case.request()));
        let names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
        for name in ["bundle-signature", "answer-certificate", "answer-signature", "revocation"] {
            assert!(names.contains(&name), "{name} was not checked");
        }
    }
}

#[test]
fn ocra_is_said_to_rest_on_the_server() {
    let mut case = Case::p256();
    let evidence = case.executed_by_ocra();
    let report = case.verified(&evidence);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.rests_on_server);
    let digits = report.checks.iter().find(|check| check.name == "answer-digits").unwrap();
    assert!(digits.detail.contains("the server's word"), "{}", digits.detail);
}

#[test]
fn payments_that_ended_otherwise_have_evidence_too() {
    use State::{
        Approved, Cancelled, Created, Executing, ExecutionFailed, Expired, Failed, Pending,
        Rejected,
    };
    let (begin, failed) = ([(Created, 1), (Pending, 1)], [(Approved, 20), (Executing, 20)]);
    for (end, states) in [
        (None, vec![]),
        (Some((Expired, 300)), vec![]),
        (Some((Failed, 10)), vec![]),
        (Some((Cancelled, 15)), vec![]),
        (Some((Rejected, 30)), vec![]),
        (Some((ExecutionFailed, 20)), failed.to_vec()),
    ] {
        let mut case = Case::p256();
        let states: Vec<_> = begin.into_iter().chain(states).chain(end).collect();
        let mut evidence = case.ended(&states);
        evidence.made_at = after(400);
        if evidence.state == Rejected {
            evidence.answers.push(rejection());
        }
        let report = case.verified(&evidence);
        assert!(report.is_good(), "{report:#?}");
    }
}

fn rejection() -> Answer {
    Answer {
        id: "aut_2".into(),
        outcome: Outcome::Rejected,
        method: Method::None,
        device: None,
        signature: None,
        failed_check: None,
        at: after(30),
        ..wrong_answer()
    }
}

#[test]
fn refunds_and_a_reversal_go_the_other_way_up_to_what_was_paid() {
    let mut case = Case::p256();
    let mut evidence = case.executed();
    let back = (PAYEE, PAYER);
    evidence.postings.push(posting("pst_2", KIND_REFUND, back, "300.00", 30));
    evidence.postings.push(posting("pst_3", KIND_REVERSAL, back, "999.00", 40));
    assert!(case.verified(&evidence).is_good());
    let with = |case: &mut Case, change: &dyn Fn(&mut Evidence)| {
        let mut evidence = evidence.clone();
        change(&mut evidence);
        case.verified(&evidence).failed().collect::<Vec<_>>()
    };
    let returns = ["posting-returns"];
    assert_eq!(with(&mut case, &|e| e.postings[2].amount = amount("999.01")), returns);
    assert_eq!(with(&mut case, &|e| e.postings[1].credit_account = account("OTHER")), returns);
    assert_eq!(with(&mut case, &|e| e.postings[1].debit_account = account("OTHER")), returns);
    assert_eq!(with(&mut case, &|e| e.postings[1].kind = "gift".into()), returns);
    assert_eq!(with(&mut case, &|e| e.postings[1].at = after(19)), returns);
    assert_eq!(with(&mut case, &|e| e.postings[1].at = after(61)), returns);
    assert_eq!(with(&mut case, &|e| e.postings[2].id = "pst_1".into()), ["posting-once"]);
}

#[test]
fn a_bundle_may_be_laid_out_for_reading() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let bundle = case.sealed(&evidence);
    let json: Value = serde_json::from_slice(&bundle).unwrap();
    let pretty = serde_json::to_vec_pretty(&json).unwrap();
    assert_ne!(pretty, bundle);
    assert!(verify(&pretty, &case.root()).is_good());
}

/// Paths to every text and number of a JSON value.
fn scalars(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, value)| scalars(value, &format!("{path}/{name}"), found));
        }
        Value::Array(values) => {
            let values = values.iter().enumerate();
            values.for_each(|(at, value)| scalars(value, &format!("{path}/{at}"), found));
        }
        _ => found.push(path.to_string()),
    }
}

#[test]
fn every_altered_value_is_noticed() {
    let mut case = Case::p256();
    let mut evidence = case.executed();
    let back = (PAYEE, PAYER);
    evidence.postings.push(posting("pst_2", KIND_REFUND, back, "300.00", 30));
    let json: Value = serde_json::from_slice(&case.sealed(&evidence)).unwrap();
    let mut paths = Vec::new();
    scalars(&json, "", &mut paths);
    assert!(paths.len() > 60, "{}", paths.len());
    for path in paths {
        let mut altered = json.clone();
        let value = altered.pointer_mut(&path).unwrap();
        *value = match &*value {
            Value::Number(number) => (number.as_u64().unwrap() + 1).into(),
            Value::String(text) if text.ends_with('1') => {
                format!("{}2", &text[..text.len() - 1]).into()
            }
            Value::String(text) => format!("{text}1").into(),
            _ => "1".into(),
        };
        let report = verify(altered.to_string().as_bytes(), &case.root());
        let failed: Vec<_> = report.failed().collect();
        let named = failed.contains(&"bundle-form") || failed.contains(&"bundle-signature");
        assert!(named, "{path}: {failed:?}");
    }
}

#[test]
fn members_are_these_and_each_once() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let text = String::from_utf8(case.sealed(&evidence)).unwrap();
    let root = case.root();
    let refused = |from: &str, to: &str| {
        let altered = text.replacen(from, to, 1);
        assert_ne!(altered, text, "{from}");
        let report = verify(altered.as_bytes(), &root);
        assert_eq!(report.failed().collect::<Vec<_>>(), ["bundle-form"], "{from} -> {to}");
    };
    refused("{\"evidence\"", "{\"note\":\"\",\"evidence\"");
    refused("\"payment\":\"pay_1\"", "\"payment\":\"pay_2\",\"payment\":\"pay_1\"");
    refused("\"payment\":\"pay_1\",", "");
    refused("\"state\":\"executed\"", "\"state\":\"done\"");
    refused("\"version\":1", "\"version\":2");
    refused("countersign.payment.evidence", "countersign.payment.receipt");
    refused("1299.00", "1299.0");
    refused("\"failedCheck\":null,", "");
    refused("\"revokedAt\":null,", "");
    refused("\"number\":1", "\"number\":-1");
    let trailing = format!("{text}{{}}");
    assert!(!verify(trailing.as_bytes(), &root).is_good());
    let mut unsealed: Value = serde_json::from_str(&text).unwrap();
    unsealed.as_object_mut().unwrap().remove("seal");
    let report = verify(unsealed.to_string().as_bytes(), &root);
    assert_eq!(report.failed().collect::<Vec<_>>(), ["bundle-signature", "answer-issuer"]);
}

/// What a server that lies, or errs, cannot hide: each alteration sealed again with its own key.
#[test]
fn what_does_not_fit_together_fails_its_check_even_when_sealed() {
    type Change = fn(&mut Evidence);
    let table: &[(&str, Change)] = &[
        ("request-form", |e| e.request = b"{}".to_vec()),
        ("request-payment", |e| e.payment = "pay_2".into()),
        ("timeline-order", |e| e.timeline.swap(0, 1)),
        ("timeline-order", |e| drop(e.timeline.remove(1))),
        ("timeline-order", |e| drop(e.timeline.remove(2))),
        ("timeline-order", |e| e.timeline[4].number = 4),
        ("timeline-order", |e| e.timeline.truncate(4)),
        ("timeline-order", |e| e.timeline.clear()),
        ("timeline-order", |e| e.state = State::Pending),
        ("timeline-time", |e| e.timeline[0].at = after(2)),
        ("timeline-time", |e| e.made_at = after(19)),
        ("answer-accepted", |e| drop(e.answers.pop())),
        ("answer-accepted", |e| e.answers[1].outcome = Outcome::Refused),
        ("answer-accepted", |e| e.answers[0].outcome = Outcome::Accepted),
        ("answer-rejected", |e| e.answers[0].outcome = Outcome::Rejected),
        ("answers-listed", |e| e.answers[0].id = "aut_1".into()),
        ("answers-listed", |e| e.answers[0].at = after(0)),
        ("answer-time", |e| e.answers[1].at = after(19)),
        ("answer-certificate", |e| e.answers[1].certificate = None),
        ("answer-certificate", |e| e.answers[1].issuer = None),
        ("answer-certificate", |e| e.answers[1].certificate.as_mut().unwrap()[200] ^= 1),
        ("answer-certificate", |e| e.answers[1].issuer = e.answers[1].certificate.clone()),
        ("answer-device", |e| e.answers[1].device = Some("SD-2".into())),
        ("answer-device", |e| e.answers[1].device = None),
        ("answer-signature", |e| e.answers[1].signature = None),
        ("answer-signature", |e| e.answers[1].signature.as_mut().unwrap()[10] ^= 1),
        ("answer-signature", |e| e.answers[1].method = Method::None),
        ("answer-digits", |e| e.answers[1].method = Method::Ocra),
        ("revocation", |e| e.revocation = None),
        ("revocation", |e| e.revocation.as_mut().unwrap().revoked_at = Some(after(20))),
        ("revocation", |e| e.revocation.as_mut().unwrap().stated_at = after(19)),
        ("revocation", |e| e.revocation.as_mut().unwrap().stated_at = after(61)),
        ("revocation", |e| e.revocation.as_mut().unwrap().certificate_number = "40".into()),
        ("posting-count", |e| e.postings.clear()),
        ("posting-count", |e| {
            e.postings.push(posting("pst_2", "payment", (PAYER, PAYEE), "1299.00", 20));
        }),
        ("posting-amount", |e| e.postings[0].amount = amount("1299.01")),
        ("posting-accounts", |e| e.postings[0].credit_account = account("OTHER")),
        ("posting-accounts", |e| e.postings[0].debit_account = account("OTHER")),
        ("posting-time", |e| e.postings[0].at = after(21)),
        ("receipt-present", |e| e.receipt = None),
        ("receipt-signature", |e| e.receipt = Some("a.b.c".into())),
        ("receipt-content", |e| e.end_to_end_id = "order-118".into()),
        ("receipt-content", |e| e.postings[0].id = "pst_9".into()),
        ("receipt-content", |e| e.answers[1].id = "aut_9".into()),
    ];
    let mut case = Case::p256();
    let good = case.executed();
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
fn a_request_changed_after_it_was_signed_is_noticed() {
    let mut case = Case::p256();
    let good = case.executed();
    for change in 0..6 {
        let mut request = case.request();
        match change {
            0 => request.amount = amount("12990.00"),
            1 => request.payee_account = account(PAYER),
            2 => request.payer_account = account(PAYEE),
            3 => request.payee_name = "Mueller GmbH".into(),
            4 => request.order = "订单 118".into(),
            _ => request.expires = after(301),
        }
        let altered = Evidence { request: request.to_bytes().unwrap(), ..good.clone() };
        let report = case.verified(&altered);
        let failed: Vec<_> = report.failed().collect();
        assert!(failed.contains(&"answer-signature"), "{change}: {failed:?}");
        assert!(failed.contains(&"receipt-content"), "{change}: {failed:?}");
    }
}

#[test]
fn the_signature_must_be_of_this_device_and_this_payment() {
    let mut case = Case::p256();
    let good = case.executed();
    let mut other = case.request();
    other.payment = "pay_2".into();
    let of_other = case.signature(&other.to_bytes().unwrap());
    let mut altered = good.clone();
    altered.answers[1].signature = Some(of_other);
    assert_eq!(case.verified(&altered).failed().collect::<Vec<_>>(), ["answer-signature"]);
    let stranger = case.pki.party(Role::SecurityDevice, "SD-1");
    let mut altered = good.clone();
    altered.answers[1].certificate = Some(stranger.certificate);
    let failed: Vec<_> = case.verified(&altered).failed().collect();
    assert_eq!(failed, ["answer-signature", "revocation"]);
    // A certificate of another role under the same issuer.
    let terminal = case.pki.party(Role::Terminal, "SD-1");
    let mut altered = good;
    altered.answers[1].certificate = Some(terminal.certificate);
    assert_eq!(case.verified(&altered).failed().collect::<Vec<_>>(), ["answer-certificate"]);
}

#[test]
fn the_certificate_must_have_held_when_it_answered() {
    let mut case = Case::p256();
    let good = case.executed();
    let later = LEAF_VALIDITY.as_secs() + 1;
    for shift in [later, 2 * later] {
        let mut altered = good.clone();
        for event in &mut altered.timeline[2..] {
            event.at = after(shift);
        }
        altered.answers[1].at = after(shift);
        altered.postings[0].at = after(shift);
        altered.made_at = after(shift);
        let failed: Vec<_> = case.verified(&altered).failed().collect();
        assert!(failed.contains(&"answer-certificate"), "{failed:?}");
        assert!(failed.contains(&"answer-time"), "{failed:?}");
    }
}

#[test]
fn a_certificate_revoked_later_proves_what_it_did_before() {
    let mut case = Case::p256();
    let mut evidence = case.executed();
    let revocation = evidence.revocation.as_mut().unwrap();
    revocation.revoked_at = Some(after(21));
    revocation.reason = Some("lost".into());
    assert!(case.verified(&evidence).is_good());
}

#[test]
fn an_answer_after_the_expiry_proves_nothing() {
    let mut case = Case::p256();
    let mut request = case.request();
    request.expires = after(20);
    let mut altered = case.executed();
    altered.request = request.to_bytes().unwrap();
    altered.answers[1].signature = Some(case.signature(&altered.request));
    let receipt = case.receipt(&altered);
    altered.receipt = Some(case.sealed_receipt(&receipt));
    assert_eq!(case.verified(&altered).failed().collect::<Vec<_>>(), ["answer-time"]);
}

#[test]
fn money_that_moved_without_an_approval_is_noticed() {
    let mut case = Case::p256();
    let states = [(State::Created, 1), (State::Pending, 1), (State::Cancelled, 5)];
    let mut evidence = case.ended(&states);
    evidence.answers.clear();
    evidence.postings.push(posting("pst_1", "payment", (PAYER, PAYEE), "1299.00", 20));
    assert_eq!(case.verified(&evidence).failed().collect::<Vec<_>>(), ["posting-count"]);
    evidence.postings[0].kind = KIND_REFUND.into();
    assert_eq!(case.verified(&evidence).failed().collect::<Vec<_>>(), ["posting-count"]);
    evidence.postings.clear();
    let states = [(State::Created, 1), (State::Pending, 1), (State::Executed, 5)];
    evidence.state = State::Executed;
    evidence.timeline = timeline(&states);
    let failed: Vec<_> = case.verified(&evidence).failed().collect();
    assert_eq!(failed, ["timeline-order", "posting-count", "receipt-present"]);
}

#[test]
fn another_root_or_another_server_proves_nothing() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let bundle = case.sealed(&evidence);
    for (suite, seed) in [(Suite::X25519_P256_AES128GCM_SHA256, 8), (Suite::SM2_SM4GCM_SM3, 7)] {
        let other = Case::new(suite, seed);
        let report = verify(&bundle, &other.root());
        let failed: Vec<_> = report.failed().collect();
        for name in ["bundle-signature", "answer-certificate", "receipt-signature"] {
            assert!(failed.contains(&name), "{failed:?}");
        }
        assert_eq!(report.server_id, None);
    }
    assert!(!verify(&bundle, b"").is_good());
    // A device seals one.
    let issuer = case.pki.issuer(Role::SecurityDevice).to_vec();
    let key = StatementKey {
        provider: &case.pki.provider.clone(),
        key: &*case.device.key,
        certificate: &case.device.certificate,
        issuer: &issuer,
    };
    let by_device = evidence::make(&evidence, &key, &mut case.pki.rng).unwrap();
    let failed: Vec<_> = verify(&by_device, &case.root()).failed().collect();
    assert_eq!(failed, ["bundle-signature", "answer-issuer"]);
}

/// A tree in which one issuing certificate makes servers and devices: whoever holds it could forge
/// both sides.
#[test]
fn devices_and_servers_have_different_issuers() {
    let mut case = Case::p256();
    let mut evidence = case.executed();
    let provider: Provider = case.pki.provider.clone();
    let mut rng = seeded(99);
    let validity = Validity::from(NOW, LEAF_VALIDITY);
    let root_key = provider.signature.generate(&mut rng).unwrap().key;
    let number = CertificateNumber::random(&mut rng);
    let root = self_signed(&provider, "Root", root_key.public_key(), number, validity).unwrap();
    let root = root.sign(&*root_key, &mut rng).unwrap();
    let ca_key = provider.signature.generate(&mut rng).unwrap().key;
    let ca = Issuer::from_certificate(&provider, &root)
        .unwrap()
        .prepare_intermediate(
            "CA",
            ca_key.public_key(),
            CertificateNumber::random(&mut rng),
            validity,
        )
        .unwrap()
        .sign(&*root_key, &mut rng)
        .unwrap();
    let mut leaf = |role, id| {
        let key = provider.signature.generate(&mut rng).unwrap().key;
        let identity = Identity::new(role, id).unwrap();
        let csr = request(&provider, &identity, &*key, &mut rng).unwrap();
        let requested = parse_request(&provider, &csr).unwrap();
        let number = CertificateNumber::random(&mut rng);
        let issuer = Issuer::from_certificate(&provider, &ca).unwrap();
        let prepared = issuer.prepare(&requested, role, number.clone(), validity).unwrap();
        (key, prepared.sign(&*ca_key, &mut rng).unwrap(), number)
    };
    let (device_key, device, device_number) = leaf(Role::SecurityDevice, "SD-1");
    let (server_key, server, _) = leaf(Role::Server, "server-1");
    let answer = &mut evidence.answers[1];
    answer.signature = countersign_payment::sign(&*device_key, &mut rng, &evidence.request).ok();
    (answer.certificate, answer.issuer) = (Some(device), Some(ca.clone()));
    evidence.revocation.as_mut().unwrap().certificate_number = device_number.to_string();
    let key =
        StatementKey { provider: &provider, key: &*server_key, certificate: &server, issuer: &ca };
    let receipt = case.receipt(&evidence);
    evidence.receipt = Some(countersign_payment::receipt::make(&receipt, &key, &mut rng).unwrap());
    let bundle = evidence::make(&evidence, &key, &mut rng).unwrap();
    let failed: Vec<_> = verify(&bundle, &root).failed().collect();
    assert_eq!(failed, ["answer-issuer"]);
}

#[test]
fn bundles_are_bounded() {
    let mut case = Case::p256();
    let report = verify(&vec![b' '; BUNDLE_MAX + 1], &case.root());
    assert_eq!(report.failed().collect::<Vec<_>>(), ["bundle-form"]);
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(!verify(&deep, &case.root()).is_good());
    let mut many = case.executed();
    many.answers = vec![wrong_answer(); ROWS_MAX + 1];
    let issuer = case.pki.issuer(Role::Server).to_vec();
    let key = StatementKey {
        provider: &case.pki.provider.clone(),
        key: &*case.server.key,
        certificate: &case.server.certificate,
        issuer: &issuer,
    };
    let made = evidence::make(&many, &key, &mut case.pki.rng);
    assert_eq!(made, Err(PaymentError::StatementForm));
    many.answers.clear();
    many.request = vec![0xff];
    let made = evidence::make(&many, &key, &mut case.pki.rng);
    assert_eq!(made, Err(PaymentError::StatementForm));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_and_damage_are_refused_in_peace(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut case = Case::p256();
        let root = case.root();
        prop_assert!(!verify(&garbage, &root).is_good());
        let evidence = case.executed();
        let mut damaged = case.sealed(&evidence);
        let at = at.index(damaged.len());
        prop_assume!(damaged[at] != byte);
        damaged[at] = byte;
        prop_assert!(!verify(&damaged, &root).is_good());
    }
}

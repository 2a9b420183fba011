use countersign_crypto::Suite;
use countersign_payment::receipt::{RECEIPT_MAX, verify};
use countersign_payment::{PaymentError, StatementKey, receipt};
use countersign_pki::{Role, certified_point};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use testkit::pki::LEAF_VALIDITY;

use crate::case::{Case, after, amount};

fn decoded(part: &str) -> serde_json::Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

fn encoded(part: &serde_json::Value) -> String {
    BASE64URL_NOPAD.encode(part.to_string().as_bytes())
}

#[test]
fn a_receipt_verifies_in_both_suites_and_says_what_was_said() {
    for suite in Suite::known() {
        let mut case = Case::new(suite, 1);
        let evidence = case.executed();
        let said = case.receipt(&evidence);
        let jws = case.sealed_receipt(&said);
        let verified = verify(&jws, &case.root()).unwrap();
        assert_eq!((verified.receipt(), verified.server_id()), (&said, "server-1"));
    }
}

/// RFC 7518 §3.4, with another library.
#[test]
fn it_is_a_jws_that_others_verify() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let jws = evidence.receipt.unwrap();
    let parts: Vec<_> = jws.split('.').collect();
    let header = decoded(parts[0]);
    assert_eq!(
        (header["alg"].as_str(), header["x5c"].as_array().unwrap().len()),
        (Some("ES256"), 2)
    );
    let leaf = BASE64.decode(header["x5c"][0].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(leaf, case.server.certificate);
    let point = certified_point(&case.pki.provider, &leaf).unwrap();
    let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
    let signature = Signature::from_slice(&signature).unwrap();
    let signed = [parts[0], parts[1]].join(".");
    let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
    assert!(key.verify(signed.as_bytes(), &signature).is_ok());
    let payload = decoded(parts[1]);
    assert_eq!(payload["receipt"]["amount"]["amount"], "1299.00");
    let canonical = serde_json_canonicalizer::to_string(&payload).unwrap();
    assert_eq!(BASE64URL_NOPAD.encode(canonical.as_bytes()), parts[1], "RFC 8785");
}

#[test]
fn every_altered_character_is_noticed() {
    let mut case = Case::p256();
    let jws = case.executed().receipt.unwrap();
    let root = case.root();
    for at in (0..jws.len()).step_by(3) {
        let mut altered = jws.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(verify(&altered, &root).is_err(), "character {at}");
    }
}

#[test]
fn another_claim_under_the_old_signature_is_refused() {
    let mut case = Case::p256();
    let jws = case.executed().receipt.unwrap();
    let parts: Vec<_> = jws.split('.').collect();
    let mut payload = decoded(parts[1]);
    payload["receipt"]["amount"]["amount"] = "1.00".into();
    let altered = [parts[0], &encoded(&payload), parts[2]].join(".");
    assert_eq!(verify(&altered, &case.root()), Err(PaymentError::StatementSignature));
}

#[test]
fn the_header_has_one_form() {
    let mut case = Case::p256();
    let jws = case.executed().receipt.unwrap();
    let parts: Vec<_> = jws.split('.').collect();
    let with = |name: &str, value: serde_json::Value| {
        let mut header = decoded(parts[0]);
        header[name] = value;
        let altered = [&encoded(&header), parts[1], parts[2]].join(".");
        verify(&altered, &case.root()).unwrap_err()
    };
    let form = PaymentError::StatementForm;
    for alg in ["none", "HS256", "ES384", "RS256", "1.2.156.10197.1.501", ""] {
        assert_eq!(with("alg", alg.into()), form, "{alg}");
    }
    assert_eq!(with("typ", "countersign-evidence".into()), form);
    assert_eq!(with("crit", serde_json::json!(["exp"])), form);
    assert_eq!(with("jwk", serde_json::json!({})), form);
    assert_eq!(with("x5c", serde_json::json!([])), form);
    let x5c = decoded(parts[0])["x5c"].clone();
    assert_eq!(with("x5c", serde_json::json!([x5c[0]])), form);
    let swapped = serde_json::json!([x5c[1], x5c[0]]);
    assert_eq!(with("x5c", swapped), PaymentError::StatementCertificate);
}

#[test]
fn only_a_server_below_this_root_signs_receipts() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let jws = evidence.receipt.clone().unwrap();
    let said = case.receipt(&evidence);
    let refused = Err(PaymentError::StatementCertificate);
    for (suite, seed) in [(Suite::X25519_P256_AES128GCM_SHA256, 8), (Suite::SM2_SM4GCM_SM3, 7)] {
        let other = Case::new(suite, seed);
        assert!(verify(&jws, &other.root()).is_err(), "another root");
    }
    assert_eq!(verify(&jws, b"no root"), refused);
    // A device that signs one.
    let issuer = case.pki.issuer(Role::SecurityDevice).to_vec();
    let key = StatementKey {
        provider: &case.pki.provider.clone(),
        key: &*case.device.key,
        certificate: &case.device.certificate,
        issuer: &issuer,
    };
    let by_device = receipt::make(&said, &key, &mut case.pki.rng).unwrap();
    assert_eq!(verify(&by_device, &case.root()), refused);
    // Another's certificate.
    let key = StatementKey { certificate: &case.server.certificate, ..key };
    let made = receipt::make(&said, &key, &mut case.pki.rng);
    assert_eq!(made, Err(PaymentError::StatementCertificate));
    // A server whose certificate did not hold then.
    for at in [after(LEAF_VALIDITY.as_secs() + 1), after(0).minus(LEAF_VALIDITY)] {
        let outside = receipt::Receipt { issued_at: at, ..said.clone() };
        let jws = case.sealed_receipt(&outside);
        assert_eq!(verify(&jws, &case.root()), refused);
    }
}

#[test]
fn garbage_is_refused_and_length_is_bounded() {
    let mut case = Case::p256();
    let evidence = case.executed();
    let jws = evidence.receipt.clone().unwrap();
    let long = "a".repeat(RECEIPT_MAX + 1);
    let parts: Vec<_> = jws.split('.').collect();
    let two = parts[..2].join(".");
    let four = [jws.as_str(), "a"].join(".");
    let padded = [jws.as_str(), "="].concat();
    for wrong in
        ["", ".", "..", "...", "a.b.c", "e30.e30.e30", &long, &two, &four, &padded, "é.é.é"]
    {
        assert!(verify(wrong, &case.root()).is_err(), "{wrong:.40}");
    }
    let mut said = case.receipt(&evidence);
    said.order = "x".repeat(RECEIPT_MAX);
    said.amount = amount("1.00");
    let issuer = case.pki.issuer(Role::Server).to_vec();
    let key = StatementKey {
        provider: &case.pki.provider.clone(),
        key: &*case.server.key,
        certificate: &case.server.certificate,
        issuer: &issuer,
    };
    let made = receipt::make(&said, &key, &mut case.pki.rng);
    assert_eq!(made, Err(PaymentError::StatementForm));
}

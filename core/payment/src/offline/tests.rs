use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Secret, Suite, VerifyingKey, provider_of};
use countersign_pki::Role;
use proptest::prelude::*;
use testkit::pki::{LEAF_VALIDITY, NOW, Party, TestPki};
use testkit::rng::seeded;

use super::*;
use crate::request::tests::example;
use crate::{ORDER_MAX, ocra};

struct Case {
    provider: Provider,
    server: Party,
    other: Party,
    request: Vec<u8>,
    text: String,
}

impl Case {
    fn new(suite: Suite) -> Self {
        let provider = provider_of(suite).unwrap();
        let mut pki = TestPki::new(provider.clone(), 3);
        let server = pki.party(Role::Server, "server-1");
        let other = pki.party(Role::Server, "server-1");
        let mut request = example();
        request.expires = NOW.plus(Duration::from_secs(300));
        let request = request.to_bytes().unwrap();
        let text = sign(&*server.key, &mut pki.rng, &server.number, &request).unwrap();
        Self { provider, server, other, request, text }
    }

    fn p256() -> Self {
        Self::new(Suite::X25519_P256_AES128GCM_SHA256)
    }

    fn verify(&self, text: &str) -> Result<ConfirmationRequest, PaymentError> {
        OfflineRequest::parse(text)?.verify(&self.provider, &self.server.certificate, NOW)
    }

    /// A text of these parts, however it was signed.
    fn text(&self, version: u8, signature: &[u8], request: &[u8]) -> String {
        let len = |part: &[u8]| u8::try_from(part.len()).unwrap();
        let number = self.server.number.as_bytes();
        let head = [&[version, len(number)], number, &[len(signature)], signature].concat();
        [PREFIX, &BASE32_NOPAD.encode(&[&head, request].concat())].concat()
    }

    fn signed(&self, input: &[u8]) -> Vec<u8> {
        self.server.key.sign(&mut seeded(4), input).unwrap()
    }
}

#[test]
fn a_camera_takes_the_same_request_to_the_device() {
    for suite in Suite::known() {
        let case = Case::new(suite);
        assert_eq!(case.verify(&case.text), ConfirmationRequest::parse(&case.request));
        let read = OfflineRequest::parse(&case.text).unwrap();
        assert_eq!(read.request(), case.request);
        assert_eq!(read.certificate_number(), &case.server.number);
        // The digits are those of the same request online.
        let key = Secret::new(vec![7; ocra::PAYMENT_KEY_LEN]);
        let digits = ocra::respond(&key, read.request()).unwrap();
        assert!(ocra::verify(&key, &case.request, &digits));
        // A QR code's alphanumeric mode, which the colon is in too (ISO/IEC 18004, 7.4.4).
        let alphanumeric = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b':';
        assert!(case.text.starts_with("CS1:") && case.text.bytes().all(alphanumeric));
    }
}

#[test]
fn one_form_of_a_text() {
    let case = Case::p256();
    let body = &case.text[PREFIX.len()..];
    for wrong in [
        String::new(),
        "CS1:".into(),
        body.into(),
        case.text.to_lowercase(),
        ["cs1:", body].concat(),
        [PREFIX, &body.to_lowercase()].concat(),
        ["CS2:", body].concat(),
        format!(" {}", case.text),
        format!("{}\n", case.text),
        format!("{}=", case.text),
        case.text.replace('A', "1"),
        case.text.replace('A', "Ä"),
        case.text[..40].into(),
        case.text(2, &[1], &case.request),
        case.text(1, &[], &case.request),
        case.text(1, &[1; SIGNATURE_MAX + 1], &case.request),
        case.text(1, &[1], &[]),
        // A number with a leading zero has another form.
        [PREFIX, &BASE32_NOPAD.encode(&[1, 2, 0, 1, 1, 1, 1])].concat(),
        [PREFIX, &BASE32_NOPAD.encode(&[1, 200, 1])].concat(),
        [PREFIX, &BASE32_NOPAD.encode(&[1, 1, 1, 200, 1])].concat(),
    ] {
        assert_eq!(OfflineRequest::parse(&wrong), Err(PaymentError::OfflineForm), "{wrong}");
    }
    // With more behind it, it is another request.
    for more in ["A", "AA", "AAAAAAAA"] {
        assert!(case.verify(&[&case.text, more].concat()).is_err(), "{more}");
    }
    // Bits behind the last byte are zero, so that a text has no second form.
    let bits = BASE32_NOPAD.decode(body.as_bytes()).unwrap().len() * 8 % 5;
    assert_ne!(bits, 0, "this example has such bits");
    let last = char::from(body.as_bytes()[body.len() - 1]);
    let next = char::from_u32(u32::from(last) + 1).unwrap();
    let second = format!("{}{next}", &case.text[..case.text.len() - 1]);
    assert_eq!(OfflineRequest::parse(&second), Err(PaymentError::OfflineForm));
}

#[test]
fn what_no_qr_code_holds_is_not_made_and_not_read() {
    let case = Case::p256();
    let mut request = example();
    request.order = "\u{20000}".repeat(ORDER_MAX);
    request.payee_name = "\u{20000}".repeat(ORDER_MAX);
    request.initiator = "\u{20000}".repeat(ORDER_MAX);
    request.server = "\u{20000}".repeat(64);
    let fits = request.to_bytes().unwrap();
    let signed = |bytes: &[u8]| sign(&*case.server.key, &mut seeded(5), &case.server.number, bytes);
    assert!(signed(&fits).is_ok(), "{} bytes of names fit", fits.len());
    let quotes = |len| "a\"".repeat(len / 2);
    (request.order, request.payee_name) = (quotes(ORDER_MAX), quotes(ORDER_MAX));
    assert!(signed(&request.to_bytes().unwrap()).is_ok());
    for wrong in [&b"{}"[..], b"", &[b'x'; 5000]] {
        assert!(signed(wrong).is_err(), "no request");
    }
    let long = format!("{}{}", case.text, "A".repeat(TEXT_MAX));
    assert_eq!(OfflineRequest::parse(&long), Err(PaymentError::OfflineTooLong));
    let longest = "A".repeat(TEXT_MAX);
    assert_eq!(OfflineRequest::parse(&longest), Err(PaymentError::OfflineForm));
}

#[test]
fn only_the_server_that_the_device_knows() {
    let case = Case::p256();
    let read = OfflineRequest::parse(&case.text).unwrap();
    let foreign = Err(PaymentError::OfflineServer);
    let verify = |certificate: &[u8], now| read.verify(&case.provider, certificate, now);
    assert_eq!(verify(&case.other.certificate, NOW), foreign, "another number");
    assert_eq!(verify(b"no certificate", NOW), foreign);
    let sm2 = provider_of(Suite::SM2_SM4GCM_SM3).unwrap();
    assert_eq!(read.verify(&sm2, &case.server.certificate, NOW), foreign, "another suite");
    let late = NOW.plus(LEAF_VALIDITY + Duration::from_secs(1));
    assert_eq!(verify(&case.server.certificate, late), foreign, "the certificate has expired");
    // Someone who only says that number.
    let forged = sign(&*case.other.key, &mut seeded(6), &case.server.number, &case.request);
    assert_eq!(case.verify(&forged.unwrap()), Err(PaymentError::OfflineSignature));
}

#[test]
fn an_expired_request_is_refused() {
    let case = Case::p256();
    let read = OfflineRequest::parse(&case.text).unwrap();
    let at = |seconds| {
        let now = NOW.plus(Duration::from_secs(seconds));
        read.verify(&case.provider, &case.server.certificate, now).map(|_| ())
    };
    assert_eq!(at(299), Ok(()));
    assert_eq!(at(300), Err(PaymentError::OfflineExpired), "as for an answer");
    assert_eq!(at(86_400), Err(PaymentError::OfflineExpired));
}

#[test]
fn a_signature_for_anything_else_is_none() {
    let case = Case::p256();
    let refused = Err(PaymentError::OfflineSignature);
    for input in [
        crate::signing_input(&case.request), // a confirmation, as of a device
        case.request.clone(),
        [&b"countersign.payment.offline.v2\0"[..], &case.request].concat(),
        LABEL.to_vec(),
    ] {
        let text = case.text(VERSION, &case.signed(&input), &case.request);
        assert_eq!(case.verify(&text), refused);
    }
    // What this test is about: only the input differs.
    let good = case.text(VERSION, &case.signed(&input(&case.request)), &case.request);
    assert!(case.verify(&good).is_ok());
    // And the other way round: the server's signature confirms nothing.
    let point = case.server.key.public_key();
    let key: Arc<dyn VerifyingKey> = case.provider.signature.public_key(point).unwrap();
    let signature = OfflineRequest::parse(&case.text).unwrap().signature;
    let confirmed = crate::verify(&*key, &case.request, &signature);
    assert_eq!(confirmed, Err(PaymentError::Signature));
}

#[test]
fn signed_bytes_that_cannot_be_shown_are_refused() {
    let case = Case::p256();
    let text = case.text(VERSION, &case.signed(&input(b"{}")), b"{}");
    assert_eq!(case.verify(&text), Err(PaymentError::RequestForm));
}

#[cfg(feature = "std")]
#[test]
fn a_receipts_signature_is_none() {
    use crate::receipt::{self, Receipt};
    let provider = provider_of(Suite::X25519_P256_AES128GCM_SHA256).unwrap();
    let mut pki = TestPki::new(provider.clone(), 3);
    let server = pki.party(Role::Server, "server-1");
    let issuer = pki.issuer(Role::Server).to_vec();
    let request = example();
    let bytes = request.to_bytes().unwrap();
    let said = Receipt {
        payment: request.payment.clone(),
        end_to_end_id: "order-117".into(),
        payer_account: request.payer_account,
        payee_account: request.payee_account,
        payee_name: request.payee_name,
        order: request.order,
        amount: request.amount,
        executed_at: NOW,
        posting: "pst_1".into(),
        authorisation: "aut_1".into(),
        request_hash: crate::request_hash(&bytes),
        issued_at: NOW,
    };
    let key = crate::StatementKey {
        provider: &provider,
        key: &*server.key,
        certificate: &server.certificate,
        issuer: &issuer,
    };
    let jws = receipt::make(&said, &key, &mut pki.rng).unwrap();
    let signature = jws.rsplit('.').next().unwrap();
    let raw = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    // From `r ‖ s` to DER, which is what an offline request carries.
    let integer = |half: &[u8]| {
        let zeros = half.iter().take_while(|byte| **byte == 0).count();
        let half = &half[zeros..];
        let sign: &[u8] = if half[0] >= 0x80 { &[0] } else { &[] };
        let len = u8::try_from(sign.len() + half.len()).unwrap();
        [&[2, len][..], sign, half].concat()
    };
    let pair = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(pair.len()).unwrap()][..], &pair].concat();
    let number = server.number.as_bytes();
    let len = |part: &[u8]| u8::try_from(part.len()).unwrap();
    let head = [&[VERSION, len(number)], number, &[len(&der)], &der].concat();
    let text = [PREFIX, &BASE32_NOPAD.encode(&[&head[..], &bytes].concat())].concat();
    let read = OfflineRequest::parse(&text).unwrap();
    let verified = read.verify(&provider, &server.certificate, NOW);
    assert_eq!(verified, Err(PaymentError::OfflineSignature));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_altered_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let case = Case::p256();
        let mut bytes = BASE32_NOPAD.decode(&case.text.as_bytes()[PREFIX.len()..]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let altered = [PREFIX, &BASE32_NOPAD.encode(&bytes)].concat();
        prop_assert!(case.verify(&altered).is_err());
    }

    #[test]
    fn garbage_is_refused_in_peace(text in "(CS1:)?[A-Z2-7]{0,200}") {
        prop_assert!(Case::p256().verify(&text).is_err());
    }
}

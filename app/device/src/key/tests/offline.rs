//! A QR code instead of a phone: only the server's signature speaks for it.

use countersign_payment::offline;
use testkit::pki::{LEAF_VALIDITY, NOW, Party};

use super::*;
use crate::key::server::ServerChain;

const EXPIRES: UnixTime = UnixTime::from_secs(NOW.as_secs() + 300);

fn pem(der: &[u8]) -> String {
    pem::encode(&Pem::new("CERTIFICATE", der))
}

fn asked() -> Vec<u8> {
    ConfirmationRequest { expires: EXPIRES, ..request("pay_1", "Order 7") }.to_bytes().unwrap()
}

/// The text that this server makes of a request.
fn text(server: &Party, request: &[u8]) -> String {
    offline::sign(&*server.key, &mut seeded(8), &server.number, request).unwrap()
}

/// A device for dynamic passwords that knows its server, and the server.
fn pinned(dir: &TempDir, serial: &str, method: SignWith) -> (KeyDir, TestPki, Party) {
    let mut pki = TestPki::new(rust_crypto::provider(), 1);
    let server = pki.party(Role::Server, "server-1");
    let (device, _) = device(dir, serial, method, &rust_crypto::provider());
    device.pin_server(&chain(&pki, &server), "server-1", NOW).unwrap();
    (device, pki, server)
}

fn chain(pki: &TestPki, server: &Party) -> ServerChain {
    let issuer = pem(pki.issuer(Role::Server));
    ServerChain {
        root: pem(pki.root()),
        server_issuer: issuer,
        server_certificate: Some(pem(&server.certificate)),
        server_encryption_certificate: None,
    }
}

fn refuses(device: &mut KeyDir, text: &str, now: UnixTime) -> &'static str {
    let mut holder = Types::pin(PIN);
    let error = device.answer_offline(text, now, &mut holder).unwrap_err();
    assert!(holder.shown.is_empty(), "nothing is shown: {error}");
    error.check()
}

#[test]
fn the_servers_request_is_shown_and_answered_with_digits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, _, server) = pinned(&dir, "OCRA-1", SignWith::Ocra);
    let mut holder = Types::pin(PIN);
    let answer = device.answer_offline(&text(&server, &asked()), NOW, &mut holder).unwrap();
    assert_eq!((answer.payment.as_str(), answer.serial.as_str()), ("pay_1", "OCRA-1"));
    assert_eq!(holder.shown, [ConfirmationRequest::parse(&asked()).unwrap().lines()]);
    let key = secret(&[7; ocra::PAYMENT_KEY_LEN]);
    assert!(ocra::verify(&key, &asked(), &answer.digits));

    let mut wrong = |pin: Option<&[u8]>| {
        let mut holder = Types { pin: pin.map(<[u8]>::to_vec), shown: Vec::new() };
        let text = text(&server, &asked());
        device.answer_offline(&text, NOW, &mut holder).unwrap_err().check()
    };
    assert_eq!(wrong(None), "declined");
    assert_eq!(wrong(Some(b"12ab")), "pin-form");
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        assert_eq!(wrong(Some(b"0000")), check);
    }
    assert_eq!(refuses(&mut device, &text(&server, &asked()), NOW), "pin-blocked");
}

#[test]
fn what_is_not_the_servers_is_neither_shown_nor_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, mut pki, server) = pinned(&dir, "OCRA-1", SignWith::Ocra);
    let good = text(&server, &asked());
    for bad in ["", "CS1:", "hello", &good.to_lowercase(), &good[..good.len() - 8]] {
        let check = refuses(&mut device, bad, NOW);
        assert!(matches!(check, "offline-form" | "offline-signature"), "{bad}: {check}");
    }
    // Signed by another server of the same bank, and by nobody the bank knows.
    let other = pki.party(Role::Server, "server-2");
    assert_eq!(refuses(&mut device, &text(&other, &asked()), NOW), "offline-server");
    let thief = Party { number: server.number.clone(), ..other };
    assert_eq!(refuses(&mut device, &text(&thief, &asked()), NOW), "offline-signature");
    // Too late, for the request and for the certificate.
    assert_eq!(refuses(&mut device, &good, EXPIRES), "offline-expired");
    let late = UnixTime::from_secs(NOW.as_secs() + LEAF_VALIDITY.as_secs() + 1);
    assert_eq!(refuses(&mut device, &good, late), "certificate-expired");
    // A signature that the server made of the same bytes for something else.
    let bare = server.key.sign(&mut seeded(8), &asked()).unwrap();
    let mut bytes = vec![1, u8::try_from(server.number.as_bytes().len()).unwrap()];
    bytes.extend_from_slice(server.number.as_bytes());
    bytes.push(u8::try_from(bare.len()).unwrap());
    let bytes = [bytes, bare, asked()].concat();
    let forged = format!("CS1:{}", data_encoding::BASE32_NOPAD.encode(&bytes));
    assert_eq!(refuses(&mut device, &forged, NOW), "offline-signature");
    assert_eq!(device.tries_left().unwrap(), PIN_TRIES);
    device.answer_offline(&good, NOW, &mut Types::pin(PIN)).unwrap();
}

#[test]
fn a_device_answers_only_the_server_that_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (mut signs, _, server) = pinned(&dir, "KEY-1", SignWith::Pki);
    assert_eq!(refuses(&mut signs, &text(&server, &asked()), NOW), "offline-method");
    let (mut unpinned, _) = device(&dir, "OCRA-1", SignWith::Ocra, &rust_crypto::provider());
    assert_eq!(refuses(&mut unpinned, &text(&server, &asked()), NOW), "server-unpinned");

    // Nor is a chain pinned that is not the server's, or not of a server.
    let mut pki = TestPki::new(rust_crypto::provider(), 2);
    let (other, reader) =
        (pki.party(Role::Server, "server-2"), pki.party(Role::Reader, "server-1"));
    let foreign = TestPki::new(rust_crypto::provider(), 3).party(Role::Server, "server-1");
    for (party, check) in
        [(other, "device-foreign"), (reader, "certificate-role"), (foreign, "certificate-issuer")]
    {
        let error = unpinned.pin_server(&chain(&pki, &party), "server-1", NOW).unwrap_err();
        assert_eq!(error.check(), check);
        assert_eq!(refuses(&mut unpinned, &text(&party, &asked()), NOW), "server-unpinned");
    }
    // What was pinned is verified from its root each time.
    let server = pki.party(Role::Server, "server-1");
    unpinned.pin_server(&chain(&pki, &server), "server-1", NOW).unwrap();
    let other = TestPki::new(rust_crypto::provider(), 4);
    fs::write(unpinned.path().join("root.pem"), pem(other.root())).unwrap();
    let check = refuses(&mut unpinned, &text(&server, &asked()), NOW);
    assert_eq!(check, "certificate-signature");
}

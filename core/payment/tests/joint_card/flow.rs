//! B1 to B7 as they are meant.

use countersign_iso7816::Status;
use countersign_payment::card::Tries;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::{JointInfo, Phase, View};

use crate::rig::{P256, PIN, Rig, SERIAL, SIGN, SM2, lines, select, transaction};

#[test]
fn a_card_signs_asks_and_shows_in_every_form_and_suite() {
    for suite in [P256, SM2] {
        for form in Form::ALL {
            let mut rig = Rig::new(suite);
            let mut client = rig.client();
            client.select().unwrap();
            assert_eq!(client.state(), Ok(Phase::Idle));
            client.put_transaction(&transaction(1299)).unwrap();
            assert_eq!(client.state(), Ok(Phase::Loaded));
            let signed = client.sign(form).unwrap();
            assert_eq!(client.state(), Ok(Phase::Signed));
            assert_eq!(signed.commitment.form(), form);
            let wanted = lines(&transaction(1299));
            assert!(matches!(rig.card().view(), View::TakeOut { lines } if lines == wanted));
            rig.take_out();
            let View::Consent { lines, tries_left } = rig.card().view() else { panic!("asks") };
            assert_eq!((lines, tries_left), (&wanted[..], Some(3)));
            rig.confirm(PIN).unwrap();
            let View::Password { lines, password } = rig.card().view() else { panic!("shows") };
            assert_eq!(lines, wanted);
            let digits = password.digits().to_owned();
            assert!(rig.is_taken(1299, &signed, &digits), "{suite} {form:?}");
            assert!(!rig.is_taken(1300, &signed, &digits), "another transaction");
            let another = if digits == "123456788" { "000000001" } else { "123456788" };
            assert!(!rig.is_taken(1299, &signed, another), "another joint password");
            // B7, without contact.
            rig.tap();
            let provider = rig.provider.clone();
            let mut client = rig.client();
            client.select().unwrap();
            assert_eq!(client.state(), Ok(Phase::Released));
            assert_eq!(client.release(&*provider.hash, &signed).unwrap().digits(), digits);
            assert_eq!(rig.phase(), Phase::Idle);
        }
    }
}

#[test]
fn the_joint_password_is_in_nothing_that_leaves_before_consent() {
    for form in Form::ALL {
        let mut rig = Rig::p256();
        rig.select();
        rig.put(&transaction(1));
        rig.choose(form);
        let answer = rig.raw(SIGN);
        let digits = rig.chip().passwords[0].clone();
        let values: Vec<u8> = digits.bytes().map(|digit| digit - b'0').collect();
        let holds = |needle: &[u8]| answer.data.windows(needle.len()).any(|part| part == needle);
        assert!(!holds(digits.as_bytes()) && !holds(&values) && !holds(&digits.as_bytes()[..8]));
        let shown = format!("{:?}", rig.card().view());
        rig.take_out();
        assert!(!shown.contains(&digits));
        assert!(!format!("{:?}", rig.card().view()).contains(&digits));
        rig.confirm(PIN).unwrap();
        assert!(!format!("{:?}", rig.card().view()).contains(&digits), "nor in a log after it");
        assert_eq!(rig.shown(), Some(digits));
    }
}

#[test]
fn every_signature_has_a_joint_password_of_its_own() {
    let mut rig = Rig::p256();
    let mut signatures = Vec::new();
    // The same transaction, again and again.
    for _ in 0..24 {
        signatures.push(rig.sign(Form::Digest, 5));
    }
    let mut passwords = rig.chip().passwords.clone();
    assert_eq!(passwords.len(), 24);
    passwords.sort();
    passwords.dedup();
    assert_eq!(passwords.len(), 24);
    for (at, signed) in signatures.iter().enumerate() {
        assert!(!signatures[..at].contains(signed));
    }
    // Only the last one is asked about.
    rig.take_out();
    rig.confirm(PIN).unwrap();
    let shown = rig.shown().unwrap();
    assert!(rig.is_taken(5, &signatures[23], &shown));
    assert!(signatures[..23].iter().all(|old| !rig.is_taken(5, old, &shown)));
}

#[test]
fn a_card_says_who_it_is_in_a_terminal_only() {
    let mut rig = Rig::p256();
    let mut client = rig.client();
    client.select().unwrap();
    let wanted = JointInfo {
        serial: SERIAL.into(),
        forms: vec![Form::SealedRandom, Form::Sealed, Form::Digest],
        suite: P256,
        server_id: "server-1".into(),
        account: "6222021234567890123".into(),
    };
    assert_eq!(client.info(), Ok(wanted.clone()));
    assert_eq!(client.tries(), Ok(Tries { pin: 3, puk: 10 }));
    assert_eq!(client.certificate(), Ok(Some(vec![0x30; 700])));
    rig.tap();
    rig.select();
    for object in [1, 2, 3, 5] {
        assert_eq!(rig.status(&[0, 0xca, 0xdf, object, 0]), Status::CONDITIONS);
    }
    assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::CONDITIONS);
    // Before it is enrolled.
    let mut rig = Rig::p256();
    rig.chip().info.server_id.clear();
    rig.chip().info.account.clear();
    let mut client = rig.client();
    client.select().unwrap();
    let info = client.info().unwrap();
    assert_eq!(info, JointInfo { server_id: String::new(), account: String::new(), ..wanted });
    assert_eq!(client.certificate(), Ok(None));
}

#[test]
fn a_control_template_names_the_application() {
    let mut rig = Rig::p256();
    let mut with_fci = select();
    with_fci[3] = 0;
    with_fci.push(0);
    let answer = rig.raw(&with_fci);
    assert_eq!(answer.data[..2], [0x6f, 38]);
    assert_eq!(answer.data[2..20], [&[0x84, 16][..], b"\xf0CountersignCard"].concat());
    assert!(answer.data.ends_with(b"\x50\x10Countersign card"));
    // The security device's application is another card's.
    let other = [&[0, 0xa4, 4, 0, 12][..], b"\xf0Countersign"].concat();
    assert_eq!(rig.status(&other), Status::NOT_FOUND);
}

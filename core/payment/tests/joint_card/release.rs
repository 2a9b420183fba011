//! B7: without contact, after consent, to whoever has the signature, once.

use countersign_iso7816::Status;
use countersign_payment::card::CardError;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::{Phase, SHOW_TIME, Signed};

use crate::rig::{PIN, Rig, WRONG_PIN, release, release_expecting, transaction};

const FORM: Form = Form::Digest;

fn at_contactless((mut rig, signed): (Rig, Signed)) -> (Rig, Signed) {
    rig.tap();
    rig.select();
    (rig, signed)
}

#[test]
fn it_is_given_once() {
    let (mut rig, signed) = at_contactless(Rig::released(FORM, 1));
    let shown = rig.shown().unwrap();
    let given = rig.release(&signed);
    assert_eq!((given.status, &given.data[..]), (Status::OK, shown.as_bytes()));
    assert!(rig.is_taken(1, &signed, &shown));
    assert_eq!(rig.shown(), None, "nor shown any more");
    assert_eq!(rig.release(&signed).status, Status::CONDITIONS);
    rig.assert_works(2);
}

#[test]
fn it_is_not_given_before_consent() {
    let (mut rig, signed) = at_contactless(Rig::asking(FORM, 1));
    for _ in 0..20 {
        assert_eq!(rig.release(&signed), Status::SECURITY.into());
    }
    assert!(rig.confirm(WRONG_PIN).is_err());
    assert_eq!(rig.release(&signed), Status::SECURITY.into());
    // In the field of the reader.
    rig.confirm(PIN).unwrap();
    assert_eq!(rig.release(&signed).data.len(), 9);
}

#[test]
fn the_hash_of_another_signature_gets_nothing_and_costs_nothing() {
    let (mut rig, signed) = at_contactless(Rig::released(FORM, 1));
    let right = rig.hash_of(&signed);
    let mut wrong = right;
    wrong[31] ^= 1;
    for _ in 0..300 {
        assert_eq!(rig.status(&release(&wrong)), Status::WRONG_DATA);
        assert!(rig.shown().is_some(), "nothing is lost");
    }
    for other in [&right[..31], &[&right[..], &[0]].concat(), &[]] {
        assert_eq!(rig.status(&release(other)), Status::WRONG_LENGTH, "{}", other.len());
    }
    assert_eq!(rig.raw(&release(&right)).data.len(), 9);
    rig.assert_works(2);
}

/// Else the rest would wait for GET RESPONSE, whatever became of the state meanwhile.
#[test]
fn it_is_given_whole_or_not_at_all() {
    const REST: &[u8] = &[0, 0xc0, 0, 0, 0];
    type Ending = (&'static str, fn(&mut Rig));
    let endings: [Ending; 4] = [
        ("nothing", |_| {}),
        ("declined", |rig| rig.card().decline()),
        ("too late", |rig| rig.wait(SHOW_TIME.as_secs())),
        ("battery", |rig| rig.card().power_lost()),
    ];
    let few: [&[u8]; 7] = [&[], &[1], &[2], &[4], &[7], &[8], &[0, 8]];
    for (ending, end) in endings {
        for le in few {
            let (mut rig, signed) = at_contactless(Rig::released(FORM, 1));
            let shown = rig.shown();
            let mut apdu = release_expecting(&rig.hash_of(&signed), le);
            if le.len() == 2 {
                // Extended.
                apdu.splice(4..5, [0, 0, 32]);
            }
            assert_eq!(rig.status(&apdu), Status::WRONG_LENGTH, "{le:?}");
            assert_eq!(rig.shown(), shown, "{le:?}: nothing is lost");
            end(&mut rig);
            assert_eq!(rig.status(REST), Status::CONDITIONS, "{le:?}, {ending}: nothing waits");
        }
    }
    // The hash in a chain, whose commands but the last ask for nothing, and which says no Ne here.
    let (mut rig, signed) = at_contactless(Rig::released(FORM, 1));
    let hash = rig.hash_of(&signed);
    let first = [&[0x10, 0xcb, 0xdf, 0x20, 16][..], &hash[..16]].concat();
    let last = [&[0, 0xcb, 0xdf, 0x20, 16][..], &hash[16..], &[0]].concat();
    assert_eq!(rig.status(&first), Status::OK);
    assert_eq!(rig.status(&last), Status::WRONG_LENGTH);
    assert_eq!(rig.status(REST), Status::CONDITIONS);
    // Exactly as much as there is.
    let given = rig.raw(&release_expecting(&hash, &[9]));
    assert_eq!((given.status, given.data.len()), (Status::OK, 9));
    assert_eq!(rig.status(REST), Status::CONDITIONS);
}

#[test]
fn a_signature_of_before_gets_nothing() {
    let mut rig = Rig::p256();
    let first = rig.sign(FORM, 1);
    let second = rig.sign(FORM, 1);
    rig.take_out();
    rig.confirm(PIN).unwrap();
    rig.tap();
    let provider = rig.provider.clone();
    let mut client = rig.client();
    client.select().unwrap();
    let error = client.release(&*provider.hash, &first).unwrap_err();
    assert_eq!((&error, error.check()), (&CardError::OtherSignature, "card-other-signature"));
    assert!(client.release(&*provider.hash, &second).is_ok());
}

/// Else a terminal would take what another one's payment came to for its own's.
#[test]
fn who_has_another_signature_is_told_nothing_of_this_one() {
    type End<'a> = (Status, &'a dyn Fn(&mut Rig));
    let block = |rig: &mut Rig| {
        for _ in 0..3 {
            assert!(rig.confirm(WRONG_PIN).is_err());
        }
    };
    let ends: [End<'_>; 4] = [
        (Status::SECURITY, &|_| {}),
        (Status::NOT_ALLOWED, &|rig| rig.card().decline()),
        (Status::NOT_ALLOWED, &|rig| rig.wait(120)),
        (Status::BLOCKED, &block),
    ];
    for (own, end) in ends {
        let (mut rig, signed) = Rig::asking(FORM, 1);
        end(&mut rig);
        let (mut rig, signed) = at_contactless((rig, signed));
        let mut other = rig.hash_of(&signed);
        other[0] ^= 1;
        assert_eq!(rig.status(&release(&other)), Status::WRONG_DATA);
        assert_eq!(rig.release(&signed).status, own);
    }
    // A no before anything was signed is nobody's.
    let mut rig = Rig::p256();
    let before = rig.sign(FORM, 1);
    assert_eq!(rig.put(&transaction(2)), Status::OK);
    rig.card().decline();
    let (mut rig, before) = at_contactless((rig, before));
    assert_eq!(rig.release(&before).status, Status::CONDITIONS);
}

#[test]
fn the_contact_interface_never_gives_it() {
    let (mut rig, signed) = Rig::released(FORM, 1);
    rig.insert();
    rig.select();
    for _ in 0..20 {
        assert_eq!(rig.release(&signed), Status::CONDITIONS.into());
    }
    rig.tap();
    rig.select();
    assert_eq!(rig.release(&signed).data.len(), 9, "nothing was lost");
    // Nor is it given in somebody's hand.
    let (mut rig, signed) = Rig::released(FORM, 1);
    rig.select();
    assert_eq!(rig.release(&signed), Status::CONDITIONS.into());
}

#[test]
fn the_client_says_why_there_is_none() {
    let provider = Rig::p256().provider;
    let after = |what: &dyn Fn(&mut Rig), released: bool| {
        let (mut rig, signed) =
            if released { Rig::released(FORM, 1) } else { Rig::asking(FORM, 1) };
        what(&mut rig);
        rig.tap();
        let mut client = rig.client();
        client.select().unwrap();
        let error = client.release(&*provider.hash, &signed).unwrap_err();
        (error.check(), error)
    };
    let wait = |rig: &mut Rig| rig.wait(120);
    let block = |rig: &mut Rig| {
        for _ in 0..3 {
            assert!(rig.confirm(WRONG_PIN).is_err());
        }
    };
    let lose = |rig: &mut Rig| rig.card().power_lost();
    assert_eq!(after(&|_| {}, false), ("card-consent", CardError::ConsentPending));
    assert_eq!(after(&|rig| rig.card().decline(), false), ("declined", CardError::Declined));
    assert_eq!(after(&|rig| rig.card().decline(), true), ("declined", CardError::Declined));
    assert_eq!(after(&wait, false), ("declined", CardError::Declined));
    assert_eq!(after(&wait, true), ("declined", CardError::Declined));
    assert_eq!(after(&block, false), ("pin-blocked", CardError::PinBlocked));
    assert_eq!(after(&lose, true), ("card-nothing-released", CardError::NothingReleased));
    // A card that was never asked anything.
    let (_, signed) = Rig::asking(FORM, 1);
    let mut rig = Rig::p256();
    rig.tap();
    let mut client = rig.client();
    client.select().unwrap();
    let none = client.release(&*provider.hash, &signed);
    assert_eq!(none.unwrap_err(), CardError::NothingReleased);
    assert_eq!(rig.phase(), Phase::Idle);
}

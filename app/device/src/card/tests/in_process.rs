//! The whole card in this process: terminal, holder, and what happens to cards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::card::CardError;
use countersign_payment::joint::card::{
    CONSENT_TIME, ConfirmError, Interface, JointClient, SHOW_TIME, Signed, View,
};

use super::*;

/// A card, its bank, and the time as its battery keeps it.
struct World {
    bank: Bank,
    card: InProcessJointCard,
    seconds: Arc<AtomicU64>,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bank, card, _puk) = enrolled(&dir);
        let chip = CardChipDir::new(card, NOW).unwrap();
        let seconds = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&seconds);
        let clock = move || NOW.plus(Duration::from_secs(told.load(Ordering::SeqCst)));
        let card = InProcessJointCard::new(chip, clock, Box::new(seeded(3)));
        Self { bank, card, seconds, _dir: dir }
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    /// Has a payment signed in a terminal, where the card stays.
    fn sign(&self) -> Signed {
        self.card.insert(Interface::Contact);
        let mut client = JointClient::new(self.card.clone());
        client.select().unwrap();
        client.put_transaction(&transaction("pay_1")).unwrap();
        client.sign(Form::SealedRandom).unwrap()
    }

    fn release(&self, signed: &Signed) -> Result<JointPassword, CardError> {
        self.card.insert(Interface::Contactless);
        let mut client = JointClient::new(self.card.clone());
        client.select().unwrap();
        client.release(&*self.bank.provider.hash, signed)
    }

    fn shows(&self) -> String {
        self.card.view(|view| match view {
            View::Idle => "idle".to_owned(),
            View::Loaded => "loaded".to_owned(),
            View::TakeOut { .. } => "take out".to_owned(),
            View::Consent { lines, tries_left } => {
                format!("{}, {tries_left:?} tries", lines[0].text)
            }
            View::Password { password, .. } => password.digits().to_owned(),
            View::Declined => "declined".to_owned(),
            View::TimedOut => "timed out".to_owned(),
            View::Blocked => "blocked".to_owned(),
        })
    }

    fn executes(&self, signed: &Signed, password: &JointPassword) -> bool {
        let Signed { commitment, signature } = signed;
        let bytes = transaction("pay_1");
        self.bank.judge(SERIAL, &bytes, (commitment, signature), password).is_ok()
    }
}

#[test]
fn a_payer_takes_the_card_out_consents_and_reads_the_joint_password() {
    let world = World::new();
    assert_eq!(world.shows(), "idle");
    let signed = world.sign();
    assert_eq!(world.shows(), "take out");
    let early = world.card.confirm(&secret(PIN));
    assert_eq!(early, Err(ConfirmError::NothingAsked));
    world.card.remove();
    assert_eq!(world.shows(), "12.34 CNY, Some(3) tries");
    assert!(matches!(world.card.confirm(&secret(b"0000")), Err(ConfirmError::Chip(_))));
    assert_eq!(world.shows(), "12.34 CNY, Some(2) tries");
    world.card.confirm(&secret(PIN)).unwrap();
    let password = JointPassword::parse(&world.shows()).unwrap();
    assert!(world.executes(&signed, &password));
    world.pass(SHOW_TIME);
    assert_eq!(world.shows(), "timed out");
}

#[test]
fn it_gives_the_joint_password_without_contact_once_and_after_consent() {
    let world = World::new();
    let signed = world.sign();
    world.card.remove();
    assert_eq!(world.release(&signed).unwrap_err().check(), "card-consent");
    world.card.remove();
    world.card.confirm(&secret(PIN)).unwrap();
    let password = world.release(&signed).unwrap();
    assert!(world.executes(&signed, &password));
    assert_eq!(world.shows(), "idle");
    assert!(world.release(&signed).is_err());
}

#[test]
fn a_no_a_dead_battery_and_time_destroy_it() {
    let world = World::new();
    for shown in ["declined", "idle", "timed out"] {
        for consented in [false, true] {
            let signed = world.sign();
            world.card.remove();
            if consented {
                world.card.confirm(&secret(PIN)).unwrap();
            }
            match shown {
                "declined" => world.card.decline(),
                "idle" => world.card.power_lost(),
                _ => world.pass(CONSENT_TIME),
            }
            assert_eq!(world.shows(), shown);
            assert_eq!(world.card.confirm(&secret(PIN)), Err(ConfirmError::NothingAsked));
            assert!(world.release(&signed).is_err(), "{shown}");
            world.card.remove();
        }
    }
    // The card is as good as before.
    let signed = world.sign();
    world.card.remove();
    world.card.confirm(&secret(PIN)).unwrap();
    assert!(world.executes(&signed, &JointPassword::parse(&world.shows()).unwrap()));
}

#[test]
fn a_card_that_is_away_or_was_reset_says_so() {
    let world = World::new();
    let mut link = world.card.clone();
    assert_eq!(link.transmit(&[0, 0xa4, 4, 0]), Err(LinkError::Removed));
    world.card.insert(Interface::Contact);
    let mut client = JointClient::new(world.card.clone());
    client.select().unwrap();
    client.put_transaction(&transaction("pay_1")).unwrap();
    assert_eq!(world.shows(), "loaded");
    world.card.reset();
    assert_eq!(world.shows(), "idle");
    let signed = client.sign(Form::Sealed);
    assert_eq!(signed.err(), Some(CardError::Link(LinkError::Reset)));
    client.select().unwrap();
    assert!(client.sign(Form::Sealed).is_err(), "nothing is loaded any more");
    world.card.remove();
    assert_eq!(client.select(), Err(CardError::Link(LinkError::Removed)));
    // What is signed survives the reader.
    let signed = world.sign();
    world.card.reset();
    assert_eq!(world.shows(), "take out");
    world.card.remove();
    world.card.confirm(&secret(PIN)).unwrap();
    assert!(world.executes(&signed, &JointPassword::parse(&world.shows()).unwrap()));
}

#[test]
fn the_third_wrong_pin_blocks_it_and_the_puk_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, puk) = enrolled(&dir);
    let chip = CardChipDir::new(card, NOW).unwrap();
    let card = InProcessJointCard::new(chip, || NOW, Box::new(seeded(3)));
    let world = World { bank, card, seconds: Arc::default(), _dir: dir };
    let signed = world.sign();
    world.card.remove();
    for _ in 0..3 {
        assert!(matches!(world.card.confirm(&secret(b"0000")), Err(ConfirmError::Chip(_))));
    }
    assert_eq!(world.shows(), "blocked");
    assert!(world.release(&signed).is_err());
    // Blocked, it signs nothing.
    world.card.insert(Interface::Contact);
    let mut client = JointClient::new(world.card.clone());
    client.select().unwrap();
    let refused = client
        .put_transaction(&transaction("pay_1"))
        .and_then(|()| client.sign(Form::Digest).map(|_| ()));
    assert_eq!(refused, Err(CardError::PinBlocked));
    let unblocked = world.card.chip(|chip| {
        chip.directory_mut().unblock(&puk, &secret(NEW), &mut seeded(4)).map_err(|e| e.to_string())
    });
    assert_eq!(unblocked, Ok(()));
    let signed = world.sign();
    world.card.remove();
    world.card.confirm(&secret(NEW)).unwrap();
    assert!(world.executes(&signed, &JointPassword::parse(&world.shows()).unwrap()));
}

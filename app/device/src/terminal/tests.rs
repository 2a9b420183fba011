use countersign_crypto::{CryptoRng, Hash, Provider, Secret, rust_crypto, sm};
use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::card::{ChipError, Tries};
use countersign_payment::joint::Commitment;
use countersign_payment::joint::card::{Interface, JointChip, JointInfo, View};
use tempfile::TempDir;
use testkit::pki::NOW;
use testkit::rng::seeded;

use super::*;
use crate::bank::{Alter, Bank, PAYER, transaction};
use crate::key::sealed::cheap;
use crate::{CardChipDir, CardDir, CardEnrolment, InProcessJointCard};

const PIN: &[u8] = b"2580";

/// What a chip says instead of the truth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    Serial,
    NoCertificate,
    OtherCertificate,
    Signature,
    Forms,
}

/// A card's chip, honest or not.
struct Chip {
    inner: CardChipDir,
    lie: Lie,
}

impl JointChip for Chip {
    fn info(&self) -> JointInfo {
        let mut info = self.inner.info();
        match self.lie {
            Lie::Serial => info.serial = "CARD-9".to_owned(),
            Lie::Forms => info.forms = vec![Form::Digest],
            _ => {}
        }
        info
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        match self.lie {
            Lie::NoCertificate => None,
            Lie::OtherCertificate => Some(b"no certificate".to_vec()),
            _ => self.inner.certificate(),
        }
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        self.inner.tries()
    }

    fn hash(&self) -> &dyn Hash {
        self.inner.hash()
    }

    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError> {
        let honest = self.inner.commit_and_sign(rng, form, transaction, password)?;
        if self.lie != Lie::Signature {
            return Ok(honest);
        }
        let other = crate::bank::transaction("pay_other");
        let (_, signature) = self.inner.commit_and_sign(rng, form, &other, password)?;
        Ok((honest.0, signature))
    }

    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError> {
        self.inner.check_pin(pin)
    }
}

type Card = InProcessJointCard<Chip>;

struct World {
    bank: Bank,
    api: Api,
    dir: TempDir,
}

impl World {
    fn new(provider: Provider) -> Self {
        cheap::on();
        let bank = Bank::open(provider);
        Self { api: bank.api(), bank, dir: tempfile::tempdir().unwrap() }
    }

    fn terminal(&self) -> JointTerminal<'_> {
        JointTerminal::new(&self.api)
    }

    fn card_that(&self, serial: &str, lie: Lie) -> Card {
        let enrolment = CardEnrolment {
            serial: serial.to_owned(),
            label: "a card".to_owned(),
            accounts: vec![PAYER.to_owned()],
            pin: Secret::copied_from(PIN),
        };
        let path = self.dir.path().join(serial);
        let (provider, mut rng) = (&self.bank.provider, seeded(5));
        let dir = CardDir::enroll(&path, &enrolment, &self.api, provider, NOW, &mut rng).unwrap();
        let chip = Chip { inner: CardChipDir::new(dir, NOW).unwrap(), lie };
        let card = InProcessJointCard::new(chip, || NOW, Box::new(seeded(3)));
        card.insert(Interface::Contact);
        card
    }

    fn card(&self) -> Card {
        self.card_that("CARD-1", Lie::None)
    }

    fn announced(&self, key: &str) -> Announced {
        let payment = self.terminal().create(&order(), key).unwrap();
        self.terminal().announce(&payment.id).unwrap()
    }

    /// A payment that this card has signed.
    fn signed(&self, card: &Card, key: &str) -> CardSigned {
        let announced = self.announced(key);
        TerminalCard::new(card.clone()).unwrap().sign(&announced, &Form::ALL).unwrap()
    }

    fn asked(&self, what: &str) -> usize {
        self.bank.state().asked.iter().filter(|asked| *asked == what).count()
    }
}

fn p256() -> World {
    World::new(rust_crypto::provider())
}

fn order() -> PaymentOrder {
    PaymentOrder {
        from: PAYER.to_owned(),
        to: "SHOP0001".to_owned(),
        payee: "Tea Shop".to_owned(),
        amount: "12.34".to_owned(),
        currency: "CNY".to_owned(),
        order: "Order 7: 2 teas".to_owned(),
        reference: "order-7".to_owned(),
        initiator: "Till 3".to_owned(),
        expires_in: None,
    }
}

/// Takes the card out, consents, and reads its display.
fn consented(card: &Card) -> JointPassword {
    card.remove();
    card.confirm(&Secret::copied_from(PIN)).unwrap();
    let digits = card.view(|view| match view {
        View::Password { password, .. } => password.grouped().to_string(),
        other => panic!("{other:?}"),
    });
    JointPassword::parse(&digits).unwrap()
}

fn another(password: &JointPassword, seed: u64) -> JointPassword {
    let other = JointPassword::random(&mut seeded(seed)).unwrap();
    assert!(!other.ct_eq(password));
    other
}

#[test]
fn a_card_pays_at_a_terminal_in_each_form_and_suite() {
    for provider in [rust_crypto::provider(), sm::provider()] {
        let world = World::new(provider);
        let card = world.card();
        for form in Form::ALL {
            let announced = world.announced(form.name());
            assert_eq!(announced.transaction(), transaction(announced.payment()));
            assert_eq!(announced.expires_at(), UnixTime::from_secs(1_800_000_300));
            card.insert(Interface::Contact);
            let mut seen = TerminalCard::new(card.clone()).unwrap();
            assert_eq!((seen.account(), seen.info().serial.as_str()), (PAYER, "CARD-1"));
            assert_eq!(seen.tries().map(|tries| tries.pin).unwrap(), 3);
            let signed = seen.sign(&announced, &[form]).unwrap();
            assert_eq!((signed.form(), signed.payment()), (form, announced.payment()));
            let password = consented(&card);
            let taken = world.terminal().submit(&signed, &password).unwrap();
            assert_eq!((&*taken.status, &*taken.payment_id), ("executed", signed.payment()));
        }
    }
}

#[test]
fn it_takes_the_joint_password_without_contact_from_the_card_that_signed() {
    let world = p256();
    let (card, other) = (world.card(), world.card_that("CARD-2", Lie::None));
    let (signed, others) = (world.signed(&card, "a"), world.signed(&other, "b"));
    let tap = |card: &Card, signed: &CardSigned| {
        card.insert(Interface::Contactless);
        let fetched = signed.fetch_password(card.clone());
        card.remove();
        fetched
    };
    card.remove();
    assert_eq!(tap(&card, &signed).unwrap_err().check(), "card-consent");
    for card in [&card, &other] {
        consented(card);
    }
    assert!(tap(&card, &others).is_err(), "of another signature");
    let password = tap(&card, &signed).unwrap();
    assert!(tap(&card, &signed).is_err(), "given once");
    let taken = world.terminal().submit(&signed, &password).unwrap();
    assert_eq!(taken.status, "executed");
    let theirs = tap(&other, &others).unwrap();
    let error = world.terminal().submit(&others, &another(&theirs, 1)).unwrap_err();
    assert_eq!(error.check(), "authorisation-refused");
    world.terminal().submit(&others, &theirs).unwrap();
}

#[test]
fn a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() {
    let world = p256();
    world.bank.state().lose = 1;
    let error = world.terminal().create(&order(), "key").unwrap_err();
    assert!(error.is_lost(), "{error}");
    let payment = world.terminal().create(&order(), "key").unwrap();
    assert_eq!((&*payment.id, &*payment.status), ("pay_1", "pending"));
    assert_eq!(payment.whole["id"], "pay_1");

    let card = world.card();
    let signed = world.signed(&card, "key");
    let password = consented(&card);
    world.bank.state().lose = 2;
    assert_eq!(world.terminal().submit(&signed, &password).unwrap().status, "executed");
    assert_eq!(world.asked("POST /v1/payments/pay_1/joint"), 3);
    // Not for ever; and whoever asks once more is told the same.
    world.bank.state().lose = ATTEMPTS;
    let error = world.terminal().submit(&signed, &password).unwrap_err();
    assert_eq!((error.check(), error.is_lost()), ("server", true));
    assert!(!error.may_type_again());
    assert_eq!(world.terminal().payment("pay_1").unwrap().status, "executed");
    assert_eq!(world.terminal().payment("pay_2").unwrap_err().check(), "not-found");
    assert_eq!(world.terminal().submit(&signed, &password).unwrap().status, "executed");
}

#[test]
fn a_payer_may_mistype_twice() {
    let world = p256();
    let card = world.card();
    let signed = world.signed(&card, "a");
    let password = consented(&card);
    for seed in 1..=2 {
        let error = world.terminal().submit(&signed, &another(&password, seed)).unwrap_err();
        assert_eq!((error.check(), error.may_type_again()), ("authorisation-refused", true));
        assert!(!error.is_lost());
    }
    assert_eq!(world.terminal().submit(&signed, &password).unwrap().status, "executed");

    card.insert(Interface::Contact);
    let signed = world.signed(&card, "b");
    let password = consented(&card);
    for seed in 1..=3 {
        world.terminal().submit(&signed, &another(&password, seed)).unwrap_err();
    }
    let error = world.terminal().submit(&signed, &password).unwrap_err();
    assert_eq!((error.check(), error.may_type_again()), ("payment-failed", false));
    // What has not the form of one is found before it is sent.
    let error = JointError::from(JointPassword::parse("1234 5678").unwrap_err());
    assert_eq!((error.check(), error.may_type_again()), ("joint-password-form", true));
}

#[test]
fn it_takes_the_servers_favourite_of_the_forms_that_the_card_has() {
    let world = p256();
    let (card, limited) = (world.card(), world.card_that("CARD-2", Lie::Forms));
    let chosen = |card: &Card, announced: &[&str], wanted: &[Form]| {
        card.insert(Interface::Contact);
        world.bank.state().forms = announced.iter().map(|name| (*name).to_owned()).collect();
        let announced = world.announced("key");
        let mut seen = TerminalCard::new(card.clone()).unwrap();
        seen.sign(&announced, wanted).map(|signed| signed.form()).map_err(|e| e.check().to_owned())
    };
    let all = Form::ALL;
    assert_eq!(chosen(&card, &["digest", "sealed"], &all), Ok(Form::Digest));
    assert_eq!(chosen(&card, &["sealed", "digest"], &all), Ok(Form::Sealed));
    assert_eq!(chosen(&card, &["sealed", "digest"], &[Form::Digest]), Ok(Form::Digest));
    assert_eq!(chosen(&card, &["of-tomorrow", "sealed-random"], &all), Ok(Form::SealedRandom));
    assert_eq!(chosen(&limited, &["sealed", "digest"], &all), Ok(Form::Digest));
    for (card, announced, wanted) in [
        (&card, &["of-tomorrow"][..], &all[..]),
        (&card, &[], &all),
        (&card, &["sealed"], &[Form::Digest]),
        (&card, &["sealed"], &[]),
        (&limited, &["sealed", "sealed-random"], &all),
    ] {
        assert_eq!(chosen(card, announced, wanted), Err("joint-form".to_owned()));
    }
}

#[test]
fn bytes_that_are_not_this_payments_are_not_put_to_a_card() {
    let world = p256();
    let payment = world.terminal().create(&order(), "key").unwrap();
    let cases: [(Alter, &str); 5] = [
        (|told| told["transaction"] = json!("!"), "request-form"),
        (|told| told["transaction"] = json!("e30"), "request-form"),
        (
            |told| told["transaction"] = json!(BASE64URL_NOPAD.encode(&transaction("pay_2"))),
            "payment-other",
        ),
        (|told| told["expiresAt"] = json!("tomorrow"), "time-form"),
        (|told| told["forms"] = json!("digest"), "server"),
    ];
    for (alter, check) in cases {
        world.bank.state().alter = Some(("/joint", alter));
        let error = world.terminal().announce(&payment.id).unwrap_err();
        assert_eq!(error.check(), check, "{error}");
    }
    world.bank.state().alter = None;
    assert_eq!(world.terminal().announce("pay_9").unwrap_err().check(), "not-found");
    assert_eq!(world.terminal().announce("../x").unwrap_err().check(), "not-found");
    world.terminal().announce(&payment.id).unwrap();
}

#[test]
fn a_card_that_is_not_what_it_says_does_not_pay() {
    let world = p256();
    let announced = world.announced("key");
    for (at, (lie, check)) in [
        (Lie::Serial, "card-other"),
        (Lie::NoCertificate, "device-not-enrolled"),
        (Lie::OtherCertificate, "certificate-malformed"),
        (Lie::Signature, "card-signature"),
    ]
    .into_iter()
    .enumerate()
    {
        let card = world.card_that(&format!("LIAR-{at}"), lie);
        let signed = TerminalCard::new(card).and_then(|mut seen| seen.sign(&announced, &Form::ALL));
        assert_eq!(signed.unwrap_err().check(), check);
    }
}

#[test]
fn a_card_that_says_no_has_its_payment_taken_back() {
    let world = p256();
    let card = world.card();
    let signed = world.signed(&card, "key");
    card.remove();
    card.decline();
    card.insert(Interface::Contactless);
    let error = signed.fetch_password(card).unwrap_err();
    assert!(matches!(&error, JointError::Card(_)), "{error}");
    assert_ne!(error.check(), "card-consent", "it need not be asked again");
    let cancelled = world.terminal().cancel(signed.payment()).unwrap();
    assert_eq!(cancelled["status"], "cancelled");
    let error = world.terminal().announce(signed.payment()).unwrap_err();
    assert_eq!(error.check(), "payment-cancelled");
    let (signed, announced) = (format!("{signed:?}"), format!("{:?}", world.announced("b")));
    assert!(signed.contains("pay_1") && !signed.contains("commitment"), "{signed}");
    assert!(announced.contains("pay_2") && !announced.contains("transaction"), "{announced}");
}

/// A card of somebody else's, or none.
struct Stranger(Result<Vec<u8>, LinkError>);

impl CardLink for Stranger {
    fn transmit(&mut self, _command: &[u8]) -> Result<Vec<u8>, LinkError> {
        self.0.clone()
    }
}

#[test]
fn a_stranger_or_an_empty_reader_is_said_to_be_one() {
    for (answer, check) in [
        (Ok(vec![0x6a, 0x82]), "card-not-ours"),
        (Ok(vec![0x90, 0x00]), "card-not-ours"),
        (Ok(Vec::new()), "card-malformed"),
        (Err(LinkError::Removed), "card-removed"),
        (Err(LinkError::Timeout), "card-timeout"),
    ] {
        let error = TerminalCard::new(Stranger(answer)).err().unwrap();
        assert_eq!(error.check(), check);
    }
}

#[test]
fn a_card_taken_out_amid_the_signature_has_signed_nothing() {
    let world = p256();
    let card = world.card();
    let announced = world.announced("key");
    // However far it came: after so many APDUs it is gone.
    for count in 0.. {
        card.insert(Interface::Contact);
        let link = Torn { card: card.clone(), left: count };
        let signed = TerminalCard::new(link).and_then(|mut seen| seen.sign(&announced, &Form::ALL));
        match signed {
            Ok(_) => {
                assert!(count > 8, "{count}");
                break;
            }
            Err(error) => assert_eq!(error.check(), "card-removed", "{count}"),
        }
        card.view(|view| assert!(matches!(view, View::Idle), "{count}: {view:?}"));
        assert!(card.confirm(&Secret::copied_from(PIN)).is_err());
    }
    let signed = world.signed(&card, "key");
    world.terminal().submit(&signed, &consented(&card)).unwrap();
}

/// A link whose card is taken away.
struct Torn {
    card: Card,
    left: u32,
}

impl CardLink for Torn {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.card.remove(),
        }
        self.card.transmit(command)
    }
}

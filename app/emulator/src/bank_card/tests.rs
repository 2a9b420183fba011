use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(8)
}

fn card() -> BankCard {
    BankCard::new(&BankCardSettings::default(), Box::new(rng()))
}

fn say(card: &mut BankCard, bytes: &[u8]) -> (Vec<u8>, u16) {
    let answer = CardLink::transmit(card, bytes).unwrap();
    let response = Response::parse(&answer).unwrap();
    (response.data.to_vec(), response.status.word())
}

fn select(card: &mut BankCard, aid: &[u8]) -> u16 {
    let command = Command::new(0, SELECT, 4, 0).with_data(aid).unwrap().expecting(256);
    say(card, &command.encode()).1
}

fn start(card: &mut BankCard) {
    assert_eq!(select(card, AID_DEBIT), 0x9000);
    assert_eq!(say(card, &[0x80, OPTIONS, 0, 0, 2, 0x83, 0, 0]).1, 0x9000);
}

fn generate(card: &mut BankCard, kind: u8, data: &[u8]) -> (Vec<u8>, u16) {
    let command = Command::new(0x80, GENERATE_AC, kind, 0).with_data(data).unwrap();
    say(card, &command.expecting(256).encode())
}

#[test]
fn a_payment_is_approved_with_either_application_and_its_cryptograms_verify() {
    let mut card = card();
    for (at, aid) in
        [None, Some(AID_DEBIT.to_vec()), Some(AID_CREDIT.to_vec())].into_iter().enumerate()
    {
        let payment = Payment {
            aid: aid.clone(),
            pin: Some(TEST_PIN.to_owned()),
            distance_check: true,
            ..Payment::of(12_34, 156)
        };
        let receipt = pay(&mut card, &payment, &mut rng()).unwrap();
        assert!(receipt.is_approved(), "{receipt:?}");
        assert!(receipt.distance.unwrap().passes());
        assert_eq!(receipt.aid, aid.unwrap_or(AID_DEBIT.to_vec()));
        assert_eq!(usize::from(receipt.request.atc), at + 1);
        assert_eq!(receipt.number, "************0014");
    }
    assert_eq!(card.counts().cryptograms, 6);
}

#[test]
fn a_directory_of_a_contact_card_names_both_applications() {
    let mut card = card();
    assert_eq!(select(&mut card, PSE), 0x9000);
    let (record, status) = say(&mut card, &[0, READ_RECORD, 1, 1 << 3 | 4, 0]);
    assert_eq!(status, 0x9000);
    let entries = objects::find(&record, &[0x70]).unwrap();
    let aids: Vec<_> = objects::objects(entries)
        .map(|(_, entry)| objects::find(entry, &[0x4F]).unwrap().to_vec())
        .collect();
    assert_eq!(aids, [AID_DEBIT, AID_CREDIT]);
    assert_eq!(say(&mut card, &[0, READ_RECORD, 2, 1 << 3 | 4, 0]).1, 0x6A83);
}

/// Changes what passes.
struct Altering<F>(BankCard, F);

impl<F: FnMut(&mut Vec<u8>, &mut Vec<u8>)> CardLink for Altering<F> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let mut command = command.to_vec();
        (self.1)(&mut command, &mut Vec::new());
        let mut answer = CardLink::transmit(&mut self.0, &command)?;
        (self.1)(&mut command, &mut answer);
        Ok(answer)
    }
}

#[test]
fn an_amount_or_a_cryptogram_that_was_altered_is_not_approved() {
    let raised = |command: &mut Vec<u8>, answer: &mut Vec<u8>| {
        if command[1] == GENERATE_AC && answer.is_empty() {
            command[10] ^= 0x01; // the last byte of 9F02
        }
    };
    let forged = |command: &mut Vec<u8>, answer: &mut Vec<u8>| {
        if command[1] == GENERATE_AC && answer.len() > 3 {
            let at = answer.len() - 3; // the last byte of 9F26
            answer[at] ^= 0x01;
        }
    };
    let one = pay(&mut Altering(card(), raised), &Payment::of(100, 156), &mut rng()).unwrap();
    let two = pay(&mut Altering(card(), forged), &Payment::of(100, 156), &mut rng()).unwrap();
    for receipt in [one, two] {
        assert!(!receipt.request.verifies && !receipt.is_approved());
        assert_eq!(receipt.outcome.cid, AAC);
    }
}

/// An answer of the card's that its terminal may not take, and where it notices.
#[test]
fn a_terminal_takes_no_answer_that_emv_does_not_know() {
    const DISTANCE_STEP: &str = "EXCHANGE RELAY RESISTANCE DATA";
    let cases: [(u8, &[u8], &str); 6] = [
        (SELECT, &[0x6F, 0x00], "SELECT"),
        (OPTIONS, &[0x80, 0x01, 0x18], "GET PROCESSING OPTIONS"),
        (READ_RECORD, &[0x61, 0x00], "READ RECORD"),
        (READ_RECORD, &[0x70, 0x00], "READ RECORD"),
        (DISTANCE, &[0x80, 0x02, 0x00, 0x64], DISTANCE_STEP),
        (GENERATE_AC, &[0x77, 0x03, 0x9F, 0x27, 0x00], "GENERATE AC"),
    ];
    for (ins, data, step) in cases {
        let changed = |command: &mut Vec<u8>, answer: &mut Vec<u8>| {
            if command[1] == ins && !answer.is_empty() {
                *answer = [data, &[0x90, 0x00]].concat();
            }
        };
        let payment = Payment { distance_check: true, ..Payment::of(100, 156) };
        let error = pay(&mut Altering(card(), changed), &payment, &mut rng()).unwrap_err();
        assert_eq!(error, PayError::Malformed(step), "{data:02x?}");
        assert_eq!(error.check(), "card-answer");
    }
}

#[test]
fn a_card_that_declines_is_not_approved() {
    // The issuer's approval gets lost on its way: the card hears another response code.
    let declined = |command: &mut Vec<u8>, answer: &mut Vec<u8>| {
        if command[1] == GENERATE_AC && command[2] == TC && answer.is_empty() {
            command[5..7].copy_from_slice(b"05");
        }
    };
    let receipt = pay(&mut Altering(card(), declined), &Payment::of(100, 156), &mut rng());
    let receipt = receipt.unwrap();
    assert!(receipt.request.verifies && receipt.outcome.verifies);
    assert_eq!((receipt.outcome.cid, receipt.is_approved()), (AAC, false));
}

#[test]
fn a_distance_that_takes_longer_than_the_card_allows_fails() {
    let settings =
        BankCardSettings::default().with_distance_max(10).answering_after(Duration::from_millis(3));
    let time = Arc::new(Mutex::new(Duration::ZERO));
    let passing = time.clone();
    let far = BankCard::new(&settings, Box::new(rng()));
    let mut far = far.waiting_by(move |pause| *passing.lock().unwrap() += pause);
    let handle = far.clone();
    let mut check = || {
        let payment = Payment { distance_check: true, ..Payment::of(100, 156) };
        let stopwatch = || *time.lock().unwrap();
        let receipt = pay_timed(&mut far, &payment, &mut rng(), &stopwatch).unwrap();
        (receipt.distance.unwrap(), receipt.is_approved(), receipt.exchanges)
    };
    let (allowed, measured) = (Duration::from_millis(1), Duration::from_millis(3));
    let (far_away, approved, tried) = check();
    assert_eq!(far_away, DistanceCheck { measured, allowed });
    assert!(!far_away.passes() && approved, "the card does not know how far it is");
    // At the bound it passes, and at once: the terminal tries no more often than it must.
    handle.lock().answer_after = allowed;
    let (near, _, once) = check();
    assert!(near.passes() && near.measured == allowed);
    assert_eq!(once, tried - 2);
    // No more than three in a transaction.
    let mut card = card();
    start(&mut card);
    for expected in [0x9000, 0x9000, 0x9000, 0x6985] {
        let (_, status) = say(&mut card, &[0x80, DISTANCE, 0, 0, 4, 1, 2, 3, 4, 0]);
        assert_eq!(status, expected);
    }
}

#[test]
fn three_wrong_pins_block_it_also_across_resets() {
    let mut card = card();
    let wrong = Payment { pin: Some("4321".into()), ..Payment::of(100, 156) };
    for left in [2, 1, 0] {
        let refused = pay(&mut card, &wrong, &mut rng()).unwrap_err();
        let status = Status::tries(left);
        assert_eq!(refused, PayError::Refused { step: "VERIFY", status });
        assert_eq!(refused.check(), "card-refused");
        card.restart();
    }
    let right = Payment { pin: Some(TEST_PIN.into()), ..wrong };
    let refused = pay(&mut card, &right, &mut rng()).unwrap_err();
    assert_eq!(refused, PayError::Refused { step: "VERIFY", status: Status::BLOCKED });
    assert_eq!((card.tries_left(), card.counts().cryptograms), (0, 0));
    start(&mut card);
    assert_eq!(say(&mut card, &[0x80, GET_DATA, 0x9F, 0x17, 4]).0, [0x9F, 0x17, 1, 0]);
}

#[test]
fn a_right_pin_gives_the_tries_back() {
    let mut card = card();
    let pin = |pin: &str| Payment { pin: Some(pin.into()), ..Payment::of(100, 156) };
    assert!(pay(&mut card, &pin("0000"), &mut rng()).is_err());
    assert_eq!(card.tries_left(), 2);
    assert!(pay(&mut card, &pin(TEST_PIN), &mut rng()).unwrap().is_approved());
    assert_eq!(card.tries_left(), PIN_TRIES);
}

#[test]
fn commands_out_of_order_are_refused() {
    let mut card = card();
    let first = vec![0; total(&CDOL1)];
    assert_eq!(generate(&mut card, ARQC, &first).1, 0x6985); // nothing selected
    assert_eq!(say(&mut card, &[0, VERIFY, 0, 0x80, 1, 0]).1, 0x6985);
    assert_eq!(say(&mut card, &[0, READ_RECORD, 1, 0x0C, 0]).1, 0x6985);
    assert_eq!(select(&mut card, AID_DEBIT), 0x9000);
    assert_eq!(generate(&mut card, ARQC, &first).1, 0x6985); // no processing options
    start(&mut card);
    assert_eq!(say(&mut card, &[0x80, OPTIONS, 0, 0, 2, 0x83, 0, 0]).1, 0x6985); // twice
    assert_eq!(generate(&mut card, ARQC, &first[1..]).1, 0x6700);
    assert_eq!(generate(&mut card, 0xC0, &first).1, 0x6A86);
    assert_eq!(generate(&mut card, ARQC, &first).1, 0x9000);
    assert_eq!(generate(&mut card, TC, &first).1, 0x6700); // CDOL2 has the response code
    let second = [b"00", &first[..]].concat();
    assert_eq!(generate(&mut card, TC, &second).1, 0x9000);
    assert_eq!(generate(&mut card, TC, &second).1, 0x6985); // a third one
    for (bytes, expected) in [
        (&[0x00, 0x77, 0, 0][..], 0x6D00),
        (&[0x0C, SELECT, 4, 0], 0x6E00),
        (&[0x00, SELECT, 4], 0x6700),
        (&[0x00, SELECT, 0, 0], 0x6A86),
        (&[0x80, GET_DATA, 0x9F, 0x99, 0], 0x6A88),
        (&[0x00, 0xC0, 0, 0, 0], 0x6985),
    ] {
        assert_eq!(say(&mut card, bytes).1, expected, "{bytes:02x?}");
    }
    assert_eq!(select(&mut card, b"\xA0\x00\x00\x00\x03"), 0x6A82);
}

#[test]
fn a_reset_ends_the_transaction_and_the_counter_goes_on() {
    let mut card = card();
    start(&mut card);
    card.restart();
    assert_eq!(generate(&mut card, ARQC, &vec![0; total(&CDOL1)]).1, 0x6985);
    start(&mut card);
    assert_eq!(say(&mut card, &[0x80, GET_DATA, 0x9F, 0x36, 5]).0, [0x9F, 0x36, 2, 0, 2]);
    assert_eq!(say(&mut card, &[0x80, GET_DATA, 0x9F, 0x13, 5]).0, [0x9F, 0x13, 2, 0, 0]);
}

#[test]
fn lengths_are_asked_for_again_and_long_answers_come_in_pieces() {
    let mut card = card();
    start(&mut card);
    assert_eq!(say(&mut card, &[0x80, GET_DATA, 0x9F, 0x36, 9]), (vec![], 0x6C05));
    // Without Le, as T=0 has it.
    let data = [&[0x80, GENERATE_AC, ARQC, 0, 29][..], &[0; 29]].concat();
    let (_, status) = say(&mut card, &data);
    assert_eq!(status >> 8, 0x61);
    let (answer, status) = say(&mut card, &[0x80, 0xC0, 0, 0, status.to_be_bytes()[1]]);
    assert_eq!((answer[0], status), (0x77, 0x9000));
    // Up to the longest that a virtual reader takes: 64 KiB with the status word.
    let long: Vec<u8> = (0..65_526_u32).map(|at| at.to_le_bytes()[0]).collect();
    let put = Command::new(0x80, PUT_DATA, 0xDF, 0x50).with_data(&long).unwrap();
    assert_eq!(say(&mut card, &put.encode()).1, 0x9000);
    let get = Command::new(0x80, GET_DATA, 0xDF, 0x50);
    let (back, status) = say(&mut card, &get.clone().expecting(65_526).encode());
    assert_eq!((back, status), (long.clone(), 0x9000));
    let (back, status) = say(&mut card, &get.expecting(256).encode());
    assert_eq!((back, status), (long[..256].to_vec(), 0x9000));
}

#[test]
fn a_card_that_was_pulled_is_gone_and_starts_afresh() {
    let mut card = card();
    start(&mut card);
    let handle = card.clone();
    handle.remove();
    assert_eq!(CardLink::transmit(&mut card, &[0, SELECT, 4, 0]), Err(LinkError::Removed));
    assert!(SlotCard::atr(&card).is_empty());
    assert!(SlotCard::transmit(&mut card, &[0, SELECT, 4, 0]).is_empty());
    handle.insert();
    assert_eq!(SlotCard::atr(&card)[..4], [0x3B, 0x8E, 0x80, 0x01]);
    assert_eq!(SlotCard::atr(&card)[1..].iter().fold(0, |a, b| a ^ b), 0);
    assert_eq!(generate(&mut card, ARQC, &vec![0; total(&CDOL1)]).1, 0x6985);
}

#[test]
fn numbers_and_pins_that_are_none_make_no_card() {
    for (pan, pin) in [
        ("999999000000001", "1234"),
        ("99999900000000140", "1234"),
        ("999999000000001x", "1234"),
        (TEST_PAN, "123"),
        (TEST_PAN, "1234567890123"),
        (TEST_PAN, "12a4"),
    ] {
        assert!(BankCardSettings::new(pan, pin).is_none(), "{pan} {pin}");
    }
    assert_eq!(pin_block(b"12345").expose(), [0x25, 0x12, 0x34, 0x5F, 255, 255, 255, 255]);
    let payment = Payment::of(1_000_000_000_000, 156);
    assert_eq!(pay(&mut card(), &payment, &mut rng()), Err(PayError::Digits));
}

//! A terminal that would exceed a limit by something that a card takes otherwise than the policy.

use super::*;

/// A second list of the same length as [`CDOL`], with its objects elsewhere.
const CDOL_TURNED: [u8; 9] = [0x9f, 0x37, 4, 0x5f, 0x2a, 2, 0x9f, 2, 6];
/// By [`CDOL`] 1.56, by [`CDOL_TURNED`] 156 000 000.00; CNY by both.
const TURNED: [u8; 12] = [0, 0, 0, 0, 1, 0x56, 1, 0x56, 0, 0, 0, 0];
const READ: [u8; 5] = [0, 0xb2, 1, 0x0c, 0];
const REST: [u8; 5] = [0, 0xc0, 0, 0, 0];
const REFUSED: [u8; 4] = [0x69, 0x85, 0x6f, 0];
const UNREADABLE: &str = "policy-amount-unreadable";

/// A card without an application list.
fn any(limits: CardLimits, commands: Commands) -> Card {
    let rules = Rules { limits, commands, ..Rules::any() };
    Card::of(policy(rules), &[])
}

/// One that asks for the amount before its options.
fn contactless(limits: CardLimits) -> Card {
    Card::of(policy(Rules { limits, ..rules() }), &PDOL)
}

/// A response with a cryptogram, as a payment without contact has it.
fn paid() -> Vec<u8> {
    let mut out = Vec::new();
    tlv(&mut out, 0x77, &hex("9F26 08 0102030405060708 9F36 02 0007"));
    [&out[..], &[0x90, 0]].concat()
}

fn withheld(card: &mut Card, response: &[u8]) {
    let refusal = card.policy.answered(response).unwrap_err();
    assert_eq!(refusal.check(), UNREADABLE, "{response:02x?}");
    assert_eq!(card.policy.exchange().check, Some(UNREADABLE));
}

#[test]
fn a8_an_error_after_the_card_has_begun_to_answer_gives_nothing_back() {
    let whole = cryptogram(ARQC);
    let more = [0x61, whole.len() as u8 - 2];
    for error in [[0x6c, more[1]], [0x69, 0x85], [0x6f, 0]] {
        let mut card = card(limits(None, Some(60), Some(1)));
        card.begin();
        exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &more);
        exchange(&mut card.policy, &[0, 0xc0, 0, 0, 1], &error);
        exchange(&mut card.policy, &REST, &whole);
        assert_eq!(card.used(), (1, 50), "{error:02x?}");
        assert_eq!(card.pay(1), Err("policy-uses"));
    }
    // What the card declines in parts costs nothing, as what it declines at once.
    let mut card = card(limits(None, None, Some(1)));
    card.begin();
    exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &more);
    exchange(&mut card.policy, &[0, 0xc0, 0, 0, 1], &[0x6c, more[1]]);
    exchange(&mut card.policy, &REST, &cryptogram(AAC));
    assert_eq!(card.used(), (0, 0));
    card.pay(1).unwrap();
}

#[test]
fn a8_only_an_error_without_data_gives_back() {
    let data = &cryptogram(ARQC)[..13];
    for status in [[0x62, 0x82], [0x63, 0], [0x9f, 13], [0x69, 0x85]] {
        let mut card = card(limits(None, None, Some(1)));
        card.begin();
        let response = [data, &status].concat();
        exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &response);
        assert_eq!(card.used(), (1, 50), "{status:02x?}");
    }
    // A warning, or what is no status of ISO/IEC 7816-4: the data may be fetched.
    for status in [[0x62, 0], [0x9f, 13]] {
        let mut card = card(limits(None, None, Some(1)));
        card.begin();
        exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &status);
        exchange(&mut card.policy, &REST, &cryptogram(ARQC));
        assert_eq!(card.used(), (1, 50), "{status:02x?}");
    }
}

#[test]
fn a8_a_refused_command_does_not_hide_what_the_card_still_holds() {
    let paid = paid();
    let mut card = card(limits(Some(100), None, None));
    exchange(&mut card.policy, &OPTIONS, &[0x61, paid.len() as u8 - 2]);
    // The card never sees this one, and still has its answer to the one before.
    assert_eq!(refused(&mut card.policy, &hex("00 DA 9F 36 01 00")), "policy-command");
    assert_eq!(refused(&mut card.policy, &select(b"OTHER")), "policy-aid");
    assert_eq!(card.generate(ARQC, 101, CNY), Err(UNREADABLE));
    card.policy.check(NOW, &REST).unwrap();
    withheld(&mut card, &paid);
    // Nor a second time.
    card.policy.check(NOW, &REST).unwrap();
    withheld(&mut card, &paid);
    // The same of what was counted: its decline still gives back.
    let mut card = Card::with(limits(Some(100), None, Some(1)), Usage::default());
    card.begin();
    exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &[0x61, 13]);
    assert_eq!(card.generate(ARQC, 101, CNY), Err(UNREADABLE));
    exchange(&mut card.policy, &REST, &cryptogram(AAC));
    assert_eq!(card.used(), (0, 0));
}

#[test]
fn a8_what_the_card_refused_begins_no_transaction() {
    let lists = record(&[(0x8c, &CDOL), (0x8d, &CDOL_TURNED)]);
    let turned = with_data([0x80, 0xae, TC, 0], &TURNED);
    let paying = |card: &mut Card| {
        exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
        exchange(&mut card.policy, &READ, &lists);
        card.generate(ARQC, 10, CNY).unwrap();
    };
    // The card is at the second list, whatever it was asked in between and refused.
    let mut card = card(limits(Some(200), None, None));
    paying(&mut card);
    for error in REFUSED.chunks(2) {
        exchange(&mut card.policy, &OPTIONS, error);
        assert_eq!(refused(&mut card.policy, &turned), "policy-amount");
    }
    // So with a payment that counted before its options.
    let mut card = contactless(limits(Some(200), None, None));
    let options = |amount: u64| {
        let data = [&[0x83, 8][..], &bcd::<6>(amount), &bcd::<2>(CNY.into())].concat();
        with_data([0x80, 0xa8, 0, 0], &data)
    };
    exchange(&mut card.policy, &options(10), &OPTIONS_ANSWER);
    exchange(&mut card.policy, &READ, &lists);
    card.generate(ARQC, 10, CNY).unwrap();
    exchange(&mut card.policy, &options(20), &[0x69, 0x85]);
    assert_eq!(refused(&mut card.policy, &turned), "policy-amount");
    assert_eq!(card.used(), (1, 10));
    // A SELECT that fails leaves the card where it was; where that is, nobody here knows.
    let mut card = any(limits(Some(200), None, None), Commands::Any);
    for wrong in ["00 A4 00 00 02 3F 00", "00 A4 04 00 05 A0000000FF"] {
        paying(&mut card);
        exchange(&mut card.policy, &hex(wrong), &[0x6a, 0x82]);
        exchange(&mut card.policy, &READ, &lists);
        assert_eq!(refused(&mut card.policy, &turned), UNREADABLE);
    }
    // What it took begins one.
    paying(&mut card);
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    exchange(&mut card.policy, &READ, &lists);
    assert_eq!(card.generate(ARQC, 201, CNY), Err("policy-amount"));
    card.generate(ARQC, 200, CNY).unwrap();
}

#[test]
fn a8_the_lists_are_those_of_the_records_of_this_transaction() {
    let own = record(&[(0x8c, &CDOL)]);
    let other = record(&[(0x8c, &CDOL_TURNED)]);
    let mut card = card(limits(Some(200), None, None));
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    // Records of another use of the same application, and ones that are addressed otherwise.
    for elsewhere in ["00 B2 03 0C 00", "00 B2 01 14 00", "00 B2 01 0D 00", "00 B2 00 0C 00"] {
        exchange(&mut card.policy, &hex(elsewhere), &other);
        assert_eq!(card.generate(ARQC, 1, CNY), Err(UNREADABLE), "{elsewhere}");
    }
    // Without the right status it is none.
    exchange(&mut card.policy, &READ, &[&other[..other.len() - 2], &[0x62, 0x81]].concat());
    assert_eq!(card.generate(ARQC, 1, CNY), Err(UNREADABLE));
    exchange(&mut card.policy, &READ, &own);
    card.generate(ARQC, 200, CNY).unwrap();
    // The next transaction has its own.
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    assert_eq!(card.generate(ARQC, 1, CNY), Err(UNREADABLE));
    // Records that are read before the options are none of a transaction's.
    exchange(&mut card.policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    exchange(&mut card.policy, &READ, &own);
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    assert_eq!(card.generate(ARQC, 1, CNY), Err(UNREADABLE));
    // In format 2 the locator is found as well; twice it is none.
    for (locators, reads) in [(1, true), (2, false)] {
        let objects = [hex("82 02 0000"), hex("94 04 08010200").repeat(locators)].concat();
        let mut answer = Vec::new();
        tlv(&mut answer, 0x77, &objects);
        answer.extend([0x90, 0]);
        let free = CardLimits::default();
        let mut card = if reads { card_of_200() } else { self::card(free) };
        exchange(&mut card.policy, &OPTIONS, &answer);
        exchange(&mut card.policy, &READ, &own);
        card.generate(ARQC, 1, CNY).unwrap();
        assert_eq!(card.policy.exchange().money.is_some(), reads);
    }
}

fn card_of_200() -> Card {
    card(limits(Some(200), None, None))
}

#[test]
fn a8_no_cryptogram_without_a_transaction() {
    let mut fresh = card_of_200();
    exchange(&mut fresh.policy, &READ, &record(&[(0x8c, &CDOL)]));
    assert_eq!(fresh.generate(ARQC, 1, CNY), Err(UNREADABLE));
    // Options that were taken, and of whose answer the end was never fetched.
    exchange(&mut fresh.policy, &OPTIONS, &[0x61, 8]);
    exchange(&mut fresh.policy, &READ, &record(&[(0x8c, &CDOL)]));
    assert_eq!(fresh.generate(ARQC, 1, CNY), Err(UNREADABLE));
    fresh.begin();
    fresh.generate(ARQC, 1, CNY).unwrap();
    // The same with the lists of the transaction before it.
    exchange(&mut fresh.policy, &OPTIONS, &[0x61, 8]);
    assert_eq!(fresh.generate(ARQC, 1, CNY), Err(UNREADABLE));
    fresh.policy.reset();
    exchange(&mut fresh.policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    assert_eq!(fresh.generate(ARQC, 1, CNY), Err(UNREADABLE));
}

#[test]
fn a8_a_select_whose_answer_is_not_fetched_selects_nothing() {
    let mut card = card_of_200();
    card.begin();
    let second = [&hex(UNIONPAY)[..], &[2]].concat();
    for answer in [&[0x61, 0x20][..], &[0x6a, 0x82], &[0x62, 0x83], &[0x6c, 0x20]] {
        exchange(&mut card.policy, &select(&second), answer);
        let command = generate_ac(ARQC, 1, CNY);
        assert_eq!(refused(&mut card.policy, &command), "policy-not-selected", "{answer:02x?}");
        assert_eq!(refused(&mut card.policy, &OPTIONS), "policy-not-selected");
    }
    // Selected without its data objects, it has a list that is unknown here.
    exchange(&mut card.policy, &[&[0, 0xa4, 4, 0x0c, 8], &hex(UNIONPAY)[..]].concat(), &[0x90, 0]);
    card.policy.check(NOW, &OPTIONS).unwrap();
    withheld(&mut card, &paid());
}

#[test]
fn a8_options_that_may_hold_a_payment_do_not_leave_unless_it_was_counted() {
    let paid = paid();
    let body = &paid[..paid.len() - 2];
    let ok = |bytes: &[u8]| [bytes, &[0x90, 0]].concat();
    let nested = [&[0x77, body.len() as u8 + 2, 0xa5, body.len() as u8][..], body].concat();
    let wrong = [
        ok(body),
        ok(&nested),
        // The length in more bytes than it needs.
        ok(&[&[0x77, 0x81, body.len() as u8 - 2][..], &body[2..]].concat()),
        ok(&[body, &[0]].concat()),
        ok(&[&[0x70][..], &body[1..]].concat()),
        // Cut short by a terminal that asked for less.
        ok(&body[..body.len() - 1]),
        ok(&[&[0x77, 0x0c, 0x82, 2, 0, 0][..], &hex("0000 9F26 04 0102")].concat()),
        // A locator that names no records, so anything may follow the profile.
        ok(&hex("80 0E 1880 08010100 0102030405060708")),
        ok(&hex("80 0A 1880 0102030405060708")),
        ok(&hex("80 06 1880 08020100")),
        ok(&hex("80 06 1880 08010103")),
        ok(&hex("80 06 1880 09010100")),
        ok(&hex("80 06 1880 00010100")),
        ok(&hex("80 05 1880 080101")),
        ok(&hex("80 01 18")),
        ok(&[]),
        vec![0x62, 0],
        vec![0x9f, 20],
        [body, &[0x69, 0x85]].concat(),
        // The beginning, from which the rest is not needed any more.
        [&body[..14], &[0x61, 5]].concat(),
    ];
    for response in &wrong {
        for limit in [limits(Some(100), None, None), limits(None, None, Some(9))] {
            let mut card = card(limit);
            card.policy.check(NOW, &OPTIONS).unwrap();
            withheld(&mut card, response);
        }
        // It is withheld from nobody who has no limit.
        exchange(&mut card(CardLimits::default()).policy, &OPTIONS, response);
    }
    for right in ["80 02 1880", "80 0A 1880 08010101 10010200", "77 04 82 02 1880"] {
        let mut card = card_of_200();
        exchange(&mut card.policy, &OPTIONS, &ok(&hex(right)));
    }
    exchange(&mut card_of_200().policy, &OPTIONS, &[0x69, 0x85]);
}

#[test]
fn a8_a_record_with_a_payment_that_was_not_counted_does_not_leave() {
    let cryptogram = record(&[(0x9f26, &[7; 8]), (0x9f36, &[0, 7])]);
    let mut card = card_of_200();
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    card.policy.check(NOW, &READ).unwrap();
    withheld(&mut card, &cryptogram);
    // Nor its first part, nor the part in which it becomes one.
    card.policy.check(NOW, &READ).unwrap();
    withheld(&mut card, &[&cryptogram[..9], &[0x61, 9]].concat());
    exchange(&mut card.policy, &READ, &[&cryptogram[..3], &[0x61, 9]].concat());
    card.policy.check(NOW, &REST).unwrap();
    withheld(&mut card, &cryptogram[3..]);
    let mut free = self::card(CardLimits::default());
    exchange(&mut free.policy, &OPTIONS, &OPTIONS_ANSWER);
    exchange(&mut free.policy, &READ, &cryptogram);
    // Once it was counted, it is the payment's.
    let mut card = contactless(limits(Some(100), None, None));
    let data = [&[0x83, 8][..], &bcd::<6>(99), &bcd::<2>(CNY.into())].concat();
    exchange(&mut card.policy, &with_data([0x80, 0xa8, 0, 0], &data), &OPTIONS_ANSWER);
    exchange(&mut card.policy, &READ, &cryptogram);
    assert_eq!(card.used(), (1, 99));
}

#[test]
fn a8_under_a_limit_there_is_one_channel_and_no_command_within_another() {
    let elsewhere = [
        "00 70 00 00 01",
        "01 A4 04 00 08 A000000333010101",
        "01 B2 01 0C 00",
        "81 AE 80 00 01 00 00",
        "40 B2 01 0C 00",
        "C1 AE 80 00 01 00 00",
        "00 C2 00 00 05 00B2010C00",
        "00 C3 00 00 05 00B2010C00",
        "10 C2 00 00 05 00B2010C00",
    ];
    for limit in [limits(Some(100), None, None), limits(None, None, Some(9))] {
        let mut card = any(limit, Commands::Any);
        for command in elsewhere {
            assert_eq!(refused(&mut card.policy, &hex(command)), "policy-command", "{command}");
        }
    }
    let mut free = any(CardLimits::default(), Commands::Any);
    for command in elsewhere {
        exchange(&mut free.policy, &hex(command), &[0x90, 0]);
    }
    // With a list of applications as well, for a SELECT may be inside.
    let mut listed = policy(Rules { commands: Commands::Any, ..rules() });
    for command in elsewhere {
        assert_eq!(refused(&mut listed, &hex(command)), "policy-command", "{command}");
    }
    // A SELECT in pieces, each of which begins as it should.
    for class in ["10", "04", "0C", "80", "90"] {
        let chained = format!("{class} A4 04 00 08 {UNIONPAY}");
        assert_eq!(refused(&mut listed, &hex(&chained)), "policy-aid", "{chained}");
    }
}

#[test]
fn a8_what_pays_has_the_short_form() {
    let long = |ins: u8, data: &[u8]| {
        let len = (data.len() as u16).to_be_bytes();
        [&[0x80, ins, 0, 0, 0][..], &len, data, &[0, 0]].concat()
    };
    let generate = long(0xae, &cdol_data(1, CNY));
    let mut strict = card(CardLimits::default());
    strict.begin();
    assert_eq!(refused(&mut strict.policy, &generate), "policy-command");
    assert_eq!(refused(&mut strict.policy, &hex("00 B2 01 0C 00 0000")), "policy-command");
    let mut limited = any(limits(None, None, Some(9)), Commands::Any);
    assert_eq!(refused(&mut limited.policy, &generate), "policy-command");
    assert_eq!(refused(&mut limited.policy, &long(0xa8, &[0x83, 0])), "policy-command");
    exchange(&mut limited.policy, &hex("00 B0 00 00 00 0000"), &[0x90, 0]);
    exchange(&mut any(CardLimits::default(), Commands::Any).policy, &generate, &[0x90, 0]);
}

#[test]
fn a8_what_pays_is_known_in_every_class() {
    let data = cdol_data(1, CNY);
    // Secure messaging, and classes that a careless card does not look at.
    for class in [0x00, 0x04, 0x0c, 0x84, 0x8c, 0xa0] {
        let command = with_data([class, 0xae, ARQC, 0], &data);
        let mut card = any(limits(Some(100), None, None), Commands::Any);
        assert_eq!(refused(&mut card.policy, &command), UNREADABLE, "{class:02x}");
        let mut counted = any(limits(None, None, Some(1)), Commands::Any);
        exchange(&mut counted.policy, &command, &cryptogram(ARQC));
        assert_eq!(counted.used(), (1, 0));
    }
    // In a chain it says nothing at once.
    for command in ["90 AE 80 00 01 00", "10 AE 80 00 01 00", "90 A8 00 00 02 83 00"] {
        let mut card = any(limits(None, None, Some(9)), Commands::Any);
        assert_eq!(refused(&mut card.policy, &hex(command)), UNREADABLE, "{command}");
    }
}

#[test]
fn a8_under_an_amount_limit_an_unknown_proprietary_command_may_pay() {
    let purse = hex("80 54 01 00 04 01020304");
    let mut card = any(limits(Some(100), None, None), Commands::Any);
    assert_eq!(refused(&mut card.policy, &purse), UNREADABLE);
    for harmless in ["80 CA 9F 36 00", "80 EA 00 00 04 01020304 00", "00 DA 9F 36 01 00"] {
        exchange(&mut card.policy, &hex(harmless), &[0x6d, 0]);
    }
    // Whoever lists it has thought of it; and of its number there is no saying.
    let listed = Commands::List(vec!["80 54".parse().unwrap(), "00 A4".parse().unwrap()]);
    exchange(&mut any(limits(Some(100), None, None), listed).policy, &purse, &[0x90, 0]);
    exchange(&mut any(limits(None, None, Some(1)), Commands::Any).policy, &purse, &[0x90, 0]);
}

#[test]
fn a8_a_signature_counts_in_both_encodings_of_its_instruction() {
    // Under secure messaging and in a chain, of which each part counts, as well.
    for head in ["00 2A", "00 2B", "0C 2A", "10 2A", "10 2B", "00 86", "00 87", "00 88"] {
        let command = hex(&format!("{head} 9E 9A 01 00 00"));
        let mut card = any(limits(None, None, Some(1)), Commands::Any);
        exchange(&mut card.policy, &command, &[1, 0x90, 0]);
        assert_eq!(refused(&mut card.policy, &command), "policy-uses", "{head}");
    }
}

#[test]
fn a8_a_list_with_both_amounts_is_held_to_both() {
    let both = [0x9f, 2, 6, 0x81, 4, 0x5f, 0x2a, 2];
    let pay = |digits: u64, binary: u32| {
        let mut card = card_of_200();
        exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
        exchange(&mut card.policy, &READ, &record(&[(0x8c, &both)]));
        let data = [&bcd::<6>(digits)[..], &binary.to_be_bytes(), &bcd::<2>(CNY.into())].concat();
        card.policy.check(NOW, &with_data([0x80, 0xae, ARQC, 0], &data))
    };
    assert_eq!(pay(200, 200), Ok(()));
    assert_eq!(pay(1, 999_999), Err(PolicyRefusal::AmountUnreadable));
    assert_eq!(pay(999_999, 1), Err(PolicyRefusal::AmountUnreadable));
    assert_eq!(pay(201, 201), Err(PolicyRefusal::Amount));
}

#[test]
fn a8_a_second_cryptogram_without_an_amount_is_what_its_list_says() {
    let mut card = card_of_200();
    card.begin();
    card.generate(ARQC, 200, CNY).unwrap();
    for data in [&[0x30, 0x30, 1, 2, 3][..], &[0; 7], &cdol_data(9_999, CNY)] {
        let command = with_data([0x80, 0xae, TC, 0], data);
        assert_eq!(refused(&mut card.policy, &command), UNREADABLE);
    }
    card.settle();
}

#[test]
fn a8_an_amount_counts_once_however_often_a_card_wants_another_length() {
    let mut card = card(limits(None, Some(100), Some(1)));
    card.begin();
    for _ in 0..3 {
        exchange(&mut card.policy, &generate_ac(ARQC, 60, CNY), &[0x6c, 0x0d]);
    }
    card.generate(ARQC, 60, CNY).unwrap();
    assert_eq!(card.used(), (1, 60));
    // The other way round: no order of refusals makes room.
    assert_eq!(card.pay(41), Err("policy-uses"));
    assert_eq!(card.policy.limits(NOW).uses, 0);
}

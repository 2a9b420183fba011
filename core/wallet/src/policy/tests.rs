use countersign_crypto::UnixTime;
use proptest::prelude::*;

use super::*;
use crate::login::Verdict;

mod money;

pub(super) const UNIONPAY: &str = "A000000333010101";
pub(super) const NOW: UnixTime = UnixTime::from_secs(1_760_000_000);

pub(super) fn aid(text: &str) -> Aid {
    text.parse().unwrap()
}

pub(super) fn rules() -> Rules {
    Rules::emv(vec![aid(UNIONPAY)])
}

pub(super) fn policy(rules: Rules) -> Policy {
    Policy::new(rules, &CardLimits::default(), Access::usual(), Usage::default()).unwrap()
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|digit| *digit != ' ').collect();
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

pub(super) fn select(name: &[u8]) -> Vec<u8> {
    [&[0, 0xa4, 4, 0, name.len() as u8], name, &[0]].concat()
}

/// The response to SELECT of an application of this name.
pub(super) fn fci(name: &[u8], proprietary: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    tlv(&mut inner, 0x84, name);
    tlv(&mut inner, 0xa5, proprietary);
    let mut out = Vec::new();
    tlv(&mut out, 0x6f, &inner);
    [&out[..], &[0x90, 0]].concat()
}

pub(super) fn tlv(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    countersign_iso7816::tlv::write(out, tag, value).unwrap();
}

/// Sends a command that the policy takes, and gives it the card's response.
pub(super) fn exchange(policy: &mut Policy, command: &[u8], response: &[u8]) {
    policy.check(NOW, command).unwrap();
    policy.answered(response).unwrap();
}

pub(super) fn refused(policy: &mut Policy, command: &[u8]) -> &'static str {
    let refusal = policy.check(NOW, command).unwrap_err();
    assert_eq!(policy.exchange().check, Some(refusal.check()));
    assert_eq!(policy.exchange().status, None, "it did not reach the card");
    refusal.check()
}

fn selected() -> Policy {
    let mut policy = policy(rules());
    exchange(&mut policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    policy
}

#[test]
fn a8_an_application_that_is_not_on_the_list_is_refused() {
    let mut policy = policy(rules());
    for directory in ["1PAY.SYS.DDF01", "2PAY.SYS.DDF01"] {
        let name = directory.as_bytes();
        exchange(&mut policy, &select(name), &fci(name, &[]));
    }
    exchange(&mut policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    // What follows the name that is on the list belongs to it (ISO/IEC 7816-4, 11.2.2).
    let longer = [&hex(UNIONPAY)[..], &[1]].concat();
    exchange(&mut policy, &select(&longer), &fci(&longer, &[]));
    for other in ["A0000003330101", "A000000333010102", "A0000000041010", "315041592E535953"] {
        assert_eq!(refused(&mut policy, &select(&hex(other))), "policy-aid", "{other}");
        assert_eq!(policy.exchange().aid.as_ref().unwrap().to_string(), other);
    }
    assert_eq!(status_of_refusal("policy-aid"), Status::NOT_FOUND);
    assert_eq!(status_of_refusal("policy-amount"), Status::CONDITIONS);
}

#[test]
fn a8_other_ways_to_an_application_are_refused_too() {
    let all = Rules { commands: Commands::Any, ..rules() };
    let mut policy = policy(all);
    exchange(&mut policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    for (what, command) in [
        ("by file", "00 A4 00 00 02 3F 00"),
        ("by path", "00 A4 08 00 02 3F 00"),
        ("the default one", "00 A4 04 00 00"),
        ("the default one, without Le", "00 A4 04 00"),
        ("another class", "80 A4 04 00 07 A0000000041010"),
    ] {
        assert_eq!(refused(&mut policy, &hex(command)), "policy-aid", "{what}");
    }
    for (what, command) in [
        ("a new channel", "00 70 00 00 01"),
        ("on a channel", "01 A4 04 00 08 A000000333010101"),
        ("on a further channel", "40 B2 01 0C 00"),
    ] {
        assert_eq!(refused(&mut policy, &hex(command)), "policy-command", "{what}");
    }
}

#[test]
fn a8_nothing_is_sent_before_an_allowed_application_is_selected() {
    let read = hex("00 B2 01 0C 00");
    let mut fresh = policy(rules());
    assert_eq!(refused(&mut fresh, &read), "policy-not-selected");
    // A SELECT that failed selected nothing.
    exchange(&mut fresh, &select(&hex(UNIONPAY)), &[0x6a, 0x82]);
    assert_eq!(refused(&mut fresh, &read), "policy-not-selected");
    // The card says that it selected another one.
    exchange(&mut fresh, &select(&hex(UNIONPAY)), &fci(&hex("A0000000041010"), &[]));
    assert_eq!(refused(&mut fresh, &read), "policy-not-selected");

    let mut policy = selected();
    exchange(&mut policy, &read, &[0x6a, 0x83]);
    policy.reset();
    assert_eq!(refused(&mut policy, &read), "policy-not-selected");
}

#[test]
fn a8_only_the_commands_of_a_payment_reach_a_payment_card() {
    let mut policy = selected();
    for right in [
        "80 A8 00 00 02 83 00 00",
        "00 B2 01 0C 00",
        "80 CA 9F 36 00",
        "00 88 00 00 04 01020304 00",
        "00 82 00 00 08 0102030405060708",
        "00 20 00 80 08 241234FFFFFFFFFF",
        "00 20 00 88 08 0102030405060708",
        "80 AE 80 00 01 00 00",
        "00 84 00 00 00",
        "00 C0 00 00 10",
        "80 EA 00 00 04 01020304 00",
    ] {
        exchange(&mut policy, &hex(right), &[0x6d, 0]);
    }
    for (what, wrong) in [
        ("PUT DATA", "00 DA 9F 36 01 00"),
        ("PIN CHANGE", "84 24 00 02 08 0102030405060708"),
        ("APPLICATION BLOCK", "84 1E 00 00 08 0102030405060708"),
        ("UPDATE RECORD", "04 DC 01 0C 09 010203040506070809"),
        ("READ BINARY", "00 B0 00 00 00"),
        ("MANAGE SECURITY ENVIRONMENT", "00 22 41 B6 03 840101"),
        ("GET RESPONSE of another class", "80 C0 00 00 00"),
        ("VERIFY under secure messaging", "04 20 00 80 08 241234FFFFFFFFFF"),
        ("READ RECORD under secure messaging", "0C B2 01 0C 00"),
        ("checksum of the magnetic stripe's kind", "80 2A 8E 80 04 01020304 00"),
        ("READ RECORD of another class", "80 B2 01 0C 00"),
        ("GENERATE AC in a chain", "90 AE 80 00 01 00 00"),
    ] {
        assert_eq!(refused(&mut policy, &hex(wrong)), "policy-command", "{what}");
    }
    for no_apdu in ["", "00 A4 04", "00 A4 04 00 05 01", "00 A4 04 00 01 01 00 00"] {
        assert_eq!(refused(&mut policy, &hex(no_apdu)), "apdu-malformed");
    }
}

#[test]
fn a8_a_general_card_has_its_own_list_or_says_any() {
    let openpgp = "D27600012401";
    let commands = Commands::List(vec![
        "00 A4 04 *".parse().unwrap(),
        "00 2A 9E 9A".parse().unwrap(),
        "00 CA".parse().unwrap(),
        "* C0".parse().unwrap(),
    ]);
    let listed = Rules { aids: Aids::List(vec![aid(openpgp)]), commands, ..rules() };
    let make = policy;
    let mut policy = make(listed);
    exchange(&mut policy, &select(&hex(openpgp)), &[0x90, 0]);
    exchange(&mut policy, &hex("00 2A 9E 9A 01 00 00"), &[0x90, 0]);
    exchange(&mut policy, &hex("00 CA 00 6E 00"), &[0x90, 0]);
    assert_eq!(refused(&mut policy, &hex("00 2A 80 86 01 00 00")), "policy-command");
    assert_eq!(refused(&mut policy, &hex("00 20 00 81 04 31323334")), "policy-command");

    let mut any = make(Rules::any());
    for command in ["00 A4 00 00 02 3F00", "01 B0 00 00 00", "00 70 00 00 01", "90 DA 00 00 01 00"]
    {
        exchange(&mut any, &hex(command), &[0x90, 0]);
    }
}

#[test]
fn a8_extended_apdus_and_parted_responses_pass() {
    let mut policy = policy(Rules::any());
    let mut longest = vec![0, 0xdb, 0x3f, 0xff, 0, 0xff, 0xff];
    longest.extend(vec![7; 65_535]);
    longest.extend([0, 0]);
    let response = [vec![9; 65_536], vec![0x90, 0]].concat();
    exchange(&mut policy, &longest, &response);
    assert_eq!(policy.exchange().status, Some(0x9000));
    exchange(&mut policy, &hex("00 CB 3F FF 00"), &[0x61, 0]);
    for _ in 0..300 {
        let more = [vec![1; 256], vec![0x61, 0]].concat();
        exchange(&mut policy, &hex("00 C0 00 00 00"), &more);
    }
    exchange(&mut policy, &hex("00 C0 00 00 00"), &[1, 0x90, 0]);
    exchange(&mut policy, &hex("00 B0 00 00 00"), &[0x6c, 5]);
}

#[test]
fn a8_a_response_in_parts_selects_as_a_whole_one_does() {
    let mut policy = policy(rules());
    let whole = fci(&hex(UNIONPAY), &[]);
    exchange(&mut policy, &select(&hex(UNIONPAY))[..13], &[0x61, whole.len() as u8 - 2]);
    assert_eq!(refused(&mut policy, &hex("00 B2 01 0C 00")), "policy-not-selected");

    exchange(&mut policy, &select(&hex(UNIONPAY))[..13], &[0x61, whole.len() as u8 - 2]);
    exchange(&mut policy, &hex("00 C0 00 00 10"), &whole);
    exchange(&mut policy, &hex("00 B2 01 0C 00"), &[0x90, 0]);
    assert_eq!(policy.exchange().aid, Some(aid(UNIONPAY)));
}

#[test]
fn a8_a_pin_is_neither_kept_nor_shown() {
    let mut policy = selected();
    let pin = hex("00 20 00 80 08 24 98 76 FF FF FF FF FF");
    policy.check(NOW, &pin).unwrap();
    let shown = format!("{policy:?}");
    assert!(!shown.contains("152") && !shown.to_lowercase().contains("9876"), "{shown}");
    policy.answered(&[0x63, 0xc2]).unwrap();
    let exchange = policy.exchange();
    assert_eq!((exchange.instruction, exchange.status), (Some([0, 0x20]), Some(0x63c2)));
    assert_eq!((exchange.money, exchange.check), (None, None));
}

#[test]
fn a8_rules_are_read_from_settings_and_written_back() {
    let text = "{\"aids\":[\"A000000333010101\"],\"commands\":\"emv\",\
        \"limits\":{\"currency\":156,\"max-amount\":5000,\"max-total\":null,\"max-uses\":3}}";
    let rules: Rules = serde_json::from_str(text).unwrap();
    assert_eq!(rules.limits.max_amount, Some(5000));
    assert_eq!(serde_json::to_string(&rules).unwrap(), text);
    let any: Rules = serde_json::from_str("{\"aids\":\"any\",\"commands\":\"any\"}").unwrap();
    assert_eq!(any, Rules::any());
    let listed = "{\"aids\":\"any\",\"commands\":[\"00 A4 04 *\",\"80 CA\"]}";
    let listed: Rules = serde_json::from_str(listed).unwrap();
    let again = serde_json::to_string(&listed).unwrap();
    assert!(again.contains("[\"00 A4 04 *\",\"80 CA * *\"]"), "{again}");
    for wrong in [
        "{\"aids\":\"all\",\"commands\":\"any\"}",
        "{\"aids\":[\"A0000003\"],\"commands\":\"any\"}",
        "{\"aids\":[\"A00000033301010101010101010101010101\"],\"commands\":\"any\"}",
        "{\"aids\":[\"no digits\"],\"commands\":\"any\"}",
        "{\"aids\":\"any\",\"commands\":\"some\"}",
        "{\"aids\":\"any\",\"commands\":[\"00\"]}",
        "{\"aids\":\"any\",\"commands\":[\"00 A4 04 00 00\"]}",
        "{\"aids\":\"any\",\"commands\":[\"00 A\"]}",
        "{\"aids\":\"any\",\"commands\":[\"00  A4\"]}",
        "{\"commands\":\"any\"}",
        "{\"aids\":\"any\",\"commands\":\"any\",\"limit\":{}}",
        "{\"aids\":\"any\",\"commands\":\"any\",\"limits\":{\"max\":1}}",
    ] {
        assert!(serde_json::from_str::<Rules>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let amount = CardLimits { max_amount: Some(1), ..CardLimits::default() };
    let without = Rules { limits: amount, ..rules() };
    assert_eq!(without.check(), Err(RulesError::NoCurrency));
    let usual = (Access::usual(), Usage::default());
    let made = Policy::new(rules(), &amount, usual.0, usual.1);
    assert_eq!(made.err().map(RulesError::check), Some("policy-rules-currency"));
    let many = Rules::emv(vec![aid(UNIONPAY); AIDS_MAX + 1]);
    assert_eq!(many.check(), Err(RulesError::TooMany));
    let pattern: Pattern = "00 A4".parse().unwrap();
    let many = Rules { commands: Commands::List(vec![pattern; PATTERNS_MAX + 1]), ..rules() };
    assert_eq!(many.check(), Err(RulesError::TooMany));
}

/// A response to the distance check: entropy, least, most and transmission time.
fn relay_resistance(most: u16) -> Vec<u8> {
    let [upper, lower] = most.to_be_bytes();
    vec![0x80, 10, 1, 2, 3, 4, 0, 20, upper, lower, 0, 9, 0x90, 0]
}

#[test]
fn a8_a_distance_check_passes_untouched_and_its_failure_is_told() {
    let command = hex("80 EA 00 00 04 01020304 00");
    let mut policy = selected();
    exchange(&mut policy, &command, &relay_resistance(50));
    assert!(distance::is_check(&command) && !distance::is_check(&hex("80 AE 80 00 00")));
    let judge = |micros| {
        distance::judge(&command, &relay_resistance(50), core::time::Duration::from_micros(micros))
    };
    assert_eq!(judge(5_099), None);
    let fails = crate::message::DistanceCheckFails { measured: 51, maximum: 50 };
    assert_eq!(judge(5_100), Some(fails));
    assert_eq!(judge(u64::MAX).map(|fails| fails.measured), Some(u32::MAX));
    // What is no distance check, or was not answered as one, says nothing.
    let long = core::time::Duration::from_secs(1);
    assert_eq!(distance::judge(&hex("80 AE 80 00 00"), &relay_resistance(50), long), None);
    for other in [&[0x6d, 0][..], &[0x90, 0], &relay_resistance(50)[1..], &[0x80, 10, 0x90, 0]] {
        assert_eq!(distance::judge(&command, other, long), None);
    }
}

proptest! {
    #[test]
    fn any_conversation_is_judged_without_a_panic(
        steps in prop::collection::vec(
            (prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                (any::<u8>(), any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
                    .prop_map(|(ins, p1, p2, data)| {
                        let cla = if ins & 1 == 0 { 0x80 } else { 0 };
                        let all = [0xa4, 0xa8, 0xb2, 0xae, 0xc0, 0x2a, 0xea, 0x20];
                        let ins = all[usize::from(ins % 8)];
                        [&[cla, ins, p1, p2, data.len() as u8][..], &data].concat()
                    }),
            ], prop::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..30),
        limited in any::<bool>(), emv in any::<bool>(), alarm in any::<bool>(),
    ) {
        let (max_amount, max_total, max_uses) = (Some(1), Some(2), Some(3));
        let limits = CardLimits { currency: Some(156), max_amount, max_total, max_uses };
        let limits = if limited { limits } else { CardLimits::default() };
        let rules = Rules { limits, ..if emv { rules() } else { Rules::any() } };
        let verdict = if alarm { Verdict::alarm() } else { Verdict::login() };
        let mut policy = Policy::new(rules, &limits, verdict.access(), Usage::default()).unwrap();
        for (command, response, ok) in steps {
            let response = if ok { [&response[..], &[0x90, 0]].concat() } else { response };
            if policy.check(NOW, &command).is_ok() {
                let _ = policy.answered(&response);
            }
            if let Some(usage) = policy.changed_usage() {
                prop_assert!(!limited || (usage.all.uses <= 3 && usage.all.spent <= 2));
                prop_assert!(usage.alarm.uses <= usage.all.uses);
            }
        }
    }
}

#[test]
fn a8_only_what_shows_what_a_card_has_is_reading() {
    let only_read = |instruction| Exchange { instruction, ..Exchange::default() }.only_read();
    let reading =
        [[0, 0xa4], [0, 0xb0], [4, 0xb2], [0x0c, 0xc0], [0, 0xca], [1, 0xcb], [0x80, 0xca]];
    for instruction in reading {
        assert!(only_read(Some(instruction)), "{instruction:02x?}");
    }
    assert!(!only_read(None));
    // GENERATE AC, VERIFY, sign, authenticate, GET PROCESSING OPTIONS, put, update; a command of a
    // card's own by the number of a reading one.
    let others = [
        [0x80, 0xae],
        [0, 0x20],
        [0, 0x2a],
        [0, 0x88],
        [0x80, 0xa8],
        [0, 0xda],
        [0, 0xd6],
        [0x80, 0xa4],
        [0x80, 0xcb],
        [0x90, 0xb0],
    ];
    for instruction in others {
        assert!(!only_read(Some(instruction)), "{instruction:02x?}");
    }
}

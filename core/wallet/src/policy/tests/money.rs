//! Limits: amounts and numbers of payments.

use super::*;

mod model;
mod otherwise;

/// What the card asks for before its processing options: amount and currency.
const PDOL: [u8; 6] = [0x9f, 2, 6, 0x5f, 0x2a, 2];
/// What it asks for with GENERATE AC: amount, currency, unpredictable number.
const CDOL: [u8; 9] = [0x9f, 2, 6, 0x5f, 0x2a, 2, 0x9f, 0x37, 4];
/// The second time: authorisation response code and unpredictable number, no amount.
const CDOL_SETTLED: [u8; 5] = [0x8a, 2, 0x9f, 0x37, 4];
/// GET PROCESSING OPTIONS of a card that asks for nothing, and its answer: two records of file 1.
const OPTIONS: [u8; 8] = [0x80, 0xa8, 0, 0, 2, 0x83, 0, 0];
const OPTIONS_ANSWER: [u8; 10] = [0x80, 6, 0, 0, 8, 1, 2, 0, 0x90, 0];
const CNY: u16 = 156;
const TC: u8 = 0x40;
const ARQC: u8 = 0x80;
const AAC: u8 = 0x00;

fn limits(amount: Option<u64>, total: Option<u64>, uses: Option<u32>) -> CardLimits {
    let currency = Some(CNY);
    CardLimits { currency, max_amount: amount, max_total: total, max_uses: uses }
}

fn bcd<const N: usize>(mut number: u64) -> [u8; N] {
    let mut out = [0; N];
    for byte in out.iter_mut().rev() {
        *byte = (((number / 10 % 10) << 4) | (number % 10)) as u8;
        number /= 100;
    }
    out
}

fn with_data(header: [u8; 4], data: &[u8]) -> Vec<u8> {
    [&header[..], &[data.len() as u8], data, &[0]].concat()
}

/// What is sent by [`CDOL`].
fn cdol_data(amount: u64, currency: u16) -> Vec<u8> {
    [&bcd::<6>(amount)[..], &bcd::<2>(currency.into()), &[1, 2, 3, 4]].concat()
}

fn generate_ac(kind: u8, amount: u64, currency: u16) -> Vec<u8> {
    with_data([0x80, 0xae, kind, 0], &cdol_data(amount, currency))
}

/// The card's response: its cryptogram information data, then counter and cryptogram.
fn cryptogram(kind: u8) -> Vec<u8> {
    let mut out = Vec::new();
    tlv(&mut out, 0x80, &[&[kind, 0, 7][..], &[9; 8]].concat());
    [&out[..], &[0x90, 0]].concat()
}

fn record(objects: &[(u16, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (tag, value) in objects {
        tlv(&mut inner, *tag, value);
    }
    let mut out = Vec::new();
    tlv(&mut out, 0x70, &inner);
    [&out[..], &[0x90, 0]].concat()
}

struct Card {
    policy: Policy,
}

impl Card {
    /// A card whose application is selected.
    fn with(limits: CardLimits, usage: Usage) -> Self {
        let rules = Rules { limits, ..rules() };
        let none = CardLimits::default();
        Self::of(Policy::new(rules, &none, Access::usual(), usage).unwrap(), &[])
    }

    fn of(mut policy: Policy, pdol: &[u8]) -> Self {
        let mut proprietary = Vec::new();
        if !pdol.is_empty() {
            tlv(&mut proprietary, 0x9f38, pdol);
        }
        exchange(&mut policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &proprietary));
        Self { policy }
    }

    /// A new transaction, up to its records.
    fn begin(&mut self) {
        exchange(&mut self.policy, &OPTIONS, &OPTIONS_ANSWER);
        let lists = record(&[(0x8c, &CDOL), (0x8d, &CDOL_SETTLED)]);
        exchange(&mut self.policy, &hex("00 B2 01 0C 00"), &lists);
    }

    /// Pays in a transaction of its own; the check that refused it.
    fn pay(&mut self, amount: u64) -> Result<(), &'static str> {
        self.begin();
        self.generate(ARQC, amount, CNY)?;
        self.settle();
        Ok(())
    }

    fn generate(&mut self, kind: u8, amount: u64, currency: u16) -> Result<(), &'static str> {
        let command = generate_ac(kind, amount, currency);
        self.policy.check(NOW, &command).map_err(PolicyRefusal::check)?;
        self.policy.answered(&cryptogram(kind)).map_err(PolicyRefusal::check)
    }

    /// The second GENERATE AC, which says no amount.
    fn settle(&mut self) {
        let command = with_data([0x80, 0xae, TC, 0], &[0x30, 0x30, 1, 2, 3, 4]);
        exchange(&mut self.policy, &command, &cryptogram(TC));
    }

    fn used(&mut self) -> (u32, u64) {
        let usage = self.policy.changed_usage().unwrap();
        (usage.all.uses, usage.all.spent)
    }
}

fn card(limits: CardLimits) -> Card {
    Card::with(limits, Usage::default())
}

#[test]
fn a8_a_payment_above_the_limit_never_reaches_the_card() {
    let mut card = card(limits(Some(5_000), None, None));
    assert_eq!(card.pay(5_000), Ok(()));
    assert_eq!(card.policy.exchange().money, None, "the second says no amount");
    assert_eq!(card.pay(5_001), Err("policy-amount"));
    assert_eq!(card.policy.exchange().money, Some(Money { amount: 5_001, currency: CNY }));
    assert_eq!(card.pay(999_999_999_999), Err("policy-amount"));
    assert_eq!(card.pay(1), Ok(()));
    assert_eq!(card.used(), (2, 5_001));
}

#[test]
fn a8_another_currency_is_another_amount() {
    let mut card = card(limits(Some(5_000), None, None));
    card.begin();
    assert_eq!(card.generate(ARQC, 1, 840), Err("policy-currency"));
    assert_eq!(card.generate(ARQC, 1, CNY), Ok(()));
}

#[test]
fn a8_the_number_of_payments_is_limited() {
    let mut card = card(limits(None, None, Some(2)));
    assert_eq!((card.pay(1), card.pay(1)), (Ok(()), Ok(())));
    assert_eq!(card.pay(1), Err("policy-uses"));
    assert_eq!(card.used(), (2, 2));
}

#[test]
fn a8_the_sum_of_payments_is_limited() {
    let mut card = card(limits(None, Some(100), None));
    assert_eq!((card.pay(60), card.pay(41)), (Ok(()), Err("policy-total")));
    assert_eq!((card.pay(40), card.pay(1)), (Ok(()), Err("policy-total")));
}

#[test]
fn a8_uses_outlive_the_session_and_end_with_their_period() {
    let mut first = card(limits(None, Some(100), Some(5)));
    first.pay(60).unwrap();
    let usage = first.policy.changed_usage().unwrap();
    assert_eq!(first.policy.changed_usage(), None, "told once");
    let text = serde_json::to_string(&usage).unwrap();
    let usage: Usage = serde_json::from_str(&text).unwrap();
    let mut second = Card::with(limits(None, Some(100), Some(5)), usage);
    assert_eq!(second.pay(41), Err("policy-total"));
    let left = second.policy.limits(NOW);
    assert_eq!((left.uses, left.payment, left.currency), (4, 40, CNY));
    let later = NOW.plus(PERIOD);
    assert_eq!(second.policy.limits(later).payment, 100);
    second.begin();
    second.policy.check(later, &generate_ac(ARQC, 41, CNY)).unwrap();
    assert_eq!(second.used(), (1, 41));
}

#[test]
fn a8_an_amount_that_cannot_be_read_is_refused_where_there_is_a_limit() {
    let limit = limits(Some(5_000), None, None);
    // The terminal never reads the record with the list.
    let mut unread = card(limit);
    exchange(&mut unread.policy, &OPTIONS, &OPTIONS_ANSWER);
    assert_eq!(unread.generate(ARQC, 1, CNY), Err("policy-amount-unreadable"));
    assert_eq!(unread.generate(AAC, 1, CNY), Err("policy-amount-unreadable"));
    // Its data are not what the list says.
    let mut short = card(limit);
    short.begin();
    let command = with_data([0x80, 0xae, ARQC, 0], &cdol_data(1, CNY)[1..]);
    assert_eq!(refused(&mut short.policy, &command), "policy-amount-unreadable");
    // The card has two lists.
    let mut two = card(limit);
    two.begin();
    let other = record(&[(0x8c, &PDOL)]);
    exchange(&mut two.policy, &hex("00 B2 02 0C 00"), &other);
    assert_eq!(two.generate(ARQC, 1, CNY), Err("policy-amount-unreadable"));
    // The list asks for no amount: a hash instead (EMV Book 3, 5.2.2.2).
    let mut hashed = card(limit);
    exchange(&mut hashed.policy, &OPTIONS, &OPTIONS_ANSWER);
    let list = record(&[(0x8c, &[0x98, 20])]);
    exchange(&mut hashed.policy, &hex("00 B2 01 0C 00"), &list);
    let command = with_data([0x80, 0xae, ARQC, 0], &[7; 20]);
    assert_eq!(refused(&mut hashed.policy, &command), "policy-amount-unreadable");
    // Without an amount limit all of them pass.
    let mut free = card(limits(None, None, Some(9)));
    exchange(&mut free.policy, &OPTIONS, &OPTIONS_ANSWER);
    exchange(&mut free.policy, &command, &cryptogram(ARQC));
}

#[test]
fn a8_the_magnetic_stripes_checksum_says_no_amount() {
    let checksum = hex("80 2A 8E 80 04 01020304 00");
    let any = |limits| policy(Rules { limits, ..Rules::any() });
    let mut limited = any(limits(Some(5_000), None, None));
    assert_eq!(refused(&mut limited, &checksum), "policy-amount-unreadable");
    let mut counted = any(limits(None, None, Some(1)));
    exchange(&mut counted, &checksum, &[0x90, 0]);
    assert_eq!(refused(&mut counted, &checksum), "policy-uses");
    exchange(&mut any(CardLimits::default()), &checksum, &[0x90, 0]);
    // Nor does a chain, whose parts say nothing each.
    let chained = hex("90 AE 80 00 01 00 00");
    assert_eq!(refused(&mut limited, &chained), "policy-amount-unreadable");
}

#[test]
fn a8_a_payment_without_contact_is_read_from_the_processing_options() {
    let rules = |max| Rules { limits: limits(Some(max), None, Some(2)), ..rules() };
    let made = |max| {
        let none = CardLimits::default();
        let policy = Policy::new(rules(max), &none, Access::usual(), Usage::default());
        Card::of(policy.unwrap(), &PDOL)
    };
    let options = |amount: u64| {
        let data = [&[0x83, 8][..], &bcd::<6>(amount), &bcd::<2>(CNY.into())].concat();
        with_data([0x80, 0xa8, 0, 0], &data)
    };
    let mut paid = Vec::new();
    tlv(&mut paid, 0x77, &hex("9F26 08 0102030405060708"));
    let paid = [&paid[..], &[0x90, 0]].concat();

    let mut card = made(100);
    exchange(&mut card.policy, &options(100), &paid);
    assert_eq!(card.used(), (1, 100));
    assert_eq!(refused(&mut card.policy, &options(101)), "policy-amount");
    let unreadable = with_data([0x80, 0xa8, 0, 0], &[0x83, 0]);
    assert_eq!(refused(&mut card.policy, &unreadable), "policy-amount-unreadable");
    exchange(&mut card.policy, &options(1), &paid);
    assert_eq!(refused(&mut card.policy, &options(1)), "policy-uses");

    // With contact the same transaction goes on: it counts once, and by its larger amount.
    let mut card = made(100);
    exchange(&mut card.policy, &options(40), &OPTIONS_ANSWER);
    let lists = record(&[(0x8c, &CDOL), (0x8d, &CDOL_SETTLED)]);
    exchange(&mut card.policy, &hex("00 B2 01 0C 00"), &lists);
    card.generate(ARQC, 70, CNY).unwrap();
    assert_eq!(card.used(), (1, 70));
    assert_eq!(card.generate(ARQC, 101, CNY), Err("policy-amount-unreadable"));
}

#[test]
fn a8_a_cryptogram_for_an_unread_amount_does_not_leave() {
    let mut paid = Vec::new();
    tlv(&mut paid, 0x77, &hex("9F26 08 0102030405060708"));
    let paid = [&paid[..], &[0x90, 0]].concat();
    let options = hex("80 A8 00 00 02 83 00 00");
    let mut card = card(limits(Some(100), None, None));
    card.policy.check(NOW, &options).unwrap();
    let withheld = card.policy.answered(&paid).unwrap_err();
    assert_eq!(withheld.check(), "policy-amount-unreadable");
    assert_eq!(card.policy.exchange().check, Some("policy-amount-unreadable"));
    let mut free = selected();
    exchange(&mut free, &options, &paid);
}

#[test]
fn a8_what_the_card_declined_or_refused_does_not_count() {
    let mut card = card(limits(None, None, Some(1)));
    // The terminal asks for a decline.
    card.begin();
    card.generate(AAC, 50, CNY).unwrap();
    assert_eq!(card.policy.changed_usage(), None);
    // The card declines.
    card.begin();
    exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &cryptogram(AAC));
    assert_eq!(card.used(), (0, 0));
    // In the other format too.
    card.begin();
    let mut other = Vec::new();
    tlv(&mut other, 0x77, &hex("9F27 01 00 9F36 02 0007 9F26 08 0102030405060708"));
    let other = [&other[..], &[0x90, 0]].concat();
    exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &other);
    assert_eq!(card.used(), (0, 0));
    // The card does not take it: also where it only wants another length.
    for status in [[0x69, 0x85], [0x6c, 0x20]] {
        card.begin();
        exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &status);
        assert_eq!(card.used(), (0, 0));
    }
    exchange(&mut card.policy, &generate_ac(ARQC, 50, CNY), &cryptogram(ARQC));
    assert_eq!(card.used(), (1, 50));
    assert_eq!(card.pay(1), Err("policy-uses"));
}

#[test]
fn a8_a_command_without_an_answer_stays_counted() {
    let mut card = card(limits(None, None, Some(1)));
    card.begin();
    card.policy.check(NOW, &generate_ac(ARQC, 50, CNY)).unwrap();
    assert_eq!(card.used(), (1, 50), "counted before the card is asked");
    // The card is pulled; in its next session nothing is forgotten.
    card.policy.reset();
    exchange(&mut card.policy, &select(&hex(UNIONPAY)), &fci(&hex(UNIONPAY), &[]));
    assert_eq!(card.pay(1), Err("policy-uses"));
}

#[test]
fn a8_a_transaction_has_two_cryptograms() {
    let mut card = card(limits(Some(100), None, None));
    card.pay(50).unwrap();
    assert_eq!(card.used(), (1, 50), "the two count once");
    assert_eq!(card.generate(ARQC, 50, CNY), Err("policy-generate-ac"));
    card.pay(50).unwrap();
    // Also of a payment card without limits.
    let mut free = Card { policy: selected() };
    free.pay(50).unwrap();
    assert_eq!(free.generate(ARQC, 50, CNY), Err("policy-generate-ac"));
}

#[test]
fn a8_a_second_amount_is_held_to_the_same_limit() {
    let mut card = card(limits(Some(100), None, None));
    exchange(&mut card.policy, &OPTIONS, &OPTIONS_ANSWER);
    let lists = record(&[(0x8c, &CDOL), (0x8d, &CDOL)]);
    exchange(&mut card.policy, &hex("00 B2 01 0C 00"), &lists);
    card.generate(ARQC, 10, CNY).unwrap();
    assert_eq!(card.generate(TC, 101, CNY), Err("policy-amount"));
    card.generate(TC, 90, CNY).unwrap();
    assert_eq!(card.used(), (1, 90));
    // Nor does a settled one follow a decline.
    card.begin();
    card.generate(AAC, 10, CNY).unwrap();
    let command = with_data([0x80, 0xae, TC, 0], &[0x30, 0x30, 1, 2, 3, 4]);
    assert_eq!(refused(&mut card.policy, &command), "policy-amount-unreadable");
}

#[test]
fn a8_signatures_of_a_general_card_count_each() {
    let limits = limits(None, None, Some(2));
    let mut policy = policy(Rules { limits, ..Rules::any() });
    let sign = hex("00 2A 9E 9A 01 00 00");
    exchange(&mut policy, &hex("00 CA 00 6E 00"), &[0x90, 0]);
    exchange(&mut policy, &sign, &[0x69, 0x82]);
    exchange(&mut policy, &sign, &[0x90, 0]);
    exchange(&mut policy, &hex("00 88 00 00 01 00 00"), &[0x90, 0]);
    assert_eq!(refused(&mut policy, &sign), "policy-uses");
    assert_eq!(refused(&mut policy, &hex("00 87 00 00 01 00 00")), "policy-uses");
    exchange(&mut policy, &hex("00 CA 00 6E 00"), &[0x90, 0]);
}

#[test]
fn a5_an_alarm_session_has_a_second_tighter_limit_under_the_same_names() {
    let rules = Rules { limits: limits(Some(5_000), None, Some(9)), ..rules() };
    let cap = limits(Some(100), None, Some(2));
    let of = |verdict: Verdict, usage| {
        let policy = Policy::new(rules.clone(), &cap, verdict.access(), usage).unwrap();
        Card::of(policy, &[])
    };
    let mut usual = of(Verdict::login(), Usage::default());
    usual.pay(5_000).unwrap();
    assert_eq!(usual.pay(5_001), Err("policy-amount"));
    let usage = usual.policy.changed_usage().unwrap();
    assert_eq!((usage.all.uses, usage.alarm.uses), (1, 0));

    // What was paid before the alarm does not use the cap up.
    let mut alarm = of(Verdict::alarm(), usage);
    assert_eq!(alarm.policy.limits(NOW).payment, 100);
    assert_eq!(alarm.pay(101), Err("policy-amount"));
    assert_eq!((alarm.pay(100), alarm.pay(1)), (Ok(()), Ok(())));
    assert_eq!(alarm.pay(1), Err("policy-uses"));
    let usage = alarm.policy.changed_usage().unwrap();
    assert_eq!((usage.all.uses, usage.alarm.uses, usage.alarm.spent), (3, 2, 101));
    // Nor does another alarm login begin anew.
    assert_eq!(of(Verdict::alarm(), usage).pay(1), Err("policy-uses"));
    // The card's own limits hold in an alarm session as well.
    let mut used = usage;
    used.all.uses = 9;
    assert_eq!(of(Verdict::alarm(), used).pay(1), Err("policy-uses"));
}

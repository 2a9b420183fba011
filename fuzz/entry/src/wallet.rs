//! Sleeve and manager: what they say to each other and to the relay, and which commands reach a
//! card.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_iso7816::{Command, Response, Status};
use countersign_wallet::login::{Access, Verdict};
use countersign_wallet::message::{
    MESSAGE_LEN_MAX, ManagerMessage, MessageError, STEP, SleeveMessage,
};
use countersign_wallet::policy::{Aid, CardLimits, Pattern, Policy, PolicyRefusal, Rules, Usage};
use countersign_wallet::relay::message::MESSAGE_LEN_MAX as RELAY_LEN_MAX;
use countersign_wallet::relay::{DeviceMessage, MessageError as RelayError, RelayMessage};
use testkit::pki::NOW;

use crate::script::Script;

/// One message of sleeve and manager, read as each side reads it: what is accepted encodes to the
/// same bytes, and what is padded is padded.
pub fn wallet_messages(data: &[u8]) {
    let to_manager = SleeveMessage::decode(data);
    let to_sleeve = ManagerMessage::decode(data);
    assert!(to_manager.is_err() || to_sleeve.is_err(), "a message of both sides");
    if data.len() > MESSAGE_LEN_MAX {
        assert_eq!(to_manager.as_ref().err(), Some(&MessageError::TooLong(data.len())));
        assert_eq!(to_sleeve.as_ref().err(), Some(&MessageError::TooLong(data.len())));
    }
    if let Ok(message) = to_manager {
        assert_eq!(*message.encode(), data, "{message:?}");
    }
    if let Ok(message) = to_sleeve {
        assert_eq!(*message.encode(), data, "{message:?}");
        if let ManagerMessage::Cards(_) | ManagerMessage::Taken(_) = message {
            assert_eq!(data.len() % STEP, 0, "a length that tells something");
        }
    }
}

/// As [`wallet_messages`], for what a device and the relay say.
pub fn relay_messages(data: &[u8]) {
    let to_relay = DeviceMessage::decode(data);
    let to_device = RelayMessage::decode(data);
    assert!(to_relay.is_err() || to_device.is_err(), "a message of both sides");
    if data.len() > RELAY_LEN_MAX {
        assert_eq!(to_relay, Err(RelayError::TooLong(data.len())));
        assert_eq!(to_device, Err(RelayError::TooLong(data.len())));
    }
    if let Ok(message) = to_relay {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = to_device {
        assert_eq!(message.encode(), data);
    }
}

/// What a card's owner may write, by the first byte: rules in JSON, a pattern, an application's
/// name. What is accepted is written again, and read as the same.
pub fn wallet_rules(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 3 {
        0 => {
            let Ok(rules) = serde_json::from_slice::<Rules>(script.rest()) else { return };
            let written = serde_json::to_vec(&rules).expect("rules are written");
            let again = serde_json::from_slice::<Rules>(&written).expect("and read");
            assert_eq!(again, rules);
            let limited = rules.limits.max_amount.or(rules.limits.max_total).is_some();
            assert!(rules.check().is_err() || !limited || rules.limits.currency.is_some());
            let made = Policy::new(rules.clone(), &NONE, Access::usual(), Usage::default());
            assert_eq!(made.err(), rules.check().err());
        }
        1 => written_again::<Pattern>(script.rest()),
        _ => written_again::<Aid>(script.rest()),
    }
}

fn written_again<T: FromStr + Display + PartialEq + Debug>(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(read) = text.parse::<T>() else { return };
    let again = read.to_string().parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&read));
}

const NONE: CardLimits =
    CardLimits { currency: None, max_amount: None, max_total: None, max_uses: None };
/// The application on the list.
pub(crate) const AID: &[u8] = b"\xA0\x00\x00\x03\x33\x01\x01\x01";
const DIRECTORIES: [&[u8]; 2] = [b"1PAY.SYS.DDF01", b"2PAY.SYS.DDF01"];
const CNY: u16 = 156;
const SELECT: u8 = 0xA4;
const GET_RESPONSE: u8 = 0xC0;
/// Most things that happen to one card.
const STEPS_MAX: usize = 64;
/// A second session, after another login, may come in between.
const AGAIN: u8 = 3;
const LATER: u8 = 4;
const RESET: u8 = 5;

/// A card's policy, with commands and responses in any order.
/// Script: `setting, limits (amount, total, uses), steps`; a step is `kind, length, bytes`, its
/// kind by modulus: 0 and 1 a command, 2 a response to the last, then a new session, a later hour,
/// a reset.
///
/// Whatever the card says, what is passed to it is a command that the rules allow, in an
/// application that is on the list; no payment that can be read is above its limit or in another
/// currency; uses and sums stay within theirs; and a session that begins with the stored usage has
/// what the last one had left.
pub fn wallet_policy(data: &[u8]) {
    play(data);
}

fn play(data: &[u8]) -> Card {
    let mut script = Script::new(data);
    let mut card = Card::new(&mut script);
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        let kind = script.byte() % 6;
        match kind {
            AGAIN => card.begin_again(),
            LATER => card.now = card.now.plus(Duration::from_secs(3600)),
            RESET => card.reset(),
            _ => {
                let bytes = script.short();
                if kind < 2 { card.command(bytes) } else { card.answer(bytes) }
            }
        }
        card.check_usage();
    }
    card
}

struct Card {
    rules: Rules,
    alarm: CardLimits,
    access: Access,
    policy: Policy,
    stored: Usage,
    now: UnixTime,
    /// The name that waits for the card's word, and whether an allowed one was selected.
    selecting: Option<Vec<u8>>,
    selected: bool,
    /// A command has passed and has no response yet.
    waits: bool,
}

impl Card {
    /// Setting: bit 0 other commands than a payment's, 1 any application, 2 an alarm's session; 3,
    /// 4 and 5 which limits there are, 6 and 7 the tighter ones after an alarm.
    fn new(script: &mut Script<'_>) -> Self {
        let bits = script.byte();
        let has = |bit: u8| bits & bit != 0;
        let [amount, total, uses] = script.array::<3>();
        let amounts = has(8) || has(16);
        let limits = CardLimits {
            currency: amounts.then_some(CNY),
            max_amount: has(8).then_some(u64::from(amount) * 100),
            max_total: has(16).then_some(u64::from(total) * 100),
            max_uses: has(32).then_some(u32::from(uses)),
        };
        let alarm = CardLimits {
            currency: has(64).then_some(CNY),
            max_amount: has(64).then_some(u64::from(amount)),
            max_total: None,
            max_uses: has(128).then_some(u32::from(uses) / 2),
        };
        let emv = Rules::emv(vec![Aid::try_from("A000000333010101".to_owned()).expect("a name")]);
        let any = Rules::any();
        let rules = Rules {
            aids: if has(2) { any.aids } else { emv.aids },
            commands: if has(1) { any.commands } else { emv.commands },
            limits,
        };
        let access = if has(4) { Verdict::alarm().access() } else { Access::usual() };
        let stored = Usage::default();
        let policy = Policy::new(rules.clone(), &alarm, access, stored).expect("sound rules");
        let (selecting, now) = (None, NOW);
        Self { rules, alarm, access, policy, stored, now, selecting, selected: false, waits: false }
    }

    fn lists_applications(&self) -> bool {
        !self.rules.aids.allow(b"an application on no list")
    }

    fn command(&mut self, bytes: &[u8]) {
        let checked = self.policy.check(self.now, bytes);
        let exchange = self.policy.exchange();
        assert_eq!(exchange.check, checked.err().map(PolicyRefusal::check));
        assert_eq!(exchange.status, None, "no card has answered");
        let money = exchange.money;
        let Ok(command) = Command::parse(bytes) else {
            assert_eq!(checked, Err(PolicyRefusal::Malformed));
            self.waits = false;
            return;
        };
        let by_name = command.ins == SELECT && command.p1 == 4;
        self.waits = checked.is_ok();
        if checked.is_err() {
            return; // the card knows nothing of it
        }
        if command.ins != GET_RESPONSE {
            self.selecting = None;
        }
        assert!(self.rules.commands.allow(&command), "{command:?}");
        if self.lists_applications() {
            let listed = |name: &[u8]| name.starts_with(AID) || DIRECTORIES.contains(&name);
            assert_eq!(command.cla & 0x43, 0, "another channel's: {command:?}");
            if by_name {
                assert!(listed(command.data()), "{command:?}");
            } else {
                assert!(self.selected || command.ins == GET_RESPONSE, "{command:?}");
                assert_ne!(command.ins, SELECT, "not by name: {command:?}");
            }
        }
        if by_name {
            self.selecting = Some(command.data().to_vec());
        }
        // Whatever may pay by an amount that can be read.
        let alarm = self.access.is_alarm().then_some(&self.alarm);
        for limits in [Some(&self.rules.limits), alarm].into_iter().flatten() {
            let Some(money) = money else { continue };
            if limits.has_amount() {
                assert_eq!(Some(money.currency), limits.currency, "{command:?}");
                let max = limits.max_amount.unwrap_or(u64::MAX);
                assert!(money.amount <= max || !is_payment(&command), "{command:?}");
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        if !self.waits {
            return; // no command, no response
        }
        self.waits = false;
        let answered = self.policy.answered(bytes);
        let exchange = self.policy.exchange();
        assert_eq!(exchange.check, answered.err().map(PolicyRefusal::check));
        let response = Response::parse(bytes);
        assert_eq!(exchange.status, response.as_ref().map(|response| response.status.word()));
        let Some(response) = response else { return };
        // There is more of it, or will be for whoever asks for the right length.
        let status = response.status;
        if status.more_available().is_some() || status.exact_length().is_some() {
            return;
        }
        // The card may have selected another than it was asked for: then nothing is.
        if self.selecting.take().is_some() && status == Status::OK {
            self.selected = true;
        }
    }

    fn reset(&mut self) {
        self.policy.reset();
        (self.selecting, self.selected, self.waits) = (None, false, false);
    }

    fn begin_again(&mut self) {
        self.policy = self.fresh();
        (self.selecting, self.selected, self.waits) = (None, false, false);
    }

    fn fresh(&self) -> Policy {
        let rules = self.rules.clone();
        Policy::new(rules, &self.alarm, self.access, self.stored).expect("sound rules")
    }

    fn check_usage(&mut self) {
        self.stored = self.policy.changed_usage().unwrap_or(self.stored);
        assert!(self.policy.changed_usage().is_none(), "told twice");
        let used = self.stored.at(self.now);
        let within = |limits: &CardLimits, uses: u32, spent: u64| {
            limits.max_uses.is_none_or(|max| uses <= max)
                && limits.max_total.is_none_or(|max| spent <= max)
        };
        assert!(within(&self.rules.limits, used.all.uses, used.all.spent), "{used:?}");
        if self.access.is_alarm() {
            assert!(within(&self.alarm, used.alarm.uses, used.alarm.spent), "{used:?}");
            assert!(used.alarm.uses <= used.all.uses && used.alarm.spent <= used.all.spent);
        }
        assert_eq!(self.policy.limits(self.now), self.fresh().limits(self.now));
    }
}

/// GENERATE AC for a cryptogram that pays, or GET PROCESSING OPTIONS.
fn is_payment(command: &Command) -> bool {
    let proprietary = command.cla & 0x80 != 0;
    proprietary && (command.ins == 0xAE || command.ins == 0xA8)
}

#[cfg(test)]
mod tests {
    use countersign_wallet::policy::Commands;

    use super::*;

    /// The oracle of the target knows the same list as the rules that it makes.
    #[test]
    fn the_targets_rules_list_one_application() {
        let card = Card::new(&mut Script::new(&[0]));
        assert!(card.lists_applications() && card.rules.aids.allow(AID));
        assert!(matches!(card.rules.commands, Commands::Emv));
        assert!(!Card::new(&mut Script::new(&[2])).lists_applications());
    }
    /// Four payments of 12.34, of which three may be: bytes of older rules would reach nothing.
    #[test]
    fn the_seeds_pay() {
        let seeds = crate::seeds::seeds("wallet_policy");
        let used = |name: &str| {
            let (_, seed) = seeds.iter().find(|(one, _)| one == name).expect("a seed");
            let used = play(seed).stored.all;
            (used.uses, used.spent)
        };
        assert_eq!(used("seed-pays"), (3, 3 * 1234));
        assert_eq!(used("seed-too-much"), (0, 0));
        assert_eq!(used("seed-other-currency"), (0, 0));
        assert_eq!(used("seed-without-contact"), (1, 1234));
    }
}

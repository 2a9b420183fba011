//! Payments: which commands are one, how much they are for, and whether that may be.
//!
//! A transaction begins with GET PROCESSING OPTIONS and has at most two GENERATE ACs (EMV Book 3,
//! 9). What it is for stands in the data that the card's own lists ask for: PDOL in the response to
//! SELECT, CDOL1 and CDOL2 in records. Where there is an amount limit, whatever might authorise a
//! payment whose amount cannot be told for sure is refused.
//!
//! What is remembered here must be what the card remembers. So nothing changes by a command that
//! was refused, for the card never saw it; the lists are those of the records that this transaction
//! names; and what the card has begun to answer is not forgotten for an error that comes later.

use core::fmt;

use countersign_crypto::UnixTime;
use countersign_iso7816::{Command, Response, Status, tlv};
use zeroize::Zeroizing;

use super::dol::Dol;
use super::{CardLimits, Commands, Money, PolicyRefusal, Tally, Usage};
use crate::login::Access;
use crate::message::{APDU_MAX, Limits};

/// GET PROCESSING OPTIONS.
const PROCESSING_OPTIONS: u8 = 0xa8;
/// READ RECORD.
const READ_RECORD: u8 = 0xb2;
/// GENERATE AC.
const GENERATE_AC: u8 = 0xae;
/// PERFORM SECURITY OPERATION, in both of its encodings; of a payment card, a checksum of the
/// magnetic stripe's kind.
const SECURITY_OPERATION: u8 = 0x2a;
const SECURITY_OPERATION_BER: u8 = 0x2b;
/// GET DATA, and EXCHANGE RELAY RESISTANCE DATA: proprietary, and no payment.
const HARMLESS: [u8; 2] = [0xca, 0xea];
/// What else a card signs, decrypts or authenticates with: GENERAL AUTHENTICATE, INTERNAL
/// AUTHENTICATE.
const AUTHENTICATE: [u8; 3] = [0x86, 0x87, 0x88];
/// Bit of CLA: not one of ISO/IEC 7816-4's own.
const PROPRIETARY: u8 = 0x80;
/// Bit of CLA: more of the same follows.
const CHAINED: u8 = 0x10;
/// Which cryptogram a GENERATE AC asks for; none of them set is a decline (EMV Book 3, 6.5.5).
const CRYPTOGRAM: u8 = 0xc0;
/// GENERATE ACs of a transaction.
const GENERATE_ACS_MAX: u8 = 2;
/// Status words of an error: nothing was done (ISO/IEC 7816-4, 5.6).
const ERRORS: core::ops::RangeInclusive<u16> = 0x6400..=0x6fff;
/// Tag and length of a cryptogram.
const CRYPTOGRAM_HEAD: [u8; 3] = [0x9f, 0x26, 8];
const CRYPTOGRAM_TAG: u16 = 0x9f26;
/// Bit of a tag's first byte.
const CONSTRUCTED: u16 = 0x20;
/// Bytes of the interchange profile, and of an entry of the file locator.
const PROFILE_LEN: usize = 2;
const LOCATOR_LEN: usize = 4;

/// What the last command was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    /// READ RECORD: file and number.
    Record(u8, u8),
    Options,
    Cryptogram,
}

/// The last command that went to the card, until the next one does.
#[derive(Default)]
struct Sent {
    kind: Kind,
    /// Usage and transaction before it, until it is known what the card did: a card that does
    /// nothing costs nothing.
    before: Option<(Usage, Transaction)>,
    /// Of its response: what came in parts, and whether any did.
    collected: Zeroizing<Vec<u8>>,
    in_parts: bool,
}

/// Nothing of a response: there is a card's number in it.
impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sent({:?})", self.kind)
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A payment, once a transaction.
    Payment,
    /// A signature or an authentication of another kind of card, each.
    Signature,
}

/// The card's lists.
#[derive(Debug, Default)]
struct Lists {
    pdol: Option<Dol>,
    /// Which records the transaction has: file, first, last, and what matters not here.
    records: Vec<[u8; LOCATOR_LEN]>,
    /// Unclear if two records hold different ones: `Some(None)`.
    cdol1: Option<Option<Dol>>,
    cdol2: Option<Option<Dol>>,
}

/// What is under way.
#[derive(Debug, Default, Clone, Copy)]
struct Transaction {
    /// The card has taken its processing options.
    begun: bool,
    /// What was counted for it.
    counted: Option<u64>,
    generate_acs: u8,
}

#[derive(Debug)]
pub(super) struct Emv {
    limits: (CardLimits, CardLimits),
    access: Access,
    usage: Usage,
    changed: bool,
    /// Only the commands of a payment.
    strict: bool,
    /// Any command: also such as nobody here knows.
    unlisted: bool,
    lists: Lists,
    transaction: Transaction,
    sent: Sent,
    money: Option<Money>,
}

impl Emv {
    pub(super) fn new(
        limits: (CardLimits, CardLimits),
        access: Access,
        usage: Usage,
        commands: &Commands,
    ) -> Self {
        Self {
            limits,
            access,
            usage,
            changed: false,
            strict: *commands == Commands::Emv,
            unlisted: *commands == Commands::Any,
            lists: Lists::default(),
            transaction: Transaction::default(),
            sent: Sent::default(),
            money: None,
        }
    }

    pub(super) const fn money(&self) -> Option<Money> {
        self.money
    }

    pub(super) fn changed_usage(&mut self) -> Option<Usage> {
        core::mem::take(&mut self.changed).then_some(self.usage)
    }

    /// The limits that count: the second pair after an alarm only.
    fn each_limit(&self, usage: Usage) -> impl Iterator<Item = (CardLimits, Tally)> + use<> {
        let (usual, alarm) = self.limits;
        let alarm = self.access.is_alarm().then_some((alarm, usage.alarm));
        [Some((usual, usage.all)), alarm].into_iter().flatten()
    }

    pub(super) fn is_limited(&self) -> bool {
        self.each_limit(self.usage).any(|(limit, _)| limit.is_limited())
    }

    fn has_amount_limit(&self) -> bool {
        self.each_limit(self.usage).any(|(limit, _)| limit.has_amount())
    }

    pub(super) fn limits(&self, now: UnixTime) -> Limits {
        let mut least = Limits::NONE;
        for (limit, tally) in self.each_limit(self.usage.at(now)) {
            let uses = limit.max_uses.map(|max| max.saturating_sub(tally.uses));
            let total = limit.max_total.map(|max| max.saturating_sub(tally.spent));
            least.uses = least.uses.min(uses.unwrap_or(u32::MAX));
            let payment = limit.max_amount.unwrap_or(u64::MAX).min(total.unwrap_or(u64::MAX));
            least.payment = least.payment.min(payment);
            if let Some(currency) = limit.currency.filter(|_| limit.has_amount()) {
                least.currency = currency;
            }
        }
        least
    }

    /// A SELECT goes to the card, or it was reset: whatever comes of it, what was known before is
    /// not relied on.
    pub(super) fn forget(&mut self) {
        (self.lists, self.transaction) = (Lists::default(), Transaction::default());
        self.sent = Sent::default();
    }

    /// Whether a command must have the short form: all of a payment card's do, and what pays.
    pub(super) fn takes_short_only(&self, command: &Command) -> bool {
        let pays = matches!(command.ins, PROCESSING_OPTIONS | GENERATE_AC);
        self.strict || (pays && self.is_limited())
    }

    /// An application was selected: its PDOL.
    pub(super) fn selected(&mut self, fci: &[u8]) {
        self.lists.pdol = pdol_of(fci);
    }

    pub(super) fn forget_command(&mut self) {
        self.money = None;
    }

    /// Whether a command may go to the card, and what it changes if so.
    pub(super) fn check(&mut self, now: UnixTime, command: &Command) -> Result<(), PolicyRefusal> {
        let proprietary = command.cla & PROPRIETARY != 0;
        let authenticates = AUTHENTICATE.contains(&command.ins) && !self.strict;
        let (kind, before) = match command.ins {
            // The response is the last command's still.
            super::GET_RESPONSE => return Ok(()),
            READ_RECORD if !proprietary => {
                let by_number = command.p2 & 7 == 4;
                (Kind::Record(if by_number { command.p2 >> 3 } else { 0 }, command.p1), None)
            }
            // By any class, as not all cards look at it.
            PROCESSING_OPTIONS => (Kind::Options, Some(self.options(now, command)?)),
            GENERATE_AC => (Kind::Cryptogram, Some(self.generate_ac(now, command)?)),
            // A checksum for the magnetic stripe pays, and says no amount.
            SECURITY_OPERATION | SECURITY_OPERATION_BER
                if proprietary && self.has_amount_limit() =>
            {
                return Err(PolicyRefusal::AmountUnreadable);
            }
            SECURITY_OPERATION | SECURITY_OPERATION_BER => {
                (Kind::Other, Some(self.count(now, Use::Signature, None)?))
            }
            _ if authenticates => (Kind::Other, Some(self.count(now, Use::Signature, None)?)),
            ins if proprietary
                && self.unlisted
                && self.has_amount_limit()
                && !HARMLESS.contains(&ins) =>
            {
                return Err(PolicyRefusal::AmountUnreadable);
            }
            _ => (Kind::Other, None),
        };
        self.sent = Sent { kind, before, ..Sent::default() };
        Ok(())
    }

    /// GET PROCESSING OPTIONS: without contact the response may already be the payment, so it
    /// counts where the card asks for the amount there.
    fn options(
        &mut self,
        now: UnixTime,
        command: &Command,
    ) -> Result<(Usage, Transaction), PolicyRefusal> {
        self.check_whole(command)?;
        let data = tlv::only(command.data(), 0x83).ok();
        let list = self.lists.pdol.as_ref();
        let asks = list.is_some_and(Dol::has_amount);
        self.money = list.zip(data).and_then(|(list, data)| list.money(data));
        if asks && self.money.is_none() && self.has_amount_limit() {
            return Err(PolicyRefusal::AmountUnreadable);
        }
        let before = (self.usage, core::mem::take(&mut self.transaction));
        if asks {
            let counted = self.count(now, Use::Payment, self.money);
            counted.inspect_err(|_| self.transaction = before.1)?;
        }
        Ok(before)
    }

    fn generate_ac(
        &mut self,
        now: UnixTime,
        command: &Command,
    ) -> Result<(Usage, Transaction), PolicyRefusal> {
        self.check_whole(command)?;
        let Transaction { begun, generate_acs: again, .. } = self.transaction;
        if again >= GENERATE_ACS_MAX && (self.strict || self.is_limited()) {
            return Err(PolicyRefusal::Again);
        }
        let list = if again == 0 { &self.lists.cdol1 } else { &self.lists.cdol2 };
        let list = list.as_ref().and_then(Option::as_ref).filter(|_| begun);
        self.money = list.and_then(|list| list.money(command.data()));
        // The second may say no amount at all: it is about what was counted for the first.
        let settled = again > 0
            && self.transaction.counted.is_some()
            && list.is_some_and(|list| !list.has_amount() && list.fits(command.data()));
        if self.money.is_none() && !settled && self.has_amount_limit() {
            return Err(PolicyRefusal::AmountUnreadable);
        }
        let before = (self.usage, self.transaction);
        let pays = command.p1 & CRYPTOGRAM != 0;
        if let Some(money) = self.money {
            self.admit(money)?;
        }
        if pays && !settled {
            self.count(now, Use::Payment, self.money)?;
        }
        self.transaction.generate_acs = again.saturating_add(1);
        Ok(before)
    }

    /// What pays says all of it at once: not a part of a chain.
    fn check_whole(&self, command: &Command) -> Result<(), PolicyRefusal> {
        if command.cla & CHAINED != 0 && self.is_limited() {
            return Err(PolicyRefusal::AmountUnreadable);
        }
        Ok(())
    }

    /// Whether one payment may be of this amount.
    fn admit(&self, money: Money) -> Result<(), PolicyRefusal> {
        for (limit, _) in self.each_limit(self.usage).filter(|(limit, _)| limit.has_amount()) {
            if limit.currency != Some(money.currency) {
                return Err(PolicyRefusal::Currency);
            }
            if limit.max_amount.is_some_and(|max| money.amount > max) {
                return Err(PolicyRefusal::Amount);
            }
        }
        Ok(())
    }

    /// Counts a use, and what its amount adds to what was counted for this transaction already.
    /// Gives what there was before.
    fn count(
        &mut self,
        now: UnixTime,
        kind: Use,
        money: Option<Money>,
    ) -> Result<(Usage, Transaction), PolicyRefusal> {
        if let Some(money) = money {
            self.admit(money)?;
        }
        let before = (self.usage, self.transaction);
        let counted = self.transaction.counted.filter(|_| kind == Use::Payment);
        let uses = u32::from(counted.is_none());
        let amount = money.map_or(0, |money| money.amount).max(counted.unwrap_or(0));
        let more = amount - counted.unwrap_or(0);
        self.usage = self.usage.at(now);
        for (limit, tally) in self.each_limit(self.usage) {
            let after = tally.plus(uses, more);
            let refused = if uses > 0 && limit.max_uses.is_some_and(|max| after.uses > max) {
                PolicyRefusal::Uses
            } else if more > 0 && limit.max_total.is_some_and(|max| after.spent > max) {
                PolicyRefusal::Total
            } else {
                continue;
            };
            self.usage = before.0;
            return Err(refused);
        }
        self.usage.all = self.usage.all.plus(uses, more);
        if self.access.is_alarm() {
            self.usage.alarm = self.usage.alarm.plus(uses, more);
        }
        self.changed = true;
        if kind == Use::Payment {
            self.transaction.counted = Some(amount);
        }
        Ok(before)
    }

    /// The whole response, once its last part is there.
    ///
    /// # Errors
    /// [`PolicyRefusal::AmountUnreadable`]: this part must not leave.
    pub(super) fn collect(
        &mut self,
        response: &Response,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, PolicyRefusal> {
        let status = response.status;
        let more = status.more_available().is_some();
        // The rest is still there for whoever asks for the right length.
        if self.sent.in_parts && status.exact_length().is_some() {
            return Ok(None);
        }
        self.sent.in_parts |= more;
        let mut collected = core::mem::take(&mut self.sent.collected);
        if collected.len() + response.data.len() > APDU_MAX {
            collected = Zeroizing::default();
        }
        let whole = if collected.is_empty() {
            Zeroizing::new(response.data.to_vec())
        } else {
            // A copy of the right size, as growing in place would leave parts behind.
            Zeroizing::new([&collected[..], &response.data].concat())
        };
        if self.is_unread_payment(status, &whole) {
            return Err(PolicyRefusal::AmountUnreadable);
        }
        if more {
            self.sent.collected = whole;
            return Ok(None);
        }
        Ok(Some(whole))
    }

    /// Whether this may be the cryptogram of a payment that was not counted, as its amount was not
    /// told. What cannot be read may be.
    fn is_unread_payment(&self, status: Status, data: &[u8]) -> bool {
        if !self.is_limited() || self.transaction.counted.is_some() {
            return false;
        }
        match self.sent.kind {
            Kind::Options if status.more_available().is_some() => !data.is_empty(),
            Kind::Options => !is_error(status, data) && locator_of(data).is_none(),
            Kind::Record(..) => {
                data.windows(CRYPTOGRAM_HEAD.len()).any(|bytes| bytes == CRYPTOGRAM_HEAD)
            }
            Kind::Cryptogram | Kind::Other => false,
        }
    }

    /// What the card has done, now that it has said all.
    pub(super) fn answered(&mut self, status: Status, data: &[u8]) {
        let failed = is_error(status, data);
        let declined = self.sent.kind == Kind::Cryptogram && status.is_ok() && is_decline(data);
        if let Some((usage, transaction)) = self.sent.before.take()
            && ((failed && !self.sent.in_parts) || declined)
        {
            self.changed |= self.usage != usage;
            self.usage = usage;
            let generate_acs = self.transaction.generate_acs;
            self.transaction = transaction;
            if declined {
                self.transaction.generate_acs = generate_acs;
            }
        }
        match self.sent.kind {
            Kind::Record(file, number) if status.is_ok() => self.record(file, number, data),
            Kind::Options if status.is_ok() && !self.transaction.begun => {
                self.transaction.begun = true;
                let pdol = self.lists.pdol.take();
                let records = locator_of(data).unwrap_or_default();
                self.lists = Lists { pdol, records, ..Lists::default() };
            }
            _ => {}
        }
    }

    /// A record may hold the lists, if it is one of this transaction's.
    fn record(&mut self, file: u8, number: u8, data: &[u8]) {
        let is_of = |entry: &[u8; LOCATOR_LEN]| {
            entry[0] >> 3 == file && (entry[1]..=entry[2]).contains(&number)
        };
        if !self.lists.records.iter().any(is_of) {
            return;
        }
        let Ok(mut rest) = tlv::only(data, 0x70) else { return };
        while let Ok((object, after)) = tlv::read(rest) {
            rest = after;
            let place = match object.tag {
                0x8c => &mut self.lists.cdol1,
                0x8d => &mut self.lists.cdol2,
                _ => continue,
            };
            let list = Dol::parse(object.value);
            match place {
                None => *place = Some(list),
                Some(known) if *known != list => *known = None,
                Some(_) => {}
            }
        }
    }
}

/// Whether the card did nothing, and says so.
fn is_error(status: Status, data: &[u8]) -> bool {
    data.is_empty() && ERRORS.contains(&status.word())
}

/// The value of the first object with this tag, one level deep.
fn find(bytes: &[u8], tag: u16) -> Option<&[u8]> {
    let mut rest = bytes;
    while let Ok((object, after)) = tlv::read(rest) {
        if object.tag == tag {
            return Some(object.value);
        }
        rest = after;
    }
    None
}

/// PDOL in the file control information of an application (EMV Book 1, 11.3.4).
fn pdol_of(fci: &[u8]) -> Option<Dol> {
    let proprietary = find(tlv::only(fci, 0x6f).ok()?, 0xa5)?;
    Dol::parse(find(proprietary, 0x9f38)?)
}

/// The name that the card gives to what it selected.
pub(super) fn name_of(fci: &[u8]) -> Option<&[u8]> {
    find(tlv::only(fci, 0x6f).ok()?, 0x84)
}

/// Which records the answer to GET PROCESSING OPTIONS names, in either format (EMV Book 3,
/// 6.5.8.4); `None` if there may be a cryptogram in it, or it is none.
fn locator_of(data: &[u8]) -> Option<Vec<[u8; LOCATOR_LEN]>> {
    let locator = match tlv::only(data, 0x80) {
        Ok(value) => value.get(PROFILE_LEN..)?,
        Err(_) => locator_among(tlv::only(data, 0x77).ok()?)?,
    };
    let (entries, rest) = locator.as_chunks::<LOCATOR_LEN>();
    let is_sound = |&[file, first, last, signed]: &[u8; LOCATOR_LEN]| {
        file & 7 == 0
            && (1..=30).contains(&(file >> 3))
            && first > 0
            && first <= last
            && signed <= last - first + 1
    };
    (rest.is_empty() && entries.iter().all(is_sound)).then(|| entries.to_vec())
}

/// The same among the objects of format 2, all of which can be read.
fn locator_among(mut objects: &[u8]) -> Option<&[u8]> {
    let mut locator = None;
    while !objects.is_empty() {
        let (object, after) = tlv::read(objects).ok()?;
        let first = if object.tag > 0xff { object.tag >> 8 } else { object.tag };
        match object.tag {
            0x94 if locator.is_none() => locator = Some(object.value),
            // Others may be within a constructed one.
            0x94 | CRYPTOGRAM_TAG => return None,
            _ if first & CONSTRUCTED != 0 => return None,
            _ => {}
        }
        objects = after;
    }
    Some(locator.unwrap_or_default())
}

/// Whether the card declined: its cryptogram says so, in either format (EMV Book 3, 6.5.5.4).
fn is_decline(data: &[u8]) -> bool {
    let information = match tlv::only(data, 0x80) {
        Ok(value) => value.first().copied(),
        Err(_) => tlv::only(data, 0x77).ok().and_then(|objects| match find(objects, 0x9f27) {
            Some(&[information]) => Some(information),
            _ => None,
        }),
    };
    information.is_some_and(|information| information & CRYPTOGRAM == 0)
}

//! Terminals into which signing cards are put: honest ones, and those that alter, swap, replay and
//! guess. What they bring is judged by what cards really did, not by what a terminal meant to do.

use countersign_crypto::Secret;
use countersign_payment::joint::{Commitment, Form, JointPassword};
use countersign_service::JointAnswer;
use testkit::rng::seeded;

use crate::calls::{Call, from_end};
use crate::forge;
use crate::judge::Violation;
use crate::plan::{Holder, Stage, Turn, Twist};
use crate::saboteurs::Sabotage;
use crate::signing::{Draw, SigningCard, Visit};
use crate::snapshot::Payment;
use crate::world::{Envelope, Joint, Way, Words, World};

/// Longer than a card waits for a PIN, or shows a joint password.
const TOO_LONG: std::time::Duration = std::time::Duration::from_secs(121);

/// What a card signed for a payment, in the hands of a terminal, or of who listened to it.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) payment: String,
    pub(crate) device: usize,
    /// What was signed: at its place among all that the card ever signed.
    pub(crate) draw: usize,
    /// The joint password as it came from the card, if it did.
    pub(crate) password: Option<String>,
}

/// Why an answer had to be refused.
pub(crate) struct Reason {
    pub(crate) incident: String,
    pub(crate) checks: &'static [&'static str],
}

/// Every way in which a card that is not in use any more is refused.
const GONE: &[&str] =
    &["device-not-bound", "device-blocked", "device-revoked", "certificate-revoked"];

/// What is wrong with what a terminal brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It has no form, and so is no answer.
    Form,
    /// The check that has to refuse it.
    Check(&'static [&'static str]),
}

impl World {
    /// A signing card at a terminal: a request to a server, if it comes to that.
    pub(crate) fn turn(&mut self, turn: &Turn) -> Option<Call> {
        match turn.stage {
            Stage::Terms => {
                let payment = self.payment(turn.back)?;
                let creator = *self.creators.get(&payment)?;
                Some(Call::Terms(payment, self.other_terminal(creator, turn)))
            }
            Stage::Sign => {
                self.have_signed(turn);
                None
            }
            Stage::Decide => {
                let at = from_end(self.kept.len(), turn.back)?;
                self.have_decided(at, turn);
                None
            }
            Stage::Bring => {
                let at = from_end(self.kept.len(), turn.back)?;
                self.bring(at, turn)
            }
            Stage::All => {
                let at = self.have_signed(turn)?;
                if turn.twist == Twist::SkipsConsent {
                    return self.bring(at, turn);
                }
                let last = match turn.twist {
                    Twist::SignsTwice => self.have_signed(turn)?,
                    _ => at,
                };
                self.have_decided(last, turn);
                if last != at {
                    let password = self.kept[last].password.clone();
                    self.kept[at].password = password;
                }
                self.bring(at, turn)
            }
        }
    }

    fn other_terminal(&self, creator: usize, turn: &Turn) -> usize {
        match turn.twist {
            Twist::OtherTerminal => (creator + 1) % self.terminals.len(),
            _ => creator,
        }
    }

    fn note(&mut self, visit: Visit) {
        for what in visit.happened {
            self.tally.add(what);
        }
        self.found.extend(visit.found);
    }

    /// A card signs; where it lies among what is kept then. None if the terminal gave up.
    fn have_signed(&mut self, turn: &Turn) -> Option<usize> {
        let payment = self.payment_to_answer(turn.back, turn.card)?;
        let row = self.now.payments.get(&payment)?.clone();
        let own = self.payers.iter().position(|payer| payer.account == row.payer)?;
        let whose = match turn.twist {
            Twist::ForeignCard => (own + 1) % self.payers.len(),
            _ => own,
        };
        let cards = &self.payers[whose].cards;
        // Mostly the newest: the others are gone.
        let back = if turn.card.is_multiple_of(8) { usize::from(turn.card / 8) } else { 0 };
        let device = cards[cards.len() - 1 - back % cards.len()];
        let transaction = self.to_sign(&payment, &row, turn.twist)?;
        let forms = if turn.form.is_multiple_of(4) { &Form::ALL[..] } else { &self.house.forms };
        let form = forms[usize::from(turn.form / 16) % forms.len()];
        let (mut rng, mut chance) = (self.house.rng(), seeded(turn.torn.into()));
        let now = self.house.now();
        let card = self.devices[device].signing_mut()?;
        let before = card.draws().len();
        card.tick(now);
        let (signed, visit) = card.sign(&transaction, (form, turn.twist), &mut chance, &mut rng);
        let count = card.draws().len();
        self.note(visit);
        for draw in before..count {
            let heard = signed.is_some() && draw + 1 == count;
            let payment = payment.clone();
            self.kept.push(Kept { payment, device, draw, password: None });
            self.tally.add(if heard { "joint signed" } else { "joint signed unheard" });
        }
        if signed.is_none() {
            self.tally.add("terminals gave up");
        }
        signed.map(|_| self.kept.len() - 1)
    }

    /// What the terminal gives the card.
    fn to_sign(&self, id: &str, row: &Payment, twist: Twist) -> Option<Vec<u8>> {
        let transaction = match twist {
            Twist::OtherAmount => forge::with(&row.request, "amount", forge::AMOUNT),
            Twist::OtherPayee => forge::with(&row.request, "payeeAccount", "THIEF0001"),
            Twist::OtherPayment => {
                let others = self.now.payments.iter().rev();
                let mut others =
                    others.filter(|(other, one)| *other != id && one.payer == row.payer);
                others.next()?.1.request.clone()
            }
            _ => row.request.clone(),
        };
        Some(transaction)
    }

    /// The holder of the card decides; a joint password comes to the terminal, or does not.
    fn have_decided(&mut self, at: usize, turn: &Turn) {
        let kept = self.kept[at].clone();
        let Some(agreed) = self.now.payments.get(&kept.payment).map(|it| it.request.clone()) else {
            return;
        };
        let (mut rng, mut chance) = (self.house.rng(), seeded(u64::from(turn.torn) << 1 | 1));
        let Some(card) = self.tick_card(kept.device) else { return };
        if turn.holder == Holder::Dawdles {
            card.take_out();
            self.let_it_be_late(kept.device, turn);
        }
        let Some(card) = self.tick_card(kept.device) else { return };
        let (consented, visit) = card.decide(turn.holder, &agreed);
        self.note(visit);
        if turn.holder == Holder::Forgetful && consented {
            self.let_it_be_late(kept.device, turn);
            self.tally.add("brought too late");
        }
        let Some(card) = self.tick_card(kept.device) else { return };
        let signed = card.draws()[kept.draw].signed();
        let told = card.fetch(turn.carry, (&signed, turn.twist), &mut chance, &mut rng);
        let (password, visit) = told;
        self.note(visit);
        let digits = password.map(|it| JointPassword::parse(&it).unwrap().digits().to_owned());
        self.kept[at].password = digits.or(self.kept[at].password.take());
    }

    fn tick_card(&mut self, device: usize) -> Option<&mut SigningCard> {
        let now = self.house.now();
        let card = self.devices[device].signing_mut()?;
        card.tick(now);
        Some(card)
    }

    /// Time passes: for everybody, or by the card's clock only, which is one of its own.
    fn let_it_be_late(&mut self, device: usize, turn: &Turn) {
        if turn.torn.is_multiple_of(4) {
            self.house.pass(TOO_LONG);
        } else if let Some(card) = self.devices[device].signing_mut() {
            card.runs_ahead(TOO_LONG);
        }
    }

    /// The terminal brings what it has, which lies in the mail then.
    fn bring(&mut self, at: usize, turn: &Turn) -> Option<Call> {
        let kept = self.kept[at].clone();
        let draw = self.devices[kept.device].signing()?.draws()[kept.draw].clone();
        let guesses = matches!(turn.twist, Twist::SkipsConsent | Twist::Guesses);
        let password = match &kept.password {
            _ if guesses => self.guess(turn),
            Some(password) => password.clone(),
            // Without consent there is nothing to bring; an honest terminal gives up.
            None if turn.torn.is_multiple_of(3) => {
                self.tally.add("cancelled by the terminal");
                return turn.now.then_some(Call::Cancel(kept.payment));
            }
            None if turn.torn % 3 == 1 => self.guess(turn),
            None => return None,
        };
        let request = self.now.payments.get(&kept.payment)?.request.clone();
        let brought = if turn.torn.is_multiple_of(2) { request } else { draw.transaction.clone() };
        let joint = Joint {
            transaction: brought,
            commitment: draw.commitment.clone(),
            signature: draw.signature.clone(),
            password,
        };
        let creator = *self.creators.get(&kept.payment)?;
        let terminal = self.other_terminal(creator, turn);
        let mut envelope = Envelope {
            payment: kept.payment.clone(),
            device: kept.device,
            serial: self.devices[kept.device].serial.clone(),
            words: Words::Joint(Box::new(joint.clone())),
            way: Way::Terminal(terminal),
            genuine: false,
            answered: None,
            sent: false,
            closed: false,
        };
        envelope.words = self.twisted(&mut envelope, joint, &kept, turn)?;
        self.tally.add(turn.twist.name());
        envelope.genuine = self.is_genuine(&envelope);
        self.mail.push(envelope);
        turn.now.then(|| Call::Deliver(self.mail.len() - 1))
    }

    fn guess(&mut self, turn: &Turn) -> String {
        self.tally.add("joint passwords guessed");
        let mut rng = seeded(u64::from(turn.torn) ^ 0x6775_6573_7300_0000);
        JointPassword::random(&mut rng).unwrap().digits().to_owned()
    }

    /// What comes of what is brought, in the hands of this terminal. None where it has not got what
    /// it takes.
    fn twisted(
        &self,
        envelope: &mut Envelope,
        mut joint: Joint,
        kept: &Kept,
        turn: &Turn,
    ) -> Option<Words> {
        let card = self.devices[kept.device].signing()?;
        let others = || card.draws().iter().enumerate().rev().filter(|(at, _)| *at != kept.draw);
        let other = || others().next().map(|(_, draw)| draw);
        // No terminal has a joint password that never left the card.
        let is_told = |draw: &Draw| card.consents().iter().any(|one| one.password == draw.password);
        let told = || others().map(|(_, draw)| draw).find(|draw| is_told(draw));
        match turn.twist {
            Twist::Mistypes => mistype(&mut joint.password, turn.torn),
            Twist::OldPassword => joint.password = told()?.password.clone(),
            Twist::AltersAfter => {
                joint.transaction = forge::with(&joint.transaction, "amount", forge::AMOUNT);
            }
            Twist::SwapsSignature => joint.signature = other()?.signature.clone(),
            Twist::SwapsCommitment => joint.commitment = other()?.commitment.clone(),
            Twist::SwapsBoth => {
                let other = told()?;
                joint.commitment.clone_from(&other.commitment);
                joint.signature.clone_from(&other.signature);
                joint.password.clone_from(&other.password);
            }
            Twist::FlipsSignature => flip(&mut joint.signature, turn.torn),
            Twist::FlipsCommitment => flip(&mut joint.commitment, turn.torn),
            Twist::OtherForm => joint.commitment[0] = joint.commitment[0] % 3 + 1,
            Twist::OtherCard | Twist::OtherDevice => {
                let joint = |at: &usize| self.devices[*at].signing().is_some();
                let mut places = (0..self.devices.len()).rev();
                let at = match turn.twist {
                    Twist::OtherCard => places.find(|at| *at != kept.device && joint(at))?,
                    _ => *self.payers[self.devices[kept.device].payer].devices.last()?,
                };
                envelope.device = at;
                envelope.serial.clone_from(&self.devices[at].serial);
            }
            Twist::UnknownDevice => envelope.serial = "KEY-0".to_owned(),
            Twist::OtherTarget => {
                let row = self.now.payments.get(&kept.payment)?;
                let mut others = self.now.payments.iter().rev();
                let (id, _) = others.find(|(id, one)| {
                    **id != kept.payment && one.payer == row.payer && one.state == "pending"
                })?;
                envelope.payment.clone_from(id);
                envelope.way = Way::Terminal(*self.creators.get(id)?);
            }
            Twist::AsAPhone => {
                let phones = &self.payers[self.devices[kept.device].payer].phones;
                envelope.way = Way::Phone(*phones.first()?);
                return Some(Words::Signature(joint.signature));
            }
            _ => {}
        }
        Some(Words::Joint(Box::new(joint)))
    }

    /// Whether what is brought is what a card signed over what is stored, and drew for it.
    fn is_genuine(&self, envelope: &Envelope) -> bool {
        matches!(envelope.words, Words::Joint(_)) && self.joint_wrong(envelope, false).is_none()
    }

    /// What is wrong with what a terminal brings, by what is stored and what cards did; `today`,
    /// also whether the card may be used at all.
    pub(crate) fn joint_wrong(&self, envelope: &Envelope, today: bool) -> Option<Wrong> {
        let Words::Joint(joint) = &envelope.words else { return None };
        let check = |name| Some(Wrong::Check(name));
        let (Ok(commitment), Ok(password)) =
            (Commitment::parse(&joint.commitment), JointPassword::parse(&joint.password))
        else {
            return Some(Wrong::Form);
        };
        let Some(payment) = self.now.payments.get(&envelope.payment) else {
            return check(&["joint-transaction"]);
        };
        if !self.house.forms.contains(&commitment.form()) {
            return check(&["joint-form"]);
        }
        if joint.transaction != payment.request {
            return check(&["joint-transaction"]);
        }
        let device = &self.devices[envelope.device];
        if device.serial != envelope.serial {
            return check(&["device-unknown"]);
        }
        if self.payers[device.payer].account != payment.payer {
            return check(&["device-not-bound"]);
        }
        let live = self.now.devices.get(&device.id).is_some_and(|row| row.status == "enrolled");
        if today && (device.gone || !live) {
            return check(GONE);
        }
        let Some(card) = device.signing() else { return check(&["method"]) };
        let draw = card.draws().iter().find(|draw| {
            (&draw.transaction, &draw.commitment, &draw.signature)
                == (&joint.transaction, &joint.commitment, &joint.signature)
        });
        match draw {
            None => check(&["answer-signature"]),
            Some(draw) if draw.password != password.digits() => check(&["joint-password"]),
            Some(_) => None,
        }
    }

    /// What a terminal sends. A server that leaves out a check is one that is shown what passes it.
    pub(crate) fn to_joint_answer(&self, envelope: &Envelope, joint: &Joint) -> JointAnswer {
        let mut sent = joint.clone();
        let draws = self.devices[envelope.device].signing().map_or(&[][..], |card| card.draws());
        let same = |draw: &&Draw| draw.signature == joint.signature;
        if self.sabotage == Sabotage::ServerSkipsPassword
            && let Some(draw) = draws.iter().find(same)
        {
            sent.password.clone_from(&draw.password);
        }
        if self.sabotage == Sabotage::ServerSkipsTransaction
            && let Some(payment) = self.now.payments.get(&envelope.payment)
        {
            sent.transaction.clone_from(&payment.request);
        }
        if self.sabotage == Sabotage::ServerSkipsSignature
            && let Some(draw) = draws.iter().rev().find(|it| it.transaction == sent.transaction)
        {
            sent.commitment.clone_from(&draw.commitment);
            sent.signature.clone_from(&draw.signature);
            sent.password.clone_from(&draw.password);
        }
        JointAnswer {
            transaction: sent.transaction,
            device_serial: envelope.serial.clone(),
            commitment: sent.commitment,
            signature: sent.signature,
            password: Secret::copied_from(written(&sent.password).as_bytes()),
        }
    }

    /// For what a wrong answer has to be refused, if that is known.
    pub(crate) fn reason(&self, envelope: &Envelope) -> Option<&'static [&'static str]> {
        let device = &self.devices[envelope.device];
        match (&envelope.words, self.joint_wrong(envelope, true)) {
            (Words::Joint(_), Some(Wrong::Check(checks))) => Some(checks),
            (Words::Signature(_), _) if device.signing().is_some() && !device.gone => {
                Some(&["method", "device-blocked"])
            }
            _ => None,
        }
    }

    /// What holders agreed to, for the judge.
    pub(crate) fn gather_consents(&mut self) {
        for device in &self.devices {
            let Some(card) = device.signing() else { continue };
            let known = self.judge.devices.entry(device.id.clone()).or_default();
            known.consents = card.consents().to_vec();
        }
    }

    /// Whether what was refused was refused for what was wrong with it.
    pub(crate) fn check_reasons(&mut self) -> Vec<Violation> {
        let mut found = Vec::new();
        for Reason { incident, checks } in std::mem::take(&mut self.reasons) {
            let mut rows = self.now.answers.iter();
            let row = rows.find(|row| row.incident.as_ref() == Some(&incident));
            let told = row.and_then(|row| row.failed_check.as_deref()).unwrap_or_default();
            if checks.contains(&told) {
                self.tally.add(reason_word(told));
                continue;
            }
            let detail = format!("{incident}: {told} where {checks:?}");
            found.push(Violation { name: "refused-for-another-reason", detail });
        }
        found
    }
}

/// As it is typed: some write it in groups.
fn written(password: &str) -> String {
    match JointPassword::parse(password) {
        Ok(parsed) if password.starts_with(['0', '1', '2', '3']) => parsed.grouped().to_string(),
        Ok(parsed) if password.starts_with('9') => parsed.grouped().replace(' ', "-"),
        _ => password.to_owned(),
    }
}

/// A digit that is another one: its check digit finds it.
fn mistype(password: &mut String, torn: u32) {
    let mut bytes = std::mem::take(password).into_bytes();
    let digits: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
    let at = digits[torn as usize % digits.len()];
    bytes[at] = b'0' + (bytes[at] - b'0' + 1 + (torn >> 8) as u8 % 9) % 10;
    *password = String::from_utf8(bytes).unwrap();
}

fn flip(bytes: &mut [u8], torn: u32) {
    let at = torn as usize % (bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
}

fn reason_word(check: &str) -> &'static str {
    match check {
        "joint-form" => "refused by joint-form",
        "joint-transaction" => "refused by joint-transaction",
        "device-unknown" => "refused by device-unknown",
        "device-not-bound" => "refused by device-not-bound",
        "method" => "refused by method",
        "answer-signature" => "refused by answer-signature",
        "joint-password" => "refused by joint-password",
        _ => "refused by a device that is gone",
    }
}

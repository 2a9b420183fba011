//! A terminal and a server with storage that survives a contact, and a link that may break.

use std::collections::BTreeMap;

use countersign_crypto::UnixTime;
use countersign_injection::message::{
    Binding, CheckValue, InjectionId, Installed, KeyToken, Refusing, ServerMessage, Token,
};
use countersign_injection::server::{ServerEvent, ServerFlow, refusal};
use countersign_injection::terminal::{
    Failure, Standing, TerminalEvent, TerminalFlow, TerminalWork,
};
use countersign_injection::{Bounded, Name};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// What stands in a slot: the fill byte of a key stands for the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) active: Option<u8>,
    pub(crate) pending: Option<(InjectionId, u8)>,
}

/// What a terminal keeps.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    pub(crate) bound: Option<[u8; 32]>,
    pub(crate) slots: BTreeMap<u8, Slot>,
    /// Refuses every token with this check.
    pub(crate) refuses: Option<&'static str>,
    /// Reports a check value that is not the key's.
    pub(crate) lies: bool,
}

/// Where an injection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Assigned,
    Issued,
    Installed,
    Failed,
    Cancelled,
}

/// What a server keeps.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) kdh: u8,
    /// Binds to this one at the next contact.
    pub(crate) rebinds_to: Option<u8>,
    pub(crate) unbinds: bool,
    /// (slot, key, state)
    pub(crate) injections: Vec<(u8, u8, State)>,
    pub(crate) checks: Vec<(Refusing, String)>,
    pub(crate) unavailable: bool,
}

pub(crate) fn injection(index: usize) -> InjectionId {
    Name::clipped(&format!("inj_{index}"))
}

fn index(injection: &InjectionId) -> usize {
    injection.as_str().trim_start_matches("inj_").parse().unwrap()
}

pub(crate) fn token(fill: u8) -> Token {
    Bounded::new(&[fill; 8]).unwrap()
}

pub(crate) fn binding(kdh: u8) -> Binding {
    Binding { token: token(kdh), ca_kdh: Bounded::new(&[0xCA; 8]).unwrap() }
}

fn kcv(key: u8) -> CheckValue {
    Bounded::new(&[key; 3]).unwrap()
}

impl Terminal {
    pub(crate) fn flow(&self) -> TerminalFlow {
        let pending = self.slots.iter().filter_map(|(slot, kept)| {
            let (injection, key) = kept.pending.clone()?;
            Some(Installed { injection, slot: *slot, kcv: kcv(key) })
        });
        let standing =
            Standing { ct_krd: token(0xC7), bound: self.bound, pending: pending.collect() };
        TerminalFlow::new(standing, NOW)
    }

    /// Does what the flow asks; `None` at the end.
    pub(crate) fn work(&mut self, event: TerminalEvent) -> Option<TerminalWork> {
        let refused = self.refuses.map(|check| TerminalWork::Refused(Name::clipped(check)));
        Some(match event {
            TerminalEvent::Done | TerminalEvent::Failed(_) => return None,
            TerminalEvent::MakeRequest => TerminalWork::Requested {
                request: Bounded::new(&[0x47; 40]).unwrap(),
                crl_seen: Bounded::new(&[1]).unwrap(),
            },
            TerminalEvent::CheckBinding(binding)
            | TerminalEvent::Rebind(binding)
            | TerminalEvent::RebindByCa(binding) => refused.unwrap_or_else(|| {
                let kdh = [binding.token.as_slice()[0]; 32];
                self.bound = Some(kdh);
                TerminalWork::Bound(kdh)
            }),
            TerminalEvent::Unbind(_) => refused.unwrap_or_else(|| {
                self.bound = None;
                TerminalWork::Unbound
            }),
            TerminalEvent::Install(KeyToken { injection, slot, token }) => {
                refused.unwrap_or_else(|| {
                    let key = token.as_slice()[0];
                    self.slots.entry(slot).or_default().pending = Some((injection, key));
                    TerminalWork::Installed(kcv(if self.lies { key ^ 1 } else { key }))
                })
            }
            TerminalEvent::Activate(injection) => {
                for slot in self.slots.values_mut() {
                    if let Some((_, key)) = slot.pending.take_if(|(id, _)| *id == injection) {
                        slot.active = Some(key);
                    }
                }
                TerminalWork::Kept
            }
            TerminalEvent::Discard { injection, .. } => {
                for slot in self.slots.values_mut() {
                    let _erased = slot.pending.take_if(|(id, _)| *id == injection);
                }
                TerminalWork::Kept
            }
        })
    }
}

impl Server {
    pub(crate) fn with(injections: &[(u8, u8)]) -> Self {
        let assigned = |&(slot, key): &(u8, u8)| (slot, key, State::Assigned);
        Self { kdh: 0xD1, injections: injections.iter().map(assigned).collect(), ..Self::default() }
    }

    /// The owner's answer to what the terminal says.
    pub(crate) fn decide(&mut self, event: ServerEvent) -> Option<ServerMessage> {
        if self.unavailable && event != ServerEvent::Unbound {
            return Some(refusal("unavailable", true, ""));
        }
        Some(match event {
            ServerEvent::Bind(_) => ServerMessage::Bound(binding(self.kdh)),
            ServerEvent::Asked(asked) => {
                if let Some(kdh) = self.rebinds_to.filter(|kdh| asked.bound == [*kdh; 32]) {
                    (self.kdh, self.rebinds_to) = (kdh, None);
                }
                if self.unbinds {
                    ServerMessage::Unbind(token(0))
                } else if let Some(kdh) = self.rebinds_to {
                    ServerMessage::Rebind(binding(kdh))
                } else if asked.bound != [self.kdh; 32] {
                    refusal("terminal-other-kdh", false, "inc_1")
                } else {
                    self.next_key()
                }
            }
            ServerEvent::Installed(Installed { injection, slot, kcv: told }) => {
                let (_, key, state) = &mut self.injections[index(&injection)];
                let _ = slot;
                match *state {
                    State::Issued | State::Installed if told == kcv(*key) => {
                        *state = State::Installed;
                        ServerMessage::Confirmed(injection)
                    }
                    State::Issued => {
                        *state = State::Failed;
                        refusal("token-refused", false, "inc_2")
                    }
                    _ => refusal("injection-closed", false, ""),
                }
            }
            ServerEvent::Refused(refused) => {
                if refused.what == Refusing::Key {
                    self.injections[index(&refused.injection)].2 = State::Failed;
                }
                self.checks.push((refused.what, refused.check.as_str().to_owned()));
                ServerMessage::Noted(Name::clipped("inc_3"))
            }
            ServerEvent::Unbound => {
                self.unbinds = false;
                return None;
            }
        })
    }

    fn next_key(&mut self) -> ServerMessage {
        let open = |state: &State| matches!(state, State::Assigned | State::Issued);
        let found = self.injections.iter_mut().enumerate().find(|(_, (.., state))| open(state));
        let Some((index, (slot, key, state))) = found else { return ServerMessage::Nothing };
        *state = State::Issued;
        let key = KeyToken { injection: injection(index), slot: *slot, token: token(*key) };
        ServerMessage::KeyToken(key)
    }

    pub(crate) fn states(&self) -> Vec<State> {
        self.injections.iter().map(|(.., state)| *state).collect()
    }
}

/// How a contact went.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    /// Messages that were delivered, by either side.
    pub(crate) delivered: usize,
    pub(crate) done: bool,
    pub(crate) failure: Option<Failure>,
}

/// One contact; it breaks after `most` messages.
pub(crate) fn contact(terminal: &mut Terminal, server: &mut Server, most: usize) -> Contact {
    let (mut one, mut other) = (terminal.flow(), ServerFlow::new(NOW));
    let mut contact = Contact::default();
    loop {
        if let Some(message) = one.poll_transmit() {
            if contact.delivered == most {
                return contact;
            }
            contact.delivered += 1;
            other.handle(NOW, &message).unwrap();
            let event = other.poll_event().unwrap();
            if let Some(answer) = server.decide(event) {
                other.answer(NOW, &answer).unwrap();
            }
            continue;
        }
        if let Some(message) = other.poll_transmit() {
            if contact.delivered == most {
                return contact;
            }
            contact.delivered += 1;
            one.handle(NOW, &message).unwrap();
            continue;
        }
        let event = one.poll_event().unwrap();
        match event {
            TerminalEvent::Done => contact.done = true,
            TerminalEvent::Failed(ref failure) => contact.failure = Some(failure.clone()),
            _ => {}
        }
        match terminal.work(event) {
            Some(work) => one.answer(NOW, work).unwrap(),
            None if one.poll_timeout().is_none() => match one.poll_transmit() {
                Some(last) if contact.delivered < most => {
                    contact.delivered += 1;
                    other.handle(NOW, &last).unwrap();
                    assert!(server.decide(other.poll_event().unwrap()).is_none());
                    return contact;
                }
                _ => return contact,
            },
            None => panic!("an ended flow waits for nothing"),
        }
    }
}

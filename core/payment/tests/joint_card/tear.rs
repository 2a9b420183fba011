//! A card can leave, be reset, or lose its power at any moment.

use countersign_iso7816::{CardLink, InProcess, LinkError};
use countersign_payment::card::CardError;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::{JointClient, Phase, Signed};

use crate::rig::{Card, PIN, Rig, transaction};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tear {
    /// Taken out of the reader, or away from it.
    Removed,
    /// Its battery died too.
    PowerLost,
    /// The reader took its power away, or reset it.
    Reset,
    /// Only the answer is lost.
    AnswerLost,
}

const TEARS: [Tear; 4] = [Tear::Removed, Tear::PowerLost, Tear::Reset, Tear::AnswerLost];

/// A link that is torn at the command that comes after `left` others, before or after the card has
/// had it.
struct Torn<'a> {
    link: InProcess<'a, Card>,
    left: usize,
    arrives: bool,
    tear: Tear,
}

impl CardLink for Torn<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let Some(left) = self.left.checked_sub(1) else {
            if self.arrives {
                self.link.transmit(command)?;
            }
            let machine = self.link.card();
            match self.tear {
                Tear::Removed => {
                    machine.reset();
                    machine.application_mut().removed();
                }
                Tear::PowerLost => {
                    machine.reset();
                    machine.application_mut().power_lost();
                }
                Tear::Reset => machine.reset(),
                Tear::AnswerLost => {}
            }
            return Err(LinkError::Removed);
        };
        self.left = left;
        self.link.transmit(command)
    }
}

fn torn(rig: &mut Rig, left: usize, arrives: bool, tear: Tear) -> JointClient<Torn<'_>> {
    let link = InProcess::new(&mut rig.machine, &mut rig.rng);
    JointClient::new(Torn { link, left, arrives, tear })
}

fn signing<L: CardLink>(client: &mut JointClient<L>, form: Form) -> Result<Signed, CardError> {
    client.select()?;
    client.put_transaction(&transaction(1))?;
    client.sign(form)
}

/// How many commands the whole of it takes; the last one has the whole signature.
fn commands(form: Form) -> usize {
    struct Counting<'a>(InProcess<'a, Card>, usize);
    impl CardLink for Counting<'_> {
        fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
            self.1 += 1;
            self.0.transmit(command)
        }
    }
    let mut rig = Rig::p256();
    let link = InProcess::new(&mut rig.machine, &mut rig.rng);
    let mut client = JointClient::new(Counting(link, 0));
    signing(&mut client, form).unwrap();
    client.into_link().1
}

#[test]
fn a_card_torn_at_any_command_of_the_terminal_signs_the_next_transaction() {
    for form in Form::ALL {
        let commands = commands(form);
        assert!(commands >= 5, "{commands}");
        for tear in TEARS {
            for (at, arrives) in (0..commands).flat_map(|at| [(at, false), (at, true)]) {
                let what = format!("{form:?} {tear:?} at {at}, arrives {arrives}");
                let mut rig = Rig::p256();
                let error = signing(&mut torn(&mut rig, at, arrives, tear), form).unwrap_err();
                assert_eq!(error, CardError::Link(LinkError::Removed), "{what}");
                // It has the whole signature out, and cannot know that it was lost on its way.
                let is_whole = at + 1 == commands && arrives;
                let phase = match tear {
                    Tear::PowerLost => Phase::Idle,
                    Tear::Removed if is_whole => Phase::Asking,
                    Tear::Reset | Tear::AnswerLost if is_whole => Phase::Signed,
                    Tear::Removed | Tear::Reset => Phase::Idle,
                    // Whatever it is, it is gone when the card is taken out.
                    Tear::AnswerLost => rig.phase(),
                };
                assert_eq!(rig.phase(), phase, "{what}");
                rig.take_out();
                assert_eq!(rig.confirm(PIN).is_ok(), is_whole && tear != Tear::PowerLost, "{what}");
                assert_eq!(rig.shown().is_some(), is_whole && tear != Tear::PowerLost, "{what}");
                rig.assert_works(2);
            }
        }
    }
}

/// Also without taking it out: the terminal begins again.
#[test]
fn a_terminal_that_begins_again_gets_another_signature() {
    let commands = commands(Form::SealedRandom);
    for tear in [Tear::Reset, Tear::AnswerLost] {
        for (at, arrives) in (0..commands).flat_map(|at| [(at, false), (at, true)]) {
            let mut rig = Rig::p256();
            signing(&mut torn(&mut rig, at, arrives, tear), Form::SealedRandom).unwrap_err();
            let signed = signing(&mut rig.client(), Form::SealedRandom).unwrap();
            rig.take_out();
            rig.confirm(PIN).unwrap();
            let shown = rig.shown().unwrap();
            assert!(rig.is_taken(1, &signed, &shown), "{tear:?} at {at}, arrives {arrives}");
            // That of the signature which was lost is another one.
            let passwords = rig.chip().passwords.clone();
            assert_eq!(Some(&shown), passwords.last());
            assert!(!passwords[..passwords.len() - 1].contains(&shown));
        }
    }
}

#[test]
fn a_card_torn_at_its_release_gives_the_joint_password_once_at_most() {
    for tear in TEARS {
        for (at, arrives) in [(0, false), (0, true), (1, false), (1, true)] {
            let what = format!("{tear:?} at {at}, arrives {arrives}");
            let (mut rig, signed) = Rig::released(Form::Digest, 1);
            let provider = rig.provider.clone();
            let hash = &*provider.hash;
            rig.tap();
            let mut client = torn(&mut rig, at, arrives, tear);
            let given = client.select().and_then(|()| client.release(hash, &signed));
            assert_eq!(given.unwrap_err(), CardError::Link(LinkError::Removed), "{what}");
            let is_kept = !(tear == Tear::PowerLost || (at, arrives) == (1, true));
            assert_eq!(rig.shown().is_some(), is_kept, "{what}");
            rig.take_out();
            rig.tap();
            let mut client = rig.client();
            client.select().unwrap();
            let again = client.release(hash, &signed);
            assert_eq!(again.is_ok(), is_kept, "{what}");
            assert_eq!(rig.shown(), None);
            rig.assert_works(2);
        }
    }
}

#[test]
fn a_reset_between_any_two_commands_is_noticed() {
    // As another program at the same reader would do it: the link does not tell.
    struct Quiet<'a> {
        link: InProcess<'a, Card>,
        left: Option<usize>,
    }
    impl CardLink for Quiet<'_> {
        fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
            if self.left == Some(0) {
                self.link.card().reset();
            }
            self.left = self.left.and_then(|left| left.checked_sub(1));
            self.link.transmit(command)
        }
    }
    let commands = commands(Form::Sealed);
    for at in 1..commands {
        let mut rig = Rig::p256();
        let link = InProcess::new(&mut rig.machine, &mut rig.rng);
        let mut client = JointClient::new(Quiet { link, left: Some(at) });
        let error = signing(&mut client, Form::Sealed).unwrap_err();
        assert_eq!(error, CardError::OutOfOrder, "at {at}");
        rig.take_out();
        assert_eq!(rig.phase(), Phase::Idle, "at {at}");
    }
}

//! A card can leave at any moment.

use countersign_iso7816::{CardLink, InProcess, LinkError};
use countersign_payment::card::{CardClient, CardError, SecurityDeviceCard};

use crate::chip::{PIN, Panel, Rig, SoftChip, request, secret};

type Card = SecurityDeviceCard<SoftChip, Panel>;

/// A link that fails at the command `at`, before or after the card has had it; the card is reset.
struct Loose<'a> {
    link: InProcess<'a, Card>,
    left: usize,
    arrives: bool,
}

impl CardLink for Loose<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let Some(left) = self.left.checked_sub(1) else {
            if self.arrives {
                self.link.transmit(command)?;
            }
            self.link.card().power();
            return Err(LinkError::Removed);
        };
        self.left = left;
        self.link.transmit(command)
    }
}

fn confirm<L: CardLink>(client: &mut CardClient<L>, request: &[u8]) -> Result<Vec<u8>, CardError> {
    client.select()?;
    client.load(request)?;
    client.verify(&secret(PIN))?;
    client.sign()
}

#[test]
fn a_card_that_is_removed_at_any_command_signs_when_it_is_back() {
    let mut interrupted = 0;
    for arrives in [false, true] {
        for at in 0.. {
            let mut rig = Rig::host();
            let link = InProcess::new(&mut rig.machine, &mut rig.rng);
            let mut client = CardClient::new(Loose { link, left: at, arrives });
            let Err(error) = confirm(&mut client, &request(1)) else { break };
            assert_eq!(error, CardError::Link(LinkError::Removed));
            assert_eq!(error.check(), "card-removed");
            interrupted += 1;
            let before = rig.chip().signed;
            // It comes back: nothing of the conversation is left, and all of it can be had again.
            let mut client = rig.client();
            assert_eq!(client.sign(), Err(CardError::OutOfOrder));
            client.select().unwrap();
            assert_eq!(client.verify(&secret(PIN)), Err(CardError::OutOfOrder));
            assert_eq!(client.tries().unwrap().pin, 3);
            let answer = confirm(&mut client, &request(1)).unwrap();
            assert!(rig.is_answer(&request(1), &answer));
            assert_eq!(rig.chip().signed, before + 1);
        }
    }
    assert!(interrupted >= 10, "{interrupted}");
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
    let mut noticed = 0;
    for at in 1.. {
        let mut rig = Rig::host();
        let link = InProcess::new(&mut rig.machine, &mut rig.rng);
        let mut client = CardClient::new(Quiet { link, left: Some(at) });
        match confirm(&mut client, &request(1)) {
            Ok(answer) => {
                assert!(rig.is_answer(&request(1), &answer));
                break;
            }
            Err(error) => assert_eq!(error, CardError::OutOfOrder, "at {at}"),
        }
        assert_eq!(rig.chip().signed, 0);
        noticed += 1;
    }
    assert!(noticed >= 5, "{noticed}");
}

#[test]
fn an_answer_that_is_lost_without_a_reset_costs_one_beginning() {
    /// Loses the answer to the command `at`; the card keeps what it knows.
    struct Lossy<'a> {
        link: InProcess<'a, Card>,
        at: usize,
        sent: usize,
    }
    impl CardLink for Lossy<'_> {
        fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
            let answer = self.link.transmit(command)?;
            self.sent += 1;
            if self.sent == self.at { Err(LinkError::Timeout) } else { Ok(answer) }
        }
    }
    for at in 1.. {
        let mut rig = Rig::host();
        let link = InProcess::new(&mut rig.machine, &mut rig.rng);
        let mut client = CardClient::new(Lossy { link, at, sent: 0 });
        let Err(error) = confirm(&mut client, &request(1)) else {
            assert!(at > 5, "{at}");
            break;
        };
        assert_eq!(error.check(), "card-timeout");
        // Also in the middle of a chain.
        let answer = confirm(&mut client, &request(2)).unwrap();
        assert!(rig.is_answer(&request(2), &answer));
    }
}

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// A card that answers by heart.
#[derive(Default)]
struct Script {
    answers: VecDeque<Result<Vec<u8>, LinkError>>,
    sent: Vec<Vec<u8>>,
}

impl CardLink for Script {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        self.sent.push(command.to_vec());
        self.answers.pop_front().unwrap()
    }
}

fn terminal(answers: &[&[u8]]) -> Terminal<Script> {
    let answers = answers.iter().map(|answer| Ok(answer.to_vec())).collect();
    Terminal::new(Script { answers, sent: Vec::new() })
}

fn read() -> Command {
    Command::new(0, 0xca, 0xdf, 1).expecting(256)
}

#[test]
fn a_wrong_length_is_put_right_once() {
    let mut once = terminal(&[&[0x6c, 2], &[1, 2, 0x90, 0]]);
    assert_eq!(*once.send(&read()).unwrap().data, [1, 2]);
    assert_eq!(once.into_link().sent, [vec![0, 0xca, 0xdf, 1, 0], vec![0, 0xca, 0xdf, 1, 2]]);
    let mut twice = terminal(&[&[0x6c, 2], &[0x6c, 3]]);
    assert_eq!(twice.send(&read()).unwrap().status, Status::new(0x6c03));
}

#[test]
fn what_waits_is_fetched() {
    let mut link = terminal(&[&[1, 0x61, 0], &[2, 3, 0x61, 1], &[4, 0x90, 0]]);
    let response = link.send(&read()).unwrap();
    assert_eq!((&response.data[..], response.status), (&[1, 2, 3, 4][..], Status::OK));
    assert_eq!(link.into_link().sent[1..], [vec![0, 0xc0, 0, 0, 0], vec![0, 0xc0, 0, 0, 1]]);
    let mut link = terminal(&[&[1, 0x61, 0], &[0x69, 0x85]]);
    assert_eq!(link.send(&read()).unwrap(), Status::CONDITIONS.into(), "half of it is nothing");
}

#[test]
fn data_of_any_length_go_in_short_apdus() {
    let data = [7; 600];
    let command = Command::new(0, 0xda, 0xdf, 0x10).with_data(&data).unwrap();
    let mut link = terminal(&[&[0x90, 0], &[0x90, 0], &[0x90, 0]]);
    assert_eq!(link.send(&command).unwrap().status, Status::OK);
    let sent = link.into_link().sent;
    let heads: Vec<&[u8]> = sent.iter().map(|apdu| &apdu[..5]).collect();
    assert_eq!(
        heads,
        [[0x10, 0xda, 0xdf, 0x10, 255], [0x10, 0xda, 0xdf, 0x10, 255], [0, 0xda, 0xdf, 0x10, 90]]
    );
    // A card that takes no chain is not sent the rest of it.
    let mut link = terminal(&[&[0x68, 0x84]]);
    assert_eq!(link.send(&command).unwrap().status, Status::CHAIN_UNSUPPORTED);
    let longest = command.with_data(&vec![0; TRANSFER_MAX + 1]).unwrap();
    assert_eq!(terminal(&[]).send(&longest), Err(TerminalError::TooLong));
}

#[test]
fn answers_that_no_card_gives_are_refused() {
    let long = [vec![0; 257], vec![0x90, 0]].concat();
    for wrong in [
        &[&[][..]][..],
        &[&[0x90]],
        &[&long],
        &[&[1, 0x61, 5], &[0x61, 5]],
        &[&[0x61, 1], &[1, 2, 0x90, 0]],
    ] {
        assert_eq!(terminal(wrong).send(&read()), Err(TerminalError::Malformed), "{wrong:02x?}");
    }
    // Data that nobody asked for.
    let verify = Command::new(0, 0x20, 0, 0x81);
    assert_eq!(terminal(&[&[1, 0x90, 0]]).send(&verify), Err(TerminalError::Malformed));
    // Without end.
    let part = [vec![0; 256], vec![0x61, 0]].concat();
    let parts = vec![&part[..]; TRANSFER_MAX / 256 + 1];
    let mut link = terminal(&parts);
    assert_eq!(link.send(&read()), Err(TerminalError::Malformed));
    assert_eq!(link.into_link().sent.len(), parts.len());
}

/// The smallest steps there are, without end: not as many of them as bytes would fit.
#[test]
fn a_card_that_answers_byte_by_byte_is_left() {
    struct Endless(usize);
    impl CardLink for Endless {
        fn transmit(&mut self, _: &[u8]) -> Result<Vec<u8>, LinkError> {
            self.0 += 1;
            Ok(vec![7, 0x61, 0])
        }
    }
    let mut link = Terminal::new(Endless(0));
    assert_eq!(link.send(&read()), Err(TerminalError::Malformed));
    assert_eq!(link.into_link().0, ROUNDS_MAX + 1);
    // As many as that are taken, if it is the end.
    let mut steps = vec![&[7, 0x61, 0][..]; ROUNDS_MAX];
    steps.push(&[7, 0x90, 0]);
    assert_eq!(terminal(&steps).send(&read()).unwrap().data.len(), ROUNDS_MAX + 1);
}

#[test]
fn what_is_wrong_with_the_link_is_said() {
    for error in [
        LinkError::Removed,
        LinkError::Reset,
        LinkError::Timeout,
        LinkError::Failed("no reader".into()),
    ] {
        let answers = VecDeque::from([Ok(vec![1, 0x61, 5]), Err(error.clone())]);
        let mut link = Terminal::new(Script { answers, sent: Vec::new() });
        assert_eq!(link.send(&read()), Err(TerminalError::Link(error)));
    }
}

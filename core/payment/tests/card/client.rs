//! Cards that are not ours, or do not behave.

use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::card::{AID, CardClient, CardError};

use crate::chip::{PIN, request, secret};

/// Answers every command alike, but SELECT if it is to pass.
struct Always {
    answer: Vec<u8>,
    selects: bool,
}

impl CardLink for Always {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        if self.selects && command[1] == 0xa4 {
            return Ok([&information()[..], &[0x90, 0]].concat());
        }
        Ok(self.answer.clone())
    }
}

fn information() -> Vec<u8> {
    let inner = [&[0x84, 12][..], &AID, &[0xa5, 13, 0x50, 11], b"Countersign"].concat();
    [&[0x6f, 29][..], &inner].concat()
}

fn answering(answer: &[u8], selects: bool) -> CardClient<Always> {
    CardClient::new(Always { answer: answer.to_vec(), selects })
}

#[test]
fn a_foreign_card_is_not_ours() {
    let good = [&information()[..], &[0x90, 0]].concat();
    assert_eq!(answering(&good, false).select(), Ok(()));
    let mut other_name = good.clone();
    other_name[5] = b'c';
    let mut other_label = good.clone();
    other_label[20] = b'c';
    for foreign in [
        &[0x6a, 0x82][..],
        &[0x6d, 0],
        &[0x6e, 0],
        &[0x69, 0x85],
        &[0x90, 0],
        &[0x6f, 0, 0x90, 0],
        &[0xff, 0xff, 0x90, 0],
        &[&good[..good.len() - 3], &[0x90, 0]].concat(),
        &[&good[..good.len() - 2], &[0, 0x90, 0]].concat(),
        &other_name,
        &other_label,
    ] {
        let error = answering(foreign, false).select().unwrap_err();
        assert_eq!(error, CardError::NotOurs, "{foreign:02x?}");
        assert_eq!(error.check(), "card-not-ours");
    }
    for malformed in [&[][..], &[0x90]] {
        assert_eq!(answering(malformed, false).select(), Err(CardError::Malformed));
    }
}

#[test]
fn what_a_card_says_of_itself_is_read_strictly() {
    let good = b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84\x08server-1\x90\0";
    // Serial and information are the same bytes here: control characters are no serial.
    assert_eq!(answering(good, true).info(), Err(CardError::Malformed));
    let long = [&[b'x'; 200][..], b"\x90\0"].concat();
    for wrong in [&b"\x90\0"[..], b"\xff\xfe\x90\0", b"SD\n1\x90\0", &long] {
        assert_eq!(answering(wrong, true).info(), Err(CardError::Malformed), "{wrong:02x?}");
    }
    for wrong in [&[0x90, 0][..], &[3, 0x90, 0], &[3, 3, 3, 0x90, 0]] {
        assert_eq!(answering(wrong, true).tries(), Err(CardError::Malformed));
    }
    assert_eq!(answering(&[0x90, 0], true).certificate(), Err(CardError::Malformed));
    assert_eq!(answering(&[0x6a, 0x88], true).certificate(), Ok(None));
}

/// Gives this serial number, and this as its information.
struct Says(&'static str, Vec<u8>);

impl CardLink for Says {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let data = if command[3] == 1 { self.0.as_bytes() } else { &self.1 };
        Ok([data, &[0x90, 0]].concat())
    }
}

/// They are shown to people, who are to see all of them, and in the order they have.
#[test]
fn serial_and_server_are_such_as_certificates_have() {
    let info = |serial, server: &str| {
        let head = &b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84"[..];
        let len = u8::try_from(server.len()).unwrap();
        CardClient::new(Says(serial, [head, &[len], server.as_bytes()].concat())).info()
    };
    assert_eq!(info("SD-1", "bank.example_2").unwrap().server_id, "bank.example_2");
    assert_eq!(info("SD-1", "").unwrap().server_id, "", "not enrolled yet");
    let long = "x".repeat(65).leak();
    for wrong in [
        "SD\u{202e}1-",
        "SD\u{200b}1",
        "SD\u{2066}1",
        "\u{feff}SD-1",
        "SD\u{ad}1",
        "SD 1",
        "SD-\u{ff11}",
        "S\u{414}-1",
        "SD/1",
        "SD\u{1b}1",
        long,
    ] {
        assert_eq!(info(wrong, "server-1"), Err(CardError::Malformed), "{wrong:?}");
        assert_eq!(info("SD-1", wrong), Err(CardError::Malformed), "{wrong:?}");
    }
    assert_eq!(info("", "server-1"), Err(CardError::Malformed));
}

#[test]
fn information_has_all_its_parts_and_no_others() {
    let good = b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84\x08server-1";
    assert!(CardClient::new(Says("SD-1", good.to_vec())).info().is_ok());
    let replaced = |at: usize, byte: u8| {
        let mut altered = good.to_vec();
        altered[at] = byte;
        altered
    };
    for wrong in [
        replaced(2, 2),      // a later version
        replaced(5, b'q'),   // method
        replaced(10, b'q'),  // suite
        replaced(16, b'q'),  // PIN entry
        replaced(22, b'\n'), // server
        replaced(22, 0xff),  // no UTF-8
        replaced(0, 0x85),   // another tag
        replaced(21, 0x07),  // something behind
        replaced(21, 0x09),  // cut off
        [&good[..], &[0x85, 0]].concat(),
        good[..20].to_vec(),
        vec![],
    ] {
        let read = CardClient::new(Says("SD-1", wrong.clone())).info();
        assert_eq!(read, Err(CardError::Malformed), "{wrong:02x?}");
    }
}

#[test]
fn other_status_words_are_told() {
    for (word, error) in [
        ([0x6f, 0x00], CardError::Status(0x6f00)),
        ([0x65, 0x81], CardError::Status(0x6581)),
        ([0x69, 0x85], CardError::OutOfOrder),
        ([0x69, 0x82], CardError::OutOfOrder),
        ([0x68, 0x83], CardError::OutOfOrder),
    ] {
        let mut client = answering(&word, true);
        client.select().unwrap();
        assert_eq!(client.load(&request(1)), Err(error.clone()), "{word:02x?}");
        assert_eq!(client.verify(&secret(PIN)), Err(error.clone()));
        assert_eq!(client.sign(), Err(error.clone()));
        assert_eq!(client.tries(), Err(error));
    }
    let mut refuses = answering(&[0x6a, 0x80], true);
    assert_eq!(refuses.load(&request(1)), Err(CardError::RequestRefused));
    assert_eq!(refuses.load(b""), Err(CardError::RequestRefused));
    assert_eq!(refuses.load(&[b'x'; 4097]), Err(CardError::RequestRefused));
    // Done, but nothing to show for it.
    let mut empty = CardClient::new(Signs(vec![]));
    assert_eq!(empty.sign(), Err(CardError::Malformed));
    let mut long = CardClient::new(Signs(vec![0x30; 129]));
    assert_eq!(long.sign(), Err(CardError::Malformed));
    assert_eq!(CardClient::new(Signs(vec![0x30; 128])).sign().map(|answer| answer.len()), Ok(128));
}

/// A card whose PIN comes from here refuses everything but what it says of itself.
#[test]
fn what_is_wrong_with_data_depends_on_the_command() {
    struct Refuses([u8; 2]);
    impl CardLink for Refuses {
        fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
            match (command[1], command[3]) {
                (0xca, 3) => Ok(vec![0, 10, 0x90, 0]),
                (0xca, _) => Signs(Vec::new()).transmit(command),
                _ => Ok(self.0.to_vec()),
            }
        }
    }
    let (pin, puk) = (secret(PIN), secret("87654321"));
    let mut client = CardClient::new(Refuses([0x6a, 0x80]));
    assert_eq!(client.load(&request(1)), Err(CardError::RequestRefused));
    assert_eq!(client.sign(), Err(CardError::RequestRefused), "no PIN was sent");
    assert_eq!(client.verify(&pin), Err(CardError::PinForm));
    assert_eq!(client.change_pin(&pin, &pin), Err(CardError::PinForm));
    assert_eq!(client.unblock(&puk, &pin), Err(CardError::PinForm));
    // A card that has a keypad after all.
    let mut client = CardClient::new(Refuses([0x6a, 0x81]));
    assert_eq!(client.verify(&pin), Err(CardError::Keypad));
    assert_eq!(client.change_pin(&pin, &pin), Err(CardError::Keypad));
    assert_eq!(client.unblock(&puk, &pin), Err(CardError::Keypad));
    assert_eq!(client.sign(), Err(CardError::Status(0x6a81)));
    assert_eq!(client.load(&request(1)), Err(CardError::Status(0x6a81)));
    // Blocked a moment ago, and not any more: not taken for a PUK that was tried.
    let mut client = CardClient::new(Refuses([0x69, 0x85]));
    assert_eq!(client.unblock(&puk, &pin), Err(CardError::OutOfOrder));
}

/// A card that signs like this.
struct Signs(Vec<u8>);

impl CardLink for Signs {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let info = b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84\x00";
        let data = match (command[1], command[3]) {
            (0xca, 1) => &b"SD-1"[..],
            (0xca, _) => &info[..],
            _ => &self.0,
        };
        Ok([data, &[0x90, 0]].concat())
    }
}

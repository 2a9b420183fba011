//! The emulated module behind a real pty, driven through its path like a serial port.

use std::fs::File;
use std::io::{Read, Write};

use countersign_crypto::UnixTime;
use countersign_emulator::{EmulatedSam, Fault, Faults, SamPty, sample};
use countersign_idcard::card::{authenticate, read_encrypted};
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_idcard::sam::{SamConfig, SamError, SamEvent, SamHost, SamOperation, SamResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::ioctl_tiocexcl;

/// The host on the port. Its clock stands still except when nothing comes for a while.
struct Port {
    host: SamHost,
    file: File,
    now: UnixTime,
}

impl Port {
    fn open(pty: &SamPty) -> Self {
        let file = File::options().read(true).write(true).open(pty.path()).expect("pty opens");
        Self { host: SamHost::new(SamConfig::default()), file, now: UnixTime::from_secs(1) }
    }

    /// Runs until an event comes.
    fn event(&mut self) -> SamEvent {
        loop {
            while let Some(frame) = self.host.poll_transmit() {
                if self.file.write_all(&frame).is_err() {
                    self.host.gone();
                }
            }
            if let Some(event) = self.host.poll_event() {
                return event;
            }
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            let wait = Timespec { tv_sec: 5, tv_nsec: 0 };
            if poll(&mut fds, Some(&wait)).expect("polls") == 0 {
                self.now = self.host.poll_timeout().expect("waits for something");
                self.host.handle_timeout(self.now);
                continue;
            }
            let mut bytes = [0; 64];
            match self.file.read(&mut bytes) {
                Ok(0) | Err(_) => self.host.gone(),
                Ok(count) => self.host.handle(self.now, &bytes[..count]),
            }
        }
    }

    fn result(&mut self, operation: SamOperation) -> SamResult {
        self.host.operate(self.now, operation).expect("fits");
        match self.event() {
            SamEvent::Done(result) => result,
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_card_is_read_through_the_pty_and_unplugging_is_noticed() {
    let faults = Faults::none();
    let sam = EmulatedSam::new(crate::world::scheme(), 42, faults.clone());
    let id = sam.id();
    let pty = SamPty::start(sam, Box::new(crate::world::rng(1))).expect("a pty");
    let mut port = Port::open(&pty);
    port.host.start(port.now).expect("starts");
    assert!(matches!(port.event(), SamEvent::Ready(ready) if ready == id));

    let (mut link, handle) = countersign_emulator::EmulatedCard::new(
        crate::world::scheme(),
        Box::new(crate::world::rng(2)),
    );
    let card = crate::world::card(DocumentType::ResidencePermit, 1, true);
    handle.insert(card.clone());
    let configuration = card.configuration().clone();
    let begin = SamOperation::Begin { configuration: configuration.clone() };
    let SamResult::Challenge(challenge) = port.result(begin) else { panic!("no challenge") };
    let answer = authenticate(&mut link, &challenge).expect("answers");
    let operation = SamOperation::Answer { answer: answer.answer, random: answer.random };
    let SamResult::Proof(proof) = port.result(operation) else { panic!("no proof") };
    let data = read_encrypted(&mut link, &proof, true).expect("reads");
    let result = port.result(SamOperation::Decrypt(data));
    let SamResult::Plaintext { data: plain, card_checked: true } = result else {
        panic!("no plaintext, or nobody's")
    };
    let record = IdRecord::decode(plain.text()).expect("valid");
    assert_eq!(record, sample(DocumentType::ResidencePermit));

    // A client may take the port for itself alone and be killed in mid-read (dropping the file
    // leaves the same behind); the next one finds the module. Only noticed without root.
    ioctl_tiocexcl(&port.file).expect("a terminal");
    let begin = SamOperation::Begin { configuration: configuration.clone() };
    assert!(matches!(port.result(begin), SamResult::Challenge(_)));
    drop(port);
    let mut port = Port::open(&pty);
    port.host.start(port.now).expect("starts");
    assert!(matches!(port.event(), SamEvent::Ready(_)));

    faults.inject(Fault::UnplugAt([0x20, 0x01]));
    port.host.operate(port.now, SamOperation::Begin { configuration }).expect("fits");
    assert!(matches!(port.event(), SamEvent::Failed(SamError::Gone)));
    assert!(port.host.is_dead());
    pty.wait();
}

#[test]
fn stopping_ends_the_thread_and_the_port() {
    let sam = EmulatedSam::new(crate::world::scheme(), 1, Faults::none());
    let pty = SamPty::start(sam, Box::new(crate::world::rng(1))).expect("a pty");
    let path = pty.path().to_owned();
    assert!(pty.is_running() && path.exists());
    pty.stop();
    assert!(!path.exists());
}

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::sam::{
    BridgeOutcome, CARD_NUMBER_LEN, CardNumberCheck, CardSide, Command, Response, SamConfig,
    SamEvent, SamHost, SamOperation, SamResult, Status, Sw3,
};
use countersign_idcard::{CHALLENGE_LEN, Configuration};

use super::{encrypted, plain};
use crate::script::Script;

const STEPS_MAX: usize = 96;
/// Commands of one operation, each sent once: at most those of a read that is shown its card again.
const COMMANDS_MAX: usize = 9;
/// Least bytes of an answer's frame.
const ANSWER_MIN: usize = 10;

/// A SAM host between an owner and a module that both do anything. Script: `settings, steps`.
///
/// Each operation ends once; a dead host is silent; one command is open at a time; damage is
/// answered a bounded number of times.
pub fn sam_host(data: &[u8]) {
    let mut script = Script::new(data);
    let settings = script.byte();
    let card_side = if settings & 1 == 0 { CardSide::EmulatorExtension } else { CardSide::Bridge };
    let checksum_retries = settings >> 1 & 3;
    let card_number = match settings & 0x10 {
        0 => CardNumberCheck::IfKnown,
        _ => CardNumberCheck::Required,
    };
    let config = SamConfig { card_side, checksum_retries, card_number, ..SamConfig::default() };
    let mut run = Run {
        host: SamHost::new(config),
        now: UnixTime::from_secs(1),
        config,
        last: None,
        repeated: 0,
        began: false,
        dn: 0,
        accepted: 0,
        ended: 0,
        sent: 0,
        fatal: false,
    };
    if settings & 8 == 0 {
        run.start();
    }
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        run.step(&mut script);
    }
}

struct Run {
    host: SamHost,
    now: UnixTime,
    config: SamConfig,
    /// The command sent last.
    last: Option<Command>,
    /// How often it was sent again.
    repeated: u8,
    /// An operation began since then.
    began: bool,
    /// Every byte of the configuration of the card that was shown last.
    dn: u8,
    /// Operations that the host took, the start among them.
    accepted: usize,
    ended: usize,
    sent: usize,
    fatal: bool,
}

impl Run {
    /// A start as a healthy module lets it be.
    fn start(&mut self) {
        self.host.start(self.now).expect("a new host");
        self.accepted += 1;
        self.drain(1);
        for _ in 0..3 {
            let answer = self.good_answer();
            self.host.handle(self.now, &answer);
            self.drain(1);
        }
        assert!(self.host.is_idle() && self.ended == 1);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let was_dead = self.host.is_dead();
        let mut transmits = 1;
        match script.byte() % 20 {
            0 => {
                let started = self.host.start(self.now).is_ok();
                self.accepted += usize::from(started);
            }
            1 | 2 => self.operate(SamOperation::Begin {
                configuration: Configuration::new([script.byte(); 32]),
            }),
            3 => self
                .operate(SamOperation::Answer { answer: script.array(), random: script.array() }),
            4 => self.operate(SamOperation::Decrypt(encrypted(script.byte(), false))),
            5 => self.operate(SamOperation::Decrypt(encrypted(script.byte(), true))),
            6 => self.operate(SamOperation::Cancel),
            7 => {
                let outcome = match script.byte() % 4 {
                    0 => BridgeOutcome::Challenge(script.array()),
                    1 => BridgeOutcome::Proof(script.array()),
                    2 => BridgeOutcome::Accepted,
                    _ => BridgeOutcome::Refused(Sw3::SamRejectedCard),
                };
                let _told = self.host.bridge_done(self.now, outcome);
            }
            8 => {
                self.now = self.now.plus(Duration::from_millis(script.number() as u64));
                let due = self.host.poll_timeout().is_some_and(|deadline| deadline <= self.now);
                self.host.handle_timeout(self.now);
                assert!(!due || self.host.is_dead(), "too late and still alive");
                transmits = 0;
            }
            9 if script.byte() == 0 => {
                self.host.gone();
                assert!(self.host.is_dead());
                transmits = 0;
            }
            _ => transmits = self.module(script),
        }
        self.drain(if was_dead { 0 } else { transmits });
    }

    fn operate(&mut self, operation: SamOperation) {
        let cancels = operation == SamOperation::Cancel;
        if let (SamOperation::Begin { configuration }, true) = (&operation, self.host.is_idle()) {
            self.dn = configuration.dn()[0];
        }
        let open = self.accepted > self.ended;
        let accepted = self.host.operate(self.now, operation).is_ok();
        self.began |= accepted;
        // Cancelling what runs is not an operation more: it ends that one.
        self.accepted += usize::from(accepted && !(cancels && open));
    }

    /// Bytes from the module; gives how many commands they may lead to.
    fn module(&mut self, script: &mut Script<'_>) -> usize {
        let mut bytes = self.good_answer();
        match script.byte() % 12 {
            0 => bytes = script.short().to_vec(),
            1 | 2 => script.edit_once(&mut bytes),
            3 => {
                let status = [0, 0, script.byte()];
                let data = script.short();
                bytes = Response::frame(Status::from_bytes(status), data).expect("short").to_vec();
            }
            4 => bytes = vec![script.byte(); 16],
            5 => bytes.extend_from_within(..),
            6 => {
                let status = Status::from_bytes(script.array());
                bytes = Response::frame(status, &[]).expect("short").to_vec();
            }
            _ => {}
        }
        let cut = script.number() % (bytes.len() + 1);
        let (first, second) = bytes.split_at(cut);
        self.host.handle(self.now, first);
        self.host.handle(self.now, second);
        1 + bytes.len() / ANSWER_MIN
    }

    /// What a healthy module answers to the command sent last.
    fn good_answer(&self) -> Vec<u8> {
        let ok = Status::from(Sw3::Ok);
        let frame = match &self.last {
            Some(Command::SamId) => Response::frame(ok, &[1; 16]),
            Some(Command::Find) => Response::frame(Sw3::CardFound.into(), &[0; 4]),
            Some(Command::Select | Command::RemoteCard(_) | Command::CardAnswer { .. }) => {
                Response::frame(ok, &[9; CHALLENGE_LEN])
            }
            Some(Command::CardNumber) => Response::frame(ok, &[self.dn; CARD_NUMBER_LEN]),
            Some(Command::ReadTextPhoto) => Response::frame(ok, &plain(0x20, None).to_sam(false)),
            Some(Command::ReadTextPhotoFingerprint) => {
                Response::frame(ok, &plain(0x20, Some(1024)).to_sam(true))
            }
            _ => Response::frame(ok, &[]),
        };
        frame.expect("answers fit").to_vec()
    }

    fn drain(&mut self, transmits_max: usize) {
        let mut transmits = 0;
        while let Some(frame) = self.host.poll_transmit() {
            let body = &frame[7..frame.len() - 1];
            let command = Command::parse(body).expect("the host sends commands");
            let again = !self.began && self.last.as_ref() == Some(&command);
            self.repeated = if again { self.repeated + 1 } else { 0 };
            self.began = false;
            assert!(self.repeated <= self.config.checksum_retries, "{command:?} once too often");
            self.last = Some(command);
            transmits += 1;
        }
        assert!(transmits <= transmits_max, "{transmits} commands where {transmits_max} are due");
        self.sent += transmits;
        let attempts = usize::from(self.config.checksum_retries) + 1;
        let bound = self.accepted * (COMMANDS_MAX * attempts * attempts + attempts);
        assert!(self.sent <= bound, "{} commands for {} operations", self.sent, self.accepted);
        while let Some(event) = self.host.poll_event() {
            assert!(!self.fatal, "{event:?} after a fatal error");
            match event {
                SamEvent::Failed(error) if error.is_fatal() => self.fatal = true,
                SamEvent::Bridge(_) => assert_eq!(self.config.card_side, CardSide::Bridge),
                SamEvent::Done(SamResult::Cancelled) | SamEvent::Ready(_) => self.ended += 1,
                SamEvent::Done(_) | SamEvent::Failed(_) => self.ended += 1,
            }
        }
        assert!(self.ended <= self.accepted, "an end that nobody asked for");
        assert_eq!(self.fatal, self.host.is_dead());
        if self.fatal || self.host.is_idle() {
            assert_eq!(self.host.poll_timeout(), None);
        }
        if self.host.is_idle() {
            assert_eq!(self.ended, self.accepted, "idle, and an operation without its end");
        }
        assert!(!(self.fatal && self.host.is_idle()));
    }
}

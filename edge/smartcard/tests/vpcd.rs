//! The card's side of vpcd against a reader that this test plays, also a bad one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use countersign_smartcard::vpcd::{BadAddress, SlotCard, SlotEvent, VirtualReader};

/// Longest wait for what has to come.
const BOUND: Duration = Duration::from_secs(20);

/// Writes down what is done to it; answers as the second byte of a command says.
#[derive(Clone, Default)]
struct Toy(Arc<Mutex<Vec<String>>>);

impl Toy {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl SlotCard for Toy {
    fn atr(&self) -> Vec<u8> {
        vec![0x3B, 0x00]
    }

    fn power_on(&mut self) {
        self.note("on");
    }

    fn power_off(&mut self) {
        self.note("off");
    }

    fn reset(&mut self) {
        self.note("reset");
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        match command[1] {
            0 => Vec::new(),
            1 => vec![0x90],
            2 => vec![0; 65_536],
            3 => vec![7; 65_535],
            _ => [&command[2..], &[0x90, 0x00]].concat(),
        }
    }
}

struct Running {
    listener: TcpListener,
    card: Toy,
    stop: Arc<AtomicBool>,
    events: Receiver<SlotEvent>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let (card, stop) = (Toy::default(), Arc::new(AtomicBool::new(false)));
        let (tell, events) = channel();
        let (mut in_slot, stopped) = (card.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let reader: VirtualReader = at.parse().unwrap();
            reader.run(&mut in_slot, &stopped, &mut |event| {
                let _ = tell.send(event.clone());
            });
        });
        Self { listener, card, stop, events, thread: Some(thread) }
    }

    fn accept(&self) -> TcpStream {
        let (reader, _) = self.listener.accept().unwrap();
        reader.set_read_timeout(Some(BOUND)).unwrap();
        reader
    }

    fn event(&self) -> SlotEvent {
        self.events.recv_timeout(BOUND).unwrap()
    }

    /// The card hangs up on a reader that says this, and comes back.
    fn is_hung_up_on(&self, said: &[u8]) {
        let mut reader = self.accept();
        send(&mut reader, &[4]);
        assert_eq!(receive(&mut reader), [0x3B, 0x00]);
        assert_eq!(self.event(), SlotEvent::Inserted);
        reader.write_all(said).unwrap();
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "{said:?}");
        assert!(matches!(self.event(), SlotEvent::Removed { .. }));
        assert_eq!(self.card.notes().last().map(String::as_str), Some("off"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

fn send(reader: &mut TcpStream, payload: &[u8]) {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    reader.write_all(&[&length, payload].concat()).unwrap();
}

fn receive(reader: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    reader.read_exact(&mut length).unwrap();
    let mut payload = vec![0; u16::from_be_bytes(length).into()];
    reader.read_exact(&mut payload).unwrap();
    payload
}

#[test]
fn a_reader_is_served_whatever_pieces_its_bytes_come_in() {
    let running = Running::start();
    let mut reader = running.accept();
    reader.set_nodelay(true).unwrap();
    for orders in [[1], [2], [0]] {
        send(&mut reader, &orders);
    }
    // One byte at a time, two messages in it.
    for byte in [0, 1, 4, 0, 4, 0, 9, 0xAB, 0xCD] {
        reader.write_all(&[byte]).unwrap();
    }
    assert_eq!(receive(&mut reader), [0x3B, 0x00]);
    assert_eq!(receive(&mut reader), [0xAB, 0xCD, 0x90, 0x00]);
    assert_eq!(running.card.notes(), ["on", "reset", "off"]);
    let long: Vec<u8> = [0, 9].into_iter().chain((0..65_533_u32).map(|n| n as u8)).collect();
    send(&mut reader, &long[..65_533]);
    assert_eq!(receive(&mut reader), [&long[2..65_533], &[0x90, 0x00]].concat());
}

#[test]
fn responses_that_cannot_be_said_are_no_diagnosis() {
    let running = Running::start();
    let mut reader = running.accept();
    for (kind, answered) in [(0, 2), (1, 2), (2, 2), (3, 65_535)] {
        send(&mut reader, &[0, kind]);
        let answer = receive(&mut reader);
        assert_eq!(answer.len(), answered, "{kind}");
        assert_eq!(answer == [0x6F, 0x00], kind != 3, "{kind}");
    }
}

#[test]
fn a_reader_that_talks_nonsense_is_left_and_tried_again() {
    let running = Running::start();
    running.is_hung_up_on(&[0, 0]);
    running.is_hung_up_on(&[0, 1, 3]);
    running.is_hung_up_on(&[0, 1, 0xFF]);
    // Gone in the middle of a message.
    let mut reader = running.accept();
    send(&mut reader, &[4]);
    receive(&mut reader);
    reader.write_all(&[0xFF, 0xFF, 1]).unwrap();
    drop(reader);
    assert_eq!(running.event(), SlotEvent::Inserted);
    assert!(matches!(running.event(), SlotEvent::Removed { .. }));
    send(&mut running.accept(), &[4]);
}

/// It lost its power: no farewell, no word.
#[test]
fn a_reader_that_falls_silent_is_left() {
    let running = Running::start();
    let mut reader = running.accept();
    send(&mut reader, &[4]);
    assert_eq!(receive(&mut reader), [0x3B, 0x00]);
    assert_eq!(running.event(), SlotEvent::Inserted);
    assert!(matches!(running.event(), SlotEvent::Removed { .. }));
    assert_eq!(running.card.notes(), ["off"]);
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    send(&mut running.accept(), &[4]);
}

#[test]
fn a_reader_elsewhere_is_not_spoken_to_in_clear() {
    let elsewhere: VirtualReader = "192.0.2.1:35963".parse().unwrap();
    assert!(!elsewhere.is_on_this_machine());
    let nowhere: VirtualReader = "no-such-host.invalid:35963".parse().unwrap();
    assert!(!nowhere.is_on_this_machine());
    assert!(VirtualReader::default().is_on_this_machine());
    let stop = AtomicBool::new(false);
    elsewhere.run(&mut Toy::default(), &stop, &mut |event| {
        let SlotEvent::NoReader { reason } = event else { panic!("{event:?}") };
        assert!(reason.contains("another machine"), "{reason}");
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn no_reader_is_told_once_and_so_is_a_silent_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, events) = channel();
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let reader: VirtualReader = at.to_string().parse().unwrap();
        reader.run(&mut Toy::default(), &stopped, &mut |event| {
            let _ = tell.send(event.clone());
        });
    });
    assert!(matches!(events.recv_timeout(BOUND).unwrap(), SlotEvent::NoReader { .. }));
    let listener = TcpListener::bind(at).unwrap();
    let (mut reader, _) = listener.accept().unwrap();
    assert_eq!(events.recv_timeout(BOUND).unwrap(), SlotEvent::Silent);
    send(&mut reader, &[4]);
    assert_eq!(receive(&mut reader), [0x3B, 0x00]);
    assert_eq!(events.recv_timeout(BOUND).unwrap(), SlotEvent::Inserted);
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "a card that stops leaves the slot");
    assert!(events.recv().is_err(), "and tells of nothing more");
}

#[test]
fn a_virtual_reader_is_a_port_on_this_machine_or_another() {
    let reader = |text: &str| text.parse::<VirtualReader>();
    assert_eq!(reader("35963"), Ok(VirtualReader::default()));
    assert_eq!(reader("127.0.0.1:35963"), Ok(VirtualReader::default()));
    assert!(reader("[::1]:5").is_ok() && reader("phone.example:5").is_ok());
    for wrong in ["", ":5", "0", "host", "host:", "host:0", "host:65536", "5 ", "[]:5"] {
        assert_eq!(reader(wrong), Err(BadAddress), "{wrong:?}");
    }
}

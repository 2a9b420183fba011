//! A sleeve of the core machines: its channel and its flow, over a pipe.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use countersign_channel::{Error, Mode, Pairing, SleeveChannel, SleeveEvent, SleeveQuestion};
use countersign_crypto::UnixTime;
use countersign_emulator::Payment;
use countersign_iso7816::{CardLink, LinkError};
use countersign_net::{Connection, NetError, Next, Transport};
use countersign_wallet::flow::{FlowError, Output, SleeveEvent as Answer, SleeveFlow};
use countersign_wallet::message::{CardId, CardLine, LoginOutcome, Taken};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{World, make_rng, password};

/// Bytes that went through a pipe, of what the sleeve sent and of what it received.
pub(super) type Bytes = Arc<Mutex<(usize, usize)>>;

/// A pipe that counts what goes through it.
struct Counted(DuplexStream, Bytes);

impl Transport for Counted {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let read = ready!(self.0.poll_receive(cx, into))?;
        self.1.lock().unwrap().1 += read.unwrap_or(0);
        Poll::Ready(Ok(read))
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        self.1.lock().unwrap().0 += parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
        self.0.send(parts).await
    }
}

type Link = Connection<SleeveChannel, Counted>;

/// A connected sleeve.
pub(super) struct Hand {
    link: Link,
    pub(super) flow: SleeveFlow,
    pub(super) bytes: Bytes,
    /// The manager's number for it.
    pub(super) session: u32,
    /// Each event, as it is printed.
    pub(super) said: Vec<String>,
}

/// The failed check, at this end.
fn check_of(error: &NetError<Error>) -> String {
    match error {
        NetError::Machine(error) => error.check().to_owned(),
        _ => "link-lost".to_owned(),
    }
}

impl World {
    fn link(&self, channel: SleeveChannel, pipe: DuplexStream) -> (Link, Bytes) {
        let bytes = Bytes::default();
        let counted = Counted(pipe, bytes.clone());
        (Connection::new(channel, counted, self.clock.clone(), make_rng()()), bytes)
    }

    /// A1; the user says `yes` or not.
    pub(super) async fn pair(&mut self, sleeve: &'static str, yes: bool) -> Result<(), String> {
        self.pair_after(sleeve, yes, async |_| ()).await
    }

    /// The same; something happens before the user has said it.
    pub(super) async fn pair_after(
        &mut self,
        sleeve: &'static str,
        yes: bool,
        before: impl AsyncFnOnce(&mut Self),
    ) -> Result<(), String> {
        let pipe = self.pipe().await;
        self.pair_by(pipe, sleeve, yes, before).await
    }

    /// The same, with a yes, on another way.
    pub(super) async fn pair_over(
        &mut self,
        pipe: DuplexStream,
        sleeve: &'static str,
    ) -> Result<(), String> {
        self.pair_by(pipe, sleeve, true, async |_| ()).await
    }

    async fn pair_by(
        &mut self,
        pipe: DuplexStream,
        sleeve: &'static str,
        yes: bool,
        before: impl AsyncFnOnce(&mut Self),
    ) -> Result<(), String> {
        let config = self.sleeves[sleeve].clone();
        let channel = SleeveChannel::pair(config, self.clock.now(), &mut *make_rng()()).unwrap();
        let (mut link, _) = self.link(channel, pipe);
        let (mut before, mut kept) = (Some(before), None);
        let paired = loop {
            let answered = match link.next(None).await {
                Ok(Next::Event(SleeveEvent::Connected)) => break Ok(()),
                Ok(Next::Event(SleeveEvent::Ask(SleeveQuestion::Confirm { .. }))) => {
                    before.take().unwrap()(self).await;
                    let (channel, now, rng) = link.parts();
                    channel.confirm(now, rng, yes)
                }
                Ok(Next::Event(SleeveEvent::Ask(SleeveQuestion::Store(pairing)))) => {
                    kept = Some(pairing);
                    let (channel, now, rng) = link.parts();
                    channel.stored(now, rng, true)
                }
                Ok(_) => break Err("closed".to_owned()),
                Err(error) => break Err(check_of(&error)),
            };
            if let Err(error) = answered {
                break Err(error.check().to_owned());
            }
        };
        let _gone = link.flush().await;
        if paired.is_ok() {
            self.pairings.insert(sleeve, Arc::new(kept.unwrap()));
        }
        paired
    }

    /// A2.
    pub(super) async fn connect(&mut self, sleeve: &'static str) -> Result<Hand, String> {
        self.connect_by(sleeve, Mode::A2).await
    }

    pub(super) async fn connect_by(
        &mut self,
        sleeve: &'static str,
        mode: Mode,
    ) -> Result<Hand, String> {
        let pipe = self.pipe().await;
        self.connect_over(sleeve, mode, self.pairings[sleeve].clone(), pipe).await
    }

    pub(super) async fn connect_over(
        &mut self,
        sleeve: &'static str,
        mode: Mode,
        pairing: Arc<Pairing>,
        pipe: DuplexStream,
    ) -> Result<Hand, String> {
        let config = self.sleeves[sleeve].clone();
        let rng = &mut *make_rng()();
        let channel = SleeveChannel::connect(config, mode, pairing, self.clock.now(), rng);
        let (mut link, bytes) = self.link(channel.unwrap(), pipe);
        match link.next(None).await {
            Ok(Next::Event(SleeveEvent::Connected)) => {}
            Ok(_) => return Err("closed".to_owned()),
            Err(error) => return Err(check_of(&error)),
        }
        link.flush().await.map_err(|error| check_of(&error))?;
        let session = loop {
            if let super::ManagerHappening::Connected { session, .. } = self.told().await {
                break session;
            }
        };
        let flow = SleeveFlow::new(false);
        Ok(Hand { link, flow, bytes, session, said: Vec::new() })
    }
}

impl Hand {
    pub(super) fn now(&self) -> UnixTime {
        self.link.now()
    }

    pub(super) fn channel(&mut self) -> &mut SleeveChannel {
        self.link.machine()
    }

    /// What happens next.
    pub(super) async fn event(&mut self) -> Answer {
        loop {
            while let Some(output) = self.flow.poll() {
                match output {
                    Output::Send(bytes) => self.channel().send(&bytes).unwrap(),
                    Output::Event(event) => {
                        let _gone = self.link.flush().await;
                        self.said.push(format!("{event:?}"));
                        return event;
                    }
                }
            }
            match self.link.next(None).await {
                Ok(Next::Event(SleeveEvent::Data(bytes))) => {
                    let _ended = self.flow.handle(self.link.now(), &bytes);
                }
                Ok(Next::Event(SleeveEvent::Closed) | Next::Ended) => {
                    return Answer::Ended { check: "closed".to_owned() };
                }
                Ok(_) => {}
                Err(error) => return Answer::Ended { check: check_of(&error) },
            }
        }
    }

    /// Sends what the flow wants to send, and hears nothing.
    pub(super) async fn send(&mut self) {
        while let Some(bytes) = self.flow.poll_transmit() {
            self.channel().send(&bytes).unwrap();
        }
        self.link.flush().await.unwrap();
    }

    pub(super) async fn ask(
        &mut self,
        ask: impl FnOnce(&mut SleeveFlow, UnixTime) -> Result<(), FlowError>,
    ) -> Answer {
        let now = self.now();
        ask(&mut self.flow, now).unwrap();
        self.event().await
    }

    /// In, or how it went and how long to wait.
    pub(super) async fn login(&mut self, text: &str) -> Result<(), (LoginOutcome, u32)> {
        match self.ask(|flow, now| flow.login(now, &password(text))).await {
            Answer::LoggedIn => Ok(()),
            Answer::LoginRefused { outcome, seconds } => Err((outcome, seconds)),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn list(&mut self) -> Vec<CardLine> {
        match self.ask(SleeveFlow::list).await {
            Answer::Cards(lines) => lines,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn names(&mut self) -> Vec<String> {
        self.list().await.iter().map(|line| line.card.as_str().to_owned()).collect()
    }

    pub(super) async fn take(&mut self, card: &str) -> Result<Taken, String> {
        let card = CardId::new(card).unwrap();
        match self.ask(|flow, now| flow.take(now, &card)).await {
            Answer::Taken(taken) => Ok(taken),
            Answer::Refused { check } => Err(check),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn release(&mut self) {
        let released = self.ask(SleeveFlow::release).await;
        assert!(matches!(released, Answer::Released), "{released:?}");
    }

    /// The card's response, or why there is none.
    pub(super) async fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        match self.ask(|flow, now| flow.transmit(now, command)).await {
            Answer::Answer(response) => Ok(response),
            Answer::Refused { check } | Answer::CardLost { check } | Answer::Ended { check } => {
                Err(check)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends a command, and hears nothing.
    pub(super) async fn begin(&mut self, command: &[u8]) {
        let now = self.now();
        self.flow.transmit(now, command).unwrap();
        self.send().await;
    }

    /// Why it is over.
    pub(super) async fn end(&mut self) -> String {
        loop {
            if let Answer::Ended { check } = self.event().await {
                return check;
            }
        }
    }

    /// Closes the channel.
    pub(super) async fn close(mut self) {
        self.channel().close().unwrap();
        self.link.flush().await.unwrap();
    }

    /// Sleeps for so long, and sends its heartbeats.
    pub(super) async fn sleep_for(&mut self, how_long: Duration) {
        let until = self.now().plus(how_long);
        let next = self.link.next(Some(until)).await;
        assert!(matches!(next, Ok(Next::Deadline)), "{:?}", next.err());
    }

    /// A terminal pays with this session's card.
    pub(super) async fn pay(&mut self, payment: Payment) -> Result<bool, String> {
        let (ask, mut asked) = mpsc::channel::<Asked>(1);
        let paying = tokio::task::spawn_blocking(move || {
            let receipt = countersign_emulator::pay(&mut Far(ask), &payment, &mut *make_rng()());
            receipt.map(|receipt| receipt.is_approved()).map_err(|error| error.to_string())
        });
        while let Some((command, answer)) = asked.recv().await {
            let response = match self.transmit(&command).await {
                Ok(response) => Ok(response.to_vec()),
                Err(_) => Ok(vec![0x69, 0x85]),
            };
            answer.send(response).unwrap();
        }
        paying.await.unwrap()
    }
}

/// A command, and where its answer goes.
type Asked = (Vec<u8>, oneshot::Sender<Result<Vec<u8>, LinkError>>);

/// The card, as a terminal's thread has it.
struct Far(mpsc::Sender<Asked>);

impl CardLink for Far {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let (answer, answered) = oneshot::channel();
        self.0.blocking_send((command.to_vec(), answer)).map_err(|_| LinkError::Removed)?;
        answered.blocking_recv().map_err(|_| LinkError::Removed)?
    }
}

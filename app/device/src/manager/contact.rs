//! One contact, up to its proof: a pairing (A1), or a paired sleeve that connects (A2, A3).

use std::sync::Arc;

use countersign_channel::{Error, ManagerChannel, ManagerEvent, ManagerQuestion, Mode, Pairing};
use countersign_net::{Connection, NetError, Next, Transport};
use countersign_wallet::audit::Entry;
use countersign_wallet::message::{CheckName, ManagerMessage};
use data_encoding::HEXLOWER;

use super::serve::{Admitted, Place};
use super::session::Session;
use super::{ManagerError, ManagerHappening, Route, Shared, on_disk};

/// Bytes of an incident id.
const INCIDENT_LEN: usize = 8;

/// A contact that has not proven itself yet.
pub(super) struct Contact<T> {
    shared: Arc<Shared>,
    link: Connection<ManagerChannel, T>,
    number: u32,
    way: Route,
    /// Who it is, as far as its certificate says.
    sleeve: Option<String>,
    /// Who it is, as the server's relay says.
    relayed: Option<String>,
    /// It has asked to pair.
    asked: bool,
    /// It was let in through the pairing window.
    pairing: bool,
}

/// Why a contact came to nothing.
pub(super) enum Failed {
    Net(NetError<Error>),
    Manager(ManagerError),
    /// It ended where it may.
    Gone,
}

impl Failed {
    pub(super) fn check(&self) -> &str {
        match self {
            Self::Net(error) => check_of(error),
            Self::Manager(error) => error.check(),
            Self::Gone => "connection-closed",
        }
    }
}

impl From<NetError<Error>> for Failed {
    fn from(error: NetError<Error>) -> Self {
        Self::Net(error)
    }
}

/// The failed check's name.
pub(super) const fn check_of(error: &NetError<Error>) -> &'static str {
    match error {
        NetError::Io(_) => "link-lost",
        NetError::WriteTimeout => "peer-stalled",
        NetError::Machine(error) => error.check(),
    }
}

impl<T: Transport> Contact<T> {
    pub(super) fn new(shared: Arc<Shared>, stream: T, admitted: Admitted) -> Self {
        let channel = ManagerChannel::new(shared.config.clone(), &admitted.address, shared.now());
        let link = Connection::new(channel, stream, shared.clock.clone(), shared.rng());
        let Admitted { number, way, relayed, .. } = admitted;
        Self { shared, link, number, way, sleeve: None, relayed, asked: false, pairing: false }
    }

    /// Serves it to its end. `place` is given back once it has proven itself.
    pub(super) async fn serve(mut self, place: Place) {
        let connected = self.connect().await;
        if self.pairing {
            self.shared.window().leave(self.number);
        }
        drop(place);
        match connected {
            Ok(()) if self.link.machine().mode() == Mode::A1 => self.paired().await,
            Ok(()) => {
                let peer = self.link.machine().peer().map(|leaf| leaf.identity().id().to_owned());
                let Some(sleeve) = peer else { return };
                match Session::enter(self.shared, self.link, (self.number, sleeve), self.way) {
                    Ok(session) => session.serve().await,
                    Err(link) => turn_away(link).await,
                }
            }
            Err(failed) => self.failed(failed).await,
        }
    }

    /// Drives the handshake, and answers what it asks.
    async fn connect(&mut self) -> Result<(), Failed> {
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            let next = tokio::select! {
                next = self.link.next(None) => next?,
                _ = stopping.wait_for(|stopping| *stopping) => return Err(Failed::Gone),
            };
            match next {
                Next::Event(ManagerEvent::Connected) => return Ok(()),
                Next::Event(ManagerEvent::Ask(question)) => self.answer(question).await?,
                Next::Event(ManagerEvent::Data(_)) => {
                    return Err(NetError::Machine(Error::Unexpected).into());
                }
                Next::Event(ManagerEvent::Closed) | Next::Ended => return Err(Failed::Gone),
                Next::Deadline => {}
            }
        }
    }

    async fn answer(&mut self, question: ManagerQuestion) -> Result<(), Failed> {
        let answered = match question {
            ManagerQuestion::Window { sleeve_id } => {
                let now = self.shared.now();
                let revoked = self.shared.read_dir(|dir| dir.pairs.is_revoked(&sleeve_id));
                // Through the relay it is who the server says that it is, or none.
                let is_own = self.relayed.as_ref().is_none_or(|own| *own == sleeve_id);
                let open = !revoked && is_own && self.shared.window().enter(now, self.number);
                (self.asked, self.pairing) = (true, open);
                let (channel, now, rng) = self.link.parts();
                let answered = channel.window(now, rng, open);
                if open && answered.is_ok() {
                    // Its certificate holds, and is of this id.
                    self.sleeve = Some(sleeve_id.clone());
                    self.shared.tell(ManagerHappening::PairingAsked { sleeve: sleeve_id });
                }
                answered
            }
            ManagerQuestion::Store(pairing) => {
                let stored = store(self.shared.clone(), self.number, pairing).await;
                let (channel, now, rng) = self.link.parts();
                let answered = channel.stored(now, rng, stored.is_ok());
                if let Err(error) = stored {
                    // The sleeve is told that nothing was stored; its owner, why.
                    self.refuse().await;
                    return Err(Failed::Manager(error));
                }
                answered
            }
            ManagerQuestion::Sleeve { id } => {
                let found = self.shared.read_dir(|dir| dir.pairs.find(&id));
                self.sleeve = Some(id);
                let (channel, now, rng) = self.link.parts();
                channel.sleeve_found(now, rng, found)
            }
        };
        answered.map_err(|error| Failed::Net(NetError::Machine(error)))
    }

    /// The pairing is acknowledged: the window closes, and so does the channel.
    async fn paired(mut self) {
        let peer = self
            .link
            .machine()
            .peer()
            .map(|leaf| (leaf.identity().id().to_owned(), leaf.number().clone()));
        self.shared.window().close();
        self.shared.window_changed.notify_one();
        if let Some((sleeve, number)) = peer {
            self.shared.tell(ManagerHappening::Paired { sleeve, number });
        }
        self.shared.tell(ManagerHappening::WindowClosed { because: "paired" });
        let _dead = self.link.machine().close();
        let _gone = self.link.flush().await;
    }

    async fn failed(mut self, failed: Failed) {
        if let Failed::Net(NetError::Machine(error)) = &failed {
            let mut incident = [0; INCIDENT_LEN];
            self.link.parts().2.fill_bytes(&mut incident);
            let incident = HEXLOWER.encode(&incident);
            tracing::info!(check = error.check(), %incident, "a contact was refused");
            self.link.machine().refuse(error, &incident);
        }
        self.refuse().await;
        if self.asked {
            let (sleeve, check) = (self.sleeve.take(), failed.check().to_owned());
            self.shared.tell(ManagerHappening::PairingFailed { sleeve, check });
        }
    }

    /// Sends the alert, if there is one and someone still listens.
    async fn refuse(&mut self) {
        let _gone = self.link.flush().await;
    }
}

/// Puts a sleeve that has proven itself on the list: on the disk, before it is acknowledged.
async fn store(shared: Arc<Shared>, number: u32, pairing: Pairing) -> Result<(), ManagerError> {
    on_disk(move || {
        let now = shared.now();
        // The window's lock is held until the file is there: whoever closes it afterwards knows
        // that this sleeve is on the list.
        let window = shared.window();
        if !window.admits(now, number) {
            return Err(ManagerError::WindowClosed);
        }
        let entry = Entry { sleeve: Some(pairing.peer.clone()), ..Entry::new("pair") };
        shared.note_now(entry.clone())?;
        let kept = shared.change_dir(|dir| match dir.pairs.is_revoked(&pairing.peer) {
            // Its owner has revoked it while it was inside the window.
            true => Err(ManagerError::WindowClosed),
            false => dir.pairs.keep(pairing, now),
        });
        if let Err(error) = &kept {
            shared.note_now(Entry { check: Some(error.check().to_owned()), ..entry })?;
        }
        kept
    })
    .await
}

/// There are too many sessions.
async fn turn_away<T: Transport>(mut link: Box<Connection<ManagerChannel, T>>) {
    let told = ManagerMessage::Ended(CheckName::clipped("manager-busy")).encode();
    let _gone = link.machine().send(&told);
    let _gone = link.machine().close();
    let _gone = link.flush().await;
}

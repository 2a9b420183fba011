//! What a manager tells its owner, and what its owner tells it.

use std::net::SocketAddr;

use countersign_channel::Mode;
use countersign_pki::CertificateNumber;

/// How a sleeve came (A9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// In the same network.
    Direct,
    /// Through the server's relay.
    Relay,
}

/// What happens at a manager. An alarm (A5) is none of it: whoever stands beside the owner, or
/// makes the owner look, learns nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagerHappening {
    /// Sleeves of this network find the manager here.
    Listening {
        /// Where.
        at: SocketAddr,
    },
    /// The way through the server is there, or was lost.
    Relay {
        /// Whether it is there.
        connected: bool,
        /// Why it was lost.
        check: Option<String>,
    },
    /// One sleeve may pair for so long.
    WindowOpened {
        /// How long.
        seconds: u32,
    },
    /// None may any more.
    WindowClosed {
        /// `paired`, `closed` or `time`.
        because: &'static str,
    },
    /// A sleeve with this id in a good certificate wants to pair; it has not yet proven that it
    /// holds the key.
    PairingAsked {
        /// Its id.
        sleeve: String,
    },
    /// A sleeve is on the list.
    Paired {
        /// Its certified id.
        sleeve: String,
        /// The number of its certificate.
        number: CertificateNumber,
    },
    /// It is not, and the list is as it was.
    PairingFailed {
        /// Its id, if that far.
        sleeve: Option<String>,
        /// Why.
        check: String,
    },
    /// A paired sleeve is there.
    Connected {
        /// The session's number.
        session: u32,
        /// Its id.
        sleeve: String,
        /// How it came.
        way: Route,
        /// The handshake: A2 or A3.
        mode: Mode,
    },
    /// A password was wrong, or not looked at.
    LoginFailed {
        /// Which session.
        session: u32,
        /// For how long none is looked at.
        locked_seconds: u32,
    },
    /// The owner is asked whether the session may use the cards.
    ConsentAsked {
        /// Which session.
        session: u32,
        /// How long the answer may take; none is a no.
        seconds: u32,
    },
    /// The owner said no, or nothing.
    Declined {
        /// Which session.
        session: u32,
    },
    /// The session may use cards.
    LoggedIn {
        /// Which session.
        session: u32,
    },
    /// It has a card.
    Taken {
        /// Which session.
        session: u32,
        /// The card's id.
        card: String,
        /// What it is called.
        label: String,
        /// How long it has it, from each use on.
        seconds: u32,
    },
    /// It has it no more.
    Released {
        /// Which session.
        session: u32,
        /// The card's id.
        card: String,
        /// Why: `released`, or the check that took it away.
        because: String,
    },
    /// A card was not lent, or a command not passed on.
    CardRefused {
        /// Which session.
        session: u32,
        /// The card's id, if it has one.
        card: Option<String>,
        /// Why.
        check: String,
    },
    /// A terminal measures, or could, that the card is not where it seems to be.
    DistanceCheckFails {
        /// Which session.
        session: u32,
        /// The card's id.
        card: String,
    },
    /// Its sleeve sleeps and sends heartbeats (A6).
    Asleep {
        /// Which session.
        session: u32,
    },
    /// It is awake again.
    Awake {
        /// Which session.
        session: u32,
    },
    /// A session is over.
    Ended {
        /// Which.
        session: u32,
        /// Whose it was.
        sleeve: String,
        /// Why.
        check: String,
    },
    /// A sleeve is paired no more.
    Revoked {
        /// Its id.
        sleeve: String,
    },
    /// An order that was not done.
    Refused {
        /// Why.
        check: String,
        /// For a person.
        detail: String,
    },
}

/// What its owner wants of a manager that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagerOrder {
    /// Let one sleeve pair (A1).
    OpenWindow {
        /// For how long, 1 to [`WINDOW_MAX_SECONDS`](super::WINDOW_MAX_SECONDS).
        seconds: u32,
    },
    /// Let none pair.
    CloseWindow,
    /// The answer to [`ManagerHappening::ConsentAsked`].
    Consent {
        /// Which session.
        session: u32,
        /// Whether it may.
        yes: bool,
    },
    /// End a session.
    End {
        /// Which.
        session: u32,
    },
    /// Take a card back from whoever has it, once it has answered.
    Recall {
        /// Its id.
        card: String,
    },
    /// End a pairing, and what that sleeve does at this moment.
    Revoke {
        /// Its id.
        sleeve: String,
    },
    /// End the program.
    Stop,
}

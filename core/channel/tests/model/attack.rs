//! What the attacker can do to one frame: change one byte of a field.

/// Frame types, as in the fifth byte of a frame.
pub(crate) mod kind {
    pub(crate) const REQUEST: u8 = 1;
    pub(crate) const CHALLENGE: u8 = 2;
    pub(crate) const PROOF: u8 = 3;
    pub(crate) const SERVER_PROOF: u8 = 4;
    pub(crate) const FINISHED: u8 = 5;
    pub(crate) const PAIR_REQUEST: u8 = 6;
    pub(crate) const PAIR_ANSWER: u8 = 7;
    pub(crate) const PAIR_PROOF: u8 = 8;
    pub(crate) const ALERT: u8 = 15;
    pub(crate) const RECORD: u8 = 16;
    pub(crate) const NUMBERED: u8 = 17;
}

/// A field of which one byte is changed: one of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The other mode.
    Mode,
    /// The other suite; in M0 the preferred one disappears.
    Suite,
    /// Another policy; in M0 the preferred one disappears.
    Policy,
    ServerId,
    Counter,
    /// The challenge's MAC.
    Mac,
    AfterM0,
    /// A1's `R3`.
    Nonce,
    Share,
    ReaderId,
    SleeveId,
    ManagerId,
    SignedKind,
    Certificate,
    Sealed,
    Signature,
    /// The proof of the binding factor.
    Binder,
    /// A key confirmation.
    Fin,
    /// The number of a record over datagrams.
    Number,
    /// The first protected byte of a record.
    Text,
    /// The last byte of a record's tag.
    Tag,
}

const HEADER_LEN: usize = 8;
const MODE_AT: usize = 3;
/// The challenge that M2 echoes: version, suite, policy, epoch, counter, MAC.
const CHALLENGE: std::ops::Range<usize> = HEADER_LEN..HEADER_LEN + 49;

pub(crate) fn kind_of(frame: &[u8]) -> u8 {
    frame[4]
}

pub(crate) fn mode_of(frame: &[u8]) -> u8 {
    frame[MODE_AT]
}

/// The challenge in an M2.
pub(crate) fn challenge_of(frame: &[u8]) -> &[u8] {
    &frame[CHALLENGE]
}

/// Walks over a frame and notes the last byte of each field.
struct Walk<'a> {
    frame: &'a [u8],
    at: usize,
    found: Vec<(Place, usize)>,
}

impl Walk<'_> {
    fn skip(&mut self, len: usize) {
        self.at += len;
    }

    fn fixed(&mut self, place: Place, len: usize) {
        self.at += len;
        self.found.push((place, self.at - 1));
    }

    /// A vector whose length has `prefix` bytes; an empty one has no byte to change.
    fn vector(&mut self, place: Place, prefix: usize) {
        let len = self.frame[self.at..self.at + prefix]
            .iter()
            .fold(0, |len, byte| len << 8 | usize::from(*byte));
        self.at += prefix;
        if len > 0 {
            self.fixed(place, len);
        }
    }

    /// An offered list: its first entry, of `size` bytes.
    fn offers(&mut self, place: Option<Place>, size: usize) {
        let len = usize::from(self.frame[self.at]); // below 64, so the prefix is one byte
        self.found.extend(place.map(|place| (place, self.at + size)));
        self.at += 1 + len;
    }

    /// The length of a list of less than 16 384 bytes.
    fn prefix(&mut self) {
        self.skip(if self.frame[self.at] < 0x40 { 1 } else { 2 });
    }

    /// M0's body in A2 and A3.
    fn connect_request(&mut self) {
        self.offers(None, 2);
        self.fixed(Place::Suite, 2);
        self.offers(Some(Place::Policy), 1);
        self.vector(Place::SleeveId, 1);
        self.vector(Place::Share, 1);
    }

    fn challenge(&mut self) {
        self.skip(2);
        self.fixed(Place::Suite, 2);
        self.fixed(Place::Policy, 1);
        self.skip(4);
        self.fixed(Place::Counter, 8);
        self.fixed(Place::Mac, 32);
    }
}

/// Every place that a frame has, and which byte it is.
fn places(frame: &[u8]) -> Vec<(Place, usize)> {
    if mode_of(frame) > 2 && kind_of(frame) <= kind::PAIR_PROOF {
        return places_of_pairs(frame);
    }
    let mut walk = Walk { frame, at: HEADER_LEN, found: vec![(Place::Mode, MODE_AT)] };
    let second_mode = mode_of(frame) == 2;
    match kind_of(frame) {
        kind::REQUEST => {
            walk.offers(None, 2);
            walk.offers(Some(Place::Suite), 2);
            walk.offers(Some(Place::Policy), 1);
            walk.vector(Place::ServerId, 1);
        }
        kind::CHALLENGE => {
            walk.challenge();
            if second_mode {
                walk.vector(Place::Certificate, 2);
                walk.vector(Place::Share, 1);
                walk.vector(Place::Signature, 1);
            }
        }
        kind::PROOF => {
            walk.challenge();
            walk.fixed(Place::AfterM0, 32);
            walk.vector(Place::Share, 1);
            walk.skip(1);
            walk.vector(Place::ReaderId, 1);
            walk.fixed(Place::SignedKind, 1);
            walk.vector(Place::Certificate, 2);
            walk.skip(2);
            if second_mode {
                walk.vector(Place::ServerId, 1);
                walk.vector(Place::Sealed, 1);
            }
            walk.vector(Place::Signature, 1);
        }
        kind::SERVER_PROOF => {
            walk.vector(Place::Share, 1);
            if !second_mode {
                walk.vector(Place::Sealed, 1);
                walk.vector(Place::Certificate, 2);
            }
            walk.vector(Place::Signature, 1);
            walk.fixed(Place::Fin, 32);
        }
        kind::FINISHED => walk.fixed(Place::Fin, 32),
        kind::RECORD => {
            walk.fixed(Place::Text, 1);
            walk.found.push((Place::Tag, frame.len() - 1));
        }
        kind::NUMBERED => {
            walk.fixed(Place::Number, 8);
            walk.fixed(Place::Text, 1);
            walk.found.push((Place::Tag, frame.len() - 1));
        }
        _ => {}
    }
    walk.found
}

/// The same for handshakes of sleeves and managers.
fn places_of_pairs(frame: &[u8]) -> Vec<(Place, usize)> {
    const A2: u8 = 4;
    let mut walk = Walk { frame, at: HEADER_LEN, found: vec![(Place::Mode, MODE_AT)] };
    match kind_of(frame) {
        kind::PAIR_REQUEST => {
            walk.offers(None, 2);
            walk.offers(None, 1);
            walk.fixed(Place::Nonce, 32);
            walk.vector(Place::SleeveId, 1);
            walk.prefix();
            walk.fixed(Place::Suite, 2);
            walk.vector(Place::Share, 1);
            walk.vector(Place::Certificate, 2);
        }
        kind::PAIR_ANSWER => {
            walk.skip(2);
            walk.fixed(Place::Suite, 2);
            walk.fixed(Place::Policy, 1);
            walk.vector(Place::Share, 1);
            walk.vector(Place::Sealed, 1);
            walk.vector(Place::ManagerId, 1);
            walk.vector(Place::Certificate, 2);
            walk.vector(Place::Signature, 1);
        }
        kind::PAIR_PROOF => {
            walk.vector(Place::Signature, 1);
            walk.fixed(Place::Fin, 32);
        }
        kind::REQUEST => walk.connect_request(),
        kind::CHALLENGE => {
            walk.challenge();
            if mode_of(frame) != A2 {
                walk.vector(Place::ManagerId, 1);
            }
            walk.vector(Place::Share, 1);
            walk.vector(Place::Signature, 1);
        }
        kind::PROOF => {
            walk.challenge();
            walk.fixed(Place::AfterM0, 32);
            walk.skip(2);
            walk.connect_request();
            walk.vector(Place::Sealed, 1);
            walk.fixed(Place::Binder, 32);
            walk.vector(Place::Signature, 1);
        }
        kind::SERVER_PROOF => {
            walk.vector(Place::Share, 1);
            walk.vector(Place::Sealed, 1);
            walk.vector(Place::Signature, 1);
            walk.fixed(Place::Fin, 32);
        }
        _ => walk.fixed(Place::Fin, 32),
    }
    // M2 of A2 and A3 has suite and policy twice: one of each class is enough.
    walk.found.reverse();
    let mut seen = Vec::new();
    walk.found.retain(|(place, _)| {
        !seen.contains(place) && {
            seen.push(*place);
            true
        }
    });
    walk.found.reverse();
    walk.found
}

/// The places alone.
pub(crate) fn places_of(frame: &[u8]) -> Vec<Place> {
    places(frame).into_iter().map(|(place, _)| place).collect()
}

/// Changes the byte of `place`.
pub(crate) fn change(frame: &mut [u8], place: Place) {
    let found = places(frame).into_iter().find(|(one, _)| *one == place);
    let (_, at) = found.expect("a place of this frame");
    let mode = mode_of(frame);
    frame[at] ^= match place {
        Place::Mode if mode == 3 => 7, // A1 becomes A2
        Place::Mode if mode > 3 => 1,  // A2 becomes A3
        Place::Mode | Place::Suite | Place::Policy | Place::SignedKind => 3, // 1 becomes 2
        _ => 1,
    };
}

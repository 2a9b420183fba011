//! What the attacker can do to one frame: change one byte of a field.

/// Frame types, as in the fifth byte of a frame.
pub(crate) mod kind {
    pub(crate) const REQUEST: u8 = 1;
    pub(crate) const CHALLENGE: u8 = 2;
    pub(crate) const PROOF: u8 = 3;
    pub(crate) const SERVER_PROOF: u8 = 4;
    pub(crate) const FINISHED: u8 = 5;
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
    Share,
    ReaderId,
    SignedKind,
    Certificate,
    Sealed,
    Signature,
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

/// The places alone.
pub(crate) fn places_of(frame: &[u8]) -> Vec<Place> {
    places(frame).into_iter().map(|(place, _)| place).collect()
}

/// Changes the byte of `place`.
pub(crate) fn change(frame: &mut [u8], place: Place) {
    let found = places(frame).into_iter().find(|(one, _)| *one == place);
    let (_, at) = found.expect("a place of this frame");
    frame[at] ^= match place {
        Place::Mode | Place::Suite | Place::Policy | Place::SignedKind => 3, // 1 becomes 2
        _ => 1,
    };
}

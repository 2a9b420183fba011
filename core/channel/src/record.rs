//! The record layer: one direction's keys, what a record's bytes are, and re-keying.
//!
//! Every record of a direction has a number, from 0. Over a stream it is implied, over datagrams it
//! is sent. Its upper bits name the key ("generation"): both sides change keys at the same number,
//! with no message that could be lost, and the old key is gone for good.

use alloc::boxed::Box;
use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, AeadKey, CryptoError, HASH_LEN, Provider, Secret,
};
use zeroize::Zeroizing;

use crate::wire::{self, HEADER_LEN, Kind, Mode};
use crate::{Delivery, Error, Policy, Protection, schedule};

/// Longest application data of one record, in bytes.
pub const RECORD_MAX: usize = 16 * 1024;
/// Longest trailer of a record: the larger of an AEAD's tag and an HMAC.
const TRAILER_MAX: usize = HASH_LEN;
/// Longest body of a record frame: data, content type, tag.
pub(crate) const SEALED_MAX: usize = RECORD_MAX + 1 + TRAILER_MAX;
/// Length of a record's number where it is sent.
pub(crate) const NUMBER_LEN: usize = 8;
/// Records one key protects. AES-GCM's bound at 16 KiB is 2^24.5 (RFC 8446 §5.5); SM4-GCM has the
/// same block size. Then both sides change to the next key by themselves.
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 24;
/// Keys of one session and direction; after the last one the session ends.
pub const KEYS_PER_SESSION_MAX: u64 = 1 << 16;
/// How many keys ahead of the last one a numbered record may be: bounds what a forged number costs.
pub const KEYS_AHEAD_MAX: u64 = 4;
const NUMBERS_MAX: u64 = RECORDS_PER_KEY_MAX * KEYS_PER_SESSION_MAX;

/// What a record holds; its code is the last byte under the protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Content {
    Data = 0,
    Close = 1,
    /// The next record is under the next key (streams; a numbered record says it by its number).
    Rekey = 2,
    /// "Are you there?" (A6)
    Probe = 3,
    /// "I am."
    Answer = 4,
}

impl Content {
    fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Close, Self::Rekey, Self::Probe, Self::Answer]
            .into_iter()
            .find(|content| *content as u8 == code)
    }
}

/// One key and what it protects with.
enum Protector {
    Aead { key: Box<dyn AeadKey>, iv: Zeroizing<[u8; AEAD_NONCE_LEN]> },
    Mac { key: Secret, provider: Provider },
}

impl Protector {
    fn new(provider: &Provider, protection: Protection, secret: &Secret) -> Result<Self, Error> {
        let derived = schedule::record_key(provider, secret)?;
        match protection {
            Protection::EncryptAndMac | Protection::Encrypt => {
                let (key, iv) = derived.expose().split_at(AEAD_KEY_LEN);
                let key = provider.aead.key(&Secret::copied_from(key)).map_err(Error::Local)?;
                let mut nonce = Zeroizing::new([0; AEAD_NONCE_LEN]);
                nonce.copy_from_slice(&iv[..AEAD_NONCE_LEN]);
                Ok(Self::Aead { key, iv: nonce })
            }
            Protection::Mac => Ok(Self::Mac { key: derived, provider: provider.clone() }),
        }
    }

    const fn trailer_len(&self) -> usize {
        match self {
            Self::Aead { .. } => AEAD_TAG_LEN,
            Self::Mac { .. } => HASH_LEN,
        }
    }

    /// Protects `body` in place and appends the tag.
    fn seal(&self, number: u64, frame: &mut Vec<u8>, head: usize) -> Result<(), CryptoError> {
        match self {
            Self::Aead { key, iv } => {
                let (head, body) = frame.split_at_mut(head);
                let tag = key.seal_in_place(&nonce(iv, number), head, body)?;
                frame.extend_from_slice(&tag);
            }
            Self::Mac { key, provider } => {
                let tag = provider.mac.mac(key.expose(), &[&number.to_be_bytes(), frame]);
                frame.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Checks the tag, opens in place, and gives the length of what was protected.
    fn open(&self, number: u64, frame: &mut [u8], head: usize) -> Result<usize, CryptoError> {
        match self {
            Self::Aead { key, iv } => {
                let (head, body) = frame.split_at_mut(head);
                key.open_in_place(&nonce(iv, number), head, body)
            }
            Self::Mac { key, provider } => {
                let refused = CryptoError::BadAuthentication;
                let len = frame.len().checked_sub(HASH_LEN).ok_or(refused)?;
                let (covered, tag) = frame.split_at(len);
                provider.mac.verify(key.expose(), &[&number.to_be_bytes(), covered], tag)?;
                len.checked_sub(head).ok_or(refused)
            }
        }
    }
}

/// IV ⊕ number: never twice under one key.
fn nonce(iv: &[u8; AEAD_NONCE_LEN], number: u64) -> [u8; AEAD_NONCE_LEN] {
    let mut nonce = *iv;
    for (byte, counter) in nonce[AEAD_NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= counter;
    }
    nonce
}

/// The key of one generation and the secret that the next one comes from.
struct Generation {
    at: u64,
    secret: Secret,
    protector: Protector,
}

/// Keys and counter of one direction.
pub(crate) struct Direction {
    provider: Provider,
    mode: Mode,
    policy: Policy,
    generation: Generation,
    /// Number of the next record of a stream, or of the next to be sent.
    next: u64,
    /// Over datagrams: keys changed by [`Self::rekey`] since the peer was last heard.
    unheard: u64,
}

impl Direction {
    pub(crate) fn new(
        provider: &Provider,
        mode: Mode,
        policy: Policy,
        secret: Secret,
    ) -> Result<Self, Error> {
        let protector = Protector::new(provider, policy.protection, &secret)?;
        let generation = Generation { at: 0, secret, protector };
        Ok(Self { provider: provider.clone(), mode, policy, generation, next: 0, unheard: 0 })
    }

    /// The key that protects `number`; `None` if it is the present one.
    fn generation_of(&self, number: u64) -> Result<Option<Generation>, Error> {
        let wanted = number / RECORDS_PER_KEY_MAX;
        let mut found: Option<Generation> = None;
        for at in self.generation.at..wanted {
            let before = found.as_ref().map_or(&self.generation.secret, |it| &it.secret);
            let secret = schedule::next_traffic_secret(&self.provider, before)?;
            let protector = Protector::new(&self.provider, self.policy.protection, &secret)?;
            found = Some(Generation { at: at + 1, secret, protector });
        }
        Ok(found)
    }

    /// Goes on with the next key, at once: the old one is wiped here and not with the next record.
    fn skip_to_next_key(&mut self) -> Result<(), Error> {
        let next = (self.next / RECORDS_PER_KEY_MAX + 1) * RECORDS_PER_KEY_MAX;
        if next >= NUMBERS_MAX {
            return Err(Error::KeyExhausted);
        }
        if let Some(generation) = self.generation_of(next)? {
            self.generation = generation;
        }
        self.next = next;
        Ok(())
    }

    /// Seals one record into a frame.
    pub(crate) fn seal(&mut self, content: Content, data: &[u8]) -> Result<Vec<u8>, Error> {
        if data.len() > RECORD_MAX {
            return Err(Error::Misuse("more than a record holds"));
        }
        // The last number is kept for the close: a full session can still end properly.
        if self.next >= NUMBERS_MAX - u64::from(content != Content::Close) {
            return Err(Error::KeyExhausted);
        }
        if let Some(generation) = self.generation_of(self.next)? {
            self.generation = generation;
        }
        let protector = &self.generation.protector;
        let (kind, number_len) = match self.policy.delivery {
            Delivery::Stream => (Kind::Record, 0),
            Delivery::Datagrams => (Kind::Numbered, NUMBER_LEN),
        };
        let len = number_len + data.len() + 1 + protector.trailer_len();
        // At its final size from the start, and wiped if it cannot be sealed.
        let mut frame = Zeroizing::new(Vec::with_capacity(HEADER_LEN + len));
        frame.extend_from_slice(&wire::header(self.mode, kind, len));
        frame.extend_from_slice(&self.next.to_be_bytes()[..number_len]);
        frame.extend_from_slice(data);
        frame.push(content as u8);
        protector.seal(self.next, &mut frame, HEADER_LEN + number_len).map_err(Error::Local)?;
        self.next += 1;
        Ok(core::mem::take(&mut frame))
    }

    /// Goes on with the next key now: over a stream the peer is told, over datagrams the next
    /// number tells it, so that a peer that hears nothing for a while must not be left behind.
    pub(crate) fn rekey(&mut self) -> Result<Option<Vec<u8>>, Error> {
        // The next record's key, which the last one may just have used up.
        let last_key = self.next / RECORDS_PER_KEY_MAX + 1 >= KEYS_PER_SESSION_MAX;
        match self.policy.delivery {
            _ if last_key => Err(Error::KeyExhausted),
            Delivery::Stream => {
                let frame = self.seal(Content::Rekey, &[])?;
                self.skip_to_next_key()?;
                Ok(Some(frame))
            }
            Delivery::Datagrams if self.unheard >= KEYS_AHEAD_MAX => {
                Err(Error::Misuse("the peer has not been heard since the last keys"))
            }
            Delivery::Datagrams => {
                self.skip_to_next_key()?;
                self.unheard += 1;
                Ok(None)
            }
        }
    }

    /// Something authentic came from the peer.
    pub(crate) const fn heard(&mut self) {
        self.unheard = 0;
    }

    /// Opens a stream's next record. A failed open changes nothing (G12).
    pub(crate) fn open(&mut self, raw: Vec<u8>) -> Result<(Content, Zeroizing<Vec<u8>>), Error> {
        let opened = self.open_as(self.next, raw, HEADER_LEN)?;
        self.next += 1;
        if opened.0 == Content::Rekey {
            self.skip_to_next_key()?;
        }
        Ok(opened)
    }

    /// Opens a numbered record. The caller has checked that the number is new.
    pub(crate) fn open_numbered(
        &mut self,
        number: u64,
        raw: Vec<u8>,
    ) -> Result<(Content, Zeroizing<Vec<u8>>), Error> {
        let generation = number / RECORDS_PER_KEY_MAX;
        let present = self.generation.at;
        // An older key is gone; one far ahead would cost derivations for nothing.
        let ahead = generation.checked_sub(present);
        if number >= NUMBERS_MAX || ahead.is_none_or(|ahead| ahead > KEYS_AHEAD_MAX) {
            return Err(Error::Authentication("record"));
        }
        self.open_as(number, raw, HEADER_LEN + NUMBER_LEN)
    }

    fn open_as(
        &mut self,
        number: u64,
        raw: Vec<u8>,
        head: usize,
    ) -> Result<(Content, Zeroizing<Vec<u8>>), Error> {
        if number >= NUMBERS_MAX {
            return Err(Error::KeyExhausted);
        }
        let newer = self.generation_of(number)?;
        let protector = &newer.as_ref().unwrap_or(&self.generation).protector;
        let mut frame = Zeroizing::new(raw);
        let len = protector
            .open(number, &mut frame, head)
            .map_err(|_| Error::Authentication("record"))?;
        if let Some(newer) = newer {
            self.generation = newer;
        }
        frame.truncate(head + len);
        // The content type comes last, so that taking it off moves nothing.
        let content = if len == 0 { None } else { frame.pop() };
        let content = content.and_then(Content::from_code);
        frame.drain(..head);
        match content {
            Some(Content::Data) if frame.len() <= RECORD_MAX => Ok((Content::Data, frame)),
            Some(other) if frame.is_empty() => Ok((other, frame)),
            _ => Err(Error::Malformed("record content")),
        }
    }
}

/// The number in a numbered record's frame.
pub(crate) fn number_of(raw: &[u8]) -> Option<u64> {
    raw.get(HEADER_LEN..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;

    fn pair(policy: Policy) -> (Direction, Direction) {
        let direction = || {
            let secret = Secret::copied_from(&[1; HASH_LEN]);
            Direction::new(&rust_crypto::provider(), Mode::C1, policy, secret).expect("keys")
        };
        (direction(), direction())
    }

    fn protections() -> [Policy; 3] {
        [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt]
            .map(|protection| Policy { protection, ..Policy::default() })
    }

    const DATAGRAMS: Policy = Policy {
        protection: Protection::EncryptAndMac,
        delivery: Delivery::Datagrams,
        certificate_sealed: false,
    };

    fn data((content, data): (Content, Zeroizing<Vec<u8>>)) -> Vec<u8> {
        assert_eq!(content, Content::Data);
        data.to_vec()
    }

    /// G12: a session ends at its limit, and can still be closed.
    #[test]
    fn a_session_protects_so_many_records_and_the_close() {
        let (mut sealing, mut opening) = pair(Policy::default());
        let (last_key, last) = (KEYS_PER_SESSION_MAX - 1, NUMBERS_MAX - 2);
        for direction in [&mut sealing, &mut opening] {
            direction.generation.at = last_key; // without deriving 65 535 keys
            direction.next = last;
        }
        let record = sealing.seal(Content::Data, b"last").expect("below the limit");
        assert_eq!(data(opening.open(record).expect("opened")), b"last");
        assert_eq!(sealing.seal(Content::Data, b"more"), Err(Error::KeyExhausted));
        assert_eq!(sealing.seal(Content::Probe, &[]), Err(Error::KeyExhausted));
        let close = sealing.seal(Content::Close, &[]).expect("the place that is kept for it");
        assert_eq!(opening.open(close.clone()).expect("opened").0, Content::Close);
        assert_eq!(sealing.seal(Content::Close, &[]), Err(Error::KeyExhausted));
        assert_eq!(opening.open(close).err(), Some(Error::KeyExhausted));
    }

    /// Both sides change keys at the same number, by themselves, and what the old key sealed does
    /// not open any more.
    #[test]
    fn keys_change_at_their_limit_without_a_message() {
        for policy in protections() {
            let (mut sealing, mut opening) = pair(policy);
            sealing.next = RECORDS_PER_KEY_MAX - 1;
            opening.next = sealing.next;
            let old = sealing.seal(Content::Data, b"old").expect("sealed");
            let new = sealing.seal(Content::Data, b"new").expect("sealed");
            assert_eq!((sealing.generation.at, sealing.next), (1, RECORDS_PER_KEY_MAX + 1));
            assert_eq!(data(opening.open(old.clone()).expect("opened")), b"old");
            assert_eq!(opening.open(old).err(), Some(Error::Authentication("record")));
            assert_eq!(data(opening.open(new).expect("opened")), b"new");
            assert_ne!(sealing.generation.secret.expose(), [1; HASH_LEN]);
        }
    }

    #[test]
    fn keys_change_when_asked_over_a_stream() {
        let (mut sealing, mut opening) = pair(Policy::default());
        for round in 0..3 {
            let record = sealing.seal(Content::Data, &[round]).expect("sealed");
            assert_eq!(data(opening.open(record).expect("opened")), [round]);
            let rekey = sealing.rekey().expect("rekeyed").expect("a record");
            assert_eq!(opening.open(rekey).expect("opened").0, Content::Rekey);
            // The old key is gone now, not with the next record.
            let now = u64::from(round) + 1;
            assert_eq!((sealing.generation.at, opening.generation.at), (now, now));
        }
        let record = sealing.seal(Content::Data, b"x").expect("sealed");
        assert_eq!(sealing.generation.at, 3);
        assert_eq!(data(opening.open(record).expect("opened")), b"x");
        assert_eq!(opening.generation.at, 3);
    }

    /// Over datagrams the number names the key; a forged one far ahead costs nothing.
    #[test]
    fn keys_change_when_asked_over_datagrams_even_if_records_are_lost() {
        let (mut sealing, mut opening) = pair(DATAGRAMS);
        for _ in 0..KEYS_AHEAD_MAX {
            sealing.seal(Content::Data, b"lost").expect("sealed");
            assert_eq!(sealing.rekey().expect("rekeyed"), None);
        }
        let old = sealing.seal(Content::Data, b"new").expect("sealed");
        let number = number_of(&old).expect("a number");
        assert_eq!(number / RECORDS_PER_KEY_MAX, KEYS_AHEAD_MAX);
        assert_eq!(data(opening.open_numbered(number, old.clone()).expect("opened")), b"new");
        // No further until the peer is heard: it might not catch up.
        let unheard = Error::Misuse("the peer has not been heard since the last keys");
        assert_eq!(sealing.rekey(), Err(unheard));
        // Five keys further is more than may have been lost.
        (0..=KEYS_AHEAD_MAX).for_each(|_| {
            sealing.heard();
            sealing.rekey().expect("rekeyed");
        });
        let far = sealing.seal(Content::Data, b"far").expect("sealed");
        let number = number_of(&far).expect("a number");
        let refused = Some(Error::Authentication("record"));
        assert_eq!(opening.open_numbered(number, far).err(), refused);
        // An older key is gone.
        assert_eq!(opening.open_numbered(0, old.clone()).err(), refused);
        // Near the last key a number beyond all is forged like any other, not the end.
        opening.generation.at = KEYS_PER_SESSION_MAX - 1;
        assert_eq!(opening.open_numbered(NUMBERS_MAX, old).err(), refused);
    }

    /// The last key cannot be left, so that the close has its place.
    #[test]
    fn the_last_key_is_kept_for_the_close() {
        for policy in [Policy::default(), DATAGRAMS] {
            let (mut sealing, _) = pair(policy);
            sealing.generation.at = KEYS_PER_SESSION_MAX - 1;
            sealing.next = sealing.generation.at * RECORDS_PER_KEY_MAX;
            assert_eq!(sealing.rekey(), Err(Error::KeyExhausted));
            assert!(sealing.seal(Content::Close, &[]).is_ok());
            // The same where the last key begins with the next record.
            let (mut sealing, mut opening) = pair(policy);
            for direction in [&mut sealing, &mut opening] {
                direction.generation.at = KEYS_PER_SESSION_MAX - 2;
                direction.next = (KEYS_PER_SESSION_MAX - 1) * RECORDS_PER_KEY_MAX;
            }
            assert_eq!(sealing.rekey(), Err(Error::KeyExhausted));
            let close = sealing.seal(Content::Close, &[]).expect("sealed");
            if policy.delivery == Delivery::Stream {
                assert_eq!(opening.open(close).expect("opened").0, Content::Close);
            }
        }
    }

    /// What a record holds is bounded for the receiver too, whatever the trailer's length leaves.
    #[test]
    fn a_peer_cannot_send_more_than_a_record_holds() {
        let (sealing, mut opening) = pair(Policy::default());
        let mut frame = vec![0; HEADER_LEN];
        frame.extend([7; RECORD_MAX + 1]);
        frame.push(Content::Data as u8);
        let len = frame.len() - HEADER_LEN + AEAD_TAG_LEN;
        frame[..HEADER_LEN].copy_from_slice(&wire::header(Mode::C1, Kind::Record, len));
        sealing.generation.protector.seal(0, &mut frame, HEADER_LEN).expect("sealed");
        assert_eq!(opening.open(frame).err(), Some(Error::Malformed("record content")));
    }

    #[test]
    fn a_failed_open_changes_nothing() {
        for policy in protections() {
            let (mut sealing, mut opening) = pair(policy);
            let good = sealing.seal(Content::Data, b"data").expect("sealed");
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(opening.open(bad).is_err(), "byte {at}");
            }
            for len in HEADER_LEN..good.len() {
                assert!(opening.open(good[..len].to_vec()).is_err(), "length {len}");
            }
            assert_eq!(data(opening.open(good).expect("opened")), b"data");
        }
        let (mut sealing, mut opening) = pair(DATAGRAMS);
        let good = sealing.seal(Content::Data, b"data").expect("sealed");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let number = number_of(&bad).expect("a number");
            assert!(opening.open_numbered(number, bad).is_err(), "byte {at}");
            assert_eq!(opening.generation.at, 0, "a forged number moves no key");
        }
        assert_eq!(data(opening.open_numbered(0, good).expect("opened")), b"data");
    }

    /// A7: what a policy is called is what it does, and each has keys of its own (the transcript
    /// names it; here the form differs).
    #[test]
    fn policies_hide_and_authenticate_what_they_say() {
        let text = b"a password, for instance";
        let [both, mac, encrypt] =
            protections().map(|policy| pair(policy).0.seal(Content::Data, text).expect("sealed"));
        let shows = |record: &[u8]| record.windows(text.len()).any(|part| part == text);
        assert!(!shows(&both) && !shows(&encrypt) && shows(&mac));
        assert_eq!(mac.len(), HEADER_LEN + text.len() + 1 + HASH_LEN);
        assert_eq!(both.len(), HEADER_LEN + text.len() + 1 + AEAD_TAG_LEN);
        for (policy, record) in protections().into_iter().zip([mac, both, encrypt]) {
            let (mut sealing, mut opening) = pair(policy);
            if policy.protection == Protection::EncryptAndMac {
                assert!(opening.open(record).is_err(), "a MAC record under the AEAD's policy");
            }
            let too_long = sealing.seal(Content::Data, &[0; RECORD_MAX + 1]);
            assert_eq!(too_long, Err(Error::Misuse("more than a record holds")));
        }
    }

    #[test]
    fn nonces_differ_by_number() {
        let mut nonces: Vec<_> = [0, 1, 255, 256, RECORDS_PER_KEY_MAX, NUMBERS_MAX - 1]
            .map(|number| nonce(&[7; AEAD_NONCE_LEN], number))
            .into();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), 6);
        assert_eq!(nonce(&[0; AEAD_NONCE_LEN], 1)[AEAD_NONCE_LEN - 1], 1);
    }
}

//! The messages, taken apart by the tables of `docs/protocols/channel.md` and by nothing else.

use countersign_crypto::sm;

use super::*;

/// A body that is read field by field.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        field
    }

    /// An integer of `len` bytes, big-endian.
    fn number(&mut self, len: usize) -> usize {
        self.take(len).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    /// `<len>`: a vector with a length prefix of so many bytes.
    fn vector(&mut self, len: usize) -> &'a [u8] {
        let len = self.number(len);
        self.take(len)
    }

    /// `<v>`: a vector with the length prefix of RFC 9000 §16.
    fn list(&mut self) -> Fields<'a> {
        let first = usize::from(self.0[0]);
        let (more, len) = (1 << (first >> 6), self.number(1) & 0x3f);
        let len = (1..more).fold(len, |len, _| len << 8 | self.number(1));
        Fields(self.take(len))
    }

    fn end(&self) {
        assert!(self.0.is_empty(), "bytes are left over: {:02x?}", self.0);
    }
}

/// The body of a frame whose header is as it should be.
fn body(frame: &[u8], mode: Mode, kind: u8) -> Fields<'_> {
    let (header, body) = frame.split_at(8);
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    assert_eq!(header, [b'C', b'S', 1, mode as u8, kind, len[1], len[2], len[3]]);
    Fields(body)
}

fn frames(world: &mut World, mode: Mode) -> Vec<Vec<u8>> {
    let mut pair = world.contact(mode);
    let mut frames = Vec::new();
    for n in 0..messages(mode) {
        pair.collect();
        let wire = if n % 2 == 0 { &mut pair.to_manager } else { &mut pair.to_sleeve };
        let frame = wire.pop_front().unwrap();
        pair.deliver_message(n, &frame).unwrap();
        frames.push(frame);
    }
    frames
}

/// Both suites: code, length of a share.
fn suites() -> [(World, usize, usize); 2] {
    [(world(310), 1, 32), (world_with(&sm::provider(), 310), 2, 65)]
}

#[test]
fn a1_messages_are_as_documented() {
    for (mut world, suite, share) in suites() {
        let frames = frames(&mut world, Mode::A1);
        let [sleeve, manager] = [&world.sleeve.credentials, &world.manager.credentials]
            .map(|credentials| &credentials[0].certificate[..]);
        let mut m1 = body(&frames[0], Mode::A1, 6);
        assert_eq!(m1.list().0, [0, 1], "versions");
        assert_eq!(m1.list().0, [1], "policies");
        let r3 = m1.take(32);
        assert_eq!(m1.vector(1), b"SLV-1");
        let mut offers = m1.list();
        m1.end();
        assert_eq!(offers.number(2), suite);
        assert_eq!(offers.vector(1).len(), share);
        assert_eq!(offers.vector(2), sleeve);
        offers.end();

        let mut m2 = body(&frames[1], Mode::A1, 7);
        assert_eq!((m2.number(2), m2.number(2), m2.number(1)), (1, suite, 1));
        assert_eq!(m2.vector(1).len(), share);
        let sealed = m2.vector(1);
        assert_eq!(sealed.len(), 64 + 16);
        assert!(!sealed.windows(8).any(|part| r3.starts_with(part)), "R3 is sealed");
        assert_eq!(m2.vector(1), b"MGR-1");
        assert_eq!(m2.vector(2), manager);
        assert!((64..=72).contains(&m2.vector(1).len()), "a signature, DER");
        m2.end();

        let mut m3 = body(&frames[2], Mode::A1, 8);
        assert!((64..=72).contains(&m3.vector(1).len()));
        assert_eq!(m3.0.len(), 32, "Fin_S");
        assert_eq!(body(&frames[3], Mode::A1, 5).0.len(), 32, "Fin_M");
    }
}

#[test]
fn a2_a3_messages_are_as_documented() {
    for mode in CONNECTS {
        for (world, suite, share) in suites() {
            let mut world = world.paired();
            let frames = frames(&mut world, mode);
            let mut m0 = body(&frames[0], mode, 1);
            let request = m0.0;
            assert_eq!(m0.list().0, [0, 1], "versions");
            assert_eq!(m0.number(2), suite);
            assert_eq!(m0.list().0, [1], "policies");
            assert_eq!(m0.vector(1), b"SLV-1");
            assert_eq!(m0.vector(1).len(), share);
            m0.end();

            let mut m1 = body(&frames[1], mode, 2);
            let challenge = m1.take(49);
            let selection = Fields(challenge).take(5);
            assert_eq!(selection, [0, 1, 0, u8::try_from(suite).unwrap(), 1]);
            if mode == Mode::A3 {
                assert_eq!(m1.vector(1), b"MGR-1");
            }
            let epoch_share = m1.vector(1);
            assert_eq!(epoch_share.len(), share);
            assert!((64..=72).contains(&m1.vector(1).len()));
            m1.end();

            let mut m2 = body(&frames[2], mode, 3);
            assert_eq!(m2.take(49), challenge);
            m2.take(32); // the hash after M0
            assert_eq!(m2.vector(2), request, "M0's body again");
            let contribution = if mode == Mode::A2 { 32 } else { 44 + 32 };
            assert_eq!(m2.vector(1).len(), contribution + 16);
            m2.take(32); // the binder
            assert!((64..=72).contains(&m2.vector(1).len()));
            m2.end();

            let mut m3 = body(&frames[3], mode, 4);
            let fresh = m3.vector(1);
            assert_eq!(fresh.len(), share);
            assert_ne!(fresh, epoch_share, "a share of this contact's own");
            assert_eq!(m3.vector(1).len(), if mode == Mode::A2 { 64 + 16 } else { 0 });
            assert!((64..=72).contains(&m3.vector(1).len()));
            assert_eq!(m3.0.len(), 32, "Fin_M");
            assert_eq!(body(&frames[4], mode, 5).0.len(), 32, "Fin_S");
        }
    }
}

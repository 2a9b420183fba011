//! What signatures are made over (G10), and what an eavesdropper sees (G16).

use std::sync::{Arc, Mutex};

use countersign_crypto::{CryptoError, CryptoRng, Domain, SecureElement};

use super::*;

/// A secure element that keeps what it is asked to sign.
pub(crate) struct Recording {
    pub(crate) inner: Arc<dyn SecureElement>,
    pub(crate) signed: Signed,
}

impl SecureElement for Recording {
    fn public_key(&self) -> &[u8] {
        self.inner.public_key()
    }

    fn sign_in(
        &self,
        rng: &mut dyn CryptoRng,
        domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.signed.lock().unwrap().push((domain, message.to_vec()));
        self.inner.sign_in(rng, domain, message)
    }
}

pub(crate) type Signed = Arc<Mutex<Vec<(Domain, Vec<u8>)>>>;

fn recorded(mode: Mode, seed: u64) -> (World, Signed, Signed) {
    let mut world = world(seed).speaking(mode);
    let (reader, server) = (Signed::default(), Signed::default());
    let record = |inner: &Arc<dyn SecureElement>, signed: &Signed| -> Arc<dyn SecureElement> {
        Arc::new(Recording { inner: inner.clone(), signed: signed.clone() })
    };
    world.change_reader(|config| {
        config.credentials[0].key = record(&config.credentials[0].key, &reader);
    });
    world.change_server(|config| {
        config.credentials[0].key = record(&config.credentials[0].key, &server);
    });
    (world, reader, server)
}

/// G10: whatever the peer sends, a party signs context, purpose, mode, role and a hash that its own
/// fresh share went into, in the handshakes' domain: never bytes that somebody chose.
#[test]
fn g10_nobody_chooses_what_a_party_signs() {
    for mode in MODES {
        let (mut world, reader, server) = recorded(mode, 90);
        let mut pair = world.connect();
        let m1 = pair.take_server_frame(0);
        // The same challenge, to two readers: the recorded one, and one that made other shares.
        for _ in 0..2 {
            let mut again = world.connect();
            again.deliver_to_reader(&m1).unwrap();
        }
        for _ in 0..2 {
            connected(&mut world);
        }
        let reader = reader.lock().unwrap();
        let server = server.lock().unwrap();
        assert_eq!(reader.len(), 4);
        // In C2 the server also signed one epoch share, first.
        assert_eq!(server.len(), 2 + usize::from(mode == Mode::C2));
        let handshakes = server.iter().skip(usize::from(mode == Mode::C2));
        let mut hashes = Vec::new();
        for (role, (domain, message)) in
            reader.iter().map(|one| (1, one)).chain(handshakes.map(|one| (2, one)))
        {
            assert_eq!(*domain, Domain::Handshake);
            let rest = message.strip_prefix(b"Countersign v1 signature").unwrap();
            assert_eq!(rest[..2], [mode as u8, role]);
            let id = usize::try_from(u64::from_be_bytes(rest[2..10].try_into().unwrap())).unwrap();
            assert_eq!(rest.len(), 2 + 8 + id + 32);
            hashes.push(&rest[10 + id..]);
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 6, "no hash is signed twice, not even for one challenge");
        if mode == Mode::C2 {
            assert!(server[0].1.starts_with(b"Countersign v1 epoch share\x02\x02"));
        }
    }
}

pub(crate) fn shows(frames: &[Vec<u8>], what: &[u8]) -> Vec<usize> {
    let in_it = |frame: &Vec<u8>| frame.windows(what.len()).any(|part| part == what);
    (0..frames.len()).filter(|number| in_it(&frames[*number])).collect()
}

/// G16: exactly what `docs/protocols/channel.md` states, message by message.
#[test]
fn g16_an_eavesdropper_sees_the_stated_identities_and_no_others() {
    for mode in MODES {
        let mut world = world(91).speaking(mode);
        let mut frames: Vec<_> = (0..5).map(|n| frame_of(&mut world.connect(), n)).collect();
        let mut pair = connected(&mut world);
        pair.reader.send(b"RD-1 at srv-1").unwrap();
        pair.collect();
        frames.extend(pair.to_server.drain(..));
        assert_eq!(frames.len(), 6);
        let server_shown = if mode == Mode::C1 { 3 } else { 1 };
        assert_eq!(shows(&frames, &world.reader.credentials[0].certificate), [2]);
        assert_eq!(shows(&frames, &world.server.credentials[0].certificate), [server_shown]);
        assert_eq!(shows(&frames, b"RD-1"), [2], "{mode:?}");
        let mut named = vec![0, server_shown];
        if mode == Mode::C2 {
            named.push(2); // M2 names the server it answers
        }
        named.sort_unstable();
        assert_eq!(shows(&frames, b"srv-1"), named, "{mode:?}");
    }
}

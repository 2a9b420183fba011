//! What leaked keys are good for, and what not (G1, G3, G4). What the attacker may compute in
//! general is in the symbolic models; here the real machines are put to it.

use std::sync::Arc;

use countersign_channel::{ChallengeGate, EpochShare, Issued, Selection, ServerChannel};
use countersign_channel::{Challenges, SharedChallenges};
use countersign_crypto::{CryptoRng, SecureElement, UnixTime};
use testkit::pair::ADDRESS;

use super::*;

/// An attacker who has got hold of a server's challenge keys, epochs' shares included: it takes
/// the same challenge again.
pub(crate) struct Leaked(pub(crate) SharedChallenges);

impl ChallengeGate for Leaked {
    fn issue(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        selection: Selection,
        binding: &[u8],
    ) -> Result<Issued, Error> {
        self.0.issue(now, rng, selection, binding)
    }

    fn check(&self, now: UnixTime, issued: &Issued, binding: &[u8]) -> Result<(), Error> {
        self.0.check(now, issued, binding)
    }

    fn consume(&self, _: UnixTime, _: &Issued) -> Result<(), Error> {
        Ok(())
    }

    fn epoch_share(
        &self,
        now: UnixTime,
        issued: &Issued,
        certificate: &[u8],
        make: &mut dyn FnMut() -> Result<EpochShare, Error>,
    ) -> Result<Arc<EpochShare>, Error> {
        self.0.epoch_share(now, issued, certificate, make)
    }

    fn expire(&self, now: UnixTime) {
        self.0.expire(now);
    }
}

/// G1, G3: a session was recorded; later the server's long-term key, its challenge keys and even
/// the epoch's share are known. Whoever has them and plays the recorded M2 once more gets another
/// session, and the recorded records stay closed.
#[test]
fn g3_leaked_long_term_keys_do_not_open_recorded_sessions() {
    for (_, mut world) in worlds(100) {
        let challenges = Challenges::new(aws_lc::provider());
        let gate = Arc::new(Leaked(SharedChallenges::new(challenges)));
        world.change_server(|config| config.challenges = gate);
        let mut pair = world.connect();
        let m2 = pair.take_reader_frame(1);
        pair.deliver_to_server(&m2).unwrap();
        pair.collect();
        let m3 = pair.to_reader.pop_front().unwrap();
        pair.deliver_to_reader(&m3).unwrap();
        pair.reader.send(b"recorded").unwrap();
        pair.collect();
        let [m4, record] = [(); 2].map(|()| pair.to_server.pop_front().unwrap());

        let rng = &mut pair.rng;
        let mut attacker = ServerChannel::new(world.server.clone(), &ADDRESS, world.now);
        attacker.handle(world.now, rng, &m2).unwrap();
        attacker.reader_found(world.now, rng, world.directory.clone()).unwrap();
        assert!(attacker.poll_transmit().is_some(), "it can answer as the server");
        // The recorded M4 is not this session's: the reader's share is all they have in common.
        let error = attacker.handle(world.now, rng, &m4).unwrap_err();
        assert_eq!(error, Error::Authentication("finished"));
        // The true server opens what the attacker could not.
        pair.deliver_to_server(&[m4, record].concat()).unwrap();
        assert!(matches!(pair.server_events.remove(0), ServerEvent::Connected));
        assert_eq!(server_data(&mut pair), [b"recorded".to_vec()]);
    }
}

/// G4: a party whose own key has leaked is still not deceived about others. With the reader's key
/// an attacker is no server to it; with the server's key it is no reader to it.
#[test]
fn g4_a_leaked_key_impersonates_its_owner_only() {
    for (mode, mut world) in worlds(101) {
        let reader_key = world.reader.credentials[0].key.clone();
        let server_key = world.server.credentials[0].key.clone();
        let with = |world: &mut World, side_is_server: bool, key: Arc<dyn SecureElement>| {
            if side_is_server {
                world.change_server(|config| config.credentials[0].key = key);
            } else {
                world.change_reader(|config| config.credentials[0].key = key);
            }
        };
        // The server's certificate, the reader's key.
        with(&mut world, true, reader_key.clone());
        let mut pair = world.connect();
        let outcome = pair.drive().unwrap_err();
        let check = if mode == Mode::C1 { "server-signature" } else { "epoch-signature" };
        assert_eq!(outcome, Error::Authentication(check));
        assert!(pair.reader_events.is_empty());
        // The reader's certificate, the server's key.
        with(&mut world, true, server_key.clone());
        let fresh = SharedChallenges::new(Challenges::new(aws_lc::provider()));
        world.change_server(|config| config.challenges = Arc::new(fresh));
        with(&mut world, false, server_key);
        assert_eq!(refused(&mut world), Error::Authentication("reader-signature"));
        // And with its own again it is let in: nothing else was wrong.
        with(&mut world, false, reader_key);
        connected(&mut world);
    }
}

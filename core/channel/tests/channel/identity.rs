//! Who is let in and who is refused, and who learns why (C4, G5, G16).

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    DirectoryEntry, Error, IdKind, LookupRefusal, Mode, Refusal, ServerChannel,
};
use countersign_crypto::aws_lc;
use countersign_pki::{PkiError, Role};
use testkit::counting::{CountingProvider, Counts};
use testkit::pair::{ADDRESS, World, entry, reader_config, server_config};
use testkit::pki::{LEAF_VALIDITY, NOW, TestPki};

use super::*;

/// C4: the signed and the sent id in all four combinations, and pairs that do not match.
#[test]
fn c4_ids_of_different_kinds_are_mapped_and_must_match() {
    let kinds = [IdKind::Serial, IdKind::CertificateNumber];
    for signed_id in kinds {
        for sent_id in kinds {
            for (_, mut world) in worlds(4) {
                world.change_reader(|config| {
                    config.signed_id = signed_id;
                    config.sent_id = sent_id;
                });
                connected(&mut world);
            }
        }
    }
    // The directory maps the sent serial to another certificate number.
    let mut world = world(4);
    let other = world.pki.party(Role::Reader, "RD-2");
    world.directory = Ok(DirectoryEntry { serial: "RD-1".into(), ..entry(&other) });
    assert_eq!(refused(&mut world), Refusal::ReaderIdMismatch.into());
    // RD-1 shows RD-2's serial with its own certificate.
    world.directory = Ok(entry(&other));
    world.change_reader(|config| config.serial = "RD-2".into());
    assert_eq!(refused(&mut world), Refusal::ReaderIdMismatch.into());
}

#[test]
fn foreign_expired_revoked_blocked_and_unknown_readers_are_refused_by_name() {
    let provider = aws_lc::provider();
    let mut foreign = world(5);
    let mut other = TestPki::new(provider.clone(), 6);
    let party = other.party(Role::Reader, "RD-1");
    foreign.directory = Ok(entry(&party));
    let mut config = reader_config(&other, &party, provider);
    config.credentials[0].trust = foreign.reader.credentials[0].trust.clone();
    foreign.reader = Arc::new(config);
    assert_eq!(refused(&mut foreign), PkiError::UnknownIssuer.into());

    let mut late = world(5);
    late.now = NOW.plus(LEAF_VALIDITY + Duration::from_secs(1));
    assert_eq!(refused(&mut late), PkiError::Expired.into());

    for (answer, error) in [
        (LookupRefusal::Unknown, Refusal::UnknownReader.into()),
        (LookupRefusal::Revoked, PkiError::Revoked.into()),
        (LookupRefusal::Blocked, Refusal::ReaderBlocked.into()),
        (LookupRefusal::Unavailable, Error::from(Refusal::Busy)),
    ] {
        let mut world = world(5);
        world.directory = Err(answer);
        assert_eq!(refused(&mut world), error);
    }
}

/// Who has no reader's key learns nothing of what the directory says (no enrolment oracle).
#[test]
fn the_directory_speaks_to_proven_readers_only() {
    for answer in [LookupRefusal::Unknown, LookupRefusal::Revoked, LookupRefusal::Blocked] {
        let mut world = world(23);
        world.directory = Err(answer);
        let mut pair = world.connect();
        let mut m2 = pair.take_reader_frame(1);
        let last = m2.len() - 1;
        m2[last] ^= 1;
        let error = pair.deliver_to_server(&m2).unwrap_err();
        assert_eq!(error, Error::Authentication("reader-signature"), "{answer:?}");
        // A certificate that is none at all is refused before that, whatever the directory says.
        let mut pair = world.connect();
        let mut m2 = pair.take_reader_frame(1);
        let at = m2.windows(2).position(|two| two == [0x30, 0x82]).unwrap();
        m2[at] = 0x31;
        assert_eq!(pair.deliver_to_server(&m2).unwrap_err(), PkiError::Malformed.into());
    }
    let mut world = world(23);
    let other = world.pki.party(Role::Reader, "RD-2");
    world.directory = Ok(entry(&other));
    let mut pair = world.connect();
    let mut m2 = pair.take_reader_frame(1);
    let last = m2.len() - 1;
    m2[last] ^= 1;
    let error = pair.deliver_to_server(&m2).unwrap_err();
    assert_eq!(error, Error::Authentication("reader-signature"), "no mismatch oracle either");
}

/// A directory that answers after the deadline costs no key generation and no signature.
#[test]
fn a_late_directory_ends_the_handshake_before_its_dear_part() {
    let counting = CountingProvider::new(aws_lc::provider());
    let plain = aws_lc::provider();
    let mut world = World::new(plain.clone(), plain, counting.provider(), 24);
    let mut pair = world.connect();
    let m2 = pair.take_reader_frame(1);
    pair.server.handle(pair.now, &mut pair.rng, &m2).unwrap();
    let late = pair.server.poll_timeout().unwrap();
    let answer = pair.directory.clone();
    let (result, counts) =
        counting.measure(|| pair.server.reader_found(late, &mut pair.rng, answer));
    assert_eq!(result, Err(Error::Timeout));
    assert_eq!(counts, Counts::default());
}

/// The directory's answer to a question nobody asked is the caller's mistake, not the session's.
#[test]
fn misuse_does_not_end_a_session() {
    let mut world = world(25);
    let mut pair = connected(&mut world);
    let answer = pair.directory.clone();
    let error = pair.server.reader_found(pair.now, &mut pair.rng, answer).unwrap_err();
    assert!(matches!(error, Error::Misuse(_)));
    pair.reader.send(b"still here").unwrap();
    pair.drive().unwrap();
    assert_eq!(server_data(&mut pair), [b"still here".to_vec()]);
}

#[test]
fn the_alert_names_the_check_and_the_incident() {
    let mut world = world(7);
    world.directory = Err(LookupRefusal::Blocked);
    let mut pair = world.connect();
    pair.drive().unwrap_err();
    pair.collect();
    let alert = pair.to_reader.pop_front().unwrap();
    let error = pair.deliver_to_reader(&alert).unwrap_err();
    assert_eq!(error.to_string(), "the peer refused: reader-blocked (incident inc-test)");
    assert_eq!(pair.deliver_to_reader(&alert), Err(Error::Dead));
}

#[test]
fn g5_the_reader_refuses_servers_it_was_not_set_up_for() {
    for (_, mut world) in worlds(8) {
        // Another certified server: G5, no misbinding with a corrupt certified peer.
        let provider = aws_lc::provider();
        let mallory = world.pki.party(Role::Server, "srv-2");
        let mut config = server_config(&world.pki, &mallory, provider.clone());
        config.server_id = "srv-1".into(); // it answers to the name, but its certificate does not
        world.server = Arc::new(config);
        assert_eq!(refused_by_reader(&mut world), Refusal::UnexpectedServer.into());
        // A server that says honestly who it is refuses at once.
        world.change_server(|config| config.server_id = "srv-2".into());
        assert_eq!(refused(&mut world), Refusal::WrongServer.into());
        // A reader's certificate does not make a server.
        let reader = world.pki.party(Role::Reader, "srv-1");
        world.server = Arc::new(server_config(&world.pki, &reader, provider));
        assert_eq!(refused_by_reader(&mut world), PkiError::WrongRole.into());
    }
}

/// G5: a corrupt certified server in the middle takes the true server's flight, strips its proof
/// and puts its own in: the reader, set up for any server, is not misled about whom it talks to.
#[test]
fn g5_a_corrupt_certified_server_cannot_pass_another_ones_session_off_as_its_own() {
    for (mode, mut world) in worlds(27) {
        world.change_reader(|config| config.server_id = None);
        let mallory = world.pki.party(Role::Server, "srv-2");
        let honest = world.server.clone();
        let mut config = server_config(&world.pki, &mallory, aws_lc::provider());
        config.challenges = honest.challenges.clone(); // it knows even the challenges' keys
        // The reader's messages go to both; the honest server's M1, mallory's M3, and the reverse.
        for m1_is_mallorys in [false, true] {
            // It answers to whatever name M2 will have.
            config.server_id = if m1_is_mallorys { "srv-2".into() } else { "srv-1".into() };
            let mut pair = world.connect();
            let mut other = ServerChannel::new(Arc::new(config.clone()), &ADDRESS, world.now);
            let m0 = pair.take_reader_frame(0);
            pair.deliver_to_server(&m0).unwrap();
            other.handle(world.now, &mut pair.rng, &m0).unwrap();
            pair.collect();
            let m1 = [pair.to_reader.pop_front().unwrap(), other.poll_transmit().unwrap()];
            pair.deliver_to_reader(&m1[usize::from(m1_is_mallorys)]).unwrap();
            pair.collect();
            let m2 = pair.to_server.pop_front().unwrap();
            let heard = other.handle(world.now, &mut pair.rng, &m2);
            let found = world.directory.clone();
            let answered = heard.and_then(|()| other.reader_found(world.now, &mut pair.rng, found));
            if mode == Mode::C2 && !m1_is_mallorys {
                // What the reader signed has the honest server's certificate and share in it.
                assert_eq!(answered, Err(Error::Authentication("reader-signature")));
                continue;
            }
            answered.unwrap();
            let m3 = other.poll_transmit().unwrap();
            match pair.deliver_to_reader(&m3) {
                // Nobody was misled: the reader knows that it talks to srv-2.
                Ok(()) => assert_eq!(pair.reader.peer().unwrap().identity().id(), "srv-2"),
                Err(error) => assert_eq!(error, Error::Authentication("server-signature")),
            }
        }
    }
}

/// The reader ends and, as S110 has it, sends nothing more.
fn refused_by_reader(world: &mut World) -> Error {
    let mut pair = world.connect();
    let error = pair.drive().expect_err("must be refused");
    pair.collect();
    assert!(pair.to_server.is_empty());
    assert!(pair.server_events.is_empty());
    error
}

/// Clock skew: certificates begin an hour before they are issued, so a reader whose clock is slow
/// by less than that still connects; challenges and deadlines are each machine's own clock's.
#[test]
fn clocks_may_differ() {
    let minute = Duration::from_secs(60);
    let with_reader_at = |mode, reader_now| -> Result<(), Error> {
        let mut world = world(31).speaking(mode);
        let server_now = world.now;
        world.now = reader_now;
        let mut pair = world.connect();
        pair.server = ServerChannel::new(world.server.clone(), &ADDRESS, server_now);
        for _ in 0..3 {
            pair.collect();
            pair.now = server_now;
            while let Some(frame) = pair.to_server.pop_front() {
                pair.deliver_to_server(&frame)?;
            }
            pair.collect();
            pair.now = reader_now;
            while let Some(frame) = pair.to_reader.pop_front() {
                pair.deliver_to_reader(&frame)?;
            }
        }
        assert!(matches!(pair.server_events[0], ServerEvent::Connected));
        Ok(())
    };
    for mode in MODES {
        assert_eq!(with_reader_at(mode, NOW.minus(59 * minute)), Ok(()));
        assert_eq!(with_reader_at(mode, NOW.plus(24 * 60 * minute)), Ok(()));
        let refused = with_reader_at(mode, NOW.minus(61 * minute));
        assert_eq!(refused, Err(PkiError::NotYetValid.into()));
        let refused = with_reader_at(mode, NOW.plus(LEAF_VALIDITY + minute));
        assert_eq!(refused, Err(PkiError::Expired.into()));
    }
}

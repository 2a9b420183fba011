//! What a contact costs the server while it is half open: nothing but a bit (G11).

use std::sync::Arc;

use countersign_channel::ServerChannel;
use testkit::pair::ADDRESS;

use super::*;

/// 10 000 contacts send M0 and leave; the machines that answered them are gone. Any of them may
/// come back with M2, to a machine that never saw it: M2 brings all there is to know.
#[test]
fn g11_ten_thousand_half_open_contacts_leave_nothing_behind() {
    for (_, mut world) in worlds(70) {
        let mut kept = Vec::new();
        for contact in 0..10_000_u32 {
            let mut pair = world.connect();
            let m1 = pair.take_server_frame(0);
            if contact % 2500 == 0 {
                kept.push((pair.reader, m1));
            }
        }
        // Two strong references: the world's, and this one. No machine is alive.
        let config = Arc::clone(&world.server);
        assert_eq!(Arc::strong_count(&config), 2);
        for (mut reader, m1) in kept {
            let rng = &mut testkit::rng::seeded(1);
            assert!(reader.poll_transmit().is_none());
            reader.handle(world.now, rng, &m1).unwrap();
            let m2 = reader.poll_transmit().unwrap();
            let mut server = ServerChannel::new(config.clone(), &ADDRESS, world.now);
            server.handle(world.now, rng, &m2).unwrap();
            assert!(matches!(server.poll_event(), Some(ServerEvent::Ask(_))));
            server.reader_found(world.now, rng, world.directory.clone()).unwrap();
            let m3 = server.poll_transmit().unwrap();
            reader.handle(world.now, rng, &m3).unwrap();
            server.handle(world.now, rng, &reader.poll_transmit().unwrap()).unwrap();
            assert!(matches!(server.poll_event(), Some(ServerEvent::Connected)));
        }
    }
}

/// A slow client holds one small machine until the handshake's deadline, and no more bytes than
/// the message it is sending may have.
#[test]
fn slow_and_oversized_clients_are_bounded() {
    for (_, mut world) in worlds(71) {
        let mut pair = world.connect();
        let m0 = pair.take_reader_frame(0);
        for byte in &m0[..m0.len() - 1] {
            pair.deliver_to_server(&[*byte]).unwrap();
        }
        let deadline = pair.server.poll_timeout().unwrap();
        assert_eq!(pair.server.handle_timeout(deadline), Err(Error::Timeout));
        // While the directory is asked, what may lie unread is one flight.
        let mut pair = world.connect();
        let m2 = pair.take_reader_frame(1);
        pair.server.handle(pair.now, &mut pair.rng, &m2).unwrap();
        let chunk = [0_u8; 1024];
        let refused =
            (0..100).find_map(|_| pair.server.handle(pair.now, &mut pair.rng, &chunk).err());
        assert_eq!(refused, Some(Error::Malformed("more bytes than a handshake has")));
    }
}

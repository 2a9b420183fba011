//! A contact breaks off, and something is decided before the terminal comes back.

use std::time::Duration;

use countersign_injection::message::ServerMessage;
use countersign_injection::terminal::TerminalFlow;
use countersign_service::InjectionSession;
use countersign_store::{AuthorityRole, DeviceKind, InjectionState, RebindState};

use crate::plant::{BITS, Plant, Pos, check};

/// Where the contact ends.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    /// The server's word does not arrive.
    Word,
    /// The terminal does what it is told, and its word of it does not arrive.
    Answer,
}

/// A contact that ends at the first word of the server's that `at` finds.
async fn broken(plant: &Plant, pos: &mut Pos, lost: Lost, at: fn(&ServerMessage) -> bool) {
    let now = plant.service.now();
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    let mut flow = TerminalFlow::new(pos.standing(), now);
    loop {
        let Some(message) = flow.poll_transmit() else {
            let work = pos.work(flow.poll_event().unwrap(), now);
            flow.answer(now, work).unwrap();
            continue;
        };
        let (answer, handled) = session.handle(&message).await;
        handled.unwrap();
        let said = ServerMessage::decode(&answer.messages[0]).unwrap();
        let found = at(&said);
        if found && lost == Lost::Word {
            return;
        }
        flow.handle(now, &said.encode()).unwrap();
        if found {
            pos.work(flow.poll_event().unwrap(), now);
            return;
        }
    }
}

/// E7: what the server counts as installed is not erased by the terminal because it was refused
/// for a time.
#[tokio::test]
async fn a_key_that_counts_as_installed_outlives_a_refusal_for_a_time() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let injection = plant.assign(&key, 0, "POS-1").await;
    let confirmed = |said: &ServerMessage| matches!(said, ServerMessage::Confirmed(_));
    broken(&plant, &mut pos, Lost::Word, confirmed).await;
    assert_eq!(plant.injection(&injection.id).await.state, InjectionState::Installed);
    assert_eq!((pos.active(0), pos.standing().pending.len()), (None, 1));

    // Blocked after the handshake of the next contact.
    let (service, id) = (&plant.service, pos.known.id.clone());
    service.block_device(DeviceKind::Terminal, &plant.asker, &id, "stolen").await.unwrap();
    assert_eq!(check(plant.update(&mut pos).await), "device-blocked");
    assert_eq!(pos.standing().pending.len(), 1, "it waits");
    service.unblock_device(DeviceKind::Terminal, &plant.asker, &id).await.unwrap();
    plant.update(&mut pos).await.unwrap();
    let stored = plant.injection(&injection.id).await;
    assert_eq!(pos.active(0), stored.kcv.as_deref(), "both sides agree");
    assert!(stored.kcv.is_some());
}

async fn roll_kdh(plant: &Plant) {
    let role = AuthorityRole::Kdh;
    let id = plant.agreed(plant.service.roll_authority(&plant.asker, role, None, None).await).await;
    plant.service.roll_authority(&plant.asker, role, None, Some(&id)).await.unwrap();
}

async fn begin_rebind(plant: &Plant) {
    plant.advance(Duration::from_millis(1)); // ids sort by time
    let id = plant.agreed(plant.service.begin_rebind(&plant.asker, None).await).await;
    plant.service.begin_rebind(&plant.asker, Some(&id)).await.unwrap();
}

/// The terminal is given its key by the KDH in use, in this contact.
async fn is_served(plant: &Plant, pos: &mut Pos, key: &str, rebound: bool) {
    let injection = plant.assign(key, 0, &pos.known.id).await;
    plant.update(pos).await.unwrap();
    let bound = pos.state.kdh().unwrap().raw().to_vec();
    let hierarchy = plant.service.hierarchy().await.unwrap();
    assert_eq!(bound == hierarchy.kdh.raw(), rebound);
    let terminal = plant.service.terminal(&pos.known.id).await.unwrap();
    assert_eq!(terminal.bound_kdh == Some(hierarchy.kdh_id.clone()), rebound);
    let stored = plant.injection(&injection.id).await;
    assert_eq!(stored.state, InjectionState::Installed);
    assert_eq!(stored.kdh_id, terminal.bound_kdh);
}

/// A terminal that has followed a campaign is known by it after the campaign has ended, too.
#[tokio::test]
async fn a_rebinding_whose_word_was_lost_shows_after_its_campaign() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let rebind = |said: &ServerMessage| matches!(said, ServerMessage::Rebind(_));
    for next_campaign in [true, false] {
        let serial = if next_campaign { "POS-1" } else { "POS-2" };
        let mut pos = plant.terminal(serial, BITS).await;
        plant.assign(&key, 0, serial).await;
        plant.update(&mut pos).await.unwrap();
        roll_kdh(&plant).await;
        begin_rebind(&plant).await;
        let first = plant.service.rebinds(None, 1).await.unwrap().items[0].id.clone();
        broken(&plant, &mut pos, Lost::Answer, rebind).await;
        if next_campaign {
            roll_kdh(&plant).await;
            begin_rebind(&plant).await;
        } else {
            plant.service.cancel_rebind(&plant.asker, &first).await.unwrap();
            roll_kdh(&plant).await;
        }
        is_served(&plant, &mut pos, &key, next_campaign).await;
        let campaigns = plant.service.rebinds(None, 1).await.unwrap().items;
        let state = if next_campaign { RebindState::Done } else { RebindState::Cancelled };
        assert_eq!(campaigns[0].state, state);
        assert_eq!(plant.refusals().await, []);
    }
}

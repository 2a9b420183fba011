use testkit::rng::seeded;

use super::node::Node;
use super::setting::Setting;
use crate::script::Script;

/// Turns of a handshake: M0 … M4, then a record each way.
const TURNS: u8 = 7;

/// A reader in any of its states takes bytes: raw, or the message it awaits, altered.
/// Script: `setting, state, how, bytes or edits`.
pub fn reader_channel(data: &[u8]) {
    one_side(data, 0);
}

/// As [`reader_channel`], for the server.
pub fn server_channel(data: &[u8]) {
    one_side(data, 1);
}

fn one_side(data: &[u8], side: usize) {
    let mut script = Script::new(data);
    let setting = Setting::new(&mut script);
    let (now, mut rng) = (setting.start(), seeded(7));
    let reader = setting.reader(now, &mut rng);
    let mut nodes = [Node::reader(reader), Node::server(setting.server(now))];
    let turns = script.byte() % TURNS;
    // Honest turns, until the one whose message is the script's.
    let mut awaited = Vec::new();
    for turn in 0..=turns {
        let from = usize::from(turn & 1);
        if turn >= 5 {
            nodes[from].say(&[turn]);
        }
        let frames = nodes[from].collect(1);
        awaited = frames.concat();
        if turn == turns {
            if from == side {
                awaited.clear(); // nothing is on its way to this side
            }
            break;
        }
        nodes[from ^ 1].deliver(now, &mut rng, &awaited);
        if nodes[from ^ 1].asking {
            nodes[from ^ 1].answer(now, &mut rng, Ok(setting.entry()));
        }
    }
    let how = script.byte();
    let mut bytes = awaited.clone();
    if how & 1 == 0 {
        bytes = script.rest().to_vec();
    } else {
        script.edit(&mut bytes);
    }
    let node = &mut nodes[side];
    let (was_connected, heard) = (node.connected, node.heard.len());
    let piece = match how >> 1 {
        0 => bytes.len().max(1),
        piece => usize::from(piece),
    };
    let stream = setting.delivery == countersign_channel::Delivery::Stream;
    let pieces = if stream { bytes.chunks(piece) } else { bytes.chunks(bytes.len().max(1)) };
    for piece in pieces {
        node.deliver(now, &mut rng, piece);
        let _answers = node.collect(2);
        if node.asking {
            node.answer(now, &mut rng, Ok(setting.entry()));
            let _answers = node.collect(2);
        }
    }
    let genuine = !awaited.is_empty() && bytes.starts_with(&awaited);
    if !genuine {
        assert_eq!(node.connected, was_connected, "connected by what nobody sent");
        assert_eq!(node.heard.len(), heard, "data that nobody sent");
        assert!(!node.closed, "closed by nobody");
    } else if bytes == awaited {
        assert!(!node.dead, "dead of an honest message");
    }
}

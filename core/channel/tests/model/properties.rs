//! What must hold in every state (`always`), and what must be possible (`sometimes`).

use countersign_channel::{Delivery, Policy, ReaderConfig};
use stateright::Property;

use crate::attack::kind;
use crate::model::Channel;
use crate::scenario::Scenario;
use crate::state::{Belief, Seen, State, View};

pub(crate) const SERVER_AGREES: &str = "G2 G5 a connected server agrees with its reader";
pub(crate) const READER_AGREES: &str = "G2 G5 a connected reader agrees with its server";
pub(crate) const ONE_TO_ONE: &str = "G2 no session is believed in twice";
pub(crate) const UNIQUE_KEYS: &str = "G6 two ends and no more have a key";
pub(crate) const ONE_ANSWER: &str = "G6 no challenge is answered twice";
pub(crate) const CONFIRMED_FIRST: &str = "G7 nothing is received before confirmation";
pub(crate) const SENT_BY_SOMEONE: &str = "G7 nothing is received that nobody sent";
pub(crate) const BEST_COMMON: &str = "G8 only the best common suite and policy";
pub(crate) const NO_REFLECTION: &str = "G9 nothing comes of a reflected frame";
pub(crate) const IN_ORDER: &str = "G12 what is received is what the peer sent";
pub(crate) const CLOSE_IS_LAST: &str = "G12 a close comes after everything";
pub(crate) const SILENCE_ENDS: &str = "A6 no session outlasts its peer's silence";
pub(crate) const ALL_CONNECT: &str = "all connect";
pub(crate) const TWO_CONNECT: &str = "a reader and a server connect";
pub(crate) const ALL_RECEIVED: &str = "everything is received and closed";
pub(crate) const ALL_STILL_OPEN: &str = "all are still open after the last tick";
pub(crate) const ALL_GIVEN_UP: &str = "all have given up";

/// The properties that every scenario has.
pub(crate) fn always() -> Vec<Property<Channel>> {
    vec![
        Property::always(SERVER_AGREES, server_agrees),
        Property::always(READER_AGREES, reader_agrees),
        Property::always(ONE_TO_ONE, one_to_one),
        Property::always(UNIQUE_KEYS, unique_keys),
        Property::always(ONE_ANSWER, one_answer),
        Property::always(CONFIRMED_FIRST, confirmed_first),
        Property::always(SENT_BY_SOMEONE, sent_by_someone),
        Property::always(BEST_COMMON, best_common),
        Property::always(NO_REFLECTION, no_reflection),
        Property::always(IN_ORDER, in_order),
        Property::always(CLOSE_IS_LAST, close_is_last),
        Property::always(SILENCE_ENDS, silence_ends),
    ]
}

/// What must be possible, so that nothing above holds for want of sessions.
pub(crate) fn sometimes(name: &'static str) -> Property<Channel> {
    let condition: fn(&Channel, &State) -> bool = match name {
        ALL_CONNECT => |_, state| views(state).into_iter().all(|view| view.belief.is_some()),
        TWO_CONNECT => {
            |model, state| numbered(state).any(|(at, _)| partner(model, state, at).is_some())
        }
        ALL_RECEIVED => |model, state| {
            let complete = |at: usize, one: &View| match partner(model, state, at) {
                None => false,
                Some(peer) => {
                    let whole = one.data().count() == peer.sent.len();
                    whole && peer.closed == (one.events.last() == Some(&Seen::Closed))
                }
            };
            let finished = |at: usize, one: &View| one.steps == model.scenario.scripts[at].len();
            numbered(state).all(|(at, view)| finished(at, view) && complete(at, view))
        },
        ALL_STILL_OPEN => |model, state| {
            let late = state.summary.ticks == model.scenario.limits.ticks;
            late && views(state).into_iter().all(|view| view.is_open())
        },
        _ => |_, state| views(state).into_iter().all(|view| view.dead),
    };
    Property::sometimes(name, condition)
}

fn views(state: &State) -> Vec<&View> {
    state.summary.views.iter().map(|view| &***view).collect()
}

fn numbered(state: &State) -> impl Iterator<Item = (usize, &View)> {
    views(state).into_iter().enumerate()
}

/// Readers' and servers' machines with their beliefs.
fn believers<'a>(
    model: &'a Channel,
    state: &'a State,
    readers: bool,
) -> impl Iterator<Item = (usize, &'a View, &'a Belief)> {
    let side = move |at: &usize| model.scenario.is_reader(*at) == readers;
    let with_belief = |(at, view): (usize, &'a View)| Some((at, view, view.belief.as_ref()?));
    numbered(state).filter(move |(at, _)| side(at)).filter_map(with_belief)
}

/// The machine at the other end: the one with the same key.
fn partner<'a>(model: &'a Channel, state: &'a State, at: usize) -> Option<&'a View> {
    let views = views(state);
    let key = &views[at].belief.as_ref()?.key;
    let mut others = believers(model, state, !model.scenario.is_reader(at));
    others.find(|(.., belief)| belief.key == *key).map(|(_, view, _)| view)
}

/// Both have seen the same M2 and M3, and take each other for who they are.
fn agree(model: &Channel, (reader, r): (usize, &View), (server, s): (usize, &View)) -> bool {
    let scenario = &model.scenario;
    let same_messages = s.accepted.is_some()
        && s.accepted == r.content_of(kind::PROOF)
        && r.accepted.is_some()
        && r.accepted == s.content_of(kind::SERVER_PROOF);
    let Some(belief) = &r.belief else { return false };
    let believed_back = s.belief.as_ref().is_none_or(|back| {
        let same = (back.mode, back.suite, back.policy, &back.key)
            == (belief.mode, belief.suite, belief.policy, &belief.key);
        same && back.peer == scenario.id_of(reader)
    });
    let wanted = scenario.readers[reader].server_id.as_ref();
    same_messages
        && believed_back
        && wanted.is_none_or(|wanted| *wanted == belief.peer)
        && belief.mode == scenario.readers[reader].mode as u8
        && belief.peer == scenario.id_of(server)
}

/// The servers' machines with which a reader agrees.
fn servers_of(model: &Channel, state: &State, reader: usize) -> Vec<usize> {
    let one = views(state)[reader];
    let candidates = model.scenario.readers.len()..views(state).len();
    candidates.filter(|at| agree(model, (reader, one), (*at, views(state)[*at]))).collect()
}

/// The reader must be connected: it confirms last.
fn server_agrees(model: &Channel, state: &State) -> bool {
    believers(model, state, false).all(|(server, ..)| {
        let mut readers = 0..model.scenario.readers.len();
        readers.any(|reader| servers_of(model, state, reader).contains(&server))
    })
}

/// The server need not be connected yet: it waits for the reader's confirmation.
fn reader_agrees(model: &Channel, state: &State) -> bool {
    believers(model, state, true).all(|(at, ..)| !servers_of(model, state, at).is_empty())
}

fn one_to_one(model: &Channel, state: &State) -> bool {
    let mut believed_in = Vec::new();
    believers(model, state, true).all(|(at, ..)| {
        let servers = servers_of(model, state, at);
        let fresh = servers.len() <= 1 && servers.iter().all(|at| !believed_in.contains(at));
        believed_in.extend(servers);
        fresh
    })
}

fn unique_keys(model: &Channel, state: &State) -> bool {
    [true, false].into_iter().all(|readers| {
        let mut keys: Vec<_> =
            believers(model, state, readers).map(|(.., belief)| &belief.key).collect();
        keys.sort();
        keys.windows(2).all(|two| two[0] != two[1])
    })
}

fn one_answer(_: &Channel, state: &State) -> bool {
    let answered = views(state).into_iter().filter(|view| view.burnt);
    let mut challenges: Vec<_> = answered.filter_map(|view| view.challenge.as_ref()).collect();
    challenges.sort();
    challenges.windows(2).all(|two| two[0] != two[1])
}

fn confirmed_first(_: &Channel, state: &State) -> bool {
    views(state).into_iter().all(|view| {
        let connected = view.events.iter().filter(|event| **event == Seen::Connected).count();
        view.events.is_empty() || (connected == 1 && view.events[0] == Seen::Connected)
    })
}

fn sent_by_someone(_: &Channel, state: &State) -> bool {
    let sent: Vec<_> = views(state).into_iter().flat_map(|view| &view.sent).collect();
    views(state).into_iter().flat_map(|view| view.data()).all(|data| sent.contains(&data))
}

/// What the two would choose if nobody disturbed them: the server's order among the offers.
fn best(scenario: &Scenario, reader: &ReaderConfig, server: usize) -> (u16, Policy) {
    let server = &scenario.servers[server].config;
    let offers = |suite| reader.credentials.iter().any(|one| one.provider.suite == suite);
    let mut suites = server.credentials.iter().map(|one| one.provider.suite);
    let suite = suites.find(|suite| offers(*suite)).expect("a common suite");
    let mut policies = server.policies.iter();
    let policy = policies.find(|policy| reader.policies.contains(policy));
    (suite.code(), *policy.expect("a common policy"))
}

fn best_common(model: &Channel, state: &State) -> bool {
    let scenario = &model.scenario;
    let is_best = |reader: &ReaderConfig, server: &str, belief: &Belief| {
        let at = scenario.servers.iter().position(|one| one.id == server);
        at.is_some_and(|at| best(scenario, reader, at) == (belief.suite, belief.policy))
    };
    let reader_of = |belief: &Belief| {
        scenario.readers.iter().find(|one| one.serial == belief.peer).expect("a reader")
    };
    believers(model, state, true)
        .all(|(at, _, belief)| is_best(&scenario.readers[at], &belief.peer, belief))
        && believers(model, state, false)
            .all(|(at, _, belief)| is_best(reader_of(belief), scenario.id_of(at), belief))
}

fn no_reflection(_: &Channel, state: &State) -> bool {
    views(state).into_iter().all(|view| !view.reflected)
}

/// Over a stream the beginning of what was sent; over datagrams each at most once.
fn in_order(model: &Channel, state: &State) -> bool {
    numbered(state).all(|(at, view)| {
        let received: Vec<_> = view.data().collect();
        let Some(peer) = partner(model, state, at) else { return received.is_empty() };
        match model.scenario.delivery() {
            Delivery::Stream => {
                received.len() <= peer.sent.len()
                    && received.iter().zip(&peer.sent).all(|(got, sent)| *got == sent)
            }
            Delivery::Datagrams => {
                let count = |data: &Vec<u8>| received.iter().filter(|one| **one == data).count();
                received.iter().all(|data| peer.sent.contains(data) && count(data) == 1)
            }
        }
    })
}

/// Nothing follows a close; over a stream, and where a stream ends properly, nothing is missing.
fn close_is_last(model: &Channel, state: &State) -> bool {
    numbered(state).all(|(at, view)| {
        let closed = view.events.iter().position(|event| *event == Seen::Closed);
        let last = closed.is_none_or(|at| at + 1 == view.events.len());
        let says_whole = closed.is_some() || view.ended == Some(true);
        if !says_whole {
            return last;
        }
        let Some(peer) = partner(model, state, at) else { return false };
        let whole = view.data().count() == peer.sent.len();
        let stream = model.scenario.delivery() == Delivery::Stream;
        last && peer.closed && (whole || !stream)
    })
}

fn silence_ends(_: &Channel, state: &State) -> bool {
    let now = state.summary.now;
    views(state).into_iter().all(|view| view.patience.is_none_or(|until| now < until))
}

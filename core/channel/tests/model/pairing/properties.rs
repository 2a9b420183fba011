//! What must hold in every state, and what must be possible.

use stateright::Property;

use super::model::Pairings;
use super::scenario::Purpose;
use super::state::{Entry, Question, State, View};
use crate::attack::kind;

pub(crate) const MANAGER_AGREES: &str = "G2, G5 a manager's session is a sleeve's with it";
pub(crate) const SLEEVE_AGREES: &str = "G2, G5 a sleeve's session is a manager's with it";
pub(crate) const MANAGER_STORES: &str = "A1 a manager stores whom a user's yes was for";
pub(crate) const SLEEVE_STORES: &str = "A1 a sleeve stores whom its user wants";
pub(crate) const SLEEVE_SETTLED: &str = "A1 a sleeve is connected after the manager has stored";
pub(crate) const ONE_A_WINDOW: &str = "A1 one pairing a window";
pub(crate) const UNIQUE_KEYS: &str = "G6 no key and no factor is made twice";
pub(crate) const ONE_ANSWER: &str = "G6, G11 no challenge is answered twice";
pub(crate) const CONFIRMED_FIRST: &str = "G7 no data before confirmation";
pub(crate) const SENT_BY_PEER: &str = "G7, G12 what is heard was said by the peer";
pub(crate) const NO_REFLECTION: &str = "G9 nothing comes of a reflected frame";
pub(crate) const NO_FACTOR: &str = "G13 no frame has a factor in it";
pub(crate) const ALL_CONNECT: &str = "all connect";
pub(crate) const ONE_CONNECTS: &str = "a sleeve and a manager connect";
pub(crate) const NOBODY_PAIRS: &str = "all have ended and nothing is stored";
pub(crate) const PENDING: &str = "both have stored, the last message was lost";
pub(crate) const SETTLED_LATER: &str = "that sleeve connects with what it has stored";
pub(crate) const ALL_HEARD: &str = "everything is heard";

/// The properties that every scenario has.
pub(crate) fn always() -> Vec<Property<Pairings>> {
    vec![
        Property::always(MANAGER_AGREES, manager_agrees),
        Property::always(SLEEVE_AGREES, sleeve_agrees),
        Property::always(MANAGER_STORES, manager_stores),
        Property::always(SLEEVE_STORES, sleeve_stores),
        Property::always(SLEEVE_SETTLED, sleeve_settled),
        Property::always(ONE_A_WINDOW, one_a_window),
        Property::always(UNIQUE_KEYS, unique_keys),
        Property::always(ONE_ANSWER, one_answer),
        Property::always(CONFIRMED_FIRST, confirmed_first),
        Property::always(SENT_BY_PEER, sent_by_peer),
        Property::always(NO_REFLECTION, no_reflection),
        Property::always(NO_FACTOR, no_factor),
    ]
}

/// What must be possible, so that nothing above holds for want of sessions.
pub(crate) fn sometimes(name: &'static str) -> Property<Pairings> {
    let condition: fn(&Pairings, &State) -> bool = match name {
        ALL_CONNECT => |_, state| views(state).all(|(_, view)| view.belief.is_some()),
        ONE_CONNECTS => |model, state| {
            sleeves(model, state)
                .any(|(at, view)| view.belief.is_some() && partner(model, state, at).is_some())
        },
        PENDING => |model, state| pending(model, state),
        SETTLED_LATER => |model, state| {
            let later = |(at, view): (usize, &View)| {
                let purpose = &model.scenario.sleeves[at].purpose;
                matches!(purpose, Purpose::ConnectAfter(..)) && view.belief.is_some()
            };
            pending(model, state) && sleeves(model, state).any(later)
        },
        ALL_HEARD => |_, state| views(state).all(|(_, view)| view.heard.len() == 1),
        _ => |_, state| views(state).all(|(_, view)| view.dead && view.entry.is_none()),
    };
    Property::sometimes(name, condition)
}

/// The last message of a pairing was lost, and both have stored it.
fn pending(model: &Pairings, state: &State) -> bool {
    let lost = |view: &View| view.dead && view.belief.is_none() && view.entry.is_some();
    sleeves(model, state).any(|(_, view)| lost(view))
        && managers(model, state).any(|(_, view)| view.entry.is_some())
}

fn views(state: &State) -> impl Iterator<Item = (usize, &View)> {
    state.summary.views.iter().map(|view| &***view).enumerate()
}

fn view(state: &State, at: usize) -> &View {
    &state.summary.views[at]
}

fn sleeves<'a>(model: &'a Pairings, state: &'a State) -> impl Iterator<Item = (usize, &'a View)> {
    views(state).take(model.scenario.sleeves.len())
}

fn managers<'a>(model: &'a Pairings, state: &'a State) -> impl Iterator<Item = (usize, &'a View)> {
    views(state).skip(model.scenario.sleeves.len())
}

fn sent(view: &View, kind: u8) -> Option<u64> {
    view.outputs.iter().find(|sent| sent.kind == kind).map(|sent| sent.content)
}

fn took(view: &View, kind: u8) -> Option<u64> {
    view.taken.iter().rfind(|(one, _)| *one == kind).map(|(_, content)| *content)
}

/// One has sent a message of this type and the other has taken that one.
fn passed(from: &View, to: &View, kind: u8) -> bool {
    let sent = sent(from, kind);
    sent.is_some() && sent == took(to, kind)
}

/// Both have seen the same messages, up to where a manager believes: A1's M3, and M2 and M3 of A2
/// and A3; and they take each other for who they are.
fn agree(model: &Pairings, state: &State, sleeve: usize, manager: usize) -> bool {
    let (s, m) = (view(state, sleeve), view(state, manager));
    let messages = match model.scenario.sleeves[sleeve].purpose {
        Purpose::Pair => {
            passed(s, m, kind::PAIR_REQUEST)
                && passed(m, s, kind::PAIR_ANSWER)
                && passed(s, m, kind::PAIR_PROOF)
        }
        _ => passed(s, m, kind::PROOF) && passed(m, s, kind::SERVER_PROOF),
    };
    let named = |view: &View, peer: usize| {
        view.belief.as_ref().is_none_or(|belief| belief.peer == model.scenario.id_of(peer))
    };
    let same = match (&s.belief, &m.belief) {
        (Some(one), Some(other)) => {
            (one.mode, one.suite, one.policy, &one.key)
                == (other.mode, other.suite, other.policy, &other.key)
        }
        _ => true,
    };
    let mode = model.scenario.mode_of(sleeve) as u8;
    let spoken = [s, m].into_iter().filter_map(|view| view.belief.as_ref());
    messages
        && named(s, manager)
        && named(m, sleeve)
        && same
        && spoken.map(|belief| belief.mode).all(|spoken| spoken == mode)
}

fn partner(model: &Pairings, state: &State, sleeve: usize) -> Option<usize> {
    let mut all = managers(model, state).map(|(at, _)| at);
    all.find(|at| agree(model, state, sleeve, *at))
}

/// Exactly one sleeve's machine agrees with it, and in A2 and A3 that one is connected: it confirms
/// last. In A1 the manager is first: it has stored when the sleeve hears of it.
fn manager_agrees(model: &Pairings, state: &State) -> bool {
    managers(model, state).filter(|(_, view)| view.belief.is_some()).all(|(manager, _)| {
        let mut peers = sleeves(model, state).filter(|(at, view)| {
            let first = matches!(model.scenario.sleeves[*at].purpose, Purpose::Pair);
            (first || view.belief.is_some()) && agree(model, state, *at, manager)
        });
        peers.next().is_some() && peers.next().is_none()
    })
}

fn sleeve_agrees(model: &Pairings, state: &State) -> bool {
    sleeves(model, state).filter(|(_, view)| view.belief.is_some()).all(|(sleeve, _)| {
        let mut peers = managers(model, state).filter(|(at, _)| agree(model, state, sleeve, *at));
        peers.next().is_some() && peers.next().is_none()
    })
}

/// Whether two sides' entries are of one pairing.
fn is_pair(model: &Pairings, (sleeve, s): (usize, &Entry), (manager, m): (usize, &Entry)) -> bool {
    s.factor == m.factor
        && s.peer == model.scenario.id_of(manager)
        && m.peer == model.scenario.id_of(sleeve)
}

/// The owner had opened the window; the sleeve's user has said yes to this manager, and the sleeve
/// has written its entry down first: so no manager ever knows a sleeve that does not know it.
fn manager_stores(model: &Pairings, state: &State) -> bool {
    managers(model, state).all(|(manager, view)| {
        let Some(entry) = &view.entry else { return true };
        let meant = |(sleeve, one): (usize, &View)| {
            let yes = Question::Confirm(model.scenario.id_of(manager).into());
            let its = one.entry.as_ref();
            let pair = its.is_some_and(|its| is_pair(model, (sleeve, its), (manager, entry)));
            pair && one.answered(&yes, true)
        };
        view.answered(&Question::Window, true) && sleeves(model, state).any(meant)
    })
}

fn sleeve_stores(model: &Pairings, state: &State) -> bool {
    sleeves(model, state).all(|(at, view)| {
        let wanted = model.scenario.sleeves[at].wanted;
        view.entry.as_ref().is_none_or(|entry| entry.peer == wanted)
    })
}

fn sleeve_settled(model: &Pairings, state: &State) -> bool {
    sleeves(model, state).all(|(sleeve, one)| {
        let (Some(_), Some(entry)) = (&one.belief, &one.entry) else { return true };
        managers(model, state).any(|(manager, other)| {
            let its = other.entry.as_ref();
            its.is_some_and(|its| is_pair(model, (sleeve, entry), (manager, its)))
        })
    })
}

/// A window closes after one pairing.
fn one_a_window(model: &Pairings, state: &State) -> bool {
    (0..model.scenario.managers.len()).all(|of| {
        let paired = |(at, view): &(usize, &View)| {
            model.scenario.manager_at(*at) == of && view.entry.is_some()
        };
        managers(model, state).filter(paired).count() <= 1
    })
}

fn unique_keys(model: &Pairings, state: &State) -> bool {
    let distinct = |mut all: Vec<&Vec<u8>>| {
        all.sort();
        all.windows(2).all(|two| two[0] != two[1])
    };
    let keys = |views: &mut dyn Iterator<Item = &View>| {
        let mut all = Vec::new();
        for view in views {
            all.extend(view.belief.as_ref().map(|belief| &belief.key));
            all.extend(view.entry.as_ref().map(|entry| &entry.factor));
        }
        distinct(all)
    };
    keys(&mut sleeves(model, state).map(|(_, view)| view))
        && keys(&mut managers(model, state).map(|(_, view)| view))
}

fn one_answer(model: &Pairings, state: &State) -> bool {
    let answered = managers(model, state).filter(|(_, view)| view.burnt);
    let mut challenges: Vec<_> = answered.filter_map(|(_, view)| view.challenge.as_ref()).collect();
    challenges.sort();
    challenges.windows(2).all(|two| two[0] != two[1])
}

fn confirmed_first(_: &Pairings, state: &State) -> bool {
    views(state).all(|(_, view)| !view.early)
}

/// Over a stream the beginning of what was said.
fn sent_by_peer(model: &Pairings, state: &State) -> bool {
    views(state).filter(|(_, view)| !view.heard.is_empty()).all(|(at, view)| {
        let key = view.belief.as_ref().map(|belief| &belief.key);
        let side = model.scenario.is_sleeve(at);
        let mut peers = views(state).filter(|(of, _)| model.scenario.is_sleeve(*of) != side);
        peers.any(|(_, peer)| {
            let same = peer.belief.as_ref().map(|belief| &belief.key) == key;
            same && peer.said.starts_with(&view.heard)
        })
    })
}

fn no_reflection(_: &Pairings, state: &State) -> bool {
    views(state).all(|(_, view)| !view.reflected)
}

fn no_factor(_: &Pairings, state: &State) -> bool {
    views(state).all(|(_, view)| !view.tells_factor)
}

//! The situations that are explored.

use std::sync::Arc;

use countersign_channel::{Mode, Pairing, Policy, Protection};

use super::run::Run;
use super::scenario::{Limits, Manager, Purpose, Scenario, Sleeve};
use super::state::Action;
use super::world::{Mutant, World};
use crate::state::FrameId;

const MANAGER: &str = "mgr-1";

fn sleeve(world: &mut World, id: &str, purpose: Purpose) -> Sleeve {
    Sleeve { config: Arc::new(world.sleeve(id)), purpose, wanted: MANAGER }
}

fn manager(world: &mut World, id: &'static str) -> Manager {
    Manager { id, config: world.manager(id), list: Vec::new() }
}

fn scenario(
    name: &'static str,
    world: World,
    sleeves: Vec<Sleeve>,
    managers: Vec<Manager>,
    connections: &[usize],
    limits: Limits,
) -> Scenario {
    Scenario { name, world, sleeves, managers, connections: connections.into(), limits }
}

/// One pairing: every frame repeated, reflected, or changed at every place; people say no.
pub(crate) fn pair_alone(mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let sleeves = vec![sleeve(&mut world, "SLV-1", Purpose::Pair)];
    let managers = vec![manager(&mut world, MANAGER)];
    let limits =
        Limits { faults: 2, changes: true, refusals: true, ends: true, ..Limits::default() };
    scenario("one pairing", world, sleeves, managers, &[0], limits)
}

/// Two sleeves pair with one manager at the same time, in one window.
pub(crate) fn two_pairings(mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let sleeves =
        ["SLV-1", "SLV-2"].map(|id| sleeve(&mut world, id, Purpose::Pair)).into_iter().collect();
    let managers = vec![manager(&mut world, MANAGER)];
    let limits = Limits { faults: 1, ..Limits::default() };
    scenario("two pairings in one window", world, sleeves, managers, &[0, 0], limits)
}

/// A sleeve and two certified managers with open windows. The second one is corrupt and claims the
/// first one's name; the user looks at the first one's label.
pub(crate) fn two_managers(mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let sleeves = (0..2).map(|_| sleeve(&mut world, "SLV-1", Purpose::Pair)).collect::<Vec<_>>();
    let managers = ["mgr-1", "mgr-2"].map(|id| manager(&mut world, id)).into();
    let limits = Limits { faults: 1, ..Limits::default() };
    scenario("two managers", world, sleeves, managers, &[0, 1], limits)
}

/// A pairing whose last message may be lost, and the connect that settles it.
pub(crate) fn pair_then_connect(mode: Mode, mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let first = sleeve(&mut world, "SLV-1", Purpose::Pair);
    let config = first.config.clone();
    let second = Sleeve { config, purpose: Purpose::ConnectAfter(mode, 0), wanted: MANAGER };
    let managers = vec![manager(&mut world, MANAGER)];
    let limits = Limits { faults: 0, refusals: true, ends: true, ..Limits::default() };
    scenario("a pairing and a connect", world, vec![first, second], managers, &[0, 0], limits)
}

/// What an undisturbed pairing of sleeve and manager `at` leaves on both sides.
fn paired(scenario: &Scenario) -> [Arc<Pairing>; 2] {
    let deliver =
        |from, nth, to| Action::Deliver { frame: FrameId { from, nth }, to, change: None };
    let manager = scenario.sleeves.len();
    let actions = [
        deliver(0, 0, manager),
        Action::Answer { at: manager, good: true },
        deliver(manager, 0, 0),
        Action::Answer { at: 0, good: true },
        Action::Answer { at: 0, good: true },
        deliver(0, 1, manager),
        Action::Answer { at: manager, good: true },
        deliver(manager, 1, 0),
    ];
    [0, manager].map(|at| {
        let run = Run::replay(scenario, &actions).expect("an undisturbed pairing");
        run.into_pairing(at)
    })
}

/// A manager and sleeves that are paired with it, and what they do.
fn connecting(
    name: &'static str,
    plan: &[(&'static str, Mode)],
    machines: usize,
    policy: Policy,
    limits: Limits,
    mutant: Mutant,
) -> Scenario {
    // Pairings are made by machines that nothing is wrong with.
    let (mut sound, mut world) = (World::new(Mutant::default()), World::new(mutant));
    let mut managers = vec![manager(&mut world, MANAGER)];
    let before = manager(&mut sound, MANAGER);
    managers[0].config.policies = vec![policy];
    let mut sleeves: Vec<Sleeve> = Vec::new();
    for (id, mode) in plan {
        let known = sleeves.iter().find(|one| one.config.sleeve_id == *id);
        if let Some(Sleeve { config, purpose: Purpose::Connect(_, pairing), .. }) = known {
            let (config, purpose) = (config.clone(), Purpose::Connect(*mode, pairing.clone()));
            sleeves.push(Sleeve { config, purpose, wanted: MANAGER });
            continue;
        }
        // Both trees are made from one seed, so what is certified in one is in the other, too.
        let mut config = world.sleeve(id);
        config.policies = vec![policy];
        let first =
            Sleeve { config: Arc::new(sound.sleeve(id)), purpose: Purpose::Pair, wanted: MANAGER };
        let config_before = before.config.clone();
        let its = Manager { id: MANAGER, config: config_before, list: Vec::new() };
        let limits = Limits::default();
        let one = Scenario {
            name,
            world: World::new(Mutant::default()),
            sleeves: vec![first],
            managers: vec![its],
            connections: vec![0],
            limits,
        };
        let [ours, theirs] = paired(&one);
        managers[0].list.push(theirs);
        let purpose = Purpose::Connect(*mode, ours);
        sleeves.push(Sleeve { config: Arc::new(config), purpose, wanted: MANAGER });
    }
    scenario(name, world, sleeves, managers, &vec![0; machines], limits)
}

/// One connect: every frame repeated, reflected, or changed at every place.
pub(crate) fn connect_alone(mode: Mode, mutant: Mutant) -> Scenario {
    let limits =
        Limits { faults: 2, changes: true, refusals: true, ends: true, ..Limits::default() };
    let plan = [("SLV-1", mode)];
    connecting("one connect", &plan, 1, Policy::default(), limits, mutant)
}

/// Two connects of one sleeve at the same time.
pub(crate) fn two_connects(mode: Mode, mutant: Mutant) -> Scenario {
    let limits = Limits::default();
    let plan = [("SLV-1", mode), ("SLV-1", mode)];
    connecting("two connects of one sleeve", &plan, 2, Policy::default(), limits, mutant)
}

/// Two sleeves connect at the same time.
pub(crate) fn two_sleeves(mode: Mode, mutant: Mutant) -> Scenario {
    let plan = [("SLV-1", mode), ("SLV-2", mode)];
    connecting("two sleeves", &plan, 2, Policy::default(), Limits::default(), mutant)
}

/// One sleeve in both modes at the same time.
pub(crate) fn both_modes(mutant: Mutant) -> Scenario {
    let limits = Limits { faults: 1, ..Limits::default() };
    let plan = [("SLV-1", Mode::A2), ("SLV-1", Mode::A3)];
    connecting("both modes", &plan, 2, Policy::default(), limits, mutant)
}

/// A connect and its first data, which can be read on the way.
pub(crate) fn first_data(mode: Mode, mutant: Mutant) -> Scenario {
    let limits = Limits { faults: 1, data: true, ..Limits::default() };
    let readable = Policy { protection: Protection::Mac, ..Policy::default() };
    connecting("a connect and its first data", &[("SLV-1", mode)], 1, readable, limits, mutant)
}

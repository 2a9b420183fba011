//! The situations that are explored.

use countersign_channel::{Delivery, Mode, Policy, Protection};

use crate::scenario::{Limits, Scenario, Step};
use crate::world::{Mutant, SUITES, World};

const DATAGRAMS: Policy = Policy {
    protection: Protection::EncryptAndMac,
    delivery: Delivery::Datagrams,
    certificate_sealed: false,
};
const READABLE: Policy =
    Policy { protection: Protection::Mac, delivery: Delivery::Stream, certificate_sealed: false };

fn policy(delivery: Delivery) -> Policy {
    Policy { delivery, ..Policy::default() }
}

/// One handshake, every frame repeated, reflected, or changed at every place; refusals are told.
pub(crate) fn alone(mode: Mode, delivery: Delivery, mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    let (faults, ticks) = if delivery == Delivery::Datagrams { (1, 1) } else { (2, 0) };
    Scenario::of_one_reader("one handshake", world, 1, mode, policy(delivery)).within(Limits {
        faults,
        ticks,
        changes: true,
        ends: delivery == Delivery::Stream,
        alerts: true,
    })
}

/// Two handshakes of one reader with one server at the same time.
pub(crate) fn mixed(mode: Mode, mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    Scenario::of_one_reader("two sessions of one reader", world, 2, mode, Policy::default())
        .within(Limits { faults: 1, ..Limits::default() })
}

/// Two readers and one server.
pub(crate) fn two_readers(mode: Mode, mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let readers = ["RD-1", "RD-2"].map(|id| world.reader(id, mode)).into();
    let servers = vec![world.server("srv-1")];
    Scenario::new("two readers", world, readers, servers, &[0, 0]).within(Limits::default())
}

/// A reader that was set up for `wanted` or any server, and two certified servers. The second one
/// is corrupt: it knows the first one's challenges and epoch keys and claims its name.
pub(crate) fn two_servers(mode: Mode, wanted: Option<&str>, mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let mut reader = world.reader("RD-1", mode);
    reader.server_id = wanted.map(Into::into);
    let honest = world.server("srv-1");
    let mut corrupt = world.server("srv-2");
    corrupt.config.server_id = "srv-1".into();
    let mut scenario =
        Scenario::new("two servers", world, vec![reader], vec![honest, corrupt], &[0, 1]);
    scenario.shared_challenges = true;
    scenario.within(Limits { faults: 1, changes: true, ..Limits::default() })
}

/// One reader in both modes at the same time.
pub(crate) fn both_modes(mutant: Mutant) -> Scenario {
    let mut world = World::new(mutant);
    let first = world.reader("RD-1", Mode::C1);
    let mut second = first.clone();
    second.mode = Mode::C2;
    let servers = vec![world.server("srv-1")];
    Scenario::new("both modes", world, vec![first, second], servers, &[0, 0])
        .within(Limits { faults: 1, ..Limits::default() })
}

/// Two suites and two policies on each side; the attacker changes what is offered and selected.
pub(crate) fn offers(mode: Mode, mutant: Mutant) -> Scenario {
    let mut world = World::with_suites(mutant, &SUITES);
    let mut reader = world.reader("RD-1", mode);
    reader.policies = vec![Policy::default(), READABLE];
    let mut server = world.server("srv-1");
    server.config.policies = reader.policies.clone();
    Scenario::new("two suites and policies", world, vec![reader], vec![server], &[0])
        .within(Limits { faults: 3, changes: true, ..Limits::default() })
}

/// Data both ways, new keys, and closing.
fn records(mode: Mode, policy: Policy, server: &[Step], mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    Scenario::of_one_reader("records", world, 1, mode, policy)
        .connected()
        .scripts(&[Step::Send, Step::Rekey, Step::Send, Step::Close], server)
        .within(Limits {
            faults: 1,
            changes: true,
            ends: policy.delivery == Delivery::Stream,
            ..Limits::default()
        })
}

pub(crate) fn stream_records(mode: Mode, mutant: Mutant) -> Scenario {
    records(mode, Policy::default(), &[Step::Send, Step::Close], mutant)
}

pub(crate) fn readable_records(mode: Mode, mutant: Mutant) -> Scenario {
    records(mode, READABLE, &[Step::Send, Step::Close], mutant)
}

pub(crate) fn datagram_records(mode: Mode, mutant: Mutant) -> Scenario {
    records(mode, DATAGRAMS, &[Step::Send], mutant)
}

/// Records of two sessions between the same parties.
pub(crate) fn mixed_records(mode: Mode, mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    Scenario::of_one_reader("records of two sessions", world, 2, mode, Policy::default())
        .connected()
        .scripts(&[Step::Send], &[Step::Send])
        .within(Limits { faults: 1, ..Limits::default() })
}

/// The first data follow the handshake at once.
pub(crate) fn first_data(mode: Mode, mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    Scenario::of_one_reader("a handshake and its first data", world, 1, mode, Policy::default())
        .scripts(&[Step::Send], &[Step::Send])
        .within(Limits { faults: 2, ..Limits::default() })
}

/// The reader sleeps, the server watches.
pub(crate) fn heartbeat(delivery: Delivery, mutant: Mutant) -> Scenario {
    let world = World::new(mutant);
    Scenario::of_one_reader("heartbeat", world, 1, Mode::C1, policy(delivery))
        .connected()
        .scripts(&[Step::Sleep], &[Step::Watch])
        .stepped(1)
        .within(Limits { faults: 1, ticks: 5, changes: true, ..Limits::default() })
}

//! The sleeve's program ends between any two things that it does to the disk, and is started again.

use std::fs;

use super::*;
use crate::private_file::crash;

/// More points than any of these tests has.
const POINTS_MAX: u32 = 40;

/// Does something with a program that ends at each of its points in turn, until one lives through
/// it; after each, what is on the disk is looked at by a program that was started again.
async fn everywhere<D, L>(world: impl AsyncFn() -> World, doing: D, mut looking: L) -> u32
where
    D: AsyncFn(&World) -> Result<(), SleeveError>,
    L: AsyncFnMut(World, bool),
{
    for points in 0..POINTS_MAX {
        let world = world().await;
        crash::after(points);
        let done = doing(&world).await;
        crash::reborn();
        let lived = done.is_ok();
        looking(world.restart(), lived).await;
        if lived {
            return points;
        }
    }
    panic!("no end of points");
}

fn listed(world: &World) -> Vec<(String, bool)> {
    let managers = world.sleeve.dir().managers().unwrap();
    managers.into_iter().map(|one| (one.id, one.pending)).collect()
}

/// No factor is left in a file that nobody reads.
fn leaves_nothing_behind(world: &World) {
    let pairings = world.dir.path().join("sleeve").join("pairings");
    for file in fs::read_dir(pairings).into_iter().flatten() {
        let path = file.unwrap().path();
        assert_eq!(path.extension().unwrap(), "json", "{path:?}");
    }
}

async fn connects(world: &World) {
    for mode in [Mode::A2, Mode::A3] {
        let (session, _) = world.connect(mode).await.unwrap();
        session.close().await;
    }
    assert_eq!(listed(world), [(MANAGER.to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn a1_a_sleeve_that_dies_amid_a_pairing_knows_a_manager_that_knows_it() {
    let mut unchanged = 0;
    let mut pending = 0;
    let points = everywhere(
        async || World::new(),
        async |world| world.pair().await.map(|_| ()),
        async |world, lived| {
            leaves_nothing_behind(&world);
            let known = world.home.knows(SLEEVE);
            match &listed(&world)[..] {
                [] => {
                    assert!(!known && !lived, "a manager knows a sleeve that does not know it");
                    unchanged += 1;
                }
                [(id, is_pending)] => {
                    assert_eq!(id, MANAGER);
                    if *is_pending {
                        pending += 1;
                    }
                    if known {
                        connects(&world).await;
                    } else {
                        assert!(*is_pending);
                        let refused = world.connect(Mode::A2).await.unwrap_err();
                        assert_eq!(refused.check(), "sleeve-unknown");
                    }
                }
                others => panic!("{others:?}"),
            }
            // Whatever there was: pairing again works.
            world.pair().await.unwrap();
            connects(&world).await;
        },
    )
    .await;
    // Three points of the pending file, three of the confirmed one.
    assert_eq!(points, 6);
    assert!(unchanged > 0 && pending > 0, "{unchanged} {pending}");
}

#[tokio::test(start_paused = true)]
async fn a1_a_sleeve_that_dies_amid_pairing_again_still_connects() {
    everywhere(
        async || World::paired().await,
        async |world| world.pair().await.map(|_| ()),
        async |world, _| {
            leaves_nothing_behind(&world);
            connects(&world).await;
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a1_a_sleeve_that_dies_amid_settling_a_pairing_settles_it_next_time() {
    for mode in [Mode::A2, Mode::A3] {
        everywhere(
            async || {
                let world = World::new();
                world.home.fault(|faults| &faults.acknowledgement_lost, true);
                assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
                world
            },
            async |world| world.connect(mode).await.map(|_| ()),
            async |world, _| {
                leaves_nothing_behind(&world);
                connects(&world).await;
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleeve_whose_session_dies_finds_its_pair_unchanged() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    // The program ends: with its runtime go its tasks. Here, its handles.
    drop((session, card));
    until("the manager has let go", || world.home.held() == 0).await;
    let world = world.restart();
    connects(&world).await;
    let (session, _happenings) = world.inside().await;
    session.take("bank").await.unwrap();
}

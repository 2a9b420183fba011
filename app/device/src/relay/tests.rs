use std::time::Duration;

use super::*;

#[test]
fn pauses_grow_to_their_bound_and_are_no_shorter_than_the_server_asks() {
    let mut rng = testkit::rng::seeded(1);
    let lost = RelayError::AlwaysElsewhere;
    let mut pause = Pause::default();
    let mut base = PAUSE_FIRST;
    for _ in 0..12 {
        let next = pause.next(&lost, &mut rng);
        assert!(next >= base && next <= base * 5 / 4, "{next:?} of {base:?}");
        base = (base * 2).min(PAUSE_MAX);
    }
    let asked = RelayError::Refused { check: "manager-full".to_owned(), retry_after: 300 };
    assert!(pause.next(&asked, &mut rng) >= Duration::from_secs(300));
    assert!(Pause::default().next(&asked, &mut rng) >= Duration::from_secs(300));
}

//! What a refusal costs the server.
//!
//! A server, or manager, keeps nothing of M0, so whoever replays or forges a challenge needs no M0:
//! the dearest it can do per message is to send an M2. That contact, machine and alert
//! included, is what the target is judged by; the contact with M0 before it stands beside.

use countersign_channel::{Mode, SOURCE_BURST, WINDOW};

use super::contact::{End, batch};
use super::handshake::{Handshakes, MTLS};
use super::worlds::{Handshake, Worlds};
use super::{BATCH, ROUNDS_MAX};
use crate::Fallible;
use crate::measure::{Samples, Subject, Subjects, WARM_UP};
use crate::party::ours::{Ours, Setting};
use crate::party::paired::{Home, Paired};
use crate::party::tree::Tree;
use crate::party::{Contacts, Script, Server, Spoilt};
use crate::report::Row;

/// Contacts per sample that cost a verification or two.
const REFUSALS: usize = 32;
/// Contacts in step that cost a MAC or less: few, so that they fit a processor's nearest cache as
/// one contact of a real server does.
const CHEAP_REFUSALS: usize = 64;
/// Batches of them per sample: M2 alone, which takes no challenge, and with M0.
const M2_BATCHES: usize = 16;
const M0_BATCHES: usize = 4;

// The recorded challenges must stay in the server's window.
const _: () = {
    let issued = (BATCH + REFUSALS + 3 * M0_BATCHES * CHEAP_REFUSALS) as u64;
    assert!((ROUNDS_MAX + WARM_UP as u64) * issued < WINDOW);
};

/// Where the bytes that are altered lie in M2: frame header, then version, suite and policy.
const EPOCH_AT: usize = 8 + 5;
const MAC_AT: usize = EPOCH_AT + 4 + 8;

const HELLO: &str = "rustls mTLS, ClientHello answered";
const IMPOSTOR: &str = "rustls mTLS, client's signature refused";

/// M0 and M2.
type Recording = [Vec<u8>; 2];

/// The check that refuses a bad signature.
fn signature_check(mode: Mode) -> &'static str {
    match mode {
        Mode::C1 | Mode::C2 => "reader-signature",
        _ => "sleeve-signature",
    }
}

/// What attackers of one handshake send.
struct Attack {
    what: &'static str,
    check: &'static str,
    recording: Recording,
}

fn altered(recording: &Recording, at: usize) -> Recording {
    let mut recording = recording.clone();
    if let Some(byte) = recording[1].get_mut(at) {
        *byte ^= 1;
    }
    recording
}

fn attacks(ours: &impl Contacts) -> Fallible<[Attack; 3]> {
    let good = ours.recording(false)?;
    let replayed = ours.recording(true)?;
    let attack = |what, check, recording| Attack { what, check, recording };
    Ok([
        attack("forged", "challenge-mac", altered(&good, MAC_AT)),
        attack("replayed", "challenge-replayed", replayed),
        attack("stale", "challenge-stale", altered(&good, EPOCH_AT)),
    ])
}

/// Contacts that send these flights and are refused by `check`: the mean of some batches.
fn recorded(
    ours: &impl Contacts,
    flights: &[Vec<u8>],
    batches: usize,
    check: &'static str,
) -> Fallible<Vec<f64>> {
    let open = || ours.server_for_recorded();
    let mut sums = vec![0.0; flights.len()];
    for _ in 0..batches {
        let attacker = || Ok(Script::new(flights));
        let laps = batch(CHEAP_REFUSALS, attacker, open, End::Refused(check))?;
        sums.iter_mut().zip(laps).for_each(|(sum, lap)| *sum += lap);
    }
    Ok(sums.into_iter().map(|sum| sum / batches as f64).collect())
}

/// Contacts with good challenges, each from its own address, and with bad signatures.
fn spoilt(ours: &impl Contacts, mode: Mode, count: usize) -> Fallible<Vec<f64>> {
    let end = End::Refused(signature_check(mode));
    batch(count, || Ok(Spoilt::new(ours.client()?)), || ours.server(), end)
}

/// A world in which the recorded address has used up what it may; and an M2 from there.
fn limited_world<C: Contacts>(ours: Fallible<C>) -> Fallible<(C, Recording)> {
    let ours = ours?;
    let good = ours.recording(false)?;
    let bad = altered(&good, good[1].len() - 1);
    for _ in 0..SOURCE_BURST {
        if ours.server_for_recorded().receive(&bad[1]).is_ok() {
            return Err("a bad signature was taken for a good one".into());
        }
    }
    Ok((ours, good))
}

/// Those who attack one handshake with challenges.
struct Attacker<C> {
    attacks: [Attack; 3],
    limited: (C, Recording),
}

impl<C: Contacts> Attacker<C> {
    fn new(
        tree: &Tree,
        handshake: &Handshake<C>,
        make: fn(&Tree, Setting) -> Fallible<C>,
    ) -> Fallible<Self> {
        let limited = limited_world(make(tree, Setting::of(handshake.mode)))?;
        Ok(Self { attacks: attacks(&handshake.cached)?, limited })
    }
}

/// A sleeve that its manager does not know, or knows otherwise.
struct Stranger {
    what: String,
    check: &'static str,
    paired: Paired,
}

fn strangers(tree: &Tree) -> Fallible<Vec<Stranger>> {
    let connects = [Mode::A2, Mode::A3];
    let lists = connects.into_iter().flat_map(|mode| {
        [
            ("a sleeve that is in no list", "sleeve-unknown", Home::Closed, mode),
            ("a sleeve with another factor", "binder", Home::OtherFactor, mode),
        ]
    });
    let closed = [("outside the pairing window", "pairing-closed", Home::Closed, Mode::A1)];
    let made = closed.into_iter().chain(lists).map(|(what, check, home, mode)| {
        let paired = Paired::at(tree, Setting::of(mode), home)?;
        Ok(Stranger { what: format!("refuse {what}, {mode:?}"), check, paired })
    });
    made.collect()
}

/// The attackers, made before the subjects that borrow them.
pub(super) struct Attackers {
    ours: Vec<Attacker<Ours>>,
    paired: Vec<Attacker<Paired>>,
    strangers: Vec<Stranger>,
}

/// Those of sleeves and managers that have a challenge: pairing has none.
fn challenged(worlds: &Worlds) -> impl Iterator<Item = &Handshake<Paired>> {
    worlds.paired.iter().filter(|handshake| handshake.mode != Mode::A1)
}

impl Attackers {
    pub(super) fn new(tree: &Tree, worlds: &Worlds) -> Fallible<Self> {
        let ours = worlds.ours.iter().map(|one| Attacker::new(tree, one, Ours::new));
        let paired = challenged(worlds).map(|one| Attacker::new(tree, one, Paired::new));
        Ok(Self {
            ours: ours.collect::<Result<_, _>>()?,
            paired: paired.collect::<Result<_, _>>()?,
            strangers: strangers(tree)?,
        })
    }
}

/// One way to be refused early.
struct Early {
    what: String,
    m2_alone: Subject,
    with_m0: Option<Subject>,
    judged: bool,
}

/// One way to be refused for a signature.
struct Late {
    what: String,
    subject: Subject,
    judged: bool,
}

#[derive(Default)]
struct Measured {
    early: Vec<Early>,
    late: Vec<Late>,
}

impl Measured {
    fn add<'a, C: Contacts>(
        &mut self,
        handshake: &'a Handshake<C>,
        attacker: &'a Attacker<C>,
        subjects: &mut Subjects<'a>,
    ) {
        let Attacker { attacks, limited } = attacker;
        self.early.extend(attacks.iter().map(|attack| early_of(handshake, attack, subjects)));
        self.early.push(limited_of(handshake.mode, limited, subjects));
        self.add_late(handshake, subjects);
    }

    fn add_late<'a, C: Contacts>(
        &mut self,
        handshake: &'a Handshake<C>,
        subjects: &mut Subjects<'a>,
    ) {
        let Handshake { mode, cached, fresh, .. } = handshake;
        self.late.push(Late {
            what: format!("refuse a bad signature, {mode:?}, certificate cached"),
            subject: subjects.add(|| spoilt(cached, *mode, REFUSALS)),
            judged: true,
        });
        self.late.push(Late {
            what: format!("refuse a bad signature, {mode:?}, certificate not cached"),
            subject: subjects.add(|| spoilt(fresh, *mode, REFUSALS)),
            judged: false,
        });
    }
}

pub(super) struct Refusals {
    measured: Measured,
    strangers: Vec<(String, Subject)>,
    impostor: Subject,
}

impl Refusals {
    pub(super) fn new<'a>(
        worlds: &'a Worlds,
        attackers: &'a Attackers,
        subjects: &mut Subjects<'a>,
    ) -> Self {
        let mut measured = Measured::default();
        for (handshake, attacker) in worlds.ours.iter().zip(&attackers.ours) {
            measured.add(handshake, attacker, subjects);
        }
        for (handshake, attacker) in challenged(worlds).zip(&attackers.paired) {
            measured.add(handshake, attacker, subjects);
        }
        let strangers = attackers.strangers.iter().map(|Stranger { what, check, paired }| {
            let end = End::Refused(check);
            let run = move || batch(REFUSALS, || paired.client(), || paired.server(), end);
            (what.clone(), subjects.add(run))
        });
        let strangers = strangers.collect();
        let end = End::Refused("BadSignature");
        let tls = &worlds.tls;
        let impostor = subjects.add(move || batch(BATCH, || tls.impostor(), || tls.server(), end));
        Self { measured, strangers, impostor }
    }

    /// The targets are the design's, for each handshake with a challenge.
    pub(super) fn rows(&self, samples: &Samples, handshakes: &Handshakes) -> Vec<Row> {
        let hello = handshakes.tls_hello(samples);
        let impostor = samples.whole(self.impostor);
        let tls = handshakes.tls(samples);
        let mut rows = Vec::new();
        for Early { what, m2_alone, with_m0, judged } in &self.measured.early {
            let row = |name: String, subject| Row::new(name, samples.whole(subject), "us");
            let alone = || row(format!("{what}: M2 alone"), *m2_alone);
            let against_hello = alone().against(HELLO, hello);
            rows.push(if *judged { against_hello.at_most(0.01) } else { against_hello });
            rows.push(alone().against(IMPOSTOR, impostor));
            if let Some(with_m0) = with_m0 {
                let whole = || row(format!("{what}: M0, then M2"), *with_m0);
                rows.push(whole().against(HELLO, hello));
                rows.push(whole().against(IMPOSTOR, impostor));
            }
        }
        for (what, subject) in &self.strangers {
            let row = || Row::new(what.clone(), samples.whole(*subject), "us");
            rows.push(row().against(HELLO, hello));
            rows.push(row().against(IMPOSTOR, impostor));
        }
        for Late { what, subject, judged } in &self.measured.late {
            let row = || Row::new(what.clone(), samples.whole(*subject), "us");
            let against_tls = row().against(MTLS, tls);
            rows.push(if *judged { against_tls.at_most(0.35) } else { against_tls });
            rows.push(row().against(HELLO, hello));
            rows.push(row().against(IMPOSTOR, impostor));
        }
        rows
    }
}

fn early_of<'a, C: Contacts>(
    ours: &'a Handshake<C>,
    attack: &'a Attack,
    subjects: &mut Subjects<'a>,
) -> Early {
    let Attack { what, check, recording } = attack;
    let server = &ours.cached;
    let m2 = std::slice::from_ref(&recording[1]);
    Early {
        what: format!("refuse a {what} challenge, {:?}", ours.mode),
        m2_alone: subjects.add(|| recorded(server, m2, M2_BATCHES, check)),
        with_m0: Some(subjects.add(|| recorded(server, recording, M0_BATCHES, check))),
        judged: true,
    }
}

fn limited_of<'a, C: Contacts>(
    mode: Mode,
    (server, recording): &'a (C, Recording),
    subjects: &mut Subjects<'a>,
) -> Early {
    let m2 = std::slice::from_ref(&recording[1]);
    Early {
        what: format!("refuse a source over its limit, {mode:?}"),
        m2_alone: subjects.add(|| recorded(server, m2, M2_BATCHES, "source-limited")),
        with_m0: None,
        judged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::worlds::{MODES, PAIRED_MODES};
    use super::*;

    fn each_is_refused_by_its_check(ours: &impl Contacts) {
        for Attack { check, recording, .. } in &attacks(ours).unwrap() {
            for flights in [&recording[..], &recording[1..]] {
                // Twice: a refusal leaves no trace that would make the next one another.
                let laps = recorded(ours, flights, 2, check).unwrap();
                assert_eq!(laps.len(), flights.len());
                assert!(recorded(ours, flights, 1, "another-check").is_err());
            }
        }
    }

    #[test]
    fn each_recording_is_refused_by_the_check_its_row_names() {
        let tree = Tree::new().unwrap();
        for mode in MODES {
            each_is_refused_by_its_check(&Ours::new(&tree, Setting::of(mode)).unwrap());
        }
        for mode in &PAIRED_MODES[1..] {
            each_is_refused_by_its_check(&Paired::new(&tree, Setting::of(*mode)).unwrap());
        }
    }

    #[test]
    fn strangers_are_refused_by_the_check_their_rows_name() {
        let tree = Tree::new().unwrap();
        for Stranger { what, check, paired } in strangers(&tree).unwrap() {
            let run = |end| batch(2, || paired.client(), || paired.server(), end);
            assert!(run(End::Refused(check)).is_ok(), "{what}");
            assert!(run(End::Connected).is_err(), "{what}");
        }
    }

    #[test]
    fn bad_signatures_from_many_sources_never_reach_a_limit_and_from_one_they_do() {
        let tree = Tree::new().unwrap();
        fn check<C: Contacts>(mode: Mode, make: impl Fn() -> Fallible<C>) {
            let many = SOURCE_BURST as usize + 1;
            assert_eq!(spoilt(&make().unwrap(), mode, many).unwrap().len(), 2);
            let (limited, good) = limited_world(make()).unwrap();
            recorded(&limited, &good[1..], 1, "source-limited").unwrap();
        }
        check(Mode::C1, || Ours::new(&tree, Setting::of(Mode::C1)));
        check(Mode::A2, || Paired::new(&tree, Setting::of(Mode::A2)));
    }
}

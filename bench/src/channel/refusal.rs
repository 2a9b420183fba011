//! What a refusal costs the server.
//!
//! A server keeps nothing of M0, so whoever replays or forges a challenge needs no M0: the dearest
//! it can do per message is to send an M2. That contact, machine and alert included, is what the
//! target is judged by; the contact with M0 before it stands beside.

use countersign_channel::{SOURCE_BURST, WINDOW};

use super::contact::{End, batch};
use super::handshake::{Handshakes, MTLS};
use super::worlds::{Handshake, Worlds};
use super::{BATCH, ROUNDS_MAX};
use crate::Fallible;
use crate::measure::{Samples, Subject, Subjects, WARM_UP};
use crate::party::ours::{Ours, Setting};
use crate::party::tree::Tree;
use crate::party::{Script, Server, Spoilt};
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

fn attacks(ours: &Ours) -> Fallible<[Attack; 3]> {
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
    ours: &Ours,
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
fn spoilt(ours: &Ours, count: usize) -> Fallible<Vec<f64>> {
    let end = End::Refused("reader-signature");
    batch(count, || Ok(Spoilt::new(ours.reader()?)), || ours.server(), end)
}

/// A world in which the recorded address has used up what it may; and an M2 from there.
fn limited_world(tree: &Tree, setting: Setting) -> Fallible<(Ours, Recording)> {
    let ours = Ours::new(tree, setting)?;
    let good = ours.recording(false)?;
    let bad = altered(&good, good[1].len() - 1);
    for _ in 0..SOURCE_BURST {
        if ours.server_for_recorded().receive(&bad[1]).is_ok() {
            return Err("a bad signature was taken for a good one".into());
        }
    }
    Ok((ours, good))
}

/// The attackers, made before the subjects that borrow them.
pub(super) struct Attackers {
    by_handshake: Vec<[Attack; 3]>,
    limited: Vec<(Ours, Recording)>,
}

impl Attackers {
    pub(super) fn new(tree: &Tree, worlds: &Worlds) -> Fallible<Self> {
        let by_handshake = worlds.ours.iter().map(|ours| attacks(&ours.cached));
        let limited = worlds.ours.iter().map(|ours| limited_world(tree, Setting::of(ours.mode)));
        Ok(Self {
            by_handshake: by_handshake.collect::<Result<_, _>>()?,
            limited: limited.collect::<Result<_, _>>()?,
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

pub(super) struct Refusals {
    early: Vec<Early>,
    late: Vec<Late>,
    impostor: Subject,
}

impl Refusals {
    pub(super) fn new<'a>(
        worlds: &'a Worlds,
        attackers: &'a Attackers,
        subjects: &mut Subjects<'a>,
    ) -> Self {
        let (mut early, mut late) = (Vec::new(), Vec::new());
        let each = worlds.ours.iter().zip(&attackers.by_handshake).zip(&attackers.limited);
        for ((ours, attacks), limited) in each {
            early.extend(attacks.iter().map(|attack| early_of(ours, attack, subjects)));
            early.push(limited_of(ours, limited, subjects));
            let Handshake { mode, cached, fresh, .. } = ours;
            late.push(Late {
                what: format!("refuse a bad signature, {mode:?}, certificate cached"),
                subject: subjects.add(|| spoilt(cached, REFUSALS)),
                judged: true,
            });
            late.push(Late {
                what: format!("refuse a bad signature, {mode:?}, certificate not cached"),
                subject: subjects.add(|| spoilt(fresh, REFUSALS)),
                judged: false,
            });
        }
        let end = End::Refused("BadSignature");
        let tls = &worlds.tls;
        let impostor = subjects.add(move || batch(BATCH, || tls.impostor(), || tls.server(), end));
        Self { early, late, impostor }
    }

    /// The targets are the design's, for each of the two handshakes.
    pub(super) fn rows(&self, samples: &Samples, handshakes: &Handshakes) -> Vec<Row> {
        let hello = handshakes.tls_hello(samples);
        let impostor = samples.whole(self.impostor);
        let tls = handshakes.tls(samples);
        let mut rows = Vec::new();
        for Early { what, m2_alone, with_m0, judged } in &self.early {
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
        for Late { what, subject, judged } in &self.late {
            let row = || Row::new(what.clone(), samples.whole(*subject), "us");
            let against_tls = row().against(MTLS, tls);
            rows.push(if *judged { against_tls.at_most(0.35) } else { against_tls });
            rows.push(row().against(HELLO, hello));
            rows.push(row().against(IMPOSTOR, impostor));
        }
        rows
    }
}

fn early_of<'a>(ours: &'a Handshake, attack: &'a Attack, subjects: &mut Subjects<'a>) -> Early {
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

fn limited_of<'a>(
    ours: &'a Handshake,
    (server, recording): &'a (Ours, Recording),
    subjects: &mut Subjects<'a>,
) -> Early {
    let m2 = std::slice::from_ref(&recording[1]);
    Early {
        what: format!("refuse a source over its limit, {:?}", ours.mode),
        m2_alone: subjects.add(|| recorded(server, m2, M2_BATCHES, "source-limited")),
        with_m0: None,
        judged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::worlds::MODES;
    use super::*;

    #[test]
    fn each_recording_is_refused_by_the_check_its_row_names() {
        let tree = Tree::new().unwrap();
        for mode in MODES {
            let ours = Ours::new(&tree, Setting::of(mode)).unwrap();
            for Attack { check, recording, .. } in &attacks(&ours).unwrap() {
                for flights in [&recording[..], &recording[1..]] {
                    // Twice: a refusal leaves no trace that would make the next one another.
                    let laps = recorded(&ours, flights, 2, check).unwrap();
                    assert_eq!(laps.len(), flights.len());
                    assert!(recorded(&ours, flights, 1, "another-check").is_err());
                }
            }
        }
    }

    #[test]
    fn bad_signatures_from_many_sources_never_reach_a_limit_and_from_one_they_do() {
        let tree = Tree::new().unwrap();
        let setting = Setting::of(MODES[0]);
        let ours = Ours::new(&tree, setting).unwrap();
        let many = SOURCE_BURST as usize + 1;
        assert_eq!(spoilt(&ours, many).unwrap().len(), 2);
        let (limited, good) = limited_world(&tree, setting).unwrap();
        recorded(&limited, &good[1..], 1, "source-limited").unwrap();
    }
}

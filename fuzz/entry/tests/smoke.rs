//! The corpus, replayed on a stable compiler, and mutations of it. One test for each target.
//!
//! `FUZZ_SEED` chooses other mutations; a failure prints the seed and the input.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fuzz_entry::seeds::{SEED_MAX, SEEDS_MAX, seeds};
use fuzz_entry::{TARGETS, Target};
use rand_core::Rng;
use testkit::rng::{ChaCha20Rng, seeded};

/// The seed of the mutations, unless `FUZZ_SEED` names another.
const SEED: u64 = 1;
/// Most alterations of one mutation.
const ALTERATIONS_MAX: usize = 4;
/// Most bytes that an extension adds.
const EXTENSION_MAX: usize = 64;

fn seed() -> u64 {
    std::env::var("FUZZ_SEED").map_or(SEED, |text| text.parse().expect("FUZZ_SEED is a number"))
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect()
}

fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound.max(1) as u64).expect("below a usize")
}

/// `bytes` with a few bits flipped, bytes replaced, cut, extended, repeated, or joined with another
/// file of the corpus.
fn mutated(rng: &mut ChaCha20Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(rng, ALTERATIONS_MAX) {
        let at = below(rng, bytes.len());
        match below(rng, 7) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << below(rng, 8),
            2 if !bytes.is_empty() => bytes[at] = rng.next_u32().to_le_bytes()[0],
            3 => bytes.truncate(at),
            4 => {
                let mut new = vec![0; below(rng, EXTENSION_MAX)];
                rng.fill_bytes(&mut new);
                bytes.splice(at..at, new);
            }
            5 => {
                let from = below(rng, other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let len = below(rng, (bytes.len() - at).min(EXTENSION_MAX) + 1);
                let again = bytes[at..at + len].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

fn run(target: &Target, what: &str, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    if let Err(panic) = outcome {
        eprintln!("{}, {what}, FUZZ_SEED={}: input {bytes:02x?}", target.name, seed());
        resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let files = corpus(target);
    let mut rng = seeded(seed());
    for (path, bytes) in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        run(target, &name, bytes);
        for number in 0..target.mutations {
            let other = &files[below(&mut rng, files.len())].1;
            let bytes = mutated(&mut rng, bytes, other);
            run(target, &format!("{name}, mutation {number}"), &bytes);
        }
    }
}

macro_rules! smoke {
    ($($name:ident,)*) => {
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { replay(stringify!($name)); })*
    };
}

smoke! {
    alert,
    apdu,
    card,
    certificate,
    certificate_edits,
    device_card,
    evidence,
    handshake,
    hierarchy,
    injection,
    joint_card,
    joint_commitment,
    key_block,
    manager_channel,
    messages,
    offline_request,
    payment,
    reader_channel,
    reader_flow,
    record,
    records,
    relay_messages,
    request,
    sam_frames,
    sam_host,
    sam_remote,
    server_channel,
    server_flow,
    sleeve_channel,
    tokens,
    wallet_messages,
    wallet_policy,
    wallet_rules,
}

#[test]
fn every_target_is_replayed_and_has_its_file() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    let mut files: Vec<String> = fs::read_dir(folder)
        .expect("the fuzz targets")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, names);
}

/// Bytes of an older protocol would still pass, and reach nothing.
#[test]
fn the_seeds_are_those_of_this_protocol() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!((1..=SEEDS_MAX).contains(&seeds.len()), "{}", target.name);
        let files = corpus(target);
        for (name, bytes) in seeds {
            assert!(bytes.len() <= SEED_MAX, "{} {name}", target.name);
            let file = files.iter().find(|(path, _)| path.ends_with(&name));
            assert!(
                file.is_some_and(|(_, found)| *found == bytes),
                "{} {name} is old; run: cargo run -p fuzz-entry --bin seeds",
                target.name
            );
        }
    }
}

use std::os::unix::fs::symlink;

use countersign_crypto::aws_lc;
use countersign_idcard::cache::{CacheHit, CacheMode, ReaderCache};
use countersign_idcard::{Configuration, ENCRYPTED_BASE_LEN, EncryptedData};

use super::*;

fn device() -> (tempfile::TempDir, DeviceDir) {
    let tmp = tempfile::tempdir().unwrap();
    let (provider, mut rng) = (aws_lc::provider(), testkit::rng::seeded(1));
    let device = DeviceDir::open_or_make(&tmp.path().join("RD-1"), "RD-1", &provider, &mut rng);
    (tmp, device.unwrap())
}

fn first() -> Slot {
    Slot::all().next().unwrap()
}

fn files(device: &DeviceDir) -> Vec<String> {
    let entries = fs::read_dir(device.path().join(DIR)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn slots_are_files_of_their_own_and_private() {
    let (_tmp, device) = device();
    let mut flash = CacheFiles::open(&device).unwrap();
    for slot in Slot::all() {
        assert_eq!(flash.read(slot), Ok(None));
        flash.write(slot, &[1]).unwrap();
        flash.write(slot, &[slot.index() as u8; SEALED_LEN_MAX]).unwrap();
    }
    for slot in Slot::all() {
        assert_eq!(flash.read(slot), Ok(Some(vec![slot.index() as u8; SEALED_LEN_MAX])));
        let mode = fs::metadata(flash.path(slot)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(files(&device).len(), Slot::COUNT + 1, "and the lock");
    for slot in Slot::all() {
        flash.erase(slot).unwrap();
        flash.erase(slot).unwrap(); // empty stays empty
    }
    assert_eq!(files(&device), ["lock"]);
    // More than was ever written is nothing of ours.
    fs::write(flash.path(first()), vec![0; SEALED_LEN_MAX + 1]).unwrap();
    assert_eq!(flash.read(first()), Ok(None));
}

#[test]
fn a_directory_open_to_others_is_closed_and_one_that_is_none_refused() {
    let (_tmp, device) = device();
    let dir = device.path().join(DIR);
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    drop(CacheFiles::open(&device).unwrap());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(device.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &dir).unwrap();
    assert_eq!(CacheFiles::open(&device).err().unwrap().check(), "io");
}

#[test]
fn a_link_in_a_slot_is_neither_read_nor_overwritten() {
    let (_tmp, device) = device();
    let mut flash = CacheFiles::open(&device).unwrap();
    let mine = device.path().join("mine");
    fs::write(&mine, "mine").unwrap();
    for _ in 0..2 {
        symlink(&mine, flash.path(first())).unwrap();
        symlink(&mine, flash.new_path(first())).unwrap();
        assert_eq!(flash.read(first()), Ok(None));
        flash.erase(first()).unwrap();
        assert_eq!(files(&device), ["lock"]);
        symlink(&mine, flash.new_path(first())).unwrap();
        flash.write(first(), &[1]).unwrap();
        assert_eq!(fs::read(&mine).unwrap(), b"mine");
        flash.erase(first()).unwrap();
    }
}

#[test]
fn one_program_at_a_time() {
    let (_tmp, device) = device();
    let first = CacheFiles::open(&device).unwrap();
    let refused = CacheFiles::open(&device).err().unwrap();
    assert!(refused.to_string().contains("in use by another reader program"), "{refused}");
    drop(first);
    CacheFiles::open(&device).unwrap();
}

/// What a program that was killed left does not survive the next one's start, and dropping a cache
/// erases what it kept.
#[test]
fn a_start_and_an_end_leave_nothing() {
    let (_tmp, device) = device();
    let card = Configuration::new([1; 32]);
    let data = EncryptedData::new(vec![7; ENCRYPTED_BASE_LEN].into()).unwrap();
    let start = || {
        let storage = Box::new(CacheFiles::open(&device).unwrap());
        let rng = Box::new(testkit::rng::seeded(2));
        ReaderCache::with_storage(CacheMode::MultiCard, aws_lc::provider(), storage, rng)
    };
    let mut cache = start();
    cache.store_encrypted(&card, &data, false);
    assert!(matches!(cache.lookup(&card, false), CacheHit::Packets(_)));
    assert_eq!(files(&device), ["0-encrypted", "lock"]);
    let left = fs::read(device.path().join(DIR).join("0-encrypted")).unwrap();
    drop(cache);
    assert_eq!(files(&device), ["lock"]);
    for name in ["0-encrypted", "7-plaintext", "3-encrypted.new"] {
        fs::write(device.path().join(DIR).join(name), &left).unwrap();
    }
    let mut cache = start();
    assert_eq!(files(&device), ["lock"]);
    assert!(matches!(cache.lookup(&card, false), CacheHit::Nothing));
}

use std::os::unix::fs::PermissionsExt;

use countersign_crypto::aws_lc;

use super::*;

struct Desk {
    _tmp: tempfile::TempDir,
    device: PathBuf,
}

fn rng() -> impl CryptoRng {
    testkit::rng::seeded(1)
}

impl Desk {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let device = tmp.path().join("RD-1");
        let provider = aws_lc::provider();
        DeviceDir::open_or_make(&device, "RD-1", &provider, &mut rng()).unwrap();
        Self { _tmp: tmp, device }
    }

    fn journal(&self) -> ReadJournal {
        ReadJournal::new(&DeviceDir::open(&self.device).unwrap())
    }

    fn file(&self) -> PathBuf {
        self.device.join(DIR).join(ENTRIES)
    }

    fn keep(&self, byte: u8) -> Kept {
        // Each call is a program of its own.
        self.journal().append(&mut rng(), time(byte), Source::Server, &plain(byte)).unwrap()
    }

    /// First bytes of the texts, or the numbers of the damaged.
    fn kept(&self) -> Vec<Result<u8, u64>> {
        let journal = self.journal();
        let entry = |entry: Result<KeptRead, JournalError>| match entry {
            Ok(kept) => {
                let byte = kept.data.text()[0];
                assert_eq!((kept.at, kept.source), (time(byte), Source::Server));
                assert_eq!(kept.data.photo(), plain(byte).photo());
                assert_eq!(kept.data.fingerprint(), plain(byte).fingerprint());
                Ok(byte)
            }
            Err(JournalError::Damaged { number }) => Err(number),
            Err(error) => panic!("{error}"),
        };
        journal.entries().unwrap().map(entry).collect()
    }
}

fn time(byte: u8) -> UnixTime {
    UnixTime::from_secs(1_000_000 + u64::from(byte))
}

fn plain(byte: u8) -> PlainData {
    let secret = |len| Secret::new(vec![byte; len]);
    // Without, with a half and with a whole fingerprint.
    let fingerprint = [None, Some(512), Some(1024)][usize::from(byte % 3)];
    PlainData::new(secret(TEXT_LEN), secret(PHOTO_LEN), fingerprint.map(secret)).unwrap()
}

#[test]
fn what_is_kept_comes_back_in_order_and_lies_sealed_and_private() {
    let desk = Desk::new();
    assert_eq!(desk.kept(), []);
    for byte in 1..=6 {
        assert_eq!(desk.keep(byte), Kept { number: byte.into(), dropped_torn: false });
    }
    assert_eq!(desk.kept(), [1, 2, 3, 4, 5, 6].map(Ok));
    let bytes = fs::read(desk.file()).unwrap();
    assert_eq!(bytes.len(), 6 * ENTRY_LEN);
    assert!(!bytes.windows(8).any(|window| window.iter().all(|byte| *byte == window[0])));
    for name in [KEY, ENTRIES, LOCK] {
        let mode = fs::metadata(desk.device.join(DIR).join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(desk.device.join(DIR)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_damaged_entry_is_named_and_hides_no_other() {
    let desk = Desk::new();
    (1..=4).for_each(|byte| assert!(desk.keep(byte).number > 0));
    let whole = fs::read(desk.file()).unwrap();
    for at in [0, AEAD_NONCE_LEN, ENTRY_LEN / 2, ENTRY_LEN - 1] {
        let mut bytes = whole.clone();
        bytes[ENTRY_LEN + at] ^= 1;
        fs::write(desk.file(), &bytes).unwrap();
        assert_eq!(desk.kept(), [Ok(1), Err(2), Ok(3), Ok(4)], "byte {at}");
    }
    // Entries that change places are damaged too.
    let mut bytes = whole;
    bytes[..2 * ENTRY_LEN].rotate_left(ENTRY_LEN);
    fs::write(desk.file(), &bytes).unwrap();
    assert_eq!(desk.kept(), [Err(1), Err(2), Ok(3), Ok(4)]);
}

#[test]
fn a_crash_in_the_middle_loses_only_what_was_not_reported() {
    let desk = Desk::new();
    (1..=2).for_each(|byte| assert!(desk.keep(byte).number > 0));
    let whole = fs::read(desk.file()).unwrap();
    for cut in [1, AEAD_NONCE_LEN, ENTRY_LEN - 1] {
        // What a program leaves that died while it appended the third.
        fs::write(desk.file(), [&whole[..], &whole[..cut]].concat()).unwrap();
        let journal = desk.journal();
        let entries = journal.entries().unwrap();
        assert!(entries.is_torn() && entries.total() == 2);
        drop(entries);
        assert_eq!(desk.kept(), [Ok(1), Ok(2)]);
        assert_eq!(desk.keep(3), Kept { number: 3, dropped_torn: true });
        assert_eq!(desk.kept(), [Ok(1), Ok(2), Ok(3)]);
    }
    // It died in its very first.
    fs::write(desk.file(), &whole[..7]).unwrap();
    assert_eq!(desk.keep(1), Kept { number: 1, dropped_torn: true });
    assert_eq!(desk.kept(), [Ok(1)]);
}

#[test]
fn the_journal_is_bounded() {
    let desk = Desk::new();
    desk.keep(1);
    let file = OpenOptions::new().write(true).open(desk.file()).unwrap();
    file.set_len(KEPT_MAX * ENTRY_LEN as u64).unwrap();
    let journal = desk.journal();
    let full = journal.append(&mut rng(), time(1), Source::Server, &plain(1)).unwrap_err();
    assert_eq!((full.check(), full.is_environment()), ("reads-full", false));
    file.set_len((KEPT_MAX - 1) * ENTRY_LEN as u64).unwrap();
    assert_eq!(desk.keep(2).number, KEPT_MAX);
}

#[test]
fn without_its_key_nothing_opens_and_nothing_is_added() {
    let desk = Desk::new();
    desk.keep(1);
    let key = desk.device.join(DIR).join(KEY);
    for damage in [None, Some(&[1; 15][..]), Some(&[1; 17][..])] {
        damage.map_or_else(|| fs::remove_file(&key), |bytes| fs::write(&key, bytes)).unwrap();
        let journal = desk.journal();
        assert_eq!(journal.entries().map(drop).unwrap_err().check(), "reads-key");
        let added = journal.append(&mut rng(), time(2), Source::Cache, &plain(2));
        assert_eq!(added.unwrap_err().check(), "reads-key");
    }
    fs::write(&key, [1; AEAD_KEY_LEN]).unwrap();
    assert_eq!(desk.kept(), [Err(1)], "another key is no better");
}

#[test]
fn erased_is_gone_and_it_begins_anew_under_another_key() {
    let desk = Desk::new();
    assert_eq!(desk.journal().erase().unwrap(), 0);
    desk.keep(1);
    desk.keep(2);
    let old = fs::read(desk.file()).unwrap();
    assert_eq!(desk.journal().erase().unwrap(), 2);
    assert_eq!(desk.kept(), []);
    assert!(!desk.device.join(DIR).join(KEY).exists());
    let journal = desk.journal();
    // Not the generator of before: a real one never repeats.
    let mut rng = testkit::rng::seeded(2);
    journal.append(&mut rng, time(3), Source::Server, &plain(3)).unwrap();
    fs::write(desk.file(), old).unwrap();
    assert_eq!(desk.kept(), [Err(1), Err(2)], "what was erased does not open again");
}

#[test]
fn what_was_overwritten_by_half_an_erasing_is_no_key() {
    let desk = Desk::new();
    desk.keep(1);
    fs::write(desk.device.join(DIR).join(KEY), [0; AEAD_KEY_LEN]).unwrap();
    let kept = desk.journal().append(&mut rng(), time(2), Source::Server, &plain(2));
    assert_eq!(kept.unwrap_err().check(), "reads-key", "nothing is sealed under zeros");
    assert!(matches!(desk.journal().entries(), Err(JournalError::Key(_))));
    assert_eq!(desk.journal().erase().unwrap(), 1);
    assert_eq!(desk.keep(3).number, 1);
    assert_eq!(desk.kept(), [Ok(3)]);
}

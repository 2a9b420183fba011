use std::os::unix::fs::{PermissionsExt, symlink};

use countersign_crypto::Suite;

use super::settings::{first_suite, short};
use super::*;

fn make(path: &Path, seed: u64) -> Result<DeviceDir, DeviceDirError> {
    let provider = aws_lc::provider();
    DeviceDir::open_or_make(path, "RD-1", &provider, &mut testkit::rng::seeded(seed))
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_broken_off_at_any_file_can_be_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("RD-1");
    let provider = aws_lc::provider();
    // What a crash just before the move leaves: everything beside, nothing in place.
    let beside = parent.path().join(".RD-1.new-0123456789abcdef");
    DeviceDir::fill(&beside, DeviceKind::Reader, "RD-1", &provider, &mut testkit::rng::seeded(1))
        .unwrap();
    assert_eq!(make(&path, 2).unwrap().path, path);
    assert_eq!(names(&path), [MARKER, "device.toml", "key.p8"]);
    assert_eq!(names(parent.path()), [".RD-1.new-0123456789abcdef", "RD-1"]);
    // Again: the same key, not a second one.
    let key = fs::read(path.join(KEY)).unwrap();
    make(&path, 3).unwrap();
    assert_eq!(fs::read(path.join(KEY)).unwrap(), key);
}

#[test]
fn nothing_stays_of_a_directory_that_cannot_be_moved_into_place() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("RD-1");
    fs::write(&path, "mine").unwrap();
    assert_eq!(make(&path, 1).err().unwrap().check(), "io");
    assert_eq!(names(parent.path()), ["RD-1"]);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn an_empty_directory_open_to_others_is_closed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("RD-1");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    make(&path, 1).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(KEY))), (0o700, 0o600));
}

#[test]
fn a_link_to_an_empty_directory_stands_for_it() {
    let parent = tempfile::tempdir().unwrap();
    let (real, link) = (parent.path().join("real"), parent.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    make(&link, 1).unwrap();
    assert_eq!(names(&real), [MARKER, "device.toml", "key.p8"]);
    assert!(link.symlink_metadata().unwrap().is_symlink());
}

#[test]
fn writing_follows_no_link() {
    let parent = tempfile::tempdir().unwrap();
    let dir = make(&parent.path().join("RD-1"), 1).unwrap();
    let outside = parent.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    symlink(&outside, dir.path.join("device.new")).unwrap();
    dir.write_settings().unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    assert!(fs::symlink_metadata(dir.path.join(SETTINGS)).unwrap().is_file());
    assert!(DeviceDir::open(&dir.path).is_ok());
}

#[test]
fn a_directory_keeps_its_suite_and_one_that_names_none_is_of_the_first() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    let mut rng = testkit::rng::seeded(1);
    for suite in Suite::known() {
        let provider = aws_lc::provider_of(suite).unwrap();
        let path = path(short(suite));
        let made = DeviceDir::open_or_make(&path, "RD-1", &provider, &mut rng).unwrap();
        assert_eq!((made.settings.suite, made.provider().suite), (suite, suite));
        let seals = provider.encryption.is_some();
        assert_eq!(path.join(ENCRYPTION_KEY).exists(), seals, "{suite}");
        assert_eq!(made.decryption_key(&provider).unwrap().is_some(), seals, "{suite}");
        let opened = DeviceDir::open(&path).unwrap();
        assert_eq!(opened.settings, made.settings);
        for other in Suite::known().filter(|other| *other != suite) {
            let provider = aws_lc::provider_of(other).unwrap();
            let error = DeviceDir::open_or_make(&path, "RD-1", &provider, &mut rng);
            let error = error.err().unwrap();
            assert_eq!(error.check(), "device-suite");
            for name in [short(suite), short(other)] {
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
    let settings = path("p256").join(SETTINGS);
    fs::write(&settings, "serial = \"RD-1\"\nserver_id = \"srv\"\n").unwrap();
    assert_eq!(DeviceDir::open(&path("p256")).unwrap().settings.suite, first_suite());
    fs::write(&settings, "serial = \"RD-1\"\nsuite = \"sm3\"\n").unwrap();
    let error = DeviceDir::open(&path("p256")).err().unwrap();
    assert_eq!(error.check(), "device-damaged");
    assert!(error.to_string().contains("there are p256 and sm2"), "{error}");
}

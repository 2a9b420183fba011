use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use countersign_channel::EncryptionCredential;
use countersign_crypto::Secret;
use testkit::rng::seeded;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// The system's time, as the files have it.
fn file_time(path: &Path) -> UnixTime {
    UnixTime::from_secs(fs::metadata(path).unwrap().mtime().unsigned_abs())
}

fn build(target: &Path, now: UnixTime, seed: u64) -> NewDataDir {
    build_in(Suite::X25519_P256_AES128GCM_SHA256, target, now, seed)
}

fn build_in(suite: Suite, target: &Path, now: UnixTime, seed: u64) -> NewDataDir {
    let init = Init {
        passphrase: &Secret::copied_from(b"passphrase"),
        keep_passphrase: false,
        server_id: "srv-test",
        tls_names: &[parse_tls_name("localhost")],
        config: &Config::default(),
    };
    let provider = aws_lc::provider_of(suite).unwrap();
    NewDataDir::build(target, &init, &provider, now, &mut seeded(seed)).unwrap()
}

/// A directory with everything but a store, and when it was made.
struct Made {
    _parent: tempfile::TempDir,
    path: PathBuf,
    now: UnixTime,
}

impl Made {
    fn new(seed: u64) -> Self {
        Self::of(Suite::X25519_P256_AES128GCM_SHA256, seed)
    }

    fn of(suite: Suite, seed: u64) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let (path, now) = (parent.path().join("data"), file_time(parent.path()));
        build_in(suite, &path, now, seed).publish().unwrap();
        Self { _parent: parent, path, now }
    }

    fn keys(&self, now: UnixTime, renew: Option<&mut dyn CryptoRng>) -> Result<Keys, DataError> {
        let passphrase = Secret::copied_from(b"passphrase");
        DataDir::open(&self.path)?.open_keys(&passphrase, now, renew)
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.path.join(name)).unwrap()
    }

    /// Seals the key `from` as the key `to`, as a careless restore of a backup would.
    fn key_as(&self, from: &str, to: &str) {
        let derivation: Derivation =
            toml::from_str(&fs::read_to_string(self.path.join(KDF)).unwrap()).unwrap();
        let sealer = derivation.derive(&Secret::copied_from(b"passphrase")).unwrap();
        let secret = sealer.open(from, &self.file(&key_path(from))).unwrap();
        let sealed = sealer.seal(to, &secret, &mut seeded(9)).unwrap();
        replace(&self.path.join(key_path(to)), &sealed).unwrap();
    }
}

fn tls_matches(keys: &Keys) -> bool {
    let provider = aws_lc::provider();
    let key = provider.signature.load_pkcs8(&keys.tls.1).unwrap();
    certified_point(&provider, &keys.tls.0).unwrap() == key.public_key()
}

#[test]
fn keys_that_are_not_the_certificates_are_damage() {
    for name in ["server", "devices"] {
        let made = Made::new(1);
        assert!(made.keys(made.now, None).is_ok());
        made.key_as("audit", name);
        let error = made.keys(made.now, None).err().unwrap();
        assert_eq!(error.check(), "data-damaged");
        assert!(error.to_string().contains(&format!("ca/{name}.pem")), "{error}");
    }
}

#[test]
fn only_a_start_renews_the_https_certificate() {
    let made = Made::new(2);
    let (pem, soon) = (made.file("tls/server.pem"), made.now.plus(DAY * 380));
    made.keys(made.now, Some(&mut seeded(3))).unwrap();
    made.keys(soon, None).unwrap();
    assert_eq!(made.file("tls/server.pem"), pem, "nothing is written before its time, or unasked");

    let keys = made.keys(soon, Some(&mut seeded(3))).unwrap();
    assert_ne!(made.file("tls/server.pem"), pem);
    assert!(tls_matches(&keys) && tls_matches(&made.keys(soon, None).unwrap()));
    let left = fs::read_dir(made.path.join("tls")).unwrap().count();
    assert_eq!(left, 3, "root, server, names; no file of the replacing stays");
}

#[test]
fn an_https_key_that_is_not_the_certificates_is_renewed() {
    let made = Made::new(4);
    made.key_as("audit", "tls"); // as after a crash between the two files of a renewal
    assert!(!tls_matches(&made.keys(made.now, None).unwrap()), "local commands do not care");
    assert!(tls_matches(&made.keys(made.now, Some(&mut seeded(5))).unwrap()));
    assert!(tls_matches(&made.keys(made.now, None).unwrap()), "and it is kept");
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let made = Made::new(6);
    for mode in [0o701, 0o710, 0o755, 0o707] {
        fs::set_permissions(&made.path, Permissions::from_mode(mode)).unwrap();
        let error = DataDir::open(&made.path).err().unwrap();
        assert_eq!(error.check(), "data-permissions");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
    fs::set_permissions(&made.path, Permissions::from_mode(0o700)).unwrap();
    assert!(DataDir::open(&made.path).is_ok());
    let error = check_access(&made.path, 0o40700, 1, 2).err().unwrap();
    assert_eq!(error.check(), "data-owner");
    assert!(check_access(&made.path, 0o40700, 2, 2).is_ok());
}

#[test]
fn init_removes_only_what_an_init_left_behind() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    let ours = ".data.init-0123456789abcdef";
    let others = [".data.init-0123", ".data.init-0123456789abcdeX", ".more.init-0123456789abcdef"];
    for name in others.iter().chain([&ours]) {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("file"), "").unwrap();
    }
    let now = file_time(&path(ours));
    drop(build(&path("data"), now.plus(DAY / 2), 7));
    assert!(path(ours).exists(), "it may still be running");
    drop(build(&path("data"), now.plus(DAY * 2), 8));
    assert!(!path(ours).exists());
    for name in others {
        assert!(path(name).join("file").exists(), "{name}");
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3, "nothing was published");
}

#[test]
fn the_suite_of_a_directory_is_its_marker_and_its_certificates() {
    for suite in Suite::known() {
        let made = Made::of(suite, 9);
        let data = DataDir::open(&made.path).unwrap();
        assert_eq!((data.suite(), data.provider().suite), (suite, suite));
        let authority = made.keys(made.now, None).unwrap().authority;
        assert_eq!(authority.provider.suite, suite);
        let provider = &authority.provider;
        let second = &authority.server_encryption;
        let point = second.key.public_key();
        assert_eq!(certified_point(provider, &second.certificate).unwrap(), point, "{suite}");
        let sealed = provider.sealing.encrypt(&mut seeded(1), point, b"text").unwrap();
        assert_eq!(second.key.decrypt(&sealed).unwrap().expose(), b"text", "{suite}");
    }
    let made = Made::new(10);
    let old = "countersign data directory, format 1\n";
    assert_eq!(made.file(MARKER), old.as_bytes(), "a directory of before there was a choice");
    // The marker of another suite does not make the certificates be of it.
    fs::write(made.path.join(MARKER), format!("{old}suite sm2\n")).unwrap();
    assert_eq!(made.keys(made.now, None).err().unwrap().check(), "certificate-algorithm");
    for wrong in ["suite sm3\n", "suite p256\n", "suite sm2", "suite sm2\n\n"] {
        fs::write(made.path.join(MARKER), format!("{old}{wrong}")).unwrap();
        assert_eq!(DataDir::open(&made.path).err().unwrap().check(), "data-format", "{wrong:?}");
    }
}

#[test]
fn https_is_p256_in_every_suite() {
    let made = Made::of(Suite::SM2_SM4GCM_SM3, 11);
    assert!(tls_matches(&made.keys(made.now, None).unwrap()));
    let renewed = made.keys(made.now.plus(DAY * 380), Some(&mut seeded(12))).unwrap();
    assert!(tls_matches(&renewed));
}

#[test]
fn an_encryption_key_that_is_not_its_certificates_is_damage() {
    for suite in Suite::known() {
        let made = Made::of(suite, 13);
        made.key_as("audit", "server-encryption");
        // Nor does a start put another in its place: somebody has sealed to this certificate.
        for renew in [false, true] {
            let mut rng = seeded(14);
            let renew = renew.then_some(&mut rng as &mut dyn CryptoRng);
            let error = made.keys(made.now, renew).err().unwrap();
            assert_eq!(error.check(), "data-damaged");
            assert!(error.to_string().contains("ca/server-encryption.pem"), "{error}");
        }
    }
}

const PEM: &str = "ca/server-encryption.pem";
const SEALED: &str = "keys/server-encryption.sealed";

impl Made {
    fn lose(&self, names: &[&str]) {
        for name in names {
            fs::remove_file(self.path.join(name)).unwrap();
        }
    }

    fn start(&self, seed: u64) -> Result<EncryptionCredential, DataError> {
        let keys = self.keys(self.now, Some(&mut seeded(seed)))?;
        Ok(keys.authority.server_encryption)
    }

    fn refused(&self) -> DataError {
        self.keys(self.now, None).err().unwrap()
    }

    fn make_key(&self, passphrase: &[u8], seed: u64) -> Result<(), DataError> {
        let passphrase = Secret::copied_from(passphrase);
        let dir = DataDir::open(&self.path)?;
        dir.make_encryption_key(&passphrase, self.now, &mut seeded(seed))
    }
}

/// Directories of the suite p256 had no encryption certificate at first: a start of the server
/// makes it, once it knows that no other has one. Everything else tells so and writes nothing.
#[test]
fn a_start_makes_the_encryption_key_that_an_older_directory_lacks() {
    let made = Made::new(15);
    let old = made.file(PEM);
    made.lose(&[PEM, SEALED]);
    let error = made.refused();
    assert_eq!(error.check(), "data-outdated");
    assert!(error.to_string().contains("countersign serve"), "{error}");
    let export = DataDir::open(&made.path).unwrap().certificate_pem(PEM).err().unwrap();
    assert_eq!(export.check(), "data-outdated");
    assert_eq!(made.start(16).err().unwrap().check(), "data-outdated", "not by itself");
    assert_eq!(made.make_key(b"another", 16).unwrap_err().check(), "passphrase");
    assert!(!made.path.join(PEM).exists() && !made.path.join(SEALED).exists());

    made.make_key(b"passphrase", 16).unwrap();
    let first = made.start(17).unwrap();
    assert_ne!(made.file(PEM), old);
    let sealed = made.file(SEALED);
    made.make_key(b"passphrase", 18).unwrap();
    let later = made.start(19).unwrap();
    assert_eq!(later.certificate, first.certificate, "made once, and kept");
    assert_eq!((later.key.public_key(), made.file(SEALED)), (first.key.public_key(), sealed));

    // One under another root is not ours.
    fs::write(made.path.join(PEM), Made::new(20).file(PEM)).unwrap();
    assert_eq!(made.refused().check(), "certificate-issuer");
}

/// Whatever lost the certificate (a crash between the two files, a backup without it), the key
/// stays: others have sealed to it.
#[test]
fn a_key_that_lost_its_certificate_is_certified_and_never_replaced() {
    for suite in Suite::known() {
        let made = Made::of(suite, 21);
        let before = made.start(22).unwrap();
        let sealed = made.file(SEALED);
        made.lose(&[PEM]);
        assert_eq!(made.refused().check(), "data-outdated");
        made.make_key(b"passphrase", 23).unwrap();
        assert!(!made.path.join(PEM).exists(), "there is a key");
        let again = made.start(24).unwrap();
        assert_eq!(made.file(SEALED), sealed, "{suite}");
        assert_ne!(again.certificate, before.certificate);
        assert_eq!(again.key.public_key(), before.key.public_key());
        let provider = made.keys(made.now, None).unwrap().authority.provider;
        let text = provider.sealing.encrypt(&mut seeded(1), before.key.public_key(), b"text");
        assert_eq!(again.key.decrypt(&text.unwrap()).unwrap().expose(), b"text", "{suite}");
        // Certificate without key: nothing is made in its place.
        made.lose(&[SEALED]);
        for error in [made.refused(), made.start(25).err().unwrap()] {
            assert_eq!(error.check(), "io");
            assert!(error.to_string().contains(SEALED), "{error}");
        }
        made.make_key(b"passphrase", 25).unwrap();
        assert!(!made.path.join(SEALED).exists());
    }
}

/// No directory of the suite sm2 was ever made without: it is lost, and nothing is made.
#[test]
fn of_the_other_suite_a_lost_pair_is_damage() {
    let made = Made::of(Suite::SM2_SM4GCM_SM3, 26);
    made.lose(&[PEM, SEALED]);
    let errors = [
        made.refused(),
        made.start(27).err().unwrap(),
        made.make_key(b"passphrase", 28).unwrap_err(),
        DataDir::open(&made.path).unwrap().certificate_pem(PEM).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.check(), "data-damaged");
        assert!(error.to_string().contains(SEALED), "{error}");
    }
    assert!(!made.path.join(PEM).exists() && !made.path.join(SEALED).exists());
}

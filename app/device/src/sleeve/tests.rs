//! A sleeve against a home of the core machines, over a network in memory and in virtual time.

mod cards;
mod crash;
mod home;
mod links;
mod logins;
mod network;
mod pairing;
mod speed;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::Mode;
use countersign_crypto::{Secret, Suite, UnixTime, aws_lc};
use countersign_net::Clock;
use countersign_pki::{Identity, Role, request};
use countersign_wallet::message::LoginOutcome;
use pem::Pem;
use tempfile::TempDir;
use testkit::pki::{NOW, TestPki};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use self::home::Home;
use self::network::ADDRESS;
use super::{Shown, Sleeve, SleeveDir, SleeveError, SleeveHappening, SleeveSession, Way};
use crate::device_dir::Certificates;
use crate::{DeviceDir, DeviceKind, MakeRng};

const SLEEVE: &str = "SLV-1";
const MANAGER: &str = "MGR-1";
const PASSWORD: &str = "correct horse";
/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(600);
/// By how much a deadline may be overrun: timers wake a millisecond late.
const GRACE: Duration = Duration::from_millis(10);

/// From the moment of the test PKI on, in the tests' time.
struct FromNow(Instant);

impl Clock for FromNow {
    fn now(&self) -> UnixTime {
        NOW.plus(self.0.elapsed())
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(FromNow(Instant::now()))
}

fn make_rng() -> MakeRng {
    Arc::new(|| Box::<countersign_net::SystemRng>::default())
}

/// A sleeve and the home that it may be paired with.
struct World {
    sleeve: Sleeve,
    home: Home,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        Self::of(Suite::X25519_P256_AES128GCM_SHA256)
    }

    fn of(suite: Suite) -> Self {
        let provider = aws_lc::provider_of(suite).unwrap();
        let mut pki = TestPki::new(provider, 7);
        let dir = TempDir::new().unwrap();
        enrolled(&mut pki, &dir.path().join("sleeve"));
        let home = Home::start(&mut pki, MANAGER);
        let sleeve = Self::opened(dir.path(), &home);
        Self { sleeve, home, dir }
    }

    fn opened(dir: &Path, home: &Home) -> Sleeve {
        let dir = SleeveDir::open(&dir.join("sleeve")).unwrap();
        Sleeve::new(dir, home.shared.clock.clone(), make_rng()).dialling(home.dial())
    }

    /// The program ends and is started again.
    fn restart(self) -> Self {
        let Self { sleeve, home, dir } = self;
        drop(sleeve);
        let sleeve = Self::opened(dir.path(), &home);
        Self { sleeve, home, dir }
    }

    async fn pair(&self) -> Result<super::PairedManager, SleeveError> {
        self.sleeve.pair(&way(), None, |_| true).await
    }

    async fn paired() -> Self {
        let world = Self::new();
        world.pair().await.unwrap();
        world
    }

    async fn connect(
        &self,
        mode: Mode,
    ) -> Result<(SleeveSession, mpsc::Receiver<SleeveHappening>), SleeveError> {
        self.sleeve.connect(&way(), mode, None).await
    }

    /// Connected and logged in.
    async fn inside(&self) -> (SleeveSession, mpsc::Receiver<SleeveHappening>) {
        let (session, happenings) = self.connect(Mode::A3).await.unwrap();
        let result = session.login(password(PASSWORD)).await.unwrap();
        assert_eq!(result.outcome, LoginOutcome::Ok);
        (session, happenings)
    }
}

fn way() -> Way {
    Way::Direct(ADDRESS.to_owned())
}

fn password(text: &str) -> Secret {
    Secret::copied_from(text.as_bytes())
}

/// A sleeve's directory with a certificate of this tree.
fn enrolled(pki: &mut TestPki, path: &Path) {
    let provider = pki.provider.clone();
    let mut rng = testkit::rng::seeded(1);
    let kind = DeviceKind::Sleeve;
    let mut dir = DeviceDir::open_or_make_of(kind, path, SLEEVE, &provider, &mut rng).unwrap();
    let key = dir.key(&provider).unwrap();
    let identity = Identity::new(Role::Sleeve, SLEEVE).unwrap();
    let csr = request(&provider, &identity, &*key, &mut rng).unwrap();
    let (certificate, _) = pki.certify(Role::Sleeve, &csr);
    let pem = |der: &[u8]| pem::encode(&Pem::new("CERTIFICATE", der));
    let certificates = Certificates {
        own: &pem(&certificate),
        encryption: None,
        device_issuer: &pem(pki.issuer(Role::Sleeve)),
        server_issuer: &pem(pki.issuer(Role::Server)),
        root: &pem(pki.root()),
    };
    dir.store_enrolment("server", &certificates, &provider, NOW).unwrap();
}

/// The next thing that happens, within [`PATIENCE`].
async fn next(happenings: &mut mpsc::Receiver<SleeveHappening>) -> SleeveHappening {
    timeout(PATIENCE, happenings.recv()).await.unwrap().unwrap()
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

//! A middle that holds even the KDH's key, and alters one thing.

use std::sync::Arc;

use countersign_crypto::{Secret, UnixTime};
use countersign_injection::Bounded;
use countersign_injection::message::{Binding, KeyToken, ServerMessage};
use countersign_service::Hierarchy;
use countersign_store::InjectionState;
use testkit::rng::seeded;
use tr31::aws_lc::AwsLc as Ciphers;
use tr34::aws_lc::AwsLc;
use tr34::kdh::{KeyOrder, Sender};
use tr34::token::{ContentCipher, Freshness, Nonce};
use tr34::{Certificate, Crl, Dialect, Krd};

use crate::plant::{BITS, DAY, Plant, Pos, check};

/// A key that passes every check.
const GOOD: [u8; 16] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10,
];

/// What a forged token is made of; each case alters one thing.
struct Forge<'a> {
    hierarchy: &'a Hierarchy,
    krd: &'a Certificate,
    crl: Option<&'a [u8]>,
    nonce: Nonce,
    key: [u8; 16],
    usage: &'static [u8; 2],
    mode: u8,
}

impl<'a> Forge<'a> {
    fn new(hierarchy: &'a Hierarchy, pos: &'a Pos) -> Self {
        let crl = Some(hierarchy.crl.as_slice());
        let (krd, nonce) = (&pos.certificate, pos.nonce());
        Self { hierarchy, krd, crl, nonce, key: GOOD, usage: b"K0", mode: b'D' }
    }

    fn token(&self, now: UnixTime) -> Vec<u8> {
        let sender = Sender {
            rsa: &AwsLc,
            ciphers: &Ciphers,
            certificate: &self.hierarchy.kdh,
            crl: self.crl,
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        };
        let krd = Krd::verify(&AwsLc, self.krd.clone(), &self.hierarchy.ca_krd, now).unwrap();
        let order = KeyOrder {
            krd: &krd,
            freshness: &Freshness::TwoPass(self.nonce.clone()),
            cipher: ContentCipher::Aes128,
            header: &tr31::Header::new(tr31::Version::B, *self.usage, b'T', self.mode, b'N'),
            key: &Secret::copied_from(&self.key),
        };
        let prepared = sender.key_token(&mut seeded(9), &order).unwrap();
        prepared.sign(&*self.hierarchy.kdh_key).unwrap()
    }
}

/// The same message with this token in it.
fn with_token(said: ServerMessage, token: &[u8]) -> ServerMessage {
    match said {
        ServerMessage::KeyToken(key) => {
            ServerMessage::KeyToken(KeyToken { token: Bounded::new(token).unwrap(), ..key })
        }
        other => other,
    }
}

/// A plant with a terminal that has a key, another terminal, and an old revocation list.
struct Scene {
    plant: Plant,
    pos: Pos,
    other: Pos,
    key: String,
    old_crl: Vec<u8>,
    hierarchy: Arc<Hierarchy>,
}

impl Scene {
    async fn new() -> Self {
        let plant = Plant::new().await;
        let (mut pos, other) =
            (plant.terminal("POS-1", BITS).await, plant.terminal("POS-2", BITS).await);
        let key = plant.tdes_key("tmk").await;
        let old_crl = plant.service.hierarchy().await.unwrap().crl.clone();
        plant.assign(&key, 0, "POS-1").await;
        plant.update(&mut pos).await.unwrap();
        // Half of the list's time later there is a newer one, and the old one still holds.
        plant.advance(DAY * 5);
        plant.service.maintain_rki().await.unwrap();
        let hierarchy = plant.service.hierarchy().await.unwrap();
        assert_ne!(hierarchy.crl, old_crl, "a newer list");
        plant.assign(&key, 1, "POS-1").await;
        plant.update(&mut pos).await.unwrap();
        Self { plant, pos, other, key, old_crl, hierarchy }
    }

    /// A key for slot 0 whose token the middle alters: refused by the terminal under this check,
    /// which is what the audit has, and nothing has changed.
    async fn refused(
        &mut self,
        wanted: &str,
        middle: impl FnMut(ServerMessage, &Pos) -> ServerMessage,
    ) {
        let kept = self.pos.slots.clone();
        let injection = self.plant.assign(&self.key, 0, "POS-1").await;
        let told = check(self.plant.contact(&mut self.pos, middle).await);
        assert_eq!(told, wanted);
        assert_eq!(self.pos.slots, kept, "{wanted}: the keys stay");
        let stored = self.plant.injection(&injection.id).await;
        assert_eq!(stored.state, InjectionState::Failed, "{wanted}");
        assert_eq!(stored.failed_check.as_deref(), Some(wanted));
        let last = self.plant.refusals().await.pop().unwrap();
        assert_eq!(last, ("injection.fail".to_owned(), wanted.to_owned()));
    }
}

#[tokio::test]
async fn each_defect_of_a_token_is_refused_by_its_own_name() {
    type Alter = for<'a> fn(&mut Forge<'a>, &'a Stolen);
    let mut scene = Scene::new().await;
    let known = Stolen { old_crl: scene.old_crl.clone(), other: scene.other.certificate.clone() };
    let hierarchy = scene.hierarchy.clone();
    let now = scene.plant.service.now();
    let old = Crl::parse(&known.old_crl).unwrap();
    old.verify(&AwsLc, &hierarchy.ca_kdh, now, None).expect("an old list, which still holds");
    let altered: [(&str, Alter); 4] = [
        ("crl-older", |forge, known| forge.crl = Some(&known.old_crl)),
        ("crl-absent", |forge, _| forge.crl = None),
        ("token-recipient", |forge, known| forge.krd = &known.other),
        ("nonce-mismatch", |forge, _| forge.nonce = Nonce::new(&[5; 16]).unwrap()),
    ];
    for (wanted, alter) in altered {
        let middle = |said: ServerMessage, pos: &Pos| {
            if !matches!(said, ServerMessage::KeyToken(_)) {
                return said;
            }
            let mut forge = Forge::new(&hierarchy, pos);
            alter(&mut forge, &known);
            with_token(said, &forge.token(now))
        };
        scene.refused(wanted, middle).await;
    }
    // A byte of the signature, which stands last, or of what it covers.
    let altered = |said: ServerMessage, at: fn(usize) -> usize| match said {
        ServerMessage::KeyToken(ref key) => {
            let mut token = key.token.as_slice().to_vec();
            let at = at(token.len());
            token[at] ^= 1;
            with_token(said, &token)
        }
        other => other,
    };
    scene.refused("token-signature", |said, _| altered(said, |len| len - 1)).await;
    // The key itself was altered, under the KDH's own signature: the check value tells. The
    // terminal takes it, and the server does not count it.
    let kept = scene.pos.slots.clone();
    let injection = scene.plant.assign(&scene.key, 0, "POS-1").await;
    let forged = |said: ServerMessage, pos: &Pos| match said {
        ServerMessage::KeyToken(_) => with_token(said, &Forge::new(&hierarchy, pos).token(now)),
        other => other,
    };
    assert_eq!(check(scene.plant.contact(&mut scene.pos, forged).await), "token-refused");
    assert_eq!(scene.pos.slots, kept);
    let stored = scene.plant.injection(&injection.id).await;
    assert_eq!(stored.failed_check.as_deref(), Some("kcv-mismatch"));
    // Without an alteration all is well.
    let injection = scene.plant.assign(&scene.key, 0, "POS-1").await;
    scene.plant.update(&mut scene.pos).await.unwrap();
    assert_eq!(scene.plant.injection(&injection.id).await.state, InjectionState::Installed);
}

/// What the alterations are made of.
struct Stolen {
    old_crl: Vec<u8>,
    other: Certificate,
}

#[tokio::test]
async fn a_replayed_token_is_refused() {
    let mut scene = Scene::new().await;
    let mut recorded = Vec::new();
    scene.plant.assign(&scene.key, 0, "POS-1").await;
    let record = |said: ServerMessage, _: &Pos| {
        if let ServerMessage::KeyToken(key) = &said {
            recorded = key.token.as_slice().to_vec();
        }
        said
    };
    scene.plant.contact(&mut scene.pos, record).await.unwrap();
    scene.refused("nonce-mismatch", |said, _| with_token(said, &recorded)).await;
}

#[tokio::test]
async fn an_expired_list_is_refused() {
    let mut scene = Scene::new().await;
    scene.pos.skew = DAY * 8;
    scene.refused("crl-expired", |said, _| said).await;
    scene.pos.skew = std::time::Duration::ZERO;
    let injection = scene.plant.assign(&scene.key, 0, "POS-1").await;
    scene.plant.update(&mut scene.pos).await.unwrap();
    assert_eq!(scene.plant.injection(&injection.id).await.state, InjectionState::Installed);
}

#[tokio::test]
async fn a_wrong_check_value_is_not_counted() {
    let mut scene = Scene::new().await;
    let kept = scene.pos.slots.clone();
    let injection = scene.plant.assign(&scene.key, 0, "POS-1").await;
    scene.pos.lies = true;
    let told = check(scene.plant.update(&mut scene.pos).await);
    assert_eq!(told, "token-refused", "people see no more than this");
    assert_eq!(scene.pos.slots, kept, "the old key stays");
    let stored = scene.plant.injection(&injection.id).await;
    assert_eq!(stored.state, InjectionState::Failed);
    assert_eq!(stored.failed_check.as_deref(), Some("kcv-mismatch"));
    let incident = stored.incident.unwrap();
    let rows = scene.plant.service.incident(&incident).await.unwrap();
    assert_eq!(rows[0].entry.check.as_deref(), Some("kcv-mismatch"), "by the incident");
}

/// A terminal's certificate, or a KDH of another root, in the place of the KDH's (E2).
#[tokio::test]
async fn nobody_else_becomes_the_terminals_kdh() {
    let scene = Scene::new().await;
    let elsewhere = Plant::new().await;
    let foreign = elsewhere.service.hierarchy().await.unwrap();
    let hierarchy = scene.hierarchy.clone();
    let mut fresh = scene.plant.terminal("POS-3", BITS).await;
    let credential = |certificate: &Certificate, crl: &[u8], ca: &Certificate| {
        let sender = Sender {
            rsa: &AwsLc,
            ciphers: &Ciphers,
            certificate,
            crl: Some(crl),
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        };
        let token = Bounded::new(&sender.credential()).unwrap();
        ServerMessage::Bound(Binding { token, ca_kdh: Bounded::new(ca.raw()).unwrap() })
    };
    let cases = [
        credential(&scene.other.certificate, &hierarchy.crl, &hierarchy.ca_kdh),
        credential(&scene.other.certificate, &hierarchy.crl, &hierarchy.ca_krd),
        credential(&foreign.kdh, &foreign.crl, &foreign.ca_kdh),
        credential(&hierarchy.kdh, &foreign.crl, &hierarchy.ca_kdh),
    ];
    let swapped = |case: &ServerMessage| {
        let case = case.clone();
        move |said: ServerMessage, _: &Pos| match said {
            ServerMessage::Bound(_) => case.clone(),
            other => other,
        }
    };
    let mut checks = Vec::new();
    for case in cases {
        let told = check(scene.plant.contact(&mut fresh, swapped(&case)).await);
        let last = scene.plant.refusals().await.pop().unwrap();
        assert_eq!(last, ("terminal.bind".to_owned(), told.clone()));
        assert!(fresh.state.kdh().is_none(), "{told}");
        let terminal = scene.plant.service.terminal(&fresh.known.id).await.unwrap();
        assert_eq!(terminal.bound_kdh, None, "the server does not count it as bound");
        checks.push(told);
    }
    assert_eq!(
        checks,
        ["certificate-issuer", "certificate-issuer", "certificate-issuer", "crl-issuer"]
    );
    scene.plant.update(&mut fresh).await.unwrap();
}

//! Nonces that do not fit: what only a certified peer that breaks the rules could send. Here one
//! side is made to expect, or to have sent, something else.

use std::sync::Arc;

use countersign_crypto::{CryptoRng, Secret, aws_lc};
use countersign_pki::{BoundedLeafCache, Role as PkiRole};
use testkit::pki::{NOW, Party, TestPki};

use super::*;
use crate::manager::{ManagerChannel, ManagerConfig, ManagerEvent, ManagerQuestion};
use crate::{Challenges, SharedChallenges, SharedSources, SourceLimits};

fn credential(pki: &TestPki, party: &Party) -> Credential {
    let provider = aws_lc::provider();
    Credential {
        key: party.key.clone(),
        certificate: party.certificate.clone(),
        trust: Arc::new(pki.trust(provider.clone())),
        provider,
        encryption: None,
    }
}

struct Sides {
    sleeve: Arc<SleeveConfig>,
    manager: Arc<ManagerConfig>,
    of_manager: Arc<Pairing>,
    of_sleeve: Arc<Pairing>,
    rng: testkit::rng::ChaCha20Rng,
}

impl Sides {
    fn new() -> Self {
        let provider = aws_lc::provider();
        let mut pki = TestPki::new(provider.clone(), 1);
        let (sleeve, manager) =
            (pki.party(PkiRole::Sleeve, "SLV-1"), pki.party(PkiRole::Manager, "MGR-1"));
        let mut rng = testkit::rng::seeded(1);
        let pairing = |party: &Party| {
            let factor = Secret::copied_from(&[5; 32]);
            let certificate = party.certificate.clone();
            Arc::new(Pairing { peer: party.id.clone(), certificate, factor, suite: provider.suite })
        };
        let sources = SourceLimits::new(provider.clone(), &mut rng);
        Self {
            of_manager: pairing(&manager),
            of_sleeve: pairing(&sleeve),
            sleeve: Arc::new(SleeveConfig {
                credentials: vec![credential(&pki, &sleeve)],
                policies: vec![Policy::default()],
                sleeve_id: sleeve.id,
            }),
            manager: Arc::new(ManagerConfig {
                credentials: vec![credential(&pki, &manager)],
                policies: vec![Policy::default()],
                modes: vec![Mode::A1, Mode::A2, Mode::A3],
                manager_id: manager.id,
                leaf_cache: Arc::new(BoundedLeafCache::default()),
                challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
                sources: Arc::new(SharedSources::new(sources)),
            }),
            rng,
        }
    }

    fn manager(&self) -> ManagerChannel {
        ManagerChannel::new(self.manager.clone(), &[127, 0, 0, 1], NOW)
    }
}

fn passed(
    rng: &mut dyn CryptoRng,
    from: &mut SleeveChannel,
    to: &mut ManagerChannel,
) -> Result<(), Error> {
    to.handle(NOW, rng, &from.poll_transmit().expect("a message"))
}

/// A1: the manager sealed another `R3` than this contact's.
#[test]
fn a1_another_r3_is_refused() {
    for altered in [false, true] {
        let mut sides = Sides::new();
        let mut manager = sides.manager();
        let rng = &mut sides.rng;
        let mut sleeve = SleeveChannel::pair(sides.sleeve.clone(), NOW, rng).expect("sleeve");
        if let Some(State::ExpectPairAnswer(expect)) = sleeve.0.state_mut() {
            expect.expect_r3(altered);
        }
        passed(rng, &mut sleeve, &mut manager).expect("M1");
        manager.window(NOW, rng, true).expect("open");
        let result = sleeve.handle(NOW, rng, &manager.poll_transmit().expect("M2"));
        let expected = if altered { Err(Error::Authentication("pairing-nonce")) } else { Ok(()) };
        assert_eq!(result, expected);
        assert_eq!(sleeve.poll_event().is_some(), !altered, "the user is asked or not");
    }
}

/// A2: the manager answered another `R5`; A3: the sleeve sealed another `R7`.
#[test]
fn a2_a3_another_nonce_is_refused() {
    for (mode, altered) in
        [(Mode::A2, false), (Mode::A2, true), (Mode::A3, false), (Mode::A3, true)]
    {
        let mut sides = Sides::new();
        let mut manager = sides.manager();
        let rng = &mut sides.rng;
        let mut sleeve =
            SleeveChannel::connect(sides.sleeve.clone(), mode, sides.of_manager.clone(), NOW, rng)
                .expect("sleeve");
        passed(rng, &mut sleeve, &mut manager).expect("M0");
        sleeve.handle(NOW, rng, &manager.poll_transmit().expect("M1")).expect("M1");
        passed(rng, &mut sleeve, &mut manager).expect("M2");
        assert!(matches!(
            manager.poll_event(),
            Some(ManagerEvent::Ask(ManagerQuestion::Sleeve { .. }))
        ));
        if mode == Mode::A3 && altered {
            manager.expect_another_r7();
        }
        let found = manager.sleeve_found(NOW, rng, Ok(sides.of_sleeve.clone()));
        let expected = if altered { Err(Error::Authentication("connect-nonce")) } else { Ok(()) };
        if mode == Mode::A3 {
            assert_eq!(found, expected);
            continue;
        }
        assert_eq!(found, Ok(()));
        if let (true, Some(State::ExpectAnswer(expect))) = (altered, sleeve.0.state_mut()) {
            expect.expect_another_r5();
        }
        let result = sleeve.handle(NOW, rng, &manager.poll_transmit().expect("M3"));
        assert_eq!(result, expected);
    }
}

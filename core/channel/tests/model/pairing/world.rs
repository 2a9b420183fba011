//! Sleeves and managers: their configurations, what their people want, and what about them is
//! broken.

use std::sync::Arc;

use countersign_channel::{
    Challenges, Credential, ManagerConfig, Mode, Policy, SharedChallenges, SharedSources,
    SleeveConfig, SourceLimits,
};
use countersign_crypto::{Provider, Suite};
use countersign_pki::{BoundedLeafCache, Role};
use testkit::pki::TestPki;
use testkit::toy::{self, Broken};

use crate::world::{Gate, ModelGate};

pub(crate) const MODES: [Mode; 3] = [Mode::A1, Mode::A2, Mode::A3];

/// What is broken on purpose, so that a property can be seen to fail.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mutant {
    pub(crate) broken: Broken,
    pub(crate) gate: Gate,
    pub(crate) people: People,
    /// All machines of a side draw the same numbers.
    pub(crate) same_randomness: bool,
}

/// How the people, and the programs that own the machines, treat what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum People {
    #[default]
    Sound,
    /// The user says yes to whatever id is shown.
    AlwaysYes,
    /// The owner leaves the window open after a pairing.
    NeverCloses,
    /// The manager's program says that a pairing is stored, and has lost it.
    Forgets,
    /// The sleeve's program sends the factor to its manager, as data.
    SendsFactor,
    /// A program takes what a record's frame holds for data before the machine is connected.
    Peeks,
}

/// All parties of one suite.
pub(crate) struct World {
    pub(crate) mutant: Mutant,
    provider: Provider,
    pki: TestPki,
    leaf_cache: Arc<BoundedLeafCache>,
}

impl World {
    pub(crate) fn new(mutant: Mutant) -> Self {
        let suite = Suite::X25519_P256_AES128GCM_SHA256;
        Self {
            mutant,
            provider: toy::provider(suite, mutant.broken),
            pki: TestPki::new(toy::provider(suite, Broken::default()), 7),
            leaf_cache: Arc::default(),
        }
    }

    fn credential(&mut self, role: Role, id: &str) -> Credential {
        let party = self.pki.party(role, id);
        // Certificates are not what is broken: only the keys in them.
        let signature = self.mutant.broken.signature;
        let trust = Broken { signature, ..Broken::default() };
        let trust = self.pki.trust(toy::provider(self.provider.suite, trust));
        Credential {
            provider: self.provider.clone(),
            key: party.key.clone(),
            certificate: party.certificate.clone(),
            trust: Arc::new(trust),
            encryption: None,
        }
    }

    pub(crate) fn sleeve(&mut self, id: &str) -> SleeveConfig {
        SleeveConfig {
            credentials: vec![self.credential(Role::Sleeve, id)],
            policies: vec![Policy::default()],
            sleeve_id: id.into(),
        }
    }

    /// A manager for all three modes.
    pub(crate) fn manager(&mut self, id: &str) -> ManagerConfig {
        ManagerConfig {
            credentials: vec![self.credential(Role::Manager, id)],
            policies: vec![Policy::default()],
            modes: MODES.to_vec(),
            manager_id: id.into(),
            leaf_cache: self.leaf_cache.clone(),
            // Each run puts in its own.
            challenges: Arc::new(SharedChallenges::new(Challenges::new(self.provider.clone()))),
            sources: self.sources(),
        }
    }

    /// Challenges that have issued nothing yet.
    pub(crate) fn gate(&self) -> ModelGate {
        ModelGate::new(self.provider.clone(), self.mutant.gate, false)
    }

    /// Nobody has been heard of.
    pub(crate) fn sources(&self) -> Arc<SharedSources> {
        let mut rng = testkit::rng::seeded(98);
        Arc::new(SharedSources::new(SourceLimits::new(self.provider.clone(), &mut rng)))
    }
}

//! Who takes part in a run: parties, their configurations, and what about them is broken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use countersign_channel::{
    ChallengeGate, Challenges, Credential, DirectoryEntry, EpochShare, Error, IdKind, Issued,
    LookupRefusal, Mode, Policy, ReaderConfig, ReaderId, Selection, ServerConfig, SharedChallenges,
    SharedSources, SourceLimits,
};
use countersign_crypto::{CryptoRng, Provider, Suite, UnixTime};
use countersign_pki::{BoundedLeafCache, Role};
use testkit::pair::{MODES, entry};
use testkit::pki::{Party, TestPki};
use testkit::toy::{self, Broken};

/// What is broken on purpose, so that a property can be seen to fail.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mutant {
    pub(crate) broken: Broken,
    pub(crate) gate: Gate,
    pub(crate) owner: Owner,
    /// All machines of a side draw the same numbers.
    pub(crate) same_randomness: bool,
}

impl Mutant {
    pub(crate) const SOUND: Self = Self {
        broken: Broken {
            hash: false,
            mac: false,
            purpose: false,
            place: false,
            tag: false,
            exchange: false,
            signature: false,
        },
        gate: Gate::Sound,
        owner: Owner::Sound,
        same_randomness: false,
    };
}

/// How a server treats challenges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Gate {
    #[default]
    Sound,
    /// Never burns one.
    NeverBurns,
    /// Ties them to nothing: neither to the address nor to M0.
    Unbound,
}

/// How the owner of a machine treats what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Owner {
    #[default]
    Sound,
    /// Takes what a record's frame holds for data before the machine is connected.
    Peeks,
    /// Reads each record twice.
    ReadsTwice,
    /// Takes an end of the stream for a proper one.
    IgnoresCuts,
}

/// A server's challenges, and how many it has burnt.
pub(crate) struct ModelGate {
    inner: SharedChallenges,
    gate: Gate,
    burnt: AtomicU64,
    /// Of servers that share challenges: the first one's certificate. Its epoch shares are used by
    /// all, so that a corrupt one knows even their private keys.
    first: Option<OnceLock<Vec<u8>>>,
}

impl ModelGate {
    pub(crate) fn new(provider: Provider, gate: Gate, shared: bool) -> Self {
        let inner = SharedChallenges::new(Challenges::new(provider));
        let first = shared.then(OnceLock::new);
        Self { inner, gate, burnt: AtomicU64::new(0), first }
    }

    pub(crate) fn burnt(&self) -> u64 {
        self.burnt.load(Ordering::Relaxed)
    }

    fn binding<'a>(&self, binding: &'a [u8]) -> &'a [u8] {
        if self.gate == Gate::Unbound { &[] } else { binding }
    }
}

impl ChallengeGate for ModelGate {
    fn issue(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        selection: Selection,
        binding: &[u8],
    ) -> Result<Issued, Error> {
        self.inner.issue(now, rng, selection, self.binding(binding))
    }

    fn check(&self, now: UnixTime, issued: &Issued, binding: &[u8]) -> Result<(), Error> {
        self.inner.check(now, issued, self.binding(binding))
    }

    fn consume(&self, now: UnixTime, issued: &Issued) -> Result<(), Error> {
        if self.gate != Gate::NeverBurns {
            self.inner.consume(now, issued)?;
        }
        self.burnt.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn epoch_share(
        &self,
        now: UnixTime,
        issued: &Issued,
        certificate: &[u8],
        make: &mut dyn FnMut() -> Result<EpochShare, Error>,
    ) -> Result<Arc<EpochShare>, Error> {
        let first = self.first.as_ref().map(|first| first.get_or_init(|| certificate.to_vec()));
        self.inner.epoch_share(now, issued, first.map_or(certificate, Vec::as_slice), make)
    }

    fn expire(&self, now: UnixTime) {
        self.inner.expire(now);
    }
}

/// A server: the id in its certificate and its configuration, which may claim another.
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) config: ServerConfig,
}

/// All parties.
pub(crate) struct World {
    pub(crate) mutant: Mutant,
    /// One tree per suite, the preferred suite first.
    trees: Vec<(Provider, TestPki)>,
    pub(crate) directory: Vec<DirectoryEntry>,
    leaf_cache: Arc<BoundedLeafCache>,
}

pub(crate) const SUITES: [Suite; 2] = [Suite::X25519_P256_AES128GCM_SHA256, Suite::SM2_SM4GCM_SM3];

impl World {
    /// A world of one suite.
    pub(crate) fn new(mutant: Mutant) -> Self {
        Self::with_suites(mutant, &SUITES[..1])
    }

    /// All suites compute with the toy; they differ by name and tree.
    pub(crate) fn with_suites(mutant: Mutant, suites: &[Suite]) -> Self {
        let tree = |suite: &Suite| {
            let seed = u64::from(suite.code());
            let pki = TestPki::new(toy::provider(*suite, Broken::default()), seed);
            (toy::provider(*suite, mutant.broken), pki)
        };
        Self {
            mutant,
            trees: suites.iter().map(tree).collect(),
            directory: Vec::new(),
            leaf_cache: Arc::default(),
        }
    }

    fn credentials(&mut self, role: Role, id: &str) -> (Vec<Credential>, Vec<Party>) {
        let broken = self.mutant.broken;
        let one = |(provider, pki): &mut (Provider, TestPki)| {
            let party = pki.party(role, id);
            // Certificates are not what is broken: only the keys in them.
            let trust = Broken { signature: broken.signature, ..Broken::default() };
            let credential = Credential {
                provider: provider.clone(),
                key: party.key.clone(),
                certificate: party.certificate.clone(),
                trust: Arc::new(pki.trust(toy::provider(provider.suite, trust))),
                encryption: None,
            };
            (credential, party)
        };
        self.trees.iter_mut().map(one).unzip()
    }

    /// An enrolled reader that was set up for `srv-1`.
    pub(crate) fn reader(&mut self, id: &str, mode: Mode) -> ReaderConfig {
        let (credentials, parties) = self.credentials(Role::Reader, id);
        self.directory.extend(parties.iter().map(entry));
        ReaderConfig {
            credentials,
            mode,
            policies: vec![Policy::default()],
            serial: id.into(),
            signed_id: IdKind::CertificateNumber,
            // With two suites a reader has two certificates, so it names the one it means.
            sent_id: if parties.len() == 1 { IdKind::Serial } else { IdKind::CertificateNumber },
            server_id: Some("srv-1".into()),
            peer_role: Role::Server,
        }
    }

    /// A certified server for both modes.
    pub(crate) fn server(&mut self, id: &str) -> Server {
        let (credentials, _) = self.credentials(Role::Server, id);
        let config = ServerConfig {
            credentials,
            modes: MODES.to_vec(),
            policies: vec![Policy::default()],
            server_id: id.into(),
            leaf_cache: self.leaf_cache.clone(),
            // Each run puts in its own.
            challenges: Arc::new(self.gate(false)),
            sources: self.sources(),
            peer_roles: vec![Role::Reader],
        };
        Server { id: id.into(), config }
    }

    /// Challenges that have issued nothing yet.
    pub(crate) fn gate(&self, shared: bool) -> ModelGate {
        ModelGate::new(self.trees[0].0.clone(), self.mutant.gate, shared)
    }

    /// Nobody has been heard of.
    pub(crate) fn sources(&self) -> Arc<SharedSources> {
        let mut rng = testkit::rng::seeded(98);
        Arc::new(SharedSources::new(SourceLimits::new(self.trees[0].0.clone(), &mut rng)))
    }

    /// What an honest directory answers.
    pub(crate) fn look_up(&self, id: &ReaderId) -> Result<DirectoryEntry, LookupRefusal> {
        let is_meant = |entry: &&DirectoryEntry| match id {
            ReaderId::Serial(serial) => entry.serial == *serial,
            ReaderId::CertificateNumber(number) => entry.certificate_number == *number,
        };
        self.directory.iter().find(is_meant).cloned().ok_or(LookupRefusal::Unknown)
    }
}

//! Which mode, suite and policy a script is about, and the two parties that speak it.

use std::sync::{Arc, OnceLock};

use countersign_channel::{
    Challenges, Credential, Delivery, DirectoryEntry, Mode, Policy, Protection, ReaderChannel,
    ReaderConfig, ServerChannel, ServerConfig, SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::{Provider, Suite, UnixTime, rust_crypto, sm};
use testkit::pair::{ADDRESS, MODES, World};
use testkit::pki::NOW;
use testkit::rng::{ChaCha20Rng, seeded};

use crate::script::Script;

/// The ids of testkit's world.
pub(super) const READER_ID: &str = "RD-1";
pub(super) const SERVER_ID: &str = "srv-1";

/// What a world provisions, in one suite.
struct Provision {
    reader: ReaderConfig,
    server: ServerConfig,
    entry: DirectoryEntry,
}

/// For each suite; SM2 with dual certificates.
fn provisions() -> &'static [Provision; 2] {
    static PROVISIONS: OnceLock<[Provision; 2]> = OnceLock::new();
    PROVISIONS.get_or_init(|| {
        let world =
            |provider: Provider| World::new(provider.clone(), provider.clone(), provider, 0xC5);
        let worlds =
            [world(rust_crypto::provider()), world(sm::provider()).with_dual_certificates()];
        worlds.map(|world| Provision {
            reader: (*world.reader).clone(),
            server: (*world.server).clone(),
            entry: world.directory.expect("the reader is enrolled"),
        })
    })
}

/// A reader and a server that can agree.
pub(super) struct Setting {
    reader: Arc<ReaderConfig>,
    server: Arc<ServerConfig>,
    pub(super) mode: Mode,
    pub(super) delivery: Delivery,
    /// What an undisturbed handshake agrees on.
    pub(super) policy: Policy,
    suite: usize,
}

impl Setting {
    /// From two bytes: bit 0 the mode, 1 the suite, 2 datagrams, 3 sealed to certificates (SM2
    /// only), 4 both suites offered; then the protection and, by bit 7, all of them offered.
    pub(super) fn new(script: &mut Script<'_>) -> Self {
        let bits = script.byte();
        let offers = script.byte();
        let mode = MODES[usize::from(bits & 1)];
        let suite = usize::from(bits >> 1 & 1);
        let delivery = if bits & 4 == 0 { Delivery::Stream } else { Delivery::Datagrams };
        let certificate_sealed = bits & 8 != 0 && suite == 1;
        let policy = |protection| Policy { protection, delivery, certificate_sealed };
        let all = [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt];
        let mut policies = all.map(policy);
        policies.rotate_left(usize::from(offers & 3) % all.len());
        let offered = if offers & 0x80 == 0 { &policies[..1] } else { &policies[..] };

        let provisions = provisions();
        let provision = &provisions[suite];
        let mut reader = ReaderConfig { mode, ..provision.reader.clone() };
        let mut server = provision.server.clone();
        reader.policies = offered.to_vec();
        server.policies = offered.to_vec();
        if bits & 16 != 0 {
            let other = &provisions[1 - suite];
            let join = |mine: &mut Vec<Credential>, theirs: &[Credential]| {
                mine.extend_from_slice(theirs);
            };
            join(&mut reader.credentials, &other.reader.credentials);
            join(&mut server.credentials, &other.server.credentials);
        }
        let provider = server.credentials[0].provider.clone();
        server.challenges = Arc::new(SharedChallenges::new(Challenges::new(provider.clone())));
        // Fresh, so that no input depends on the ones before it.
        let sources = SourceLimits::new(provider, &mut seeded(1));
        server.sources = Arc::new(SharedSources::new(sources));
        let (reader, server) = (Arc::new(reader), Arc::new(server));
        Self { reader, server, mode, delivery, policy: policies[0], suite }
    }

    pub(super) fn suite(&self) -> Suite {
        self.server.credentials[0].provider.suite
    }

    pub(super) fn reader(&self, now: UnixTime, rng: &mut ChaCha20Rng) -> ReaderChannel {
        ReaderChannel::new(self.reader.clone(), now, rng).expect("a sound configuration")
    }

    pub(super) fn server(&self, now: UnixTime) -> ServerChannel {
        ServerChannel::new(self.server.clone(), &ADDRESS, now)
    }

    /// What the directory knows of the reader.
    pub(super) fn entry(&self) -> DirectoryEntry {
        provisions()[self.suite].entry.clone()
    }

    pub(super) const fn start(&self) -> UnixTime {
        NOW
    }
}

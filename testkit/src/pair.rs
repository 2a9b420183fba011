//! Both ends of a channel in memory, with a hand on the wire.

use std::collections::VecDeque;
use std::sync::Arc;

use countersign_channel::{
    Challenges, Credential, DirectoryEntry, EncryptionCredential, Error, IdKind, LookupRefusal,
    Mode, Policy, ReaderChannel, ReaderConfig, ReaderEvent, ReaderId, ServerChannel, ServerConfig,
    ServerEvent, SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::{Provider, UnixTime};
use countersign_pki::{BoundedLeafCache, Role};
use rand_chacha::ChaCha20Rng;

use crate::pki::{NOW, Party, TestPki};

/// The address that the reader of a pair has.
pub const ADDRESS: [u8; 4] = [127, 0, 0, 1];
/// Both handshakes between readers and servers.
pub const MODES: [Mode; 2] = [Mode::C1, Mode::C2];

/// What it takes to start any number of connections between one reader and one server.
pub struct World {
    /// The tree both belong to.
    pub pki: TestPki,
    /// The reader's configuration.
    pub reader: Arc<ReaderConfig>,
    /// The server's configuration.
    pub server: Arc<ServerConfig>,
    /// What the server's directory answers.
    pub directory: Result<DirectoryEntry, LookupRefusal>,
    /// The clock.
    pub now: UnixTime,
}

impl World {
    /// A world in which reader `RD-1` and server `srv-1` know each other and speak C1. Each side
    /// computes with the provider it is given.
    #[must_use]
    pub fn new(pki_provider: Provider, reader: Provider, server: Provider, seed: u64) -> Self {
        let mut pki = TestPki::new(pki_provider, seed);
        let reader_party = pki.party(Role::Reader, "RD-1");
        let server_party = pki.party(Role::Server, "srv-1");
        let directory = Ok(entry(&reader_party));
        let reader = Arc::new(reader_config(&pki, &reader_party, reader));
        let server = Arc::new(server_config(&pki, &server_party, server));
        Self { pki, reader, server, directory, now: NOW }
    }

    /// Lets the reader begin with `mode`.
    #[must_use]
    pub fn speaking(mut self, mode: Mode) -> Self {
        self.change_reader(|config| config.mode = mode);
        self
    }

    /// Lets both sides have `policy` and no other.
    #[must_use]
    pub fn under(mut self, policy: Policy) -> Self {
        self.change_reader(|config| config.policies = vec![policy]);
        self.change_server(|config| config.policies = vec![policy]);
        self
    }

    /// Gives both sides an encryption certificate beside their signing certificate.
    #[must_use]
    pub fn with_dual_certificates(mut self) -> Self {
        let (key, certificate) = self.pki.encryption(Role::Reader, "RD-1");
        let encryption = Some(EncryptionCredential { key, certificate });
        self.change_reader(|config| config.credentials[0].encryption = encryption);
        let (key, certificate) = self.pki.encryption(Role::Server, "srv-1");
        let encryption = Some(EncryptionCredential { key, certificate });
        self.change_server(|config| config.credentials[0].encryption = encryption);
        self
    }

    /// Changes the reader's configuration for the connections to come.
    pub fn change_reader(&mut self, change: impl FnOnce(&mut ReaderConfig)) {
        change(Arc::make_mut(&mut self.reader));
    }

    /// Changes the server's configuration for the connections to come.
    pub fn change_server(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        change(Arc::make_mut(&mut self.server));
    }

    /// A fresh connection.
    ///
    /// # Panics
    /// If the reader cannot start.
    #[must_use]
    pub fn connect(&mut self) -> Pair {
        let mut rng = crate::rng::seeded(rand_core::Rng::next_u64(&mut self.pki.rng));
        let reader = ReaderChannel::new(self.reader.clone(), self.now, &mut rng).expect("reader");
        let server = ServerChannel::new(self.server.clone(), &ADDRESS, self.now);
        Pair {
            reader,
            server,
            rng,
            now: self.now,
            directory: self.directory.clone(),
            looked_up: Vec::new(),
            to_server: VecDeque::new(),
            to_reader: VecDeque::new(),
            reader_events: Vec::new(),
            server_events: Vec::new(),
        }
    }
}

/// A directory entry for `party`.
#[must_use]
pub fn entry(party: &Party) -> DirectoryEntry {
    DirectoryEntry { serial: party.id.clone(), certificate_number: party.number.clone() }
}

/// What `party` proves itself with, computing with `provider`.
#[must_use]
pub fn credential(pki: &TestPki, party: &Party, provider: Provider) -> Credential {
    Credential {
        key: party.key.clone(),
        certificate: party.certificate.clone(),
        trust: Arc::new(pki.trust(provider.clone())),
        provider,
        encryption: None,
    }
}

/// A reader's configuration: C1, signs its certificate number, sends its serial number.
#[must_use]
pub fn reader_config(pki: &TestPki, party: &Party, provider: Provider) -> ReaderConfig {
    ReaderConfig {
        credentials: vec![credential(pki, party, provider)],
        mode: Mode::C1,
        policies: vec![Policy::default()],
        serial: party.id.clone(),
        signed_id: IdKind::CertificateNumber,
        sent_id: IdKind::Serial,
        server_id: Some("srv-1".into()),
        peer_role: Role::Server,
    }
}

/// A server's configuration for both modes, with challenges, limits and cache of its own.
#[must_use]
pub fn server_config(pki: &TestPki, party: &Party, provider: Provider) -> ServerConfig {
    let mut rng = crate::rng::seeded(0x5150);
    let sources = SourceLimits::new(provider.clone(), &mut rng);
    ServerConfig {
        credentials: vec![credential(pki, party, provider.clone())],
        modes: MODES.to_vec(),
        policies: vec![Policy::default()],
        server_id: party.id.clone(),
        leaf_cache: Arc::new(BoundedLeafCache::default()),
        challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
        sources: Arc::new(SharedSources::new(sources)),
        peer_roles: vec![Role::Reader],
    }
}

/// A reader, a server, and what lies on the wire between them.
pub struct Pair {
    /// The reader's machine.
    pub reader: ReaderChannel,
    /// The server's machine.
    pub server: ServerChannel,
    /// Randomness for both.
    pub rng: ChaCha20Rng,
    /// The clock.
    pub now: UnixTime,
    /// What the directory answers.
    pub directory: Result<DirectoryEntry, LookupRefusal>,
    /// Which ids were looked up.
    pub looked_up: Vec<ReaderId>,
    /// Frames on their way to the server: tests change, drop or keep them.
    pub to_server: VecDeque<Vec<u8>>,
    /// Frames on their way to the reader.
    pub to_reader: VecDeque<Vec<u8>>,
    /// What the reader reported.
    pub reader_events: Vec<ReaderEvent>,
    /// What the server reported, look-ups aside.
    pub server_events: Vec<ServerEvent>,
}

impl Pair {
    /// Moves what the machines want to send onto the wire.
    pub fn collect(&mut self) {
        self.to_server.extend(std::iter::from_fn(|| self.reader.poll_transmit()));
        self.to_reader.extend(std::iter::from_fn(|| self.server.poll_transmit()));
    }

    /// Delivers one frame to the server and answers its look-up.
    ///
    /// # Errors
    /// The server's.
    pub fn deliver_to_server(&mut self, frame: &[u8]) -> Result<(), Error> {
        self.server.handle(self.now, &mut self.rng, frame)?;
        self.pump_server()
    }

    fn pump_server(&mut self) -> Result<(), Error> {
        while let Some(event) = self.server.poll_event() {
            if let ServerEvent::Ask(id) = event {
                self.looked_up.push(id);
                let answer = self.directory.clone();
                self.server.reader_found(self.now, &mut self.rng, answer)?;
            } else {
                self.server_events.push(event);
            }
        }
        Ok(())
    }

    /// Delivers one frame to the reader.
    ///
    /// # Errors
    /// The reader's.
    pub fn deliver_to_reader(&mut self, frame: &[u8]) -> Result<(), Error> {
        self.reader.handle(self.now, &mut self.rng, frame)?;
        self.reader_events.extend(std::iter::from_fn(|| self.reader.poll_event()));
        Ok(())
    }

    /// Delivers frames in turn until the wire is empty.
    ///
    /// # Errors
    /// The first error of either side; a server's error has its alert queued.
    pub fn drive(&mut self) -> Result<(), Error> {
        loop {
            self.collect();
            if let Some(frame) = self.to_server.pop_front() {
                if let Err(error) = self.deliver_to_server(&frame) {
                    self.server.refuse(&error, "inc-test");
                    return Err(error);
                }
            } else if let Some(frame) = self.to_reader.pop_front() {
                self.deliver_to_reader(&frame)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Delivers frames until the next one to deliver is the reader's `n`-th (0 = M0, 1 = M2,
    /// 2 = M4), and takes that one off the wire.
    ///
    /// # Panics
    /// If the handshake ends before.
    pub fn take_reader_frame(&mut self, n: usize) -> Vec<u8> {
        for _ in 0..n {
            self.collect();
            let frame = self.to_server.pop_front().expect("reader's frame");
            self.deliver_to_server(&frame).expect("server");
            self.collect();
            let frame = self.to_reader.pop_front().expect("server's frame");
            self.deliver_to_reader(&frame).expect("reader");
        }
        self.collect();
        self.to_server.pop_front().expect("reader's frame")
    }

    /// The server's answer (0 = M1, 1 = M3), taken off the wire.
    ///
    /// # Panics
    /// If the handshake ends before.
    pub fn take_server_frame(&mut self, n: usize) -> Vec<u8> {
        let frame = self.take_reader_frame(n);
        self.deliver_to_server(&frame).expect("server");
        self.collect();
        self.to_reader.pop_front().expect("server's frame")
    }
}

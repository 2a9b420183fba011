//! Handshakes C1 and C2: reader and server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_channel::{
    Challenges, Credential, DirectoryEntry, Error, IdKind, Mode, Policy, ReaderChannel,
    ReaderConfig, ReaderEvent, ServerChannel, ServerConfig, ServerEvent, SharedChallenges,
    SharedSources, SourceLimits,
};
use countersign_crypto::Digest;
use countersign_net::SystemRng;
use countersign_pki::{BoundedLeafCache, Leaf, LeafCache, Role};

use super::tree::{NOW, Party, READER, SERVER, Tree};
use super::{Client, Server};
use crate::Fallible;

/// Where recordings are made and replayed: their challenges are tied to it.
const RECORDED: [u8; 4] = [192, 0, 2, 1];
/// Everyone else has an address of his own in this network, one contact each, so that the limit per
/// source is asked and never reached.
const NETWORK: u8 = 10;

/// Looks up and remembers, but never finds: each handshake verifies the certificate anew.
#[derive(Default)]
struct NeverFound(BoundedLeafCache);

impl LeafCache for NeverFound {
    fn find(&self, hash: &Digest) -> Option<Arc<Leaf>> {
        let _found = self.0.find(hash);
        None
    }

    fn put(&self, leaf: &Arc<Leaf>) {
        self.0.put(leaf);
    }
}

/// How the two speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) mode: Mode,
    pub(crate) policy: Policy,
    /// Whether the server remembers certificates, or never does.
    pub(crate) cached: bool,
}

impl Setting {
    /// The default policy, certificates remembered.
    pub(crate) fn of(mode: Mode) -> Self {
        Self { mode, policy: Policy::default(), cached: true }
    }
}

/// What any number of connections between the tree's reader and server share.
pub(crate) struct Ours {
    reader: Arc<ReaderConfig>,
    server: Arc<ServerConfig>,
    directory: DirectoryEntry,
    contacts: AtomicU32,
}

impl Ours {
    pub(crate) fn new(tree: &Tree, setting: Setting) -> Fallible<Self> {
        let provider = &tree.provider;
        let credential = |party: &Party| -> Fallible<Credential> {
            Ok(Credential {
                provider: provider.clone(),
                key: party.key.key.clone(),
                certificate: party.certificate.clone(),
                trust: tree.trust()?,
                encryption: None,
            })
        };
        let reader = ReaderConfig {
            credentials: vec![credential(&tree.reader)?],
            mode: setting.mode,
            policies: vec![setting.policy],
            serial: READER.into(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(SERVER.into()),
            peer_role: Role::Server,
        };
        let leaf_cache: Arc<dyn LeafCache> = if setting.cached {
            Arc::new(BoundedLeafCache::default())
        } else {
            Arc::new(NeverFound::default())
        };
        let sources = SourceLimits::new(provider.clone(), &mut SystemRng::default());
        let server = ServerConfig {
            credentials: vec![credential(&tree.server)?],
            modes: vec![Mode::C1, Mode::C2],
            policies: vec![setting.policy],
            server_id: SERVER.into(),
            leaf_cache,
            sources: Arc::new(SharedSources::new(sources)),
            peer_roles: vec![Role::Reader],
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider.clone()))),
        };
        let directory = DirectoryEntry {
            serial: READER.into(),
            certificate_number: tree.reader.number.clone(),
        };
        let contacts = AtomicU32::new(0);
        Ok(Self { reader: Arc::new(reader), server: Arc::new(server), directory, contacts })
    }

    pub(crate) fn reader(&self) -> Fallible<OurReader> {
        let mut rng = SystemRng::default();
        let channel = ReaderChannel::new(self.reader.clone(), NOW, &mut rng)?;
        Ok(OurReader { channel, rng })
    }

    /// For a contact from an address that was not heard of before.
    pub(crate) fn server(&self) -> OurServer<'_> {
        let [_, a, b, c] = self.contacts.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.server_for([NETWORK, a, b, c])
    }

    /// For a contact from where recordings are made.
    pub(crate) fn server_for_recorded(&self) -> OurServer<'_> {
        self.server_for(RECORDED)
    }

    fn server_for(&self, address: [u8; 4]) -> OurServer<'_> {
        OurServer {
            channel: ServerChannel::new(self.server.clone(), &address, NOW),
            rng: SystemRng::default(),
            directory: &self.directory,
            connected: false,
        }
    }

    /// M0 and M2 of one contact whose challenge is still good; with `spent`, one whose is not.
    pub(crate) fn recording(&self, spent: bool) -> Fallible<[Vec<u8>; 2]> {
        let (mut reader, mut server) = (self.reader()?, self.server_for_recorded());
        let m0 = reader.answer(&[])?;
        let m2 = reader.answer(&server.receive(&m0)?)?;
        if spent {
            server.receive(&m2)?;
        }
        Ok([m0, m2])
    }
}

/// The reader's end.
pub(crate) struct OurReader {
    pub(crate) channel: ReaderChannel,
    pub(crate) rng: SystemRng,
}

impl Client for OurReader {
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>> {
        self.channel.handle(NOW, &mut self.rng, flight)?;
        while let Some(event) = self.channel.poll_event() {
            if !matches!(event, ReaderEvent::Connected) {
                return Err("the server spoke where nothing was awaited".into());
            }
        }
        Ok(std::iter::from_fn(|| self.channel.poll_transmit()).flatten().collect())
    }
}

/// The server's end, with a directory in memory.
pub(crate) struct OurServer<'a> {
    pub(crate) channel: ServerChannel,
    pub(crate) rng: SystemRng,
    directory: &'a DirectoryEntry,
    connected: bool,
}

impl OurServer<'_> {
    fn advance(&mut self, flight: &[u8]) -> Result<(), Error> {
        self.channel.handle(NOW, &mut self.rng, flight)?;
        while let Some(event) = self.channel.poll_event() {
            match event {
                ServerEvent::Ask(_) => {
                    let entry = self.directory.clone();
                    self.channel.reader_found(NOW, &mut self.rng, Ok(entry))?;
                }
                ServerEvent::Connected => self.connected = true,
                ServerEvent::Data(_) | ServerEvent::Closed => {}
            }
        }
        Ok(())
    }

    fn flight(&mut self) -> Vec<u8> {
        // A flight is one message: nothing to join, nothing to copy.
        self.channel.poll_transmit().unwrap_or_default()
    }
}

impl Server for OurServer<'_> {
    type Refusal = Error;

    fn receive(&mut self, flight: &[u8]) -> Result<Vec<u8>, Error> {
        let advanced = self.advance(flight);
        if let Err(error) = advanced {
            // In a flood there is no incident id (the audit is bounded).
            self.channel.refuse(&error, "");
            std::hint::black_box(self.flight());
            return Err(error);
        }
        Ok(self.flight())
    }

    fn check(refusal: &Error) -> String {
        refusal.check().to_owned()
    }

    fn is_connected(&self) -> bool {
        self.connected
    }
}

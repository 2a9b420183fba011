//! Handshake C1: reader and server.

use std::sync::Arc;

use countersign_channel::{
    Challenges, Credential, DirectoryEntry, Error, IdKind, Mode, Policy, ReaderChannel,
    ReaderConfig, ReaderEvent, ServerChannel, ServerConfig, ServerEvent, SharedChallenges,
    SharedSources, SourceLimits,
};
use countersign_crypto::Digest;
use countersign_net::SystemRng;
use countersign_pki::{BoundedLeafCache, Leaf, LeafCache};

use super::tree::{NOW, Party, READER, SERVER, Tree};
use super::{Client, Server};
use crate::Fallible;

/// The address that challenges are tied to.
const ADDRESS: [u8; 4] = [127, 0, 0, 1];

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

/// What any number of connections between the tree's reader and server share.
pub(crate) struct Ours {
    reader: Arc<ReaderConfig>,
    server: Arc<ServerConfig>,
    directory: DirectoryEntry,
}

impl Ours {
    /// With a server that remembers certificates, or one that never does.
    pub(crate) fn new(tree: &Tree, cached: bool) -> Fallible<Self> {
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
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: READER.into(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(SERVER.into()),
        };
        let leaf_cache: Arc<dyn LeafCache> = if cached {
            Arc::new(BoundedLeafCache::default())
        } else {
            Arc::new(NeverFound::default())
        };
        let sources = SourceLimits::new(provider.clone(), &mut SystemRng::default());
        let server = ServerConfig {
            credentials: vec![credential(&tree.server)?],
            modes: vec![Mode::C1, Mode::C2],
            policies: vec![Policy::default()],
            server_id: SERVER.into(),
            leaf_cache,
            sources: Arc::new(SharedSources::new(sources)),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider.clone()))),
        };
        let directory = DirectoryEntry {
            serial: READER.into(),
            certificate_number: tree.reader.number.clone(),
        };
        Ok(Self { reader: Arc::new(reader), server: Arc::new(server), directory })
    }

    pub(crate) fn reader(&self) -> Fallible<OurReader> {
        let mut rng = SystemRng::default();
        let channel = ReaderChannel::new(self.reader.clone(), NOW, &mut rng)?;
        Ok(OurReader { channel, rng })
    }

    pub(crate) fn server(&self) -> OurServer<'_> {
        OurServer {
            channel: ServerChannel::new(self.server.clone(), &ADDRESS, NOW),
            rng: SystemRng::default(),
            directory: &self.directory,
            connected: false,
        }
    }

    /// M0 and M2 of one contact whose challenge is still good; with `spent`, one whose is not.
    pub(crate) fn recording(&self, spent: bool) -> Fallible<[Vec<u8>; 2]> {
        let (mut reader, mut server) = (self.reader()?, self.server());
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

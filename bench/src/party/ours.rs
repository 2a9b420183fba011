//! Handshakes C1 and C2: reader and server.

use std::sync::Arc;

use countersign_channel::{
    Challenges, DirectoryEntry, Error, IdKind, Mode, Policy, ReaderChannel, ReaderConfig,
    ReaderEvent, ServerChannel, ServerConfig, ServerEvent, SharedChallenges, SharedSources,
    SourceLimits,
};
use countersign_net::SystemRng;
use countersign_pki::Role;

use super::tree::{NOW, READER, SERVER, Tree};
use super::{Addresses, Client, Contacts, RECORDED, Server, credential, leaf_cache};
use crate::Fallible;

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
    addresses: Addresses,
}

impl Ours {
    pub(crate) fn new(tree: &Tree, setting: Setting) -> Fallible<Self> {
        let provider = &tree.provider;
        let reader = ReaderConfig {
            credentials: vec![credential(tree, &tree.reader)?],
            mode: setting.mode,
            policies: vec![setting.policy],
            serial: READER.into(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(SERVER.into()),
            peer_role: Role::Server,
        };
        let sources = SourceLimits::new(provider.clone(), &mut SystemRng::default());
        let server = ServerConfig {
            credentials: vec![credential(tree, &tree.server)?],
            modes: vec![Mode::C1, Mode::C2],
            policies: vec![setting.policy],
            server_id: SERVER.into(),
            leaf_cache: leaf_cache(setting.cached),
            sources: Arc::new(SharedSources::new(sources)),
            peer_roles: vec![Role::Reader],
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider.clone()))),
        };
        let directory = DirectoryEntry {
            serial: READER.into(),
            certificate_number: tree.reader.number.clone(),
        };
        let addresses = Addresses::default();
        Ok(Self { reader: Arc::new(reader), server: Arc::new(server), directory, addresses })
    }

    fn server_for(&self, address: [u8; 4]) -> OurServer<'_> {
        OurServer {
            channel: ServerChannel::new(self.server.clone(), &address, NOW),
            rng: SystemRng::default(),
            directory: &self.directory,
            connected: false,
        }
    }
}

impl Contacts for Ours {
    type Client = OurReader;
    type Server<'a> = OurServer<'a>;

    fn client(&self) -> Fallible<OurReader> {
        let mut rng = SystemRng::default();
        let channel = ReaderChannel::new(self.reader.clone(), NOW, &mut rng)?;
        Ok(OurReader { channel, rng })
    }

    fn server(&self) -> OurServer<'_> {
        self.server_for(self.addresses.next())
    }

    fn server_for_recorded(&self) -> OurServer<'_> {
        self.server_for(RECORDED)
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

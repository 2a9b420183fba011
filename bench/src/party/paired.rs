//! A1, A2 and A3: sleeve and manager. The manager is the end whose cost is counted.

use std::sync::Arc;

use countersign_channel::{
    Challenges, Error, ManagerChannel, ManagerConfig, ManagerEvent, ManagerQuestion, Mode, Pairing,
    SharedChallenges, SharedSources, SleeveChannel, SleeveConfig, SleeveEvent, SleeveQuestion,
    SourceLimits,
};
use countersign_crypto::Secret;
use countersign_net::SystemRng;

use super::ours::Setting;
use super::tree::{MANAGER, NOW, Party, SLEEVE, Tree};
use super::{Addresses, Client, Contacts, RECORDED, Server, credential, leaf_cache};
use crate::Fallible;

/// What the manager's owner knows and allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// The sleeve is paired, and the pairing window is open for it to pair again.
    Open,
    /// The window is closed, and the sleeve in no list.
    Closed,
    /// The sleeve is in the list, with another factor than it has.
    OtherFactor,
}

/// What any number of contacts between the tree's sleeve and manager share.
pub(crate) struct Paired {
    mode: Mode,
    sleeve: Arc<SleeveConfig>,
    manager: Arc<ManagerConfig>,
    home: Home,
    /// What the sleeve keeps.
    of_manager: Arc<Pairing>,
    /// What the manager keeps.
    of_sleeve: Arc<Pairing>,
    addresses: Addresses,
}

impl Paired {
    /// A sleeve and a manager that know each other.
    pub(crate) fn new(tree: &Tree, setting: Setting) -> Fallible<Self> {
        Self::at(tree, setting, Home::Open)
    }

    /// The same, where the manager's owner may know and allow less.
    pub(crate) fn at(tree: &Tree, setting: Setting, home: Home) -> Fallible<Self> {
        let provider = &tree.provider;
        let sleeve = SleeveConfig {
            credentials: vec![credential(tree, &tree.sleeve)?],
            policies: vec![setting.policy],
            sleeve_id: SLEEVE.into(),
        };
        let sources = SourceLimits::new(provider.clone(), &mut SystemRng::default());
        let manager = ManagerConfig {
            credentials: vec![credential(tree, &tree.manager)?],
            policies: vec![setting.policy],
            modes: vec![Mode::A1, Mode::A2, Mode::A3],
            manager_id: MANAGER.into(),
            leaf_cache: leaf_cache(setting.cached),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider.clone()))),
            sources: Arc::new(SharedSources::new(sources)),
        };
        let pairing = |peer: &str, party: &Party, factor: u8| {
            Arc::new(Pairing {
                peer: peer.into(),
                certificate: party.certificate.clone(),
                factor: Secret::copied_from(&[factor; 32]),
                suite: provider.suite,
            })
        };
        let other = u8::from(home == Home::OtherFactor);
        Ok(Self {
            mode: setting.mode,
            sleeve: Arc::new(sleeve),
            manager: Arc::new(manager),
            home,
            of_manager: pairing(MANAGER, &tree.manager, 5),
            of_sleeve: pairing(SLEEVE, &tree.sleeve, 5 + other),
            addresses: Addresses::default(),
        })
    }

    fn server_for(&self, address: [u8; 4]) -> OurManager<'_> {
        OurManager {
            channel: ManagerChannel::new(self.manager.clone(), &address, NOW),
            rng: SystemRng::default(),
            paired: self,
            connected: false,
        }
    }
}

impl Contacts for Paired {
    type Client = OurSleeve;
    type Server<'a> = OurManager<'a>;

    fn client(&self) -> Fallible<OurSleeve> {
        let mut rng = SystemRng::default();
        let sleeve = self.sleeve.clone();
        let channel = match self.mode {
            Mode::A1 => SleeveChannel::pair(sleeve, NOW, &mut rng)?,
            mode => SleeveChannel::connect(sleeve, mode, self.of_manager.clone(), NOW, &mut rng)?,
        };
        Ok(OurSleeve { channel, rng })
    }

    fn server(&self) -> OurManager<'_> {
        self.server_for(self.addresses.next())
    }

    fn server_for_recorded(&self) -> OurManager<'_> {
        self.server_for(RECORDED)
    }
}

/// The sleeve's end; its user says yes.
pub(crate) struct OurSleeve {
    channel: SleeveChannel,
    rng: SystemRng,
}

impl Client for OurSleeve {
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>> {
        let Self { channel, rng } = self;
        channel.handle(NOW, rng, flight)?;
        while let Some(event) = channel.poll_event() {
            match event {
                SleeveEvent::Ask(SleeveQuestion::Confirm { .. }) => {
                    channel.confirm(NOW, rng, true)?;
                }
                SleeveEvent::Ask(SleeveQuestion::Store(_)) => channel.stored(NOW, rng, true)?,
                SleeveEvent::Connected => {}
                _ => return Err("the manager spoke where nothing was awaited".into()),
            }
        }
        Ok(std::iter::from_fn(|| channel.poll_transmit()).flatten().collect())
    }
}

/// The manager's end, with window and list in memory.
pub(crate) struct OurManager<'a> {
    channel: ManagerChannel,
    rng: SystemRng,
    paired: &'a Paired,
    connected: bool,
}

impl OurManager<'_> {
    fn advance(&mut self, flight: &[u8]) -> Result<(), Error> {
        let Self { channel, rng, paired, connected } = self;
        channel.handle(NOW, rng, flight)?;
        while let Some(event) = channel.poll_event() {
            match event {
                ManagerEvent::Ask(ManagerQuestion::Window { .. }) => {
                    channel.window(NOW, rng, paired.home != Home::Closed)?;
                }
                ManagerEvent::Ask(ManagerQuestion::Store(_)) => channel.stored(NOW, rng, true)?,
                ManagerEvent::Ask(ManagerQuestion::Sleeve { .. }) => {
                    let found = match paired.home {
                        Home::Closed => Err(countersign_channel::LookupRefusal::Unknown),
                        Home::Open | Home::OtherFactor => Ok(paired.of_sleeve.clone()),
                    };
                    channel.sleeve_found(NOW, rng, found)?;
                }
                ManagerEvent::Connected => *connected = true,
                ManagerEvent::Data(_) | ManagerEvent::Closed => {}
            }
        }
        Ok(())
    }

    fn flight(&mut self) -> Vec<u8> {
        // A flight is one message: nothing to join, nothing to copy.
        self.channel.poll_transmit().unwrap_or_default()
    }
}

impl Server for OurManager<'_> {
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

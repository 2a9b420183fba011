//! Both ends of a handshake in memory, ours and the peers', behind one small interface.

pub(crate) mod noise;
pub(crate) mod ours;
pub(crate) mod paired;
pub(crate) mod tls;
pub(crate) mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_channel::Credential;
use countersign_crypto::Digest;
use countersign_pki::{BoundedLeafCache, Leaf, LeafCache};

use self::tree::{Party, Tree};
use crate::Fallible;

/// The end whose cost is not counted.
pub(crate) trait Client {
    /// Takes the server's flight (empty at first) and gives the next; empty when it has no more.
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>>;
}

/// The end whose cost is counted.
pub(crate) trait Server {
    /// Why it refuses a client.
    type Refusal;

    /// Takes the client's flight and gives the answer, perhaps empty. A refusal comes with its
    /// alert made: that is part of its cost.
    fn receive(&mut self, flight: &[u8]) -> Result<Vec<u8>, Self::Refusal>;

    /// The name of the check that refused.
    fn check(refusal: &Self::Refusal) -> String;

    /// Whether the handshake is done and data may flow.
    fn is_connected(&self) -> bool;
}

/// What any number of contacts of one of our handshakes share: reader and server (C1, C2), sleeve
/// and manager (A1, A2, A3).
pub(crate) trait Contacts {
    /// The end that begins.
    type Client: Client;
    /// The end that answers.
    type Server<'a>: Server<Refusal = countersign_channel::Error>
    where
        Self: 'a;

    /// The end that begins, made ready: its share is made.
    fn client(&self) -> Fallible<Self::Client>;

    /// For a contact from an address that was not heard of before.
    fn server(&self) -> Self::Server<'_>;

    /// For a contact from where recordings are made.
    fn server_for_recorded(&self) -> Self::Server<'_>;

    /// M0 and M2 of one contact whose challenge is still good; with `spent`, one whose is not.
    fn recording(&self, spent: bool) -> Fallible<[Vec<u8>; 2]> {
        let (mut client, mut server) = (self.client()?, self.server_for_recorded());
        let m0 = client.answer(&[])?;
        let m2 = client.answer(&server.receive(&m0)?)?;
        if spent {
            server.receive(&m2)?;
        }
        Ok([m0, m2])
    }
}

/// Where recordings are made and replayed: their challenges are tied to it.
pub(crate) const RECORDED: [u8; 4] = [192, 0, 2, 1];

/// Everyone else has an address of his own in this network, one contact each, so that the limit per
/// source is asked and never reached.
#[derive(Default)]
pub(crate) struct Addresses(AtomicU32);

impl Addresses {
    const NETWORK: u8 = 10;

    pub(crate) fn next(&self) -> [u8; 4] {
        let [_, a, b, c] = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        [Self::NETWORK, a, b, c]
    }
}

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

/// A cache that remembers certificates, or one that never does.
pub(crate) fn leaf_cache(cached: bool) -> Arc<dyn LeafCache> {
    if cached { Arc::new(BoundedLeafCache::default()) } else { Arc::new(NeverFound::default()) }
}

/// A party's credential in the tree's suite.
pub(crate) fn credential(tree: &Tree, party: &Party) -> Fallible<Credential> {
    Ok(Credential {
        provider: tree.provider.clone(),
        key: party.key.key.clone(),
        certificate: party.certificate.clone(),
        trust: tree.trust()?,
        encryption: None,
    })
}

/// A client that says what it was told to say, whatever it hears: an attacker with a recording.
pub(crate) struct Script<'a> {
    flights: std::slice::Iter<'a, Vec<u8>>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(flights: &'a [Vec<u8>]) -> Self {
        Self { flights: flights.iter() }
    }
}

impl Client for Script<'_> {
    fn answer(&mut self, _flight: &[u8]) -> Fallible<Vec<u8>> {
        Ok(self.flights.next().cloned().unwrap_or_default())
    }
}

/// A client whose second flight (M2) ends in another byte than it should: a signature that is as
/// long as a good one and is none.
pub(crate) struct Spoilt<C> {
    inner: C,
    flights: usize,
}

impl<C> Spoilt<C> {
    pub(crate) const fn new(inner: C) -> Self {
        Self { inner, flights: 0 }
    }
}

impl<C: Client> Client for Spoilt<C> {
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>> {
        let mut flight = self.inner.answer(flight)?;
        self.flights += 1;
        if self.flights == 2
            && let Some(last) = flight.last_mut()
        {
            *last ^= 1;
        }
        Ok(flight)
    }
}

/// Carries flights until nobody has more to say; tells what went over the wire.
pub(crate) fn connect<C: Client, S: Server>(client: &mut C, server: &mut S) -> Fallible<Talk> {
    let mut talk = Talk::default();
    let mut flight = client.answer(&[])?;
    while !flight.is_empty() {
        let answer = server.receive(&flight).map_err(|refusal| S::check(&refusal))?;
        talk.bytes += flight.len() + answer.len();
        talk.round_trips += usize::from(!answer.is_empty());
        flight = client.answer(&answer)?;
    }
    if server.is_connected() { Ok(talk) } else { Err("the handshake did not finish".into()) }
}

/// A handshake as seen on the wire.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Talk {
    /// Both directions.
    pub(crate) bytes: usize,
    /// Answers that the client had to wait for before it could send data.
    pub(crate) round_trips: usize,
}

//! Both ends of a handshake in memory, ours and the peers', behind one small interface.

pub(crate) mod noise;
pub(crate) mod ours;
pub(crate) mod tls;
pub(crate) mod tree;

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

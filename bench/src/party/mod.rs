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

//! Contacts of clients with a server, in step with each other, and what they cost the server.

use crate::Fallible;
use crate::measure::{cpu_time, micros};
use crate::party::{Client, Server};

/// How all contacts of a batch must end; a measurement of anything else is void.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Connected,
    /// By the check whose name contains this.
    Refused(&'static str),
}

/// Runs a batch of contacts in step; returns the server's CPU time per contact and flight in
/// microseconds: the making of the machine is in the first, its end in the last.
pub(super) fn contacts<C: Client, S: Server>(
    mut clients: Vec<C>,
    open: impl Fn() -> S,
    end: End,
) -> Fallible<Vec<f64>> {
    let count = clients.len();
    let mut laps = Vec::new();
    let (mut servers, opening) =
        cpu_time(|| std::iter::repeat_with(open).take(count).collect::<Vec<_>>())?;
    let mut answers = vec![Vec::new(); count];
    let refusals = loop {
        let talk = clients.iter_mut().zip(&answers);
        let flights: Vec<_> =
            talk.map(|(client, flight)| client.answer(flight)).collect::<Result<_, _>>()?;
        if flights.iter().all(Vec::is_empty) {
            break Vec::new();
        }
        let heard = servers.iter_mut().zip(&flights);
        let (results, spent) =
            cpu_time(|| heard.map(|(server, flight)| server.receive(flight)).collect::<Vec<_>>())?;
        laps.push(spent);
        let (given, refusals): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        if !refusals.is_empty() {
            break refusals.into_iter().filter_map(Result::err).collect();
        }
        answers = given.into_iter().filter_map(Result::ok).collect();
    };
    let as_expected = match end {
        End::Connected => refusals.is_empty() && servers.iter().all(Server::is_connected),
        End::Refused(check) => {
            let named = |refusal: &S::Refusal| S::check(refusal).contains(check);
            refusals.len() == count && refusals.iter().all(named)
        }
    };
    if !as_expected {
        let seen = refusals.first().map(S::check).unwrap_or_default();
        return Err(format!("a handshake did not end as it should ({end:?}): {seen}").into());
    }
    let ((), closing) = cpu_time(|| drop((servers, refusals)))?;
    if let Some(first) = laps.first_mut() {
        *first += opening;
    }
    if let Some(last) = laps.last_mut() {
        *last += closing;
    }
    Ok(laps.into_iter().map(|lap| micros(lap) / count as f64).collect())
}

/// `count` clients made by `client`, each with a server made by `open`.
pub(super) fn batch<C: Client, S: Server>(
    count: usize,
    client: impl Fn() -> Fallible<C>,
    open: impl Fn() -> S,
    end: End,
) -> Fallible<Vec<f64>> {
    let clients = (0..count).map(|_| client()).collect::<Result<_, _>>()?;
    contacts(clients, open, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::party::Contacts;
    use crate::party::noise::{Backend, Noise};
    use crate::party::ours::{Ours, Setting};
    use crate::party::paired::Paired;
    use crate::party::tls::Tls;
    use crate::party::tree::Tree;
    use countersign_channel::Mode;

    #[test]
    fn all_parties_connect_in_their_number_of_flights() {
        let tree = Tree::new().unwrap();
        let laps = |laps: Fallible<Vec<f64>>| laps.unwrap().len();
        for mode in [Mode::C1, Mode::C2] {
            let ours = Ours::new(&tree, Setting::of(mode)).unwrap();
            let run = batch(2, || ours.client(), || ours.server(), End::Connected);
            assert_eq!(laps(run), 3);
        }
        for (mode, flights) in [(Mode::A1, 2), (Mode::A2, 3), (Mode::A3, 3)] {
            let paired = Paired::new(&tree, Setting::of(mode)).unwrap();
            let run = batch(2, || paired.client(), || paired.server(), End::Connected);
            assert_eq!(laps(run), flights, "{mode:?}");
        }
        let tls = Tls::new(&tree).unwrap();
        assert_eq!(laps(batch(2, || tls.client(), || tls.server(), End::Connected)), 2);
        for backend in [Backend::Shipped, Backend::AwsLc] {
            let noise = Noise::new(backend).unwrap();
            assert_eq!(laps(batch(2, || noise.client(), || noise.server(), End::Connected)), 2);
        }
    }

    #[test]
    fn a_contact_that_ends_otherwise_is_no_measurement() {
        let tls = Tls::new(&Tree::new().unwrap()).unwrap();
        let impostors = |end| batch(1, || tls.impostor(), || tls.server(), end);
        let refused = End::Refused("BadSignature");
        assert!(impostors(refused).is_ok());
        assert!(impostors(End::Connected).is_err());
        assert!(batch(1, || tls.client(), || tls.server(), refused).is_err());
    }
}

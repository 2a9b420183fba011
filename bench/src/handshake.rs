//! What handshakes and refusals cost the server, side by side with mutual TLS and Noise.

use countersign_channel::WINDOW;

use crate::Fallible;
use crate::measure::{WARM_UP, Work, cpu_time, interleaved, micros};
use crate::party::noise::{Backend, Noise};
use crate::party::ours::Ours;
use crate::party::tls::Tls;
use crate::party::tree::Tree;
use crate::party::{Client, Script, Server};
use crate::report::Row;

/// Handshakes in step with each other per sample: reading the clock vanishes among them.
const BATCH: usize = 16;
/// Refusals that cost a verification or less, per sample.
const REFUSALS: usize = 32;
/// Refusals that cost a MAC or less, per sample.
const CHEAP_REFUSALS: usize = 256;

/// Most rounds of one run, so that the recorded challenges stay in the server's window.
pub(crate) const ROUNDS_MAX: u64 = 1000;

const _: () = {
    let issued = (BATCH + REFUSALS + 3 * CHEAP_REFUSALS) as u64;
    assert!((ROUNDS_MAX + WARM_UP as u64) * issued < WINDOW);
};

/// Where the bytes that are altered lie in M2: frame header, then version, suite and policy.
const EPOCH_AT: usize = 8 + 5;
const MAC_AT: usize = EPOCH_AT + 4 + 8;

/// How all contacts of a batch must end; a measurement of anything else is void.
enum End {
    Connected,
    /// By the check whose name contains this.
    Refused(&'static str),
}

/// Runs a batch of contacts in step; returns the server's CPU time per contact and flight in
/// microseconds: the making of the machine is in the first, its end in the last.
fn contacts<C: Client, S: Server>(
    mut clients: Vec<C>,
    open: impl Fn() -> S,
    end: &End,
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
        return Err(format!("a handshake did not end as it should: {seen}").into());
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

/// Contacts that replay `flights` and are refused by `check`.
fn refusals<'a>(
    ours: &'a Ours,
    flights: &'a [Vec<u8>],
    batch: usize,
    check: &'static str,
) -> Work<'a> {
    Box::new(move || {
        let attackers = (0..batch).map(|_| Script::new(flights)).collect();
        contacts(attackers, || ours.server(), &End::Refused(check))
    })
}

fn altered(flights: &[Vec<u8>; 2], at: usize) -> [Vec<u8>; 2] {
    let mut flights = flights.clone();
    if let Some(byte) = flights[1].get_mut(at) {
        *byte ^= 1;
    }
    flights
}

/// The server's CPU time, in microseconds per contact.
struct Costs {
    /// Whole handshake.
    accept_cached: f64,
    accept_fresh: f64,
    /// Whole contact, M0 and alert included.
    forged: f64,
    replayed: f64,
    stale: f64,
    bad_cached: f64,
    bad_fresh: f64,
    /// The refusing message alone.
    replayed_message: f64,
    tls: f64,
    /// The ClientHello's answer alone.
    tls_hello: f64,
    /// Up to and including the client's signature, which is bad.
    tls_impostor: f64,
    noise: f64,
    noise_aws_lc: f64,
}

/// The last byte of M2 is the signature's last.
fn last_byte(flights: &[Vec<u8>; 2]) -> usize {
    flights[1].len() - 1
}

fn measure(tree: &Tree, rounds: usize) -> Fallible<Costs> {
    let (cached, fresh) = (Ours::new(tree, true)?, Ours::new(tree, false)?);
    let tls = Tls::new(tree)?;
    let (noise, noise_aws_lc) = (Noise::new(Backend::Shipped)?, Noise::new(Backend::AwsLc)?);
    let replayed = cached.recording(true)?;
    let good = cached.recording(false)?;
    let forged = altered(&good, MAC_AT);
    let stale = altered(&good, EPOCH_AT);
    let bad = altered(&good, last_byte(&good));
    let good_fresh = fresh.recording(false)?;
    let bad_fresh = altered(&good_fresh, last_byte(&good_fresh));
    let accept = |ours: &Ours| {
        let readers = (0..BATCH).map(|_| ours.reader()).collect::<Result<_, _>>()?;
        contacts(readers, || ours.server(), &End::Connected)
    };
    let noise_accept = |noise: &Noise| {
        let clients = (0..BATCH).map(|_| noise.client()).collect::<Result<_, _>>()?;
        contacts(clients, || noise.server(), &End::Connected)
    };
    let mut subjects: [Work<'_>; 11] = [
        Box::new(|| accept(&cached)),
        Box::new(|| {
            let clients = (0..BATCH).map(|_| tls.client()).collect::<Result<_, _>>()?;
            contacts(clients, || tls.server(), &End::Connected)
        }),
        Box::new(|| accept(&fresh)),
        Box::new(|| {
            let impostors = (0..BATCH).map(|_| tls.impostor()).collect::<Result<_, _>>()?;
            contacts(impostors, || tls.server(), &End::Refused("BadSignature"))
        }),
        refusals(&cached, &forged, CHEAP_REFUSALS, "challenge-mac"),
        refusals(&cached, &replayed, CHEAP_REFUSALS, "challenge-replayed"),
        refusals(&cached, &stale, CHEAP_REFUSALS, "challenge-stale"),
        refusals(&cached, &bad, REFUSALS, "reader-signature"),
        refusals(&fresh, &bad_fresh, REFUSALS, "reader-signature"),
        Box::new(|| noise_accept(&noise)),
        Box::new(|| noise_accept(&noise_aws_lc)),
    ];
    let laps = interleaved(rounds, &mut subjects)?;
    let whole = |at: usize| laps[at].iter().sum();
    Ok(Costs {
        accept_cached: whole(0),
        tls: whole(1),
        tls_hello: laps[1][0],
        accept_fresh: whole(2),
        tls_impostor: whole(3),
        forged: whole(4),
        replayed: whole(5),
        replayed_message: laps[5][1],
        stale: whole(6),
        bad_cached: whole(7),
        bad_fresh: whole(8),
        noise: whole(9),
        noise_aws_lc: whole(10),
    })
}

const MTLS: &str = "rustls mutual TLS 1.3, whole handshake";
const IMPOSTOR: &str = "rustls mutual TLS 1.3, until the client's signature is refused";
const HELLO: &str = "rustls mutual TLS 1.3, answering a ClientHello";

/// Measures and compares; the targets are those of the channel's design.
pub(crate) fn rows(tree: &Tree, rounds: usize) -> Fallible<Vec<Row>> {
    let costs = measure(tree, rounds)?;
    let row = |name: &str, ours| Row::new(name, ours, "us");
    let per_second = |micros: f64| 1e6 / micros;
    let unproven = |name: &str, ours| row(name, ours).against(IMPOSTOR, costs.tls_impostor);
    Ok(vec![
        row("accept, certificate cached", costs.accept_cached)
            .against(MTLS, costs.tls)
            .at_most(0.75),
        row("accept, certificate not cached", costs.accept_fresh)
            .against(MTLS, costs.tls)
            .at_most(1.0),
        row("accept, certificate cached", costs.accept_cached)
            .against("snow Noise_XX_25519_AESGCM_SHA256 as it ships", costs.noise)
            .at_most(0.6),
        row("accept, certificate cached", costs.accept_cached)
            .against("snow Noise_XX_25519_AESGCM_SHA256 on AWS-LC's X25519", costs.noise_aws_lc)
            .at_most(1.5),
        Row::new("handshakes per core", per_second(costs.accept_cached), "1/s")
            .against(MTLS, per_second(costs.tls))
            .at_least(1.33),
        unproven("refuse a forged challenge", costs.forged).at_most(0.01),
        unproven("refuse a replayed challenge", costs.replayed).at_most(0.01),
        unproven("refuse a stale challenge", costs.stale).at_most(0.01),
        row("refuse a replayed challenge", costs.replayed).against(HELLO, costs.tls_hello),
        row("refuse a replayed challenge, its M2 alone", costs.replayed_message)
            .against(HELLO, costs.tls_hello),
        row("refuse a bad signature, certificate cached", costs.bad_cached)
            .against(MTLS, costs.tls)
            .at_most(0.35),
        row("refuse a bad signature, certificate not cached", costs.bad_fresh)
            .against(MTLS, costs.tls),
    ])
}

#[cfg(test)]
mod tests {
    use testkit::counting::CountingProvider;

    use super::*;
    use crate::records::connect;

    fn tree() -> Tree {
        Tree::new().unwrap()
    }

    #[test]
    fn all_parties_connect_in_their_number_of_flights() {
        let tree = tree();
        let (ours, tls) = (Ours::new(&tree, true).unwrap(), Tls::new(&tree).unwrap());
        let laps = |laps: Fallible<Vec<f64>>| laps.unwrap().len();
        let readers = vec![ours.reader().unwrap(), ours.reader().unwrap()];
        assert_eq!(laps(contacts(readers, || ours.server(), &End::Connected)), 3);
        let clients = vec![tls.client().unwrap()];
        assert_eq!(laps(contacts(clients, || tls.server(), &End::Connected)), 2);
        for backend in [Backend::Shipped, Backend::AwsLc] {
            let noise = Noise::new(backend).unwrap();
            let clients = vec![noise.client().unwrap()];
            assert_eq!(laps(contacts(clients, || noise.server(), &End::Connected)), 2);
        }
    }

    #[test]
    fn the_two_noise_backends_understand_each_other() {
        let shipped = Noise::new(Backend::Shipped).unwrap();
        let aws_lc = Noise::new(Backend::AwsLc).unwrap();
        connect(&mut shipped.client().unwrap(), &mut aws_lc.server()).unwrap();
        connect(&mut aws_lc.client().unwrap(), &mut shipped.server()).unwrap();
    }

    #[test]
    fn a_contact_that_ends_otherwise_is_no_measurement() {
        let tree = tree();
        let tls = Tls::new(&tree).unwrap();
        let impostor = || vec![tls.impostor().unwrap()];
        let refused = End::Refused("BadSignature");
        assert!(contacts(impostor(), || tls.server(), &refused).is_ok());
        assert!(contacts(impostor(), || tls.server(), &End::Connected).is_err());
        let honest = vec![tls.client().unwrap()];
        assert!(contacts(honest, || tls.server(), &refused).is_err());
    }

    #[test]
    fn each_recording_is_refused_by_the_check_its_row_names() {
        let tree = tree();
        let ours = Ours::new(&tree, true).unwrap();
        let good = ours.recording(false).unwrap();
        let bad = altered(&good, last_byte(&good));
        let cases = [
            (ours.recording(true).unwrap(), "challenge-replayed"),
            (altered(&good, MAC_AT), "challenge-mac"),
            (altered(&good, EPOCH_AT), "challenge-stale"),
            (bad, "reader-signature"),
        ];
        for (flights, check) in &cases {
            // Twice: a refusal leaves no trace that would make the next one another.
            for _ in 0..2 {
                refusals(&ours, flights, 2, check)().unwrap();
            }
            assert!(refusals(&ours, flights, 2, "another-check")().is_err());
        }
    }

    #[test]
    fn the_cache_saves_the_server_one_verification() {
        let mut tree = tree();
        let counting = CountingProvider::new(tree.provider.clone());
        tree.provider = counting.provider();
        let verifications = |cached| {
            let ours = Ours::new(&tree, cached).unwrap();
            let run = || connect(&mut ours.reader().unwrap(), &mut ours.server()).unwrap();
            run();
            counting.measure(run).1.verify
        };
        // The reader's end verifies the server's certificate and signature each time.
        assert_eq!((verifications(true), verifications(false)), (3, 4));
    }
}

//! What handshakes and refusals cost the server, side by side with mutual TLS and Noise.

use crate::Fallible;
use crate::measure::{Work, cpu_time, interleaved, micros};
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

/// Where the bytes that the tests alter lie in M2: frame header, then version, suite and policy.
const EPOCH_AT: usize = 8 + 5;
const MAC_AT: usize = EPOCH_AT + 4 + 8;

/// How all contacts of a batch must end; a measurement of anything else is void.
enum End {
    Connected,
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
        let (results, spent) = cpu_time(|| {
            heard.map(|(server, flight)| server.receive(flight)).collect::<Vec<_>>()
        })?;
        laps.push(spent);
        let (given, refusals): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        if !refusals.is_empty() {
            break refusals.into_iter().filter_map(Result::err).collect();
        }
        answers = given.into_iter().filter_map(Result::ok).collect();
    };
    let as_expected = match end {
        End::Connected => refusals.is_empty() && servers.iter().all(Server::is_connected),
        End::Refused(words) => {
            let named = |refusal: &S::Refusal| refusal.to_string().contains(words);
            refusals.len() == count && refusals.iter().all(named)
        }
    };
    if !as_expected {
        let seen = refusals.first().map(ToString::to_string).unwrap_or_default();
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

/// Contacts that replay `flights` and are refused with `words`.
fn refusals<'a>(
    ours: &'a Ours,
    flights: &'a [Vec<u8>],
    batch: usize,
    words: &'static str,
) -> Work<'a> {
    Box::new(move || {
        let attackers = (0..batch).map(|_| Script::new(flights)).collect();
        contacts(attackers, || ours.server(), &End::Refused(words))
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
    // What depends on a secret says "authentication failed" and no more.
    let secret = "authentication failed";
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
        refusals(&cached, &forged, CHEAP_REFUSALS, secret),
        refusals(&cached, &replayed, CHEAP_REFUSALS, "used before"),
        refusals(&cached, &stale, CHEAP_REFUSALS, "stale"),
        refusals(&cached, &bad, REFUSALS, secret),
        refusals(&fresh, &bad_fresh, REFUSALS, secret),
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

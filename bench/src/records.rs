//! Sealing and opening records, side by side with rustls' record layer.

use countersign_channel::ServerEvent;

use crate::Fallible;
use crate::measure::{Work, cpu_time, interleaved, micros};
use crate::party::ours::{OurReader, OurServer, Ours};
use crate::party::tls::{Tls, TlsClient, TlsServer};
use crate::party::tree::{NOW, Tree};
use crate::party::{Client, Server};
use crate::report::Row;

/// Lengths of the data in a record, in bytes.
const LENGTHS: [usize; 2] = [1024, 16 * 1024];
/// Records per sample.
const BATCH: usize = 32;

/// Carries flights until nobody has more to say.
pub(crate) fn connect<C: Client, S: Server>(client: &mut C, server: &mut S) -> Fallible<()> {
    let mut flight = client.answer(&[])?;
    while !flight.is_empty() {
        let answer = server.receive(&flight).map_err(|refusal| S::check(&refusal))?;
        flight = client.answer(&answer)?;
    }
    if server.is_connected() { Ok(()) } else { Err("the handshake did not finish".into()) }
}

fn carry_ours(
    (reader, server): &mut (OurReader, OurServer<'_>),
    data: &[u8],
    out: &mut [u8],
) -> Fallible<()> {
    reader.channel.send(data)?;
    while let Some(record) = reader.channel.poll_transmit() {
        server.channel.handle(NOW, &mut server.rng, &record)?;
    }
    match server.channel.poll_event() {
        Some(ServerEvent::Data(opened)) if opened.len() == out.len() => {
            out.copy_from_slice(&opened);
            Ok(())
        }
        _ => Err("the record did not arrive".into()),
    }
}

fn carry_tls(
    (client, server): &mut (TlsClient, TlsServer),
    data: &[u8],
    out: &mut [u8],
) -> Fallible<()> {
    let records = client.seal(data)?;
    server.open(&records, out)
}

/// One sample: CPU microseconds per record, both ends together. The last record is compared with
/// what was sent.
fn sample(
    len: usize,
    mut carry: impl FnMut(&[u8], &mut [u8]) -> Fallible<()>,
) -> Fallible<Vec<f64>> {
    let data = vec![0x5a; len];
    let mut out = vec![0; len];
    let (carried, spent) = cpu_time(|| (0..BATCH).try_for_each(|_| carry(&data, &mut out)))?;
    carried?;
    if out != data {
        return Err("a record changed on its way".into());
    }
    Ok(vec![micros(spent) / BATCH as f64])
}

/// Measures and compares.
pub(crate) fn rows(tree: &Tree, rounds: usize) -> Fallible<Vec<Row>> {
    let ours = Ours::new(tree, true)?;
    let mut our_pair = (ours.reader()?, ours.server());
    connect(&mut our_pair.0, &mut our_pair.1)?;
    let tls = Tls::new(tree)?;
    let mut tls_pair = (tls.client()?, tls.server());
    connect(&mut tls_pair.0, &mut tls_pair.1)?;
    LENGTHS
        .into_iter()
        .map(|len| {
            let mut subjects: [Work<'_>; 2] = [
                Box::new(|| sample(len, |data, out| carry_ours(&mut our_pair, data, out))),
                Box::new(|| sample(len, |data, out| carry_tls(&mut tls_pair, data, out))),
            ];
            let laps = interleaved(rounds, &mut subjects)?;
            let name = format!("seal and open a record of {} KiB", len / 1024);
            let peer = "rustls TLS 1.3 record layer, AES-128-GCM";
            Ok(Row::new(name, laps[0][0], "us").against(peer, laps[1][0]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_arrive_unchanged() {
        let rows = rows(&Tree::new().unwrap(), 1).unwrap();
        assert_eq!(rows.len(), LENGTHS.len());
    }

    #[test]
    fn a_record_that_changed_or_failed_is_no_measurement() {
        let carry = |data: &[u8], out: &mut [u8]| {
            out.copy_from_slice(data);
            Ok(())
        };
        assert!(sample(10, carry).is_ok());
        assert!(sample(10, |_, _| Ok(())).is_err());
        assert!(sample(10, |_, _| Err("refused".into())).is_err());
    }
}

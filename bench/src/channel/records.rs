//! Sealing and opening records, and what a new key costs.

use countersign_channel::{Delivery, Mode, Policy, Protection, ServerEvent};

use super::worlds::sm2_tree;
use crate::Fallible;
use crate::measure::{Subjects, cpu_time, micros};
use crate::party::ours::{OurReader, OurServer, Ours, Setting};
use crate::party::tls::{Tls, TlsClient, TlsServer};
use crate::party::tree::{NOW, Tree};
use crate::party::{Contacts, connect};
use crate::report::Row;

/// Lengths of the data in a record, in bytes.
const LENGTHS: [usize; 2] = [1024, 16 * 1024];
/// Records per sample.
const BATCH: usize = 32;

/// An open channel, both ends.
struct Pair<'a> {
    reader: OurReader,
    server: OurServer<'a>,
}

impl<'a> Pair<'a> {
    fn open(ours: &'a Ours) -> Fallible<Self> {
        let (mut reader, mut server) = (ours.client()?, ours.server());
        connect(&mut reader, &mut server)?;
        Ok(Self { reader, server })
    }

    fn transmit(&mut self) -> Fallible<()> {
        while let Some(record) = self.reader.channel.poll_transmit() {
            self.server.channel.handle(NOW, &mut self.server.rng, &record)?;
        }
        Ok(())
    }

    fn carry(&mut self, data: &[u8], out: &mut [u8]) -> Fallible<()> {
        self.reader.channel.send(data)?;
        self.transmit()?;
        match self.server.channel.poll_event() {
            Some(ServerEvent::Data(opened)) if opened.len() == out.len() => {
                out.copy_from_slice(&opened);
                Ok(())
            }
            _ => Err("the record did not arrive".into()),
        }
    }

    /// A record under a key of its own.
    fn rekey_and_carry(&mut self, data: &[u8], out: &mut [u8]) -> Fallible<()> {
        self.reader.channel.rekey()?;
        self.transmit()?;
        self.carry(data, out)
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

/// Both ends' configurations, for each kind of record.
struct Kinds {
    stream: Ours,
    mac: Ours,
    datagrams: Ours,
    sm4: Ours,
}

impl Kinds {
    fn new(tree: &Tree) -> Fallible<Self> {
        let of = |policy| Setting { policy, ..Setting::of(Mode::C1) };
        let mac = Policy { protection: Protection::Mac, ..Policy::default() };
        let datagrams = Policy { delivery: Delivery::Datagrams, ..Policy::default() };
        Ok(Self {
            stream: Ours::new(tree, of(Policy::default()))?,
            mac: Ours::new(tree, of(mac))?,
            datagrams: Ours::new(tree, of(datagrams))?,
            sm4: Ours::new(&sm2_tree()?, of(Policy::default()))?,
        })
    }
}

const TLS: &str = "rustls TLS 1.3 records, AES-128-GCM";
const STREAM: &str = "our stream records, AES-128-GCM";

/// Measures and compares.
pub(super) fn rows(tree: &Tree, rounds: usize) -> Fallible<Vec<Row>> {
    let kinds = Kinds::new(tree)?;
    let tls = Tls::new(tree)?;
    let mut rows = Vec::new();
    for len in LENGTHS {
        rows.extend(rows_of(len, &kinds, &tls, rounds)?);
    }
    Ok(rows)
}

fn rows_of(len: usize, kinds: &Kinds, tls: &Tls, rounds: usize) -> Fallible<Vec<Row>> {
    let mut tls_pair = (tls.client()?, tls.server());
    connect(&mut tls_pair.0, &mut tls_pair.1)?;
    let mut rekeyed = Pair::open(&kinds.stream)?;
    let mut subjects = Subjects::default();
    let tls = subjects.add(|| sample(len, |data, out| carry_tls(&mut tls_pair, data, out)));
    let mut add = |ours| -> Fallible<_> {
        let mut pair = Pair::open(ours)?;
        Ok(subjects.add(move || sample(len, |data, out| pair.carry(data, out))))
    };
    let (stream, mac) = (add(&kinds.stream)?, add(&kinds.mac)?);
    let (datagrams, sm4) = (add(&kinds.datagrams)?, add(&kinds.sm4)?);
    let rekey = subjects.add(|| sample(len, |data, out| rekeyed.rekey_and_carry(data, out)));
    let samples = subjects.run(rounds)?;
    let ours = samples.whole(stream);
    let row = |what: &str, subject| {
        let name = format!("seal and open a record of {} KiB{what}", len / 1024);
        Row::new(name, samples.whole(subject), "us")
    };
    Ok(vec![
        row("", stream).against(TLS, samples.whole(tls)),
        row(", MAC only", mac).against(STREAM, ours),
        row(", datagrams", datagrams).against(STREAM, ours),
        row(", SM4-GCM", sm4).against(STREAM, ours),
        row(", a new key for each", rekey).against(STREAM, ours),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_kinds_arrive_unchanged() {
        let rows = rows(&Tree::new().unwrap(), 1).unwrap();
        assert_eq!(rows.len(), 5 * LENGTHS.len());
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

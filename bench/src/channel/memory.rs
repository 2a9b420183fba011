//! What a server keeps in memory for a channel in which nothing happens, and for a client that has
//! said one thing and nothing more.
//!
//! Measured as the growth of the process's anonymous memory over many of them, as the kernel counts
//! its pages. An allocator that counts would be exact to the byte, but it would not see AWS-LC's
//! keys, which are allocated in C; and it takes `unsafe`, or a crate for it.

use std::error::Error;
use std::fs;
use std::sync::{Mutex, mpsc};
use std::thread::Scope;

use countersign_channel::Mode;

use super::worlds::{MODES, PAIRED_MODES, sm2_tree};
use crate::Fallible;
use crate::party::noise::{Backend, Noise};
use crate::party::ours::{Ours, Setting};
use crate::party::paired::Paired;
use crate::party::tls::Tls;
use crate::party::tree::Tree;
use crate::party::{Client, Contacts, Server, connect};
use crate::report::Row;

/// Parties kept per subject and round: a row is worth more of them, a smoke run few.
const KEPT_PER_ROUND: usize = 50;
/// Bounds of what is kept per subject.
const KEPT: [usize; 2] = [150, 4000];

/// Where Linux sums up the pages of this process, exactly.
const ROLLUP: &str = "/proc/self/smaps_rollup";

/// Bytes of anonymous memory in `rollup`.
pub(crate) fn anonymous(rollup: &str) -> Fallible<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let figure = figure.ok_or("no sum of anonymous memory in smaps_rollup")?;
    Ok(figure.trim().parse::<u64>()? * 1024)
}

/// What `count` parties made by `make` take each, in bytes; and the parties themselves.
fn each<S>(count: usize, make: impl Fn() -> Fallible<S>) -> Fallible<(f64, Vec<S>)> {
    let settling = count / 4;
    let mut kept = Vec::with_capacity(settling + count);
    // What the making leaves behind besides, it leaves here, and finds again.
    for _ in 0..settling {
        kept.push(make()?);
    }
    let before = anonymous(&fs::read_to_string(ROLLUP)?)?;
    for _ in 0..count {
        kept.push(make()?);
    }
    let grown = anonymous(&fs::read_to_string(ROLLUP)?)?.saturating_sub(before);
    if grown == 0 {
        return Err("memory did not grow: nothing was measured".into());
    }
    Ok((grown as f64 / count as f64, kept))
}

/// Threads that measure one after the other, and then hold what they made until all have measured:
/// each has a heap of its own, and none finds the holes that another has left.
struct Heaps<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    held: &'scope Mutex<()>,
    count: usize,
}

impl<'scope> Heaps<'scope, '_> {
    fn measure<S>(&self, make: impl Fn() -> Fallible<S> + Send + 'scope) -> Fallible<f64> {
        let (sender, receiver) = mpsc::channel();
        let (held, count) = (self.held, self.count);
        self.scope.spawn(move || {
            let (figure, kept) = match each(count, make) {
                Ok((bytes, kept)) => (Ok(bytes), kept),
                Err(error) => (Err(error), Vec::new()),
            };
            // Nobody listens only after an error.
            let _sent = sender.send(figure);
            let _released = held.lock();
            drop(kept);
        });
        receiver.recv()?
    }

    fn figures<C: Client, S: Server>(
        &self,
        client: impl Fn() -> Fallible<C> + Copy + Send + 'scope,
        server: impl Fn() -> S + Copy + Send + 'scope,
    ) -> Fallible<Figures> {
        Ok(Figures {
            idle: self.measure(move || idle(client()?, server()))?,
            half_open: self.measure(move || half_open(client()?, server()))?,
        })
    }
}

/// A server whose channel is open.
fn idle<C: Client, S: Server>(mut client: C, mut server: S) -> Fallible<S> {
    connect(&mut client, &mut server)?;
    Ok(server)
}

/// A server that has answered the client's first flight.
fn half_open<C: Client, S: Server>(mut client: C, mut server: S) -> Fallible<S> {
    let hello = client.answer(&[])?;
    let answer = server.receive(&hello).map_err(|refusal| S::check(&refusal))?;
    if answer.is_empty() || server.is_connected() {
        return Err("a server that did not answer is not half open".into());
    }
    Ok(server)
}

/// One party's figures, in bytes.
struct Figures {
    idle: f64,
    half_open: f64,
}

/// Measures and compares.
pub(super) fn rows(tree: &Tree, rounds: usize) -> Fallible<Vec<Row>> {
    let count = (rounds * KEPT_PER_ROUND).clamp(KEPT[0], KEPT[1]);
    let tls = Tls::new(tree)?;
    let noise = Noise::new(Backend::Shipped)?;
    let [c1, c2] = MODES.map(|mode| Ours::new(tree, Setting::of(mode)));
    let (c1, c2) = (c1?, c2?);
    let sm2 = Ours::new(&sm2_tree()?, Setting::of(Mode::C1))?;
    let [a1, a2, a3] = PAIRED_MODES.map(|mode| Paired::new(tree, Setting::of(mode)));
    let (a1, a2, a3) = (a1?, a2?, a3?);
    let held = Mutex::new(());
    let [of_c1, of_c2, of_sm2, of_a1, of_a2, of_a3, of_tls, of_noise] =
        std::thread::scope(|scope| {
            let _hold = held.lock(); // released before the scope waits for its threads
            let heaps = Heaps { scope, held: &held, count };
            Ok::<_, Box<dyn Error + Send + Sync>>([
                heaps.figures(|| c1.client(), || c1.server())?,
                heaps.figures(|| c2.client(), || c2.server())?,
                heaps.figures(|| sm2.client(), || sm2.server())?,
                heaps.figures(|| a1.client(), || a1.server())?,
                heaps.figures(|| a2.client(), || a2.server())?,
                heaps.figures(|| a3.client(), || a3.server())?,
                heaps.figures(|| tls.client(), || tls.server())?,
                heaps.figures(|| noise.client(), || noise.server())?,
            ])
        })?;
    let mut rows = Vec::new();
    for (name, ours) in [
        ("C1", &of_c1),
        ("C2", &of_c2),
        ("C1, suite SM2_SM4GCM_SM3", &of_sm2),
        ("A1", &of_a1),
        ("A2", &of_a2),
        ("A3", &of_a3),
    ] {
        let idle = Row::new(format!("memory of an idle channel, {name}"), ours.idle, "bytes");
        let half =
            Row::new(format!("memory of a half-open contact, {name}"), ours.half_open, "bytes");
        rows.extend([
            idle.clone().against("rustls ServerConnection", of_tls.idle),
            idle.against("snow TransportState", of_noise.idle),
            half.clone().against("rustls ServerConnection", of_tls.half_open),
            half.against("snow HandshakeState", of_noise.half_open),
        ]);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_read_in_bytes_and_its_absence_is_an_error() {
        assert_eq!(anonymous("Rss:   1 kB\nAnonymous:      112 kB\nKSM: 0 kB\n").unwrap(), 114_688);
        for wrong in ["", "Rss: 1 kB", "Anonymous: many kB", "Anonymous: 112"] {
            assert!(anonymous(wrong).is_err(), "{wrong}");
        }
    }

    /// Set in the process that measures.
    const ALONE: &str = "COUNTERSIGN_BENCH_ALONE";

    #[test]
    fn what_is_kept_is_what_is_measured() {
        const LEN: usize = 100_000;
        if std::env::var_os(ALONE).is_none() {
            // The other tests of this process take memory and give it back meanwhile.
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "channel::memory::tests::what_is_kept_is_what_is_measured"]);
            let output = again.env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let (bytes, kept) = each(400, || Ok(vec![1_u8; LEN])).unwrap();
        assert_eq!(kept.len(), 500);
        assert!((0.9 * LEN as f64..1.5 * LEN as f64).contains(&bytes), "{bytes}");
    }
}

//! A link that takes its time: a TCP proxy that holds back what it carries.
//!
//! Threads that sleep, and no timers of the runtime: those count in whole milliseconds, which is as
//! much as is to be measured.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::Fallible;

const CHUNK: usize = 16 * 1024;

/// A proxy to somewhere. It lives as long as the process.
pub(super) struct Link {
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Link {
    /// To `to`, with this round trip: half of it in each direction.
    pub(super) fn to(to: SocketAddr, round_trip: Duration) -> Fallible<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let held = round_trip / 2;
        thread::spawn(move || {
            for near in listener.incoming() {
                let joined = near.and_then(|near| join(&near, to, held));
                if let Err(error) = joined {
                    eprintln!("bench: a link did not come about: {error}");
                }
            }
        });
        Ok(Self { address })
    }
}

fn join(near: &TcpStream, to: SocketAddr, held: Duration) -> std::io::Result<()> {
    let far = TcpStream::connect(to)?;
    for stream in [near, &far] {
        stream.set_nodelay(true)?;
    }
    carry(near.try_clone()?, far.try_clone()?, held);
    carry(far, near.try_clone()?, held);
    Ok(())
}

/// One direction: one thread reads and notes when, another writes when it is time.
fn carry(mut from: TcpStream, mut to: TcpStream, held: Duration) {
    let (sender, chunks) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + held, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        let _gone = to.shutdown(Shutdown::Both);
    });
}

/// A server that says what it hears, and a stream to it: what a link takes without anything else.
pub(super) struct Echo(TcpStream);

impl Echo {
    /// Through a link of its own with this round trip.
    pub(super) fn over(round_trip: Duration) -> Fallible<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let link = Link::to(listener.local_addr()?, round_trip)?;
        thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                let _gone = stream.set_nodelay(true);
                let mut buffer = vec![0; CHUNK];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            }
        });
        let stream = TcpStream::connect(link.address)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// There and back with so many bytes. Blocking.
    pub(super) fn round_trip(&mut self, len: usize) -> Fallible<Duration> {
        let (said, mut heard) = (vec![7; len], vec![0; len]);
        let begun = Instant::now();
        self.0.write_all(&said)?;
        self.0.read_exact(&mut heard)?;
        Ok(begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_its_round_trip_and_carries_everything() {
        for millis in [0, 20] {
            let mut echo = Echo::over(Duration::from_millis(millis)).unwrap();
            let took = echo.round_trip(100_000).unwrap();
            assert!(took >= Duration::from_millis(millis), "{took:?}");
        }
    }
}

//! Datagrams: the checksum below them, and a UDP socket as a [`Transport`].
//!
//! The channel expects that the link below it drops what it damaged. UDP's own checksum is short
//! and optional, so every datagram travels with a CRC-32 behind it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};

use countersign_channel::HANDSHAKE_FRAME_MAX;
use crc::{CRC_32_ISO_HDLC, Crc};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use zeroize::Zeroizing;

use crate::Transport;

/// The longest datagram, in bytes: a handshake message with its header. Those of a read have at
/// most about 1100, so that no network on the way has to cut them.
pub const DATAGRAM_MAX: usize = 8 + HANDSHAKE_FRAME_MAX;
/// Bytes of the checksum behind each datagram.
pub const CHECKSUM_LEN: usize = 4;

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The CRC-32 (ISO-HDLC) of these pieces one after the other, big-endian.
pub(crate) fn checksum(pieces: &[&[u8]]) -> [u8; CHECKSUM_LEN] {
    let mut digest = CRC.digest();
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize().to_be_bytes()
}

/// A datagram as it travels: with its checksum behind it.
#[must_use]
pub fn with_checksum(datagram: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(datagram.len() + CHECKSUM_LEN));
    out.extend_from_slice(datagram);
    out.extend_from_slice(&checksum(&[datagram]));
    out
}

/// The datagram that arrived, if its checksum fits and it is not longer than [`DATAGRAM_MAX`].
#[must_use]
pub fn checked(arrived: &[u8]) -> Option<&[u8]> {
    let (datagram, sum) = arrived.split_last_chunk::<CHECKSUM_LEN>()?;
    (datagram.len() <= DATAGRAM_MAX && *sum == checksum(&[datagram])).then_some(datagram)
}

/// A UDP socket that talks to one peer.
#[derive(Debug)]
pub struct UdpLink(UdpSocket);

impl UdpLink {
    /// Opens a socket to `peer`, `host:port`; nothing is sent yet.
    ///
    /// # Errors
    /// The system's: the name has no address, no network.
    pub async fn connect(peer: &str) -> io::Result<Self> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host(peer).await? {
            match Self::connect_to(address).await {
                Ok(link) => return Ok(link),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(peer: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(peer).await?;
        Ok(Self(socket))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// The system's; of a peer that is not there the next call may tell.
    pub async fn send_one(&self, datagram: &[u8]) -> io::Result<()> {
        self.0.send(&with_checksum(datagram)).await.map(drop)
    }

    /// Waits for the next undamaged datagram and gives how many of `into` it fills. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn receive_one(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let arrived = self.0.recv(into).await?;
            if let Some(datagram) = checked(&into[..arrived]) {
                return Ok(datagram.len());
            }
        }
    }
}

impl Transport for UdpLink {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            let mut buffer = ReadBuf::new(into);
            ready!(self.0.poll_recv(cx, &mut buffer))?;
            if let Some(datagram) = checked(buffer.filled()) {
                return Poll::Ready(Ok(Some(datagram.len())));
            }
        }
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        for part in parts {
            self.send_one(part.as_ref()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cut_or_overlong_datagram_is_none() {
        assert_eq!(
            checksum(&[b"1234", b"56789"]),
            0xcbf4_3926_u32.to_be_bytes(),
            "the catalogue's"
        );
        for datagram in [&[][..], b"CS", &[7; DATAGRAM_MAX]] {
            let sent = with_checksum(datagram);
            assert_eq!(checked(&sent), Some(datagram));
            assert_eq!(checked(&sent[..sent.len() - 1]), None);
            for bit in 0..sent.len().min(64) * 8 {
                let mut damaged = sent.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(checked(&damaged), None, "{bit}");
            }
        }
        assert_eq!(checked(&with_checksum(&[7; DATAGRAM_MAX + 1])), None);
        assert_eq!(checked(b"abc"), None);
    }
}

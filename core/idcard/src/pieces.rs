//! Cutting a whole into numbered pieces, and putting them together in any order (C9, C10).

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::{Bytes, DataError, PACKET_DATA_MAX, PACKETS_MAX, Packet};

/// Cuts into pieces of [`PACKET_DATA_MAX`] bytes; the last one is shorter. `whole` has at most
/// [`PACKETS_MAX`] times that.
pub(crate) fn cut(whole: &[u8]) -> Vec<Packet> {
    let total = u8::try_from(whole.len().div_ceil(PACKET_DATA_MAX)).expect("PACKETS_MAX at most");
    let chunks = whole.chunks(PACKET_DATA_MAX);
    (0..total)
        .zip(chunks)
        .map(|(index, chunk)| {
            let data = Bytes::new(chunk).expect("chunks are at most PACKET_DATA_MAX long");
            Packet { index, total, data }
        })
        .collect()
}

/// The pieces that have come.
#[derive(Default)]
pub(crate) struct Pieces {
    pieces: [Option<Bytes<PACKET_DATA_MAX>>; PACKETS_MAX],
    /// Known from the first piece on.
    total: Option<u8>,
}

impl Pieces {
    /// Takes a piece of a whole of at most `len_max` bytes; true if it was missing.
    pub(crate) fn push(&mut self, piece: &Packet, len_max: usize) -> Result<bool, DataError> {
        let Packet { index, total, ref data } = *piece;
        if total == 0
            || usize::from(total) > PACKETS_MAX
            || self.total.is_some_and(|known| known != total)
        {
            return Err(DataError::PacketCount { total });
        }
        if index >= total {
            return Err(DataError::PacketIndex { index, total });
        }
        let full = index + 1 < total;
        if data.is_empty() || (full && data.len() != PACKET_DATA_MAX) {
            return Err(DataError::Length { part: "packet", len: data.len() });
        }
        // All pieces but the last are full, whether they have come or not.
        let before_last = usize::from(total - 1) * PACKET_DATA_MAX;
        if before_last + if full { 1 } else { data.len() } > len_max {
            return Err(DataError::PacketCount { total });
        }
        self.total = Some(total);
        match &self.pieces[usize::from(index)] {
            Some(known) if known == data => Ok(false),
            Some(_) => Err(DataError::PacketConflict { index }),
            None => {
                self.pieces[usize::from(index)] = Some(data.clone());
                Ok(true)
            }
        }
    }

    pub(crate) const fn total(&self) -> Option<u8> {
        self.total
    }

    /// Bit i is piece i. All that there may be, as long as nobody told how many there are.
    pub(crate) fn missing(&self) -> u8 {
        let total = self.total.map_or(PACKETS_MAX, usize::from);
        let absent = self.pieces[..total].iter().enumerate().filter(|(_, piece)| piece.is_none());
        absent.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// The whole, once nothing is missing.
    pub(crate) fn join(&self) -> Option<Zeroizing<Vec<u8>>> {
        if self.missing() != 0 {
            return None;
        }
        // At its final size from the start: growing would leave copies behind.
        let pieces = || self.pieces.iter().flatten();
        let len = pieces().map(Bytes::len).sum();
        let mut whole = Zeroizing::new(Vec::with_capacity(len));
        pieces().for_each(|piece| whole.extend_from_slice(piece.as_slice()));
        Some(whole)
    }
}

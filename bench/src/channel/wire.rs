//! What a handshake puts on the wire, and how often the client waits.

use countersign_channel::Mode;

use super::worlds::{Handshake, Worlds};
use crate::Fallible;
use crate::measure::median;
use crate::party::{Client, Server, Talk, connect};
use crate::report::Row;

/// Handshakes looked at: signatures differ in length by a few bytes.
const HANDSHAKES: usize = 9;

const MTLS: &str = "rustls mTLS";
const NOISE: &str = "snow XX-25519, which has no certificates";

/// Medians of bytes and of round trips.
fn talk<C: Client, S: Server>(
    client: impl Fn() -> Fallible<C>,
    server: impl Fn() -> S,
) -> Fallible<(f64, f64)> {
    let talks: Vec<Talk> = (0..HANDSHAKES)
        .map(|_| connect(&mut client()?, &mut server()))
        .collect::<Result<_, _>>()?;
    let median_of = |figure: fn(&Talk) -> usize| {
        median(&talks.iter().map(|talk| figure(talk) as f64).collect::<Vec<_>>())
    };
    Ok((median_of(|talk| talk.bytes), median_of(|talk| talk.round_trips)))
}

/// Measures and compares.
pub(super) fn rows(worlds: &Worlds) -> Fallible<Vec<Row>> {
    let Worlds { ours, tls, noise, .. } = worlds;
    let (tls_bytes, tls_trips) = talk(|| tls.client(), || tls.server())?;
    let (noise_bytes, noise_trips) = talk(|| noise.client(), || noise.server())?;
    let mut rows = Vec::new();
    for Handshake { mode, cached, sm2, .. } in ours {
        let (bytes, trips) = talk(|| cached.reader(), || cached.server())?;
        let (sm2_bytes, _) = talk(|| sm2.reader(), || sm2.server())?;
        let row = |mode: &Mode| Row::new(format!("bytes of a handshake, {mode:?}"), bytes, "bytes");
        let sm2_row = format!("bytes of a handshake, {mode:?}, suite SM2_SM4GCM_SM3");
        let trips_row = format!("round trips before the client's data, {mode:?}");
        rows.extend([
            row(mode).against(MTLS, tls_bytes),
            row(mode).against(NOISE, noise_bytes),
            Row::new(sm2_row, sm2_bytes, "bytes").against("our P-256 suite", bytes),
            Row::new(trips_row.clone(), trips, "").against(MTLS, tls_trips),
            Row::new(trips_row, trips, "").against(NOISE, noise_trips),
        ]);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::party::tree::Tree;

    #[test]
    fn both_handshakes_cost_one_round_trip_more_than_their_peers() {
        let worlds = Worlds::new(&Tree::new().unwrap()).unwrap();
        let Worlds { ours, tls, noise, .. } = &worlds;
        for Handshake { cached, .. } in ours {
            let (bytes, trips) = talk(|| cached.reader(), || cached.server()).unwrap();
            assert_eq!(trips, 2.0);
            assert!(bytes > 1000.0, "two certificates and two signatures: {bytes}");
        }
        assert_eq!(talk(|| tls.client(), || tls.server()).unwrap().1, 1.0);
        let (bytes, trips) = talk(|| noise.client(), || noise.server()).unwrap();
        assert_eq!(trips, 1.0);
        // Two ephemeral and two static keys, four tags: Noise, revision 34, §7.5.
        assert_eq!(bytes, 4.0 * 32.0 + 4.0 * 16.0);
    }
}

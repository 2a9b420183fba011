//! What a handshake puts on the wire, and how often the client waits.

use countersign_channel::Mode;

use super::worlds::{Handshake, Worlds};
use crate::Fallible;
use crate::measure::median;
use crate::party::{Client, Contacts, Server, Talk, connect};
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

/// What our handshakes put on the wire.
struct Ours {
    mode: Mode,
    bytes: f64,
    trips: f64,
    sm2_bytes: f64,
}

fn ours<C: Contacts>(handshake: &Handshake<C>) -> Fallible<Ours> {
    let Handshake { mode, cached, sm2, .. } = handshake;
    let (bytes, trips) = talk(|| cached.client(), || cached.server())?;
    let (sm2_bytes, _) = talk(|| sm2.client(), || sm2.server())?;
    Ok(Ours { mode: *mode, bytes, trips, sm2_bytes })
}

/// Measures and compares.
pub(super) fn rows(worlds: &Worlds) -> Fallible<Vec<Row>> {
    let Worlds { ours: of_readers, paired, tls, noise, .. } = worlds;
    let (tls_bytes, tls_trips) = talk(|| tls.client(), || tls.server())?;
    let (noise_bytes, noise_trips) = talk(|| noise.client(), || noise.server())?;
    let mut rows = Vec::new();
    for talked in of_readers.iter().map(ours).chain(paired.iter().map(ours)) {
        let Ours { mode, bytes, trips, sm2_bytes } = talked?;
        let row = |mode: Mode| Row::new(format!("bytes of a handshake, {mode:?}"), bytes, "bytes");
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
    fn all_handshakes_cost_one_round_trip_more_than_their_peers() {
        let worlds = Worlds::new(&Tree::new().unwrap()).unwrap();
        let Worlds { ours: of_readers, paired, tls, noise, .. } = &worlds;
        for talked in of_readers.iter().map(ours).chain(paired.iter().map(ours)) {
            let Ours { mode, bytes, trips, sm2_bytes } = talked.unwrap();
            assert_eq!(trips, 2.0, "{mode:?}");
            // Two certificates and two signatures; a pair that connects sends no certificates.
            let connects = matches!(mode, Mode::A2 | Mode::A3);
            assert_eq!(bytes > 1000.0, !connects, "{mode:?}: {bytes}");
            assert!(sm2_bytes > bytes, "its shares are longer");
        }
        assert_eq!(talk(|| tls.client(), || tls.server()).unwrap().1, 1.0);
        let (bytes, trips) = talk(|| noise.client(), || noise.server()).unwrap();
        assert_eq!(trips, 1.0);
        // Two ephemeral and two static keys, four tags: Noise, revision 34, §7.5.
        assert_eq!(bytes, 4.0 * 32.0 + 4.0 * 16.0);
    }
}

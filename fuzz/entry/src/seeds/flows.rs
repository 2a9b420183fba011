//! Scripts for the two flows of a read.

use super::Named;

pub(super) fn server_flow() -> Named {
    // Each step ends with a byte that says whether the owner looks.
    let begin = |kind: u8| [vec![0, kind], vec![1; 16], vec![0]].concat();
    let answer = [vec![0, 3], vec![2; 16], vec![0]].concat();
    let challenge = [vec![8, 0], vec![3; 8], vec![0]].concat();
    let proof = [vec![8, 2], vec![4; 8], vec![0]].concat();
    // Packet 0 and 1: the kind's upper bits choose; 5 to 7 modulo 14 is a packet.
    let (first, second) = (vec![0, 5, 0], vec![0, 0x13, 0]);
    let plaintext = vec![8, 3, 0];
    // Settings: bit 0 lets the plaintext be kept, bit 1 is datagrams.
    let with = |settings: u8, steps: &[&[u8]]| [&[settings], &steps.concat()[..]].concat();
    let packets = [&first[..], &second].concat();
    let quiet = [13, 0x03, 0xE8, 0];
    let (gone, parts_wanted, received) = ([8, 6, 0], [0, 12, 3, 0], [0, 13, 0]);
    vec![
        ("card", with(0, &[&begin(0), &challenge, &answer, &proof, &packets, &plaintext])),
        ("cache", with(1, &[&begin(0x8C), &packets, &challenge, &plaintext])),
        (
            "any-order",
            with(0, &[&begin(0), &challenge, &answer, &proof, &second, &first, &plaintext]),
        ),
        (
            "datagrams",
            with(
                2,
                &[
                    &begin(0),
                    &begin(0),
                    &challenge,
                    &quiet,
                    &answer,
                    &answer,
                    &proof,
                    &second,
                    &quiet,
                    &packets,
                    &plaintext,
                    &parts_wanted,
                    &received,
                    &begin(0),
                ],
            ),
        ),
        ("datagrams-refused", with(2, &[&begin(0), &[12, 2, 1, 2, 0], &begin(0), &quiet])),
        (
            "sam-replaced",
            with(
                0,
                &[
                    &begin(0),
                    &gone,
                    &challenge,
                    &answer,
                    &gone,
                    &challenge,
                    &[0, 3],
                    &[5; 16],
                    &[0],
                    &proof,
                ],
            ),
        ),
        (
            "sam-replaced-late",
            with(0, &[&begin(0x8C), &packets, &challenge, &gone, &challenge, &plaintext]),
        ),
        ("busy", with(0, &[&begin(0), &[12, 2, 1, 2, 0]])),
        ("late", with(0, &[&begin(0), &challenge, &[13, 0xFF, 0xFF, 0]])),
        ("sam-gone", with(0, &[&begin(0), &[8, 6, 0]])),
        ("card-unfit", with(0, &[&begin(0), &challenge, &answer, &[8, 7, 0], &[8, 5, 0]])),
        ("aborted", with(0, &[&begin(0), &challenge, &[0, 9, 0], &[8, 5, 0]])),
        ("nobody-looks", with(0, &[&[0, 0], &[1; 16], &[1], &[0, 9, 1], &[8, 5, 1]])),
        ("out-of-turn", with(0, &[&answer])),
        ("raw", with(0, &[&[0, 10, 3, 1, 2, 3, 0]])),
    ]
}

pub(super) fn reader_flow() -> Named {
    let begin = |card: u8| [vec![card], vec![1; 16]].concat();
    let challenge = [vec![0, 0], vec![3; 8]].concat();
    let proof = [vec![0, 2], vec![4; 8]].concat();
    let (answered, encrypted) = (vec![8, 4], vec![8, 4]);
    // 0x86 modulo 10 is a plaintext too, one that may be kept.
    let plaintext = |keep: u8| vec![0, if keep == 0 { 4 } else { 0x86 }];
    const NEXT: [u8; 1] = [15];
    let read = |card: u8, keep: u8| {
        [begin(card), challenge.clone(), answered.clone(), proof.clone(), encrypted.clone()]
            .into_iter()
            .chain([plaintext(keep), NEXT.to_vec()])
            .flatten()
            .collect::<Vec<u8>>()
    };
    // Settings: bit 0 is one card's cache, bit 1 datagrams.
    let with = |settings: u8, steps: &[&[u8]]| [&[settings], &steps.concat()[..]].concat();
    let packets_wanted = [0, 3];
    let (second_wanted, part) = ([0, 8, 2], |at: u8| [0, 9, at]);
    let to_the_packets =
        [begin(1), challenge.clone(), answered.clone(), proof.clone(), encrypted.clone()].concat();
    let other_challenge = [vec![0, 0], vec![5; 8]].concat();
    let quiet = [12, 0x03, 0xE8];
    vec![
        ("card", with(0, &[&read(1, 0)])),
        ("kept", with(0, &[&read(1, 0x80), &begin(1)])),
        ("single-card", with(1, &[&read(1, 0x80), &read(2, 0x80), &begin(1)])),
        ("packets-kept", with(0, &[&read(1, 0), &begin(1), &packets_wanted, &plaintext(0), &NEXT])),
        ("many-cards", with(0, &[&(0..10).flat_map(|card| read(card, 0x80)).collect::<Vec<_>>()])),
        ("resend", with(0, &[&to_the_packets, &second_wanted, &plaintext(0), &NEXT])),
        (
            "sam-replaced",
            with(0, &[&begin(1), &challenge, &answered, &other_challenge, &answered, &proof]),
        ),
        (
            "datagrams",
            with(
                2,
                &[
                    &begin(1),
                    &quiet,
                    &challenge,
                    &challenge,
                    &answered,
                    &challenge,
                    &quiet,
                    &proof,
                    &encrypted,
                    &quiet,
                    &proof,
                    &second_wanted,
                    &part(1),
                    &quiet,
                    &part(1),
                    &part(0),
                    &NEXT,
                ],
            ),
        ),
        ("fingerprint", with(0, &[&read(0x11, 0x80), &begin(1)])),
        ("refused", with(0, &[&begin(1), &[0, 6, 2, 1, 2, 0], &NEXT, &read(1, 0)])),
        ("late", with(0, &[&begin(1), &[12, 0xFF, 0xFF], &NEXT])),
        ("removed", with(0, &[&begin(1), &[13], &NEXT])),
        ("card-failed", with(0, &[&begin(1), &challenge, &[8, 0], &NEXT])),
        ("out-of-turn", with(0, &[&begin(1), &proof, &NEXT])),
        ("raw", with(0, &[&begin(1), &[0, 7, 3, 1, 2, 3]])),
    ]
}

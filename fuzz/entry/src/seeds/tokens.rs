//! Seeds of the key tokens: each kind as it is, altered, and altered and signed.

use super::Named;
use crate::hierarchy::tree;

pub(super) fn tokens() -> Named {
    let flip =
        |which: u8, how: u8, at: u16| [&[which, how, 1][..], &at.to_be_bytes(), &[3]].concat();
    let raw = |bytes: &[u8]| [&[0, 2][..], bytes].concat();
    let (two, one, bind, unbind_ca, rebind_ca) = (0, 1, 2, 6, 7);
    let in_2012 = 3 << 3;
    vec![
        ("two-pass", vec![two]),
        ("two-pass-2012", vec![two | in_2012]),
        ("one-pass", vec![one]),
        ("one-pass-printed", vec![one | 2 << 3]),
        ("credential-kdh", vec![bind]),
        ("credential-krd", vec![3]),
        ("request", vec![4]),
        ("unbind", vec![5]),
        ("unbind-ca", vec![unbind_ca]),
        ("rebind-ca", vec![rebind_ca]),
        ("version", flip(two, 0, 25)),
        ("list", flip(two, 0, 700)),
        ("bind-list", flip(bind, 0, 1400)),
        ("content-signed", flip(two, 3, 330)),
        ("content-signed-2012", flip(two | in_2012, 3, 40)),
        ("recipient-signed", flip(one, 3, 60)),
        ("unbind-other-signed", flip(5, 3, 30)),
        ("cut", vec![two, 0, 4, 2, 0, 0]),
        ("raw-certificate", raw(tree().kdh.certificate.raw())),
        ("raw-list", raw(&tree().crl)),
    ]
}

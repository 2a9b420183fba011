//! Seeds of the RSA hierarchy: everything genuine, then altered, then signed by this one or that.

use super::Named;
use crate::hierarchy::tree;

pub(super) fn hierarchy() -> Named {
    let raw = |der: &[u8]| [&[0, 1][..], der].concat();
    let flip = |what: u8, at: u16| [&[what, 0, 1][..], &at.to_be_bytes(), &[3]].concat();
    // Signed by 0 the root, 1 CA_KDH, 2 Sub_CA_KRD, 3 the KDH, 4 the terminal.
    let signed = |what: u8, by: u8, edits: &[u8]| [&[what, by << 2 | 2][..], edits].concat();
    let tree = tree();
    vec![
        ("root", vec![0]),
        ("ca-kdh", vec![1 << 2]),
        ("ca-krd", vec![2 << 2]),
        ("kdh", vec![3 << 2]),
        ("krd", vec![4 << 2]),
        ("list", vec![2]),
        ("list-with-entry", vec![2 | 1 << 2]),
        ("request", vec![3]),
        ("raw-kdh", raw(tree.kdh.certificate.raw())),
        ("raw-list", raw(&tree.krd_crl)),
        ("raw-request", raw(&tree.request)),
        ("kdh-flipped", flip(3 << 2, 300)),
        ("list-flipped", flip(2, 60)),
        ("request-flipped", flip(3, 200)),
        ("kdh-by-ca-krd", signed(3 << 2, 2, &[])),
        ("krd-by-ca-kdh", signed(4 << 2, 1, &[])),
        ("kdh-edited-by-its-ca", signed(3 << 2, 1, &[1, 0, 20, 3])),
        ("krd-by-the-root", signed(4 << 2, 0, &[])),
        ("list-edited-by-its-ca", signed(2, 1, &[1, 0, 120, 0])),
        ("request-edited-by-its-key", signed(3, 4, &[1, 0, 30, 1])),
    ]
}

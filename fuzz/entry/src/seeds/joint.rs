use countersign_payment::joint::{Form, Language, Picture, check_digit};

use super::Named;
use crate::joint::commitment;

/// Edits: `setting`, `part`, one edit (`operation, place, argument`).
fn edit(setting: u8, part: u8, operation: u8, at: u16, argument: u8) -> Vec<u8> {
    [&[1, setting, part, operation][..], &at.to_be_bytes(), &[argument]].concat()
}

pub(super) fn joint_commitment() -> Named {
    let whole = |sm2, form| [&[0], commitment(sm2, form)].concat();
    let check = check_digit(b"31415926");
    let text = |text: &str| [&[2], text.as_bytes()].concat();
    let names = |names: &[&str]| {
        let framed = names.iter().map(|name| {
            [&[u8::try_from(name.len()).expect("short")][..], name.as_bytes()].concat()
        });
        [vec![3], framed.collect::<Vec<_>>().concat()].concat()
    };
    let right = ["sun", "太阳", "Sun", "sun", "sun", "sun", "sun", "太阳", zero_check()];
    vec![
        ("sealed", whole(false, Form::Sealed)),
        ("sealed-sm2", whole(true, Form::Sealed)),
        ("sealed-random", whole(false, Form::SealedRandom)),
        ("digest", whole(false, Form::Digest)),
        ("digest-sm2", whole(true, Form::Digest)),
        ("form-unknown", [&[0, 4], &commitment(false, Form::Digest)[1..]].concat()),
        ("commitment-flipped", edit(0, 0, 1, 80, 3)),
        ("commitment-form", edit(0, 0, 0, 0, 2)),
        ("commitment-longer-sm2", [&edit(1, 0, 6, 0, 1)[..], &[0]].concat()),
        ("signature-flipped", edit(2, 1, 1, 40, 1)),
        ("signature-cut-sm2", edit(5, 1, 4, 8, 0)),
        ("transaction-amount", edit(4, 2, 1, 35, 1)),
        ("serial", edit(4, 3, 1, 3, 1)),
        ("serial-sealed", edit(0, 3, 1, 3, 1)),
        ("password-digit", edit(4, 4, 1, 2, 0)),
        ("untouched", vec![1, 4, 0]),
        ("typed", text(&format!("31415926{check}"))),
        ("typed-groups", text(&format!("3141 5926-{check}"))),
        ("typed-full-width", text("１２３４５６７８９")),
        ("pictures", names(&right)),
    ]
}

/// The picture of the check digit of eight zeros.
fn zero_check() -> &'static str {
    let picture = Picture::of_digit(check_digit(b"00000000")).expect("a digit");
    picture.name(Language::En)
}

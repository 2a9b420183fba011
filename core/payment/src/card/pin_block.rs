//! PINs on their way to a card: ISO 9564-1 format 2, `2L`, the digits, filled up with `F`.

use alloc::vec;

use countersign_crypto::Secret;
use zeroize::Zeroizing;

/// Length of a block, in bytes.
pub const BLOCK_LEN: usize = 8;
/// Fewest digits of a PIN (ISO 9564-1, 8.1).
pub const PIN_MIN: usize = 4;
/// Most digits of a PIN (ISO 9564-1, 8.1).
pub const PIN_MAX: usize = 12;
/// Digits of a PUK.
pub const PUK_LEN: usize = 8;

/// What each block begins with: the format.
const FORMAT: u8 = 2;
const FILLER: u8 = 0xf;

/// A block of its digits (ASCII); `None` unless there are [`PIN_MIN`] to [`PIN_MAX`], all decimal.
#[must_use]
pub fn encode(pin: &Secret) -> Option<Zeroizing<[u8; BLOCK_LEN]>> {
    let digits = pin.expose();
    if !(PIN_MIN..=PIN_MAX).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut block = Zeroizing::new([0xff; BLOCK_LEN]);
    block[0] = FORMAT << 4 | u8::try_from(digits.len()).ok()?;
    for (digit, at) in digits.iter().zip(2..) {
        set_half(&mut block, at, digit - b'0');
    }
    Some(block)
}

/// The digits (ASCII) of a block; `None` if it is none: another format, a length of no PIN, a digit
/// above 9, something else than filler behind.
#[must_use]
pub fn decode(block: &[u8; BLOCK_LEN]) -> Option<Secret> {
    let len = usize::from(half(block, 1));
    if half(block, 0) != FORMAT || !(PIN_MIN..=PIN_MAX).contains(&len) {
        return None;
    }
    let digits = (0..len).all(|digit| half(block, digit + 2) <= 9);
    let filled = (len + 2..2 * BLOCK_LEN).all(|at| half(block, at) == FILLER);
    if !digits || !filled {
        return None;
    }
    let mut pin = vec![0; len];
    for (digit, at) in pin.iter_mut().zip(2..) {
        *digit = b'0' + half(block, at);
    }
    Some(Secret::new(pin))
}

/// Half a byte, counted from the front.
const fn half(block: &[u8; BLOCK_LEN], at: usize) -> u8 {
    if at.is_multiple_of(2) { block[at / 2] >> 4 } else { block[at / 2] & 0xf }
}

const fn set_half(block: &mut [u8; BLOCK_LEN], at: usize, value: u8) {
    let byte = &mut block[at / 2];
    *byte = if at.is_multiple_of(2) { value << 4 | *byte & 0xf } else { *byte & 0xf0 | value };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(pin: &str) -> Option<[u8; BLOCK_LEN]> {
        encode(&Secret::copied_from(pin.as_bytes())).map(|block| *block)
    }

    #[test]
    fn blocks_of_format_2() {
        assert_eq!(block("1234"), Some([0x24, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(block("12345"), Some([0x25, 0x12, 0x34, 0x5f, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(block("098765432109"), Some([0x2c, 0x09, 0x87, 0x65, 0x43, 0x21, 0x09, 0xff]));
        for wrong in ["", "123", "1234567890123", "12a4", "１２３４"] {
            assert_eq!(block(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let good = block("1234").unwrap();
        assert!(decode(&good).is_some_and(|pin| pin.ct_eq(b"1234")));
        for (at, value) in
            [(0, 0x14), (0, 0x23), (0, 0x2d), (0, 0x25), (1, 0xa2), (3, 0xf0), (7, 0xfe)]
        {
            let mut wrong = good;
            wrong[at] = value;
            assert!(decode(&wrong).is_none(), "{wrong:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pin in "[0-9]{4,12}") {
            let block = block(&pin).unwrap();
            prop_assert!(decode(&block).unwrap().ct_eq(pin.as_bytes()));
        }

        #[test]
        fn one_block_of_each_pin(bytes in any::<[u8; BLOCK_LEN]>()) {
            if let Some(pin) = decode(&bytes) {
                prop_assert_eq!(*encode(&pin).unwrap(), bytes);
            }
        }
    }
}

//! BER-TLV data objects (ISO/IEC 7816-4, 5.2.2), as far as cards here use them: tags of one or two
//! bytes, lengths to 65 535, one form of each, one level at a time.
//!
//! Ours, not `iso7816-tlv`'s: that one follows nested objects as deep as a card sends them, takes
//! `80` (the indefinite form) and lengths with leading zeros, and writes 127 in two bytes.

use alloc::vec::Vec;

use thiserror::Error;

/// Most bytes of a value.
pub const VALUE_MAX: usize = 65_535;

/// Bytes that are no data object: cut off, longer than allowed, or not in their shortest form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a BER-TLV data object")]
pub struct TlvError;

/// A data object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The tag, as its one or two bytes are.
    pub tag: u16,
    /// The value.
    pub value: &'a [u8],
}

/// Reads the data object at the front of `bytes`, and gives what follows it.
///
/// # Errors
/// [`TlvError`].
pub fn read(bytes: &[u8]) -> Result<(Tlv<'_>, &[u8]), TlvError> {
    let (tag, rest) = read_tag(bytes)?;
    let (len, rest) = read_length(rest)?;
    let (value, rest) = rest.split_at_checked(len).ok_or(TlvError)?;
    Ok((Tlv { tag, value }, rest))
}

/// The value of the only data object in `bytes`, which has this tag.
///
/// # Errors
/// [`TlvError`], also if it has another tag or something follows.
pub fn only(bytes: &[u8], tag: u16) -> Result<&[u8], TlvError> {
    match read(bytes)? {
        (found, []) if found.tag == tag => Ok(found.value),
        _ => Err(TlvError),
    }
}

/// The values of the data objects in `bytes`: exactly these tags, in this order.
///
/// # Errors
/// [`TlvError`].
pub fn exactly<const N: usize>(bytes: &[u8], tags: [u16; N]) -> Result<[&[u8]; N], TlvError> {
    let mut values = [&[][..]; N];
    let mut rest = bytes;
    for (tag, value) in tags.into_iter().zip(&mut values) {
        let (found, after) = read(rest)?;
        if found.tag != tag {
            return Err(TlvError);
        }
        (*value, rest) = (found.value, after);
    }
    if rest.is_empty() { Ok(values) } else { Err(TlvError) }
}

/// Appends a data object.
///
/// # Errors
/// [`TlvError`] for a tag that is none, or a value longer than [`VALUE_MAX`].
pub fn write(out: &mut Vec<u8>, tag: u16, value: &[u8]) -> Result<(), TlvError> {
    let len = u16::try_from(value.len()).map_err(|_| TlvError)?;
    let bytes = tag.to_be_bytes();
    let bytes = if bytes[0] == 0 { &bytes[1..] } else { &bytes[..] };
    if read_tag(bytes)? != (tag, &[][..]) {
        return Err(TlvError);
    }
    out.extend_from_slice(bytes);
    let [upper, lower] = len.to_be_bytes();
    match len {
        0..=0x7f => out.push(lower),
        0x80..=0xff => out.extend_from_slice(&[0x81, lower]),
        _ => out.extend_from_slice(&[0x82, upper, lower]),
    }
    out.extend_from_slice(value);
    Ok(())
}

fn read_tag(bytes: &[u8]) -> Result<(u16, &[u8]), TlvError> {
    match *bytes {
        // Padding between objects, which ISO/IEC 7816-4 allows, is not taken.
        [] | [0 | 0xff, ..] => Err(TlvError),
        // Numbers below 31 have a tag of one byte, those from 128 on have three.
        [first, ref rest @ ..] if first & 0x1f == 0x1f => match *rest {
            [second @ 0x1f..=0x7f, ref rest @ ..] => {
                Ok((u16::from_be_bytes([first, second]), rest))
            }
            _ => Err(TlvError),
        },
        [first, ref rest @ ..] => Ok((u16::from(first), rest)),
    }
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), TlvError> {
    let (len, least, rest) = match *bytes {
        [0x81, len, ref rest @ ..] => (usize::from(len), 0x80, rest),
        [0x82, upper, lower, ref rest @ ..] => {
            (usize::from(u16::from_be_bytes([upper, lower])), 0x100, rest)
        }
        [len @ ..=0x7f, ref rest @ ..] => (usize::from(len), 0, rest),
        _ => return Err(TlvError),
    };
    if len >= least { Ok((len, rest)) } else { Err(TlvError) }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn written(tag: u16, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, tag, value).unwrap();
        out
    }

    #[test]
    fn one_form_of_each_length() {
        assert_eq!(written(0x84, &[1]), [0x84, 1, 1]);
        assert_eq!(written(0x7f21, &[]), [0x7f, 0x21, 0]);
        let head = |len| written(0x5f2d, &vec![0; len])[2..][..3].to_vec();
        assert_eq!(head(0x7f), [0x7f, 0, 0]);
        assert_eq!(head(0x80), [0x81, 0x80, 0]);
        assert_eq!(head(0xff), [0x81, 0xff, 0]);
        assert_eq!(head(0x100), [0x82, 1, 0]);
        assert_eq!(head(VALUE_MAX), [0x82, 0xff, 0xff]);
    }

    #[test]
    fn what_is_no_data_object_is_refused() {
        for wrong in [
            &[][..],
            &[0x84],
            &[0x84, 2, 1],
            &[0, 0],
            &[0xff, 0],
            &[0x84, 0x80],          // indefinite
            &[0x84, 0x81, 0x7f],    // one byte would do
            &[0x84, 0x82, 0, 0x80], // two bytes would do
            &[0x84, 0x83, 1, 0, 0], // longer than anything here
            &[0x5f],                // half a tag
            &[0x5f, 0x1e, 0],       // one byte would do
            &[0x5f, 0x81, 0x01, 0], // three bytes
        ] {
            assert_eq!(read(wrong), Err(TlvError), "{wrong:02x?}");
        }
        let mut out = Vec::new();
        for wrong in [0, 0x5f, 0x8400, 0x5f80, 0x00ff] {
            assert_eq!(write(&mut out, wrong, &[]), Err(TlvError), "{wrong:04x}");
        }
        assert_eq!(write(&mut out, 0x84, &vec![0; VALUE_MAX + 1]), Err(TlvError));
        assert!(out.is_empty());
    }

    #[test]
    fn a_template_has_its_objects_and_no_others() {
        let two = [written(0x80, &[1]), written(0x81, &[2, 3])].concat();
        assert_eq!(exactly(&two, [0x80, 0x81]), Ok([&[1][..], &[2, 3]]));
        for wrong in [&two[..3], &two[3..], &[&two[..], &[0x82, 0]].concat()] {
            assert_eq!(exactly(wrong, [0x80, 0x81]), Err(TlvError));
        }
        assert_eq!(exactly(&two, [0x81, 0x80]), Err(TlvError));
        assert_eq!(only(&two[..3], 0x80), Ok(&[1][..]));
        assert_eq!(only(&two, 0x80), Err(TlvError));
        assert_eq!(only(&two[..3], 0x81), Err(TlvError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            tag in prop_oneof![Just(0x84_u16), Just(0x6f), Just(0x5f2d), Just(0x7f21)],
            len in prop_oneof![0..300_usize, 65_500..=VALUE_MAX], rest in any::<[u8; 2]>(),
        ) {
            let value = vec![7; len];
            let bytes = [&written(tag, &value)[..], &rest].concat();
            prop_assert_eq!(read(&bytes), Ok((Tlv { tag, value: &value }, &rest[..])));
        }

        #[test]
        fn what_is_read_is_written_again(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((object, rest)) = read(&bytes) {
                prop_assert_eq!([&written(object.tag, object.value)[..], rest].concat(), bytes);
            }
        }
    }
}

//! EMV's data objects (EMV Book 3, Annex B): BER-TLV with tags of one or two bytes. Not
//! `countersign_iso7816::tlv`'s: EMV numbers objects below 31 in two bytes (9F02, BF0C).

/// Longest value that is read or written.
const VALUE_MAX: usize = 0xFFFF;

/// A data object.
pub(super) fn object(tag: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 5);
    push_tag(&mut out, tag);
    let len = u16::try_from(value.len().min(VALUE_MAX)).unwrap_or(u16::MAX);
    let [upper, lower] = len.to_be_bytes();
    match len {
        0..=0x7F => out.push(lower),
        0x80..=0xFF => out.extend_from_slice(&[0x81, lower]),
        _ => out.extend_from_slice(&[0x82, upper, lower]),
    }
    out.extend_from_slice(&value[..usize::from(len)]);
    out
}

/// A template of these objects.
pub(super) fn template(tag: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    object(tag, &parts.concat())
}

/// A list of objects that a terminal is to give, with their lengths (EMV Book 3, 5.4).
pub(super) fn list(wanted: &[(u16, u8)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, len) in wanted {
        push_tag(&mut out, *tag);
        out.push(*len);
    }
    out
}

/// What a list asks for; `None` if it is none.
pub(super) fn parse_list(mut bytes: &[u8]) -> Option<Vec<(u16, u8)>> {
    let mut wanted = Vec::new();
    while !bytes.is_empty() {
        let (tag, rest) = read_tag(bytes)?;
        let (len, rest) = rest.split_first()?;
        wanted.push((tag, *len));
        bytes = rest;
    }
    Some(wanted)
}

/// The object at the front, and what follows.
pub(super) fn read(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (tag, rest) = read_tag(bytes)?;
    let (len, rest) = match *rest {
        [len @ ..=0x7F, ref rest @ ..] => (usize::from(len), rest),
        [0x81, len, ref rest @ ..] => (usize::from(len), rest),
        [0x82, upper, lower, ref rest @ ..] => {
            (usize::from(u16::from_be_bytes([upper, lower])), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag, value, rest))
}

/// The objects at one level; what is no object ends them.
pub(super) fn objects(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, value, rest) = read(bytes)?;
        bytes = rest;
        Some((tag, value))
    })
}

/// The first object under `path`, from template to template.
pub(super) fn find<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        objects(bytes).find(|(tag, _)| tag == wanted).map(|(_, value)| value)
    })
}

fn push_tag(out: &mut Vec<u8>, tag: u16) {
    let [upper, lower] = tag.to_be_bytes();
    if upper != 0 {
        out.push(upper);
    }
    out.push(lower);
}

fn read_tag(bytes: &[u8]) -> Option<(u16, &[u8])> {
    match *bytes {
        [first, second @ ..=0x7F, ref rest @ ..] if first & 0x1F == 0x1F => {
            Some((u16::from_be_bytes([first, second]), rest))
        }
        [first, ref rest @ ..] if first & 0x1F != 0x1F => Some((u16::from(first), rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn emv_numbers_small_objects_in_two_bytes() {
        assert_eq!(object(0x9F02, &[1]), [0x9F, 2, 1, 1]);
        assert_eq!(find(&[0xBF, 0x0C, 2, 0x61, 0], &[0xBF0C, 0x61]), Some(&[][..]));
        assert_eq!(parse_list(&[0x9F, 2, 6, 0x95, 5]), Some(vec![(0x9F02, 6), (0x95, 5)]));
        for wrong in [&[0x9F][..], &[0x9F, 2], &[0x95]] {
            assert_eq!(parse_list(wrong), None, "{wrong:02x?}");
        }
        for wrong in [&[][..], &[0x84], &[0x84, 2, 1], &[0x84, 0x80], &[0x9F, 0x81, 1, 0]] {
            assert_eq!(read(wrong), None, "{wrong:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            tag in prop_oneof![Just(0x84_u16), Just(0x9F02), Just(0xBF0C)],
            len in 0..700_usize, rest in any::<[u8; 2]>(),
        ) {
            let value = vec![7; len];
            let bytes = [&object(tag, &value)[..], &rest].concat();
            prop_assert_eq!(read(&bytes), Some((tag, &value[..], &rest[..])));
        }

        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(objects(&bytes).count() <= bytes.len());
            prop_assert!(parse_list(&bytes).is_none_or(|wanted| wanted.len() <= bytes.len()));
        }
    }
}

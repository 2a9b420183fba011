//! Inputs as scripts: the fuzzer's bytes choose what happens, in an order that small changes of
//! the input keep.

/// Most edits that one script makes to a text.
const EDITS_MAX: usize = 8;
/// Most bytes that one edit inserts, deletes or copies.
const EDIT_LEN_MAX: usize = 32;

/// Bytes that are read once, from the front. An empty script gives zeros.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(crate) fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    /// The next `len` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A length of one byte, then that many bytes.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }

    /// Exactly `N` bytes, zeros where there are none.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    pub(crate) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }

    /// Alters `bytes` as the rest of the script says; false if it left them as they were.
    pub(crate) fn edit(&mut self, bytes: &mut Vec<u8>) -> bool {
        let original = bytes.clone();
        for _ in 0..EDITS_MAX {
            if self.is_empty() {
                break;
            }
            self.edit_once(bytes);
        }
        *bytes != original
    }

    /// One edit: `operation, place (2), argument`.
    pub(crate) fn edit_once(&mut self, bytes: &mut Vec<u8>) {
        let operation = self.byte();
        let place = self.number();
        let at = if bytes.is_empty() { 0 } else { place % bytes.len() };
        let argument = self.byte();
        let len = (usize::from(argument) % EDIT_LEN_MAX).min(bytes.len() - at);
        match operation % 7 {
            0 if !bytes.is_empty() => bytes[at] = argument,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << (argument % 8),
            2 => {
                let new = self.bytes(usize::from(argument) % EDIT_LEN_MAX);
                bytes.splice(at..at, new.iter().copied());
            }
            3 => drop(bytes.drain(at..at + len)),
            4 => bytes.truncate(at),
            5 => {
                let from = if bytes.is_empty() { 0 } else { self.number() % bytes.len() };
                let len = len.min(bytes.len() - from);
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes.extend_from_slice(self.bytes(usize::from(argument) % EDIT_LEN_MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_once_and_then_gives_zeros() {
        let mut script = Script::new(&[1, 2, 3, 2, 9, 9, 7]);
        assert_eq!((script.byte(), script.number()), (1, 0x0203));
        assert_eq!(script.short(), [9, 9]);
        assert_eq!(script.array(), [7, 0]);
        assert!(script.is_empty() && script.byte() == 0 && script.bytes(4).is_empty());
    }

    #[test]
    fn every_edit_works_on_every_length() {
        for operation in 0..7 {
            for len in 0..4 {
                let script = [operation, 0, 1, 2, 0xFF, 0xFE];
                let mut bytes = vec![5; len];
                Script::new(&script).edit_once(&mut bytes);
                assert!(bytes.len() <= len + EDIT_LEN_MAX);
            }
        }
        let mut bytes = vec![5; 4];
        assert!(!Script::new(&[]).edit(&mut bytes));
        assert!(Script::new(&[1, 0, 1, 0]).edit(&mut bytes));
        assert_eq!(bytes, [5, 4, 5, 5]);
    }
}

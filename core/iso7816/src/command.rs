use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// Most bytes of data in a short APDU.
pub const SHORT_DATA_MAX: usize = 255;
/// Most bytes that a short APDU asks for.
pub const SHORT_NE_MAX: u32 = 256;
/// Most bytes of data in an extended APDU.
pub const EXTENDED_DATA_MAX: usize = 65_535;
/// Most bytes that an extended APDU asks for.
pub const EXTENDED_NE_MAX: u32 = 65_536;
/// The longest command APDU: header, extended Lc, data, extended Le.
pub const COMMAND_MAX: usize = 4 + 3 + EXTENDED_DATA_MAX + 2;

/// The bit of CLA that says that more commands of a chain follow (ISO/IEC 7816-4, 5.4.1).
pub const CHAIN_BIT: u8 = 0x10;

/// A command APDU (ISO/IEC 7816-4, 5.3), of any of the four cases. Its data may be a PIN, so they
/// are wiped, and `Debug` shows only how many they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Class.
    pub cla: u8,
    /// Instruction.
    pub ins: u8,
    /// First parameter.
    pub p1: u8,
    /// Second parameter.
    pub p2: u8,
    data: Zeroizing<Vec<u8>>,
    ne: u32,
}

/// Bytes that are no command APDU, or data or an Ne that none holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a command APDU")]
pub struct CommandError;

impl Command {
    /// A command without data that asks for none (case 1).
    #[must_use]
    pub fn new(cla: u8, ins: u8, p1: u8, p2: u8) -> Self {
        Self { cla, ins, p1, p2, data: Zeroizing::default(), ne: 0 }
    }

    /// The same with data (case 3 or 4).
    ///
    /// # Errors
    /// [`CommandError`] if they are more than [`EXTENDED_DATA_MAX`].
    pub fn with_data(mut self, data: &[u8]) -> Result<Self, CommandError> {
        if data.len() > EXTENDED_DATA_MAX {
            return Err(CommandError);
        }
        self.data = Zeroizing::new(data.to_vec());
        Ok(self)
    }

    /// The same, asking for up to `ne` bytes (case 2 or 4), at most [`EXTENDED_NE_MAX`]; 0 asks for
    /// none.
    #[must_use]
    pub fn expecting(mut self, ne: u32) -> Self {
        self.ne = ne.min(EXTENDED_NE_MAX);
        self
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// How many bytes it asks for at most, 0 to [`EXTENDED_NE_MAX`].
    #[must_use]
    pub const fn ne(&self) -> u32 {
        self.ne
    }

    /// P1 and P2 as one number.
    #[must_use]
    pub fn parameters(&self) -> u16 {
        u16::from_be_bytes([self.p1, self.p2])
    }

    /// Reads an APDU, short or extended: the lengths that it says are those that it has.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        let (header, body) = bytes.split_at_checked(4).ok_or(CommandError)?;
        let (data, ne) = match *body {
            [] => (&[][..], 0),
            [le] => (&[][..], short_ne(le)),
            [0, _, _, ..] => extended(&body[1..])?,
            // Lc 0 is the mark of an extended APDU, which has at least two bytes more.
            [0, ..] => return Err(CommandError),
            [lc, ref rest @ ..] => {
                let (data, le) = rest.split_at_checked(usize::from(lc)).ok_or(CommandError)?;
                match *le {
                    [] => (data, 0),
                    [le] => (data, short_ne(le)),
                    _ => return Err(CommandError),
                }
            }
        };
        let [cla, ins, p1, p2] = *header else { return Err(CommandError) };
        Ok(Self { cla, ins, p1, p2, data: Zeroizing::new(data.to_vec()), ne })
    }

    /// The APDU: a short one if it fits.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.data.len() + 9));
        out.extend_from_slice(&[self.cla, self.ins, self.p1, self.p2]);
        let lc = u16::try_from(self.data.len()).expect("checked when it was made");
        // The longest is written as zero; the upper byte is cut off.
        let [.., upper, lower] = self.ne.to_be_bytes();
        if self.data.len() <= SHORT_DATA_MAX && self.ne <= SHORT_NE_MAX {
            if lc > 0 {
                out.push(lc.to_be_bytes()[1]);
                out.extend_from_slice(&self.data);
            }
            out.extend((self.ne > 0).then_some(lower));
            return out;
        }
        out.push(0);
        if lc > 0 {
            out.extend_from_slice(&lc.to_be_bytes());
            out.extend_from_slice(&self.data);
        }
        if self.ne > 0 {
            out.extend_from_slice(&[upper, lower]);
        }
        out
    }
}

/// What follows the mark of an extended APDU: at least two bytes.
fn extended(body: &[u8]) -> Result<(&[u8], u32), CommandError> {
    let (length, rest) = body.split_first_chunk::<2>().ok_or(CommandError)?;
    if rest.is_empty() {
        return Ok((&[], extended_ne(*length)));
    }
    let lc = usize::from(u16::from_be_bytes(*length));
    let (data, le) = rest.split_at_checked(lc).filter(|_| lc > 0).ok_or(CommandError)?;
    match *le {
        [] => Ok((data, 0)),
        [upper, lower] => Ok((data, extended_ne([upper, lower]))),
        _ => Err(CommandError),
    }
}

fn short_ne(le: u8) -> u32 {
    if le == 0 { SHORT_NE_MAX } else { u32::from(le) }
}

fn extended_ne(le: [u8; 2]) -> u32 {
    match u16::from_be_bytes(le) {
        0 => EXTENDED_NE_MAX,
        le => u32::from(le),
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cla, ins, p1, p2, .. } = self;
        let (len, ne) = (self.data.len(), self.ne);
        write!(f, "Command({cla:02X} {ins:02X} {p1:02X} {p2:02X}, {len} bytes, Ne {ne})")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn command(data: &[u8], ne: u32) -> Command {
        Command::new(0, 0xa4, 4, 0).with_data(data).unwrap().expecting(ne)
    }

    #[test]
    fn the_four_cases_short_and_extended() {
        let header = [0, 0xa4, 4, 0];
        let long = [7; 300];
        let cases: [(Command, Vec<u8>); 9] = [
            (command(&[], 0), vec![]),
            (command(&[], 5), vec![5]),
            (command(&[], 256), vec![0]),
            (command(&[1, 2], 0), vec![2, 1, 2]),
            (command(&[1, 2], 256), vec![2, 1, 2, 0]),
            (command(&[], 257), vec![0, 1, 1]),
            (command(&[], 65_536), vec![0, 0, 0]),
            (command(&long, 0), [&[0, 1, 44][..], &long].concat()),
            (command(&[1], 4096), vec![0, 0, 1, 1, 0x10, 0]),
        ];
        for (command, body) in cases {
            let bytes = [&header[..], &body].concat();
            assert_eq!(&*command.encode(), &bytes, "{command:?}");
            assert_eq!(Command::parse(&bytes), Ok(command));
        }
        let longest = command(&[9; EXTENDED_DATA_MAX], EXTENDED_NE_MAX);
        assert_eq!(longest.encode().len(), COMMAND_MAX);
        assert_eq!(Command::parse(&longest.encode()), Ok(longest));
    }

    #[test]
    fn an_extended_apdu_may_say_what_a_short_one_can() {
        let read = Command::parse(&[0, 0xca, 0xdf, 1, 0, 1, 0]).unwrap();
        assert_eq!((read.ne(), read.parameters()), (256, 0xdf01));
        let read = Command::parse(&[0, 0xda, 0, 0, 0, 0, 1, 7]).unwrap();
        assert_eq!((read.data(), read.ne()), (&[7][..], 0));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for wrong in [
            &[][..],
            &[0],
            &[0, 0xa4, 4],
            &[0, 0xa4, 4, 0, 2, 1],          // Lc says more
            &[0, 0xa4, 4, 0, 2, 1, 2, 0, 0], // two bytes of Le in a short one
            &[0, 0xa4, 4, 0, 0, 1],          // half of an extended length
            &[0, 0xa4, 4, 0, 0, 0, 0, 0],    // extended Lc 0
            &[0, 0xa4, 4, 0, 0, 0, 2, 1],    // extended Lc says more
            &[0, 0xa4, 4, 0, 0, 0, 1, 1, 0], // half of an extended Le
            &[0, 0xa4, 4, 0, 0, 0, 1, 1, 0, 0, 0],
        ] {
            assert_eq!(Command::parse(wrong), Err(CommandError), "{wrong:02x?}");
        }
        let many = vec![0; EXTENDED_DATA_MAX + 1];
        assert_eq!(Command::new(0, 0, 0, 0).with_data(&many), Err(CommandError));
        assert!(Command::parse(&vec![1; COMMAND_MAX + 1]).is_err());
    }

    #[test]
    fn data_are_not_shown() {
        let shown = format!("{:?}", command(&[0x12, 0x34], 0));
        assert_eq!(shown, "Command(00 A4 04 00, 2 bytes, Ne 0)");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            header in any::<[u8; 4]>(), data in prop::collection::vec(any::<u8>(), 0..600),
            ne in 0..=EXTENDED_NE_MAX,
        ) {
            let [cla, ins, p1, p2] = header;
            let command = Command::new(cla, ins, p1, p2).with_data(&data).unwrap().expecting(ne);
            prop_assert_eq!(Command::parse(&command.encode()), Ok(command));
        }

        #[test]
        fn what_is_read_is_written_again(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(command) = Command::parse(&bytes) {
                let written = command.encode();
                prop_assert_eq!(Command::parse(&written), Ok(command));
                // The same bytes, unless a short APDU says it too.
                prop_assert!(*written == bytes || written.len() < bytes.len());
            }
        }
    }
}

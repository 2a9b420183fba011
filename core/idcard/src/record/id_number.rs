/// Characters of a citizen identification number (GB 11643).
pub const ID_NUMBER_LEN: usize = 18;

const WEIGHTS: [u32; ID_NUMBER_LEN - 1] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
const CHECK_DIGITS: &[u8; 11] = b"10X98765432";

/// The 18th character for 17 digits (GB 11643, ISO 7064 MOD 11-2), or `None` if `digits` are not
/// 17 ASCII digits.
#[must_use]
pub fn id_check_digit(digits: &str) -> Option<char> {
    let bytes = digits.as_bytes();
    if bytes.len() != WEIGHTS.len() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pairs = bytes.iter().zip(WEIGHTS);
    let sum: u32 = pairs.map(|(byte, weight)| u32::from(byte - b'0') * weight).sum();
    Some(char::from(CHECK_DIGITS[(sum % 11) as usize]))
}

/// True for 17 digits followed by their check digit (`X` in capitals).
#[must_use]
pub fn id_number_is_valid(number: &str) -> bool {
    let (Some(digits), Some(check)) =
        (number.get(..ID_NUMBER_LEN - 1), number.get(ID_NUMBER_LEN - 1..))
    else {
        return false;
    };
    id_check_digit(digits).is_some_and(|expected| check.chars().eq([expected]))
}

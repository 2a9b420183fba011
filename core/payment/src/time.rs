use alloc::format;
use alloc::string::String;
use core::time::Duration;

use countersign_crypto::UnixTime;
use der::DateTime;

use crate::PaymentError;

/// Length of a time as it is written here, in bytes.
const LEN: usize = "2026-01-31T23:59:59.000Z".len();

/// A time in its one form here: RFC 3339, UTC, with milliseconds, `2026-01-31T23:59:59.000Z`. What
/// lies beyond the year 9999 is written as the end of that year.
#[must_use]
pub fn to_rfc3339(time: UnixTime) -> String {
    let seconds = Duration::from_secs(time.as_secs());
    let (date, millis) = match DateTime::from_unix_duration(seconds) {
        Ok(date) => (date, time.as_millis() % 1000),
        Err(_) => (DateTime::INFINITY, 999),
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds(),
    )
}

/// Reads what [`to_rfc3339`] writes, and nothing else.
///
/// # Errors
/// [`PaymentError::TimeForm`].
pub fn from_rfc3339(text: &str) -> Result<UnixTime, PaymentError> {
    let wrong = PaymentError::TimeForm;
    let bytes: &[u8; LEN] = text.as_bytes().try_into().map_err(|_| wrong)?;
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_u16, |sum, c| c.is_ascii_digit().then(|| sum * 10 + u16::from(c - b'0')))
    };
    let small = |from: usize| number(from, from + 2).and_then(|two| u8::try_from(two).ok());
    let read = || {
        let date =
            DateTime::new(number(0, 4)?, small(5)?, small(8)?, small(11)?, small(14)?, small(17)?);
        let millis = u64::from(number(20, 23)?);
        let seconds = date.ok()?.unix_duration().as_secs();
        Some(UnixTime::from_millis(seconds * 1000 + millis))
    };
    // Writing it again compares the rest: the separators, and a leap second that is none.
    read().filter(|time| to_rfc3339(*time) == text).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_800_000_000_007, "2027-01-15T08:00:00.007Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        ] {
            assert_eq!(to_rfc3339(UnixTime::from_millis(millis)), text);
            assert_eq!(from_rfc3339(text), Ok(UnixTime::from_millis(millis)));
        }
        assert_eq!(to_rfc3339(UnixTime::from_millis(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn other_forms_are_refused() {
        for wrong in [
            "",
            "2027-01-15T08:00:00Z",
            "2027-01-15T08:00:00.0Z",
            "2027-01-15T08:00:00.000+00:00",
            "2027-01-15t08:00:00.000Z",
            "2027-01-15 08:00:00.000Z",
            "2027-02-29T08:00:00.000Z",
            "2027-13-01T08:00:00.000Z",
            "2027-01-15T24:00:00.000Z",
            "2027-01-15T08:00:60.000Z",
            "1969-12-31T23:59:59.000Z",
            "+027-01-15T08:00:00.000Z",
            "2027-01-15T08:00:00.000é",
        ] {
            assert_eq!(from_rfc3339(wrong), Err(PaymentError::TimeForm), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(millis in 0_u64..253_402_300_800_000) {
            let time = UnixTime::from_millis(millis);
            prop_assert_eq!(from_rfc3339(&to_rfc3339(time)), Ok(time));
        }
    }
}

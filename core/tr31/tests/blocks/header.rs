//! The header and its optional blocks: what is written, read and refused.

use tr31::{Header, Leniency, OptionalBlock, OptionalId, Tr31Error, Version, policy};

use super::{departs, header, opened, tdes, wrapped};

fn parse(text: &str) -> Result<Header, Tr31Error> {
    Header::parse(text.as_bytes(), Leniency::NONE)
}

#[test]
fn every_field_is_checked() {
    assert_eq!(parse("D0112P0AE00E0000").unwrap().length, 112);
    for (text, check) in [
        ("F0112P0AE00E0000", "version"),
        ("00112P0AE00E0000", "version"),
        ("D01x2P0AE00E0000", "block-length"),
        ("D0112Q9AE00E0000", "key-usage"),
        ("D011210AE00E0000", "key-usage"),
        ("D0112p0AE00E0000", "key-usage"),
        ("D0112P0ZE00E0000", "algorithm"),
        ("D0112P0AZ00E0000", "mode-of-use"),
        ("D0112P0AE0-E0000", "key-version"),
        ("D0112P0AE00X0000", "exportability"),
        ("D0112P0AE00E0A00", "optional-block-count"),
        ("D0112P0AE00E0030", "key-context"),
        ("D0112P0AE00E0001", "reserved-field"),
        ("D0112P0AE00E000", "block-length"),
        ("D0112P0AE00E00000", "block-length"),
        ("D0112P0AE00E0\u{7f}00", "character"),
        ("D0112P0AE00E0100", "optional-block-length"),
    ] {
        assert_eq!(parse(text).unwrap_err().check(), check, "{text}");
    }
    // A component's number, a proprietary version: both alphanumeric.
    for text in ["D0112P0AEc1E0000", "D0112P0AEA9E0010", "D0112P0AE00E0020"] {
        assert!(parse(text).is_ok(), "{text}");
    }
    let lenient = Header::parse(b"D011210ZZ00X0030", Leniency::UNKNOWN_VALUES).unwrap();
    assert_eq!(lenient.usage, *b"10");
    let bad = Header::parse(b"D0112P-AE00E0000", Leniency::all());
    assert_eq!(bad.unwrap_err(), Tr31Error::Usage);
}

#[test]
fn optional_blocks_have_their_formats() {
    let good: [(OptionalId, &str); 30] = [
        (OptionalId::AL, "0100"),
        (OptionalId::AL, "0101"),
        (OptionalId::BI, "00FFFF987654"),
        (OptionalId::BI, "0112345678"),
        (OptionalId::CT, "00TUlJRA=="),
        (OptionalId::CT, "01TUlJRA=="),
        (OptionalId::CT, "02000008TUlJRA==010004TUlJ"),
        (OptionalId::DA, "01P0TEE"),
        (OptionalId::DA, "01P0TEED0AEN"),
        (OptionalId::FL, "01"),
        (OptionalId::HM, "21"),
        (OptionalId::HM, "41"),
        (OptionalId::IK, "1234567890123456"),
        (OptionalId::KC, "00AABBCC"),
        (OptionalId::KC, "01AABBCCDDEE"),
        (OptionalId::KP, "01AABBCC"),
        (OptionalId::PK, "00AA"),
        (OptionalId::KS, "00604B120F9292800000"),
        (OptionalId::KS, "00604B120F929280"),
        (OptionalId::KV, "0000"),
        (OptionalId::LB, "a label, with ~"),
        (OptionalId::PB, ""),
        (OptionalId::PB, "0000"),
        (OptionalId::TC, "20260229101112Z"),
        (OptionalId::TS, "20200818221218Z"),
        (OptionalId::TS, "2020081822121899Z"),
        (OptionalId::TS, "2020-08-18T22:12:18Z"),
        (OptionalId::TS, "2020-08-18T22:12:18.99Z"),
        (OptionalId::WP, "000"),
        (OptionalId::WP, "003"),
    ];
    for (id, data) in good.into_iter().filter(|(_, data)| *data != "20260229101112Z") {
        assert_eq!(read(id, data, Leniency::NONE), Ok(()), "{id} {data}");
    }
    let bad: [(OptionalId, &str); 30] = [
        (OptionalId::AL, "0102"),
        (OptionalId::AL, "0001"),
        (OptionalId::BI, "00FFFF98765"),
        (OptionalId::BI, "01FFFF987654"),
        (OptionalId::CT, "00"),
        (OptionalId::CT, "03TUlJRA=="),
        (OptionalId::CT, "00TUlJRA="),
        (OptionalId::CT, "02000009TUlJRA=="),
        (OptionalId::CT, "02"),
        (OptionalId::DA, "01"),
        (OptionalId::DA, "01P0TE"),
        (OptionalId::DA, "02P0TEE"),
        (OptionalId::FL, ""),
        (OptionalId::HM, "11"),
        (OptionalId::IK, "123456789012345"),
        (OptionalId::IK, "123456789012345G"),
        (OptionalId::KC, "02AABBCC"),
        (OptionalId::KC, "00AABBCCDD"),
        (OptionalId::KC, "00AABBC"),
        (OptionalId::KP, "01"),
        (OptionalId::KS, "00604B120F92928000"),
        (OptionalId::KV, "000"),
        (OptionalId::LB, ""),
        (OptionalId::TC, "20260229101112Z"),
        (OptionalId::TC, "20261301101112Z"),
        (OptionalId::TS, "20260101241112Z"),
        (OptionalId::TS, "20260101101112"),
        (OptionalId::TS, "2026-01-01 10:11:12Z"),
        (OptionalId::WP, "004"),
        (OptionalId::WP, "00"),
    ];
    for (id, data) in bad {
        assert_eq!(read(id, data, Leniency::NONE), Err(Tr31Error::OptionalFormat(id)), "{data}");
        assert_eq!(read(id, data, Leniency::OPTIONAL_BLOCK_FORMAT), Ok(()), "{id} {data}");
    }
    assert_eq!(
        read(OptionalId::KS, "00604b120f9292800000", Leniency::NONE),
        Err(Tr31Error::OptionalFormat(OptionalId::KS))
    );
    assert_eq!(read(OptionalId::KS, "00604b120f9292800000", Leniency::LOWER_CASE_HEX), Ok(()));
    // A label may be in lower case.
    assert_eq!(read(OptionalId::LB, "abcdef", Leniency::NONE), Ok(()));
}

/// A header of version E, which needs no padding, with this block.
fn read(id: OptionalId, data: &str, leniency: Leniency) -> Result<(), Tr31Error> {
    let mut header = Header::new(Version::E, *b"P0", b'A', b'E', b'N');
    header.optional.push(OptionalBlock::new(id, data));
    let text = header.encode().unwrap();
    let parsed = Header::parse(&text, leniency)?;
    assert_eq!(parsed, header);
    Ok(())
}

#[test]
fn unknown_and_proprietary_blocks_are_let_in_by_name_and_kept() {
    for id in [*b"ZZ", *b"10", *b"00"] {
        let id = OptionalId(id);
        let mut header = header(Version::B);
        header.optional.push(OptionalBlock::new(id, "any data"));
        let error = Tr31Error::UnknownOptional(id);
        departs(&header, &tdes(), Leniency::UNKNOWN_OPTIONAL_BLOCK, error);
        let block = wrapped(&header, &tdes(), Leniency::all()).unwrap();
        let read = opened(&block, Leniency::all()).unwrap();
        assert_eq!(read.header.block(id).unwrap().data, b"any data");
    }
    let mut header = header(Version::B);
    header.optional.push(OptionalBlock::new(OptionalId(*b"Z-"), "data"));
    assert_eq!(
        wrapped(&header, &tdes(), Leniency::all()).unwrap_err().check(),
        "optional-block-format"
    );
}

#[test]
fn a_block_is_there_once_and_padding_is_the_last() {
    let mut twice = header(Version::D);
    twice.optional = vec![OptionalBlock::new(OptionalId::LB, "abcd"); 2];
    let error = Tr31Error::DuplicateOptional(OptionalId::LB);
    assert_eq!(wrapped(&twice, &tdes(), Leniency::all()).unwrap_err(), error);
    assert_eq!(policy::check_header(&twice).unwrap_err(), error);
    assert_eq!(parse("E0112P0TE00E0200LB08abcdLB08abcd").unwrap_err(), error);

    assert!(parse("B0112P0TE00E0200LB08abcdPB080000").is_ok());
    let error = Tr31Error::OptionalPadding;
    assert_eq!(parse("B0112P0TE00E0200PB080000LB08abcd").unwrap_err(), error);
    let mut unpadded = header(Version::D);
    unpadded.optional = vec![OptionalBlock::new(OptionalId::PB, "0000")];
    assert_eq!(wrapped(&unpadded, &tdes(), Leniency::all()).unwrap_err(), error);
    // Read by leniency, where a TDES block has no whole cipher blocks in front.
    assert_eq!(parse("B0112P0TE00E0100LB07abc").unwrap_err(), error);
    let lenient = Header::parse(b"B0112P0TE00E0100LB07abc", Leniency::OPTIONAL_BLOCK_PADDING);
    assert!(lenient.is_ok());
}

#[test]
fn long_blocks_have_extended_lengths_in_the_form_02() {
    for (len, form) in [(250, "LBFE"), (251, "LBFF"), (252, "LB00020106"), (4000, "LB00020FAA")] {
        let mut header = header(Version::D);
        header.optional.push(OptionalBlock::new(OptionalId::LB, "x".repeat(len)));
        let block = wrapped(&header, &tdes(), Leniency::NONE).unwrap();
        assert!(block[16..].starts_with(form), "{block}");
        let read = opened(&block, Leniency::NONE).unwrap();
        assert_eq!(read.header.optional[0], header.optional[0]);
    }
    let mut header = header(Version::D);
    header.optional.push(OptionalBlock::new(OptionalId::LB, "x".repeat(252)));
    let block = wrapped(&header, &tdes(), Leniency::EXTENDED_LENGTH_04).unwrap();
    assert!(block[16..].starts_with("LB00040106"), "{block}");
    let error = Tr31Error::ExtendedLength(OptionalId::LB);
    assert_eq!(opened(&block, Leniency::NONE).unwrap_err(), error);
    let read = opened(&block, Leniency::EXTENDED_LENGTH_04).unwrap();
    assert_eq!(read.used, Leniency::EXTENDED_LENGTH_04);

    for text in ["E0112P0TE00E0100LB0001FF", "E0112P0TE00E0100LB0000", "E0112P0TE00E0100LB0003"] {
        assert_eq!(parse(text).unwrap_err(), error, "{text}");
    }
    for text in [
        "E0112P0TE00E0100LB03",
        "E0112P0TE00E0100LB09abcd",
        "E0112P0TE00E0100LBxxabcd",
        "E0112P0TE00E0100LB00020005abcd",
        "E0112P0TE00E0100LB0002FFFFabcd",
        "E0112P0TE00E0100LB00020",
        "E0112P0TE00E0100LB",
    ] {
        assert_eq!(parse(text).unwrap_err().check(), "optional-block-length", "{text}");
    }
}

#[test]
fn four_digits_of_length_are_the_end() {
    let mut header = header(Version::D);
    header.optional.push(OptionalBlock::new(OptionalId::LB, "x".repeat(9800)));
    assert!(wrapped(&header, &tdes(), Leniency::NONE).is_ok());
    header.optional[0].data.resize(9900, b'x');
    assert_eq!(wrapped(&header, &tdes(), Leniency::NONE).unwrap_err(), Tr31Error::TooLong);
    header.optional[0].data.resize(70_000, b'x');
    assert_eq!(wrapped(&header, &tdes(), Leniency::NONE).unwrap_err(), Tr31Error::TooLong);
    assert_eq!(opened(&"D".repeat(10_000), Leniency::NONE).unwrap_err(), Tr31Error::TooLong);
}

#[test]
fn values_and_blocks_go_together() {
    let usual = header(Version::D);
    for (usage, algorithm, mode, error) in [
        (*b"P0", b'H', b'E', Tr31Error::UsageAlgorithm),
        (*b"P0", b'T', b'G', Tr31Error::UsageMode),
        (*b"B0", b'T', b'V', Tr31Error::UsageMode),
        (*b"M7", b'T', b'C', Tr31Error::UsageAlgorithm),
        (*b"S0", b'T', b'S', Tr31Error::UsageAlgorithm),
    ] {
        let header = Header { usage, algorithm, mode, ..usual.clone() };
        departs(&header, &tdes(), Leniency::HEADER_COMBINATION, error);
        assert_eq!(policy::check_header(&header).unwrap_err(), error);
    }
    assert_eq!(policy::check_header(&usual), Ok(()));
    for (id, data) in [
        (OptionalId::IK, "1234567890123456"),
        (OptionalId::HM, "21"),
        (OptionalId::AL, "0101"),
        (OptionalId::BI, "0112345678"),
    ] {
        let mut header = usual.clone();
        header.optional.push(OptionalBlock::new(id, data));
        let error = Tr31Error::OptionalMisplaced(id);
        departs(&header, &tdes(), Leniency::HEADER_COMBINATION, error);
    }
}

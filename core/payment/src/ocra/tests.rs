use super::*;
use crate::request::tests::{example, example_bytes};

fn key(len: usize) -> Secret {
    Secret::new(b"1234567890".iter().copied().cycle().take(len).collect())
}

fn data<'a>(question: &'a [&'a str]) -> Data<'a> {
    Data { question, ..Data::default() }
}

/// RFC 6287 appendix C: the time of its vectors, 25 March 2008 12:06:30 GMT, T = 132d0b6.
const VECTOR_TIME: UnixTime = UnixTime::from_secs(1_206_446_790);

fn check(name: &str, key_len: usize, vectors: &[(&[&str], &str)], complete: Data<'_>) {
    let suite = Suite::parse(name).unwrap();
    assert_eq!(suite.name(), name);
    for (question, answer) in vectors {
        let data = Data { question, ..complete };
        assert_eq!(suite.answer(&key(key_len), &data).as_deref(), Ok(*answer), "{name}");
        assert_eq!(suite.verify(&key(key_len), &data, answer), Ok(true));
        assert_eq!(suite.verify(&key(key_len), &data, &answer[1..]), Ok(false));
    }
}

/// Appendix C.1, `OCRA-1:HOTP-SHA1-6:QN08`.
#[test]
fn one_way_challenges_sha1() {
    let answers = [
        "237653", "243178", "653583", "740991", "608993", "388898", "816933", "224598", "750600",
        "294470",
    ];
    let suite = Suite::parse("OCRA-1:HOTP-SHA1-6:QN08").unwrap();
    for (digit, answer) in answers.iter().enumerate() {
        let question = alloc::format!("{digit}").repeat(8);
        assert_eq!(suite.answer(&key(20), &data(&[&question])).as_deref(), Ok(*answer));
    }
}

/// Appendix C.1, the suites with a counter and a PIN.
#[test]
fn one_way_challenges_with_counter_and_pin() {
    let pin = Secret::copied_from(b"1234");
    let counted = [
        "65347737", "86775851", "78192410", "71565254", "10104329", "65983500", "70069104",
        "91771096", "75011558", "08522129",
    ];
    let suite = Suite::parse("OCRA-1:HOTP-SHA256-8:C-QN08-PSHA1").unwrap();
    for (counter, answer) in (0..).zip(counted) {
        let complete = Data { counter: Some(counter), pin: Some(&pin), ..data(&["12345678"]) };
        assert_eq!(suite.answer(&key(32), &complete).as_deref(), Ok(answer));
    }
    check(
        "OCRA-1:HOTP-SHA256-8:QN08-PSHA1",
        32,
        &[
            (&["00000000"], "83238735"),
            (&["11111111"], "01501458"),
            (&["22222222"], "17957585"),
            (&["33333333"], "86776967"),
            (&["44444444"], "86807031"),
        ],
        Data { pin: Some(&pin), ..Data::default() },
    );
}

/// Appendix C.1, SHA-512 with a counter, and with a time.
#[test]
fn one_way_challenges_sha512() {
    let counted = [
        "07016083", "63947962", "70123924", "25341727", "33203315", "34205738", "44343969",
        "51946085", "20403879", "31409299",
    ];
    let suite = Suite::parse("OCRA-1:HOTP-SHA512-8:C-QN08").unwrap();
    for (counter, answer) in (0..).zip(counted) {
        let question = alloc::format!("{counter}").repeat(8);
        let complete = Data { counter: Some(counter), ..data(&[]) };
        let complete = Data { question: &[&question], ..complete };
        assert_eq!(suite.answer(&key(64), &complete).as_deref(), Ok(answer));
    }
    check(
        "OCRA-1:HOTP-SHA512-8:QN08-T1M",
        64,
        &[
            (&["00000000"], "95209754"),
            (&["11111111"], "55907591"),
            (&["22222222"], "22048402"),
            (&["33333333"], "24218844"),
            (&["44444444"], "36209546"),
        ],
        Data { time: Some(VECTOR_TIME), ..Data::default() },
    );
}

/// Appendix C.2: each side answers both questions, the other's first.
#[test]
fn mutual_challenges() {
    let pin = Secret::copied_from(b"1234");
    let sha256 = [
        ("CLI22220", "SRV11110", "28247970", "15510767"),
        ("CLI22221", "SRV11111", "01984843", "90175646"),
        ("CLI22222", "SRV11112", "65387857", "33777207"),
        ("CLI22223", "SRV11113", "03351211", "95285278"),
        ("CLI22224", "SRV11114", "83412541", "28934924"),
    ];
    for (client, server, by_server, by_client) in sha256 {
        let vectors: [(&[&str], _); 2] =
            [(&[client, server], by_server), (&[server, client], by_client)];
        check("OCRA-1:HOTP-SHA256-8:QA08", 32, &vectors, Data::default());
    }
    let sha512 = [
        ("CLI22220", "SRV11110", "79496648", "18806276"),
        ("CLI22221", "SRV11111", "76831980", "70020315"),
        ("CLI22222", "SRV11112", "12250499", "01600026"),
        ("CLI22223", "SRV11113", "90856481", "18951020"),
        ("CLI22224", "SRV11114", "12761449", "32528969"),
    ];
    for (client, server, by_server, by_client) in sha512 {
        let vectors: [(&[&str], _); 1] = [(&[client, server], by_server)];
        check("OCRA-1:HOTP-SHA512-8:QA08", 64, &vectors, Data::default());
        let vectors: [(&[&str], _); 1] = [(&[server, client], by_client)];
        let with_pin = Data { pin: Some(&pin), ..Data::default() };
        check("OCRA-1:HOTP-SHA512-8:QA08-PSHA1", 64, &vectors, with_pin);
    }
}

/// Appendix C.3.
#[test]
fn plain_signatures() {
    check(
        "OCRA-1:HOTP-SHA256-8:QA08",
        32,
        &[
            (&["SIG10000"], "53095496"),
            (&["SIG11000"], "04110475"),
            (&["SIG12000"], "31331128"),
            (&["SIG13000"], "76028668"),
            (&["SIG14000"], "46554205"),
        ],
        Data::default(),
    );
    check(
        "OCRA-1:HOTP-SHA512-8:QA10-T1M",
        64,
        &[
            (&["SIG1000000"], "77537423"),
            (&["SIG1100000"], "31970405"),
            (&["SIG1200000"], "10235557"),
            (&["SIG1300000"], "95213541"),
            (&["SIG1400000"], "65360607"),
        ],
        Data { time: Some(VECTOR_TIME), ..Data::default() },
    );
}

#[test]
fn suites_of_the_grammar_are_read_and_others_are_not() {
    for good in [
        "OCRA-1:HOTP-SHA512-8:C-QN08-PSHA1",
        "OCRA-1:HOTP-SHA256-6:QA10-T1M",
        "OCRA-1:HOTP-SHA1-4:QH8-S512".replace("QH8", "QH08").as_str(),
        "OCRA-1:HOTP-SHA1-0:C-QH64-PSHA512-S-T48H",
        "OCRA-1:HOTP-SHA1-10:QN64-T59S",
        "OCRA-1:HOTP-SHA1-6:QN04-T",
        PAYMENT_SUITE,
    ] {
        assert!(Suite::parse(good).is_ok(), "{good}");
    }
    let long = alloc::format!("OCRA-1:HOTP-SHA1-6:QN08{}", " ".repeat(60));
    for wrong in [
        "",
        "OCRA-2:HOTP-SHA1-6:QN08",
        "OCRA-1:HOTP-MD5-6:QN08",
        "OCRA-1:HOTP-SHA1-3:QN08",
        "OCRA-1:HOTP-SHA1-11:QN08",
        "OCRA-1:HOTP-SHA1-06:QN08",
        "OCRA-1:HOTP-SHA1-6:C",
        "OCRA-1:HOTP-SHA1-6:QX08",
        "OCRA-1:HOTP-SHA1-6:QN03",
        "OCRA-1:HOTP-SHA1-6:QN65",
        "OCRA-1:HOTP-SHA1-6:QN8",
        "OCRA-1:HOTP-SHA1-6:Q",
        "OCRA-1:HOTP-SHA1-6:QN08-PMD5",
        "OCRA-1:HOTP-SHA1-6:QN08-S64",
        "OCRA-1:HOTP-SHA1-6:QN08-S513",
        "OCRA-1:HOTP-SHA1-6:QN08-S000",
        "OCRA-1:HOTP-SHA1-6:QN08-T0M",
        "OCRA-1:HOTP-SHA1-6:QN08-T60S",
        "OCRA-1:HOTP-SHA1-6:QN08-T49H",
        "OCRA-1:HOTP-SHA1-6:QN08-T1é",
        "OCRA-1:HOTP-SHA1-6:QN08-T1M-S064",
        "OCRA-1:HOTP-SHA1-6:QN08-C",
        "OCRA-1:HOTP-SHA1-6:QN08:",
        "ocra-1:hotp-sha1-6:qn08",
        long.as_str(),
    ] {
        assert_eq!(Suite::parse(wrong), Err(PaymentError::OcraSuite), "{wrong}");
    }
}

#[test]
fn inputs_that_the_suite_has_not_or_bounds_are_refused() {
    let pin = Secret::copied_from(b"1234");
    let refused = |name: &str, data: Data<'_>| {
        let result = Suite::parse(name).unwrap().answer(&key(20), &data);
        assert_eq!(result, Err(PaymentError::OcraInput), "{name}");
    };
    let suite = "OCRA-1:HOTP-SHA1-6:QN08";
    refused(suite, Data { counter: Some(1), ..data(&["1"]) });
    refused(suite, Data { pin: Some(&pin), ..data(&["1"]) });
    refused(suite, Data { session: Some(b""), ..data(&["1"]) });
    refused(suite, Data { time: Some(VECTOR_TIME), ..data(&["1"]) });
    refused(suite, data(&[]));
    refused(suite, data(&[""]));
    refused(suite, data(&["123456789"]));
    refused(suite, data(&["1", "2", "3"]));
    refused(suite, data(&["12a"]));
    refused("OCRA-1:HOTP-SHA1-6:QH08", data(&["12g"]));
    refused("OCRA-1:HOTP-SHA1-6:QA08", data(&["a-b"]));
    refused("OCRA-1:HOTP-SHA1-6:C-QN08", data(&["1"]));
    refused("OCRA-1:HOTP-SHA1-6:QN08-PSHA1", data(&["1"]));
    refused("OCRA-1:HOTP-SHA1-6:QN08-T1M", data(&["1"]));
    refused("OCRA-1:HOTP-SHA1-6:QN08-S001", Data { session: Some(b"12"), ..data(&["1"]) });
}

#[test]
fn a_number_is_as_wide_as_its_value_and_a_session_stands_right() {
    let of = |name: &str, data: &Data<'_>| Suite::parse(name).unwrap().message(data).unwrap();
    let question = |name: &str, question: &str| {
        let message = of(name, &data(&[question]));
        message[name.len() + 1..].to_vec()
    };
    let numeric = "OCRA-1:HOTP-SHA1-6:QN64";
    // The octets that liboath's tests give for the same questions.
    assert_eq!(question(numeric, "11111111")[..4], [0xa9, 0x8a, 0xc7, 0]);
    assert_eq!(question(numeric, "22222222")[..4], [0x15, 0x31, 0x58, 0xe0]);
    assert_eq!(question(numeric, "00000000")[..2], [0, 0]);
    // 2^64 and 10^20, which no machine word holds.
    assert_eq!(question(numeric, "18446744073709551616")[..9], [0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
    let ten_to_20 = [0x56, 0xbc, 0x75, 0xe2, 0xd6, 0x31, 0, 0, 0];
    assert_eq!(question(numeric, "100000000000000000000")[..9], ten_to_20);
    assert_eq!(question("OCRA-1:HOTP-SHA1-6:QH08", "abc")[..3], [0xab, 0xc0, 0]);
    let name = "OCRA-1:HOTP-SHA1-6:QN08-S004";
    let message = of(name, &Data { session: Some(b"ab"), ..data(&["1"]) });
    assert_eq!(message.len(), name.len() + 1 + QUESTION_LEN + 4);
    assert_eq!(message[message.len() - 4..], *b"\0\0ab");
}

#[test]
fn without_truncation_the_whole_mac_is_the_answer() {
    let suite = Suite::parse("OCRA-1:HOTP-SHA1-0:QN08").unwrap();
    let answer = suite.answer(&key(20), &data(&["1"])).unwrap();
    assert_eq!((answer.len(), answer.bytes().all(|c| c.is_ascii_hexdigit())), (40, true));
}

#[test]
fn a_payment_is_answered_with_eight_digits_over_all_of_it() {
    let (secret, request) = (key(PAYMENT_KEY_LEN), example_bytes());
    let digits = respond(&secret, &request).unwrap();
    assert_eq!(digits.len(), PAYMENT_DIGITS);
    assert!(verify(&secret, &request, &digits));
    assert!(!verify(&key(31), &request, &digits), "another key");
    for wrong in ["", "0", &digits[1..], &[&digits, "0"].concat()] {
        assert!(!verify(&secret, &request, wrong), "{wrong}");
    }
    // RTS article 5: another amount or another payee is another answer.
    let mut dearer = example();
    dearer.amount = crate::Amount::parse("1299.01", "CNY").unwrap();
    let mut diverted = example();
    diverted.payee_account = crate::AccountNumber::parse("6222021234567890999").unwrap();
    for altered in [dearer, diverted] {
        assert!(!verify(&secret, &altered.to_bytes().unwrap(), &digits));
    }
    assert_eq!(respond(&secret, b"{}"), Err(PaymentError::RequestForm), "not to be shown");
}

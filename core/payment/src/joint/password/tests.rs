//! The generator by its statistics, and by mutants that must not pass them; the check digit by what
//! it finds; what is read as a password.

use std::format;
use std::string::{String, ToString};

use countersign_crypto::CryptoRng;
use proptest::prelude::*;
use testkit::rng::{ChaCha20Rng, seeded};

use super::*;

/// How many passwords the statistics are made over.
const SAMPLE: usize = 200_000;
/// Chi-square with 9 degrees of freedom exceeds it once in a million million samples.
const DIGIT_LIMIT: f64 = 76.0;
/// Chi-square with 99 degrees of freedom exceeds it once in a hundred million samples.
const PAIR_LIMIT: f64 = 205.0;

fn digits(password: &JointPassword) -> [usize; DIGITS] {
    let bytes = password.digits().as_bytes();
    core::array::from_fn(|at| usize::from(bytes[at] - b'0'))
}

fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// Whether passwords look as if each digit that is drawn is uniform, every two of one password are
/// independent, and so is each of the one in the same place before.
fn judge(mut draw: impl FnMut() -> [usize; DIGITS]) -> Result<(), String> {
    let mut single = [[0; 10]; RANDOM_DIGITS];
    let mut pairs = vec![[0; 100]; RANDOM_DIGITS * RANDOM_DIGITS];
    let mut before = draw();
    for _ in 0..SAMPLE {
        let drawn = draw();
        for at in 0..RANDOM_DIGITS {
            single[at][drawn[at]] += 1;
            // On the diagonal: with the password before.
            pairs[at * RANDOM_DIGITS + at][before[at] * 10 + drawn[at]] += 1;
            for other in at + 1..RANDOM_DIGITS {
                pairs[at * RANDOM_DIGITS + other][drawn[at] * 10 + drawn[other]] += 1;
            }
        }
        before = drawn;
    }
    for (at, counts) in single.iter().enumerate() {
        let found = chi_square(counts);
        if found > DIGIT_LIMIT {
            return Err(format!("digit {at} is biased: {found}"));
        }
    }
    for (at, counts) in pairs.iter().enumerate() {
        let (one, other) = (at / RANDOM_DIGITS, at % RANDOM_DIGITS);
        let found = chi_square(counts);
        if one <= other && found > PAIR_LIMIT {
            return Err(format!("digits {one} and {other} depend on each other: {found}"));
        }
    }
    Ok(())
}

#[test]
fn the_generator_passes_the_statistics() {
    for seed in [1, 2] {
        let mut rng = seeded(seed);
        assert_eq!(judge(|| digits(&JointPassword::random(&mut rng).unwrap())), Ok(()));
    }
}

/// A generator with a fault that generators have had.
type Mutant = fn(&mut ChaCha20Rng, &mut [usize; DIGITS]);

#[test]
fn faulty_generators_fail_the_same_statistics() {
    let mutants: [(&str, Mutant); 5] = [
        ("a byte modulo ten", |rng, drawn| {
            drawn.fill_with(|| usize::from(rng.next_u32().to_le_bytes()[0]) % 10);
        }),
        ("four digits from sixteen bits", |rng, drawn| {
            for four in drawn.chunks_mut(4) {
                let mut number = (rng.next_u32() & 0xffff) as usize % 10_000;
                for digit in four {
                    (*digit, number) = (number % 10, number / 10);
                }
            }
        }),
        ("no digit follows itself", |rng, drawn| {
            let mut last = 10;
            drawn.fill_with(|| {
                let below = if last == 10 { 10 } else { 9 };
                let digit = rng.next_u32() as usize % below;
                last = digit + usize::from(digit >= last);
                last
            });
        }),
        ("a counter", |rng, drawn| {
            let mut next = rng.next_u32() as usize;
            let ones = drawn[7];
            drawn.fill_with(|| {
                next /= 3;
                next % 10
            });
            drawn[7] = (ones + 1) % 10;
        }),
        ("often the one before", |rng, drawn| {
            if rng.next_u32() % 50 != 0 {
                drawn.fill_with(|| rng.next_u32() as usize % 10);
            }
        }),
    ];
    for (name, mutant) in mutants {
        let mut rng = seeded(3);
        let mut drawn = [0; DIGITS];
        let judged = judge(|| {
            mutant(&mut rng, &mut drawn);
            drawn
        });
        assert!(judged.is_err(), "{name} was not noticed");
    }
}

/// A generator that gives these numbers, then the last one for ever.
struct Scripted {
    numbers: Vec<u32>,
    at: usize,
}

impl rand_core::TryRng for Scripted {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let number = self.numbers[self.at.min(self.numbers.len() - 1)];
        self.at += 1;
        Ok(number)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.try_next_u32().map(u64::from)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        to.copy_from_slice(&self.try_next_u32()?.to_le_bytes()[..to.len()]);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Scripted {}

fn drawn(numbers: &[u32]) -> Result<JointPassword, PaymentError> {
    let mut rng = Scripted { numbers: numbers.to_vec(), at: 0 };
    let rng: &mut dyn CryptoRng = &mut rng;
    JointPassword::random(rng)
}

/// 42 numbers of 32 bits lead to every password, none to more: what is above is drawn again.
#[test]
fn no_password_is_drawn_more_often_than_another() {
    assert_eq!((FAIR_BELOW % PASSWORDS, FAIR_BELOW / PASSWORDS), (0, 42));
    assert_eq!(&drawn(&[0]).unwrap().digits()[..8], "00000000");
    assert_eq!(&drawn(&[FAIR_BELOW - 1]).unwrap().digits()[..8], "99999999");
    assert_eq!(&drawn(&[FAIR_BELOW, u32::MAX, 123]).unwrap().digits()[..8], "00000123");
}

#[test]
fn a_generator_that_gives_unfair_numbers_only_draws_nothing() {
    assert_eq!(drawn(&[u32::MAX]).unwrap_err(), PaymentError::Signing);
}

/// Numbers in use that end in a check digit of MOD 11,10: the German tax id and VAT number of
/// python-stdnum's documentation, and the example of the standard.
#[test]
fn the_check_digit_is_that_of_iso_7064() {
    for number in ["0794 5", "79462 3", "3657426180 9", "13669597 6"] {
        let (digits, check) = number.split_once(' ').unwrap();
        assert_eq!(check_digit(digits.as_bytes()).to_string(), check, "{number}");
    }
}

#[test]
fn every_single_wrong_digit_is_noticed() {
    let mut rng = seeded(4);
    for _ in 0..500 {
        let password = JointPassword::random(&mut rng).unwrap();
        for at in 0..DIGITS {
            for digit in b'0'..=b'9' {
                let mut typed = password.digits().as_bytes().to_vec();
                let same = typed[at] == digit;
                typed[at] = digit;
                let read = JointPassword::parse(core::str::from_utf8(&typed).unwrap());
                assert_eq!(read.is_ok(), same, "{typed:?}");
            }
        }
    }
}

/// Of all swaps of two different neighbours, 2 of 90 pass, by whatever is before them: exactly the
/// share that the documentation gives.
#[test]
fn of_swapped_neighbours_one_in_45_passes() {
    // Every state that MOD 11,10 can be in before the swapped digits, by a digit that leads there.
    for before in b'0'..=b'9' {
        let mut passed = 0;
        for (one, other) in (b'0'..=b'9').flat_map(|a| (b'0'..=b'9').map(move |b| (a, b))) {
            if one == other {
                continue;
            }
            let right = [before, one, other, b'5', b'5'];
            let swapped = [before, other, one, b'5', b'5'];
            passed += u32::from(check_digit(&right) == check_digit(&swapped));
        }
        assert_eq!(passed, 2, "after {before}");
    }
    // The last digit and the check digit: over all that can be before them, the same share.
    let (mut all, mut passed) = (0, 0);
    for before in 0..100 {
        for digit in b'0'..=b'9' {
            let mut text = format!("{before:07}{}", char::from(digit)).into_bytes();
            text.push(b'0' + check_digit(&text));
            if text[7] == text[8] {
                continue;
            }
            all += 1;
            text.swap(7, 8);
            passed += u32::from(b'0' + check_digit(&text[..8]) == text[8]);
        }
    }
    assert!(passed * 40 <= all && passed > 0, "{passed} of {all}");
}

#[test]
fn what_a_person_types_is_read() {
    let digits = format!("12345678{}", check_digit(b"12345678"));
    let password = JointPassword::parse(&digits).unwrap();
    assert_eq!((password.digits(), password.grouped().as_str()), (&*digits, "1234 5678 8"));
    for good in ["1234 5678 8", "1234-5678-8", "12-34 56-788", "1 2 3 4 5 6 7 8 8"] {
        assert_eq!(JointPassword::parse(good).unwrap().digits(), digits, "{good}");
    }
    for bad in [
        "",
        "12345678",
        "1234567880",
        "123456789",
        " 123456788",
        "123456788 ",
        "123456788-",
        "1234  56788",
        "1234- 56788",
        "1234_56788",
        "+23456788",
        "12345678８",
        "１２３４５６７８８",
        "1234\n56788",
        "1234\u{a0}56788",
        "123456788\0",
        &"1".repeat(PASSWORD_TEXT_MAX + 1),
        &"1 ".repeat(100_000),
    ] {
        let refused = JointPassword::parse(bad).unwrap_err();
        assert_eq!(refused, PaymentError::JointPasswordForm, "{bad:.40}");
    }
}

#[test]
fn pictures_show_the_same_password() {
    let password = JointPassword::random(&mut seeded(5)).unwrap();
    let pictures = password.pictures();
    assert!(JointPassword::from_pictures(&pictures).unwrap().ct_eq(&password));
    let mut other = pictures;
    other[3] = Picture::ALL.into_iter().find(|picture| *picture != other[3]).unwrap();
    for wrong in [&other[..], &pictures[..8], &[], &[&pictures[..], &pictures[..1]].concat()] {
        let refused = JointPassword::from_pictures(wrong).unwrap_err();
        assert_eq!(refused, PaymentError::JointPasswordForm);
    }
}

#[test]
fn it_prints_nothing_and_compares() {
    let mut rng = seeded(6);
    let [one, other] = [(); 2].map(|()| JointPassword::random(&mut rng).unwrap());
    assert_eq!(format!("{one:?}"), "JointPassword(..)");
    assert!(one.ct_eq(&JointPassword::parse(one.digits()).unwrap()) && !one.ct_eq(&other));
}

proptest! {
    #[test]
    fn whatever_is_read_is_nine_digits_that_check(text in "[0-9 -]{0,20}") {
        if let Ok(read) = JointPassword::parse(&text) {
            prop_assert_eq!(text.replace([' ', '-'], ""), read.digits());
            let (random, check) = read.digits().split_at(RANDOM_DIGITS);
            prop_assert_eq!(check_digit(random.as_bytes()).to_string(), check);
        }
    }

    #[test]
    fn every_password_is_read_as_it_is_shown(number in 0..PASSWORDS) {
        let password = JointPassword::numbered(number);
        prop_assert_eq!(password.digits()[..RANDOM_DIGITS].parse(), Ok(number));
        prop_assert!(JointPassword::parse(&password.grouped()).unwrap().ct_eq(&password));
    }
}

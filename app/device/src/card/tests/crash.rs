//! The program ends at any point of any write, and is started again.

use super::*;
use crate::private_file::crash;

/// Runs `what` in fresh worlds, each time ended a point later, until it is not ended any more;
/// after each, `check` starts the program again. How often it was ended.
fn at_each_point<W>(
    new: impl Fn() -> W,
    what: impl Fn(&mut W) -> Result<(), KeyError>,
    check: impl Fn(W, u32),
) -> u32 {
    cheap::on();
    for points in 0.. {
        let mut world = new();
        crash::after(points);
        let done = what(&mut world);
        crash::reborn();
        match done {
            Ok(()) => return points,
            Err(KeyError::Io { .. }) => check(world, points),
            Err(other) => panic!("{points}: {other}"),
        }
    }
    unreachable!("it ends")
}

/// A bank and where its card's directory is to be.
struct Place {
    bank: Bank,
    dir: TempDir,
    puk: Option<Secret>,
}

impl Place {
    fn empty() -> Self {
        Self {
            bank: Bank::open(rust_crypto::provider()),
            dir: tempfile::tempdir().unwrap(),
            puk: None,
        }
    }

    fn enrolled() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bank, card, puk) = enrolled(&dir);
        drop(card);
        Self { bank, dir, puk: Some(puk) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("card")
    }

    fn open(&self) -> CardDir {
        CardDir::open(&self.path()).unwrap()
    }

    fn enrol(&mut self) -> Result<(), KeyError> {
        let mut card = enrol(&self.bank, &self.path())?;
        if let Some(puk) = card.take_puk() {
            self.puk = Some(puk);
        }
        Ok(())
    }

    /// It pays in each form, and its PIN and the PUK that was told last are right.
    fn works(self, pin: &[u8]) {
        let mut chip = CardChipDir::new(self.open(), NOW).unwrap();
        for form in Form::ALL {
            assert!(pays(&self.bank, &mut chip, form));
        }
        chip.check_pin(&secret(pin)).unwrap();
        let card = chip.directory_mut();
        card.unblock(&self.puk.unwrap(), &secret(NEW), &mut seeded(1)).unwrap();
        assert_eq!(card.tries_left().unwrap(), PIN_TRIES);
    }
}

#[test]
fn an_enrolment_that_ends_at_any_point_goes_on() {
    let again = |mut place: Place, _points| {
        if let Ok(card) = CardDir::open(&place.path()) {
            if card.is_enrolled() {
                // The very last point: all is there, and was not told.
                assert!(CardChipDir::new(card, NOW).is_ok());
            } else {
                let error = CardChipDir::new(card, NOW).err().unwrap();
                assert_eq!(error.check(), "device-not-enrolled");
            }
        }
        place.enrol().unwrap();
        if place.puk.is_none() {
            let puk = place.open().renew_puk(&secret(PIN), &mut seeded(2)).unwrap();
            place.puk = Some(puk);
        }
        place.works(PIN);
    };
    let points = at_each_point(Place::empty, Place::enrol, again);
    // Three of each of the writes in the table of this module, and of what clears the server.
    assert_eq!(points, 3 * 15);
}

#[test]
fn an_enrolled_card_that_is_enrolled_again_survives_each_end() {
    let number = |place: &Place| place.open().certificate_number().unwrap();
    let again = |mut place: Place, points| {
        let before = number(&place);
        // Until its server is taken out, and when all is written, it is what it was; in between it
        // says that it is not enrolled, rather than to sign with what does not fit together.
        let enrolled = points < 8 || points == 29;
        assert_eq!(place.open().is_enrolled(), enrolled, "{points}");
        if enrolled {
            let mut chip = CardChipDir::new(place.open(), NOW).unwrap();
            // The server has drawn another shared key at 6, of which the card knows nothing yet.
            let knows = !(6..8).contains(&points);
            assert_eq!(pays(&place.bank, &mut chip, Form::Digest), knows, "{points}");
        }
        place.enrol().unwrap();
        assert_eq!(number(&place), before, "the key pair is the same");
        place.works(PIN);
    };
    // The count of tries twice, for the PIN is asked; the server cleared; seven files; the end.
    assert_eq!(at_each_point(Place::enrolled, Place::enrol, again), 3 * 10);
}

#[test]
fn a_puk_whose_use_ends_at_any_point_can_be_used_again() {
    let blocked = || {
        let place = Place::enrolled();
        let mut chip = CardChipDir::new(place.open(), NOW).unwrap();
        for _ in 0..PIN_TRIES {
            wrong_pin(&mut chip);
        }
        place
    };
    let unblock = |place: &mut Place| {
        let puk = place.puk.as_ref().unwrap();
        place.open().unblock(puk, &secret(NEW), &mut seeded(4))
    };
    let again = |mut place: Place, _points| {
        let card = place.open();
        let (pin, puk) = (card.tries_left().unwrap(), card.puk_tries_left().unwrap().unwrap());
        // The PIN has no tries or all, and of the PUK's at most this one is counted.
        assert!([0, PIN_TRIES].contains(&pin) && puk >= PUK_TRIES - 1, "{pin} {puk}");
        drop(card);
        unblock(&mut place).unwrap();
        assert_eq!(place.open().puk_tries_left().unwrap(), Some(PUK_TRIES));
        place.works(NEW);
    };
    assert_eq!(at_each_point(blocked, unblock, again), 3 * 4);
}

#[test]
fn a_change_of_pin_or_puk_that_ends_at_any_point_leaves_one_that_counts() {
    let change =
        |place: &mut Place| place.open().change_pin(&secret(PIN), &secret(NEW), &mut seeded(4));
    let again = |place: Place, _points| {
        let mut card = place.open();
        let is_new = card.change_pin(&secret(PIN), &secret(PIN), &mut seeded(5)).is_err();
        drop(card);
        place.works(if is_new { NEW } else { PIN });
    };
    assert_eq!(at_each_point(Place::enrolled, change, again), 3 * 4);

    let renew = |place: &mut Place| {
        let puk = place.open().renew_puk(&secret(PIN), &mut seeded(4))?;
        place.puk = Some(puk);
        Ok(())
    };
    let again = |mut place: Place, _points| {
        // The old one counts, or the new one that was not told: the PIN makes another.
        renew(&mut place).unwrap();
        place.works(PIN);
    };
    assert_eq!(at_each_point(Place::enrolled, renew, again), 3 * 4);
}

#[test]
fn a_try_is_counted_before_it_is_made() {
    let wrong = |place: &mut Place| {
        let chip = &mut CardChipDir::new(place.open(), NOW).unwrap();
        match chip.check_pin(&secret(b"0000")).unwrap_err() {
            ChipError::PinWrong { left } => {
                assert_eq!(left, 2);
                Ok(())
            }
            // It says nothing of the PIN.
            ChipError::Failed(_) => Err(KeyError::Busy),
            other => panic!("{other}"),
        }
    };
    cheap::on();
    for points in 0.. {
        let mut place = Place::enrolled();
        crash::after(points);
        let done = wrong(&mut place);
        crash::reborn();
        let left = place.open().tries_left().unwrap();
        if done.is_ok() {
            assert_eq!((left, points), (2, 3), "told, so counted");
            break;
        }
        // The last point but one is before the file is replaced.
        assert_eq!(left, if points < 2 { PIN_TRIES } else { 2 });
    }
    // The right one too costs a try, until it was found to be the right one.
    for (points, left) in [(0, 3), (1, 3), (2, 2), (3, 2), (4, 2), (5, 3)] {
        let place = Place::enrolled();
        let mut chip = CardChipDir::new(place.open(), NOW).unwrap();
        crash::after(points);
        assert!(matches!(chip.check_pin(&secret(PIN)), Err(ChipError::Failed(_))));
        crash::reborn();
        assert_eq!(chip.tries().unwrap().pin, left, "{points}");
    }
}

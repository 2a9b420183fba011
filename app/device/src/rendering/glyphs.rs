//! What a person reads: digits and pictures.

use countersign_payment::joint::{JointPassword, Language, PICTURE_SIDE, Picture};
use zeroize::Zeroizing;

use super::grid::{Grid, with_room};

/// How the nine are grouped.
const GROUPS: [usize; 3] = [4, 4, 1];
/// Light points around everything.
const BORDER: usize = 4;
/// Points between two digits, and those more between two groups.
const DIGIT_GAP: usize = 1;
const GROUP_GAP: usize = 4;
const DIGIT_WIDTH: usize = 5;
const DIGIT_HEIGHT: usize = 7;
/// Points between two pictures, and between two rows of them.
const PICTURE_GAP: usize = 4;

/// The digits 0 to 9, five points wide; no two differ in fewer than four points.
pub(super) const FONT: [[u16; DIGIT_HEIGHT]; 10] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];

/// The digits in one row.
pub(super) fn digits(password: &JointPassword) -> Grid {
    let count: usize = GROUPS.iter().sum();
    let gaps = (GROUPS.len() - 1) * GROUP_GAP;
    let width = count * (DIGIT_WIDTH + DIGIT_GAP) - DIGIT_GAP + gaps + 2 * BORDER;
    let mut grid = Grid::new(width, DIGIT_HEIGHT + 2 * BORDER);
    let mut pictures = password.pictures().into_iter();
    let mut left = BORDER;
    for group in GROUPS {
        for picture in pictures.by_ref().take(group) {
            grid.draw(left, BORDER, &FONT[usize::from(picture.digit())], DIGIT_WIDTH);
            left += DIGIT_WIDTH + DIGIT_GAP;
        }
        left += GROUP_GAP;
    }
    grid
}

/// The pictures, a group a row.
pub(super) fn pictures(password: &JointPassword) -> Grid {
    let pictures = password.pictures();
    let step = PICTURE_SIDE + PICTURE_GAP;
    let side = |count: usize| count * step - PICTURE_GAP + 2 * BORDER;
    let mut grid = Grid::new(side(GROUPS[0]), side(GROUPS.len()));
    let mut top = BORDER;
    for row in rows(&pictures) {
        for (at, picture) in row.iter().enumerate() {
            grid.draw(BORDER + at * step, top, picture.bitmap(), PICTURE_SIDE);
        }
        top += step;
    }
    grid
}

/// The pictures as text, and under each row its pictures' names.
pub(super) fn pictures_text(password: &JointPassword, language: Language) -> Zeroizing<String> {
    let pictures = password.pictures();
    let step = PICTURE_SIDE + PICTURE_GAP;
    let mut text = with_room(GROUPS[0] * step, GROUPS.len() * (PICTURE_SIDE / 2 + 2));
    for row in rows(&pictures) {
        let mut grid = Grid::new(row.len() * step - PICTURE_GAP, PICTURE_SIDE);
        for (at, picture) in row.iter().enumerate() {
            grid.draw(at * step, 0, picture.bitmap(), PICTURE_SIDE);
        }
        text.push_str(&grid.half_blocks(true));
        for (at, picture) in row.iter().enumerate() {
            let name = picture.name(language);
            text.push_str(name);
            let filled = if at + 1 < row.len() { step } else { 0 };
            text.extend((columns(name)..filled).map(|_| ' '));
        }
        text.push_str("\n\n");
    }
    text.pop();
    text
}

/// The groups of nine pictures.
fn rows(pictures: &[Picture]) -> impl Iterator<Item = &[Picture]> {
    let mut rest = pictures;
    GROUPS.into_iter().map(move |count| {
        let (row, tail) = rest.split_at(count.min(rest.len()));
        rest = tail;
        row
    })
}

/// Columns of a name in a terminal: Chinese characters take two.
fn columns(name: &str) -> usize {
    name.chars().map(|character| if character.is_ascii() { 1 } else { 2 }).sum()
}

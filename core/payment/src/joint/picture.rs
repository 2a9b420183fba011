//! The ten pictures. A picture is a digit: its shape tells it, not a colour, and it has a name that
//! can be said aloud, for whoever reads digits badly or out to somebody else.

/// Width and height of a picture, in points.
pub const PICTURE_SIDE: usize = 16;

/// A language that pictures have names in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    En,
    /// Chinese.
    Zh,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];
}

/// A picture that stands for a digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture(u8);

impl Picture {
    /// Every picture, by its digit.
    pub const ALL: [Self; 10] =
        [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(9)];

    /// The digit, 0 to 9.
    #[must_use]
    pub const fn digit(self) -> u8 {
        self.0
    }

    /// The picture of a digit, 0 to 9.
    #[must_use]
    pub fn of_digit(digit: u8) -> Option<Self> {
        Self::ALL.get(usize::from(digit)).copied()
    }

    fn drawing(self) -> &'static Drawing {
        &DRAWINGS[usize::from(self.0)]
    }

    /// Its spoken name.
    #[must_use]
    pub fn name(self, language: Language) -> &'static str {
        match language {
            Language::En => self.drawing().english,
            Language::Zh => self.drawing().chinese,
        }
    }

    /// The picture of a name in any language, in lower or upper case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|picture| {
            let is = |language| picture.name(language).eq_ignore_ascii_case(name);
            Language::ALL.into_iter().any(is)
        })
    }

    /// Its points: a row a number from the top, the leftmost point in the highest bit, 1 is ink.
    #[must_use]
    pub fn bitmap(self) -> &'static [u16; PICTURE_SIDE] {
        &self.drawing().bitmap
    }
}

struct Drawing {
    english: &'static str,
    chinese: &'static str,
    bitmap: [u16; PICTURE_SIDE],
}

/// Names of two syllables in Chinese, and of one beginning each in English where that was possible:
/// they are heard as well as read.
static DRAWINGS: [Drawing; 10] = [
    Drawing { english: "sun", chinese: "太阳", bitmap: SUN },
    Drawing { english: "moon", chinese: "月亮", bitmap: MOON },
    Drawing { english: "umbrella", chinese: "雨伞", bitmap: UMBRELLA },
    Drawing { english: "fish", chinese: "小鱼", bitmap: FISH },
    Drawing { english: "house", chinese: "房子", bitmap: HOUSE },
    Drawing { english: "key", chinese: "钥匙", bitmap: KEY },
    Drawing { english: "star", chinese: "星星", bitmap: STAR },
    Drawing { english: "boat", chinese: "帆船", bitmap: BOAT },
    Drawing { english: "bell", chinese: "铃铛", bitmap: BELL },
    Drawing { english: "cup", chinese: "杯子", bitmap: CUP },
];

const fn drawn(rows: [&str; PICTURE_SIDE]) -> [u16; PICTURE_SIDE] {
    let mut bitmap = [0; PICTURE_SIDE];
    let mut y = 0;
    while y < PICTURE_SIDE {
        let row = rows[y].as_bytes();
        assert!(row.len() == PICTURE_SIDE, "a row has 16 points");
        let mut x = 0;
        while x < PICTURE_SIDE {
            bitmap[y] = bitmap[y] << 1 | (row[x] == b'#') as u16;
            x += 1;
        }
        y += 1;
    }
    bitmap
}

#[rustfmt::skip]
const SUN: [u16; PICTURE_SIDE] = drawn([
    ".......##.......",
    ".......##.......",
    "..##........##..",
    "..##.######.##..",
    "....########....",
    "...##########...",
    "...##########...",
    "##.##########.##",
    "##.##########.##",
    "...##########...",
    "...##########...",
    "....########....",
    "..##.######.##..",
    "..##........##..",
    ".......##.......",
    ".......##.......",
]);
#[rustfmt::skip]
const MOON: [u16; PICTURE_SIDE] = drawn([
    ".....#####......",
    "...#####........",
    "..#####.........",
    ".#####..........",
    ".####...........",
    "#####...........",
    "#####...........",
    "#####...........",
    "#####...........",
    "#####...........",
    ".#####.........#",
    ".######.......##",
    "..#######...###.",
    "...##########...",
    "....########....",
    "......####......",
]);
#[rustfmt::skip]
const UMBRELLA: [u16; PICTURE_SIDE] = drawn([
    ".......##.......",
    "....########....",
    "..############..",
    ".##############.",
    ".##############.",
    "################",
    "################",
    "##.###.##.###.##",
    ".......##.......",
    ".......##.......",
    ".......##.......",
    ".......##.......",
    ".......##.......",
    "...##..##.......",
    "...##..##.......",
    "....####........",
]);
#[rustfmt::skip]
const FISH: [u16; PICTURE_SIDE] = drawn([
    "................",
    "................",
    "......####......",
    "....########...#",
    "...##########.##",
    "..##############",
    ".##.###########.",
    ".##.##########..",
    "##############..",
    ".#############..",
    ".###############",
    "..##########.###",
    "....#######...##",
    "......###......#",
    "................",
    "................",
]);
#[rustfmt::skip]
const HOUSE: [u16; PICTURE_SIDE] = drawn([
    ".......##.......",
    "......####......",
    ".....##..##.....",
    "....##....##....",
    "...##......##...",
    "..##........##..",
    ".##..........##.",
    "################",
    ".#............#.",
    ".#..###..####.#.",
    ".#..#.#..#..#.#.",
    ".#..###..#..#.#.",
    ".#.......#..#.#.",
    ".#.......#..#.#.",
    ".#.......#..#.#.",
    ".##############.",
]);
#[rustfmt::skip]
const KEY: [u16; PICTURE_SIDE] = drawn([
    "................",
    "................",
    "................",
    "..####..........",
    ".######.........",
    "##....##........",
    "##....##########",
    "##....##########",
    "##....##...##.##",
    ".######....##.##",
    "..####.....##.##",
    "................",
    "................",
    "................",
    "................",
    "................",
]);
#[rustfmt::skip]
const STAR: [u16; PICTURE_SIDE] = drawn([
    ".......##.......",
    ".......##.......",
    "......####......",
    "......####......",
    ".....######.....",
    "################",
    ".##############.",
    "..############..",
    "...##########...",
    "....########....",
    "....########....",
    "...##########...",
    "...####..####...",
    "..###......###..",
    "..##........##..",
    ".##..........##.",
]);
#[rustfmt::skip]
const BOAT: [u16; PICTURE_SIDE] = drawn([
    ".......#........",
    ".......##.......",
    ".......###......",
    ".......####.....",
    ".......#####....",
    ".......######...",
    ".......#######..",
    ".......########.",
    ".......#........",
    ".......#........",
    "################",
    ".##############.",
    "..############..",
    "...##########...",
    "................",
    "##..##..##..##..",
]);
#[rustfmt::skip]
const BELL: [u16; PICTURE_SIDE] = drawn([
    ".......##.......",
    "......####......",
    ".....##..##.....",
    "....##....##....",
    "....#......#....",
    "...##......##...",
    "...#........#...",
    "...#........#...",
    "...#........#...",
    "..##........##..",
    "..#..........#..",
    ".##..........##.",
    "################",
    "......####......",
    "......####......",
    ".......##.......",
]);
#[rustfmt::skip]
const CUP: [u16; PICTURE_SIDE] = drawn([
    "...#...#...#....",
    "....#...#...#...",
    "...#...#...#....",
    "................",
    "############....",
    "################",
    "############..##",
    "############...#",
    "############...#",
    "############..##",
    "###############.",
    "############....",
    ".##########.....",
    "..########......",
    "................",
    "################",
]);

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    /// Fewest points that tell two pictures apart, of 256.
    const APART_MIN: u32 = 48;

    #[test]
    fn pictures_differ_in_shape() {
        for (at, one) in Picture::ALL.into_iter().enumerate() {
            for other in &Picture::ALL[at + 1..] {
                let rows = one.bitmap().iter().zip(other.bitmap());
                let apart: u32 = rows.map(|(a, b)| (a ^ b).count_ones()).sum();
                assert!(apart >= APART_MIN, "{one:?} and {other:?} differ in {apart} points");
            }
        }
    }

    #[test]
    fn names_are_unique_and_lead_back() {
        let mut names = BTreeSet::new();
        for (digit, picture) in (0..).zip(Picture::ALL) {
            assert_eq!((picture.digit(), Picture::of_digit(digit)), (digit, Some(picture)));
            for language in Language::ALL {
                let name = picture.name(language);
                assert!(names.insert(name), "{name} twice");
                assert_eq!(Picture::from_name(name), Some(picture));
                assert_eq!(Picture::from_name(&name.to_ascii_uppercase()), Some(picture));
            }
        }
        for unknown in ["", "sunn", " sun", "0", "\u{592a}"] {
            assert_eq!(Picture::from_name(unknown), None, "{unknown}");
        }
        assert_eq!(Picture::of_digit(10), None);
    }
}

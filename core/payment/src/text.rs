//! Which texts a device may be asked to show: names, orders. What is shown must be what is there,
//! so controls, turns of direction, invisible characters and look-alikes are refused, by the
//! profiles of UTS #39 (Unicode Security Mechanisms).

use core::fmt;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_security::general_security_profile::IdentifierType;
use unicode_security::mixed_script::AugmentedScriptSet;
use unicode_security::{GeneralSecurityProfile, skeleton};

/// Most marks in a row upon one letter (UTS #39 §5.4 allows four).
const MARKS_MAX: usize = 4;

/// What is wrong with a text. [`TextProblem::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextProblem {
    /// Nothing in it.
    Empty,
    /// More characters than the field has.
    TooLong,
    /// A control character, a line's end.
    Control,
    /// A character that turns the direction of writing.
    Direction,
    /// A character that shows nothing: zero-width, tags, fillers, variation selectors.
    Invisible,
    /// A code point without a character, or with a private one.
    Unassigned,
    /// A space that is not U+0020, or one at an end, or two in a row.
    Space,
    /// Not in the normal form NFC.
    Normalization,
    /// A letter or digit that is no everyday one: mathematical, full-width, archaic.
    Character,
    /// Marks without a letter, too many of them, one twice, or one that strikes through.
    Marks,
    /// Digits of two systems.
    Digits,
    /// One word in two scripts.
    Scripts,
    /// A word of another script that looks like a Latin one.
    LookAlike,
}

impl TextProblem {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Empty => "text-empty",
            Self::TooLong => "text-too-long",
            Self::Control => "text-control",
            Self::Direction => "text-direction",
            Self::Invisible => "text-invisible",
            Self::Unassigned => "text-unassigned",
            Self::Space => "text-space",
            Self::Normalization => "text-normalization",
            Self::Character => "text-character",
            Self::Marks => "text-marks",
            Self::Digits => "text-digits",
            Self::Scripts => "text-scripts",
            Self::LookAlike => "text-look-alike",
        }
    }
}

impl fmt::Display for TextProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the text is empty",
            Self::TooLong => "the text is too long",
            Self::Control => "a control character",
            Self::Direction => "a character that turns the direction of writing",
            Self::Invisible => "an invisible character",
            Self::Unassigned => "an unassigned or private character",
            Self::Space => "a space at an end, doubled, or of another kind",
            Self::Normalization => "the text is not in the normal form NFC",
            Self::Character => "a letter or digit outside everyday writing",
            Self::Marks => "marks without a letter, doubled, too many, or striking it through",
            Self::Digits => "digits of two systems",
            Self::Scripts => "a word in two scripts",
            Self::LookAlike => "a word that looks like one of another script",
        })
    }
}

/// Checks a text that a device is to show. `field` names it in the error; `max` is its greatest
/// length in characters.
///
/// # Errors
/// [`PaymentError::Text`](crate::PaymentError::Text) with the first problem.
pub fn check(field: &'static str, text: &str, max: usize) -> Result<(), crate::PaymentError> {
    problem(text, max).map_or(Ok(()), |problem| Err(crate::PaymentError::Text { field, problem }))
}

fn problem(text: &str, max: usize) -> Option<TextProblem> {
    if text.is_empty() {
        return Some(TextProblem::Empty);
    }
    if text.chars().nth(max).is_some() {
        return Some(TextProblem::TooLong);
    }
    let of_character = text.chars().find_map(of_character);
    of_character
        .or_else(|| of_spaces(text))
        .or_else(|| (!is_nfc(text)).then_some(TextProblem::Normalization))
        .or_else(|| of_marks(text))
        .or_else(|| of_digits(text))
        .or_else(|| of_words(text))
}

/// What is wrong with a character wherever it stands.
fn of_character(c: char) -> Option<TextProblem> {
    if is_directional(c) {
        return Some(TextProblem::Direction);
    }
    if is_invisible(c) {
        return Some(TextProblem::Invisible);
    }
    match c.general_category() {
        GeneralCategory::Control
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => Some(TextProblem::Control),
        GeneralCategory::Format => Some(TextProblem::Invisible),
        GeneralCategory::Unassigned | GeneralCategory::PrivateUse => Some(TextProblem::Unassigned),
        GeneralCategory::SpaceSeparator if c != ' ' => Some(TextProblem::Space),
        GeneralCategory::EnclosingMark => Some(TextProblem::Marks),
        _ if is_of_word(c) && !is_everyday(c) => Some(TextProblem::Character),
        _ if is_enclosed(c) => Some(TextProblem::Character),
        _ => None,
    }
}

/// UTS #39 §3.1, the General Security Profile, and with it the rarer Chinese characters: people
/// have them in their names.
fn is_everyday(c: char) -> bool {
    c.identifier_allowed()
        || (is_cjk(c) && c.identifier_type() == Some(IdentifierType::Uncommon_Use))
}

/// Letters in circles and squares, and the halves of flags, which count as symbols.
const fn is_enclosed(c: char) -> bool {
    matches!(c, '\u{249c}'..='\u{24e9}' | '\u{1f110}'..='\u{1f1ff}')
}

/// The characters with `Bidi_Control`.
const fn is_directional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// The characters with `Default_Ignorable_Code_Point`, and two that are blank all the same.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn of_spaces(text: &str) -> Option<TextProblem> {
    let wrong = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    wrong.then_some(TextProblem::Space)
}

fn is_mark(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Mark
}

/// Whether a character is part of a word: letters, marks, digits.
fn is_of_word(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number};
    matches!(c.general_category_group(), Letter | Mark | Number)
}

/// Overlays strike a letter through and make another one of it, unnoticed by NFC.
const fn is_overlay(c: char) -> bool {
    matches!(c, '\u{334}'..='\u{338}' | '\u{20d2}'..='\u{20d3}' | '\u{20d8}'..='\u{20da}'
        | '\u{20e5}'..='\u{20e6}' | '\u{20ea}'..='\u{20eb}')
}

fn of_marks(text: &str) -> Option<TextProblem> {
    let (mut has_base, mut marks, mut last) = (false, 0, None);
    // Decomposed, so that a mark behind a letter that contains it is the second.
    for c in text.nfd() {
        if !is_mark(c) {
            has_base = is_of_word(c);
            (marks, last) = (0, None);
            continue;
        }
        marks += 1;
        if !has_base || marks > MARKS_MAX || last == Some(c) || is_overlay(c) {
            return Some(TextProblem::Marks);
        }
        last = Some(c);
    }
    None
}

/// UTS #39 §5.3: a number is written in one system of digits.
fn of_digits(text: &str) -> Option<TextProblem> {
    let mut systems = text.chars().filter_map(zero_of);
    let first = systems.next()?;
    systems.any(|zero| zero != first).then_some(TextProblem::Digits)
}

/// The zero of a decimal digit's system: systems are ten characters in a row.
fn zero_of(c: char) -> Option<u32> {
    if c.general_category() != GeneralCategory::DecimalNumber {
        return None;
    }
    let is_digit = |code: u32| {
        char::from_u32(code).is_some_and(|c| c.general_category() == GeneralCategory::DecimalNumber)
    };
    // Blocks of digits begin at a multiple of 16 or 6 above one; mathematical ones, which do not,
    // are refused as characters.
    let low = u32::from(c) & !0xf;
    Some(if is_digit(low) { low } else { low + 6 })
}

/// A word, or the part of one that is of the Chinese, Japanese and Korean scripts or not: these
/// stand beside other scripts without a space.
struct Word<'a> {
    text: &'a str,
    scripts: AugmentedScriptSet,
}

impl Word<'_> {
    fn has_letters(&self) -> bool {
        self.text.chars().any(|c| c.general_category_group() == GeneralCategoryGroup::Letter)
    }

    /// Whether it can be taken for a word, or for a number, that it is not.
    fn looks_like_another(&self) -> bool {
        if !self.has_letters() {
            return !self.text.is_ascii();
        }
        !shares(self.scripts, 'a'.into()) && skeleton(self.text).all(|c| c.is_ascii())
    }
}

fn shares(mut one: AugmentedScriptSet, other: AugmentedScriptSet) -> bool {
    one.intersect_with(other);
    !one.is_empty()
}

fn is_cjk(c: char) -> bool {
    let scripts = AugmentedScriptSet::for_char(c);
    !scripts.is_all() && (scripts.hanb || scripts.jpan || scripts.kore)
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let start = rest.find(is_of_word)?;
        rest = &rest[start..];
        let first = rest.chars().next().is_some_and(is_cjk);
        // A digit or a mark that many scripts share goes with what is before it.
        let ends = |c: char| {
            let shared = AugmentedScriptSet::for_char(c).is_all();
            !is_of_word(c) || (!shared && is_cjk(c) != first)
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(Word { text: word, scripts: AugmentedScriptSet::for_str(word) })
    })
}

/// Mixed scripts in one word, and words that look like Latin ones (UTS #39 §4 and §5).
fn of_words(text: &str) -> Option<TextProblem> {
    if words(text).any(|word| word.scripts.is_empty()) {
        return Some(TextProblem::Scripts);
    }
    // A text that has the script's own letters too is written in it: "сор" beside "мусор".
    let is_vouched = |word: &Word<'_>| {
        words(text).any(|other| {
            other.has_letters()
                && !other.looks_like_another()
                && shares(other.scripts, word.scripts)
                && !other.scripts.is_all()
        })
    };
    let fake = words(text).any(|word| word.looks_like_another() && !is_vouched(&word));
    fake.then_some(TextProblem::LookAlike)
}

#[cfg(test)]
mod tests;

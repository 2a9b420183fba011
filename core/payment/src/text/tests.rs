use proptest::prelude::*;

use super::*;

fn found(text: &str) -> Option<TextProblem> {
    problem(text, 140)
}

#[track_caller]
fn each_is(wanted: TextProblem, texts: &[&str]) {
    for text in texts {
        assert_eq!(found(text), Some(wanted), "{text:?}");
    }
}

#[test]
fn names_and_orders_of_many_countries_pass() {
    for text in [
        "a",
        "7",
        "Müller & Söhne GmbH",
        "O'Brien, Smith-Jones (Ltd.)",
        "Łódź, São Paulo, Škoda, Ærø",
        "Kırmızı Işık A.Ş.",
        "Nguyễn Thị Minh Khai",
        "北京示例科技有限公司",
        "订单 2026-117（含税），数量：2",
        "购买iPhone手机1台",
        "𠮷野家",
        "東京タワー観光チケット 2枚",
        "주식회사 예시 Example상사",
        "ООО «Ромашка», счёт № 15",
        "Оплата iPhone 15",
        "мусор, сор и ухо",
        "Ο λογαριασμός του Ιουλίου",
        "חשבונית 117 עבור ספרים",
        "فاتورة رقم ١١٧",
        "चालान ११७ के लिए भुगतान",
        "ใบแจ้งหนี้ 117",
        "2 × Kaffee @ 3,50 € – 10 %",
        "naïve café",
        "100% \\ <b>\"quoted\"</b> #1 ☕",
    ] {
        assert_eq!(found(text), None, "{text:?}");
    }
}

#[test]
fn lengths_are_in_characters() {
    assert_eq!(problem("", 5), Some(TextProblem::Empty));
    assert_eq!(problem("订单订单订", 5), None);
    assert_eq!(problem("订单订单订单", 5), Some(TextProblem::TooLong));
}

#[test]
fn controls_and_line_ends() {
    each_is(
        TextProblem::Control,
        &[
            "a\0b",
            "a\nb",
            "a\r\nb",
            "a\tb",
            "a\u{1b}[2Jb",
            "a\u{7f}b",
            "a\u{85}b",
            "a\u{9b}31mb",
            "a\u{2028}b",
            "a\u{2029}b",
        ],
    );
}

#[test]
fn turns_of_direction() {
    for c in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\
              \u{2067}\u{2068}\u{2069}"
        .chars()
    {
        each_is(TextProblem::Direction, &[&alloc::format!("100{c}001"), &c.to_string()]);
    }
}

#[test]
fn zero_width_and_other_invisible_characters() {
    for c in "\u{ad}\u{34f}\u{115f}\u{1160}\u{17b4}\u{180e}\u{200b}\u{200c}\u{200d}\u{2060}\
              \u{2061}\u{2064}\u{206a}\u{2800}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\
              \u{fffc}\u{1d173}\u{e0100}\u{600}\u{6dd}"
        .chars()
    {
        each_is(TextProblem::Invisible, &[&alloc::format!("pay{c}pal")]);
    }
}

#[test]
fn tag_characters_carry_hidden_text() {
    let hidden: String =
        "evil".chars().map(|c| char::from_u32(0xe0000 + u32::from(c)).unwrap()).collect();
    each_is(TextProblem::Invisible, &[&alloc::format!("Shop{hidden}"), "\u{e0001}", "a\u{e007f}"]);
}

#[test]
fn what_has_no_character() {
    each_is(
        TextProblem::Unassigned,
        &["a\u{378}", "a\u{fdd0}", "a\u{e000}", "a\u{f8ff}", "a\u{10fffd}", "a\u{1fffe}"],
    );
}

#[test]
fn spaces_of_other_kinds_and_at_the_ends() {
    each_is(
        TextProblem::Space,
        &[
            " a",
            "a ",
            " ",
            "a  b",
            "a\u{a0}b",
            "a\u{2003}b",
            "a\u{202f}b",
            "a\u{3000}b",
            "a\u{1680}b",
        ],
    );
}

#[test]
fn other_forms_of_the_same_text() {
    each_is(TextProblem::Normalization, &["Mu\u{308}ller", "x\u{302}\u{323}"]);
    // Singletons: the signs for angstrom and ohm, a compatibility ideograph.
    each_is(TextProblem::Character, &["\u{212b}", "\u{f900}", "\u{2126}"]);
}

#[test]
fn letters_and_digits_that_are_no_everyday_ones() {
    each_is(
        TextProblem::Character,
        &[
            "𝐏𝐚𝐲𝐏𝐚𝐥",
            "ＰａｙＰａｌ",
            "１００",
            "𝟏𝟎𝟎",
            "①",
            "m²",
            "ﬁne",
            "ⓐ",
            "🅰",
            "🇨🇳",
            "⒜",
            "10\u{338}0",
            "ｱﾏｿﾞﾝ",
            "ǃkung",
            "ɑpple",
            "ᴘay",
            "𐌰",
            "ꓮmazon",
            "Ꭺpple",
            "Ⅿ",
        ],
    );
}

#[test]
fn stacked_doubled_striking_and_orphaned_marks() {
    each_is(
        TextProblem::Marks,
        &[
            "\u{301}a",
            "1 \u{301}",
            "x\u{301}\u{301}",
            "é\u{301}",
            "x\u{323}\u{30a}\u{302}\u{303}\u{304}",
            "a\u{20dd}",
        ],
    );
}

#[test]
fn digits_of_two_systems() {
    each_is(TextProblem::Digits, &["1٢3", "१२3", "৪00", "رقم ١ 2"]);
    // One system, but none of a script that the text is written in: ৪ is four, not eight.
    each_is(TextProblem::LookAlike, &["৪", "pay ৪০০", "Сумма ৪"]);
}

#[test]
fn one_word_in_two_scripts() {
    each_is(
        TextProblem::Scripts,
        &["p\u{430}ypal", "Аpple", "Shop Αmazon", "мuсор", "paуpаl", "гeпa", "aב", "カtakaна"],
    );
}

#[test]
fn words_that_only_look_latin() {
    each_is(TextProblem::LookAlike, &["аре", "Shop сосо", "НЕХ", "ΑΒΕ Ltd", "А pple", "РауРаӏ"]);
}

#[test]
fn problems_differ_in_name() {
    let names = [
        TextProblem::Empty,
        TextProblem::TooLong,
        TextProblem::Control,
        TextProblem::Direction,
        TextProblem::Invisible,
        TextProblem::Unassigned,
        TextProblem::Space,
        TextProblem::Normalization,
        TextProblem::Character,
        TextProblem::Marks,
        TextProblem::Digits,
        TextProblem::Scripts,
        TextProblem::LookAlike,
    ];
    let checks: std::collections::BTreeSet<_> = names.map(TextProblem::check).into();
    assert_eq!(checks.len(), names.len());
}

proptest! {
    /// Total on anything, and what passes has no character of the refused kinds.
    #[test]
    fn what_passes_is_plain(text in any::<String>()) {
        if found(&text).is_none() {
            prop_assert!(is_nfc(&text));
            prop_assert!(!text.chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }

    /// Any Latin name with one letter replaced by its Cyrillic or Greek double is refused.
    #[test]
    fn one_double_in_a_word_is_found(name in "[bdfghjklmnqrstuvwz]{3,12}", at in 0_usize..12) {
        const DOUBLES: [char; 8] = ['а', 'е', 'о', 'р', 'с', 'у', 'х', 'ο'];
        let at = at % name.len();
        for double in DOUBLES {
            let fake = alloc::format!("{}{double}{}", &name[..at], &name[at + 1..]);
            prop_assert_eq!(found(&fake), Some(TextProblem::Scripts));
        }
    }
}

//! Pages for everybody: by keyboard alone, on 320 pixels, in both languages, in the dark
//! (WCAG 2.2 AA); each state as a screenshot for people to look at.

use fantoccini::key::Key;
use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Chromium;

use crate::Check;
use crate::bank::Bank;
use crate::browser::{Browser, DESKTOP, NARROW, PHONE};
use crate::host::Database;
use crate::payer::other_than;

pub(crate) const TRIALS: [(&str, Check); 4] = [
    ("a_payment_is_confirmed_by_keyboard_alone", a_payment_is_confirmed_by_keyboard_alone),
    ("every_state_in_english_on_every_screen", |chromium| every_state(chromium, "en", "en")),
    ("every_state_in_chinese_on_every_screen", |chromium| every_state(chromium, "zh", "zh-Hans")),
    ("the_language_is_the_readers_and_can_be_changed", the_language_is_the_readers),
];

/// What finds complaints on a page.
const COMPLAINTS: &str = include_str!("complaints.js");
/// How often Tab is pressed before a thing counts as out of reach.
const TABS: usize = 40;
/// Words that are the same in both languages: names, and what stands on devices.
const ANYWHERE: [&str; 10] =
    ["Countersign", "English", "CNY", "PIN", "PUK", "JavaScript", "https", "ABCD", "EFGH", "QR"];
/// What the payments of these tests say themselves.
const OURS: [&str; 12] = [
    "Tea",
    "Shop",
    "SHOP",
    "PAYE",
    "Order",
    "teas",
    "countersign",
    "pay",
    "the",
    "blue",
    "OCRA",
    "one",
];

/// Pictures of a page on three screens, and in the dark; it has no fault on any.
pub(crate) fn pictures(browser: &Browser, name: &str, tag: &str) -> Result<(), Failed> {
    let mut found = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers("prefers-color-scheme", scheme)?;
        for screen in [NARROW, PHONE, DESKTOP] {
            // The dark is looked at once, on the screen where it is used most.
            if scheme == "dark" && screen != PHONE {
                continue;
            }
            browser.screen(screen)?;
            browser.script("scrollTo(0, 0)", Vec::new())?;
            let dark = if scheme == "dark" { "-dark" } else { "" };
            browser.keep_picture(&format!("{name}-{}{dark}", screen.name))?;
            let complaints = browser.script(COMPLAINTS, vec![json!(tag)])?;
            for complaint in complaints.as_array().ok_or("no list")? {
                found.push(format!("{name} on {}{dark}: {complaint}", screen.name));
            }
        }
    }
    browser.prefers("prefers-color-scheme", "light")?;
    browser.screen(PHONE)?;
    found.extend(untranslated(browser, tag)?);
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}

/// Words of the other language on this page, but for names.
fn untranslated(browser: &Browser, tag: &str) -> Result<Vec<String>, Failed> {
    let text = browser.text("body")?;
    if tag == "en" {
        let han = text.replace("中文", "");
        let han = han.chars().any(|c| matches!(c, '\u{3400}'..='\u{9fff}'));
        return Ok(if han { vec![format!("Chinese in the English page: {text}")] } else { vec![] });
    }
    // Numbers of payments and incidents, and a server's name, are the same everywhere.
    let named =
        text.split_whitespace().filter(|word| !word.contains('_') && !word.contains("srv-"));
    let latin = named.flat_map(|word| word.split(|c: char| !c.is_ascii_alphanumeric()));
    let latin = latin.filter(|word| {
        let letters = word.chars().all(|c| c.is_ascii_alphabetic());
        letters && word.len() > 2 && !ANYWHERE.contains(word) && !OURS.contains(word)
    });
    Ok(latin.map(|word| format!("English in the Chinese page: {word}")).collect())
}

/// The texts of the pages that a test must know, in its language.
struct Words {
    paid: &'static str,
    waiting: &'static str,
    refused: &'static str,
}

const fn words(language: &str) -> Words {
    if language.len() == 2 && language.as_bytes()[0] == b'z' {
        Words { paid: "付款成功", waiting: "等待您确认", refused: "未通过" }
    } else {
        Words { paid: "Paid", waiting: "Waiting for you", refused: "Not accepted" }
    }
}

/// Walks through every state that a payer and a shop can see.
fn every_state(chromium: &Chromium, language: &str, tag: &str) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let said = words(language);
    let mut faults = Vec::new();
    let mut note = |browser: &Browser, name: &str| {
        let seen = pictures(browser, &format!("{language}-{name}"), tag);
        faults.extend(seen.err().and_then(|failed| failed.message().map(str::to_owned)));
    };
    let phone = Browser::open(chromium, language)?;
    phone.go(&format!("{}/phone", bank.url()))?;
    phone.wait_view("enrol")?;
    note(&phone, "phone-enrol");
    phone.fill("#code", "12")?;
    phone.click("#enrol-button")?;
    phone.wait("an error at the field", |page| Ok(!page.text("#code-error")?.is_empty()))?;
    note(&phone, "phone-enrol-error");
    bank.connect(&phone)?;
    note(&phone, "phone-empty");
    let first = bank.asked("1234567.89", &["--from", "OUTSIDE01"]).ok();
    assert!(first.is_none(), "nobody confirms for an account of the outside");
    let (id, large) = (bank.pending("12.34")?, bank.pending("999.99")?);
    let item = |id: &str| format!("#payment-list a.payment[data-payment='{id}']");
    phone.wait_for(&item(&id))?;
    phone.wait_for(&item(&large))?;
    assert!(phone.text("main")?.contains(said.waiting), "{}", phone.text("main")?);
    note(&phone, "phone-list");

    let checkout = bank.checkout(&id)?;
    let shop = Browser::open(chromium, language)?;
    shop.go(&checkout.url)?;
    shop.wait_view("pending")?;
    note(&shop, "checkout-pending");
    shop.click("#offline-open")?;
    shop.wait_for("#qr svg")?;
    note(&shop, "checkout-offline");

    bank.look_at(&phone, &id)?;
    note(&phone, "payment-pending");
    phone.click("#reject-open")?;
    phone.wait_for("#reject-button")?;
    note(&phone, "payment-reject");
    phone.click("#reject-open")?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    phone.confirm_by_digits(&other_than(&checkout.number), "OCRA-1", &digits)?;
    assert!(phone.wait_problem()?.contains(said.refused), "{}", phone.text("#problem")?);
    note(&phone, "payment-refused");
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &digits)?;
    phone.wait_outcome("executed")?;
    assert_eq!(phone.text("#result-heading")?, said.paid);
    note(&phone, "payment-executed");
    shop.wait_outcome("executed")?;
    note(&shop, "checkout-executed");

    let id = large;
    bank.look_at(&phone, &id)?;
    shop.go(&bank.checkout(&id)?.url)?;
    shop.wait_view("pending")?;
    phone.click("#reject-open")?;
    phone.wait_for("#reject-button")?;
    phone.click("#reason-not-mine")?;
    phone.click("#reject-button")?;
    phone.wait_outcome("rejected")?;
    note(&phone, "payment-not-mine");
    shop.wait_outcome("rejected")?;
    note(&shop, "checkout-rejected");
    bank.done(&["account", "unfreeze", "PAYER0001"])?;
    let id = bank.pending("5.00")?;
    bank.look_at(&phone, &id)?;
    bank.run("till", &["payment", "cancel", &id])?.ok()?;
    phone.wait_outcome("cancelled")?;
    note(&phone, "payment-cancelled");

    // Confirmed, but there is no money any more.
    let id = bank.pending("900.00")?;
    let checkout = bank.checkout(&id)?;
    bank.post("emptied", "PAYER0001", "OUTSIDE01", "900.00")?.ok()?;
    shop.go(&checkout.url)?;
    shop.wait_view("pending")?;
    bank.look_at(&phone, &id)?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &digits)?;
    phone.wait_outcome("execution_failed")?;
    note(&phone, "payment-execution-failed");
    shop.wait_outcome("execution_failed")?;
    note(&shop, "checkout-execution-failed");

    let stranger = Browser::open(chromium, language)?;
    stranger.go(&checkout.url[..checkout.url.find('#').ok_or("no key")?])?;
    stranger.wait_view("no-key")?;
    note(&stranger, "checkout-no-key");
    stranger.go(&format!("{}/phone/payments/{id}", bank.url()))?;
    stranger.wait_view("enrol")?;
    note(&stranger, "payment-not-connected");
    if !faults.is_empty() {
        return Err(faults.join("\n").into());
    }
    bank.books_hold()
}

/// Tab until this has the focus, which can be seen on every step; what had it before, in order.
fn tab_to(browser: &Browser, id: &str) -> Result<Vec<String>, Failed> {
    let mut passed = Vec::new();
    for _ in 0..TABS {
        browser.press(Key::Tab)?;
        let seen = browser.script(
            "const at = document.activeElement;\
             if (!at || at === document.body) return ['', true];\
             const style = getComputedStyle(at);\
             const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;\
             const box = at.getBoundingClientRect();\
             const inside = box.bottom > 0 && box.top < innerHeight;\
             return [at.id || at.dataset.payment || at.tagName, ring && inside];",
            Vec::new(),
        )?;
        let name = seen[0].as_str().unwrap_or_default().to_owned();
        assert_eq!(seen[1], json!(true), "the focus on {name} cannot be seen");
        if name == id {
            return Ok(passed);
        }
        passed.push(name);
    }
    Err(format!("{id} is out of a keyboard's reach; {passed:?}").into())
}

fn a_payment_is_confirmed_by_keyboard_alone(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let id = bank.pending("12.34")?;
    let checkout = bank.checkout(&id)?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    let phone = Browser::open(chromium, "en")?;
    phone.go(&format!("{}/phone", bank.url()))?;
    phone.wait_view("enrol")?;
    tab_to(&phone, "code")?;
    phone.keys(&bank.code()?)?;
    phone.press(Key::Enter)?;
    phone.wait_view("payments")?;
    phone.wait_for(&format!("#payment-list a.payment[data-payment='{id}']"))?;
    tab_to(&phone, &id)?;
    phone.press(Key::Enter)?;
    phone.wait_view("payment")?;

    tab_to(&phone, "match-code")?;
    phone.keys(&checkout.number)?;
    if !phone.shows("#digits")? {
        tab_to(&phone, "digits-open")?;
        phone.press(Key::Enter)?;
        phone.wait_for("#digits")?;
    }
    let passed = tab_to(&phone, "digits")?;
    assert_eq!(passed.last().map(String::as_str), Some("device"), "the device comes first");
    phone.keys(&digits)?;
    // Then the button, and what says no comes behind it.
    assert_eq!(tab_to(&phone, "approve-digits")?, Vec::<String>::new());
    phone.press(Key::Enter)?;
    phone.wait_outcome("executed")?;
    assert_eq!(phone.focused()?, "result-heading", "who cannot see it is told");
    assert_eq!(bank.balance("SHOP0001")?, "12.34");

    // To say no by keyboard.
    let id = bank.pending("2.00")?;
    bank.look_at(&phone, &id)?;
    tab_to(&phone, "reject-open")?;
    phone.press(Key::Enter)?;
    phone.wait_for("#reject-button")?;
    phone.press(Key::Tab)?;
    phone.keys(" ")?;
    phone.press(Key::Down)?;
    phone.press(Key::Down)?;
    tab_to(&phone, "reject-button")?;
    phone.press(Key::Enter)?;
    phone.wait_outcome("rejected")?;
    assert_eq!(bank.stands(&id)?, ("rejected".to_owned(), json!("changed-mind")));
    bank.books_hold()
}

fn the_language_is_the_readers(chromium: &Chromium) -> Result<(), Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    let page = format!("{}/phone", bank.url());
    for (accepts, tag) in [("zh-CN,zh", "zh-Hans"), ("fr-FR,fr", "en"), ("en-GB", "en")] {
        let phone = Browser::open(chromium, accepts)?;
        phone.go(&page)?;
        phone.wait_view("enrol")?;
        assert_eq!(phone.attribute("html", "lang")?.as_deref(), Some(tag), "{accepts}");
        // The other language by its link, and back; the choice stays on the links of the page.
        let (other, there) = if tag == "en" { ("zh", "zh-Hans") } else { ("en", "en") };
        phone.click(&format!("#lang-{other}"))?;
        phone.wait_view("enrol")?;
        assert_eq!(phone.attribute("html", "lang")?.as_deref(), Some(there));
        let title = phone.title()?;
        let wanted = if other == "zh" { "我的付款" } else { "My payments" };
        assert!(title.starts_with(wanted), "{title}");
        phone.fill("#code", &bank.code()?)?;
        phone.click("#enrol-button")?;
        phone.wait_view("payments")?;
        assert_eq!(phone.attribute("html", "lang")?.as_deref(), Some(there), "it stays");
    }
    Ok(())
}

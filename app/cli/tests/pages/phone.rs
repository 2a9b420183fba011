//! The payer's phone as a page: connected once, told what waits, asked for an answer (D2 to D7).

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Chromium;

use crate::Check;
use crate::bank::Bank;
use crate::browser::Browser;
use crate::host::Database;
use crate::payer::other_than;

pub(crate) const TRIALS: [(&str, Check); 9] = [
    ("a_browser_becomes_a_phone_by_its_code_once", a_browser_becomes_a_phone_by_its_code_once),
    ("the_list_shows_what_waits_and_no_more", the_list_shows_what_waits_and_no_more),
    ("typed_digits_pay_and_both_screens_say_so", typed_digits_pay_and_both_screens_say_so),
    ("wrong_answers_are_refused_alike_and_end_it", wrong_answers_are_refused_alike_and_end_it),
    ("a_reason_is_asked_and_details_are_wrong", a_reason_is_asked_and_details_are_wrong),
    ("a_payer_may_change_their_mind", a_payer_may_change_their_mind),
    ("what_a_payer_did_not_start_freezes", what_a_payer_did_not_start_freezes),
    ("time_runs_out_on_both_screens", time_runs_out_on_both_screens),
    ("a_revoked_phone_shows_nothing_more", a_revoked_phone_shows_nothing_more),
];

fn a_browser_becomes_a_phone_by_its_code_once(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let code = bank.code()?;
    let phone = Browser::open(chromium, "en")?;
    phone.go(&format!("{}/phone", bank.url()))?;
    phone.wait_view("enrol")?;

    // What is no code is told beside the field, and nothing is sent.
    phone.fill("#code", "12345")?;
    phone.click("#enrol-button")?;
    phone.wait("an error at the field", |page| Ok(!page.text("#code-error")?.is_empty()))?;
    assert_eq!(phone.attribute("#code", "aria-invalid")?.as_deref(), Some("true"));
    assert_eq!(phone.focused()?, "code");
    // A code that nobody was given.
    phone.fill("#code", "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF")?;
    phone.click("#enrol-button")?;
    phone.wait("a refusal", |page| Ok(page.text("main")?.contains("wrong, out of date")))?;
    assert_eq!(phone.attribute("body", "data-view")?.as_deref(), Some("enrol"));

    // As people type it.
    phone.fill("#code", &format!(" {} ", code.to_lowercase().replace('-', " ")))?;
    phone.click("#enrol-button")?;
    phone.wait_view("payments")?;
    assert!(phone.shows("#payments-empty")?, "nothing waits");
    phone.reload()?;
    phone.wait_view("payments")?;

    // The code is used up, and another browser is no phone.
    let other = Browser::open(chromium, "en")?;
    other.go(&format!("{}/phone", bank.url()))?;
    other.wait_view("enrol")?;
    other.fill("#code", &code)?;
    other.click("#enrol-button")?;
    other.wait("a refusal", |page| Ok(page.text("main")?.contains("wrong, out of date")))?;
    let phones = bank.done(&["phone", "list"])?;
    assert_eq!(phones["items"].as_array().map(Vec::len), Some(1), "{phones}");
    bank.books_hold()
}

fn the_list_shows_what_waits_and_no_more(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    assert!(phone.shows("#payments-empty")?);
    phone.script("window.stayed = true", Vec::new())?;

    // It appears by itself; what another account is to pay does not.
    let back = ["--from", "SHOP0001", "--to", "PAYER0001", "--payee", "Li Lei"];
    let more = ["--amount", "3.00", "--currency", "CNY", "--order", "back", "--no-wait"];
    let other = bank.run("till", &[&["pay"], &back[..], &more].concat())?.ok()?.json()?;
    let first = bank.pending("12.34")?;
    let item = |id: &str| format!("#payment-list a.payment[data-payment='{id}']");
    phone.wait_for(&item(&first))?;
    let second = bank.pending("5.00")?;
    phone.wait_for(&item(&second))?;
    assert_eq!(phone.script("return window.stayed", Vec::new())?, json!(true), "no reload");
    let shown = phone.text(&item(&first))?;
    assert!(shown.contains("12.34") && shown.contains("Tea Shop"), "{shown}");
    let count = "return document.querySelectorAll('#payment-list a.payment').length";
    assert_eq!(phone.script(count, Vec::new())?, json!(2));
    assert!(!phone.shows("#payments-empty")?);
    let foreign = other["id"].as_str().ok_or("no id")?;
    assert!(!phone.shows(&item(foreign))?);
    // Nor by its address.
    phone.go(&format!("{}/phone/payments/{foreign}", bank.url()))?;
    let told = phone.wait_problem()?;
    assert!(told.contains("no such payment"), "{told}");
    assert!(!phone.shows("#payment-view")?);

    // What was taken back is gone from the list.
    phone.go(&format!("{}/phone", bank.url()))?;
    phone.wait_for(&item(&first))?;
    bank.run("till", &["payment", "cancel", &first])?.ok()?;
    phone.wait("it to leave the list", |page| Ok(!page.shows(&item(&first))?))?;
    phone.click(&item(&second))?;
    phone.wait_view("payment")?;
    assert_eq!(phone.attribute("#payment-view", "data-payment")?, Some(second));
    bank.books_hold()
}

fn typed_digits_pay_and_both_screens_say_so(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let id = bank.pending("12.34")?;
    let checkout = bank.checkout(&id)?;
    let shop = Browser::open(chromium, "en")?;
    shop.go(&checkout.url)?;
    shop.wait_view("pending")?;
    assert_eq!(shop.text("#match-code-shown")?, checkout.number);
    shop.script("window.stayed = true", Vec::new())?;

    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    bank.look_at(&phone, &id)?;
    for (field, shown) in [
        ("#payee-name", "Tea Shop"),
        ("#payee-account", "SHOP 0001"),
        ("#payer-account", "PAYE R000 1"),
        ("#order", "Order 7: 2 teas"),
        ("#initiator", "countersign pay"),
    ] {
        assert_eq!(phone.text(field)?, shown, "{field}");
    }
    assert!(phone.text("#amount")?.starts_with("12.34"), "{}", phone.text("#amount")?);
    assert!(phone.shows("#alerts [data-alert=new-payee]")?, "never paid before");
    // The number stands on the other screen only.
    assert!(!phone.text("body")?.contains(&format!(" {} ", checkout.number)));

    phone.confirm_by_digits("", "OCRA-1", "12345678")?;
    phone.wait("an error at the field", |page| Ok(!page.text("#match-code-error")?.is_empty()))?;
    assert_eq!(bank.stands(&id)?.0, "pending", "nothing was sent");
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &digits)?;
    phone.wait_outcome("executed")?;
    assert_eq!(phone.text("#result-heading")?, "Paid");
    assert_eq!(phone.focused()?, "result-heading");
    shop.wait_outcome("executed")?;
    assert_eq!(shop.script("return window.stayed", Vec::new())?, json!(true), "no reload");
    assert_eq!(bank.stands(&id)?.0, "executed");
    assert_eq!(
        (bank.balance("SHOP0001")?, bank.balance("PAYER0001")?),
        ("12.34".to_owned(), "987.66".to_owned())
    );

    // Not twice, and no longer new.
    phone.click("#back")?;
    phone.wait_view("payments")?;
    assert!(phone.shows("#payments-empty")?);
    let id = bank.pending("1.00")?;
    bank.look_at(&phone, &id)?;
    assert!(!phone.shows("#alerts [data-alert=new-payee]")?);
    bank.books_hold()
}

/// A wrong number, wrong digits: one answer for both, and the third ends the payment (D7).
fn wrong_answers_are_refused_alike_and_end_it(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let id = bank.pending("12.34")?;
    let checkout = bank.checkout(&id)?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    bank.look_at(&phone, &id)?;

    let words = |told: String| told.lines().next().unwrap_or_default().to_owned();
    phone.confirm_by_digits(&other_than(&checkout.number), "OCRA-1", &digits)?;
    let number_wrong = words(phone.wait_problem()?);
    assert_eq!(bank.stands(&id)?.0, "pending");
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &other_than(&digits))?;
    phone.wait("the next answer", |page| Ok(words(page.text("#problem")?) != number_wrong))?;
    let digits_wrong = words(phone.wait_problem()?);
    let head = |told: &str| told.split("Reference").next().unwrap_or_default().to_owned();
    assert_eq!(head(&number_wrong), head(&digits_wrong), "neither says which it was");
    assert_eq!(
        (bank.stands(&id)?.0, bank.balance("SHOP0001")?),
        ("pending".to_owned(), "0.00".to_owned())
    );

    // Another wrong answer: the same one sent again would be the same try.
    let third = other_than(&other_than(&digits));
    assert_ne!(third, digits);
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &third)?;
    phone.wait_outcome("failed")?;
    assert_eq!(bank.stands(&id)?.0, "failed");
    assert_eq!(bank.balance("SHOP0001")?, "0.00");
    // A new payment goes through: the device's own count is two, not three.
    let id = bank.pending("1.00")?;
    let checkout = bank.checkout(&id)?;
    bank.look_at(&phone, &id)?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &digits)?;
    phone.wait_outcome("executed")?;
    bank.books_hold()
}

/// The payer rejects; both screens say why; gives the phone and the payment.
fn rejected(chromium: &Chromium, bank: &Bank, reason: &str) -> Result<(Browser, String), Failed> {
    let id = bank.pending("12.34")?;
    let shop = Browser::open(chromium, "en")?;
    shop.go(&bank.checkout(&id)?.url)?;
    shop.wait_view("pending")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    bank.look_at(&phone, &id)?;
    phone.click("#reject-open")?;
    phone.wait_for("#reject-button")?;
    phone.click("#reject-button")?;
    phone.wait("a reason to be asked", |page| Ok(!page.text("#reason-error")?.is_empty()))?;
    assert_eq!(bank.stands(&id)?.0, "pending", "without a reason nothing is sent");
    phone.click(&format!("#reason-{reason}"))?;
    phone.click("#reject-button")?;
    phone.wait_outcome("rejected")?;
    shop.wait_outcome("rejected")?;
    assert!(shop.text("#result")?.contains("Nothing was paid"));
    assert_eq!(bank.stands(&id)?, ("rejected".to_owned(), json!(reason)));
    assert_eq!(bank.balance("PAYER0001")?, "1000.00");
    Ok((phone, id))
}

fn a_reason_is_asked_and_details_are_wrong(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    rejected(chromium, &bank, "wrong-details")?;
    assert_eq!(bank.done(&["account", "show", "PAYER0001"])?["status"], "open");
    bank.books_hold()
}

fn a_payer_may_change_their_mind(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let (phone, id) = rejected(chromium, &bank, "changed-mind")?;
    // It cannot be taken up again.
    phone.go(&format!("{}/phone/payments/{id}", bank.url()))?;
    phone.wait_outcome("rejected")?;
    assert!(!phone.shows("#approve-form")?);
    assert_eq!(bank.done(&["account", "show", "PAYER0001"])?["status"], "open");
    bank.books_hold()
}

/// "I did not start this": the account pays no more until an operator says so, and they are told.
fn what_a_payer_did_not_start_freezes(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let other = bank.pending("2.00")?;
    let (phone, _) = rejected(chromium, &bank, "not-mine")?;
    assert!(phone.text("#result")?.contains("locked"), "{}", phone.text("#result")?);
    let account = bank.done(&["account", "show", "PAYER0001"])?;
    assert_eq!(account["status"], "frozen", "{account}");
    let stands = bank.stands(&other)?;
    assert_ne!(stands.0, "executed", "{stands:?}");
    // Unfrozen by an operator, the account pays again.
    bank.done(&["account", "unfreeze", "PAYER0001"])?;
    let id = bank.pending("1.00")?;
    let checkout = bank.checkout(&id)?;
    bank.look_at(&phone, &id)?;
    let digits = bank.digits("OCRA-1", &checkout.offline)?;
    phone.confirm_by_digits(&checkout.number, "OCRA-1", &digits)?;
    phone.wait_outcome("executed")?;
    bank.books_hold()
}

/// The time left is told in words and runs; at its end both screens change by themselves.
fn time_runs_out_on_both_screens(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let shop = Browser::open(chromium, "en")?;
    let id = bank.asked("12.34", &["--expires-in", "30"])?;
    bank.look_at(&phone, &id)?;
    shop.go(&bank.checkout(&id)?.url)?;
    shop.wait_view("pending")?;
    let first = phone.text("#countdown")?;
    let left = seconds(&first)?;
    assert!(left <= 30, "{first}");
    phone.wait("the countdown to run", |page| Ok(seconds(&page.text("#countdown")?)? < left))?;
    assert!(seconds(&shop.text("#countdown")?)? <= 30);

    phone.wait_long_for_view("ended")?;
    phone.wait_outcome("expired")?;
    shop.wait_outcome("expired")?;
    assert!(phone.text("#result")?.contains("Nothing was paid"));
    assert_eq!(bank.stands(&id)?.0, "expired");
    assert!(!phone.shows("#approve-form")?);
    for (browser, page) in [(&phone, "payment"), (&shop, "checkout")] {
        crate::access::pictures(browser, &format!("en-{page}-expired"), "en")?;
        browser.click("#lang-zh")?;
        browser.wait_outcome("expired")?;
        crate::access::pictures(browser, &format!("zh-{page}-expired"), "zh-Hans")?;
    }
    bank.books_hold()
}

/// The seconds of a countdown that is below a minute, or a minute and so many seconds.
fn seconds(countdown: &str) -> Result<u64, Failed> {
    let numbers = countdown.split(|letter: char| !letter.is_ascii_digit());
    let numbers: Vec<u64> = numbers.filter_map(|digits| digits.parse().ok()).collect();
    match numbers[..] {
        [seconds] => Ok(seconds),
        [minutes, seconds] => Ok(minutes * 60 + seconds),
        _ => Err(format!("no countdown: {countdown:?}").into()),
    }
}

fn a_revoked_phone_shows_nothing_more(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let (phone, other) = (Browser::open(chromium, "en")?, Browser::open(chromium, "en")?);
    bank.connect(&phone)?;
    bank.connect(&other)?;
    let id = bank.pending("12.34")?;
    bank.look_at(&phone, &id)?;
    let phones = bank.done(&["phone", "list"])?;
    let first = phones["items"][0]["id"].as_str().ok_or("no phone")?;
    bank.done(&["phone", "revoke", first, "--reason", "lost"])?;

    // It may still show what it showed, but what it sends is refused.
    phone.click("#reject-open")?;
    phone.wait_for("#reject-button")?;
    phone.click("#reason-changed-mind")?;
    phone.click("#reject-button")?;
    phone.wait_view("enrol")?;
    assert!(!phone.shows("#payment-view")?, "{}", phone.text("main")?);
    assert_eq!(bank.stands(&id)?.0, "pending");
    phone.go(&format!("{}/phone", bank.url()))?;
    phone.wait_view("enrol")?;
    assert!(!phone.text("body")?.contains("12.34"));
    // The other phone of the same payer goes on.
    other.wait_for(&format!("#payment-list a.payment[data-payment='{id}']"))?;
    bank.look_at(&other, &id)?;
    bank.books_hold()
}

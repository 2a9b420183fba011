//! The page and the helper on this computer, which asks the security device (D4).

use std::fs;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Chromium;

use crate::Check;
use crate::bank::Bank;
use crate::browser::Browser;
use crate::foreign_site::ForeignSite;
use crate::host::{Database, Process};

pub(crate) const TRIALS: [(&str, Check); 3] = [
    ("a_helper_lets_the_device_sign", a_helper_lets_the_device_sign),
    ("a_helper_that_says_no_or_is_gone_is_told", a_helper_that_says_no_or_is_gone_is_told),
    ("another_page_gets_nothing_from_a_helper", another_page_gets_nothing_from_a_helper),
];

impl Bank {
    /// A helper for this device with the PIN in this file, and the address that it shows.
    fn helper(&self, key: &str, pin: &str) -> Result<(Process, String), Failed> {
        let url = self.url();
        let words = ["--json", "device", "phone", "helper", "--server", &url];
        let device = ["--key", key, "--pin-file", pin];
        let mut helper = self.host.spawn(&[&words[..], &device].concat())?;
        let ready = helper.first_json()?;
        assert_eq!((&ready["event"], &ready["origin"]), (&json!("ready"), &json!(url)), "{ready}");
        Ok((helper, ready["url"].as_str().ok_or("no URL")?.to_owned()))
    }
}

fn event(helper: &mut Process, name: &str) -> Result<Value, Failed> {
    let event = helper.first_json()?;
    assert_eq!(event["event"], json!(name), "{event}");
    Ok(event)
}

fn a_helper_lets_the_device_sign(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.signing_device("KEY-1")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let id = bank.pending("12.34")?;
    bank.look_at(&phone, &id)?;
    assert!(!phone.shows("#approve-helper")?, "there is no helper");
    let (mut helper, url) = bank.helper("KEY-1", "pin")?;
    let token = url.split_once('.').map(|_| url.rsplit('.').next().unwrap_or_default());
    phone.go(&url)?;
    phone.wait_view("payments")?;
    assert!(phone.shows("#helper-note")?);
    let address = phone.url()?;
    assert!(!address.contains(token.ok_or("no token")?), "{address}");

    phone.click(&format!("#payment-list a.payment[data-payment='{id}']"))?;
    phone.wait_view("payment")?;
    let checkout = bank.checkout(&id)?;
    phone.wait_for("#approve-helper")?;
    // Without the number of the other screen the device is not even asked.
    phone.click("#approve-helper")?;
    phone.wait("an error at the field", |page| Ok(!page.text("#match-code-error")?.is_empty()))?;
    phone.fill("#match-code", &checkout.number)?;
    crate::access::pictures(&phone, "en-payment-helper", "en")?;
    phone.click("#approve-helper")?;
    phone.wait_outcome("executed")?;
    let told = event(&mut helper, "confirmed")?;
    assert_eq!((&told["paymentId"], &told["deviceSerial"]), (&json!(id), &json!("KEY-1")));
    assert_eq!(bank.balance("SHOP0001")?, "12.34");

    // The next payment goes by the next token, without a new address.
    let id = bank.pending("5.00")?;
    let number = bank.checkout(&id)?.number;
    bank.look_at(&phone, &id)?;
    phone.wait_for("#approve-helper")?;
    phone.fill("#match-code", &number)?;
    phone.click("#approve-helper")?;
    phone.wait_outcome("executed")?;
    event(&mut helper, "confirmed")?;
    assert_eq!(bank.balance("SHOP0001")?, "17.34");
    bank.books_hold()
}

fn a_helper_that_says_no_or_is_gone_is_told(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.signing_device("KEY-1")?;
    fs::write(bank.host.path("wrong-pin"), "1111\n")?;
    let id = bank.pending("12.34")?;
    let number = bank.checkout(&id)?.number;
    let (mut helper, url) = bank.helper("KEY-1", "wrong-pin")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    phone.go(&url)?;
    phone.wait_view("payments")?;
    bank.look_at(&phone, &id)?;
    phone.wait_for("#approve-helper")?;
    for (check, words) in
        [("pin-wrong", "PIN was wrong"), ("pin-wrong", "PIN was wrong"), ("pin-blocked", "blocked")]
    {
        phone.fill("#match-code", &number)?;
        phone.click("#approve-helper")?;
        let told = event(&mut helper, "refused")?;
        assert_eq!(told["check"], json!(check), "{told}");
        phone.wait("words for it", |page| Ok(page.text("#problem")?.contains(words)))?;
    }
    assert_eq!(bank.stands(&id)?.0, "pending", "nothing was sent");
    let shown = bank.done(&["security-device", "show", "KEY-1"])?;
    assert_eq!(shown["failures"], 0, "the server has heard of none of it");

    helper.kill()?;
    phone.fill("#match-code", &number)?;
    phone.click("#approve-helper")?;
    phone.wait("words for it", |page| Ok(page.text("#problem")?.contains("cannot be reached")))?;
    assert_eq!(bank.stands(&id)?.0, "pending");
    bank.books_hold()
}

/// A page of another site knows port and token, which it never should, and still gets nothing.
fn another_page_gets_nothing_from_a_helper(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.signing_device("KEY-1")?;
    let id = bank.pending("12.34")?;
    let number = bank.checkout(&id)?.number;
    let (mut helper, url) = bank.helper("KEY-1", "pin")?;
    let secret = url.split_once("#helper=").ok_or("no fragment")?.1;
    let (port, token) = secret.split_once('.').ok_or("no token")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let shown = bank.host.api(&bank.ports)?.get::<Value>(&format!("/v1/payments/{id}"))?;
    let request = shown["request"].as_str().unwrap_or("AAAA").to_owned();

    let site = ForeignSite::serve(&[("/", "<h1>free prizes</h1>".to_owned())])?;
    let thief = Browser::open(chromium, "en")?;
    thief.go(&site.url("/"))?;
    let body = json!({ "token": token, "request": request }).to_string();
    let call = |more: &str, kind: &str| {
        format!(
            "await (await fetch('http://127.0.0.1:{port}/confirm', {{ method: 'POST', {more} \
             headers: {{ 'content-type': '{kind}' }}, body: {body:?} }})).text()"
        )
    };
    let answer = thief.promise(&call("", "application/json"))?;
    assert_eq!(answer, json!("error: TypeError"), "it is not let");
    // Sent without asking first, it arrives, is refused, and cannot be read.
    let blind = thief.promise(&call("mode: 'no-cors',", "text/plain"))?;
    assert!(blind == json!("") || blind == json!("error: TypeError"), "{blind}");
    assert_eq!(bank.stands(&id)?.0, "pending");

    // The token is as good as before: the payer's own page uses it.
    phone.go(&url)?;
    phone.wait_view("payments")?;
    bank.look_at(&phone, &id)?;
    phone.wait_for("#approve-helper")?;
    phone.fill("#match-code", &number)?;
    phone.click("#approve-helper")?;
    phone.wait_outcome("executed")?;
    let mut told = helper.first_json()?;
    while told["event"] == json!("refused") {
        told = helper.first_json()?;
    }
    assert_eq!(told["paymentId"], json!(id), "{told}");
    bank.books_hold()
}

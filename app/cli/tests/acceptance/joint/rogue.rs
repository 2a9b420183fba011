//! A terminal that is not ours: another maker's program carries its commands to the card, and it
//! sends the server whatever it likes.

use data_encoding::BASE64URL_NOPAD;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Pcscd;

use super::stage::{Holder, Shop};
use super::wrong::wrong;
use crate::bank::Said;
use crate::host::Database;
use crate::pcsc::foreign::{links, script, unhex};

/// "CountersignCard" after F0, the application's name on the card.
pub(super) const SELECT: &str = "00 A4 04 00 10 F0 43 6F 75 6E 74 65 72 73 69 67 6E 43 61 72 64 00";
/// Choose a form: the last byte is its code.
pub(super) const FORM: &str = "00 22 41 B6 03 80 01";
pub(super) const SIGN: &str = "00 2A 9E 9A 00";

/// What a terminal submits.
#[derive(Clone)]
pub(super) struct Answer {
    serial: String,
    transaction: Vec<u8>,
    commitment: Vec<u8>,
    signature: Vec<u8>,
    password: String,
}

impl Answer {
    fn json(&self) -> Value {
        json!({
            "transaction": BASE64URL_NOPAD.encode(&self.transaction),
            "deviceSerial": self.serial,
            "commitment": BASE64URL_NOPAD.encode(&self.commitment),
            "signature": BASE64URL_NOPAD.encode(&self.signature),
            "jointPassword": self.password,
        })
    }
}

/// The two parts of a card's answer (BER-TLV: 80 and 81).
fn parts(answer: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failed> {
    let mut rest = answer;
    let mut part = |wanted: u8| {
        let (&tag, after) = rest.split_first().ok_or("no tag")?;
        assert_eq!(tag, wanted);
        let (length, after) = match after {
            [0x81, length, after @ ..] => (*length, after),
            [length @ 0..=0x7f, after @ ..] => (*length, after),
            _ => return Err(Failed::from("no length")),
        };
        let (value, after) = after.split_at_checked(length.into()).ok_or("too short")?;
        rest = after;
        Ok(value.to_vec())
    };
    let parts = (part(0x80)?, part(0x81)?);
    assert!(rest.is_empty(), "{rest:02X?}");
    Ok(parts)
}

/// The commands that have a card sign, in this form.
pub(super) fn signing(transaction: &[u8], form: u8) -> Vec<String> {
    let mut commands = vec![SELECT.to_owned()];
    commands.extend(links("DA DF 10", transaction));
    commands.extend([format!("{FORM} {form:02X}"), SIGN.to_owned()]);
    commands
}

impl Shop {
    /// A payment of the payer's account, and its transaction message.
    pub(super) fn transaction(&self, amount: &str) -> Result<(String, Vec<u8>), Failed> {
        let id = self.bank.pending(amount)?;
        let line = format!("GET /v1/payments/{id}/joint");
        let said = self.bank.send("till", &line, "", b"")?;
        assert_eq!(said.status, 200, "{}", String::from_utf8_lossy(&said.body));
        let told: Value = serde_json::from_slice(&said.body)?;
        assert_eq!(told["forms"], json!(["sealed-random", "sealed", "digest"]));
        let bytes = told["transaction"].as_str().ok_or("no transaction")?;
        Ok((id, BASE64URL_NOPAD.decode(bytes.as_bytes())?))
    }

    /// Has the card in the reader sign, and its holder consent: all that a terminal submits.
    pub(super) fn signs(
        &self,
        (holder, serial): (&mut Holder, &str),
        transaction: &[u8],
        form: u8,
        amount: &str,
    ) -> Result<Answer, Failed> {
        let commands = signing(transaction, form);
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        let answers = script(&self.pcscd, 0, &commands)?;
        let signed = answers.last().ok_or("no answer")?;
        let signed = signed.strip_suffix("9000").ok_or_else(|| format!("{answers:?}"))?;
        let (commitment, signature) = parts(&unhex(signed)?)?;
        let password = holder.consents(amount)?;
        holder.press("in")?;
        holder.event("inserted")?;
        let (serial, transaction) = (serial.to_owned(), transaction.to_vec());
        Ok(Answer { serial, transaction, commitment, signature, password })
    }

    /// What the server says to an answer.
    pub(super) fn submits(&self, id: &str, body: &Value) -> Result<Said, Failed> {
        let line = format!("POST /v1/payments/{id}/joint");
        self.bank.send("till", &line, "", body.to_string().as_bytes())
    }

    /// Executed; the answer byte by byte.
    fn executes(&self, id: &str, answer: &Answer) -> Result<Vec<u8>, Failed> {
        let said = self.submits(id, &answer.json())?;
        let told: Value = serde_json::from_slice(&said.body)?;
        assert_eq!((said.status, &told["status"]), (201, &json!("executed")), "{told}");
        Ok(said.body)
    }

    /// Refused, with the one word for all; the audit has `check` under the incident.
    fn refuses(&self, id: &str, answer: &Answer, check: &str) -> Result<(), Failed> {
        let said = self.submits(id, &answer.json())?;
        let told: Value = serde_json::from_slice(&said.body)?;
        let outside = (said.status, &told["check"]);
        assert_eq!(outside, (422, &json!("authorisation-refused")), "{check}: {told}");
        let text = told.to_string();
        assert!(!text.contains(check), "the caller is not told why: {text}");
        let at = text.find("inc_").ok_or_else(|| format!("no incident: {text}"))?;
        let end = text[at..].find(['"', ')']).unwrap_or_default();
        let words = ["--json", "audit", "show", &text[at..at + end], "--data", "data"];
        let rows = self.bank.host.run(&words)?.ok()?.json()?;
        let found = rows["items"].as_array().into_iter().flatten();
        let checks: Vec<_> = found.map(|row| row["check"].clone()).collect();
        assert!(checks.contains(&json!(check)), "{check}: {rows}");
        Ok(())
    }

    /// The payment's state; nothing was paid.
    fn stands(&self, id: &str, state: &str) -> Result<(), Failed> {
        assert_eq!(self.bank.payment(id)?["status"], state);
        Ok(())
    }
}

/// A transaction that was altered after the card signed it, another card's signature, a wrong, an
/// old and a foreign joint password: nothing executes, and the server says the same to all.
pub(super) fn executes_nothing(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    // Another payer's card, and another one of the same payer.
    shop.card("CARD-2", "SHOP0001")?;
    shop.card("CARD-3", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;
    let one = |holder: &mut Holder, amount: &str, form: u8| {
        let (id, transaction) = shop.transaction(amount)?;
        let answer = shop.signs((holder, "CARD-1"), &transaction, form, amount)?;
        Ok::<_, Failed>((id, answer))
    };
    let (first, old) = one(&mut holder, "1.00", 2)?;
    shop.executes(&first, &old)?;

    // The terminal asks for more than the card signed, in its bytes or at the server.
    let (id, answer) = one(&mut holder, "2.00", 1)?;
    let text = String::from_utf8(answer.transaction.clone())?;
    let more = text.replace("2.00", "9.00");
    assert_ne!(text, more);
    let altered = Answer { transaction: more.into_bytes(), ..answer.clone() };
    shop.refuses(&id, &altered, "joint-transaction")?;
    // A signature over the dearer payment is none over this one.
    let dear = shop.signs((&mut holder, "CARD-1"), &altered.transaction, 1, "9.00")?;
    shop.refuses(&id, &dear, "joint-transaction")?;
    let swapped = Answer { transaction: answer.transaction.clone(), ..dear };
    shop.refuses(&id, &swapped, "answer-signature")?;
    shop.stands(&id, "failed")?;
    let said = shop.submits(&id, &answer.json())?;
    assert_eq!(said.status, 409, "the right one comes too late");

    // What belongs to another payment: its joint password, its commitment, its signature.
    let (id, answer) = one(&mut holder, "3.00", 3)?;
    shop.refuses(
        &id,
        &Answer { password: old.password.clone(), ..answer.clone() },
        "joint-password",
    )?;
    let commitment = old.commitment.clone();
    shop.refuses(&id, &Answer { commitment, ..answer.clone() }, "answer-signature")?;
    shop.executes(&id, &answer)?;
    let (id, answer) = one(&mut holder, "4.00", 2)?;
    let replayed = Answer { transaction: answer.transaction.clone(), ..old };
    shop.refuses(&id, &replayed, "answer-signature")?;
    let password = wrong("4", &answer.password);
    shop.refuses(&id, &Answer { password, ..answer.clone() }, "joint-password")?;

    // Other cards: a stranger's, and the payer's other one under the first one's name.
    holder.quit()?;
    let (other, transaction) = shop.transaction("5.00")?;
    let mut foreign = Vec::new();
    for serial in ["CARD-2", "CARD-3"] {
        let mut holder = crate::host::wait_for("the reader", || Ok(shop.insert(serial).ok()))?;
        foreign.push(shop.signs((&mut holder, serial), &transaction, 2, "5.00")?);
        holder.quit()?;
    }
    let [stranger, own] = &foreign[..] else { return Err("two cards".into()) };
    shop.refuses(&other, stranger, "device-not-bound")?;
    let named = |serial: &str, answer: &Answer| Answer { serial: serial.into(), ..answer.clone() };
    shop.refuses(&other, &named("CARD-1", own), "answer-signature")?;
    shop.refuses(&other, &named("CARD-9", own), "device-unknown")?;
    shop.stands(&other, "failed")?;
    // A card that was taken away is no card any more.
    shop.bank.done(&["security-device", "revoke", "CARD-1", "--reason", "lost"])?;
    let (revoked, _) = shop.transaction("6.00")?;
    shop.stands(&revoked, "pending")?;
    let said = shop.submits(&id, &answer.json())?;
    assert_eq!(said.status, 422, "{}", String::from_utf8_lossy(&said.body));
    assert_eq!(shop.bank.balance("SHOP0001")?, "4.00", "the first and the third");
    shop.bank.books_hold()
}

/// What a form refuses costs nothing; three wrong joint passwords end a payment; the same answer
/// twice, and the same transaction signed twice, execute once.
pub(super) fn each_counts_once(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;
    let (id, transaction) = shop.transaction("1.00")?;
    let first = shop.signs((&mut holder, "CARD-1"), &transaction, 2, "1.00")?;
    let mut second = shop.signs((&mut holder, "CARD-1"), &transaction, 2, "1.00")?;
    assert!(first.password != second.password && first.commitment != second.commitment);
    shop.refuses(
        &id,
        &Answer { password: first.password.clone(), ..second.clone() },
        "joint-password",
    )?;

    let digits: String = second.password.split(' ').collect();
    let last = if digits.ends_with('0') { "1" } else { "0" };
    let form = |name: &str, value: Value| {
        let mut body = second.json();
        body[name] = value;
        body
    };
    let long = BASE64URL_NOPAD.encode(&[7; 5000]);
    for body in [
        form("jointPassword", json!(format!("{}{last}", &digits[..8]))),
        form("jointPassword", json!("12345678")),
        form("jointPassword", json!("")),
        form("jointPassword", json!("９".repeat(9))),
        form("commitment", json!("")),
        form("commitment", json!("BAAA")),
        form("commitment", json!(long)),
        form("commitment", json!("not base64!")),
        form("signature", json!("")),
        form("signature", json!(long)),
        form("transaction", json!("")),
        form("transaction", json!(long)),
        form("deviceSerial", json!("")),
        form("deviceSerial", json!("CARD 1; --")),
    ] {
        let said = shop.submits(&id, &body)?;
        let told: Value = serde_json::from_slice(&said.body)?;
        assert_eq!((said.status, &told["check"]), (422, &json!("answer-format")), "{body}");
    }
    for body in [form("jointPassword", json!(7)), form("more", json!(1)), json!([]), json!(null)] {
        assert_eq!(shop.submits(&id, &body)?.status, 400, "{body}");
    }
    // Only who asked for the payment may bring its answer.
    let line = format!("POST /v1/payments/{id}/joint");
    let body = second.json().to_string();
    assert_eq!(shop.bank.send("admin", &line, "", body.as_bytes())?.status, 404);
    assert_eq!(shop.bank.send("audrey", &line, "", body.as_bytes())?.status, 403);
    shop.stands(&id, "pending")?;

    // In groups, as it is read from the card; and again, byte by byte.
    second.password = digits;
    let said = shop.executes(&id, &second)?;
    assert_eq!(shop.executes(&id, &second)?, said);
    let late = shop.submits(&id, &first.json())?;
    assert_eq!(late.status, 409, "{}", String::from_utf8_lossy(&late.body));

    let (id, transaction) = shop.transaction("2.00")?;
    let answer = shop.signs((&mut holder, "CARD-1"), &transaction, 3, "2.00")?;
    for begin in ["1", "2", "3"] {
        let password = wrong(begin, &answer.password);
        shop.refuses(&id, &Answer { password, ..answer.clone() }, "joint-password")?;
    }
    shop.stands(&id, "failed")?;
    assert_eq!(shop.submits(&id, &answer.json())?.status, 409);

    // A payment that was taken back: nothing is announced any more, and nothing taken.
    let (id, transaction) = shop.transaction("3.00")?;
    let answer = shop.signs((&mut holder, "CARD-1"), &transaction, 1, "3.00")?;
    shop.bank.run("till", &["payment", "cancel", &id])?.ok()?;
    assert_eq!(shop.submits(&id, &answer.json())?.status, 409);
    let line = format!("GET /v1/payments/{id}/joint");
    let said = shop.bank.send("till", &line, "", b"")?;
    let told: Value = serde_json::from_slice(&said.body)?;
    assert_eq!((said.status, &told["check"]), (409, &json!("payment-cancelled")), "{told}");
    assert_eq!(shop.bank.balance("SHOP0001")?, "1.00");
    shop.bank.books_hold()
}

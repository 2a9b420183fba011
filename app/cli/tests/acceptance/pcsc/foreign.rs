//! The card as programs of other makers meet it: OpenSC's, scriptor, OpenSSL.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use countersign_device::{DeviceAnswer, Phone};
use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use super::behind_readers::{Payer, SELECT, displayed, happens};

/// The PIN 2580 as an ISO 9564 block of format 2, and 1111.
const RIGHT_PIN: &str = "00 20 00 81 08 24 25 80 FF FF FF FF FF";
const WRONG_PIN: &str = "00 20 00 81 08 24 11 11 FF FF FF FF FF";
/// The PUK 00000000, and that PIN.
const UNBLOCK: &str = "00 2C 00 81 10 28 00 00 00 00 FF FF FF 24 25 80 FF FF FF FF FF";
const SIGN: &str = "00 2A 9E 9A 00";

impl Payer {
    /// What another maker's program gets of the card in the first slot.
    pub(super) fn script(&self, commands: &[&str]) -> Result<Vec<String>, Failed> {
        script(&self.pcscd, 0, commands)
    }
}

/// What another maker's program gets of the card in a slot: a response for each command, in
/// hexadecimal.
pub(crate) fn script(pcscd: &Pcscd, slot: u16, commands: &[&str]) -> Result<Vec<String>, Failed> {
    let (name, value) = pcscd.environment();
    let mut scriptor = Command::new("scriptor");
    scriptor.env(name, value).args(["-r", &pcscd.reader(slot), "-p", "T=1"]);
    let pipes = scriptor.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut scriptor = pipes.stderr(Stdio::piped()).spawn()?;
    let mut stdin = scriptor.stdin.take().ok_or("no stdin")?;
    stdin.write_all(format!("{}\n", commands.join("\n")).as_bytes())?;
    drop(stdin);
    let output = scriptor.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    let answers = responses(&said);
    if answers.len() == commands.len() {
        return Ok(answers);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} answers to {commands:?}: {said}{complaint}", answers.len()).into())
}

/// A command's data in links of a chain, for [`script`].
pub(crate) fn links(header: &str, data: &[u8]) -> Vec<String> {
    let last = data.len().div_ceil(255).saturating_sub(1);
    let link = |(at, data): (usize, &[u8])| {
        let class = if at == last { "00" } else { "10" };
        let bytes: Vec<_> = data.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{class} {header} {:02X} {}", data.len(), bytes.join(" "))
    };
    data.chunks(255).enumerate().map(link).collect()
}

/// The responses in what scriptor prints: `< 6F 1A … 90 00 : Normal processing.`, wrapped.
fn responses(said: &str) -> Vec<String> {
    let answers = said.split("\n< ").skip(1).filter_map(|rest| rest.split(" : ").next());
    let hex = |answer: &str| answer.split_whitespace().collect::<Vec<_>>().join("");
    answers.map(hex).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, Failed> {
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).unwrap_or_default());
    Ok(pairs.map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>()?)
}

/// Whoever speaks PC/SC and ISO 7816 finds the application and its public data, without a PIN.
pub(super) fn programs_read_the_card(pcscd: Pcscd) -> Result<(), Failed> {
    let payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let _card = payer.insert("KEY-1", 0, &[])?;
    let answers = payer.script(&[
        "00 CA DF 01 00",
        SELECT,
        "00 CA DF 01 00",
        "00 CA DF 05 00 00 00",
        "00 CA DF 05 00",
    ])?;
    let [unselected, fci, serial, whole, first] = &answers[..] else { unreachable!() };
    assert!(!unselected.ends_with("9000"), "nothing is read before SELECT: {unselected}");
    assert!(fci.starts_with("6F") && fci.ends_with("9000"), "{fci}");
    assert!(fci.contains(&hex(b"\xF0Countersign")), "{fci}");
    assert_eq!(*serial, format!("{}9000", hex(b"KEY-1")));
    let certificate = unhex(whole.strip_suffix("9000").ok_or("no certificate")?)?;

    // In pieces, for programs that know short commands only.
    assert_eq!(first.len(), 2 * 258, "{first}");
    assert!(first[512..].starts_with("61") && whole.starts_with(&first[..512]), "{first}");

    // OpenSSL reads it, and it is the one that the server enrolled.
    let file = payer.bank.host.path("card.der");
    fs::write(&file, &certificate)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-inform", "DER", "-noout", "-subject", "-in"]).arg(&file);
    let output = openssl.output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && said.contains("KEY-1"), "{said}");
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-outform", "DER", "-in"]);
    let enrolled = openssl.arg(payer.bank.host.path("KEY-1/certificate.pem")).output()?;
    assert!(enrolled.stdout == certificate, "{enrolled:?}");

    // OpenSC's program gets the same.
    let (name, value) = payer.pcscd.environment();
    let mut tool = Command::new("opensc-tool");
    tool.env(name, value).args(["--reader", &payer.pcscd.reader(0)]);
    tool.args(["--card-driver", "default", "--send-apdu", &SELECT.replace(' ', "")]);
    let output = tool.args(["--send-apdu", "00CADF0100"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("SW1=0x90, SW2=0x00").count(), 2, "{said}");
    assert!(said.contains("4B 45 59 2D 31 KEY-1"), "{said}");
    Ok(())
}

/// Any PC/SC program can carry a payment to the card: the protocol is all there is to it. OpenSSL
/// verifies the signature, and the server takes it.
pub(super) fn program_has_a_payment_signed(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let mut card = payer.insert("KEY-1", 0, &[])?;
    let id = payer.bank.pending("12.34")?;
    let phone = Phone::open(&payer.bank.host.path("phone"))?;
    let request = phone.payment(&id)?.to_confirm()?;
    let links = links("DA DF 10", &request);
    assert!(links.len() > 1, "a chain");
    let load: Vec<_> = links.iter().map(String::as_str).collect();
    let script = [&[SELECT], &load[..], &[SIGN, WRONG_PIN, RIGHT_PIN, SIGN, SIGN]].concat();
    let answers = payer.script(&script)?;
    let [unverified, wrong, right, signed, again] = &answers[answers.len() - 5..] else {
        return Err("too few answers".into());
    };
    assert_eq!((unverified.as_str(), wrong.as_str(), right.as_str()), ("6982", "63C2", "9000"));
    assert_eq!(again, "6985", "a request is signed once");
    let signature = unhex(signed.strip_suffix("9000").ok_or("no signature")?)?;
    let told = happens(&mut card, "shown")?;
    assert_eq!(displayed(&told, "Amount"), "12.34 CNY", "{told}");

    let file = |name: &str| payer.bank.host.path(name);
    let domain = b"countersign.payment.confirmation.v1\0";
    fs::write(file("signed"), [&domain[..], &request].concat())?;
    fs::write(file("signature"), &signature)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-pubkey", "-in"]).arg(file("KEY-1/certificate.pem"));
    fs::write(file("key.pem"), openssl.output()?.stdout)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-verify"]).arg(file("key.pem")).arg("-signature");
    let verified = openssl.arg(file("signature")).arg(file("signed")).output()?;
    assert!(verified.status.success(), "{verified:?}");

    let answer = DeviceAnswer::Pki { serial: "KEY-1".to_owned(), signature };
    assert_eq!(phone.answer(&id, &answer)?.status, "executed");
    assert_eq!(payer.bank.balance("SHOP0001")?, "12.34");
    payer.bank.books_hold()
}

/// Commands malformed, oversized, out of order: each has its status word, and none signs.
pub(super) fn what_is_out_of_order_is_refused(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let _card = payer.insert("KEY-1", 0, &[])?;
    let cases = [
        ("00 A4 04 00 05 A0 00 00 03 33 00", "6A82", "another application"),
        (SELECT, "9000", "ours"),
        (SIGN, "6985", "nothing is loaded"),
        (RIGHT_PIN, "6985", "a PIN for nothing"),
        ("00 DA DF 10 04 01 02 03 04", "6A80", "no request"),
        (SIGN, "6985", "what cannot be shown is not loaded"),
        ("80 CA DF 01 00", "6E00", "another class"),
        ("01 CA DF 01 00", "6881", "a logical channel"),
        ("0C CA DF 01 00", "6882", "secure messaging"),
        ("00 B0 00 00 00", "6D00", "no such instruction"),
        ("00 DA DF 10 05 01 02 03", "6700", "shorter than it says"),
        ("00 CA DF 7F 00", "6A88", "no such object"),
        ("00 2C 00 81 03 01 02 03", "6700", "no PIN blocks"),
        (UNBLOCK, "6985", "a PUK for a PIN that is not blocked"),
    ];
    let commands: Vec<_> = cases.iter().map(|(command, _, _)| *command).collect();
    let answers = payer.script(&commands)?;
    for ((command, status, why), answer) in cases.iter().zip(&answers) {
        assert!(answer.ends_with(status), "{why}: {command} gives {answer}");
    }
    // A request in links that has no end.
    let link = format!("10 DA DF 10 FF {}", "41 ".repeat(255));
    let mut commands = vec![SELECT];
    commands.extend(std::iter::repeat_n(link.as_str(), 80));
    let answers = payer.script(&commands)?;
    let taken = answers[1..].iter().take_while(|answer| *answer == "9000").count();
    assert!((16..20).contains(&taken), "4 kB and some fit: {taken}");
    // None of it has cost the card anything.
    let id = payer.bank.pending("1.00")?;
    payer.approved(&id, &["--pin-file", "pin"])?;
    payer.bank.books_hold()
}

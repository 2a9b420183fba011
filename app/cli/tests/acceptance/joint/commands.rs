//! Commands malformed, oversized and out of order, as programs of other makers send them.

use std::process::Command;

use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use super::rogue::{FORM, SELECT, SIGN, signing};
use super::stage::{PIN, Shop};
use crate::host::{Database, wait_for};
use crate::pcsc::foreign::{hex, script, unhex};

/// The PIN 2580 as an ISO 9564 block of format 2.
const VERIFY: &str = "00 20 00 81 08 24 25 80 FF FF FF FF FF";
const STATE: &str = "00 CA DF 06 00";

/// Each has its status word, none has the card sign what it should not, and none costs it anything.
pub(super) fn out_of_order(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;
    let form = |code: &str| format!("{FORM} {code}");
    let (sealed, unknown) = (form("01"), form("04"));
    let cases = [
        (SIGN, "6985", "nothing is selected"),
        ("00 A4 04 00 0C F0 43 6F 75 6E 74 65 72 73 69 67 6E 00", "6A82", "another application"),
        ("00 A4 04 00 05 A0 00 00 03 33 00", "6A82", "another application"),
        (SELECT, "9000", "ours"),
        (SIGN, "6985", "nothing is loaded"),
        (&sealed, "6985", "a form for nothing"),
        ("00 DA DF 10 04 01 02 03 04", "6A80", "no transaction"),
        (SIGN, "6985", "what cannot be shown is not loaded"),
        (VERIFY, "6A81", "a PIN is the keypad's only"),
        (
            "00 24 00 81 10 24 25 80 FF FF FF FF FF 24 11 11 FF FF FF FF FF",
            "6A81",
            "so is a new one",
        ),
        ("00 2C 00 81 10 28 00 00 00 00 FF FF FF 24 25 80 FF FF FF FF FF", "6A81", "and the PUK"),
        ("00 20 00 81", "63C3", "how many tries are left"),
        ("00 CB DF 20 00", "6985", "a joint password over contacts"),
        ("80 CA DF 01 00", "6E00", "another class"),
        ("01 CA DF 01 00", "6881", "a logical channel"),
        ("0C CA DF 01 00", "6882", "secure messaging"),
        ("00 B0 00 00 00", "6D00", "no such instruction"),
        ("00 DA DF 10 05 01 02 03", "6700", "shorter than it says"),
        ("00 CA DF 7F 00", "6A88", "no such object"),
        ("00 CA DF 01 00", "9000", "and it is still there"),
    ];
    let commands: Vec<_> = cases.iter().map(|(command, _, _)| *command).collect();
    let answers = script(&shop.pcscd, 0, &commands)?;
    for ((command, status, why), answer) in cases.iter().zip(&answers) {
        assert!(answer.ends_with(status), "{why}: {command} gives {answer}");
    }
    // A transaction in links that has no end.
    let link = format!("10 DA DF 10 FF {}", "41 ".repeat(255));
    let mut commands = vec![SELECT];
    commands.extend(std::iter::repeat_n(link.as_str(), 80));
    let answers = script(&shop.pcscd, 0, &commands)?;
    let taken = answers[1..].iter().take_while(|answer| *answer == "9000").count();
    assert!((16..20).contains(&taken), "4 kB and some fit: {taken}");

    // A good transaction: a form that no card has, then two signatures, then another order of it.
    let (_, transaction) = shop.transaction("1.00")?;
    let good = signing(&transaction, 1);
    let (load, last) = good.split_at(good.len() - 2);
    let mut commands: Vec<_> = load.iter().map(String::as_str).collect();
    commands.extend([&unknown, SIGN, &last[0], SIGN, SIGN, &sealed, STATE]);
    let answers = script(&shop.pcscd, 0, &commands)?;
    let [unknown, without, chosen, signed, again, late, state] = &answers[load.len()..] else {
        return Err("too few answers".into());
    };
    assert_eq!((&**unknown, &**without, &**chosen), ("6A80", "6985", "9000"), "{answers:?}");
    assert!(signed.starts_with("80") && signed.ends_with("9000"), "{signed}");
    assert_eq!((&**again, &**late), ("6985", "6985"), "a transaction is signed once");
    assert_eq!(state, "029000", "it waits to be taken out");
    // A chain that is broken by another command, and one that is not finished, load nothing.
    let broken = [&[SELECT, &load[1], SIGN], &[STATE][..]].concat();
    let answers = script(&shop.pcscd, 0, &broken)?;
    assert!(load.len() > 2 && load[1].starts_with("10"), "a chain: {load:?}");
    assert_eq!(answers[2], "6883", "{answers:?}");
    assert_eq!(answers[3], "029000", "what was signed is not lost");

    // Without contact: nothing is told and nothing is signed, only asked for in vain.
    holder.sees("take-out")?;
    holder.press("out")?;
    holder.sees("consent")?;
    holder.press("tap")?;
    while holder.event("inserted")?["interface"] != "contactless" {}
    let hash = "00 ".repeat(32);
    let release = format!("00 CB DF 20 20 {hash}00");
    let contactless = |commands: &[&str]| {
        wait_for("a card at the contactless reader", || {
            Ok(script(&shop.pcscd, 1, commands).ok().filter(|answers| answers[0].ends_with("9000")))
        })
    };
    let mut commands = vec![SELECT, "00 CA DF 01 00", "00 CA DF 05 00", VERIFY];
    commands.extend(load[1..].iter().map(String::as_str));
    commands.extend([&last[0], SIGN, &release, STATE]);
    let answers = contactless(&commands)?;
    assert_eq!(answers[1..4], ["6985", "6985", "6A81"], "{answers:?}");
    let [.., loaded, form, signed, released, state] = &answers[..] else {
        return Err("too few answers".into());
    };
    assert_eq!((&**loaded, &**form, &**signed), ("6985", "6985", "6985"), "{answers:?}");
    let told = "another hash is told nothing, not even that its holder is asked";
    assert_eq!((&**released, &**state), ("6A80", "039000"), "{told}");
    // After the consent: the wrong hash gets nothing, as often as it comes, and costs nothing; nor
    // is a part given to whoever asks for less than nine digits.
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.sees("password")?;
    let short = format!("00 CB DF 20 20 {hash}01");
    let commands = [SELECT, &release, &release, &release, &release, &short, STATE];
    let answers = contactless(&commands)?;
    let wanted = ["6A80", "6A80", "6A80", "6A80", "6700", "049000"];
    assert_eq!(answers[1..], wanted, "{answers:?}");
    holder.press("no")?;
    holder.sees("declined")?;

    // OpenSC's program reads the card too, and finds that none of it has cost a try.
    holder.press("out")?;
    holder.press("in")?;
    while holder.event("inserted")?["interface"] != "contact" {}
    let told = wait_for("the card in the reader", || {
        let (name, value) = shop.pcscd.environment();
        let mut tool = Command::new("opensc-tool");
        tool.env(name, value).args(["--reader", &shop.pcscd.reader(0)]);
        tool.args(["--card-driver", "default", "--send-apdu", &SELECT.replace(' ', "")]);
        tool.args(["--send-apdu", "00CADF0100", "--send-apdu", "00CADF0300"]);
        let output = tool.output()?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })?;
    assert_eq!(told.matches("SW1=0x90, SW2=0x00").count(), 3, "{told}");
    assert!(told.contains("43 41 52 44 2D 31 CARD-1") && told.contains("03 0A"), "{told}");
    let serial = script(&shop.pcscd, 0, &[SELECT, "00 CA DF 01 00", "00 CA DF 05 00 00 00"])?;
    assert_eq!(serial[1], format!("{}9000", hex(b"CARD-1")));
    let certificate = unhex(serial[2].strip_suffix("9000").ok_or("no certificate")?)?;
    assert_eq!(certificate.first(), Some(&0x30));
    shop.pays(&mut holder, "1.00")?;
    assert_eq!(shop.bank.balance("SHOP0001")?, "1.00");
    shop.bank.books_hold()
}

use countersign_crypto::{SoftwareKey, Suite, provider_of};
use proptest::prelude::*;
use testkit::rng::seeded;

use super::*;
use crate::login::Verdict;
use crate::policy::{Exchange, Money};

fn now(seconds: u64) -> UnixTime {
    UnixTime::from_secs(1_760_000_000 + seconds)
}

struct Manager {
    provider: Provider,
    key: SoftwareKey,
}

impl Manager {
    fn new(suite: Suite) -> Self {
        let provider = provider_of(suite).unwrap();
        let key = provider.signature.generate(&mut seeded(1)).unwrap();
        Self { provider, key }
    }

    fn verify(&self, lines: &[String], head: &Head) -> Result<Verified, Broken> {
        let public = self.provider.signature.public_key(self.key.key.public_key()).unwrap();
        verify(&self.provider, lines.iter().map(|line| line.trim_end()), head, &*public)
    }

    fn head(&self, trail: &Trail) -> Head {
        trail.head(&*self.key.key, &mut seeded(2)).unwrap()
    }

    /// Some lines, and the head after each number of them.
    fn written(&self, count: u64) -> (Vec<String>, Vec<Head>) {
        let mut trail = Trail::new(&self.provider, "MGR-1");
        let mut heads = vec![self.head(&trail)];
        let mut lines = Vec::new();
        for number in 0..count {
            let sleeve = Some(format!("SLV-{number}"));
            let entry = Entry { sleeve, ..Entry::new("login") };
            lines.push(trail.append(now(number), entry).unwrap());
            heads.push(self.head(&trail));
        }
        (lines, heads)
    }
}

fn manager() -> Manager {
    Manager::new(Suite::X25519_P256_AES128GCM_SHA256)
}

#[test]
fn a8_an_audit_verifies_against_its_head_in_both_suites() {
    for suite in [Suite::X25519_P256_AES128GCM_SHA256, Suite::SM2_SM4GCM_SM3] {
        let manager = Manager::new(suite);
        let (lines, heads) = manager.written(4);
        let verified = manager.verify(&lines, &heads[4]).unwrap();
        assert_eq!(verified, Verified { covered: 4, uncovered: 0 });
        let text = serde_json::to_string(&heads[4]).unwrap();
        assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), heads[4]);
    }
}

#[test]
fn a8_a_cut_tail_shows_against_a_later_head() {
    let manager = manager();
    let (lines, heads) = manager.written(4);
    let broken = manager.verify(&lines[..3], &heads[4]).unwrap_err();
    assert_eq!(broken, Broken { line: 4, error: AuditError::Cut });
    assert_eq!(broken.error.check(), "audit-cut");
    let broken = manager.verify(&[], &heads[4]).unwrap_err();
    assert_eq!(broken, Broken { line: 1, error: AuditError::Cut });
    // A stop between a line and its head is no attack, and is told.
    let verified = manager.verify(&lines, &heads[3]).unwrap();
    assert_eq!(verified, Verified { covered: 3, uncovered: 1 });
    assert_eq!(manager.verify(&[], &heads[0]).unwrap(), Verified { covered: 0, uncovered: 0 });
}

#[test]
fn a8_altered_removed_swapped_and_foreign_lines_show() {
    let manager = manager();
    let (lines, heads) = manager.written(4);
    let verify = |lines: &[String]| manager.verify(lines, &heads[4]).unwrap_err();

    let mut altered = lines.clone();
    altered[1] = altered[1].replace("SLV-1", "SLV-9");
    assert_eq!(verify(&altered), Broken { line: 3, error: AuditError::Chain });
    let mut altered = lines.clone();
    altered[3] = altered[3].replace("SLV-3", "SLV-9");
    assert_eq!(verify(&altered), Broken { line: 4, error: AuditError::Head });
    let mut removed = lines.clone();
    removed.remove(1);
    assert_eq!(verify(&removed), Broken { line: 2, error: AuditError::Number });
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert_eq!(verify(&swapped), Broken { line: 2, error: AuditError::Number });
    let mut foreign = lines.clone();
    foreign[2] = "{}\n".to_owned();
    assert_eq!(verify(&foreign), Broken { line: 3, error: AuditError::Line });
    let mut long = lines.clone();
    long[2] = format!("{}{}", " ".repeat(LINE_MAX), lines[2]);
    assert_eq!(verify(&long), Broken { line: 3, error: AuditError::Line });
    // A whole other trail, chained as well as this one.
    let mut trail = Trail::new(&manager.provider, "MGR-1");
    let other: Vec<_> =
        (0..4).map(|n| trail.append(now(n), Entry::new("login")).unwrap()).collect();
    assert_eq!(verify(&other), Broken { line: 4, error: AuditError::Head });
}

#[test]
fn a8_lines_that_are_repeated_renumbered_or_put_behind_the_head_show() {
    let manager = manager();
    let (lines, heads) = manager.written(4);
    let mut repeated = lines.clone();
    repeated.insert(2, lines[1].clone());
    let broken = manager.verify(&repeated, &heads[4]).unwrap_err();
    assert_eq!(broken, Broken { line: 3, error: AuditError::Number });
    // One line taken out, and those after it numbered anew.
    let mut renumbered = lines.clone();
    renumbered.remove(1);
    for (line, number) in renumbered[1..].iter_mut().zip([2, 3]) {
        let was = format!("{{\"number\":{}", number + 1);
        *line = line.replace(&was, &format!("{{\"number\":{number}"));
    }
    let broken = manager.verify(&renumbered, &heads[4]).unwrap_err();
    assert_eq!(broken, Broken { line: 2, error: AuditError::Chain });
    // Anyone can chain on, and nobody else can sign that.
    let texts = lines.iter().map(|line| line.trim_end());
    let mut trail = Trail::resume(&manager.provider, "MGR-1", texts).unwrap();
    let mut longer = lines.clone();
    longer.push(trail.append(now(9), Entry::new("login")).unwrap());
    let verified = manager.verify(&longer, &heads[4]).unwrap();
    assert_eq!(verified, Verified { covered: 4, uncovered: 1 });
    let forged = Head { number: 5, last: HEXLOWER.encode(&trail.last), ..heads[4].clone() };
    let broken = manager.verify(&longer, &forged).unwrap_err();
    assert_eq!(broken, Broken { line: 0, error: AuditError::Signature });
}

#[test]
fn a8_both_set_back_show_against_a_head_that_was_kept() {
    let manager = manager();
    let (lines, heads) = manager.written(4);
    // Of themselves they are what once was.
    let verified = manager.verify(&lines[..2], &heads[2]).unwrap();
    assert_eq!(verified, Verified { covered: 2, uncovered: 0 });
    let broken = manager.verify(&lines[..2], &heads[3]).unwrap_err();
    assert_eq!(broken, Broken { line: 3, error: AuditError::Cut });
    // So does an audit that goes on differently from there.
    let texts = lines[..2].iter().map(|line| line.trim_end());
    let mut trail = Trail::resume(&manager.provider, "MGR-1", texts).unwrap();
    let mut other = lines[..2].to_vec();
    other.push(trail.append(now(9), Entry::new("release")).unwrap());
    let head = manager.head(&trail);
    manager.verify(&other, &head).unwrap();
    let broken = manager.verify(&other, &heads[3]).unwrap_err();
    assert_eq!(broken, Broken { line: 3, error: AuditError::Head });
    // And one that was deleted as a whole.
    let broken = manager.verify(&[], &heads[1]).unwrap_err();
    assert_eq!(broken, Broken { line: 1, error: AuditError::Cut });
}

#[test]
fn a8_a_head_is_the_managers_or_none() {
    let manager = manager();
    let (lines, heads) = manager.written(2);
    let head = &heads[2];
    let signature = Err(Broken { line: 0, error: AuditError::Signature });
    let last = heads[1].last.clone();
    for wrong in [
        Head { manager: "MGR-2".to_owned(), ..head.clone() },
        Head { number: 1, ..head.clone() },
        Head { last, ..head.clone() },
        Head { signature: heads[1].signature.clone(), ..head.clone() },
        Head { signature: "no digits".to_owned(), ..head.clone() },
    ] {
        assert_eq!(manager.verify(&lines, &wrong), signature);
    }
    let wrong = Head { last: "zz".to_owned(), ..head.clone() };
    let broken = Err(Broken { line: 0, error: AuditError::Head });
    assert_eq!(manager.verify(&lines, &wrong), broken);
    let mut other = Manager::new(Suite::X25519_P256_AES128GCM_SHA256);
    other.key = other.provider.signature.generate(&mut seeded(8)).unwrap();
    assert_eq!(other.verify(&lines, head), signature);
}

#[test]
fn a8_a_trail_goes_on_after_a_restart() {
    let manager = manager();
    let (mut lines, _) = manager.written(3);
    let texts = lines.iter().map(|line| line.trim_end());
    let mut trail = Trail::resume(&manager.provider, "MGR-1", texts).unwrap();
    assert_eq!(trail.number(), 3);
    lines.push(trail.append(now(9), Entry::new("started")).unwrap());
    let head = manager.head(&trail);
    assert_eq!(manager.verify(&lines, &head).unwrap(), Verified { covered: 4, uncovered: 0 });

    lines.remove(0);
    let texts = lines.iter().map(|line| line.trim_end());
    let broken = Trail::resume(&manager.provider, "MGR-1", texts).unwrap_err();
    assert_eq!(broken, Broken { line: 1, error: AuditError::Number });
}

#[test]
fn a8_an_exchange_is_written_without_its_data() {
    let exchange = Exchange {
        aid: Some("A000000333010101".parse().unwrap()),
        instruction: Some([0x80, 0xae]),
        money: Some(Money { amount: 1234, currency: 156 }),
        status: Some(0x9000),
        check: None,
    };
    let mut trail = Trail::new(&manager().provider, "MGR-1");
    let line = trail.append(now(0), Entry::of_exchange(&exchange)).unwrap();
    let zeros = "0".repeat(64);
    let expected = format!(
        "{{\"number\":1,\"at\":1760000000000,\"entry\":{{\"event\":\"exchange\",\
         \"aid\":\"A000000333010101\",\"ins\":\"80AE\",\"amount\":1234,\"currency\":156,\
         \"sw\":\"9000\"}},\"before\":\"{zeros}\"}}\n"
    );
    assert_eq!(line, expected);
}

#[test]
fn a5_usual_alarm_and_wrong_logins_are_lines_of_one_length() {
    let manager = manager();
    let lines = [Verdict::login(), Verdict::alarm(), Verdict::wrong()].map(|verdict| {
        let mut trail = Trail::new(&manager.provider, "MGR-1");
        let outcome = Some(verdict.word().as_str().to_owned());
        trail.append(now(0), Entry { outcome, ..Entry::new("login") }).unwrap().len()
    });
    assert_eq!(lines, [lines[0]; 3]);
}

#[test]
fn an_entry_that_is_too_long_changes_nothing() {
    let manager = manager();
    let mut trail = Trail::new(&manager.provider, "MGR-1");
    let entry = Entry::new(&"x".repeat(LINE_MAX));
    assert_eq!(trail.append(now(0), entry), Err(AuditError::TooLong));
    assert_eq!(trail.number(), 0);
    let line = trail.append(now(0), Entry::new("login")).unwrap();
    let head = manager.head(&trail);
    manager.verify(&[line], &head).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_anywhere_shows(
        line in 0..3_usize, at in any::<prop::sample::Index>(), byte in 0x20..0x7f_u8,
    ) {
        let manager = manager();
        let (mut lines, heads) = manager.written(3);
        let mut bytes = lines[line].clone().into_bytes();
        // Not the end of the line, which is not part of it.
        let at = at.index(bytes.len() - 1);
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        lines[line] = String::from_utf8(bytes).unwrap();
        prop_assert!(manager.verify(&lines, &heads[3]).is_err());
    }
}

//! A6 and A8: how sessions end by themselves, and what the audit says afterwards.

use countersign_channel::Heartbeat;
use countersign_wallet::message::Times;

use super::super::AuditReport;
use super::*;

const TIMES: Heartbeat =
    Heartbeat { every: Duration::from_secs(30), within: Duration::from_secs(10) };

#[tokio::test(start_paused = true)]
async fn a6_a_sleeping_sleeve_is_there_as_long_as_its_heartbeats() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.flow.sleep(Times { every: 30_000, within: 10_000 }).unwrap();
    hand.send().await;
    let now = hand.now();
    hand.channel().sleep(now, TIMES).unwrap();
    let asleep = ManagerHappening::Asleep { session: hand.session };
    world.until(|told| *told == asleep).await;
    // Far beyond what an idle session may be silent.
    hand.sleep_for(Duration::from_secs(4 * 3600)).await;
    hand.flow.wake().unwrap();
    hand.channel().wake().unwrap();
    hand.send().await;
    let awake = ManagerHappening::Awake { session: hand.session };
    world.until(|told| *told == awake).await;
    assert_eq!(hand.names().await, [CARD]);
}

#[tokio::test(start_paused = true)]
async fn a6_silence_ends_a_sleeping_session_in_time() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.flow.sleep(Times { every: 30_000, within: 10_000 }).unwrap();
    hand.send().await;
    let begun = hand.now();
    let session = hand.session;
    let told = timeout(Duration::from_secs(60), world.ended(session)).await.unwrap();
    assert_eq!(told, "heartbeat");
    let after = hand.now().since(begun).as_secs();
    assert!((40..42).contains(&after), "{after} s");
    // Its card is free.
    let mut other = world.inside(OTHER).await;
    other.take(CARD).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a6_times_that_are_too_long_are_refused() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.flow.sleep(Times { every: 600_000, within: 1 }).unwrap();
    assert_eq!(hand.end().await, "sleep-times");
    let session = hand.session;
    assert_eq!(world.ended(session).await, "sleep-times");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_awake_says_something() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    tokio::time::sleep(Duration::from_secs(890)).await;
    assert_eq!(hand.names().await, [CARD]);
    let spoken = hand.now();
    assert_eq!(hand.end().await, "idle");
    assert!((900..902).contains(&hand.now().since(spoken).as_secs()));
    // And who never logs in, sooner.
    let mut hand = world.connect(SLEEVE).await.unwrap();
    let session = hand.session;
    let begun = hand.now();
    assert_eq!(hand.end().await, "closed");
    assert_eq!(hand.now().since(begun).as_secs(), 120);
    assert_eq!(world.ended(session).await, "peer-timeout");
}

/// A session with a payment, and the manager stopped.
async fn audited() -> World {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    hand.close().await;
    world.stop().await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn a8_the_audit_holds_and_is_signed_to_its_end() {
    let world = audited().await;
    let report = world.opened().await.verify_audit(None).unwrap();
    assert_eq!(report.covered as usize, world.audit().lines().count());
    assert_eq!(report.uncovered, 0);
    let events: Vec<String> = world
        .audit()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["entry"]["event"].as_str().unwrap().to_owned()
        })
        .collect();
    let wanted = [
        "password", "password", "pair", "pair", "connect", "login", "take", "exchange", "release",
        "end",
    ];
    assert_eq!(events, wanted);
}

#[tokio::test(start_paused = true)]
async fn a8_an_audit_that_was_altered_shows_and_stops_the_manager() {
    let world = audited().await;
    let (lines, head) = (world.home().join("audit.jsonl"), world.home().join("audit-head.json"));
    let (text, kept) = (world.audit(), std::fs::read(&head).unwrap());
    let altered = text.replacen("SLV-1", "SLV-7", 1);
    let swapped = {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(2, 3);
        lines.join("\n") + "\n"
    };
    let cut = text.lines().take(4).map(|line| format!("{line}\n")).collect::<String>();
    let last = text.lines().count() - 1;
    let removed: String = text
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != last - 1)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for (forged, check) in [
        (altered, "audit-chain"),
        (swapped, "audit-number"),
        (removed, "audit-number"),
        (cut, "audit-cut"),
        (String::new(), "audit-cut"),
    ] {
        std::fs::write(&lines, forged).unwrap();
        let broken = world.opened().await.verify_audit(None).unwrap_err();
        assert_eq!(broken.check(), check);
        let refused = world.made(world.opened().await).unwrap_err();
        assert_eq!(refused.check(), check, "no manager goes on with it");
    }
    // Without a head there is nothing that says how long it was, except a head that was kept.
    std::fs::write(&lines, &text).unwrap();
    let elsewhere = world.dir.path().join("kept.json");
    std::fs::write(&elsewhere, &kept).unwrap();
    std::fs::remove_file(&head).unwrap();
    assert_eq!(world.opened().await.verify_audit(None).unwrap_err().check(), "audit-head");
    assert_eq!(world.made(world.opened().await).unwrap_err().check(), "audit-head");
    let report = world.opened().await.verify_audit(Some(&elsewhere)).unwrap();
    assert_eq!(report.covered as usize, text.lines().count());
    // A head that somebody else has signed.
    let mut forged: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    forged["number"] = serde_json::json!(1);
    std::fs::write(&head, forged.to_string()).unwrap();
    assert_eq!(world.opened().await.verify_audit(None).unwrap_err().check(), "audit-signature");
}

#[tokio::test(start_paused = true)]
async fn a8_lines_that_no_head_covers_stay_told_of() {
    let mut world = audited().await;
    // The program is gone before it has signed the last two lines; or somebody has added them.
    let (head, lines) = (world.home().join("audit-head.json"), world.audit().lines().count());
    let before = std::fs::read(&head).unwrap();
    world.start().await;
    let hand = world.inside(SLEEVE).await;
    drop(hand);
    world.stop().await.unwrap();
    let added = world.audit().lines().count() - lines;
    std::fs::write(&head, before).unwrap();
    let report = world.opened().await.verify_audit(None).unwrap();
    assert_eq!(report, AuditReport { covered: lines as u64, uncovered: added as u64 });
    world.start().await;
    world.stop().await.unwrap();
    assert_eq!(world.audited(&format!("\"uncovered {added}\"")), 1, "{}", world.audit());
    let report = world.opened().await.verify_audit(None).unwrap();
    assert_eq!(report.uncovered, 0);
    world.start().await;
    world.stop().await.unwrap();
    assert_eq!(world.audited("\"resume\""), 1, "once");
}

/// Nobody waits for the disk where a card was only read; a head covers that soon, and what a card
/// did is there before its answer leaves, with all before it.
#[tokio::test(start_paused = true)]
async fn a8_what_only_read_a_card_is_on_the_disk_soon_and_the_rest_at_once() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    let shared = world.run().shared.upgrade().unwrap();
    let at_risk = || shared.audit.lock().unwrap().at_risk();
    assert_eq!(at_risk(), 0);
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    assert_eq!(at_risk(), 1);
    assert_eq!(hand.transmit(&select(AID_CREDIT)).await.unwrap_err(), "policy-aid");
    assert_eq!(at_risk(), 0, "what is refused is no reading");
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    assert_eq!(at_risk(), 1);
    let covered = async {
        while at_risk() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), covered).await.expect("a head covers it");
    assert!(shared.audit.lock().unwrap().unsigned().is_none());
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    assert_eq!(at_risk(), 1);
    let begun = world.card.counts().commands;
    hand.transmit(&[0x80, 0xA8, 0, 0, 2, 0x83, 0, 0]).await.unwrap();
    assert_eq!((at_risk(), world.card.counts().commands), (0, begun + 1));
}

#[tokio::test(start_paused = true)]
async fn a8_nothing_is_answered_that_the_audit_cannot_tell() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    let shared = world.run().shared.upgrade().unwrap();
    shared.audit.lock().unwrap().fail();
    drop(shared);
    // The card has answered; its answer does not leave.
    assert_eq!(hand.transmit(&select(AID_DEBIT)).await.unwrap_err(), "io");
    assert_eq!(world.card.counts().commands, 1);
    let session = hand.session;
    assert_eq!(world.ended(session).await, "io");
    // Nor does anybody come in, or get paired.
    let pipe = world.pipe().await;
    let pairing = world.pairings[OTHER].clone();
    let mode = countersign_channel::Mode::A2;
    let connected = world.connect_over(OTHER, mode, pairing, pipe);
    assert!(timeout(Duration::from_secs(5), connected).await.is_err(), "no session is told");
    world.open_window(60).await;
    assert!(world.pair("SLV-2", true).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a8_half_a_line_that_a_crash_left_is_cut_off() {
    let mut world = audited().await;
    let whole = world.audit();
    std::fs::write(world.home().join("audit.jsonl"), format!("{whole}{{\"number\":")).unwrap();
    world.start().await;
    world.inside(SLEEVE).await;
    world.stop().await.unwrap();
    assert!(world.audit().starts_with(&whole));
    assert_eq!(world.opened().await.verify_audit(None).unwrap().uncovered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_a_password_or_a_card_does_not_serve() {
    let world = audited().await;
    let dir = world.opened().await;
    let other = ManagerDir::open(&world.home()).unwrap_err();
    assert_eq!(other.check(), "device-busy");
    let missing = card_source(dir.settings(), HeldCards::default()).err().unwrap();
    assert_eq!(missing.check(), "card-source");
    drop(dir);
    std::fs::remove_file(world.home().join("passwords.json")).unwrap();
    let refused = world.made(world.opened().await).unwrap_err();
    assert_eq!(refused.check(), "password-absent");
}

#[test]
fn settings_are_checked() {
    let wrong = [
        "lsten = \"0.0.0.0:1\"",
        "policies = []",
        "policies = [\"certificate-sealed\"]",
        "idle-seconds = 0",
        "consent = \"maybe\"",
        "[[card]]\nid = \"a b\"\nlabel = \"x\"\naids = \"any\"",
        "[[card]]\nid = \"a\"\nlabel = \"x\"\naids = \"any\"\nlease-seconds = 1",
        "[[card]]\nid = \"a\"\nlabel = \"x\"\naids = \"any\"\n\
         [[card]]\nid = \"a\"\nlabel = \"y\"\naids = \"any\"",
    ];
    for text in wrong {
        let refused = ManagerSettings::parse(text).unwrap_err();
        assert_eq!(refused.check(), "manager-settings", "{text}");
    }
    assert_eq!(ManagerSettings::parse("").unwrap(), ManagerSettings::default());
    let mut other = settings();
    assert_eq!(other.useless_after_alarm(), [""; 0]);
    other.alarm.currency = Some(978);
    assert_eq!(other.useless_after_alarm(), [DECOY]);
    let text = toml::to_string(&settings()).unwrap();
    assert_eq!(ManagerSettings::parse(&text).unwrap(), settings());
}

use countersign_channel::Mode;
use countersign_device::{ManagerHappening as Happening, Route};
use countersign_pki::CertificateNumber;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000_000);

fn view() -> View {
    View { serial: "MGR-1".to_owned(), certificate_number: "0A1B".to_owned(), ..View::default() }
}

/// The rows that are drawn.
fn drawn(screen: &Screen, view: &View, now: UnixTime) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    terminal.draw(|frame| screen.draw(frame, view, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(row).collect()
}

fn shows(rows: &[String], words: &str) -> bool {
    rows.iter().any(|row| row.contains(words))
}

fn pressed(code: KeyCode) -> Event {
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn connected(session: u32, sleeve: &str) -> Happening {
    let sleeve = sleeve.to_owned();
    Happening::Connected { session, sleeve, way: Route::Direct, mode: Mode::A2 }
}

/// What the owner needs to pair: that it is open, for how long, what to compare, and who came.
#[test]
fn the_pairing_window_shows_its_time_and_the_certified_ids() {
    let (screen, mut view) = (Screen::default(), view());
    assert!(shows(&drawn(&screen, &view, NOW), "Closed: no sleeve can pair."));
    view.take(&Happening::WindowOpened { seconds: 60 }, NOW);
    let later = UnixTime::from_millis(NOW.as_millis() + 17_001);
    let rows = drawn(&screen, &view, later);
    assert!(shows(&rows, "Open for 43 s: the sleeve shows MGR-1 and 0A1B"), "{rows:#?}");
    view.take(&Happening::PairingAsked { sleeve: "SLV-1".to_owned() }, NOW);
    assert!(shows(&drawn(&screen, &view, NOW), "SLV-1 pairs: is that the sleeve in your hand?"));
    let number = CertificateNumber::from_bytes(&[0x77]).unwrap();
    view.take(&Happening::Paired { sleeve: "SLV-1".to_owned(), number }, NOW);
    view.take(&Happening::WindowClosed { because: "paired" }, NOW);
    let rows = drawn(&screen, &view, NOW);
    assert!(shows(&rows, "SLV-1 is paired (certificate 77)."), "{rows:#?}");
    assert!(shows(&rows, "Closed: no sleeve can pair."), "{rows:#?}");
    // The next window is not this sleeve's.
    view.take(&Happening::WindowOpened { seconds: 5 }, NOW);
    assert!(!shows(&drawn(&screen, &view, NOW), "is paired (certificate 77)."));
}

#[test]
fn sessions_show_their_cards_and_how_long_their_leases_are() {
    let (screen, mut view) = (Screen::default(), view());
    view.take(&connected(3, "SLV-1"), NOW);
    view.take(&Happening::LoggedIn { session: 3 }, NOW);
    let (card, label) = ("bank".to_owned(), "Bank card".to_owned());
    view.take(&Happening::Taken { session: 3, card, label, seconds: 300 }, NOW);
    let line = |rows: &[String]| rows.iter().find(|row| row.contains("▶")).unwrap().clone();
    let row = line(&drawn(&screen, &view, NOW));
    for word in ["3", "SLV-1", "direct", "logged in", "Bank card", "300 s"] {
        assert!(row.contains(word), "{word}: {row}");
    }
    view.take(&Happening::Asleep { session: 3 }, NOW);
    assert!(line(&drawn(&screen, &view, NOW)).contains("sleeps"));
    let (card, because) = ("bank".to_owned(), "removed".to_owned());
    view.take(&Happening::Released { session: 3, card, because }, NOW);
    assert!(!line(&drawn(&screen, &view, NOW)).contains("Bank card"));
    let check = "closed".to_owned();
    view.take(&Happening::Ended { session: 3, sleeve: "SLV-1".to_owned(), check }, NOW);
    assert!(shows(&drawn(&screen, &view, NOW), "Sessions (0)"));
}

/// The session that asks first is answered first, whichever is chosen.
#[test]
fn the_owner_is_asked_for_consent_and_answers_the_one_that_asks() {
    let (mut screen, mut view) = (Screen::default(), view());
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('y'))), None, "nobody asks");
    for session in [1, 2, 3] {
        view.take(&connected(session, &format!("SLV-{session}")), NOW);
    }
    for session in [2, 3] {
        view.take(&Happening::ConsentAsked { session, seconds: 60 }, NOW);
    }
    let rows = drawn(&screen, &view, NOW);
    assert!(shows(&rows, "The sleeve SLV-2 has logged in (direct)."), "{rows:#?}");
    assert!(shows(&rows, "May session 2 use your cards?"), "{rows:#?}");
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('n'))), Some(Key::Consent(2, false)));
    view.take(&Happening::LoggedIn { session: 2 }, NOW);
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('y'))), Some(Key::Consent(3, true)));
}

#[test]
fn a_revocation_is_asked_for_twice_and_an_end_once() {
    let (mut screen, mut view) = (Screen::default(), view());
    view.take(&connected(1, "SLV-1"), NOW);
    view.take(&connected(2, "SLV-2"), NOW);
    for _ in 0..3 {
        assert_eq!(screen.press(&view, &pressed(KeyCode::Down)), None);
    }
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('e'))), Some(Key::End(2)));
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('r'))), None);
    assert!(shows(&drawn(&screen, &view, NOW), "Revoke the sleeve SLV-2?"));
    assert_eq!(screen.press(&view, &pressed(KeyCode::Char('q'))), None, "any other key is a no");
    assert!(!shows(&drawn(&screen, &view, NOW), "Revoke the sleeve SLV-2?"));
    screen.press(&view, &pressed(KeyCode::Char('r')));
    let revoked = screen.press(&view, &pressed(KeyCode::Char('y')));
    assert_eq!(revoked, Some(Key::Revoke("SLV-2".to_owned())));
}

#[test]
fn the_keys_are_what_the_screen_says() {
    let (mut screen, view) = (Screen::default(), view());
    let mut press = |code| screen.press(&view, &pressed(code));
    assert_eq!(press(KeyCode::Char('p')), Some(Key::Pair(WINDOW_SECONDS)));
    assert_eq!(press(KeyCode::Char('c')), Some(Key::Close));
    assert_eq!(press(KeyCode::Char('q')), Some(Key::Quit));
    assert_eq!(press(KeyCode::Char('e')), None, "there is no session");
    assert_eq!(press(KeyCode::Char('x')), None);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.press(&view, &Event::Key(interrupt)), Some(Key::Quit));
}

/// A small terminal loses rows and does not end the program; what a server says steers nothing.
#[test]
fn a_small_terminal_and_a_rude_reason_are_drawn_too() {
    let (screen, mut view) = (Screen::default(), view());
    let check = Some("\u{1b}[2Jgone\u{7}".to_owned());
    view.take(&Happening::Relay { connected: false, check }, NOW);
    view.take(&connected(1, "SLV-1"), NOW);
    view.take(&Happening::ConsentAsked { session: 1, seconds: 60 }, NOW);
    for (columns, rows) in [(1, 1), (10, 3), (30, 8), (200, 60)] {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| screen.draw(frame, &view, NOW)).unwrap();
        let cells = terminal.backend().buffer().content();
        assert!(cells.iter().all(|cell| !cell.symbol().contains(char::is_control)));
    }
    assert!(shows(&drawn(&screen, &view, NOW), "gone"));
}

/// The owner compares by eye: strangers who fail do not take away who is there.
#[test]
fn a_stranger_that_fails_does_not_wipe_who_pairs() {
    let (screen, mut view) = (Screen::default(), view());
    view.take(&Happening::WindowOpened { seconds: 60 }, NOW);
    view.take(&Happening::PairingAsked { sleeve: "SLV-1".to_owned() }, NOW);
    let failed = |sleeve: Option<&str>| Happening::PairingFailed {
        sleeve: sleeve.map(str::to_owned),
        check: "pairing-closed".to_owned(),
    };
    let words = "SLV-1 pairs: is that the sleeve in your hand?";
    for stranger in [None, Some("SLV-2")] {
        view.take(&failed(stranger), NOW);
        assert!(shows(&drawn(&screen, &view, NOW), words), "{stranger:?}");
    }
    view.take(&failed(Some("SLV-1")), NOW);
    assert!(!shows(&drawn(&screen, &view, NOW), words));
}

//! The manager's screen: [`View`] drawn on a terminal, and the keys that are pressed there.

use countersign_crypto::UnixTime;
use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};

use super::happening::way_name;
use super::keys::{Key, WINDOW_SECONDS};
use super::view::{Pairing, Relay, Session, View};

/// Rows of the pairing window: two lines of text and its border.
const PAIRING_ROWS: u16 = 4;
/// Least rows of the sessions, with their head and border.
const SESSIONS_ROWS: u16 = 6;
/// What the keys are.
const KEYS: &str =
    " p pair · c close · ↑↓ choose a session · e end it · r revoke its sleeve · q quit";
/// Rows and columns of a question.
const QUESTION: (u16, u16) = (7, 64);

/// Where the owner is on the screen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Which of the sessions, counted from above.
    chosen: usize,
    /// A revocation that is not confirmed yet.
    revoke: Option<String>,
}

impl Screen {
    /// What a key means; nothing, if it only moves on the screen.
    pub(super) fn press(&mut self, view: &View, event: &Event) -> Option<Key> {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
            return None;
        };
        if modifiers.contains(KeyModifiers::CONTROL) {
            return (*code == KeyCode::Char('c')).then_some(Key::Quit);
        }
        if let Some(sleeve) = self.revoke.take() {
            return (*code == KeyCode::Char('y')).then_some(Key::Revoke(sleeve));
        }
        let chosen = || view.sessions.iter().nth(self.chosen);
        match code {
            KeyCode::Char('y' | 'n') => {
                let (session, _) = view.asks()?;
                Some(Key::Consent(session, *code == KeyCode::Char('y')))
            }
            KeyCode::Char('p') => Some(Key::Pair(WINDOW_SECONDS)),
            KeyCode::Char('c') => Some(Key::Close),
            KeyCode::Char('e') => chosen().map(|(number, _)| Key::End(*number)),
            KeyCode::Char('r') => {
                self.revoke = chosen().map(|(_, session)| session.sleeve.clone());
                None
            }
            KeyCode::Char('q') => Some(Key::Quit),
            KeyCode::Up => {
                self.chosen = self.chosen.saturating_sub(1);
                None
            }
            KeyCode::Down => {
                self.chosen = (self.chosen + 1).min(view.sessions.len().saturating_sub(1));
                None
            }
            _ => None,
        }
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>, view: &View, now: UnixTime) {
        let rows = [
            Constraint::Length(2),
            Constraint::Length(PAIRING_ROWS),
            Constraint::Min(SESSIONS_ROWS),
            Constraint::Percentage(30),
            Constraint::Length(1),
        ];
        let [head, pairing, sessions, log, keys] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(head_of(view), head);
        frame.render_widget(pairing_of(view, now), pairing);
        frame.render_widget(self.sessions(view), sessions);
        frame.render_widget(log_of(view, log), log);
        frame.render_widget(Paragraph::new(KEYS).dim(), keys);
        if let Some(sleeve) = &self.revoke {
            let lines = [format!("Revoke the sleeve {sleeve}?"), "It has to pair again.".into()];
            question(frame, " Revoke ", lines);
        } else if let Some((number, session)) = view.asks() {
            let way = way_name(session.way);
            let lines = [
                format!("The sleeve {} has logged in ({way}).", session.sleeve),
                format!("May session {number} use your cards?"),
            ];
            question(frame, " Consent ", lines);
        }
    }

    fn sessions(&self, view: &View) -> Table<'_> {
        let head = Row::new(["", "No.", "Sleeve", "Way", "State", "Card", "Lease"]).bold();
        let row = |(at, (number, session)): (usize, (&u32, &Session))| {
            let chosen = at == self.chosen;
            let (card, lease) = match &session.card {
                Some(lent) => (lent.label.clone(), format!("{} s", lent.seconds)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let cells = [
                if chosen { "▶" } else { " " }.to_owned(),
                number.to_string(),
                session.sleeve.clone(),
                way_name(session.way).to_owned(),
                session.state().to_owned(),
                card,
                lease,
            ];
            let style = if chosen { Style::new().reversed() } else { Style::new() };
            Row::new(cells.map(Cell::from)).style(style)
        };
        let rows = view.sessions.iter().enumerate().map(row);
        let widths = [
            Constraint::Length(1),
            Constraint::Length(4),
            Constraint::Fill(2),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Fill(2),
            Constraint::Length(7),
        ];
        let title = format!(" Sessions ({}) ", view.sessions.len());
        Table::new(rows, widths).header(head).block(Block::bordered().title(title))
    }
}

fn head_of(view: &View) -> Paragraph<'_> {
    let name = format!(" Manager {} · certificate {}", view.serial, view.certificate_number);
    let here = match &view.listening {
        Some(at) => format!(" This network: {at}"),
        None => " This network: -".to_owned(),
    };
    let relay = match &view.relay {
        Relay::None => "-".to_owned(),
        Relay::Connected => "open".to_owned(),
        Relay::Lost(reason) => format!("lost ({reason})"),
    };
    Paragraph::new(vec![
        Line::from(name).add_modifier(Modifier::BOLD),
        Line::from(format!("{here} · through the server: {relay}")),
    ])
}

fn pairing_of(view: &View, now: UnixTime) -> Paragraph<'_> {
    let open = view.window_left(now);
    let first = match open {
        Some(left) => format!(
            "Open for {left} s: the sleeve shows {} and {}. Compare before you say yes there.",
            view.serial, view.certificate_number
        ),
        None => "Closed: no sleeve can pair.".to_owned(),
    };
    let second = match &view.pairing {
        Some(Pairing { sleeve, paired: None }) => {
            format!("{sleeve} pairs: is that the sleeve in your hand?")
        }
        Some(Pairing { sleeve, paired: Some(number) }) => {
            format!("{sleeve} is paired (certificate {number}).")
        }
        None => String::new(),
    };
    let colour = if open.is_some() { Color::Yellow } else { Color::Reset };
    let lines = vec![Line::from(first), Line::from(second).bold()];
    Paragraph::new(lines).block(Block::bordered().title(" Pairing ").fg(colour))
}

fn log_of(view: &View, area: Rect) -> Paragraph<'_> {
    let rows = usize::from(area.height.saturating_sub(2));
    let shown = view.log.iter().skip(view.log.len().saturating_sub(rows));
    Paragraph::new(shown.map(|line| Line::from(line.as_str())).collect::<Vec<_>>())
        .block(Block::bordered().title(" What happened "))
}

/// A question over everything else, answered with `y` or `n`.
fn question(frame: &mut Frame<'_>, title: &'static str, lines: [String; 2]) {
    let all = frame.area();
    let (rows, columns) = (QUESTION.0.min(all.height), QUESTION.1.min(all.width));
    let (x, y) = ((all.width - columns) / 2, (all.height - rows) / 2);
    let area = Rect { x: all.x + x, y: all.y + y, width: columns, height: rows };
    let mut text = vec![Line::default()];
    text.extend(lines.map(Line::from));
    text.extend([Line::default(), Line::from("y yes · n no").bold()]);
    let block = Block::bordered().title(title).fg(Color::Yellow);
    let shown = Paragraph::new(text).alignment(Alignment::Center).wrap(Wrap { trim: true });
    frame.render_widget(Clear, area);
    frame.render_widget(shown.block(block), area);
}

#[cfg(test)]
mod tests;

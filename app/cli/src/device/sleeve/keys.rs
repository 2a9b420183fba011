//! What a sleeve's holder types while it is connected, a line each.

/// What can be typed.
pub(super) const HELP: &str = "\
  list       the cards at home
  take CARD  be this card in the virtual reader
  release    be no card any more
  probe      measure how long the way home takes
  sleep      send heartbeats only, until `wake`
  wake       be ready again
  help       tell this
  quit       end the session and this program";

/// What its holder wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// The cards that there are.
    List,
    /// Be this card.
    Take(String),
    /// Be no card.
    Release,
    /// Measure the way.
    Probe,
    /// Sleep (A6).
    Sleep,
    /// Wake up.
    Wake,
    /// Tell what can be typed.
    Help,
    /// End the program.
    Quit,
    /// A line that means nothing.
    Unknown,
}

impl Key {
    /// What a line means.
    pub(super) fn of(line: &str) -> Self {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("list"), None, _) => Self::List,
            (Some("take"), Some(card), None) => Self::Take(card.to_owned()),
            (Some("release"), None, _) => Self::Release,
            (Some("probe"), None, _) => Self::Probe,
            (Some("sleep"), None, _) => Self::Sleep,
            (Some("wake"), None, _) => Self::Wake,
            (Some("help" | "?"), None, _) => Self::Help,
            (Some("quit"), None, _) => Self::Quit,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_wish_or_none() {
        for (line, key) in [
            ("list", Key::List),
            (" take  bank ", Key::Take("bank".to_owned())),
            ("release", Key::Release),
            ("probe", Key::Probe),
            ("sleep", Key::Sleep),
            ("wake", Key::Wake),
            ("?", Key::Help),
            ("quit", Key::Quit),
        ] {
            assert_eq!(Key::of(line), key, "{line}");
        }
        for line in ["", "take", "take a b", "list all", "LIST", "bank"] {
            assert_eq!(Key::of(line), Key::Unknown, "{line}");
        }
    }
}

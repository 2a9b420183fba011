//! What the manager's owner types, a line each.

/// What can be typed.
pub(super) const HELP: &str = "\
  pair [SECONDS]  let one sleeve pair, for 60 seconds or so many
  close           let none pair any more
  yes N, no N     let session N use the cards, or not
  end N           end session N
  recall CARD     take a card back from whoever has it
  revoke SLEEVE   end what that sleeve does, and its pairing
  look            tell again what is going on
  help            tell this
  quit            end this program";

/// How long a window is open if nobody says, in seconds.
pub(super) const WINDOW_SECONDS: u32 = 60;

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// Let a sleeve pair, for so many seconds.
    Pair(u32),
    /// Let none pair.
    Close,
    /// The answer to a session that asks.
    Consent(u32, bool),
    /// End a session.
    End(u32),
    /// Take a card back.
    Recall(String),
    /// End a pairing.
    Revoke(String),
    /// Tell what is going on.
    Look,
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
        let (word, more) = (words.next().unwrap_or_default(), words.next());
        if words.next().is_some() {
            return Self::Unknown;
        }
        let number = || more.and_then(|more| more.parse().ok());
        let wanted = match (word, more) {
            ("pair", None) => Some(Self::Pair(WINDOW_SECONDS)),
            ("pair", Some(seconds)) => seconds.parse().ok().map(Self::Pair),
            ("close", None) => Some(Self::Close),
            ("yes", Some(_)) => number().map(|session| Self::Consent(session, true)),
            ("no", Some(_)) => number().map(|session| Self::Consent(session, false)),
            ("end", Some(_)) => number().map(Self::End),
            ("recall", Some(card)) => Some(Self::Recall(card.to_owned())),
            ("revoke", Some(sleeve)) => Some(Self::Revoke(sleeve.to_owned())),
            ("look", None) => Some(Self::Look),
            ("help" | "?", None) => Some(Self::Help),
            ("quit", None) => Some(Self::Quit),
            _ => None,
        };
        wanted.unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_wish_or_none() {
        for (line, key) in [
            ("pair", Key::Pair(WINDOW_SECONDS)),
            (" pair  5 ", Key::Pair(5)),
            ("close", Key::Close),
            ("yes 3", Key::Consent(3, true)),
            ("no 3", Key::Consent(3, false)),
            ("end 7", Key::End(7)),
            ("recall bank", Key::Recall("bank".to_owned())),
            ("revoke SLV-1", Key::Revoke("SLV-1".to_owned())),
            ("quit", Key::Quit),
        ] {
            assert_eq!(Key::of(line), key, "{line}");
        }
        for line in [
            "yes", "no", "yes one", "yes 1 2", "pair -1", "pair a", "end", "PAIR", "revoke",
            "recall",
        ] {
            assert_eq!(Key::of(line), Key::Unknown, "{line}");
        }
    }
}

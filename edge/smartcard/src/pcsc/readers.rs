use std::ffi::CString;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pcsc::{Context, PNP_NOTIFICATION, ReaderState, Scope, State};

use super::PcscError;

/// Most readers that are looked at; pcscd itself knows sixteen.
const READERS_MAX: usize = 64;
/// Longest that the service may take to tell its readers.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks while a card is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A card reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The name the service gives it.
    pub name: String,
    /// The answer to reset of the card in it; `None` if there is none.
    pub card: Option<Vec<u8>>,
    /// Some program has a connection to the card.
    pub in_use: bool,
}

/// The readers of this machine, and which have a card.
///
/// # Errors
/// [`PcscError::NoService`], [`PcscError::Stuck`], [`PcscError::Failed`]. No reader is an empty
/// list.
pub fn readers() -> Result<Vec<Reader>, PcscError> {
    let (tell, listed) = mpsc::channel();
    thread::spawn(move || {
        let _nobody_waits = tell.send(context().and_then(|context| list(&context)));
    });
    listed.recv_timeout(LIST_WITHIN).unwrap_or(Err(PcscError::Stuck))
}

/// A new connection to the service: an old one never recovers when the service is restarted.
fn context() -> Result<Context, PcscError> {
    Ok(Context::establish(Scope::User)?)
}

fn list(context: &Context) -> Result<Vec<Reader>, PcscError> {
    let mut states: Vec<_> = names(context)?
        .into_iter()
        .take(READERS_MAX)
        .map(|name| ReaderState::new(name, State::UNAWARE))
        .collect();
    if states.is_empty() {
        return Ok(Vec::new());
    }
    context.get_status_change(Duration::ZERO, &mut states)?;
    let reader = |state: &ReaderState| {
        let present = state.event_state().contains(State::PRESENT);
        Reader {
            name: state.name().to_string_lossy().into_owned(),
            card: present.then(|| state.atr().to_vec()),
            in_use: state.event_state().intersects(State::INUSE | State::EXCLUSIVE),
        }
    };
    Ok(states.iter().map(reader).collect())
}

fn names(context: &Context) -> Result<Vec<CString>, PcscError> {
    match context.list_readers_owned() {
        Ok(names) => Ok(names.into_iter().filter(|n| n.as_c_str() != PNP_NOTIFICATION()).collect()),
        Err(pcsc::Error::NoReadersAvailable) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The reader that is meant, with a card in it, waiting for both.
pub(super) fn with_card(
    wanted: Option<&str>,
    wait: Duration,
) -> Result<(Context, String), PcscError> {
    let looks = wait.as_millis() / LOOK_EVERY.as_millis();
    let mut left = looks;
    loop {
        let found = context().and_then(|context| {
            let name = choose(list(&context)?, wanted)?;
            Ok((context, name))
        });
        let is_awaited = |error: &PcscError| {
            use PcscError::{NoCard, NoReader, Removed, UnknownReader};
            matches!(error, NoCard | NoReader | UnknownReader(_) | Removed)
        };
        match found {
            Err(error) if left > 0 && is_awaited(&error) => {
                left -= 1;
                thread::sleep(LOOK_EVERY);
            }
            found => return found,
        }
    }
}

fn choose(readers: Vec<Reader>, wanted: Option<&str>) -> Result<String, PcscError> {
    if readers.is_empty() {
        return Err(PcscError::NoReader);
    }
    let Some(wanted) = wanted else {
        let with_card = readers.into_iter().filter(|reader| reader.card.is_some());
        return only(with_card, PcscError::SeveralCards)?.ok_or(PcscError::NoCard);
    };
    let exact = readers.iter().find(|reader| reader.name == wanted).cloned();
    let found = match exact {
        Some(reader) => reader,
        None => {
            let named = readers.iter().filter(|reader| reader.name.contains(wanted));
            let name = only(named.cloned(), PcscError::SeveralReaders)?;
            let name = name.ok_or_else(|| PcscError::UnknownReader(wanted.to_owned()))?;
            let mut readers = readers.into_iter();
            readers.find(|reader| reader.name == name).ok_or(PcscError::NoReader)?
        }
    };
    if found.card.is_none() {
        return Err(PcscError::NoCard);
    }
    Ok(found.name)
}

/// The name of the only one; `None` if there is none.
fn only(
    readers: impl Iterator<Item = Reader>,
    several: fn(Vec<String>) -> PcscError,
) -> Result<Option<String>, PcscError> {
    let mut names: Vec<_> = readers.map(|reader| reader.name).collect();
    if names.len() > 1 {
        return Err(several(names));
    }
    Ok(names.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: &str, has_card: bool) -> Reader {
        Reader { name: name.to_owned(), card: has_card.then(|| vec![0x3B, 0]), in_use: false }
    }

    #[test]
    fn the_only_card_is_meant_without_a_name() {
        let readers = || vec![reader("a 0", false), reader("b 1", true)];
        assert_eq!(choose(readers(), None), Ok("b 1".to_owned()));
        assert_eq!(choose(Vec::new(), None), Err(PcscError::NoReader));
        assert_eq!(choose(vec![reader("a 0", false)], None), Err(PcscError::NoCard));
        let both = vec![reader("a 0", true), reader("b 1", true)];
        let names = vec!["a 0".to_owned(), "b 1".to_owned()];
        assert_eq!(choose(both, None), Err(PcscError::SeveralCards(names)));
    }

    #[test]
    fn a_name_is_whole_or_a_part_that_one_has() {
        let readers = || vec![reader("acme 1", true), reader("acme 10", true), reader("c", false)];
        assert_eq!(choose(readers(), Some("acme 1")), Ok("acme 1".to_owned()));
        assert_eq!(choose(readers(), Some("10")), Ok("acme 10".to_owned()));
        assert_eq!(choose(readers(), Some("c")), Err(PcscError::NoCard), "whole, though in all");
        let names = vec!["acme 1".to_owned(), "acme 10".to_owned()];
        assert_eq!(choose(readers(), Some("acme")), Err(PcscError::SeveralReaders(names)));
        let unknown = PcscError::UnknownReader("x".to_owned());
        assert_eq!(choose(readers(), Some("x")), Err(unknown));
    }
}

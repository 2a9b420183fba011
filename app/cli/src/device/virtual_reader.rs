//! What all programs share that are a card in a virtual reader of PC/SC (vpcd).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use countersign_smartcard::vpcd::{SlotEvent, VirtualReader};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{self, print_error};

/// Shortest time between two cards in one slot, or of one card in two readers. Readers look every
/// 0.4 s whether their card is there, on a busy machine later, and a card that was away for less
/// confuses pcscd, whose program was just letting it go.
pub(crate) const AWAY_MIN: Duration = Duration::from_millis(1500);

/// A reader that may be used: one on another machine only if that was asked for. `secret` is what
/// goes there.
pub(crate) fn permitted(
    reader: VirtualReader,
    remote: bool,
    secret: &str,
) -> Result<VirtualReader, Failure> {
    let is_remote = !reader.is_on_this_machine();
    if is_remote && !remote {
        let detail =
            format!("the {secret} would go to another machine in clear: say --remote-reader");
        return Err(Failure::usage("remote-reader", detail));
    }
    if is_remote {
        print_error(&format!(
            "What goes to a reader on another machine is not encrypted, nor is the {secret}."
        ));
    }
    Ok(if remote { reader.allow_remote() } else { reader })
}

/// Begins to listen for the end, before anybody is told that the program runs. What has come
/// already is given back.
pub(crate) async fn listening<T>(mut stopping: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match poll_fn(|context| Poll::Ready(stopping.as_mut().poll(context))).await {
        Poll::Ready(stopped) => Some(stopped),
        Poll::Pending => None,
    }
}

/// Tells what happens: a line of JSON, or a sentence.
pub(crate) fn tell(json: bool, event: &Value, text: &str) {
    output::print(&if json { event.to_string() } else { text.to_owned() });
}

/// An event of the slot, for programs and for people; `reader` is which one, for people.
pub(crate) fn slot_event(event: &SlotEvent, reader: &str) -> (Value, String) {
    let (name, reason, text) = match event {
        SlotEvent::Inserted => ("inserted", None, format!("The card is in the {reader}")),
        SlotEvent::Removed { reason } => {
            ("removed", Some(reason), format!("The {reader} is gone ({reason}): trying again"))
        }
        SlotEvent::NoReader { reason } => {
            ("no-reader", Some(reason), format!("No {reader} there ({reason}): trying again"))
        }
        SlotEvent::Silent => {
            ("silent", None, format!("The {reader} says nothing: another card is in its slot"))
        }
    };
    let mut event = json!({ "event": name });
    if let Some(reason) = reason {
        event["reason"] = json!(reason);
    }
    (event, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_on_another_machine_is_asked_for_and_named_with_what_goes_there() {
        let reader = |place: &str| place.parse::<VirtualReader>().unwrap();
        for secret in ["PIN", "joint password"] {
            assert!(permitted(reader("127.0.0.1:35963"), false, secret).is_ok());
            assert!(permitted(reader("192.0.2.1:35963"), true, secret).is_ok());
            let refused = permitted(reader("192.0.2.1:35963"), false, secret).unwrap_err();
            assert_eq!(refused.check, "remote-reader");
            assert!(refused.detail.starts_with(&format!("the {secret} would")), "{refused:?}");
        }
    }
}

use countersign_channel::{AlertCode, Error, INCIDENT_MAX, ReaderChannel, Refusal, ServerChannel};
use countersign_crypto::UnixTime;
use testkit::rng::{ChaCha20Rng, seeded};

use super::setting::Setting;
use crate::script::Script;

/// Alerts: any body told to a reader, and any incident that a server tells.
/// Script: `setting, which, body or incident`.
pub fn alert(data: &[u8]) {
    let mut script = Script::new(data);
    let setting = Setting::new(&mut script);
    let (now, mut rng) = (setting.start(), seeded(7));
    let mut reader = setting.reader(now, &mut rng);
    let which = script.byte();
    let rest = script.rest();
    if which & 1 == 0 {
        let body = &rest[..rest.len().min(usize::from(u8::MAX))];
        let len = u8::try_from(body.len()).expect("cut to fit");
        let header = [b'C', b'S', 1, setting.mode as u8, 15, 0, 0, len];
        any(&mut reader, now, &mut rng, &[&header, body].concat());
    } else {
        told(&mut reader, setting.server(now), now, &mut rng, (which, rest));
    }
}

/// A body is an alert with a printable incident, or malformed; over datagrams, perhaps nothing.
fn any(reader: &mut ReaderChannel, now: UnixTime, rng: &mut ChaCha20Rng, frame: &[u8]) {
    let discarded = reader.discarded();
    match reader.handle(now, rng, frame) {
        Err(Error::Alert { code, incident }) => {
            assert!(incident.len() <= INCIDENT_MAX);
            assert!(incident.bytes().all(|byte| byte.is_ascii_graphic()));
            let body = &frame[8..];
            assert_eq!(body[2..], [&[incident.len() as u8], incident.as_bytes()].concat());
            let sent = u16::from_be_bytes([body[0], body[1]]);
            assert!(code.code() == sent || code == AlertCode::Internal, "another code");
            assert_eq!(reader.handle(now, rng, frame), Err(Error::Dead));
        }
        Err(Error::Malformed(_)) => {}
        Ok(()) => assert_eq!(reader.discarded(), discarded + 1, "neither taken nor refused"),
        Err(error) => panic!("{error}"),
    }
    assert!(reader.poll_event().is_none());
}

/// What a server tells, a reader understands: code, and what fits of the incident.
fn told(
    reader: &mut ReaderChannel,
    mut server: ServerChannel,
    now: UnixTime,
    rng: &mut ChaCha20Rng,
    (which, incident): (u8, &[u8]),
) {
    let error = match which >> 1 & 3 {
        0 => Error::Unexpected,
        1 => Error::Refused(Refusal::Busy),
        2 => Error::Authentication("reader-signature"),
        _ => Error::Dead,
    };
    let incident = String::from_utf8_lossy(incident);
    server.refuse(&error, &incident);
    let Some(code) = error.alert() else {
        assert!(server.poll_transmit().is_none(), "an alert for nobody");
        return;
    };
    let frame = server.poll_transmit().expect("an alert");
    assert!(server.poll_transmit().is_none());
    let same_mode = reader.mode() == server.mode();
    match reader.handle(now, rng, &frame) {
        Err(Error::Alert { code: heard, incident: of }) => {
            assert_eq!(heard, code);
            // Only what people can be shown passes.
            let visible = incident.chars().filter(char::is_ascii_graphic);
            assert_eq!(of, visible.take(INCIDENT_MAX).collect::<String>());
        }
        // Nobody has spoken to the server, so it speaks the first of its modes.
        Err(Error::Malformed(_) | Error::Incompatible(_)) | Ok(()) if !same_mode => {}
        outcome => panic!("{outcome:?}"),
    }
}

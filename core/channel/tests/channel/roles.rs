//! The roles in the certificates are those that the configurations expect, and no others: at a
//! server that begins, towards a SAM host (C12), and at a gateway for several kinds of devices.

use std::sync::Arc;

use countersign_channel::{
    Error, LookupRefusal, Mode, ReaderChannel, ReaderConfig, ReaderEvent, Refusal, ServerChannel,
    ServerConfig, ServerEvent,
};
use countersign_crypto::rust_crypto;
use countersign_pki::{PkiError, Role};
use testkit::pair::{reader_config, server_config};
use testkit::pki::{NOW, TestPki};
use testkit::rng::seeded;

/// Runs a handshake between a party in each role; `vouched` is what the directory says.
fn run(
    mode: Mode,
    parties: (Role, Role),
    answers: Role,
    vouched: Result<&str, LookupRefusal>,
) -> Result<(), Error> {
    run_with(mode, parties, answers, vec![Role::Server], vouched)
}

/// The same with the roles that the one who answers takes.
fn run_with(
    mode: Mode,
    (begins, expected): (Role, Role),
    answers: Role,
    taken: Vec<Role>,
    vouched: Result<&str, LookupRefusal>,
) -> Result<(), Error> {
    let provider = rust_crypto::provider();
    let mut pki = TestPki::new(provider.clone(), 11);
    let first = pki.party(begins, "srv-1");
    let second = pki.party(answers, "H-1");
    let config = reader_config(&pki, &first, provider.clone());
    let server_id = Some("H-1".into());
    let config = ReaderConfig { mode, server_id, peer_role: expected, ..config };
    let answering = server_config(&pki, &second, provider);
    let answering = ServerConfig { peer_roles: taken, ..answering };
    let mut rng = seeded(3);
    let first_role = begins;
    let mut begins = ReaderChannel::new(Arc::new(config), NOW, &mut rng)?;
    let mut answers = ServerChannel::new(Arc::new(answering), &[192, 0, 2, 1], NOW);
    loop {
        let mut quiet = true;
        while let Some(bytes) = begins.poll_transmit() {
            quiet = false;
            answers.handle(NOW, &mut rng, &bytes)?;
        }
        while let Some(event) = answers.poll_event() {
            if let ServerEvent::Ask(_) = event {
                quiet = false;
                answers.peer_found(NOW, &mut rng, vouched.map(str::to_owned))?;
            }
        }
        while let Some(bytes) = answers.poll_transmit() {
            quiet = false;
            begins.handle(NOW, &mut rng, &bytes)?;
        }
        if quiet {
            break;
        }
    }
    assert!(matches!(begins.poll_event(), Some(ReaderEvent::Connected)));
    assert_eq!(begins.peer().map(|leaf| leaf.identity().role()), Some(expected));
    assert_eq!(answers.peer().map(|leaf| leaf.identity().role()), Some(first_role));
    Ok(())
}

#[test]
fn a_server_reaches_a_sam_host_and_no_other_roles_do() {
    let good = (Role::Server, Role::SamHost);
    let wrong_role = || Err(Error::from(PkiError::WrongRole));
    for mode in [Mode::C1, Mode::C2] {
        assert_eq!(run(mode, good, Role::SamHost, Ok("srv-1")), Ok(()));
        // A reader, and another SAM host, with certificates that the host's trust knows.
        for begins in [Role::Reader, Role::SamHost] {
            let result = run(mode, (begins, Role::SamHost), Role::SamHost, Ok("srv-1"));
            assert_eq!(result, wrong_role(), "{mode:?} {begins:?}");
        }
        // A reader or a server in the place of the host, under the host's id.
        for answers in [Role::Reader, Role::Server] {
            let result = run(mode, good, answers, Ok("srv-1"));
            assert_eq!(result, wrong_role(), "{mode:?} {answers:?}");
        }
    }
}

#[test]
fn a_server_that_the_host_does_not_know_is_refused() {
    let good = (Role::Server, Role::SamHost);
    let result = run(Mode::C1, good, Role::SamHost, Err(LookupRefusal::Unknown));
    assert_eq!(result, Err(Refusal::UnknownReader.into()));
    let result = run(Mode::C1, good, Role::SamHost, Ok("srv-2"));
    assert_eq!(result, Err(Refusal::ReaderIdMismatch.into()));
}

#[test]
fn a_gateway_takes_the_kinds_of_devices_that_it_serves_and_no_others() {
    let taken = || vec![Role::Reader, Role::Terminal];
    for mode in [Mode::C1, Mode::C2] {
        for device in taken() {
            let parties = (device, Role::Server);
            let result = run_with(mode, parties, Role::Server, taken(), Ok("srv-1"));
            assert_eq!(result, Ok(()), "{mode:?} {device:?}");
        }
        for device in [Role::SamHost, Role::Server] {
            let parties = (device, Role::Server);
            let result = run_with(mode, parties, Role::Server, taken(), Ok("srv-1"));
            assert_eq!(result, Err(PkiError::WrongRole.into()), "{mode:?} {device:?}");
        }
        let parties = (Role::Reader, Role::Server);
        let result = run_with(mode, parties, Role::Server, Vec::new(), Ok("srv-1"));
        assert_eq!(result, Err(PkiError::WrongRole.into()), "nobody is taken");
    }
}

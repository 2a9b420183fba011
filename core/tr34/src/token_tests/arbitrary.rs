use proptest::prelude::*;

use super::fixture::{NOW, WORLD, asked, policy, prepared, receiver};
use crate::Dialect;
use crate::krd::{Policy, State};
use crate::token::{CtKdh, CtKrd, Enveloped, KtKdh, Rebind, RtKrd, SignedData, Unbind};

/// Every parser ends on every input, and what it accepts of a request it writes again.
fn parse_as_everything(bytes: &[u8]) {
    if let Ok(token) = RtKrd::parse(bytes) {
        assert_eq!(token.encode(), bytes);
    }
    if let Ok(token) = CtKrd::parse(bytes) {
        assert_eq!(CtKrd::parse(&token.encode()), Ok(token));
    }
    if let Ok(token) = KtKdh::parse(bytes) {
        let _ = token.enveloped();
    }
    let _ = (CtKdh::parse(bytes).is_ok(), Unbind::parse(bytes).is_ok());
    let _ = (Rebind::parse(bytes).is_ok(), SignedData::parse(bytes).is_ok());
    let _ = Enveloped::parse(bytes, &mut crate::Observed::default()).is_ok();
}

proptest! {
    #[test]
    fn parsers_are_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse_as_everything(&bytes);
        let receiver = receiver(Policy::STRICT);
        prop_assert!(receiver.receive(&State::default(), &bytes, NOW).is_err());
    }

    #[test]
    fn parsers_survive_edits(
        dialect in 0..4_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let dialect = Dialect::NAMED[dialect].1;
        let receiver = receiver(policy(dialect));
        let (state, freshness) = asked(&receiver);
        let mut token = prepared(dialect, &freshness).sign(&WORLD.kdh.key).unwrap();
        let sound = token.clone();
        for (at, octet) in edits {
            let at = at.index(token.len());
            token[at] = octet;
        }
        if token != sound {
            prop_assert!(receiver.receive(&state, &token, NOW).is_err());
        }
        parse_as_everything(&token);
        token.truncate(cut.index(token.len()));
        parse_as_everything(&token);
        prop_assert!(receiver.receive(&state, &token, NOW).is_err());
    }
}

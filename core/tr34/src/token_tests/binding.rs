use std::slice;

use super::fixture::{
    CRL, DAY, Holder, LATER, NOW, WORLD, asked, crl, kdh, policy, receiver, rng, sender,
};
use crate::kdh::{Authority, Sender};
use crate::krd::{Policy, Receiver, State};
use crate::token::{CtKdh, Freshness, Nonce, RtKrd};
use crate::{Certificate, Dialect, Error, IssuerAndSerial, Leniency, RsaKey, aws_lc::AwsLc};

fn nonce(freshness: &Freshness) -> &Nonce {
    match freshness {
        Freshness::TwoPass(nonce) => nonce,
        Freshness::OnePass(_) => panic!("two passes"),
    }
}

fn own() -> &'static IssuerAndSerial {
    WORLD.krd.certificate.identity()
}

fn authority(dialect: Dialect) -> Authority<'static> {
    Authority { rsa: &AwsLc, certificate: &WORLD.ca_krd.certificate, dialect }
}

#[test]
fn a_kdh_is_bound_once_and_kept() {
    let receiver = receiver(Policy::STRICT);
    let token = sender(Dialect::STRICT).credential();
    let state = receiver.bind(&State::default(), &token, NOW).unwrap();
    assert_eq!(state.kdh(), Some(&WORLD.kdh.certificate));
    assert_eq!(state.crls().len(), 1);
    let stored = State::from_bytes(&state.to_bytes(), Leniency::STRICT).unwrap();
    assert_eq!(stored, state);
    assert_eq!(receiver.bind(&state, &token, NOW).unwrap_err(), Error::AlreadyBound);
    let unbound = receiver.request(&State::default(), &mut rng(1), NOW).unwrap_err();
    assert_eq!(unbound, Error::NotBound);
}

#[test]
fn only_a_kdh_of_a_pinned_authority_is_bound() {
    let bind = |certificate: &Certificate, crl: Option<&[u8]>, now| {
        let token = CtKdh::encode(certificate.raw(), crl, &Dialect::STRICT);
        let bound = receiver(Policy::STRICT).bind(&State::default(), &token, now);
        bound.map(|_| ()).map_err(|error| error.check())
    };
    let kdh = &WORLD.kdh.certificate;
    assert_eq!(bind(kdh, Some(&CRL), NOW), Ok(()));
    assert_eq!(bind(kdh, None, NOW), Err("crl-absent"));
    // A terminal's certificate under the same root is no KDH's (E2).
    let krd_crl = crl(&WORLD.ca_krd, 1, NOW, &[]);
    assert_eq!(bind(&WORLD.krd.certificate, Some(&krd_crl), NOW), Err("certificate-issuer"));
    assert_eq!(bind(&WORLD.ca_kdh.certificate, Some(&CRL), NOW), Err("certificate-issuer"));
    assert_eq!(bind(&LATER.1.certificate, Some(&CRL), NOW), Err("certificate-issuer"));
    assert_eq!(bind(kdh, Some(&krd_crl), NOW), Err("crl-issuer"));
    assert_eq!(
        bind(kdh, Some(&crl(&WORLD.ca_kdh, 8, NOW, &[kdh])), NOW),
        Err("certificate-revoked")
    );
    assert_eq!(bind(kdh, Some(&CRL), NOW.plus(DAY * 8)), Err("crl-expired"));
    let early = NOW.minus(DAY);
    assert_eq!(bind(kdh, Some(&CRL), early), Err("certificate-issuer-time"));
}

#[test]
fn a_terminal_of_the_same_authority_is_no_kdh() {
    // E2 allows one key to be CA_KDH and Sub_CA_KRD: then the role in the certificate decides.
    let cas = [WORLD.ca_krd.certificate.clone()];
    let receiver = Receiver { kdh_cas: &cas, ..receiver(Policy::STRICT) };
    let list = crl(&WORLD.ca_krd, 1, NOW, &[]);
    let certificate = WORLD.other_krd.certificate.raw();
    let token = CtKdh::encode(certificate, Some(&list), &Dialect::STRICT);
    let refused = receiver.bind(&State::default(), &token, NOW).unwrap_err();
    assert_eq!(refused.check(), "certificate-role");
}

#[test]
fn a_credential_with_its_list_behind_the_signers_is_of_another_dialect() {
    let token = sender(Dialect::PRINTED_2019).credential();
    let refused = receiver(Policy::STRICT).bind(&State::default(), &token, NOW).unwrap_err();
    assert_eq!(refused.check(), "dialect-crl-place");
    let printed = receiver(policy(Dialect::PRINTED_2019));
    printed.bind(&State::default(), &token, NOW).unwrap();
    let strict = sender(Dialect::STRICT).credential();
    let refused = printed.bind(&State::default(), &strict, NOW).unwrap_err();
    assert_eq!(refused.check(), "dialect-crl-place");
}

#[test]
fn a_kdh_unbinds_itself_with_the_random_number() {
    for (name, dialect) in Dialect::NAMED {
        let receiver = receiver(policy(dialect));
        let (state, freshness) = asked(&receiver);
        let make = |krd: &IssuerAndSerial, nonce: &Nonce, key: &dyn RsaKey| {
            sender(dialect).unbind(krd, nonce).unwrap().sign(key).unwrap()
        };
        let token = make(own(), nonce(&freshness), &WORLD.kdh.key);
        let unbound = receiver.unbind(&state, &token, NOW).unwrap();
        assert_eq!((unbound.kdh(), unbound.outstanding()), (None, None), "{name}");
        assert_eq!(unbound.crls().len(), 1, "the list is remembered");
        let again = receiver.unbind(&unbound, &token, NOW).unwrap_err();
        assert_eq!(again.error, Error::NotBound);

        let other = make(WORLD.other_krd.certificate.identity(), nonce(&freshness), &WORLD.kdh.key);
        let refused = receiver.unbind(&state, &other, NOW).unwrap_err();
        assert_eq!(refused.error, Error::Recipient);
        let spent = refused.state.unwrap();
        assert!(spent.kdh().is_some() && spent.outstanding().is_none());
        let stale = make(own(), &Nonce::new(&[1; 16]).unwrap(), &WORLD.kdh.key);
        let refused = receiver.unbind(&state, &stale, NOW).unwrap_err();
        assert_eq!((refused.error, refused.state), (Error::NonceMismatch, None));
        // A token of the authority is not the KDH's, nor the other way round.
        assert_eq!(receiver.rebind(&state, &token, NOW).unwrap_err().error, Error::ContentType);
        let trusting =
            Receiver { policy: Policy { ca_unbind: true, ..receiver.policy }, ..receiver };
        assert_eq!(trusting.unbind_by_ca(&state, &token, NOW).unwrap_err(), Error::ContentType);
    }
}

#[test]
fn the_old_kdh_names_the_new() {
    for (name, dialect) in Dialect::NAMED {
        let receiver = receiver(policy(dialect));
        let (state, freshness) = asked(&receiver);
        let new = kdh(&WORLD.next_kdh, &WORLD.ca_kdh);
        let prepared = sender(dialect).rebind(own(), nonce(&freshness), &new, None).unwrap();
        let token = prepared.sign(&WORLD.kdh.key).unwrap();
        let rebound = receiver.rebind(&state, &token, NOW).unwrap();
        assert_eq!(rebound.kdh(), Some(&WORLD.next_kdh.certificate), "{name}");
        assert_eq!(rebound.outstanding(), None);
        let refused = receiver.rebind(&rebound, &token, NOW).unwrap_err();
        assert_eq!(refused.error, Error::Signer, "signed by the old one");
        // In the bare form, and only there, the inner SEQUENCE has no header.
        let told = if dialect.rebind_content == Dialect::STRICT.rebind_content {
            Dialect { rebind_content: Dialect::PRINTED_2019.rebind_content, ..dialect }
        } else {
            Dialect { rebind_content: Dialect::STRICT.rebind_content, ..dialect }
        };
        let misled = Receiver { policy: policy(told), ..receiver };
        let refused = misled.rebind(&state, &token, NOW).unwrap_err();
        assert_eq!(refused.error.check(), "dialect-rebind-content");
    }
}

#[test]
fn rebinding_refuses_who_is_revoked_or_unknown_or_the_same() {
    let receiver = receiver(Policy::STRICT);
    let (state, freshness) = asked(&receiver);
    let new = kdh(&WORLD.next_kdh, &WORLD.ca_kdh);
    let list = crl(&WORLD.ca_kdh, 8, NOW, &[&WORLD.next_kdh.certificate]);
    let strict = Sender { crl: Some(&list), ..sender(Dialect::STRICT) };
    let refusal = |sender: &Sender<'_>, new: &crate::Kdh, new_crl: Option<&[u8]>| {
        let prepared = sender.rebind(own(), nonce(&freshness), new, new_crl).unwrap();
        let token = prepared.sign(&WORLD.kdh.key).unwrap();
        let refused = receiver.rebind(&state, &token, NOW).unwrap_err();
        assert_eq!(refused.state.unwrap().kdh(), Some(&WORLD.kdh.certificate));
        refused.error.check()
    };
    assert_eq!(refusal(&strict, &new, None), "certificate-revoked");
    let unpinned = kdh(&LATER.1, &LATER.0);
    assert_eq!(refusal(&sender(Dialect::STRICT), &unpinned, None), "certificate-issuer");
    let same = kdh(&WORLD.kdh, &WORLD.ca_kdh);
    let made = sender(Dialect::STRICT).rebind(own(), nonce(&freshness), &same, None);
    assert_eq!(made.unwrap_err(), Error::RebindSame);
    // To a KDH of another authority it takes that one's list.
    let cas = [WORLD.ca_kdh.certificate.clone(), LATER.0.certificate.clone()];
    let both = Receiver { kdh_cas: &cas, ..receiver };
    let rebind = |new_crl: Option<&[u8]>| {
        let strict = sender(Dialect::STRICT);
        let token = strict.rebind(own(), nonce(&freshness), &unpinned, new_crl).unwrap();
        both.rebind(&state, &token.sign(&WORLD.kdh.key).unwrap(), NOW)
    };
    assert_eq!(rebind(None).unwrap_err().error.check(), "crl-not-the-issuer");
    let list = crl(&LATER.0, 1, NOW, &[]);
    let rebound = rebind(Some(&list)).unwrap();
    assert_eq!(rebound.kdh(), Some(&LATER.1.certificate));
    assert_eq!(rebound.crls().len(), 2);
    // The old authority is unpinned; its list is remembered, or a detour would bring back an older.
    let only = Receiver { kdh_cas: slice::from_ref(&cas[1]), ..both };
    let (request, asked) = only.request(&rebound, &mut rng(9), NOW).unwrap();
    let back = RtKrd::parse(&request).unwrap().nonce;
    let later =
        Sender { certificate: &LATER.1.certificate, crl: Some(&list), ..sender(Dialect::STRICT) };
    let token = later.unbind(own(), &back).unwrap().sign(&LATER.1.key).unwrap();
    let unbound = only.unbind(&asked, &token, NOW).unwrap();
    assert_eq!(unbound.crls().len(), 2);
    let older = crl(&WORLD.ca_kdh, 6, NOW, &[]);
    let credential = CtKdh::encode(WORLD.kdh.certificate.raw(), Some(&older), &Dialect::STRICT);
    assert_eq!(both.bind(&unbound, &credential, NOW).unwrap_err().check(), "crl-older");
}

#[test]
fn the_authority_unbinds_where_that_is_allowed() {
    for (_, dialect) in Dialect::NAMED {
        let allowed = Receiver {
            policy: Policy { ca_unbind: true, ..policy(dialect) },
            ..receiver(policy(dialect))
        };
        let (state, _) = asked(&allowed);
        let make = |krd: &IssuerAndSerial, kdh: &Holder, key: &dyn RsaKey| {
            authority(dialect).unbind(krd, kdh.certificate.identity()).sign(key)
        };
        let token = make(own(), &WORLD.kdh, &WORLD.ca_krd.key).unwrap();
        let unbound = allowed.unbind_by_ca(&state, &token, NOW).unwrap();
        assert_eq!(unbound.kdh(), None);
        assert_eq!(allowed.unbind_by_ca(&unbound, &token, NOW).unwrap_err(), Error::NotBound);
        let strict = receiver(policy(dialect));
        assert_eq!(strict.unbind_by_ca(&state, &token, NOW).unwrap_err(), Error::CaUnbind);

        let refusal = |token: &[u8]| allowed.unbind_by_ca(&state, token, NOW).unwrap_err();
        let other = WORLD.other_krd.certificate.identity();
        let token = make(other, &WORLD.kdh, &WORLD.ca_krd.key).unwrap();
        assert_eq!(refusal(&token), Error::Recipient);
        let token = make(own(), &WORLD.next_kdh, &WORLD.ca_krd.key).unwrap();
        assert_eq!(refusal(&token), Error::RebindFrom);
        let mut token = make(own(), &WORLD.kdh, &WORLD.ca_krd.key).unwrap();
        let last = token.len() - 1;
        token[last] ^= 1;
        assert_eq!(refusal(&token), Error::Signature);
        // The KDH's own authority cannot, nor a stranger.
        let kdhs = Authority { certificate: &WORLD.ca_kdh.certificate, ..authority(dialect) };
        let token = kdhs.unbind(own(), WORLD.kdh.certificate.identity());
        assert_eq!(refusal(&token.sign(&WORLD.ca_kdh.key).unwrap()), Error::SignerNotCa);
    }
}

#[test]
fn the_authority_names_a_new_kdh_once() {
    for (name, dialect) in Dialect::NAMED {
        let receiver = receiver(policy(dialect));
        let (state, _) = asked(&receiver);
        let make = |krd: &IssuerAndSerial, old: &Holder, new: (&Holder, &Holder), at| {
            let new = kdh(new.0, new.1);
            let old = old.certificate.identity();
            let prepared = authority(dialect).rebind(krd, old, &new, Some(&CRL), at).unwrap();
            prepared.sign(&WORLD.ca_krd.key).unwrap()
        };
        let next = (&WORLD.next_kdh, &WORLD.ca_kdh);
        let there = make(own(), &WORLD.kdh, next, NOW);
        let rebound = receiver.rebind_by_ca(&state, &there, NOW).unwrap();
        assert_eq!(rebound.kdh(), Some(&WORLD.next_kdh.certificate), "{name}");
        let back = make(own(), &WORLD.next_kdh, (&WORLD.kdh, &WORLD.ca_kdh), NOW.plus(DAY / 1000));
        let later = NOW.plus(DAY);
        let returned = receiver.rebind_by_ca(&rebound, &back, later).unwrap();
        let refusal = |state: &State, token: &[u8]| {
            receiver.rebind_by_ca(state, token, later).unwrap_err().check()
        };
        assert_eq!(refusal(&returned, &there), "signing-time-old", "a replay");
        let ahead = make(own(), &WORLD.kdh, next, NOW.plus(DAY * 2));
        assert_eq!(refusal(&state, &ahead), "signing-time-future");
        let other = make(WORLD.other_krd.certificate.identity(), &WORLD.kdh, next, NOW);
        assert_eq!(refusal(&state, &other), "token-recipient");
        assert_eq!(refusal(&rebound, &make(own(), &WORLD.kdh, next, later)), "rebind-from");
        assert_eq!(refusal(&State::default(), &there), "not-bound");
        let unpinned = make(own(), &WORLD.kdh, (&LATER.1, &LATER.0), NOW);
        assert_eq!(refusal(&state, &unpinned), "certificate-issuer");
        assert_eq!(receiver.rebind(&state, &there, NOW).unwrap_err().error, Error::ContentType);
    }
}

#[test]
fn a_foreign_terminal_is_no_kdh_where_its_issuer_alone_decides() {
    // Without a role in it, and from the authority that issued ours, nothing tells it from ours.
    let mut certificate = WORLD.other_krd.certificate.raw().to_vec();
    let name = certificate.windows(3).position(|octets| octets == [0x55, 0x1d, 0x11]).unwrap();
    certificate[name + 2] = 0x7f;
    let cas = [WORLD.ca_krd.certificate.clone()];
    let foreign = Policy { certificates: Leniency::FOREIGN, ..Policy::STRICT };
    let receiver = Receiver { kdh_cas: &cas, ..receiver(foreign) };
    let token = CtKdh::encode(&certificate, Some(&CRL), &Dialect::STRICT);
    let refused = receiver.bind(&State::default(), &token, NOW).unwrap_err();
    assert_eq!(refused.check(), "certificate-role");
}

#[test]
fn unbinding_and_rebinding_check_all_that_a_key_token_is_checked_for() {
    let receiver = receiver(Policy::STRICT);
    let (state, freshness) = asked(&receiver);
    let new = kdh(&WORLD.next_kdh, &WORLD.ca_kdh);
    let refusals = |sender: &Sender<'_>, krd: &IssuerAndSerial, key: &dyn RsaKey, now| {
        let ubt = sender.unbind(krd, nonce(&freshness)).unwrap();
        let rbt = sender.rebind(krd, nonce(&freshness), &new, None).unwrap();
        // As another would sign it who says to be the KDH.
        let signed = |token: crate::kdh::PreparedToken| {
            token.signing.token(&key.sign(token.signing.message()).unwrap())
        };
        let refused = [
            receiver.unbind(&state, &signed(ubt), now).unwrap_err(),
            receiver.rebind(&state, &signed(rbt), now).unwrap_err(),
        ];
        assert_eq!(refused[0], refused[1]);
        let state = refused[0].state.as_deref().cloned();
        (refused[0].error.check(), state)
    };
    let (strict, key) = (sender(Dialect::STRICT), &WORLD.kdh.key);
    let without = Sender { crl: None, ..strict };
    assert_eq!(refusals(&without, own(), key, NOW), ("crl-absent", None));
    let older = crl(&WORLD.ca_kdh, 6, NOW, &[]);
    let older = Sender { crl: Some(&older), ..strict };
    assert_eq!(refusals(&older, own(), key, NOW), ("crl-older", None));
    let revoked = crl(&WORLD.ca_kdh, 8, NOW, &[&WORLD.kdh.certificate]);
    let revoked = Sender { crl: Some(&revoked), ..strict };
    let (check, remembered) = refusals(&revoked, own(), key, NOW);
    assert_eq!(check, "certificate-revoked");
    assert_ne!(remembered.unwrap().crls(), state.crls());
    assert_eq!(refusals(&strict, own(), &WORLD.next_kdh.key, NOW), ("token-signature", None));
    let late = NOW.plus(receiver.policy.nonce_lifetime + DAY / 1000);
    assert_eq!(refusals(&strict, own(), key, late), ("nonce-expired", None));
    let signature = Dialect::ERRATA_2019.signature;
    let other = Sender { dialect: Dialect { signature, ..Dialect::STRICT }, ..strict };
    assert_eq!(refusals(&other, own(), key, NOW), ("dialect-signature", None));
    let (check, spent) = refusals(&strict, WORLD.other_krd.certificate.identity(), key, NOW);
    assert_eq!(check, "token-recipient");
    let spent = spent.unwrap();
    assert_eq!((spent.kdh(), spent.outstanding()), (state.kdh(), None));
}

#[test]
fn the_authoritys_tokens_are_its_own_and_in_time() {
    let allowed = Policy { ca_unbind: true, ..Policy::STRICT };
    let receiver = receiver(allowed);
    let (state, _) = asked(&receiver);
    let new = kdh(&WORLD.next_kdh, &WORLD.ca_kdh);
    let old = WORLD.kdh.certificate.identity();
    let refusal = |token: Vec<u8>, now| {
        let unbound = receiver.unbind_by_ca(&state, &token, now).map_err(|error| error.check());
        let rebound = receiver.rebind_by_ca(&state, &token, now).map_err(|error| error.check());
        match (unbound, rebound) {
            (Err("token-content-type"), Err(check)) | (Err(check), Err("token-content-type")) => {
                check
            }
            (unbound, rebound) => panic!("{unbound:?} {rebound:?}"),
        }
    };
    let both = |authority: Authority<'_>, at| {
        let ubt = authority.unbind(own(), old);
        [ubt, authority.rebind(own(), old, &new, Some(&CRL), at).unwrap()]
    };
    let strict = authority(Dialect::STRICT);
    // They are not the KDH's.
    let [ubt, rbt] = both(strict, NOW).map(|token| token.sign(&WORLD.ca_krd.key).unwrap());
    assert_eq!(receiver.unbind(&state, &ubt, NOW).unwrap_err().error, Error::ContentType);
    assert_eq!(receiver.rebind(&state, &rbt, NOW).unwrap_err().error, Error::ContentType);
    // The KDHs' authority, and a stranger who says to be the right one.
    let kdhs = Authority { certificate: &WORLD.ca_kdh.certificate, ..strict };
    for token in both(kdhs, NOW) {
        assert_eq!(refusal(token.sign(&WORLD.ca_kdh.key).unwrap(), NOW), "token-signer-ca");
    }
    for token in both(strict, NOW) {
        let signature = WORLD.kdh.key.sign(token.signing.message()).unwrap();
        assert_eq!(refusal(token.signing.token(&signature), NOW), "token-signature");
    }
    let late = NOW.plus(DAY * 365 * 11);
    for token in both(strict, late) {
        let token = token.sign(&WORLD.ca_krd.key).unwrap();
        assert_eq!(refusal(token, late), "certificate-expired");
    }
    // They carry no list outside: nothing would say of whom it is.
    for mut token in both(strict, NOW) {
        token.signing.crl = Some(CRL.clone());
        assert_eq!(refusal(token.sign(&WORLD.ca_krd.key).unwrap(), NOW), "token-crls");
    }
    let errata = authority(Dialect::ERRATA_2019);
    for token in both(errata, NOW) {
        let check = refusal(token.sign(&WORLD.ca_krd.key).unwrap(), NOW);
        assert!(check.starts_with("dialect-"), "{check}");
    }
}

#[test]
fn a_withheld_word_of_the_authority_does_not_outlive_a_rebinding() {
    let receiver = receiver(Policy::STRICT);
    let (first, second) = (&WORLD.kdh, &WORLD.next_kdh);
    let strict = authority(Dialect::STRICT);
    let new = kdh(second, &WORLD.ca_kdh);
    let old = first.certificate.identity();
    let withheld = strict.rebind(own(), old, &new, Some(&CRL), NOW).unwrap();
    let withheld = withheld.sign(&WORLD.ca_krd.key).unwrap();
    // There and back at the KDHs' word: it is bound to the first one as it was.
    let (mut state, _) = asked(&receiver);
    let later = NOW.plus(DAY);
    for (from, to) in [(first, second), (second, first)] {
        let (request, asking) = receiver.request(&state, &mut rng(11), later).unwrap();
        let sender = Sender { certificate: &from.certificate, ..sender(Dialect::STRICT) };
        let nonce = RtKrd::parse(&request).unwrap().nonce;
        let token = sender.rebind(own(), &nonce, &kdh(to, &WORLD.ca_kdh), None).unwrap();
        state = receiver.rebind(&asking, &token.sign(&from.key).unwrap(), later).unwrap();
    }
    assert_eq!(state.kdh(), Some(&first.certificate));
    let refused = receiver.rebind_by_ca(&state, &withheld, later).unwrap_err();
    assert_eq!(refused, Error::SigningTimeOld);
    let fresh = strict.rebind(own(), old, &new, Some(&CRL), later).unwrap();
    let fresh = fresh.sign(&WORLD.ca_krd.key).unwrap();
    receiver.rebind_by_ca(&state, &fresh, later).unwrap();
}

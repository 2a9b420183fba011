//! Terminals whose KDH can sign no more: a campaign brings them back by `RBT_CA`.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_injection::Bounded;
use countersign_injection::message::{Binding, ServerMessage};
use countersign_service::{Hierarchy, Policy, RkiPolicy};
use countersign_store::{AuthorityRole, InjectionState, RebindState};
use tr34::aws_lc::AwsLc;
use tr34::kdh::Authority;
use tr34::{Certificate, Dialect, IssuerAndSerial, Kdh, RsaKey};

use crate::plant::{BITS, DAY, Plant, Pos, START, check};

/// A terminal with a key, bound to the KDH in use.
async fn served(plant: &Plant, serial: &str, key: &str) -> Pos {
    let mut pos = plant.terminal(serial, BITS).await;
    plant.assign(key, 0, serial).await;
    plant.update(&mut pos).await.unwrap();
    pos
}

async fn revoke_kdh(plant: &Plant) {
    let kdh = plant.service.hierarchy().await.unwrap().kdh_id.clone();
    let asked = plant.service.revoke_authority(&plant.asker, &kdh, "lost", None).await;
    let id = plant.agreed(asked).await;
    plant.service.revoke_authority(&plant.asker, &kdh, "lost", Some(&id)).await.unwrap();
}

async fn roll(plant: &Plant, role: AuthorityRole) {
    let id = plant.agreed(plant.service.roll_authority(&plant.asker, role, None, None).await).await;
    plant.service.roll_authority(&plant.asker, role, None, Some(&id)).await.unwrap();
}

async fn begin_rebind(plant: &Plant) {
    plant.advance(Duration::from_millis(1)); // ids sort by time
    let id = plant.agreed(plant.service.begin_rebind(&plant.asker, None).await).await;
    plant.service.begin_rebind(&plant.asker, Some(&id)).await.unwrap();
}

/// The terminal has nothing without a campaign, and with one is bound to the KDH in use and given
/// its key in the same contact.
async fn comes_back(plant: &Plant, pos: &mut Pos, key: &str, without: &str) {
    let (old, kept) = (pos.state.kdh().unwrap().raw().to_vec(), pos.slots.clone());
    let injection = plant.assign(key, 0, &pos.known.id).await;
    for _ in 0..2 {
        assert_eq!(check(plant.update(pos).await), without);
        assert_eq!(pos.state.kdh().unwrap().raw(), old);
        assert_eq!(pos.slots, kept);
        assert_eq!(plant.injection(&injection.id).await.state, InjectionState::Assigned);
        let last = plant.refusals().await.pop().unwrap();
        assert_eq!(last, ("token.request".to_owned(), without.to_owned()));
        if plant.service.hierarchy().await.is_err() {
            roll(plant, AuthorityRole::Kdh).await;
        }
    }
    begin_rebind(plant).await;
    plant.update(pos).await.unwrap();
    let hierarchy = plant.service.hierarchy().await.unwrap();
    assert_eq!(pos.state.kdh().unwrap().raw(), hierarchy.kdh.raw());
    let terminal = plant.service.terminal(&pos.known.id).await.unwrap();
    assert_eq!(terminal.bound_kdh.as_ref(), Some(&hierarchy.kdh_id));
    let stored = plant.injection(&injection.id).await;
    assert_eq!(stored.state, InjectionState::Installed);
    assert_eq!(stored.kdh_id.as_ref(), Some(&hierarchy.kdh_id));
    let campaigns = plant.service.rebinds(None, 10).await.unwrap().items;
    assert_eq!((campaigns[0].state, campaigns[0].done), (RebindState::Done, 1));
}

#[tokio::test]
async fn a_revoked_kdhs_terminal_comes_back() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    revoke_kdh(&plant).await;
    comes_back(&plant, &mut pos, &key, "kdh-revoked").await;
    // Again within the same second of the clock: the second token's time is later all the same.
    revoke_kdh(&plant).await;
    comes_back(&plant, &mut pos, &key, "kdh-revoked").await;
    let id = pos.known.id.clone();
    let last = plant.service.store().read("test", move |tx| tx.signing_time(&id));
    let (first, last) = (START.as_secs(), last.await.unwrap().unwrap().as_secs());
    assert_eq!(last, first + 1, "strictly later, whatever the clock says");
}

/// Its certificate came from a Sub_CA_KRD that has a follower: that one signs for it.
#[tokio::test]
async fn an_older_ca_krd_signs_for_those_it_certified() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    roll(&plant, AuthorityRole::CaKrd).await;
    revoke_kdh(&plant).await;
    roll(&plant, AuthorityRole::CaKdh).await;
    comes_back(&plant, &mut pos, &key, "kdh-revoked").await;
}

#[tokio::test]
async fn a_terminal_of_a_kdh_without_a_key_comes_back() {
    let mut plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    let label = format!("kdh.{}", plant.service.hierarchy().await.unwrap().kdh_id);
    plant.service.vault().unwrap().rsa_delete(&label).unwrap();
    plant.restart();
    comes_back(&plant, &mut pos, &key, "kdh-key-lost").await;
}

#[tokio::test]
async fn a_terminal_of_an_expired_kdh_comes_back() {
    let rki = RkiPolicy { kdh_validity: DAY * 30, ..RkiPolicy::default() };
    let plant = Plant::with(Policy { rki, ..Policy::default() }).await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    plant.advance(DAY * 31);
    comes_back(&plant, &mut pos, &key, "kdh-expired").await;
}

/// What a token of the authority is made of; each case alters one thing.
struct Forge<'a> {
    signer: (&'a Certificate, &'a dyn RsaKey),
    krd: &'a IssuerAndSerial,
    old: &'a IssuerAndSerial,
    crl: Option<&'a [u8]>,
    at: UnixTime,
    now: UnixTime,
}

impl<'a> Forge<'a> {
    fn new(hierarchy: &'a Hierarchy, pos: &'a Pos, plant: &Plant) -> Self {
        Self {
            signer: (&hierarchy.ca_krd, &*hierarchy.ca_krd_key),
            krd: pos.certificate.identity(),
            old: pos.state.kdh().unwrap().identity(),
            crl: Some(&hierarchy.crl),
            at: plant.service.now(),
            now: plant.service.now(),
        }
    }

    fn said(&self, hierarchy: &Hierarchy) -> ServerMessage {
        let (certificate, key) = self.signer;
        let authority = Authority { rsa: &AwsLc, certificate, dialect: Dialect::STRICT };
        let kdh = Kdh::verify(&AwsLc, hierarchy.kdh.clone(), &hierarchy.ca_kdh, self.now).unwrap();
        let token = authority.rebind(self.krd, self.old, &kdh, self.crl, self.at).unwrap();
        by_ca(&token.sign(key).unwrap(), &hierarchy.ca_kdh)
    }
}

fn by_ca(token: &[u8], ca_kdh: &Certificate) -> ServerMessage {
    let token = Bounded::new(token).unwrap();
    ServerMessage::RebindByCa(Binding { token, ca_kdh: Bounded::new(ca_kdh.raw()).unwrap() })
}

/// The terminal refuses what came in the place of `RBT_CA` under this check; nothing has changed
/// but the campaign's and the audit's record of it.
async fn refused(plant: &Plant, pos: &mut Pos, wanted: &str, instead: &ServerMessage) {
    let (state, slots) = (pos.state.kdh().unwrap().raw().to_vec(), pos.slots.clone());
    let mut swapped = false;
    let told = plant.contact(pos, |said, _| match said {
        ServerMessage::RebindByCa(_) => {
            swapped = true;
            instead.clone()
        }
        other => other,
    });
    assert_eq!(check(told.await), wanted);
    assert!(swapped, "the server sent RBT_CA");
    assert_eq!((pos.state.kdh().unwrap().raw(), &pos.slots), (&state[..], &slots), "{wanted}");
    let last = plant.refusals().await.pop().unwrap();
    assert_eq!(last, ("terminal.rebind".to_owned(), wanted.to_owned()));
    let campaigns = plant.service.rebinds(None, 1).await.unwrap().items;
    let members = plant.service.rebind_terminals(&campaigns[0].id, None, 10).await.unwrap().items;
    let own = members.iter().find(|member| member.device_id == pos.known.id).unwrap();
    assert_eq!(own.failed_check.as_deref(), Some(wanted));
}

#[tokio::test]
async fn each_defect_of_the_authoritys_token_is_refused_by_its_own_name() {
    type Alter = for<'a> fn(&mut Forge<'a>, &'a Hierarchy, &'a Pos);
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    let other = served(&plant, "POS-2", &key).await;
    revoke_kdh(&plant).await;
    roll(&plant, AuthorityRole::Kdh).await;
    begin_rebind(&plant).await;
    let hierarchy = plant.service.hierarchy().await.unwrap();
    let cases: [(&str, Alter); 5] = [
        ("token-recipient", |forge, _, other| forge.krd = other.certificate.identity()),
        ("rebind-from", |forge, hierarchy, _| forge.old = hierarchy.ca_kdh.identity()),
        ("token-signer-ca", |forge, hierarchy, _| {
            forge.signer = (&hierarchy.kdh, &*hierarchy.kdh_key);
        }),
        ("signing-time-old", |forge, _, _| forge.at = forge.at.minus(DAY)),
        ("crl-absent", |forge, _, _| forge.crl = None),
    ];
    for (wanted, alter) in cases {
        let mut forge = Forge::new(&hierarchy, &pos, &plant);
        alter(&mut forge, &hierarchy, &other);
        let said = forge.said(&hierarchy);
        refused(&plant, &mut pos, wanted, &said).await;
    }
    // A byte of the signature; then a KDH's own kind of token in the authority's place.
    let ServerMessage::RebindByCa(good) = Forge::new(&hierarchy, &pos, &plant).said(&hierarchy)
    else {
        panic!("it is made");
    };
    let mut token = good.token.as_slice().to_vec();
    *token.last_mut().unwrap() ^= 1;
    refused(&plant, &mut pos, "token-signature", &by_ca(&token, &hierarchy.ca_kdh)).await;
    let as_kdhs = ServerMessage::Rebind(good);
    refused(&plant, &mut pos, "token-content-type", &as_kdhs).await;
    // Without an alteration all is well, after so many tries.
    plant.update(&mut pos).await.unwrap();
    assert_eq!(pos.state.kdh().unwrap().raw(), hierarchy.kdh.raw());
}

#[tokio::test]
async fn the_authoritys_token_is_good_once() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = served(&plant, "POS-1", &key).await;
    let mut recorded = None;
    for replay in [false, true] {
        revoke_kdh(&plant).await;
        roll(&plant, AuthorityRole::Kdh).await;
        begin_rebind(&plant).await;
        if replay {
            let said = recorded.take().unwrap();
            refused(&plant, &mut pos, "signing-time-old", &said).await;
        }
        let record = |said: ServerMessage, _: &Pos| {
            if matches!(said, ServerMessage::RebindByCa(_)) {
                recorded = Some(said.clone());
            }
            said
        };
        plant.contact(&mut pos, record).await.unwrap();
    }
    let hierarchy = plant.service.hierarchy().await.unwrap();
    assert_eq!(pos.state.kdh().unwrap().raw(), hierarchy.kdh.raw());
}

//! Making the hierarchy, rolling it over, revoking, CRLs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_crypto::Secret;
use countersign_hsm::{MemoryStorage, StorageError, VaultStorage};
use countersign_service::{Actor, Gated, RkiStatus};
use countersign_store::{AuthorityRole, AuthorityState, Store};
use tr34::aws_lc::AwsLc;
use tr34::{Certificate, Crl};

use crate::desk::{BITS, Desk, START, check};

const DAY: Duration = Duration::from_secs(86_400);

/// A storage that fails when it is to create the n-th key, as a crash would leave it.
struct Failing {
    inner: MemoryStorage,
    left: AtomicUsize,
}

impl VaultStorage for Failing {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.inner.names()
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
        self.inner.load(name)
    }

    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(StorageError::Io(std::io::Error::other("the disk is full")));
        }
        self.left.store(left - 1, Ordering::SeqCst);
        self.inner.create(name, value)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
}

fn states(status: &RkiStatus, role: AuthorityRole) -> Vec<AuthorityState> {
    let of_role = status.authorities.iter().filter(|one| one.authority.role == role);
    of_role.map(|one| one.authority.state).collect()
}

fn active(status: &RkiStatus, role: AuthorityRole) -> String {
    let mut all = status.authorities.iter().map(|one| &one.authority);
    let found = all.find(|one| one.role == role && one.state == AuthorityState::Active);
    found.unwrap().id.clone()
}

async fn roll(desk: &Desk, role: AuthorityRole) -> RkiStatus {
    let service = &desk.service;
    let id = desk.agreed(service.roll_authority(&desk.asker, role, None, None).await).await;
    match service.roll_authority(&desk.asker, role, None, Some(&id)).await.unwrap() {
        Gated::Done(status) => status,
        Gated::Pending(_) => panic!("others have agreed"),
    }
}

#[tokio::test]
async fn without_a_hierarchy_nothing_is_done_and_the_next_command_is_named() {
    let desk = Desk::bare().await;
    let error = desk.service.hierarchy().await.err().unwrap();
    assert_eq!(error.check(), "rki-not-initialised");
    assert!(error.to_string().contains("rki init"), "{error}");
    let role = AuthorityRole::Kdh;
    assert_eq!(
        check(desk.service.roll_authority(&desk.asker, role, None, None).await),
        "rki-not-initialised"
    );
    assert_eq!(check(desk.service.init_rki(&Actor::Console, 1024).await), "key-size");
    assert_eq!(desk.service.rki_status().await.unwrap().authorities, []);
    desk.service.maintain_rki().await.unwrap();
}

#[tokio::test]
async fn a_hierarchy_that_broke_off_is_gone_on_with() {
    // The storage key, then four RSA keys: broken off before each of them.
    let store = Store::in_memory().await.unwrap();
    let keys = Arc::new(Failing { inner: MemoryStorage::new(), left: AtomicUsize::new(0) });
    for kept in 0..5 {
        let desk = Desk::over(store.clone(), keys.clone(), kept).await;
        let error = desk.service.init_rki(&Actor::Console, BITS).await.unwrap_err();
        assert_eq!(error.check(), "unavailable", "{error}");
        assert!(desk.service.hierarchy().await.is_err());
        keys.left.store(1, Ordering::SeqCst); // the next one gets one key further
    }
    let desk = Desk::over(store, keys, 9).await;
    let made = desk.service.init_rki(&Actor::Console, BITS).await.unwrap();
    for role in AuthorityRole::ALL {
        assert_eq!(states(&made, *role), [AuthorityState::Active], "{role}: once, and whole");
    }
    let again = desk.service.init_rki(&Actor::Console, 4096).await.unwrap();
    assert_eq!(again, made, "what is there stays");
    desk.service.hierarchy().await.unwrap();
}

#[tokio::test]
async fn init_after_a_revocation_makes_nothing_that_others_would_have_to_agree_to() {
    let desk = Desk::new().await;
    let kdh = active(&desk.service.rki_status().await.unwrap(), AuthorityRole::Kdh);
    let asked = desk.service.revoke_authority(&desk.asker, &kdh, "lost", None).await;
    let id = desk.agreed(asked).await;
    desk.service.revoke_authority(&desk.asker, &kdh, "lost", Some(&id)).await.unwrap();
    let status = desk.service.init_rki(&Actor::Console, BITS).await.unwrap();
    assert_eq!(states(&status, AuthorityRole::Kdh), [AuthorityState::Revoked]);
    assert_eq!(check(desk.service.hierarchy().await), "rki-no-kdh");
}

#[tokio::test]
async fn the_hierarchy_is_asked_anew_and_made_once() {
    let desk = Desk::new().await;
    let first = desk.service.hierarchy().await.unwrap();
    let second = desk.service.hierarchy().await.unwrap();
    assert!(Arc::ptr_eq(&first, &second), "nothing changed, nothing is done again");
    let crl = Crl::parse(&first.crl).unwrap();
    crl.verify(&AwsLc, &first.ca_kdh, START, None).unwrap();
    crl.admits(first.kdh.identity()).unwrap();

    roll(&desk, AuthorityRole::Kdh).await;
    let third = desk.service.hierarchy().await.unwrap();
    assert_ne!(third.kdh_id, first.kdh_id);
    assert_eq!(third.ca_kdh, first.ca_kdh);
    let old = desk.service.kdh_by_id(&first.kdh_id).await.unwrap();
    assert_eq!(old.kdh, first.kdh, "the old one is there to bind terminals away from");
    let not_a_kdh = desk.service.kdh_by_id(&first.ca_kdh_id).await;
    assert_eq!(check(not_a_kdh.map(|_| ())), "not-found");
}

#[tokio::test]
async fn nothing_is_rolled_over_without_others() {
    let desk = Desk::new().await;
    let before = desk.service.rki_status().await.unwrap();
    let (service, role) = (&desk.service, AuthorityRole::Kdh);
    let asked = service.roll_authority(&desk.asker, role, None, None).await.unwrap();
    let Gated::Pending(pending) = asked else { panic!("one operator is not enough") };
    assert!(service.roll_authority(&desk.asker, role, None, Some(&pending.id)).await.is_err());
    // Agreed to for one role, used for another, and then twice.
    let id = desk.agreed(service.roll_authority(&desk.asker, role, None, None).await).await;
    let other = AuthorityRole::CaKrd;
    assert!(service.roll_authority(&desk.asker, other, None, Some(&id)).await.is_err());
    assert_eq!(service.rki_status().await.unwrap(), before, "nothing was made");
    service.roll_authority(&desk.asker, role, None, Some(&id)).await.unwrap();
    assert!(service.roll_authority(&desk.asker, role, None, Some(&id)).await.is_err());
    let root = service.roll_authority(&desk.asker, AuthorityRole::Root, None, None).await;
    assert_eq!(check(root), "authority-role");
}

#[tokio::test]
async fn a_new_ca_kdh_brings_a_kdh_and_the_old_ones_retire() {
    let desk = Desk::new().await;
    let first = desk.service.hierarchy().await.unwrap();
    let status = roll(&desk, AuthorityRole::CaKdh).await;
    let second = desk.service.hierarchy().await.unwrap();
    assert_ne!(second.ca_kdh_id, first.ca_kdh_id);
    assert_ne!(second.kdh_id, first.kdh_id);
    second.kdh.verified_by(&AwsLc, &second.ca_kdh, START).unwrap();
    second.ca_kdh.verified_by(&AwsLc, &first.root, START).unwrap();
    // No terminal was bound to them.
    let retired = [AuthorityState::Active, AuthorityState::Retired];
    desk.service.maintain_rki().await.unwrap();
    let status = {
        drop(status);
        desk.service.rki_status().await.unwrap()
    };
    assert_eq!(states(&status, AuthorityRole::Kdh), retired);
    assert_eq!(states(&status, AuthorityRole::CaKdh), retired);
}

#[tokio::test]
async fn a_revoked_kdh_stands_on_the_crl_at_once() {
    let desk = Desk::new().await;
    let service = &desk.service;
    let first = service.hierarchy().await.unwrap();
    let before = Crl::parse(&first.crl).unwrap();
    let seen = before.verify(&AwsLc, &first.ca_kdh, START, None).unwrap();
    let revoke = |id: Option<String>| {
        let (service, asker, kdh) = (service.clone(), desk.asker.clone(), first.kdh_id.clone());
        async move { service.revoke_authority(&asker, &kdh, "token lost", id.as_deref()).await }
    };
    let id = desk.agreed(revoke(None).await).await;
    revoke(Some(id)).await.unwrap();
    let stored = service.authority_crl(&first.ca_kdh_id).await.unwrap();
    let crl = Crl::parse(stored.der.as_deref().unwrap()).unwrap();
    crl.verify(&AwsLc, &first.ca_kdh, START, Some(&seen)).unwrap();
    assert!(crl.lists(first.kdh.identity()) && !before.lists(first.kdh.identity()));
    assert_eq!(check(service.hierarchy().await), "rki-no-kdh");
    assert_eq!(check(revoke(None).await), "authority-ended");
    let ca = service.revoke_authority(&desk.asker, &first.ca_kdh_id, "x", None).await;
    assert_eq!(check(ca), "authority-role");
    let refusals = desk.refusals().await;
    let checks: Vec<_> = refusals.iter().map(|(_, check, _)| check.as_str()).collect();
    assert_eq!(checks, ["authority-ended", "authority-role"]);

    roll(&desk, AuthorityRole::Kdh).await;
    let next = service.hierarchy().await.unwrap();
    Crl::parse(&next.crl).unwrap().admits(next.kdh.identity()).unwrap();
    assert_ne!(next.kdh.identity(), first.kdh.identity());
}

#[tokio::test]
async fn crls_are_made_in_good_time_and_several_servers_agree() {
    let (store, keys) = (Store::in_memory().await.unwrap(), Arc::new(MemoryStorage::new()));
    let one = Desk::over(store.clone(), keys.clone(), 1).await;
    let two = Desk::over(store, keys, 2).await;
    one.service.init_rki(&Actor::Console, BITS).await.unwrap();
    let number = |desk: &Desk| {
        let service = desk.service.clone();
        async move {
            let id = service.hierarchy().await.unwrap().ca_kdh_id.clone();
            service.authority_crl(&id).await.unwrap().number
        }
    };
    let (first, seen) = (number(&one).await, number(&two).await);
    assert_eq!((first, seen), (1, 1));
    for desk in [&one, &two] {
        desk.advance(3 * DAY);
        desk.service.maintain_rki().await.unwrap();
    }
    assert_eq!(number(&one).await, 1, "not half of its time is over");
    for desk in [&one, &two] {
        desk.advance(DAY);
    }
    let (a, b) = tokio::join!(one.service.maintain_rki(), two.service.maintain_rki());
    assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
    let renewed = number(&one).await;
    assert!(renewed > 1, "{renewed}");
    assert_eq!(number(&two).await, renewed, "one truth");
    // Nobody looked after it: that shows, and it is made anew before it is used.
    assert_eq!(one.service.crl_health().map(|health| health.expiring), Some(false));
    one.advance(8 * DAY);
    assert_eq!(one.service.crl_health().map(|health| health.expiring), Some(true));
    let hierarchy = one.service.hierarchy().await.unwrap();
    let now = START.plus(12 * DAY);
    Crl::parse(&hierarchy.crl).unwrap().verify(&AwsLc, &hierarchy.ca_kdh, now, None).unwrap();
    assert!(number(&one).await > renewed);
}

#[tokio::test]
async fn another_vaults_keys_are_noticed() {
    let store = Store::in_memory().await.unwrap();
    let one = Desk::over(store.clone(), Arc::new(MemoryStorage::new()), 1).await;
    one.service.init_rki(&Actor::Console, BITS).await.unwrap();
    let other = Desk::over(store, Arc::new(MemoryStorage::new()), 2).await;
    assert_eq!(check(other.service.storage_key().await.map(|_| ())), "storage-key-differs");
    assert_eq!(check(other.service.hierarchy().await.map(|_| ())), "label-unknown");
    one.service.storage_key().await.unwrap();
    one.service.hierarchy().await.unwrap();
}

#[tokio::test]
async fn certificates_are_those_of_the_named_roles() {
    let desk = Desk::new().await;
    let hierarchy = desk.service.hierarchy().await.unwrap();
    let role = |certificate: &Certificate| certificate.party().map(|party| party.role());
    assert_eq!(role(&hierarchy.root), None);
    assert_eq!(role(&hierarchy.ca_krd), Some(tr34::Role::CaKrd));
    assert_eq!(role(&hierarchy.ca_kdh), Some(tr34::Role::CaKdh));
    assert_eq!(role(&hierarchy.kdh), Some(tr34::Role::Kdh));
    let done = desk.done().await;
    assert_eq!(done.iter().filter(|action| *action == "rki.make").count(), 4);
    let intents = done.iter().filter(|action| *action == "certificate.intend").count();
    assert_eq!(intents, 4, "each was intended before it was signed");
}

#[tokio::test]
async fn a_list_from_which_one_went_and_to_which_one_came_is_made_anew() {
    let desk = Desk::new().await;
    let service = &desk.service;
    let revoke = |id: String| {
        let desk = &desk;
        async move {
            let asked = desk.service.revoke_authority(&desk.asker, &id, "lost", None).await;
            let approval = desk.agreed(asked).await;
            let revoked =
                desk.service.revoke_authority(&desk.asker, &id, "lost", Some(&approval)).await;
            revoked.unwrap();
        }
    };
    let first = service.hierarchy().await.unwrap();
    desk.advance(2 * DAY);
    roll(&desk, AuthorityRole::Kdh).await;
    let second = service.hierarchy().await.unwrap();
    revoke(first.kdh_id.clone()).await;
    // The list is made just before the first one's certificate ends, and again just after it
    // another is revoked: as many are listed as before.
    let hour = Duration::from_secs(3600);
    desk.advance(first.kdh.not_after().since(service.now()) - hour);
    service.maintain_rki().await.unwrap();
    desk.advance(2 * hour);
    revoke(second.kdh_id.clone()).await;
    let stored = service.authority_crl(&second.ca_kdh_id).await.unwrap();
    let crl = Crl::parse(stored.der.as_deref().unwrap()).unwrap();
    assert!(crl.lists(second.kdh.identity()), "a revoked KDH is listed at once");
    roll(&desk, AuthorityRole::Kdh).await;
    let used = Crl::parse(&service.hierarchy().await.unwrap().crl).unwrap();
    assert!(used.lists(second.kdh.identity()));
}

use countersign_store::{Claim, IDEMPOTENCY_SWEEP_MAX, IdempotentRequest, Store, StoreError};
use tokio::task::JoinSet;

use crate::fixture::{Db, at};

fn request(key: &str, hash: u8, claim: u8) -> IdempotentRequest {
    IdempotentRequest {
        operator_id: "opr_1".to_owned(),
        key: key.to_owned(),
        hash: [hash; 32],
        claim: [claim; 16],
    }
}

async fn claim(store: &Store, request: &IdempotentRequest, now: u64, until: u64) -> Claim {
    let request = request.clone();
    let claiming = move |tx: &mut countersign_store::Tx<'_>| {
        tx.claim_idempotency(&request, at(now), at(until))
    };
    store.run_tx("claim", claiming).await.unwrap()
}

async fn answer(db: &Db, request: &IdempotentRequest, body: &[u8]) -> Result<(), StoreError> {
    let (request, body) = (request.clone(), body.to_vec());
    db.store.run_tx("answer", move |tx| tx.answer_idempotency(&request, 201, &body)).await
}

const LOST: StoreError = StoreError::Refused { check: "idempotency-claim-lost" };

pub(crate) async fn a_key_is_answered_once_and_the_same_again(db: Db) {
    let first = request("k", 1, 1);
    assert_eq!(claim(&db.store, &first, 0, 100).await, Claim::New);
    assert_eq!(claim(&db.store, &request("k", 1, 2), 50, 150).await, Claim::InFlight);
    assert_eq!(claim(&db.store, &request("k", 2, 2), 50, 150).await, Claim::OtherRequest);
    answer(&db, &first, b"{\"id\":1}").await.unwrap();
    let replay = Claim::Replay { status: 201, body: b"{\"id\":1}".to_vec() };
    for now in [60, 1_000_000] {
        assert_eq!(claim(&db.store, &request("k", 1, 3), now, now + 100).await, replay);
    }
    assert_eq!(answer(&db, &first, b"other").await, Err(LOST), "it is answered once");
    assert_eq!(claim(&db.store, &request("k", 2, 4), 70, 170).await, Claim::OtherRequest);
    // Another operator's key of the same name is another key.
    let other = IdempotentRequest { operator_id: "opr_2".to_owned(), ..request("k", 9, 5) };
    assert_eq!(claim(&db.store, &other, 0, 100).await, Claim::New);
}

pub(crate) async fn a_claim_that_ended_is_taken_over(db: Db) {
    let (first, second) = (request("k", 1, 1), request("k", 1, 2));
    assert_eq!(claim(&db.store, &first, 0, 100).await, Claim::New);
    assert_eq!(claim(&db.store, &second, 100, 200).await, Claim::New);
    assert_eq!(answer(&db, &first, b"late").await, Err(LOST), "its work is undone with this");
    // Giving up a claim that is another's by now changes nothing.
    let stale = first.clone();
    db.tx(move |tx| tx.release_idempotency(&stale)).await;
    assert_eq!(claim(&db.store, &first, 150, 250).await, Claim::InFlight);
    let held = second.clone();
    db.tx(move |tx| tx.release_idempotency(&held)).await;
    assert_eq!(claim(&db.store, &request("k", 7, 3), 150, 250).await, Claim::New);
}

pub(crate) async fn claim_and_answer_are_undone_with_their_transaction(db: Db) {
    let one = request("k", 1, 1);
    let both = one.clone();
    let undone = db.refused(move |tx| {
        assert_eq!(tx.claim_idempotency(&both, at(0), at(100))?, Claim::New);
        tx.answer_idempotency(&both, 201, b"done")?;
        Err::<(), _>(StoreError::NotFound { what: "account" })
    });
    assert_eq!(undone.await, StoreError::NotFound { what: "account" });
    assert_eq!(claim(&db.store, &one, 1, 100).await, Claim::New, "the key is free");
    let long = IdempotentRequest { key: "k".repeat(257), ..one };
    let refused = db.refused(move |tx| tx.claim_idempotency(&long, at(0), at(1))).await;
    assert_eq!(refused, StoreError::Refused { check: "text-too-long" });
}

/// Claim and answer in one transaction, by many at once: one does it, all get its answer.
pub(crate) async fn racing_requests_are_done_once(db: Db) {
    let mut racing = JoinSet::new();
    for number in 0..12_u8 {
        let store = db.store.clone();
        let one = request("k", 1, number);
        racing.spawn(async move {
            store
                .run_snapshot("create", move |tx| {
                    let claim = tx.claim_idempotency(&one, at(0), at(100))?;
                    if claim == Claim::New {
                        tx.answer_idempotency(&one, 201, &[one.claim[0]])?;
                    }
                    Ok::<_, StoreError>(claim)
                })
                .await
                .unwrap()
        });
    }
    let claims = racing.join_all().await;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::New).count(), 1);
    let replays: Vec<_> = claims.into_iter().filter(|claim| *claim != Claim::New).collect();
    assert_eq!(replays.len(), 11);
    assert!(replays.iter().all(|claim| matches!(claim, Claim::Replay { .. })), "{replays:?}");
    assert!(replays.windows(2).all(|pair| pair[0] == pair[1]), "all have the same answer");
}

pub(crate) async fn old_keys_are_swept_in_turns(db: Db) {
    let more = u64::from(IDEMPOTENCY_SWEEP_MAX) + 5;
    db.tx(move |tx| {
        for number in 0..more {
            let mut one = request(&number.to_string(), 1, 0);
            one.claim[..8].copy_from_slice(&number.to_be_bytes());
            tx.claim_idempotency(&one, at(number), at(number + 1))?;
        }
        Ok(())
    })
    .await;
    let turns = [
        db.tx(move |tx| tx.sweep_idempotency(at(more - 2))).await,
        db.tx(move |tx| tx.sweep_idempotency(at(more - 2))).await,
        db.tx(move |tx| tx.sweep_idempotency(at(more - 2))).await,
    ];
    assert_eq!(turns, [u64::from(IDEMPOTENCY_SWEEP_MAX), 3, 0]);
}

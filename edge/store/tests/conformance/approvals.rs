use countersign_store::{Approval, ApprovalState, IdKind, MAX_SUBJECT_LEN, StoreError, Vote};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, id};

async fn request(db: &Db, name: &str, needed: u32, asker: &str) -> String {
    let approval = Approval {
        id: id(IdKind::Approval, name),
        action: "key.inject".to_owned(),
        subject: "rdr_1".to_owned(),
        needed,
        requested_by: asker.to_owned(),
        created_at: at(0),
        expires_at: at(100),
        state: ApprovalState::Used, // ignored: a new approval is pending
    };
    let id = approval.id.clone();
    db.tx(move |tx| tx.insert_approval(&approval)).await;
    id
}

async fn vote(
    db: &Db,
    approval: &str,
    who: &str,
    vote: Vote,
    millis: u64,
) -> Result<ApprovalState, StoreError> {
    let (approval, who) = (approval.to_owned(), who.to_owned());
    db.store.run_tx("vote", move |tx| tx.vote(&approval, &who, vote, at(millis))).await
}

fn refused<T>(check: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Refused { check })
}

pub(crate) async fn enough_distinct_operators(db: Db) {
    let ids = [db.operator("a").await, db.operator("b").await, db.operator("c").await];
    let [asker, bob, cyd] = &ids;
    let approval = request(&db, "one", 2, asker).await;
    assert_eq!(
        vote(&db, &approval, asker, Vote::Approve, 1).await,
        refused("approval-own-request")
    );
    assert_eq!(vote(&db, &approval, bob, Vote::Approve, 2).await, Ok(ApprovalState::Pending));
    let twice = vote(&db, &approval, bob, Vote::Approve, 3).await;
    let constraint = "approval_votes_approval_id_operator_id_key".to_owned();
    assert_eq!(twice, Err(StoreError::Conflict { constraint }));
    let nobody = vote(&db, &approval, "opr_nobody", Vote::Approve, 3).await;
    assert_eq!(nobody, Err(StoreError::NotFound { what: "referenced row" }));
    let page = db.tx(|tx| tx.approvals_page(Some(ApprovalState::Pending), None, 10)).await;
    assert_eq!(page.items.len(), 1);
    assert_eq!(vote(&db, &approval, cyd, Vote::Approve, 4).await, Ok(ApprovalState::Approved));
    assert_eq!(vote(&db, &approval, cyd, Vote::Reject, 5).await, refused("approval-settled"));
    let key = approval.clone();
    let votes = db.tx(move |tx| tx.votes_on(&key)).await;
    let votes: Vec<_> = votes.iter().map(|vote| (&vote.operator_id, vote.vote, vote.at)).collect();
    assert_eq!(votes, [(bob, Vote::Approve, at(2)), (cyd, Vote::Approve, at(4))]);
    let missing = vote(&db, "apr_nothing", bob, Vote::Approve, 5).await;
    assert_eq!(missing, Err(StoreError::NotFound { what: "approval" }));
}

pub(crate) async fn objections_expiry_and_use(db: Db) {
    let (asker, bob) = (db.operator("a").await, db.operator("b").await);
    let rejected = request(&db, "rejected", 2, &asker).await;
    assert_eq!(vote(&db, &rejected, &bob, Vote::Reject, 1).await, Ok(ApprovalState::Rejected));

    let late = request(&db, "late", 1, &asker).await;
    assert_eq!(vote(&db, &late, &bob, Vote::Approve, 100).await, Ok(ApprovalState::Expired));
    assert_eq!(vote(&db, &late, &bob, Vote::Approve, 50).await, Ok(ApprovalState::Expired));

    let good = request(&db, "good", 1, &asker).await;
    assert_eq!(vote(&db, &good, &bob, Vote::Approve, 99).await, Ok(ApprovalState::Approved));
    let consume = |id: &str, subject: &'static str, by: &str, millis| {
        let (store, id, by) = (db.store.clone(), id.to_owned(), by.to_owned());
        async move {
            let used = store.run_tx("use", move |tx| {
                tx.use_approval(&id, "key.inject", subject, &by, at(millis))
            });
            used.await
        }
    };
    assert_eq!(consume(&good, "rdr_2", &asker, 99).await, refused("approval-not-usable"));
    assert_eq!(consume(&good, "rdr_1", &asker, 100).await, refused("approval-not-usable"));
    assert_eq!(consume(&good, "rdr_1", &bob, 99).await, refused("approval-not-usable"));
    assert_eq!(consume(&rejected, "rdr_1", &asker, 99).await, refused("approval-not-usable"));
    let key = asker.clone();
    let live = db.tx(move |tx| tx.live_approval("key.inject", "rdr_1", &key, at(99))).await;
    assert_eq!(live.map(|approval| approval.id), Some(good.clone()));
    assert_eq!(consume(&good, "rdr_1", &asker, 99).await, Ok(()));
    assert_eq!(consume(&good, "rdr_1", &asker, 99).await, refused("approval-not-usable"));
    let key = asker.clone();
    let live = db.tx(move |tx| tx.live_approval("key.inject", "rdr_1", &key, at(99))).await;
    assert_eq!(live, None, "neither the used nor the rejected nor the expired one");

    // Who was disabled since counts no more: who agreed, and who asked.
    let cyd = db.operator("c").await;
    let two = request(&db, "two", 1, &asker).await;
    assert_eq!(vote(&db, &two, &cyd, Vote::Approve, 1).await, Ok(ApprovalState::Approved));
    db.tx(move |tx| tx.disable_operator(&cyd, at(2))).await;
    assert_eq!(consume(&two, "rdr_1", &asker, 99).await, refused("approval-not-usable"));
    let gone = db.operator("d").await;
    let three = request(&db, "three", 1, &gone).await;
    assert_eq!(vote(&db, &three, &bob, Vote::Approve, 1).await, Ok(ApprovalState::Approved));
    let name = gone.clone();
    db.tx(move |tx| tx.disable_operator(&name, at(2))).await;
    assert_eq!(consume(&three, "rdr_1", &gone, 99).await, refused("approval-not-usable"));
    let lapsed = db.tx(|tx| tx.expire_approvals(at(100), 10)).await;
    assert_eq!(lapsed.len(), 2);

    let open = request(&db, "open", 1, &asker).await;
    let key = asker.clone();
    assert_eq!(db.tx(move |tx| tx.count_live_approvals(&key)).await, 1);
    assert_eq!(db.tx(|tx| tx.expire_approvals(at(99), 10)).await, []);
    assert_eq!(db.tx(|tx| tx.expire_approvals(at(100), 0)).await, []);
    let expired = db.tx(|tx| tx.expire_approvals(at(100), 10)).await;
    assert_eq!(expired, [(open.clone(), "key.inject".to_owned())]);
    assert_eq!(db.tx(move |tx| tx.count_live_approvals(&asker)).await, 0);
    let found = db.tx(move |tx| tx.approval_by_id(&open)).await.unwrap();
    assert_eq!(found.state, ApprovalState::Expired);

    let none = Approval { needed: 0, id: "apr_none".to_owned(), ..found.clone() };
    let error = db.refused(move |tx| tx.insert_approval(&none)).await;
    assert_eq!(error, StoreError::Refused { check: "approval-needed" });
    let subject = "x".repeat(MAX_SUBJECT_LEN);
    let longest = Approval { subject, id: "apr_long".to_owned(), ..found };
    let mut longer = longest.clone();
    db.tx(move |tx| tx.insert_approval(&longest)).await;
    longer.subject.push('x');
    let error = db.refused(move |tx| tx.insert_approval(&longer)).await;
    assert_eq!(error, StoreError::Refused { check: "approval-subject-length" });
}

pub(crate) async fn racing_votes_count_each_once(db: Db) {
    const VOTERS: usize = 6;
    let asker = db.operator("asker").await;
    let approval = request(&db, "raced", VOTERS as u32, &asker).await;
    let mut voters = Vec::new();
    for number in 0..VOTERS {
        voters.push(db.operator(&format!("voter {number}")).await);
    }
    let mut tasks = JoinSet::new();
    for voter in voters {
        let (store, approval) = (db.store.clone(), approval.clone());
        tasks.spawn(async move {
            let voted =
                store.run_tx("vote", move |tx| tx.vote(&approval, &voter, Vote::Approve, at(1)));
            voted.await
        });
    }
    let states: Vec<_> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    let approved = states.iter().filter(|state| **state == ApprovalState::Approved).count();
    assert_eq!((approved, states.len()), (1, VOTERS), "exactly the last vote approves");
}

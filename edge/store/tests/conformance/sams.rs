use countersign_store::{SamDrain, StoreError};

use crate::fixture::{Db, at};

fn drain(sam_id: &str, reason: &str) -> SamDrain {
    SamDrain {
        sam_id: sam_id.to_owned(),
        reason: reason.to_owned(),
        actor: "opr_1".to_owned(),
        at: at(5),
    }
}

pub(crate) async fn drains_are_kept_by_module_until_they_are_removed(db: Db) {
    assert_eq!(db.tx(|tx| tx.sam_drains()).await, []);
    for (id, reason) in [("05.03-2", "moved"), ("05.03-1", "old"), ("05.03-2", "broken")] {
        db.tx(move |tx| tx.put_sam_drain(&drain(id, reason))).await;
    }
    let kept = [drain("05.03-1", "old"), drain("05.03-2", "broken")];
    assert_eq!(db.tx(|tx| tx.sam_drains()).await, kept, "by id, with the latest reason");
    assert!(db.tx(|tx| tx.remove_sam_drain("05.03-1")).await);
    assert!(!db.tx(|tx| tx.remove_sam_drain("05.03-1")).await, "it was not there any more");
    assert_eq!(db.tx(|tx| tx.sam_drains()).await, kept[1..]);
    let long = drain("05.03-3", &"x".repeat(300));
    let refused = db.store.run_tx("long", move |tx| tx.put_sam_drain(&long)).await;
    assert_eq!(refused, Err(StoreError::Refused { check: "text-too-long" }));
}

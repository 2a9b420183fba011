use countersign_store::{IdKind, Role, Roles, StoreError, Token};

use crate::fixture::{Db, at, id, operator};

fn token(operator_id: &str, number: u8) -> Token {
    Token {
        id: id(IdKind::Token, &number.to_string()),
        operator_id: operator_id.to_owned(),
        hash: [number; 32],
        label: format!("token {number}"),
        created_at: at(0),
        expires_at: None,
        revoked_at: None,
    }
}

pub(crate) async fn operators_and_their_names(db: Db) {
    let ada = db.operator("ada").await;
    db.operator("bob").await;
    let found = db.tx(|tx| tx.operator_by_name("ada")).await;
    assert_eq!(found, Some(operator("ada")));
    assert_eq!(db.tx(|tx| tx.operator_by_name("Ada")).await, None);

    let custodian: Roles = [Role::Custodian].into_iter().collect();
    let key = ada.clone();
    db.tx(move |tx| {
        tx.set_operator_roles(&key, custodian)?;
        tx.disable_operator(&key, at(5))?;
        tx.disable_operator(&key, at(9))
    })
    .await;
    let found = db.tx(move |tx| tx.operator_by_id(&ada)).await.unwrap();
    assert_eq!((found.roles, found.disabled_at), (custodian, Some(at(5))));

    let nobody = db.refused(|tx| tx.disable_operator("opr_nobody", at(0))).await;
    assert_eq!(nobody, StoreError::NotFound { what: "operator" });

    let first = db.tx(|tx| tx.operators_page(None, 1)).await;
    let cursor = first.next.clone();
    let second = db.tx(move |tx| tx.operators_page(cursor.as_deref(), 1)).await;
    assert_eq!((first.items.len(), second.items.len(), second.next), (1, 1, None));
    assert_ne!(first.items, second.items);
    let none = db.refused(|tx| tx.operators_page(None, 0)).await;
    assert_eq!(none, StoreError::Refused { check: "page-limit" });
}

pub(crate) async fn tokens_live_and_die(db: Db) {
    let ada = db.operator("ada").await;
    let (plain, mut expiring) = (token(&ada, 1), token(&ada, 2));
    expiring.expires_at = Some(at(100));
    let tokens = [plain.clone(), expiring.clone()];
    db.tx(move |tx| tokens.iter().try_for_each(|token| tx.insert_token(token))).await;

    let live =
        |number: u8, millis| db.tx(move |tx| tx.owner_of_live_token(&[number; 32], at(millis)));
    let owner = live(1, 50).await.unwrap();
    assert_eq!((owner.token_id, owner.operator), (plain.id.clone(), operator("ada")));
    assert!(live(2, 99).await.is_some());
    assert!(live(2, 100).await.is_none(), "expired");
    assert!(live(3, 50).await.is_none(), "unknown");

    let key = plain.id.clone();
    db.tx(move |tx| tx.revoke_token(&key, at(60))).await;
    assert!(live(1, 50).await.is_none(), "revoked");
    assert!(live(2, 50).await.is_some());
    let key = ada.clone();
    let listed = db.tx(move |tx| tx.tokens_of(&key)).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|token| token.revoked_at == Some(at(60))));

    let key = ada.clone();
    db.tx(move |tx| tx.disable_operator(&key, at(70))).await;
    assert!(live(2, 50).await.is_none(), "operator disabled");

    let mut twin = token(&ada, 1);
    twin.id.push('x');
    let error = db.refused(move |tx| tx.insert_token(&twin)).await;
    assert_eq!(error, StoreError::Conflict { constraint: "tokens_hash_key".to_owned() });
    let orphan = token("opr_nobody", 9);
    let error = db.refused(move |tx| tx.insert_token(&orphan)).await;
    assert_eq!(error, StoreError::NotFound { what: "referenced row" });
}

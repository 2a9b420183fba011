//! Personal tokens of operators, stored hashed.

use countersign_crypto::UnixTime;

use crate::operators::{OPERATOR_WIDTH, operator};
use crate::value::check_texts;
use crate::{Operator, Row, StoreError, Tx};

/// Most tokens [`Tx::tokens_of`] returns: the newest.
pub const MAX_TOKENS_LISTED: u32 = 200;

/// A token's record; the token itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// `tok_…`.
    pub id: String,
    /// Whose it is.
    pub operator_id: String,
    /// Hash of the token (the suite's). The token is long and random, so a plain hash suffices, and
    /// looking it up by hash tells by its timing nothing about any token.
    pub hash: [u8; 32],
    /// What its owner calls it.
    pub label: String,
    /// When it was made.
    pub created_at: UnixTime,
    /// From when on it no longer works, if ever.
    pub expires_at: Option<UnixTime>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixTime>,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOwner {
    /// The token's id.
    pub token_id: String,
    /// Its operator, with roles.
    pub operator: Operator,
}

fn token(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.text(0)?.to_owned(),
        operator_id: row.text(1)?.to_owned(),
        hash: row.array(2)?,
        label: row.text(3)?.to_owned(),
        created_at: row.time(4)?,
        expires_at: row.opt_time(5)?,
        revoked_at: row.opt_time(6)?,
    })
}

impl Tx<'_> {
    /// Inserts a token.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `tokens_hash_key`; [`StoreError::NotFound`] for no such operator;
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn insert_token(&mut self, token: &Token) -> Result<(), StoreError> {
        check_texts([token.id.as_str(), &token.label])?;
        self.execute(
            "INSERT INTO tokens
                 (id, operator_id, hash, label, created_at, expires_at, revoked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                (&token.id).into(),
                (&token.operator_id).into(),
                (&token.hash).into(),
                (&token.label).into(),
                token.created_at.into(),
                token.expires_at.into(),
                token.revoked_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The operator of the token with this hash, if the token is neither expired at `now` nor
    /// revoked and the operator is not disabled. Why not is deliberately not said.
    ///
    /// # Errors
    /// What the database answers.
    pub fn owner_of_live_token(
        &mut self,
        hash: &[u8; 32],
        now: UnixTime,
    ) -> Result<Option<TokenOwner>, StoreError> {
        let row = self.query_one(
            "SELECT o.id, o.name, o.roles, o.created_at, o.disabled_at, t.id
             FROM tokens t JOIN operators o ON o.id = t.operator_id
             WHERE t.hash = ?1 AND t.revoked_at IS NULL AND o.disabled_at IS NULL
               AND (t.expires_at IS NULL OR t.expires_at > ?2)",
            &[hash.into(), now.into()],
        )?;
        row.map(|row| {
            Ok(TokenOwner {
                token_id: row.text(OPERATOR_WIDTH)?.to_owned(),
                operator: operator(&row)?,
            })
        })
        .transpose()
    }

    /// An operator's tokens, newest first, at most [`MAX_TOKENS_LISTED`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn tokens_of(&mut self, operator_id: &str) -> Result<Vec<Token>, StoreError> {
        let rows = self.query(
            "SELECT id, operator_id, hash, label, created_at, expires_at, revoked_at
             FROM tokens WHERE operator_id = ?1 ORDER BY id DESC LIMIT ?2",
            &[operator_id.into(), MAX_TOKENS_LISTED.into()],
        )?;
        rows.iter().map(token).collect()
    }

    /// Revokes a token. Revoking again keeps the first time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn revoke_token(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, ?2) WHERE id = ?1";
        self.change_one("token", sql, &[id.into(), now.into()])
    }
}

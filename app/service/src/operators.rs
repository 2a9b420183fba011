use countersign_crypto::UnixTime;
use countersign_store::{
    AuditEntry, IdKind, MAX_PAGE, Operator, Page, Role, Roles, StoreError, Token, WebhookStatus,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{Actor, Service, ServiceError, done};

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// What every token starts with, so that scanners can find lost ones.
const TOKEN_PREFIX: &str = "cst_";
/// Length of every token in characters: the prefix, and the random bytes in base64.
const TOKEN_LEN: usize = TOKEN_PREFIX.len() + (TOKEN_BYTES * 8).div_ceil(6);
/// Why the webhooks of an operator that was disabled are.
const DISABLED: &str = "operator-disabled";
/// Longest operator name or token label, in characters.
const NAME_MAX: usize = 64;

/// A token as it is shown once.
pub struct NewToken {
    /// `tok_…`, to revoke it by.
    pub id: String,
    /// The token itself; only its hash is kept.
    pub secret: Zeroizing<String>,
}

/// Whether a text can be a token at all: what cannot is refused without asking the database.
pub(crate) fn is_token_shaped(text: &str) -> bool {
    text.len() == TOKEN_LEN && text.starts_with(TOKEN_PREFIX)
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let printable = |c: char| !c.is_control();
    if name.is_empty() || name.chars().count() > NAME_MAX || !name.chars().all(printable) {
        let detail = format!("a name has 1 to {NAME_MAX} printable characters");
        return Err(ServiceError::refused("name-format", detail));
    }
    Ok(())
}

fn refuse_taken(error: StoreError) -> ServiceError {
    match error {
        StoreError::Conflict { constraint } if constraint == "operators_name_key" => {
            ServiceError::refused("operator-name-taken", "an operator with this name exists")
        }
        other => other.into(),
    }
}

impl Service {
    /// Makes an operator and a first token.
    ///
    /// # Errors
    /// `name-format`, `roles-empty`, `operator-name-taken`.
    pub async fn add_operator(
        &self,
        actor: &Actor,
        name: &str,
        roles: &[Role],
    ) -> Result<(Operator, NewToken), ServiceError> {
        check_name(name)?;
        if roles.is_empty() {
            return Err(ServiceError::refused("roles-empty", "an operator needs a role"));
        }
        let now = self.now();
        let operator = Operator {
            id: self.new_id(IdKind::Operator),
            name: name.to_owned(),
            roles: roles.iter().copied().collect::<Roles>(),
            created_at: now,
            disabled_at: None,
        };
        let (token, new) = self.make_token(&operator.id, "first", now);
        let stored = operator.clone();
        let entry = done(now, actor, "operator.add", &operator.id);
        self.store
            .run_tx("add_operator", move |tx| {
                tx.insert_operator(&stored).map_err(refuse_taken)?;
                tx.insert_token(&token)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok((operator, new))
    }

    fn make_token(&self, operator_id: &str, label: &str, now: UnixTime) -> (Token, NewToken) {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        self.rng().fill_bytes(&mut *bytes);
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes));
        let secret = Zeroizing::new(format!("{TOKEN_PREFIX}{}", *text));
        let token = Token {
            id: self.new_id(IdKind::Token),
            operator_id: operator_id.to_owned(),
            hash: self.authority.provider.hash.hash(&[secret.as_bytes()]),
            label: label.to_owned(),
            created_at: now,
            expires_at: None,
            revoked_at: None,
        };
        let new = NewToken { id: token.id.clone(), secret };
        (token, new)
    }

    /// Makes another token for the operator of this name.
    ///
    /// # Errors
    /// `name-format` for the label; [`ServiceError::NotFound`].
    pub async fn add_token(
        &self,
        actor: &Actor,
        name: &str,
        label: &str,
    ) -> Result<NewToken, ServiceError> {
        check_name(label)?;
        let operator = self.operator_named(name).await?;
        let now = self.now();
        let (token, new) = self.make_token(&operator.id, label, now);
        let entry = done(now, actor, "token.add", &token.id);
        self.store
            .run_tx("add_token", move |tx| {
                tx.insert_token(&token)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(new)
    }

    async fn operator_named(&self, name: &str) -> Result<Operator, ServiceError> {
        let name = name.to_owned();
        self.store
            .read("operator_by_name", move |tx| tx.operator_by_name(&name))
            .await?
            .ok_or(ServiceError::NotFound { what: "operator" })
    }

    /// Disables an operator: all its tokens stop working, and its webhooks are told nothing more
    /// until somebody enables them.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn disable_operator(&self, actor: &Actor, name: &str) -> Result<(), ServiceError> {
        let operator = self.operator_named(name).await?;
        let now = self.now();
        let (entry, actor) = (done(now, actor, "operator.disable", &operator.id), actor.clone());
        self.store
            .run_tx("disable_operator", move |tx| {
                tx.disable_operator(&operator.id, now)?;
                tx.append_audit(&entry)?;
                let hooks = tx.webhooks_page(Some(&operator.id), None, MAX_PAGE)?.items;
                for hook in hooks.iter().filter(|hook| hook.status == WebhookStatus::Active) {
                    tx.set_webhook_status(&hook.id, WebhookStatus::Disabled, Some(DISABLED), now)?;
                    let detail = json!({ "reason": DISABLED }).to_string();
                    let entry = done(now, &actor, "webhook.disable", &hook.id);
                    tx.append_audit(&AuditEntry { detail, ..entry })?;
                }
                Ok::<_, ServiceError>(())
            })
            .await
    }

    /// Revokes one token.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn revoke_token(&self, actor: &Actor, id: &str) -> Result<(), ServiceError> {
        let now = self.now();
        let entry = done(now, actor, "token.revoke", id);
        let id = id.to_owned();
        self.store
            .run_tx("revoke_token", move |tx| {
                tx.revoke_token(&id, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await
    }

    /// Operators, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn operators(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Operator>, ServiceError> {
        self.store
            .read("operators_page", move |tx| Ok(tx.operators_page(cursor.as_deref(), limit)?))
            .await
    }
}

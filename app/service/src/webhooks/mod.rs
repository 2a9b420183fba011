//! Webhooks: whoever waits for payments is told (D6), also while nobody asks.
//!
//! An event is stored in the transaction in which it happens, spread to the webhooks that want it,
//! and delivered at least once: `deliver` claims, tries, and tries again later. `message` is what
//! is sent, `address` where it may be sent to.

mod address;
mod deliver;
mod message;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use countersign_crypto::{Mac, Secret};
use countersign_store::{
    AuditEntry, Delivery, IdKind, Page, Role, WEBHOOK_TYPES_MAX, Webhook, WebhookStatus,
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::devices::check_reason;
use crate::{Actor, Scope, Service, ServiceError, done};

pub use deliver::{ATTEMPT_TIME, ATTEMPTS_MAX, RETRY_AFTER};
pub use message::{EVENT_SOURCE, EVENT_TYPE_PREFIX, WebhookRequest};

/// Longest type of an event, in characters.
const TYPE_MAX: usize = 64;

/// What webhooks may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookPolicy {
    /// Addresses of private networks and this machine's own: for receivers within one's network,
    /// and for tests.
    pub allow_private: bool,
    /// Plain HTTP.
    pub allow_http: bool,
}

/// Why a request got no answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookFailure {
    /// No connection.
    Connect,
    /// The receiver's certificate, or its TLS, is not acceptable.
    Tls,
    /// What came is not an HTTP answer within bounds.
    Answer,
}

/// A boxed future, so that the client can be a trait object.
pub type WebhookFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Speaks to receivers. It holds no opinion: what may be reached, and for how long, is decided
/// here.
pub trait WebhookClient: Send + Sync {
    /// All addresses of a host's name.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> WebhookFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Sends a request to exactly this address, with the host of its URL as the name in TLS and
    /// HTTP, and returns the status of the answer. Follows no redirect; reads no body.
    fn post<'a>(
        &'a self,
        request: &'a WebhookRequest,
        address: SocketAddr,
    ) -> WebhookFuture<'a, Result<u16, WebhookFailure>>;
}

/// What webhooks need.
#[derive(Clone)]
pub struct Webhooks {
    /// What they may reach.
    pub policy: WebhookPolicy,
    /// Speaks to receivers.
    pub client: Arc<dyn WebhookClient>,
    /// HMAC-SHA256, whatever the suite.
    pub mac: Arc<dyn Mac>,
}

/// A webhook that was registered, with the secret that is shown once.
pub struct RegisteredWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// `whsec_…`: verifies what it is sent.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for RegisteredWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegisteredWebhook").field("id", &self.webhook.id).finish_non_exhaustive()
    }
}

/// Whose webhooks an actor sees: `Some` only its own. An integrator sees only the payments that it
/// asked for, so its webhooks hear of no others either.
fn only_own(actor: &Actor) -> Option<&str> {
    match actor {
        Actor::Operator(operator) if operator.roles.iter().all(|role| role == Role::Integrator) => {
            Some(&operator.id)
        }
        _ => None,
    }
}

/// `payment.executed`, or `payment.*` for all of a kind.
fn check_types(types: &[String]) -> Result<(), ServiceError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._".contains(&c);
    let fits = |kind: &String| {
        let name = kind.strip_suffix(".*").unwrap_or(kind);
        !name.is_empty() && kind.len() <= TYPE_MAX && name.bytes().all(allowed)
    };
    if types.len() <= WEBHOOK_TYPES_MAX && types.iter().all(fits) {
        return Ok(());
    }
    let detail = format!(
        "a type of event is written payment.executed, or payment.* for a group; at most \
         {WEBHOOK_TYPES_MAX} of them"
    );
    Err(ServiceError::refused("webhook-types", detail))
}

impl Service {
    /// The same with webhooks.
    #[must_use]
    pub fn with_webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    fn webhooks_or_refuse(&self) -> Result<&Webhooks, ServiceError> {
        let detail = "this server has no webhooks".to_owned();
        self.webhooks.as_ref().ok_or(ServiceError::Unavailable { detail })
    }

    /// Registers a receiver. `types` names the events that it wants; empty: all that its operator
    /// may see.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `webhook-url`, `webhook-url-scheme`, `webhook-address-…`,
    /// `webhook-types`, `webhooks-full`; [`ServiceError::Unavailable`] without a vault.
    pub async fn register_webhook(
        &self,
        actor: &Actor,
        url: &str,
        types: &[String],
    ) -> Result<RegisteredWebhook, ServiceError> {
        let registered = self.register_one_webhook(actor, url, types).await;
        if let Err(error) = &registered {
            self.refused_operator(actor, "webhook.register", "webhook", error).await;
        }
        registered
    }

    async fn register_one_webhook(
        &self,
        actor: &Actor,
        url: &str,
        types: &[String],
    ) -> Result<RegisteredWebhook, ServiceError> {
        actor.require(Scope::WebhooksManage)?;
        let parsed = address::parse(&self.webhooks_or_refuse()?.policy, url)?;
        check_types(types)?;
        let fill = |out: &mut [u8]| -> Result<(), ServiceError> {
            self.rng().fill_bytes(out);
            Ok(())
        };
        let secret = Secret::try_filled(message::SECRET_BYTES, fill)?;
        let (now, id) = (self.now(), self.new_id(IdKind::Webhook));
        let webhook = Webhook {
            url: parsed.to_string(),
            types: types.to_vec(),
            own_only: only_own(actor).is_some(),
            secret: self.seal_hmac(&id, &secret).await?,
            status: WebhookStatus::Active,
            status_reason: None,
            created_by: actor.id().to_owned(),
            created_at: now,
            updated_at: now,
            id,
        };
        // Not the whole URL: receivers put tokens into theirs.
        let host = parsed.host_str().unwrap_or_default();
        let detail = json!({ "host": host, "types": webhook.types }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "webhook.register", &webhook.id) };
        let stored = webhook.clone();
        self.store
            .run_tx("register_webhook", move |tx| {
                tx.insert_webhook(&stored)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(RegisteredWebhook { webhook, secret: message::shown(&secret) })
    }

    /// Webhooks that are not removed, oldest first; an integrator's own.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `page-limit`, `page-cursor`.
    pub async fn webhooks(
        &self,
        actor: &Actor,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Webhook>, ServiceError> {
        actor.require(Scope::WebhooksRead)?;
        let by = only_own(actor).map(str::to_owned);
        self.store
            .read("webhooks_page", move |tx| {
                Ok(tx.webhooks_page(by.as_deref(), cursor.as_deref(), limit)?)
            })
            .await
    }

    /// One webhook. An integrator finds its own only.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`].
    pub async fn webhook(&self, actor: &Actor, id: &str) -> Result<Webhook, ServiceError> {
        actor.require(Scope::WebhooksRead)?;
        let (by, id) = (only_own(actor), id.to_owned());
        let found = self.store.read("webhook", move |tx| tx.webhook(&id)).await?;
        found
            .filter(|webhook| webhook.status != WebhookStatus::Removed)
            .filter(|webhook| by.is_none_or(|by| webhook.created_by == by))
            .ok_or(ServiceError::NotFound { what: "webhook" })
    }

    /// Disables a webhook: nothing is delivered until it is enabled again.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `reason-length`.
    pub async fn disable_webhook(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<Webhook, ServiceError> {
        let changed = async {
            check_reason(reason)?;
            self.set_webhook(actor, id, WebhookStatus::Disabled, Some(reason)).await
        };
        self.or_audited(actor, "webhook.disable", id, changed.await).await
    }

    /// Enables a webhook again; what waits for it is delivered.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`].
    pub async fn enable_webhook(&self, actor: &Actor, id: &str) -> Result<Webhook, ServiceError> {
        let changed = self.set_webhook(actor, id, WebhookStatus::Active, None).await;
        self.or_audited(actor, "webhook.enable", id, changed).await
    }

    /// Removes a webhook for good and erases its secret.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`].
    pub async fn remove_webhook(&self, actor: &Actor, id: &str) -> Result<Webhook, ServiceError> {
        let changed = self.set_webhook(actor, id, WebhookStatus::Removed, None).await;
        self.or_audited(actor, "webhook.remove", id, changed).await
    }

    async fn or_audited<T>(
        &self,
        actor: &Actor,
        action: &'static str,
        id: &str,
        result: Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        if let Err(error) = &result {
            self.refused_operator(actor, action, id, error).await;
        }
        result
    }

    async fn set_webhook(
        &self,
        actor: &Actor,
        id: &str,
        status: WebhookStatus,
        reason: Option<&str>,
    ) -> Result<Webhook, ServiceError> {
        actor.require(Scope::WebhooksManage)?;
        self.webhook(actor, id).await?;
        let action = match status {
            WebhookStatus::Active => "webhook.enable",
            WebhookStatus::Disabled => "webhook.disable",
            WebhookStatus::Removed => "webhook.remove",
        };
        let (now, id, reason) = (self.now(), id.to_owned(), reason.map(str::to_owned));
        let detail = json!({ "reason": reason }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, action, &id) };
        self.store
            .run_tx("set_webhook_status", move |tx| {
                tx.set_webhook_status(&id, status, reason.as_deref(), now)?;
                tx.append_audit(&entry)?;
                tx.webhook(&id)?.ok_or(ServiceError::NotFound { what: "webhook" })
            })
            .await
    }

    /// Deliveries to a webhook, newest first.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn deliveries(
        &self,
        actor: &Actor,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Delivery>, ServiceError> {
        self.webhook(actor, id).await?;
        let id = id.to_owned();
        self.store
            .read("deliveries_page", move |tx| {
                Ok(tx.deliveries_page(&id, cursor.as_deref(), limit)?)
            })
            .await
    }

    /// Has a delivery tried again at once, whatever came of it.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `webhook-not-active`,
    /// `delivery-under-way`.
    pub async fn resend_delivery(&self, actor: &Actor, id: &str) -> Result<Delivery, ServiceError> {
        let resent = self.resend_one_delivery(actor, id).await;
        self.or_audited(actor, "webhook.resend", id, resent).await
    }

    async fn resend_one_delivery(&self, actor: &Actor, id: &str) -> Result<Delivery, ServiceError> {
        actor.require(Scope::WebhooksManage)?;
        let absent = ServiceError::NotFound { what: "delivery" };
        let wanted = id.to_owned();
        let found = self.store.read("delivery", move |tx| tx.delivery(&wanted)).await?;
        let webhook = found.ok_or(absent.clone())?.webhook_id;
        self.webhook(actor, &webhook).await.map_err(|_| absent)?;
        let (now, id) = (self.now(), id.to_owned());
        let entry = done(now, actor, "webhook.resend", &id);
        let delivery = self
            .store
            .run_tx("resend_delivery", move |tx| {
                let delivery = tx.resend_delivery(&id, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(delivery)
            })
            .await?;
        self.store.bus().publish(&[countersign_store::Notice::events()]);
        Ok(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_names_or_groups_of_names() {
        let types = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).into()).collect() };
        for good in [&[][..], &["payment.executed"], &["payment.*", "security_device.blocked"]] {
            assert_eq!(check_types(&types(good)), Ok(()), "{good:?}");
        }
        let many = vec!["a"; WEBHOOK_TYPES_MAX + 1];
        let long = "a".repeat(TYPE_MAX + 1);
        for bad in
            [&[""][..], &["*"], &[".*"], &["a,b"], &["A"], &["a*"], &["a b"], &[&long], &many]
        {
            assert_eq!(check_types(&types(bad)).unwrap_err().check(), "webhook-types", "{bad:?}");
        }
    }
}

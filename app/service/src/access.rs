//! Who acts, and what roles allow.

use countersign_store::{Operator, Role};
use zeroize::Zeroizing;

use crate::operators::is_token_shaped;
use crate::{Service, ServiceError};

/// What an API call may need (interfaces.md, Operators).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// See readers.
    ReadersRead,
    /// Enrol readers.
    ReadersEnrol,
    /// Block and unblock readers, revoke certificates.
    ReadersBlock,
    /// Tell how readers were made, what is reported against them and what was paid at them.
    ReadersReport,
    /// See reads. Never their content: that is not kept.
    ReadsRead,
    /// See metrics.
    MetricsRead,
    /// See SAM modules and the hosts that have such.
    SamsRead,
    /// Take SAM modules out of service and put them back; enrol, block and revoke SAM hosts.
    SamsManage,
    /// See terminals, the injection hierarchy, injections and runs.
    TerminalsRead,
    /// Allow, block, unbind and revoke terminals.
    TerminalsManage,
    /// See keys and key-encrypting keys; never their values.
    KeysRead,
    /// Ask for what needs approval: make, take in, inject and retire keys; roll the hierarchy over.
    KeysManage,
    /// Enter a component of a key-encrypting key.
    ComponentsEnter,
    /// See approvals.
    ApprovalsRead,
    /// Vote on approvals.
    ApprovalsVote,
    /// See payments, their timelines, receipts and evidence.
    PaymentsRead,
    /// Ask for payments and cancel those that one asked for.
    PaymentsCreate,
    /// Cancel any payment, refund and reverse.
    PaymentsManage,
    /// See accounts and their postings.
    AccountsRead,
    /// Open, freeze and close accounts; post to them by hand.
    AccountsManage,
    /// See security devices and payers' phones.
    SecurityDevicesRead,
    /// Enrol, block and revoke security devices and payers' phones.
    SecurityDevicesManage,
    /// See webhooks and their deliveries.
    WebhooksRead,
    /// Register and remove webhooks; deliver again.
    WebhooksManage,
    /// See sleeves and managers, and the alarms that were raised.
    WalletsRead,
    /// Enrol, block and revoke sleeves and managers.
    WalletsManage,
}

impl Scope {
    /// The name in errors and in the OpenAPI document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadersRead => "readers:read",
            Self::ReadersEnrol => "readers:enrol",
            Self::ReadersBlock => "readers:block",
            Self::ReadersReport => "readers:report",
            Self::ReadsRead => "reads:read",
            Self::MetricsRead => "metrics:read",
            Self::SamsRead => "sams:read",
            Self::SamsManage => "sams:manage",
            Self::TerminalsRead => "terminals:read",
            Self::TerminalsManage => "terminals:manage",
            Self::KeysRead => "keys:read",
            Self::KeysManage => "keys:manage",
            Self::ComponentsEnter => "components:enter",
            Self::ApprovalsRead => "approvals:read",
            Self::ApprovalsVote => "approvals:vote",
            Self::PaymentsRead => "payments:read",
            Self::PaymentsCreate => "payments:create",
            Self::PaymentsManage => "payments:manage",
            Self::AccountsRead => "accounts:read",
            Self::AccountsManage => "accounts:manage",
            Self::SecurityDevicesRead => "security-devices:read",
            Self::SecurityDevicesManage => "security-devices:manage",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksManage => "webhooks:manage",
            Self::WalletsRead => "wallets:read",
            Self::WalletsManage => "wallets:manage",
        }
    }

    const fn allowed_to(self, role: Role) -> bool {
        match role {
            Role::Admin => true,
            Role::Custodian => {
                !matches!(self, Self::MetricsRead | Self::PaymentsCreate | Self::PaymentsManage)
            }
            Role::Approver => matches!(
                self,
                Self::ReadersRead
                    | Self::TerminalsRead
                    | Self::KeysRead
                    | Self::ApprovalsRead
                    | Self::ApprovalsVote
                    | Self::PaymentsRead
                    | Self::AccountsRead
                    | Self::SecurityDevicesRead
            ),
            Role::Auditor => matches!(
                self,
                Self::ReadersRead
                    | Self::ReadsRead
                    | Self::MetricsRead
                    | Self::SamsRead
                    | Self::TerminalsRead
                    | Self::KeysRead
                    | Self::ApprovalsRead
                    | Self::PaymentsRead
                    | Self::AccountsRead
                    | Self::SecurityDevicesRead
                    | Self::WebhooksRead
                    | Self::WalletsRead
            ),
            Role::Integrator => !matches!(
                self,
                Self::ReadersBlock
                    | Self::SamsManage
                    | Self::TerminalsManage
                    | Self::KeysManage
                    | Self::ComponentsEnter
                    | Self::ApprovalsVote
                    | Self::PaymentsManage
                    | Self::AccountsRead
                    | Self::AccountsManage
                    | Self::SecurityDevicesRead
                    | Self::SecurityDevicesManage
                    // Who is under duress is not a shop's business.
                    | Self::WalletsRead
                    | Self::WalletsManage
            ),
        }
    }
}

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An operator with a token.
    Operator(Operator),
    /// The person at the machine, with the data directory in hand.
    Console,
    /// A device, by its id.
    Device(String),
    /// The program itself.
    System,
}

impl Actor {
    /// The id in audit rows.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Operator(operator) => &operator.id,
            Self::Console => "console",
            Self::Device(id) => id,
            Self::System => "system",
        }
    }

    /// Refuses an actor without `scope`.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub fn require(&self, scope: Scope) -> Result<(), ServiceError> {
        let allowed = match self {
            Self::Operator(operator) => operator.roles.iter().any(|role| scope.allowed_to(role)),
            Self::Console | Self::System => true,
            Self::Device(_) => false,
        };
        if allowed { Ok(()) } else { Err(ServiceError::Forbidden { scope: scope.name() }) }
    }
}

impl Service {
    /// The operator whose token this is, if the token is live and allows `scope`.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] or [`ServiceError::Forbidden`].
    pub async fn authorise(&self, token: &str, scope: Scope) -> Result<Actor, ServiceError> {
        if !is_token_shaped(token) {
            return Err(ServiceError::Unauthenticated);
        }
        let token = Zeroizing::new(token.as_bytes().to_vec());
        let hash = self.authority.provider.hash.hash(&[&token]);
        let now = self.now();
        let owner = self
            .store
            .read("authorise", move |tx| tx.owner_of_live_token(&hash, now))
            .await?
            .ok_or(ServiceError::Unauthenticated)?;
        let actor = Actor::Operator(owner.operator);
        match actor.require(scope) {
            Ok(()) => Ok(actor),
            Err(error) => {
                self.refused_operator(&actor, "api.refuse", scope.name(), &error).await;
                Err(error)
            }
        }
    }
}

//! Use cases: who may do what, and what is stored and audited when it is done.
//!
//! [`Service`] joins the store, the CA ([`Authority`]), the SAM pool and the policy. Each use case
//! is a method: it decides, stores the decision with its audit row in one transaction, and only
//! then acts. [`ReadSession`] is one reader's connection, message by message.
//!
//! Absent on purpose: HTTP types, sockets, protocol bytes other than what core machines hand over,
//! the ambient clock and generator (they come in with [`Ambient`]).
#![forbid(unsafe_code)]

mod access;
mod alarms;
mod approvals;
mod audit;
mod authority;
mod codes;
mod devices;
mod error;
mod injections;
mod keys;
mod operators;
mod payers;
mod payments;
mod read_session;
mod reads;
mod refusals;
mod risk;
mod rki;
mod sam;
mod sam_hosts;
mod wallet;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};
use countersign_idcard::server::ReadPolicy;
use countersign_net::Clock;
use countersign_store::{AuditEntry, AuditOutcome, IdKind, Store, new_id};

pub use access::{Actor, Scope};
pub use alarms::{
    ALARM_NAME_MAX, ALARM_WORK, ALARMS_PER_WINDOW, ALARMS_WINDOW, NewAlarm, RaisedAlarm,
};
pub use approvals::{ApprovalPolicy, ApprovalRecord, Gated, LIVE_APPROVALS_MAX};
pub use authority::{Authority, ENCRYPTION_KEY_NAME};
pub use codes::{EnrolmentCode, WRONG_FROM_SOURCE_MAX, WRONG_WINDOW};
pub use devices::{Enrolled, KnownDevice};
pub use error::ServiceError;
pub use injections::{
    ASSIGN_MAX, AssignKey, AssignTo, Assigned, INJECTIONS, InjectionSession, Reconciled, RunReport,
    TOKENS_PER_WINDOW, TOKENS_WINDOW,
};
pub use keys::{
    ExportKey, Exported, ImportKey, KekRecord, KeyToMake, KeyToSend, Ksn, NewKek, NewKsn,
};
pub use operators::NewToken;
pub use payers::{
    AllowedPhone, EnrolledJoint, EnrolledOcra, EnrolledPhone, EnrolledSigner, PUSHES_TAKEN_MAX,
    PhoneActor, PhoneDevice, PhoneProof, PushIds, SIGNER_LABEL_MAX, SessionKey, SignerToEnrol,
};
pub use payments::{
    Answered, Checkout, CheckoutView, JointAnswer, JointTerms, Money, NewAccount, NewPayment,
    NewPosting, Once, PAYMENT_SWEEP_EVERY, PaymentAnswer, PaymentPolicy, Refunded, RejectReason,
    Settled, WAIT_MAX,
};
pub use read_session::{Answer, ReadEnded, ReadSession};
pub use risk::*;
pub use rki::{
    AllowedTerminal, AuthorityStatus, BoundAnswer, CrlHealth, EnrolledTerminal, Hierarchy,
    OlderKdh, Rebind, RkiPolicy, RkiStatus, STORAGE_KEY_LABEL, Terminal, TerminalRequest,
    WRONG_CODES_MAX,
};
pub use sam::{
    FLAP_WINDOW, FLAPS_MAX, HEALTH_EVERY, LEASE_MAX, LEASE_WAIT, LEASE_WAIT_SECONDS,
    PER_READER_HELD_MAX, PER_READER_MAX, PING_EVERY, PROBATION, Promise, QUARANTINE_FIRST,
    QUARANTINE_MAX, QUEUE_MAX, READY_WAIT, SAM_HOST_SESSION_MAX, SamConnector, SamFailure,
    SamHealth, SamHostConnector, SamHostRefused, SamLease, SamListed, SamModule, SamPool, SamPort,
    SamState, SamTally, SamUnavailable,
};
pub use sam_hosts::vouch_for_sam_host;
pub use wallet::{
    RELAY_BYTES, RELAY_KEEP_EVERY, RELAY_MEETS, RELAY_PLACE_TIME, RELAY_PRESENT, Relay,
    RelayBroken, RelaySession,
};
pub use webhooks::{
    ATTEMPT_TIME, ATTEMPTS_MAX, EVENT_SOURCE, EVENT_TYPE_PREFIX, RETRY_AFTER, RegisteredWebhook,
    WebhookClient, WebhookFailure, WebhookFuture, WebhookPolicy, WebhookRequest, Webhooks,
};

/// Where time and randomness come from. The server hands in the real ones, a test its own.
#[derive(Clone)]
pub struct Ambient {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Makes a generator for one use.
    pub rng: Arc<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>,
}

/// What the operators decided once, in `config.toml`.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How reads go; C13's plaintext cache is off unless this turns it on.
    pub read: ReadPolicy,
    /// How long a device certificate holds.
    pub certificate_validity: Duration,
    /// The rules over each reader and the bound of its reads (C5); by default the bound only.
    pub risk: RiskRules,
    /// How many operators must agree to what changes keys (E4).
    pub approvals: ApprovalPolicy,
    /// How long certificates, CRLs and codes of key injection hold.
    pub rki: RkiPolicy,
    /// How payments are confirmed.
    pub payments: PaymentPolicy,
    /// What sleeves and managers may use of the relay.
    pub relay: countersign_wallet::relay::Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            read: ReadPolicy::default(),
            certificate_validity: Duration::from_secs(365 * 86_400),
            risk: RiskRules::default(),
            approvals: ApprovalPolicy::default(),
            rki: RkiPolicy::default(),
            payments: PaymentPolicy::default(),
            relay: countersign_wallet::relay::Limits::default(),
        }
    }
}

/// All use cases, over one store. Cheap to share in an [`Arc`].
pub struct Service {
    store: Store,
    authority: Authority,
    sams: SamPool,
    policy: Policy,
    ambient: Ambient,
    refusals: refusals::Refusals,
    checkpoint_lost: AtomicBool,
    rki: rki::Rki,
    payments: payments::Payments,
    wrong_codes: codes::WrongCodes,
    ciphers: Option<Arc<dyn tr31::Ciphers>>,
    webhooks: Option<Webhooks>,
    relay: Relay,
}

impl Service {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        store: Store,
        authority: Authority,
        sams: SamPool,
        policy: Policy,
        ambient: Ambient,
    ) -> Self {
        let refusals = refusals::Refusals::default();
        let checkpoint_lost = AtomicBool::new(false);
        let rki = rki::Rki::default();
        let payments = payments::Payments::new(&store, &authority, &policy, &ambient);
        let relay = Relay::new(policy.relay, &authority.server_id, &mut *(ambient.rng)());
        Self {
            store,
            authority,
            sams,
            policy,
            ambient,
            refusals,
            checkpoint_lost,
            rki,
            payments,
            wrong_codes: codes::WrongCodes::default(),
            ciphers: None,
            webhooks: None,
            relay,
        }
    }

    /// The store, for health checks and metrics.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The CA and the keys.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The SAM pool, for health checks and metrics.
    #[must_use]
    pub const fn sams(&self) -> &SamPool {
        &self.sams
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.ambient.clock.now()
    }

    /// A generator for one use.
    #[must_use]
    pub fn rng(&self) -> Box<dyn CryptoRng + Send> {
        (self.ambient.rng)()
    }

    /// The clock, for connections.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.ambient.clock.clone()
    }

    fn new_id(&self, kind: IdKind) -> String {
        new_id(kind, self.now(), &mut *self.rng())
    }
}

/// An audit entry of something that was done.
fn done(at: UnixTime, actor: &Actor, action: &str, subject: &str) -> AuditEntry {
    AuditEntry {
        at,
        actor: actor.id().to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        outcome: AuditOutcome::Done,
        check: None,
        incident: None,
        detail: "{}".to_owned(),
    }
}

//! SQLite and PostgreSQL behind one [`Store`].
//!
//! The store keeps what must survive a process or be seen by several: operators and their
//! tokens, approvals, devices and certificates, reads, the audit. Work is done in named
//! transactions: [`Store::run_tx`] takes a closure over a [`Tx`], runs it on a database thread,
//! retries it where that can help, and returns after the commit is durable.
//!
//! - Uniqueness (idempotency, once-only) is the database's, never a check beforehand.
//! - One SQL text serves both databases; what differs is in `dialect.rs`.
//! - Time and randomness are arguments. The only clock read is for metrics.
//!
//! Absent on purpose: the content of ID cards, tokens in the clear, private keys.

mod accounts;
mod approvals;
mod audit;
mod authorities;
mod bus;
mod certificates;
mod decisions;
mod devices;
mod dialect;
mod error;
mod events;
mod faults;
mod id;
mod idempotency;
mod injections;
mod job;
mod keks;
mod keys;
mod ksn;
mod leases;
mod ledger;
mod names;
mod operators;
mod page;
mod payments;
mod phone_proofs;
mod phones;
mod postgres;
mod postings;
mod pushes;
mod reader_record;
mod reads;
mod rebinds;
mod risk;
mod runs;
mod sams;
mod schema;
mod security_devices;
mod server_keys;
mod sqlite;
mod stats;
mod store;
mod terminals;
mod tokens;
mod tx;
mod value;
mod wallets;
mod webhooks;

pub use accounts::{Account, AccountKind, AccountStatus};
pub use approvals::{
    Approval, ApprovalState, ApprovalVote, MAX_SUBJECT_LEN, MAX_VOTES_NEEDED, Vote,
};
pub use audit::*;
pub use authorities::{
    AUTHORITIES_MAX, AuthorityRole, AuthorityState, HierarchyPulse, KeyAuthority, Listed, StoredCrl,
};
pub use bus::{Bus, BusState, Listener, NOTICES_MAX, Notice, Topic};
pub use certificates::{Certificate, CertificateIntent, CertificateState};
pub use decisions::{DecisionEnd, RiskAction, RiskDecision};
pub use devices::{Device, DeviceKind, DeviceRecord, DeviceStatus, RuleBlock};
pub use dialect::Column;
pub use error::StoreError;
pub use events::{EVENT_DATA_MAX, EVENTS_KEPT, EVENTS_SWEEP_MAX, Event, SPREAD_MAX};
pub use faults::Fault;
pub use id::{IdKind, MAX_ID_LEN, new_id};
pub use idempotency::{Claim, IDEMPOTENCY_KEPT, IDEMPOTENCY_SWEEP_MAX, IdempotentRequest};
pub use injections::{
    Assignment, Injection, InjectionFilter, InjectionState, KeyIntent, TokenIntent, TokenKind,
};
pub use keks::{HeldKek, Kek, KekComponent, KekState, MAX_COMPONENTS};
pub use keys::{Key, KeyOrigin, KeyRecord, KeyScope, KeyState, KeyValue, KsnSeries};
pub use leases::CLOCKS_DIFFER;
pub use ledger::{FINDINGS_MAX, LedgerFinding, TrialBalance};
pub use operators::{Operator, Role, Roles};
pub use page::{MAX_PAGE, Page};
pub use payments::{
    ANSWERS_MAX, AccountFreeze, AnswerContext, AnswerKey, AnswerOutcome, Authorisation,
    LockedAnswers, Outcomes, Payment, PaymentChange, PaymentFilter, PaymentRecord, SignerChange,
    TimelineRow, ToVerify,
};
pub use phone_proofs::PHONE_PROOFS_SWEEP_MAX;
pub use phones::{PHONES_PER_ACCOUNT_MAX, Phone, PhoneRecord, PhoneState, SESSION_KEY_LEN};
pub use postings::{Entry, Posting, PostingKind};
pub use pushes::{PhonePayment, Push};
pub use reader_record::{Factory, ReaderCount, Report, Transaction};
pub use reads::{BegunRead, Read, ReadEnd, ReadStart, ReadState};
pub use rebinds::{RebindCampaign, RebindProgress, RebindState, RebindTerminal};
pub use risk::{
    EndingRead, ReaderGate, ReaderMeter, RiskEvent, RiskKind, RiskNoted, RiskRow, RiskWatch,
    Throttle,
};
pub use runs::{InjectionRun, RUN_TERMINALS_MAX, RunKey, RunRow, RunState, Unexpected};
pub use sams::SamDrain;
pub use schema::SCHEMA_VERSION;
pub use security_devices::{BOUND_ACCOUNTS_MAX, BoundAccount, SignMethod, SignerRecord, SignerRow};
pub use stats::TxStats;
pub use store::{QUEUE_LEN, Store};
pub use terminals::{KrdCertificate, TerminalRecord, TerminalRow, TerminalState};
pub use tokens::{MAX_TOKENS_LISTED, Token, TokenOwner};
pub use tx::{MAX_QUERY_ROWS, Tx};
pub use value::{MAX_TEXT_LEN, MAX_VALUE_LEN, Row, Value};
pub use wallets::{RELAY_ADDRESS_MAX, RelayPlace, WALLET_CHANGES_MAX, WalletAlarm};
pub use webhooks::{
    AttemptEnd, CLAIM_MAX, Delivery, DeliveryState, DueDelivery, OWN_WEBHOOKS_MAX, PER_WEBHOOK_MAX,
    WEBHOOK_TYPES_MAX, WEBHOOK_URL_MAX, WEBHOOKS_MAX, Webhook, WebhookStatus,
};

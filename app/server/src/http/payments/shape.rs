//! What payments look like: pain.001's names, pain.002's codes beside our states.

use std::time::Duration;

use countersign_payment::ConfirmationRequest;
use countersign_service::NewPayment;
use countersign_store::{PaymentRecord, Posting as StoredPosting, TimelineRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::json::timestamp;
use super::super::money::Money;

/// An account.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccountIdentification)]
pub(in super::super) struct Identified {
    /// Its number: 4 to 34 of A-Z 0-9, for instance an IBAN.
    #[schema(example = "PAYER0001")]
    pub(in super::super) identification: String,
}

impl Identified {
    pub(in super::super) fn of(number: impl ToString) -> Self {
        Self { identification: number.to_string() }
    }
}

/// A party.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PartyName)]
pub(in super::super) struct Named {
    /// Its name.
    #[schema(example = "Tea Shop")]
    name: String,
}

impl Named {
    pub(in super::super) fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

/// A payment that is asked for (D1).
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PaymentRequest)]
pub(in super::super) struct Ask {
    /// The initiating terminal's reference.
    #[schema(example = "ORDER-7")]
    end_to_end_identification: String,
    /// How much.
    instructed_amount: Money,
    /// The account that pays.
    debtor_account: Identified,
    /// The account that is paid.
    creditor_account: Identified,
    /// The payee, as the payer is to see it.
    creditor: Named,
    /// The order: what is paid for, as the payer is to see it.
    #[schema(example = "Order 7: 2 teas")]
    remittance_information: String,
    /// Who asks, as the payer is to see it.
    initiating_party: Named,
    /// Until when it can be confirmed, in seconds from now; the server has its own default.
    #[serde(default)]
    #[schema(example = 300)]
    expires_in: Option<u32>,
}

impl From<Ask> for NewPayment {
    fn from(ask: Ask) -> Self {
        Self {
            end_to_end_id: ask.end_to_end_identification,
            amount: ask.instructed_amount.into(),
            payer: ask.debtor_account.identification,
            payee: ask.creditor_account.identification,
            payee_name: ask.creditor.name,
            order: ask.remittance_information,
            initiating_party: ask.initiating_party.name,
            expires_in: ask.expires_in.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }
}

/// A payment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Payment {
    /// `pay_…`.
    id: String,
    /// `created`, `pending`, `approved`, `executing`, `executed`, `rejected`, `expired`, `failed`,
    /// `cancelled` or `execution_failed`.
    #[schema(example = "pending")]
    status: &'static str,
    /// The same in pain.002's codes: `RCVD`, `PDNG`, `ACCP`, `ACSP`, `ACSC`, `CANC` or `RJCT`.
    #[schema(example = "PDNG")]
    transaction_status: &'static str,
    /// The initiating terminal's reference.
    end_to_end_identification: String,
    /// How much.
    instructed_amount: Money,
    /// The account that pays.
    debtor_account: Identified,
    /// The account that is paid.
    creditor_account: Identified,
    /// The payee, as the payer sees it.
    creditor: Named,
    /// The order, as the payer sees it.
    remittance_information: String,
    /// Who asked, as the payer sees it.
    initiating_party: Named,
    /// What the payer is warned of: `new-payee`, `payee-name-differs`.
    alerts: Vec<String>,
    /// Why it ended as it did; null if there is nothing to say.
    #[schema(required, example = "insufficient-funds")]
    status_reason: Option<String>,
    /// Under which incident the audit has it.
    #[schema(required)]
    incident: Option<String>,
    /// How much of it was given back.
    refunded_amount: Money,
    /// One more, or a few, with every change: what `version` in the query is compared with.
    version: i64,
    /// The operator that asked for it.
    created_by: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when it can be confirmed.
    #[schema(format = DateTime)]
    expires_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<&PaymentRecord> for Payment {
    fn from(record: &PaymentRecord) -> Self {
        let PaymentRecord { payment, payer, payee } = record;
        // The payee's name stands where it is signed, and nowhere else.
        let name = ConfirmationRequest::parse(&payment.request).map(|signed| signed.payee_name);
        Self {
            id: payment.id.clone(),
            status: payment.state.name(),
            transaction_status: payment.state.iso20022(),
            end_to_end_identification: payment.end_to_end_id.clone(),
            instructed_amount: Money::of(payment.amount, &payment.currency),
            debtor_account: Identified { identification: payer.number.clone() },
            creditor_account: Identified { identification: payee.number.clone() },
            creditor: Named { name: name.unwrap_or_default() },
            remittance_information: payment.order_text.clone(),
            initiating_party: Named { name: payment.initiating_party.clone() },
            alerts: payment.alerts.clone(),
            status_reason: payment.reason.clone(),
            incident: payment.incident.clone(),
            refunded_amount: Money::of(payment.refunded, &payment.currency),
            version: payment.version,
            created_by: payment.created_by.clone(),
            created_at: timestamp(payment.created_at),
            expires_at: timestamp(payment.expires_at),
            updated_at: timestamp(payment.updated_at),
        }
    }
}

impl From<PaymentRecord> for Payment {
    fn from(record: PaymentRecord) -> Self {
        Self::from(&record)
    }
}

/// A state that a payment went through.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct TimelineEntry {
    /// Its place: rising, not without gaps.
    number: i64,
    /// The state.
    #[schema(example = "executed")]
    status: &'static str,
    /// The same in pain.002's codes.
    #[schema(example = "ACSC")]
    transaction_status: &'static str,
    /// Who brought it about: an operator, a phone, `system`.
    actor: String,
    /// Why; null if there is nothing to say.
    #[schema(required)]
    reason: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<TimelineRow> for TimelineEntry {
    fn from(row: TimelineRow) -> Self {
        Self {
            number: row.number,
            status: row.state.name(),
            transaction_status: row.state.iso20022(),
            actor: row.actor,
            reason: row.reason,
            at: timestamp(row.at),
        }
    }
}

/// A posting: what one account lost, another got.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Posting {
    /// `pst_…`.
    id: String,
    /// `payment`, `refund`, `reversal` or `manual`.
    #[schema(example = "refund")]
    kind: &'static str,
    /// What it is posted for, once.
    reference: String,
    /// The payment that it belongs to; null if to none.
    #[schema(required)]
    payment_id: Option<String>,
    /// The account that lost the amount, `acc_…`.
    debit_account_id: String,
    /// The account that got it, `acc_…`.
    credit_account_id: String,
    /// How much.
    amount: Money,
    /// Who posted it.
    actor: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<&StoredPosting> for Posting {
    fn from(posting: &StoredPosting) -> Self {
        Self {
            id: posting.id.clone(),
            kind: posting.kind.name(),
            reference: posting.reference.clone(),
            payment_id: posting.payment_id.clone(),
            debit_account_id: posting.debit_account.clone(),
            credit_account_id: posting.credit_account.clone(),
            amount: Money::of(posting.amount, &posting.currency),
            actor: posting.actor.clone(),
            at: timestamp(posting.at),
        }
    }
}

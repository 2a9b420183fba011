//! The payer's account, where an answer says more of it than how much it pays.

use countersign_payment::machine::RejectReason;
use countersign_store::{AccountFreeze, AccountStatus, AuditEntry, Event, IdKind, PaymentRecord};
use serde_json::json;

use super::{Desk, Rows};
use crate::{Actor, done};

/// What operators' webhooks are told.
const FROZEN: &str = "account.frozen";

impl Rows {
    /// The payer did not start this: whoever did may try again, so nothing leaves the account until
    /// an operator has looked. One that is frozen or closed stays as it is.
    pub(super) fn freeze(
        &mut self,
        desk: &mut Desk<'_>,
        record: &mut PaymentRecord,
        actor: &Actor,
    ) {
        let (payment, account) = (&record.payment.id, &mut record.payer);
        if account.status != AccountStatus::Open {
            return;
        }
        let reason = format!("the payer did not start {payment}");
        account.status = AccountStatus::Frozen;
        account.status_reason = Some(reason.clone());
        account.updated_at = desk.now;
        let detail = json!({ "reason": RejectReason::NotMine.name(), "payment": payment });
        let entry = done(desk.now, actor, "account.freeze", &account.id);
        self.out.audit.push(AuditEntry { detail: detail.to_string(), ..entry });
        self.out.events.push(Event {
            id: (desk.new_id)(IdKind::Event),
            kind: FROZEN.to_owned(),
            subject: account.id.clone(),
            owner: None,
            data: json!({
                "account": account.id,
                "number": account.number,
                "reason": RejectReason::NotMine.name(),
                "payment": payment,
            })
            .to_string(),
            at: desk.now,
        });
        let account_id = account.id.clone();
        self.out.freezes.push(AccountFreeze { account_id, reason, at: desk.now });
    }
}

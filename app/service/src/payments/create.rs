use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::{
    AccountNumber, Amount, ConfirmationRequest, Currency, NAME_MAX, ORDER_MAX, State, machine, text,
};
use countersign_store::{
    Account, AccountStatus, AuditEntry, IdKind, Notice, Payment, PaymentRecord, Topic, Tx,
};
use serde_json::json;

use super::once::{Once, Settled};
use super::settle;
use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest end-to-end identification, as in ISO 20022 (Max35Text).
const END_TO_END_MAX: usize = 35;

/// The payee's name in the request is not the one that its account has.
const ALERT_NAME_DIFFERS: &str = "payee-name-differs";
/// Nothing was paid from this payer to this payee before.
const ALERT_NEW_PAYEE: &str = "new-payee";
/// The check of a payee's account that is not here; a payer's has its own.
const PAYEE_UNKNOWN: &str = "payee-unknown";

/// An amount as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Decimal, such as `12.34`.
    pub amount: String,
    /// ISO 4217, such as `CNY`.
    pub currency: String,
}

impl Money {
    pub(super) fn parse(&self) -> Result<Amount, ServiceError> {
        Ok(Amount::parse(&self.amount, &self.currency)?)
    }
}

/// What an initiating terminal sends (D1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// The initiator's own name for it, 1 to 35 characters.
    pub end_to_end_id: String,
    /// How much.
    pub amount: Money,
    /// Number of the account that pays.
    pub payer: String,
    /// Number of the account that is paid.
    pub payee: String,
    /// Who is paid, as the initiator says.
    pub payee_name: String,
    /// What for: the order.
    pub order: String,
    /// Who asks for the payment.
    pub initiating_party: String,
    /// How long it can be confirmed; by default as the policy says.
    pub expires_in: Option<Duration>,
}

/// What an initiating terminal sent, each field checked.
struct Checked {
    amount: Amount,
    payer: AccountNumber,
    payee: AccountNumber,
    new: NewPayment,
}

impl From<countersign_payment::PaymentError> for ServiceError {
    fn from(error: countersign_payment::PaymentError) -> Self {
        Self::refused(error.check(), error.to_string())
    }
}

/// Whether two names are the same but for case and spaces.
fn same_name(one: &str, other: &str) -> bool {
    let words =
        |name: &str| -> Vec<String> { name.split_whitespace().map(str::to_lowercase).collect() };
    words(one) == words(other)
}

impl NewPayment {
    fn check(&self) -> Result<Checked, ServiceError> {
        text::check("endToEndIdentification", &self.end_to_end_id, END_TO_END_MAX)?;
        text::check("payeeName", &self.payee_name, NAME_MAX)?;
        text::check("order", &self.order, ORDER_MAX)?;
        text::check("initiator", &self.initiating_party, NAME_MAX)?;
        let amount = self.amount.parse()?;
        let payer = AccountNumber::parse(&self.payer)?;
        let payee = AccountNumber::parse(&self.payee)?;
        if payer == payee {
            return Err(ServiceError::refused("same-account", "an account does not pay itself"));
        }
        Ok(Checked { amount, payer, payee, new: self.clone() })
    }
}

/// An open account of this currency.
pub(super) fn fit(
    account: Option<Account>,
    unknown: &'static str,
    currency: Currency,
) -> Result<Account, ServiceError> {
    let account = account.ok_or_else(|| {
        let whose = if unknown == PAYEE_UNKNOWN { "payee" } else { "payer" };
        ServiceError::refused(unknown, format!("the {whose}'s account is not known here"))
    })?;
    refuse_unless_open(&account)?;
    if account.currency != currency.code() {
        let detail = format!("the account {} is not in {}", account.number, currency.code());
        return Err(ServiceError::refused("currency-mismatch", detail));
    }
    Ok(account)
}

pub(super) fn refuse_unless_open(account: &Account) -> Result<(), ServiceError> {
    let (check, word) = match account.status {
        AccountStatus::Open => return Ok(()),
        AccountStatus::Frozen => ("account-frozen", "frozen"),
        AccountStatus::Closed => ("account-closed", "closed"),
    };
    Err(ServiceError::refused(check, format!("the account {} is {word}", account.number)))
}

impl Service {
    /// Takes a transaction from an initiating terminal and extracts from it what the payer is to
    /// confirm: the bytes that a security device will show and sign (D1). They are made here, and
    /// no terminal or phone changes them. Each phone of the payer's account gets a push (D2).
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; the checks of `countersign_payment` over texts, account
    /// numbers, amount and currency; `same-account`, `account-unknown`, `payee-unknown`,
    /// `currency-mismatch`, `account-frozen`, `account-closed`, `expiry-range`;
    /// `idempotency-in-flight`, `idempotency-mismatch`.
    pub async fn create_payment(
        &self,
        actor: &Actor,
        new: &NewPayment,
        once: Once<PaymentRecord>,
    ) -> Result<Settled<PaymentRecord>, ServiceError> {
        let created = self.create(actor, new, once).await;
        if let Err(error) = &created {
            self.refused_operator(actor, "payment.create", "payment", error).await;
        }
        created
    }

    async fn create(
        &self,
        actor: &Actor,
        new: &NewPayment,
        once: Once<PaymentRecord>,
    ) -> Result<Settled<PaymentRecord>, ServiceError> {
        actor.require(Scope::PaymentsCreate)?;
        let checked = new.check()?;
        let policy = &self.policy.payments;
        let expires_in = new.expires_in.unwrap_or(policy.expiry);
        if !(policy.expiry_min..=policy.expiry_max).contains(&expires_in) {
            let (least, most) = (policy.expiry_min.as_secs(), policy.expiry_max.as_secs());
            let detail = format!("a payment can be confirmed for {least} to {most} seconds");
            return Err(ServiceError::refused("expiry-range", detail));
        }
        let (attempt, _working) = self.once(actor, once)?;
        let now = self.now();
        let draft = Draft {
            id: self.new_id(IdKind::Payment),
            server: self.shown_name().to_owned(),
            actor: actor.clone(),
            now,
            // Whole seconds: it is what the device shows.
            expires_at: UnixTime::from_secs(now.plus(expires_in).as_secs()),
            checked,
        };
        let (ids, event) = (self.push_ids(), self.new_id(IdKind::Event));
        // Nothing is decided here from rows that are only looked at: the accounts are looked at
        // again, locked, when the payment executes.
        let (settled, pushes) = self
            .store
            .run_locked("create_payment", move |tx| {
                let mut pushes = Vec::new();
                let settled = attempt.run(tx, now, |tx| {
                    let record = draft.store(tx, &event)?;
                    let payment = &record.payment;
                    let (id, payer) = (&payment.id, &payment.payer_account);
                    pushes = ids.push_payment(tx, id, payer, now, payment.expires_at)?;
                    Ok(record)
                })?;
                Ok::<_, ServiceError>((settled, pushes))
            })
            .await?;
        if let Settled::Fresh { value, .. } = &settled {
            self.announce_pushes(&pushes);
            let notices = [Notice::new(Topic::Payment, &value.payment.id), Notice::events()];
            self.store.bus().publish(&notices);
        }
        Ok(settled)
    }

    /// The server's name in what devices show and sign.
    pub(super) fn shown_name(&self) -> &str {
        self.policy.payments.server_name.as_deref().unwrap_or(&self.authority.server_id)
    }
}

/// A payment that is about to be stored.
struct Draft {
    id: String,
    server: String,
    actor: Actor,
    now: UnixTime,
    expires_at: UnixTime,
    checked: Checked,
}

impl Draft {
    fn store(&self, tx: &mut Tx<'_>, event: &str) -> Result<PaymentRecord, ServiceError> {
        let Checked { amount, payer, payee, new } = &self.checked;
        let payer = tx.account_by_number(payer.as_str())?;
        let payer = fit(payer, "account-unknown", amount.currency())?;
        let payee = tx.account_by_number(payee.as_str())?;
        let payee = fit(payee, PAYEE_UNKNOWN, amount.currency())?;
        let mut alerts = Vec::new();
        if !same_name(&payee.holder, &new.payee_name) {
            alerts.push(ALERT_NAME_DIFFERS.to_owned());
        }
        if !tx.paid_before(&payer.id, &payee.id)? {
            alerts.push(ALERT_NEW_PAYEE.to_owned());
        }
        let request = self.request(&alerts).to_bytes()?;
        let mut payment = Payment {
            id: self.id.clone(),
            state: State::Created,
            payer_account: payer.id.clone(),
            payee_account: payee.id.clone(),
            currency: amount.currency().code().to_owned(),
            amount: amount.minor(),
            refunded: 0,
            end_to_end_id: new.end_to_end_id.clone(),
            order_text: new.order.clone(),
            initiating_party: new.initiating_party.clone(),
            alerts,
            created_by: self.actor.id().to_owned(),
            request,
            wrong_answers: 0,
            reason: None,
            incident: None,
            version: 0,
            created_at: self.now,
            expires_at: self.expires_at,
            updated_at: self.now,
        };
        let timeline = settle::walk(&mut payment, &machine::open(), self.actor.id(), self.now);
        tx.insert_payment(&payment, &timeline)?;
        let detail = json!({
            "payer": payer.number,
            "payee": payee.number,
            "amount": amount.decimal(),
            "currency": payment.currency,
            "endToEndId": payment.end_to_end_id,
        });
        let entry = done(self.now, &self.actor, "payment.create", &self.id);
        tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry })?;
        let record = PaymentRecord { payment, payer, payee };
        tx.insert_events(&[settle::event(event.to_owned(), &record.payment, self.now)])?;
        Ok(record)
    }

    fn request(&self, alerts: &[String]) -> ConfirmationRequest {
        let Checked { amount, payer, payee, new } = &self.checked;
        ConfirmationRequest {
            server: self.server.clone(),
            payment: self.id.clone(),
            payer_account: payer.clone(),
            payee_account: payee.clone(),
            payee_name: new.payee_name.clone(),
            order: new.order.clone(),
            amount: *amount,
            expires: self.expires_at,
            initiator: new.initiating_party.clone(),
            alerts: alerts.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_spaces() {
        for (one, other) in [("Corner Bakery", "corner  bakery "), ("北京面包店", "北京面包店")]
        {
            assert!(same_name(one, other), "{one} {other}");
        }
        assert!(!same_name("Corner Bakery", "Corner Bakary"));
        assert!(!same_name("Corner Bakery", "CornerBakery"));
    }
}

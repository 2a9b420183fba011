//! Receipts and evidence: what this server makes, the core checks offline.

use std::time::Duration;

use countersign_payment::evidence::{self, Report};
use countersign_payment::{receipt, request_hash};
use countersign_service::{PaymentAnswer, RejectReason};
use countersign_store::PaymentRecord;

use crate::bank::{Bank, Place, check, fresh};

async fn evidence_of(bank: &Bank, record: &PaymentRecord) -> (Vec<u8>, Report) {
    let bundle = bank.service.payment_evidence(&bank.shop, &record.payment.id).await.unwrap();
    let report = evidence::verify(&bundle, bank.root());
    (bundle, report)
}

#[track_caller]
fn good(report: &Report, state: &str) {
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert!(report.is_good(), "{failed:?}");
    assert_eq!(report.state.map(|state| state.name()), Some(state));
    assert_eq!(report.server_id.as_deref(), Some("srv-test"));
}

pub(crate) async fn a_receipt_says_what_was_executed(place: Place) {
    let bank = Bank::new(place).await;
    {
        let record = bank.pending("12.34").await;
        let id = record.payment.id.as_str();
        let early = bank.service.payment_receipt(&bank.shop, id).await;
        assert_eq!(check(early), "receipt-not-ready");
        bank.answer(&record, bank.device.answer(&record)).await.unwrap();
        bank.pass(Duration::from_secs(60));
        let jws = bank.service.payment_receipt(&bank.shop, id).await.unwrap();
        let said = receipt::verify(&jws, bank.root()).unwrap();
        let said = said.receipt();
        assert_eq!(said.payment, id);
        assert_eq!(said.amount.to_string(), "12.34 CNY");
        assert_eq!(
            (said.payer_account.as_str(), said.payee_account.as_str()),
            ("PAYER1", "PAYEE1")
        );
        assert_eq!(said.end_to_end_id, "E2E-1");
        assert_eq!(said.request_hash, request_hash(&record.payment.request));
        let other = crate::bank::House::new(bank.provider().clone(), 99).authority.root;
        assert!(receipt::verify(&jws, &other).is_err(), "another root vouches for nothing");
    }
}

pub(crate) async fn evidence_holds_for_every_end(place: Place) {
    let bank = Bank::new(place).await;
    let token = bank.token("TK-1", &["PAYER1"]).await;
    let pending = bank.pending("1.00").await;
    let early = bank.service.payment_evidence(&bank.shop, &pending.payment.id).await;
    assert_eq!(check(early), "evidence-not-ready");
    // Executed, after a wrong answer, with a refund behind it, the device's certificate revoked
    // since.
    let executed = bank.pending("12.34").await;
    bank.answer(&executed, bank.device.answer(&pending)).await.unwrap_err();
    bank.answer(&executed, bank.device.answer(&executed)).await.unwrap();
    bank.pass(Duration::from_secs(5));
    bank.refund(&executed.payment.id, "2.00").await.unwrap();
    bank.service.revoke_signer(&bank.admin, &bank.device.id, "lost").await.unwrap();
    let (bundle, report) = evidence_of(&bank, &executed).await;
    good(&report, "executed");
    assert!(!report.rests_on_server);
    // Altered, it does not hold.
    let text = String::from_utf8(bundle).unwrap();
    for (from, to) in [("12.34", "12.35"), ("\"approved\"", "\"pending\""), ("lost", "none")] {
        assert!(text.contains(from), "{from}");
        assert!(!evidence::verify(text.replace(from, to).as_bytes(), bank.root()).is_good());
    }
    // Which check refused an answer is no business of the initiator's.
    assert!(!text.contains("\"failedCheck\":\"answer-signature\""), "{text}");
    let full = bank.service.payment_evidence(&bank.admin, &executed.payment.id).await.unwrap();
    assert!(String::from_utf8(full).unwrap().contains("\"failedCheck\":\"answer-signature\""));
    // A dynamic password, and the whole back.
    let by_token = bank.pending("1.00").await;
    bank.answer(&by_token, token.answer(&by_token)).await.unwrap();
    bank.service.reverse_payment(&bank.admin, &by_token.payment.id, fresh()).await.unwrap();
    let (_, report) = evidence_of(&bank, &by_token).await;
    good(&report, "executed");
    assert!(report.rests_on_server, "the key is known to nobody else");
    // Not executed: rejected, cancelled, failed, refused by the ledger, expired.
    let rejected = bank.pending("1.00").await;
    let no = PaymentAnswer::Reject { reason: RejectReason::WrongDetails };
    bank.answer(&rejected, no).await.unwrap();
    good(&evidence_of(&bank, &rejected).await.1, "rejected");
    let cancelled = bank.pending("1.00").await;
    bank.service.cancel_payment(&bank.shop, &cancelled.payment.id).await.unwrap();
    good(&evidence_of(&bank, &cancelled).await.1, "cancelled");
    let failed = bank.pending("1.00").await;
    for _ in 0..3 {
        bank.answer(&failed, bank.device.answer(&failed)).await.unwrap_err();
    }
    good(&evidence_of(&bank, &failed).await.1, "failed");
    let too_much = bank.pending("5000.00").await;
    bank.answer(&too_much, token.answer(&too_much)).await.unwrap();
    good(&evidence_of(&bank, &too_much).await.1, "execution_failed");
    bank.set_clock(pending.payment.expires_at);
    good(&evidence_of(&bank, &pending).await.1, "expired");
}

pub(crate) async fn sm2_makes_papers_too(place: Place) {
    let bank = Bank::of_sm2(place).await;
    let record = bank.executed("12.34").await;
    let (_, report) = evidence_of(&bank, &record).await;
    good(&report, "executed");
}

/// Servers whose clocks differ: a payment's own time never runs backwards.
pub(crate) async fn a_clock_that_lags_spoils_no_evidence(place: Place) {
    let bank = Bank::new(place).await;
    bank.pass(Duration::from_secs(10));
    let record = bank.pending("12.34").await;
    bank.set_clock(record.payment.created_at.minus(Duration::from_secs(5)));
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    bank.refund(&record.payment.id, "1.00").await.unwrap();
    good(&evidence_of(&bank, &record).await.1, "executed");
}

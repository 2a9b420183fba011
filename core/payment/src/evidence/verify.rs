//! The checks of a bundle. Each has a name and is made whether or not others failed, as far as what
//! it looks at could be read.

use std::collections::BTreeSet;

use countersign_crypto::UnixTime;
use countersign_pki::{Leaf, PkiError, Role, TrustStore, certified_point};
use serde::Deserialize as _;

use super::{
    Answer, BUNDLE_MAX, Bundle, Check, Evidence, KIND_PAYMENT, KIND_REFUND, KIND_REVERSAL, Method,
    Outcome, Posting, Report, TYP, TYPE, VERSION,
};
use crate::jws::{self, Signature};
use crate::{ConfirmationRequest, PaymentError, State, joint, ocra, receipt, request_hash, wire};

/// Checks a bundle offline, trusting `root` (DER) alone. Total on any input; reads at most
/// [`BUNDLE_MAX`] bytes.
#[must_use]
pub fn verify(bundle: &[u8], root: &[u8]) -> Report {
    let mut checks = Checks::default();
    let read = read(bundle);
    checks.add("bundle-form", read.as_ref().map(|_| "read").map_err(|error| error.as_str()));
    let Ok(mut bundle) = read else { return checks.report };
    let seal = bundle.seal.take().unwrap_or_default();
    let server_issuer = checks.seal(&bundle, &seal, root);
    let evidence = &bundle.evidence;
    checks.report.state = Some(evidence.state);
    let request = ConfirmationRequest::parse(&evidence.request);
    checks.add("request-form", request.as_ref().map(|_| "canonical").map_err(|e| e.check()));
    checks.timeline(evidence);
    checks.answers(evidence);
    if let Ok(request) = &request {
        checks.holds("request-payment", request.payment == evidence.payment, || {
            format!("the request is of {}, the bundle of {}", request.payment, evidence.payment)
        });
    }
    if let Some(answer) = accepted(evidence) {
        checks.answer_time(evidence, answer, request.as_ref().ok());
        match answer.method {
            Method::Pki => {
                checks.pki_answer(evidence, answer, root, server_issuer.as_deref());
            }
            Method::Ocra => checks.ocra_answer(evidence, answer),
            Method::Joint => {
                checks.joint_answer(evidence, answer, root, server_issuer.as_deref());
            }
            Method::None => checks.add("answer-signature", Err("accepted without a signature")),
        }
    } else {
        checks.holds("revocation", evidence.revocation.is_none(), || {
            "a statement about a certificate, but no accepted answer".into()
        });
    }
    checks.postings(evidence, request.as_ref().ok());
    checks.receipt(evidence, request.as_ref().ok(), root);
    checks.report.request = request.ok();
    checks.report
}

fn read(bundle: &[u8]) -> Result<Bundle, String> {
    if bundle.len() > BUNDLE_MAX {
        return Err("longer than a bundle may be".into());
    }
    let mut json = serde_json::Deserializer::from_slice(bundle);
    // The reader's own words quote no content but names and positions.
    let said = |error: serde_json::Error| error.to_string();
    let bundle = Bundle::deserialize(&mut json).map_err(said)?;
    json.end().map_err(said)?;
    if bundle.kind != TYPE || bundle.version != VERSION {
        return Err("another type or version".into());
    }
    if !bundle.evidence.is_bounded() {
        return Err("more rows than a bundle may have".into());
    }
    Ok(bundle)
}

/// The accepted answer, if there is exactly one.
fn accepted(evidence: &Evidence) -> Option<&Answer> {
    let mut found = evidence.answers.iter().filter(|a| a.outcome == Outcome::Accepted);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn time_of(evidence: &Evidence, state: State) -> Option<UnixTime> {
    evidence.timeline.iter().find(|event| event.state == state).map(|event| event.at)
}

struct Checks {
    report: Report,
}

impl Default for Checks {
    fn default() -> Self {
        let report = Report {
            checks: Vec::new(),
            request: None,
            state: None,
            server_id: None,
            rests_on_server: false,
        };
        Self { report }
    }
}

impl Checks {
    fn add(&mut self, name: &'static str, found: Result<&str, &str>) {
        let ok = found.is_ok();
        let detail = found.unwrap_or_else(|failed| failed).to_string();
        self.report.checks.push(Check { name, ok, detail });
    }

    /// A check that says something only if it fails.
    fn holds(&mut self, name: &'static str, ok: bool, failed: impl FnOnce() -> String) {
        let detail = if ok { "as it must be".into() } else { failed() };
        self.report.checks.push(Check { name, ok, detail });
    }

    /// The server's signature over everything. Gives the certificate that issued the server's.
    fn seal(&mut self, bundle: &Bundle, seal: &str, root: &[u8]) -> Option<Vec<u8>> {
        let signed = seal.split_once("..").ok_or(PaymentError::StatementForm);
        let signer = signed.and_then(|(protected, signature)| {
            let payload = wire::canonical(bundle)?;
            let made_at = bundle.evidence.made_at;
            let signed = Signature { protected, signature };
            jws::verify(&signed, TYP, payload.as_bytes(), root, made_at)
        });
        match signer {
            Ok(signer) => {
                self.add("bundle-signature", Ok(&format!("by server {}", signer.server_id)));
                self.report.server_id = Some(signer.server_id);
                Some(signer.issuer)
            }
            Err(error) => {
                self.add("bundle-signature", Err(error.check()));
                None
            }
        }
    }

    /// From created on, each change one that the states allow, in order of time, to the state that
    /// the bundle says.
    fn timeline(&mut self, evidence: &Evidence) {
        let rows = &evidence.timeline;
        let numbered = rows.windows(2).all(|two| two[0].number < two[1].number);
        let begins = rows.first().is_some_and(|row| row.state == State::Created);
        let allowed = rows.windows(2).all(|two| two[0].state.may_become(two[1].state));
        let ends = rows.last().is_some_and(|row| row.state == evidence.state);
        self.holds("timeline-order", numbered && begins && allowed && ends, || {
            format!("it does not lead from created to {} by allowed changes", evidence.state)
        });
        let timely = rows.windows(2).all(|two| two[0].at <= two[1].at)
            && rows.last().is_none_or(|row| row.at <= evidence.made_at);
        self.holds("timeline-time", timely, || "it runs backwards, or past the bundle".into());
    }

    /// One accepted answer if and only if it was approved; one rejection if it was rejected; each
    /// answer once.
    fn answers(&mut self, evidence: &Evidence) {
        let of = |outcome| evidence.answers.iter().filter(move |a| a.outcome == outcome).count();
        let approved = time_of(evidence, State::Approved).is_some();
        let accepted = of(Outcome::Accepted);
        self.holds("answer-accepted", accepted == usize::from(approved), || {
            let approved = if approved { "approved" } else { "not approved" };
            format!("the payment was {approved}, with {accepted} accepted answers")
        });
        let rejected = usize::from(evidence.state == State::Rejected);
        self.holds("answer-rejected", of(Outcome::Rejected) == rejected, || {
            format!("{} rejections of a payment that is {}", of(Outcome::Rejected), evidence.state)
        });
        let ids: BTreeSet<_> = evidence.answers.iter().map(|answer| &answer.id).collect();
        let begun = time_of(evidence, State::Created).unwrap_or_default();
        let within = evidence.answers.iter().all(|a| begun <= a.at && a.at <= evidence.made_at);
        let committed = evidence.answers.iter().filter(|answer| answer.commitment.is_some());
        let of_joint = committed.into_iter().all(|answer| answer.method == Method::Joint);
        let once = ids.len() == evidence.answers.len();
        self.holds("answers-listed", once && within && of_joint, || {
            "answers twice, outside the payment's time, or with what is another method's".into()
        });
    }

    fn answer_time(
        &mut self,
        evidence: &Evidence,
        answer: &Answer,
        request: Option<&ConfirmationRequest>,
    ) {
        let approved = time_of(evidence, State::Approved) == Some(answer.at);
        let pending = time_of(evidence, State::Pending).is_some_and(|at| at <= answer.at);
        let in_time = request.is_some_and(|request| answer.at < request.expires);
        self.holds("answer-time", approved && pending && in_time, || {
            "not accepted while the payment waited, before its time was over".into()
        });
    }

    fn pki_answer(
        &mut self,
        evidence: &Evidence,
        answer: &Answer,
        root: &[u8],
        server_issuer: Option<&[u8]>,
    ) {
        self.signed_answer(evidence, answer, root, server_issuer, |leaf| {
            let signature = answer.signature.as_deref().unwrap_or_default();
            crate::verify(leaf.key(), &evidence.request, signature)?;
            Ok("over the request's bytes")
        });
    }

    fn joint_answer(
        &mut self,
        evidence: &Evidence,
        answer: &Answer,
        root: &[u8],
        server_issuer: Option<&[u8]>,
    ) {
        // The card signs before its holder consents. That he did shows in the joint password alone,
        // which the server saw and everybody else can only believe.
        self.report.rests_on_server = true;
        let commitment = answer.commitment.as_deref().unwrap_or_default();
        let commitment = joint::Commitment::parse(commitment);
        self.add(
            "answer-commitment",
            commitment.as_ref().map(|found| found.form().name()).map_err(|error| error.check()),
        );
        self.signed_answer(evidence, answer, root, server_issuer, |leaf| {
            let provider = jws::provider_for(root).ok_or(PaymentError::Signature)?;
            let commitment = commitment.as_ref().map_err(|_| PaymentError::Signature)?;
            let signature = answer.signature.as_deref().unwrap_or_default();
            let (hash, request) = (&*provider.hash, &evidence.request);
            joint::verify_signature(leaf.key(), hash, request, commitment, signature)?;
            Ok("over the request's bytes and the commitment to the joint password")
        });
        self.add(
            "answer-joint-password",
            Ok("that the joint password was right, and so the consent, is the server's word"),
        );
    }

    fn signed_answer(
        &mut self,
        evidence: &Evidence,
        answer: &Answer,
        root: &[u8],
        server_issuer: Option<&[u8]>,
        verify: impl FnOnce(&Leaf) -> Result<&'static str, PaymentError>,
    ) {
        let leaf = certified(answer, root);
        let leaf = match leaf {
            Ok(leaf) => {
                self.add("answer-certificate", Ok(&format!("of {}", leaf.identity())));
                leaf
            }
            Err(check) => return self.add("answer-certificate", Err(check)),
        };
        // Who certifies servers certifies no devices: else one of the two is forged.
        let apart = answer.issuer.as_deref().zip(server_issuer).is_some_and(|(device, server)| {
            let key = |der| jws::provider_for(root).and_then(|p| certified_point(&p, der).ok());
            key(device).is_some() && key(device) != key(server)
        });
        self.holds("answer-issuer", apart, || "devices and servers have one issuer".into());
        let device = answer.device.as_deref() == Some(leaf.identity().id());
        self.holds("answer-device", device, || {
            format!("the answer names {:?}, its certificate another", answer.device)
        });
        self.add("answer-signature", verify(&leaf).map_err(PaymentError::check));
        let number = leaf.number().to_string();
        let revocation = evidence.revocation.as_ref();
        let stated = revocation.is_some_and(|said| {
            said.certificate_number == number
                && answer.at <= said.stated_at
                && said.stated_at <= evidence.made_at
        });
        let good = revocation.is_some_and(|said| said.revoked_at.is_none_or(|at| answer.at < at));
        self.holds("revocation", stated && good, || match stated {
            true => "the certificate was revoked before it answered".into(),
            false => "no statement about this certificate from after the answer".into(),
        });
    }

    fn ocra_answer(&mut self, evidence: &Evidence, answer: &Answer) {
        self.report.rests_on_server = true;
        let digits = answer.signature.as_deref().unwrap_or_default();
        let form = digits.len() == ocra::PAYMENT_DIGITS && digits.iter().all(u8::is_ascii_digit);
        let named = answer.device.as_deref().is_some_and(|device| !device.is_empty());
        let bare = answer.certificate.is_none()
            && answer.issuer.is_none()
            && evidence.revocation.is_none();
        let found = match form && named && bare {
            true => Ok("digits under a shared key: that they are right is the server's word"),
            false => Err("not an answer under a shared key"),
        };
        self.add("answer-digits", found);
    }

    fn postings(&mut self, evidence: &Evidence, request: Option<&ConfirmationRequest>) {
        let executed = time_of(evidence, State::Executed);
        let (paid, returned): (Vec<_>, Vec<_>) =
            evidence.postings.iter().partition(|posting| posting.kind == KIND_PAYMENT);
        let count = if executed.is_some() { 1 } else { 0 };
        let none_else = executed.is_some() || returned.is_empty();
        self.holds("posting-count", paid.len() == count && none_else, || {
            format!("{} postings of a payment that is {}", paid.len(), evidence.state)
        });
        let ids: BTreeSet<_> = evidence.postings.iter().map(|posting| &posting.id).collect();
        self.holds("posting-once", ids.len() == evidence.postings.len(), || "one twice".into());
        let (Some(executed), [paid], Some(request)) = (executed, paid.as_slice(), request) else {
            return;
        };
        self.holds("posting-amount", paid.amount == request.amount, || {
            format!("{} was posted, {} confirmed", paid.amount, request.amount)
        });
        let accounts = (&paid.debit_account, &paid.credit_account)
            == (&request.payer_account, &request.payee_account);
        self.holds("posting-accounts", accounts, || {
            format!("posted from {} to {}", paid.debit_account, paid.credit_account)
        });
        self.holds("posting-time", paid.at == executed, || "not when it was executed".into());
        let opposite = |posting: &&Posting| {
            matches!(posting.kind.as_str(), KIND_REFUND | KIND_REVERSAL)
                && posting.debit_account == request.payee_account
                && posting.credit_account == request.payer_account
                && posting.amount.currency() == request.amount.currency()
                && posting.at >= executed
                && posting.at <= evidence.made_at
        };
        // At most ROWS_MAX amounts of MAX_MINOR each: far from an overflow in 128 bits.
        let sum: i128 = returned.iter().map(|posting| i128::from(posting.amount.minor())).sum();
        let within = sum <= i128::from(request.amount.minor());
        self.holds("posting-returns", returned.iter().all(opposite) && within, || {
            "more, or to another account, than what was paid".into()
        });
    }

    fn receipt(&mut self, evidence: &Evidence, request: Option<&ConfirmationRequest>, root: &[u8]) {
        let executed = time_of(evidence, State::Executed);
        let present = evidence.receipt.is_some() == executed.is_some();
        self.holds("receipt-present", present, || format!("a payment that is {}", evidence.state));
        let Some(jws) = &evidence.receipt else { return };
        let verified = match receipt::verify(jws, root) {
            Ok(verified) => verified,
            Err(error) => return self.add("receipt-signature", Err(error.check())),
        };
        let by = format!("by server {}", verified.server_id());
        self.add("receipt-signature", Ok(&by));
        let said = verified.receipt();
        let posting = evidence.postings.iter().find(|posting| posting.kind == KIND_PAYMENT);
        let of_request = request.is_some_and(|request| {
            (&said.payer_account, &said.payee_account)
                == (&request.payer_account, &request.payee_account)
                && (&said.payee_name, &said.order) == (&request.payee_name, &request.order)
                && said.amount == request.amount
        });
        let same = of_request
            && said.payment == evidence.payment
            && said.end_to_end_id == evidence.end_to_end_id
            && said.request_hash == request_hash(&evidence.request)
            && Some(said.executed_at) == executed
            && Some(&said.posting) == posting.map(|posting| &posting.id)
            && Some(&said.authorisation) == accepted(evidence).map(|answer| &answer.id)
            && said.executed_at <= said.issued_at;
        self.holds("receipt-content", same, || "it says something else than the bundle".into());
    }
}

/// The certificate of an answer, verified up to the root as it stood when the answer was accepted.
fn certified(answer: &Answer, root: &[u8]) -> Result<std::sync::Arc<Leaf>, &'static str> {
    let (Some(certificate), Some(issuer)) = (&answer.certificate, &answer.issuer) else {
        return Err("certificate-absent");
    };
    let provider = jws::provider_for(root).ok_or(PkiError::WrongAlgorithm.check())?;
    let mut trust = TrustStore::new(provider);
    trust
        .trust(root, issuer, Role::SecurityDevice, answer.at)
        .and_then(|()| trust.verify(certificate, Role::SecurityDevice, answer.at, None))
        .map_err(PkiError::check)
}

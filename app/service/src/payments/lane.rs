//! The lane: answers that come at once are decided together, in one transaction that locks each row
//! once, so that one payee of many payments is no queue of row locks. Who waits is told after the
//! commit and not before. The work is a task of its own: a caller that goes away loses nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::UnixTime;
use countersign_store::{
    ANSWERS_MAX, IdKind, LockedAnswers, Notice, Outcomes, Store, StoreError, ToVerify, Topic,
    new_id,
};
use tokio::sync::{OnceCell, oneshot};

use super::answer::PaymentAnswer;
use super::checkout::CheckoutKeys;
use super::decide::{Brought, Case, Desk, Proof, Seen, Verdict, decide};
use super::once::InFlight;
use super::verify::Verifier;
use crate::{Ambient, Authority, Policy, ServiceError};

/// Answers that wait at once; one more is turned away.
const WAITING_MAX: usize = 4096;
/// Batches under way at once: while one commits, the next is read and verified.
const LEADERS_MAX: usize = 2;
/// How often a batch is decided again when it is not known whether it was stored. What was stored
/// is found then, and answered as before.
const UNCERTAIN_MAX: usize = 3;
/// Signatures that one thread verifies at a stretch; fewer are verified where they are.
const VERIFIED_TOGETHER: usize = 16;

/// What the service holds for payments.
pub(crate) struct Payments {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) lane: Lane,
    /// Made when they are first needed.
    pub(super) checkouts: OnceCell<CheckoutKeys>,
}

impl Payments {
    pub(crate) fn new(
        store: &Store,
        authority: &Authority,
        policy: &Policy,
        ambient: &Ambient,
    ) -> Self {
        let lane = Lane(Arc::new(Inner {
            store: store.clone(),
            ambient: ambient.clone(),
            verifier: Arc::new(Verifier::new(authority.clone())),
            wrong_answers_max: policy.payments.wrong_answers_max,
            queue: Mutex::default(),
        }));
        Self { in_flight: Arc::default(), lane, checkouts: OnceCell::new() }
    }
}

/// A cheap handle to the lane.
#[derive(Clone)]
pub(super) struct Lane(Arc<Inner>);

struct Inner {
    store: Store,
    ambient: Ambient,
    verifier: Arc<Verifier>,
    wrong_answers_max: u32,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    leaders: usize,
}

struct Waiting {
    case: Case,
    reply: oneshot::Sender<Result<Verdict, ServiceError>>,
}

/// One task that decides batches; counted until it is dropped, also when it panics.
struct Leader {
    inner: Arc<Inner>,
    counted: bool,
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.counted {
            self.inner.queue().leaders -= 1;
        }
    }
}

/// Why a transaction over answers failed.
enum Failed {
    Store(StoreError),
    Service(ServiceError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl Failed {
    /// Whether the database could not serve: then no answer is to blame.
    fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::Store(
                StoreError::Busy { .. }
                    | StoreError::Full
                    | StoreError::Unreachable { .. }
                    | StoreError::Uncertain { .. }
            )
        )
    }

    fn told(self) -> ServiceError {
        match self {
            Self::Store(error) => error.into(),
            Self::Service(error) => error,
        }
    }
}

impl Lane {
    /// What signatures are verified with.
    pub(super) fn verifier(&self) -> Arc<Verifier> {
        self.0.verifier.clone()
    }

    /// Queues an answer and waits for its verdict, which is stored then.
    pub(super) async fn decide(&self, case: Case) -> Result<Verdict, ServiceError> {
        let (reply, verdict) = oneshot::channel();
        {
            let mut queue = self.0.queue();
            if queue.waiting.len() >= WAITING_MAX {
                let detail = "too many answers wait to be decided".to_owned();
                return Err(ServiceError::Unavailable { detail });
            }
            queue.waiting.push_back(Waiting { case, reply });
            if queue.leaders < LEADERS_MAX {
                queue.leaders += 1;
                let leader = Leader { inner: self.0.clone(), counted: true };
                drop(queue);
                tokio::spawn(lead(leader));
            }
        }
        let detail = "the answer's batch broke off: ask again".to_owned();
        verdict.await.unwrap_or(Err(ServiceError::Unavailable { detail }))
    }
}

/// Decides batches until nothing waits.
async fn lead(mut leader: Leader) {
    loop {
        let batch: Vec<Waiting> = {
            let mut queue = leader.inner.queue();
            let count = queue.waiting.len().min(ANSWERS_MAX);
            if count == 0 {
                // Under the same lock: whoever comes next finds one leader fewer, and starts one.
                queue.leaders -= 1;
                drop(queue);
                leader.counted = false;
                return;
            }
            queue.waiting.drain(..count).collect()
        };
        let (cases, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|Waiting { case, reply }| (Arc::new(case), reply)).unzip();
        let verdicts = leader.inner.decide_all(&cases).await;
        for (reply, verdict) in replies.into_iter().zip(verdicts) {
            // Who went away finds the verdict by answering again.
            let _gone = reply.send(verdict);
        }
    }
}

type Cases = Arc<Vec<(Arc<Case>, Proof)>>;

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One verdict per case, in their order.
    async fn decide_all(&self, cases: &[Arc<Case>]) -> Vec<Result<Verdict, ServiceError>> {
        let count = cases.len();
        match self.decide_together(cases).await {
            Ok(verdicts) => verdicts.into_iter().map(Ok).collect(),
            Err(failed) if count == 1 || failed.is_environment() => {
                vec![Err(failed.told()); count]
            }
            Err(failed) => {
                // One of them spoils the transaction of all: each gets its own.
                let error = failed.told();
                tracing::warn!(%error, count, "a batch of answers failed; each is decided alone");
                let mut verdicts = Vec::with_capacity(count);
                for case in cases {
                    let alone = self.decide_together(std::slice::from_ref(case)).await;
                    let one = alone.map_err(Failed::told).and_then(|mut one| {
                        let missing = || ServiceError::Internal { detail: "no verdict".into() };
                        one.pop().ok_or_else(missing)
                    });
                    verdicts.push(one);
                }
                verdicts
            }
        }
    }

    async fn decide_together(&self, cases: &[Arc<Case>]) -> Result<Vec<Verdict>, Failed> {
        let proven = self.verify(cases).await?;
        self.settle(&Arc::new(proven)).await
    }

    /// Reads what the answers name and verifies their signatures, without any lock.
    async fn verify(&self, cases: &[Arc<Case>]) -> Result<Vec<(Arc<Case>, Proof)>, Failed> {
        let signed = |case: &Arc<Case>| {
            matches!(case.brought, Brought::ByPayer { answer: PaymentAnswer::Pki { .. }, .. })
        };
        let found = if cases.iter().any(signed) {
            let keys: Vec<_> = cases.iter().map(|case| case.key.clone()).collect();
            self.store.read("answers_to_verify", move |tx| tx.to_verify(&keys)).await?
        } else {
            Vec::new()
        };
        let mut found = found.into_iter();
        let mut work: Vec<(Arc<Case>, ToVerify)> =
            cases.iter().map(|case| (case.clone(), found.next().unwrap_or_default())).collect();
        let now = self.ambient.clock.now();
        if work.len() <= VERIFIED_TOGETHER {
            return Ok(prove_all(&self.verifier, work, now));
        }
        let mut threads = Vec::new();
        while !work.is_empty() {
            let rest = work.split_off(work.len().min(VERIFIED_TOGETHER));
            let (part, verifier) = (std::mem::replace(&mut work, rest), self.verifier.clone());
            threads.push(tokio::task::spawn_blocking(move || prove_all(&verifier, part, now)));
        }
        let mut proven = Vec::new();
        for thread in threads {
            let part = thread.await;
            proven.extend(part.map_err(|error| ServiceError::Internal {
                detail: format!("verifying answers failed: {error}"),
            })?);
        }
        Ok(proven)
    }

    /// Decides the cases in one transaction, and tells who waits for the payments.
    async fn settle(&self, cases: &Cases) -> Result<Vec<Verdict>, Failed> {
        let mut tries = 0;
        let (verdicts, changed) = loop {
            match self.transact(cases.clone()).await {
                Err(Failed::Store(StoreError::Uncertain { .. })) if tries < UNCERTAIN_MAX => {
                    tries += 1;
                }
                other => break other?,
            }
        };
        if !changed.is_empty() {
            let mut notices: Vec<Notice> =
                changed.into_iter().map(|id| Notice::new(Topic::Payment, id)).collect();
            notices.push(Notice::events());
            self.store.bus().publish(&notices);
        }
        Ok(verdicts)
    }

    async fn transact(&self, cases: Cases) -> Result<(Vec<Verdict>, Vec<String>), Failed> {
        let (ambient, wrong_answers_max) = (self.ambient.clone(), self.wrong_answers_max);
        self.store
            .run_locked("answer_payments", move |tx| {
                let keys: Vec<_> = cases.iter().map(|(case, _)| case.key.clone()).collect();
                let locked: LockedAnswers = tx.lock_answers(&keys)?;
                // Only now: the locks may have been waited for.
                let now = ambient.clock.now();
                let mut rng = (ambient.rng)();
                let mut make_id = |kind: IdKind| new_id(kind, now, &mut *rng);
                let mut desk = Desk { now, wrong_answers_max, new_id: &mut make_id };
                let (verdicts, outcomes) = decide(&mut desk, locked, &cases)?;
                let changed = outcomes.changes.iter().map(|change| change.id.clone()).collect();
                if outcomes != Outcomes::default() {
                    tx.store_outcomes(&outcomes)?;
                }
                Ok((verdicts, changed))
            })
            .await
    }
}

fn prove_all(
    verifier: &Verifier,
    work: Vec<(Arc<Case>, ToVerify)>,
    now: UnixTime,
) -> Vec<(Arc<Case>, Proof)> {
    let prove = |(case, found): (Arc<Case>, ToVerify)| {
        let proof = prove(verifier, &case, found, now);
        (case, proof)
    };
    work.into_iter().map(prove).collect()
}

fn prove(verifier: &Verifier, case: &Case, found: ToVerify, now: UnixTime) -> Proof {
    let (answer, digits) = match &case.brought {
        Brought::ByPayer { answer, digits } => (answer, digits),
        Brought::ByTerminal(joint) => return Proof::Joint(joint.proof.clone()),
    };
    let (serial, signature) = match (answer, digits) {
        (PaymentAnswer::Pki { device_serial, signature }, _) => (device_serial, signature),
        (_, Some(digits)) => return Proof::Digits(digits.clone()),
        (_, None) => return Proof::None,
    };
    let seen = found.request.map(Seen::new);
    let (Some(request), Some((number, der))) = (&seen, found.certificate) else {
        let verified = Err("certificate-revoked");
        return Proof::Signature { seen, certificate: None, verified };
    };
    let verified = verifier.signature(serial, &der, request.bytes(), signature, now);
    Proof::Signature { seen, certificate: Some(number), verified }
}

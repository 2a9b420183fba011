//! Repeated requests: an `Idempotency-Key` is claimed once per operator, and what was answered to
//! it is answered again.

use std::time::Duration;

use countersign_crypto::UnixTime;

use crate::value::check_texts;
use crate::{StoreError, Tx};

/// How long an answer is kept at least: a key may be used anew after that.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Most keys that one [`Tx::sweep_idempotency`] removes.
pub const IDEMPOTENCY_SWEEP_MAX: u32 = 1000;

/// A request that says which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// Whose key it is: keys of two operators have nothing to do with each other.
    pub operator_id: String,
    /// The `Idempotency-Key`.
    pub key: String,
    /// SHA-256 over method, path and body.
    pub hash: [u8; 32],
    /// Random: tells this attempt from a later one that took the key over.
    pub claim: [u8; 16],
}

/// What a key was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has answered it: the caller is to, until its claim ends.
    New,
    /// It was answered with this.
    Replay {
        /// The HTTP status.
        status: u32,
        /// The body, byte by byte.
        body: Vec<u8>,
    },
    /// Another attempt is under way.
    InFlight,
    /// The key was used for another request.
    OtherRequest,
}

impl Tx<'_> {
    /// Claims a key until `until`, in [`crate::Store::run_tx`] or `run_snapshot`. A claim whose
    /// time has passed without an answer is taken over by the same request.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn claim_idempotency(
        &mut self,
        request: &IdempotentRequest,
        now: UnixTime,
        until: UnixTime,
    ) -> Result<Claim, StoreError> {
        check_texts([request.operator_id.as_str(), request.key.as_str()])?;
        let (operator, key) = (&request.operator_id, &request.key);
        let inserted = self.execute(
            "INSERT INTO idempotency_keys
                 (operator_id, idempotency_key, request_hash, claim, claimed_until, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (operator_id, idempotency_key) DO NOTHING",
            &[
                operator.into(),
                key.into(),
                (&request.hash).into(),
                (&request.claim).into(),
                until.into(),
                now.into(),
            ],
        )?;
        if inserted == 1 {
            return Ok(Claim::New);
        }
        let Some(row) = self.query_one(
            "SELECT request_hash, claim, claimed_until, status, body FROM idempotency_keys
             WHERE operator_id = ?1 AND idempotency_key = ?2",
            &[operator.into(), key.into()],
        )?
        else {
            // Swept or released at this moment; the next attempt finds it free.
            return Ok(Claim::InFlight);
        };
        if row.blob(0)? != request.hash {
            return Ok(Claim::OtherRequest);
        }
        if !row.is_null(3)? {
            return Ok(Claim::Replay { status: row.u32(3)?, body: row.blob(4)?.to_vec() });
        }
        if row.time(2)? > now {
            return Ok(Claim::InFlight);
        }
        let taken = self.execute(
            "UPDATE idempotency_keys SET claim = ?3, claimed_until = ?4
             WHERE operator_id = ?1 AND idempotency_key = ?2 AND claim = ?5 AND status IS NULL",
            &[
                operator.into(),
                key.into(),
                (&request.claim).into(),
                until.into(),
                row.blob(1)?.into(),
            ],
        )?;
        Ok(if taken == 1 { Claim::New } else { Claim::InFlight })
    }

    /// Stores the answer to a claimed key, in the transaction that decides it: either both are
    /// there or neither.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `idempotency-claim-lost` if another attempt took the key over, or
    /// it was answered: what this transaction decided is undone.
    pub fn answer_idempotency(
        &mut self,
        request: &IdempotentRequest,
        status: u32,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE idempotency_keys SET status = ?4, body = ?5
             WHERE operator_id = ?1 AND idempotency_key = ?2 AND claim = ?3 AND status IS NULL",
            &[
                (&request.operator_id).into(),
                (&request.key).into(),
                (&request.claim).into(),
                status.into(),
                body.into(),
            ],
        )?;
        let lost = StoreError::Refused { check: "idempotency-claim-lost" };
        if changed == 1 { Ok(()) } else { Err(lost) }
    }

    /// Gives a claim up, after a refusal that changed nothing: the key is free again. An answered
    /// key, or another's claim, stays.
    ///
    /// # Errors
    /// What the database answers.
    pub fn release_idempotency(&mut self, request: &IdempotentRequest) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM idempotency_keys
             WHERE operator_id = ?1 AND idempotency_key = ?2 AND claim = ?3 AND status IS NULL",
            &[(&request.operator_id).into(), (&request.key).into(), (&request.claim).into()],
        )
        .map(|_| ())
    }

    /// Removes keys from before `before`, at most [`IDEMPOTENCY_SWEEP_MAX`]. Returns how many.
    ///
    /// # Errors
    /// What the database answers.
    pub fn sweep_idempotency(&mut self, before: UnixTime) -> Result<u64, StoreError> {
        // The claim is random, so that it names the row.
        self.execute(
            "DELETE FROM idempotency_keys WHERE claim IN (
                 SELECT claim FROM idempotency_keys WHERE created_at < ?1
                 ORDER BY created_at LIMIT ?2)",
            &[before.into(), IDEMPOTENCY_SWEEP_MAX.into()],
        )
    }
}

//! The tokens a terminal is given (E2, E5, E8). Each is prepared, its intent stored, then signed.

use std::sync::Arc;

use countersign_injection::Bounded;
use countersign_injection::message::{
    Binding, Fingerprint, KeyToken, ServerMessage, TOKEN_LEN_MAX, Token, TokenRequest,
};
use countersign_store::{
    Assignment, AuditEntry, AuditOutcome, CertificateState, IdKind, Injection, InjectionFilter,
    InjectionState, KeyIntent, TerminalRecord, TokenIntent, TokenKind,
};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr34::kdh::{KeyOrder, Sender};
use tr34::token::{ContentCipher, CtKrd, Freshness, Nonce, RtKrd};
use tr34::{Certificate, Crl, CrlNumber, Dialect, Krd, Rsa};

use super::assign::store_assignment;
use super::report::shown;
use super::session::name;
use super::{TOKENS_PER_WINDOW, TOKENS_WINDOW};
use crate::{Actor, KeyToSend, KnownDevice, Ksn, OlderKdh, Service, ServiceError, done};

/// Injections that fail before a token is made, one after the other, in one request.
const UNFIT_MAX: usize = 32;

/// What a request came to, once it was looked into.
pub(super) struct Request {
    pub(super) kdh: Arc<OlderKdh>,
    pub(super) krd: Certificate,
    pub(super) ca_krd: Certificate,
    pub(super) ca_krd_id: String,
    pub(super) nonce: Nonce,
}

impl Service {
    /// Binds the terminal (E2).
    pub(super) async fn bind(
        &self,
        terminal: &KnownDevice,
        ct_krd: &[u8],
    ) -> Result<ServerMessage, ServiceError> {
        self.served_terminal(terminal).await?;
        // It has erased its binding, as it was asked to, and its word of it was lost.
        if self.unbind_due(&terminal.id).await?.is_some() {
            self.unbound(&terminal.id).await?;
        }
        let certificate = CtKrd::parse(ct_krd).map_err(token_error)?.certificate;
        let bound = self.bind_terminal(&terminal.id, certificate).await?;
        let (rsa, ciphers) = (self.rsa()?.clone(), self.ciphers()?.clone());
        let sender = Sender {
            rsa: &*rsa,
            ciphers: &*ciphers,
            certificate: &bound.kdh,
            crl: Some(&bound.crl),
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        };
        Ok(ServerMessage::Bound(binding(&sender.credential(), &bound.ca_kdh)?))
    }

    /// What the terminal is given next.
    pub(super) async fn next_token(
        &self,
        terminal: &KnownDevice,
        asked: &TokenRequest,
    ) -> Result<ServerMessage, ServiceError> {
        let record = self.served_terminal(terminal).await?;
        let Some(bound) = record.terminal.bound_kdh.clone() else {
            let detail = "the terminal is not bound to a KDH";
            return Err(ServiceError::refused("terminal-not-bound", detail));
        };
        let rebind = self.rebind_due(&terminal.id).await?;
        let mut kdh = self.kdh_by_id(&bound).await?;
        let rsa = self.rsa()?.clone();
        let mut due = rebind;
        if fingerprint(&*rsa, &kdh.kdh) != asked.bound {
            kdh = self.rebound_before(terminal, &due, asked.bound).await?;
            due = self.rebind_due(&terminal.id).await?;
        }
        let silent = kdh.signing_key(self.now()).err();
        if let (Some(error), None) = (&silent, &due) {
            return Err(error.clone());
        }
        check_crl_seen(&kdh.crl, asked.crl_seen.as_slice())?;
        let nonce = RtKrd::parse(asked.request.as_slice()).map_err(token_error)?.nonce;
        let request = self.request(terminal, &record, kdh, nonce).await?;
        if let (Some(_), Some(rebind)) = (&silent, &due) {
            return self.rebind_token_by_ca(terminal, &request, rebind).await;
        }
        if self.unbind_due(&terminal.id).await?.is_some() {
            return self.unbind_token(terminal, &request).await;
        }
        if let Some(rebind) = due {
            return self.rebind_token(terminal, &request, &rebind).await;
        }
        self.key_token(terminal, &request).await
    }

    async fn request(
        &self,
        terminal: &KnownDevice,
        record: &TerminalRecord,
        kdh: Arc<OlderKdh>,
        nonce: Nonce,
    ) -> Result<Request, ServiceError> {
        let revoked = || {
            let detail = "the terminal's RSA certificate is revoked";
            ServiceError::refused("krd-revoked", detail)
        };
        let live = record.krd.as_ref().filter(|live| live.state == CertificateState::Issued);
        let live = live.ok_or_else(revoked)?;
        let krd = Certificate::parse(live.der.as_deref().unwrap_or_default())?;
        let ca_krd = self.ca_krd_by_id(&live.issuer_id).await?;
        let (id, since) = (terminal.id.clone(), self.now().minus(TOKENS_WINDOW));
        let made = self
            .store
            .read("tokens_since", move |tx| Ok::<_, ServiceError>(tx.tokens_since(&id, since)?))
            .await?;
        if made >= TOKENS_PER_WINDOW {
            let detail = format!("the terminal was given {made} tokens in an hour");
            return Err(ServiceError::refused("terminal-throttled", detail));
        }
        Ok(Request { kdh, krd, ca_krd, ca_krd_id: live.issuer_id.clone(), nonce })
    }

    /// `UBT_KDH`: the end of the binding.
    async fn unbind_token(
        &self,
        terminal: &KnownDevice,
        request: &Request,
    ) -> Result<ServerMessage, ServiceError> {
        let prepared = self
            .sender(&request.kdh, |sender| sender.unbind(request.krd.identity(), &request.nonce))?;
        let key = request.kdh.signing_key(self.now())?;
        self.intend_token(terminal, self.token_intent(terminal, request, TokenKind::Unbind))
            .await?;
        let token = self.blocking(move || prepared.sign(&*key).map_err(token_error)).await?;
        Ok(ServerMessage::Unbind(bounded(&token)?))
    }

    /// Stores the intent of a token that carries no key.
    pub(super) async fn intend_token(
        &self,
        terminal: &KnownDevice,
        intent: TokenIntent,
    ) -> Result<(), ServiceError> {
        let action = match intent.kind {
            TokenKind::Rebind | TokenKind::RebindByCa => "rebind.issue",
            TokenKind::Key | TokenKind::Unbind => "unbind.issue",
        };
        let actor = Actor::Device(terminal.id.clone());
        let mut detail = token_detail(&intent);
        detail["kind"] = json!(intent.kind.name());
        let detail = detail.to_string();
        let entry = AuditEntry { detail, ..done(self.now(), &actor, action, &terminal.id) };
        self.store
            .run_tx("intend_token", move |tx| {
                tx.intend_token(&intent, None)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    pub(super) fn token_intent(
        &self,
        terminal: &KnownDevice,
        request: &Request,
        kind: TokenKind,
    ) -> TokenIntent {
        TokenIntent {
            device_id: terminal.id.clone(),
            nonce: request.nonce.as_bytes().to_vec(),
            kind,
            kdh_id: request.kdh.id.clone(),
            at: self.now(),
        }
    }

    pub(super) fn sender<T>(
        &self,
        kdh: &OlderKdh,
        make: impl FnOnce(&Sender<'_>) -> Result<T, tr34::Error>,
    ) -> Result<T, ServiceError> {
        let (rsa, ciphers) = (self.rsa()?, self.ciphers()?);
        make(&Sender {
            rsa: &**rsa,
            ciphers: &**ciphers,
            certificate: &kdh.kdh,
            crl: Some(&kdh.crl),
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        })
        .map_err(token_error)
    }

    /// `KT_KDH` for the injection that waits longest (E5), or word that nothing waits.
    async fn key_token(
        &self,
        terminal: &KnownDevice,
        request: &Request,
    ) -> Result<ServerMessage, ServiceError> {
        for _ in 0..UNFIT_MAX {
            let Some(injection) = self.waiting(terminal).await? else {
                return Ok(ServerMessage::Nothing);
            };
            match self.token_of(terminal, request, &injection).await {
                Ok(token) => {
                    let slot = u8::try_from(injection.slot).unwrap_or(u8::MAX);
                    let key = KeyToken { injection: name(&injection.id), slot, token };
                    return Ok(ServerMessage::KeyToken(key));
                }
                Err(Unfit::Injection(error)) => self.fail(&injection, &error).await?,
                Err(Unfit::Request(error)) => return Err(error),
            }
        }
        Ok(ServerMessage::Nothing)
    }

    async fn token_of(
        &self,
        terminal: &KnownDevice,
        request: &Request,
        injection: &Injection,
    ) -> Result<Token, Unfit> {
        let key = self.key_for_injection(&injection.key_id, &terminal.id, &injection.id).await;
        let key = key.map_err(Unfit::of)?;
        let (rsa, now) = (self.rsa().map_err(Unfit::Request)?.clone(), self.now());
        let verified = Krd::verify(&*rsa, request.krd.clone(), &request.ca_krd, now);
        let krd = verified.map_err(|error| Unfit::Request(error.into()))?;
        let ciphers = self.ciphers().map_err(Unfit::Request)?.clone();
        let (kdh, nonce) = (request.kdh.clone(), request.nonce.clone());
        let carried = carried(&key, injection).map_err(Unfit::of)?;
        let mut rng = self.rng();
        let prepare = move || {
            let sender = Sender {
                rsa: &*rsa,
                ciphers: &*ciphers,
                certificate: &kdh.kdh,
                crl: Some(&kdh.crl),
                dialect: Dialect::STRICT,
                weaker_wrapping: false,
            };
            let order = KeyOrder {
                krd: &krd,
                freshness: &Freshness::TwoPass(nonce),
                cipher: ContentCipher::Aes128,
                header: &key.header,
                key: &key.key,
            };
            sender.key_token(&mut *rng, &order).map_err(token_error)
        };
        let prepared = self.blocking(prepare).await.map_err(Unfit::of)?;
        let key = request.kdh.signing_key(now).map_err(Unfit::Request)?;
        self.issue(terminal, request, carried).await.map_err(Unfit::Request)?;
        let signed = self.blocking(move || prepared.sign(&*key).map_err(token_error)).await;
        bounded(&signed.map_err(Unfit::Request)?).map_err(Unfit::Request)
    }

    /// Stores the intent of a key token, before it is signed.
    async fn issue(
        &self,
        terminal: &KnownDevice,
        request: &Request,
        carried: KeyIntent,
    ) -> Result<(), ServiceError> {
        let intent = self.token_intent(terminal, request, TokenKind::Key);
        let actor = Actor::Device(terminal.id.clone());
        let mut detail = token_detail(&intent);
        detail["header"] = json!(carried.header);
        detail["kcv"] = json!(shown(&carried.kcv));
        detail["ksn"] = json!(carried.ksn.as_deref().map(|ksn| HEXLOWER.encode(ksn)));
        let subject = carried.injection_id.clone();
        let detail = detail.to_string();
        let entry = AuditEntry { detail, ..done(intent.at, &actor, "injection.issue", &subject) };
        self.store
            .run_tx("issue_injection", move |tx| {
                // Blocked or revoked while the key was sealed: then nothing is signed.
                tx.check_served(&intent.device_id, &intent.kdh_id, intent.at)?;
                tx.issue_injection(&intent, &carried)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    /// What waits for the terminal. If nothing does, what the open runs have for it; if they have
    /// nothing either and it never had a key, it is a stranger to them.
    async fn waiting(&self, terminal: &KnownDevice) -> Result<Option<Injection>, ServiceError> {
        let id = terminal.id.clone();
        let seen = self
            .store
            .read("waiting_injection", move |tx| {
                if let Some(injection) = tx.next_injection(&id)? {
                    return Ok::<_, ServiceError>((Some(injection), Vec::new(), false));
                }
                let due = tx.run_keys_due(&id)?;
                let of = InjectionFilter { device_id: Some(id.clone()), ..Default::default() };
                let never = tx.injections_page(&of, None, 1)?.items.is_empty();
                Ok((None, due, never))
            })
            .await?;
        match seen {
            (Some(injection), ..) => Ok(Some(injection)),
            (None, due, false) if due.is_empty() => Ok(None),
            (None, due, true) if due.is_empty() => {
                let (id, now) = (terminal.id.clone(), self.now());
                self.store
                    .run_tx("note_stranger", move |tx| {
                        tx.note_stranger(&id, now)?;
                        Ok::<_, ServiceError>(None)
                    })
                    .await
            }
            (None, due, _) => self.assign_due(terminal, due.len()).await,
        }
    }

    /// Assigns what the open runs have for a terminal.
    async fn assign_due(
        &self,
        terminal: &KnownDevice,
        count: usize,
    ) -> Result<Option<Injection>, ServiceError> {
        let now = self.now();
        let ids: Vec<_> = (0..count).map(|_| self.new_id(IdKind::Injection)).collect();
        let device = terminal.id.clone();
        self.store
            .run_tx("assign_due", move |tx| {
                for (id, (run, key)) in ids.iter().zip(tx.run_keys_due(&device)?) {
                    let assignment = Assignment {
                        id: id.clone(),
                        device_id: device.clone(),
                        key_id: key.key_id,
                        slot: key.slot,
                        run_id: Some(run),
                        by: Actor::System.id().to_owned(),
                        at: now,
                    };
                    store_assignment(tx, &Actor::System, &assignment)?;
                }
                Ok::<_, ServiceError>(tx.next_injection(&device)?)
            })
            .await
    }

    /// An injection that cannot be made: the key is retired, its serial numbers are used up, or it
    /// is stronger than what would carry it.
    async fn fail(&self, injection: &Injection, error: &ServiceError) -> Result<(), ServiceError> {
        let now = self.now();
        let incident = self.new_id(IdKind::Incident);
        let (id, check) = (injection.id.clone(), error.check());
        let detail = json!({ "key": injection.key_id, "error": error.to_string() }).to_string();
        let entry = AuditEntry {
            outcome: AuditOutcome::Refused,
            check: Some(check.to_owned()),
            incident: Some(incident.clone()),
            detail,
            ..done(now, &Actor::System, "injection.fail", &id)
        };
        self.store
            .run_tx("fail_injection", move |tx| {
                // Ended by somebody else meanwhile: then there is nothing to do.
                let open = tx.injection_by_id(&id)?.is_some_and(|found| found.state.is_open());
                if open {
                    let why = Some((check, incident.as_str()));
                    tx.end_injection(&id, InjectionState::Failed, why, now)?;
                    tx.append_audit(&entry)?;
                }
                Ok(())
            })
            .await
    }
}

/// Why no token was made.
enum Unfit {
    /// Because of this injection: another may do.
    Injection(ServiceError),
    /// Because of the request, or the environment.
    Request(ServiceError),
}

impl Unfit {
    fn of(error: ServiceError) -> Self {
        if error.is_refusal() { Self::Injection(error) } else { Self::Request(error) }
    }
}

/// What a key token will carry, as it is stored before.
fn carried(key: &KeyToSend, injection: &Injection) -> Result<KeyIntent, ServiceError> {
    let header = key.header.encode();
    let header = header.map_err(|error| ServiceError::refused(error.check(), error.to_string()))?;
    Ok(KeyIntent {
        injection_id: injection.id.clone(),
        header: String::from_utf8_lossy(&header).into_owned(),
        kcv: key.kcv.as_bytes().to_vec(),
        ksn: key.ksn.as_ref().map(ksn_bytes),
    })
}

fn ksn_bytes(ksn: &Ksn) -> Vec<u8> {
    match ksn {
        Ksn::Tdes(ksn) => ksn.as_bytes().to_vec(),
        Ksn::Aes(id) => id.as_bytes().to_vec(),
    }
}

/// What the audit has of every token.
fn token_detail(intent: &TokenIntent) -> serde_json::Value {
    json!({
        "terminal": intent.device_id,
        "kdh": intent.kdh_id,
        "nonce": HEXLOWER.encode(&intent.nonce),
    })
}

/// The terminal has seen a newer list than this server has: it would refuse the older one, and
/// something here was put back.
fn check_crl_seen(crl: &[u8], seen: &[u8]) -> Result<(), ServiceError> {
    let damaged = |error: tr34::CrlError| ServiceError::Internal { detail: error.to_string() };
    let ours = Crl::parse(crl).map_err(damaged)?.number();
    let seen = CrlNumber::new(seen).unwrap_or_else(|_| CrlNumber::from(u64::MAX));
    if seen > ours.unwrap_or_else(|| CrlNumber::from(0)) {
        let detail = format!("the terminal has seen the revocation list {seen}, a newer one");
        return Err(ServiceError::refused("crl-behind", detail));
    }
    Ok(())
}

pub(super) fn fingerprint(rsa: &dyn Rsa, certificate: &Certificate) -> Fingerprint {
    rsa.sha256(certificate.raw())
}

pub(super) fn binding(token: &[u8], ca_kdh: &Certificate) -> Result<Binding, ServiceError> {
    let internal = || ServiceError::Internal { detail: "a CA's certificate is too long".into() };
    let ca_kdh = Bounded::new(ca_kdh.raw()).ok_or_else(internal)?;
    Ok(Binding { token: bounded(token)?, ca_kdh })
}

fn bounded(token: &[u8]) -> Result<Token, ServiceError> {
    let too_long = || {
        let detail = format!(
            "a token of {} bytes does not fit a message ({TOKEN_LEN_MAX}): \
             the revocation list is too long",
            token.len()
        );
        ServiceError::Internal { detail }
    };
    Bounded::new(token).ok_or_else(too_long)
}

/// A token's failure by blame.
pub(super) fn token_error(error: tr34::Error) -> ServiceError {
    let detail = error.to_string();
    match error {
        tr34::Error::Key => ServiceError::Unavailable { detail },
        _ if error.is_own() => ServiceError::Internal { detail },
        _ => ServiceError::refused(error.check(), detail),
    }
}

//! `/v1/injections`, `/v1/runs` and the keys of a terminal (E5–E8).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{AssignKey, AssignTo, Assigned, RunReport};
use countersign_store::{Injection as Stored, InjectionRun, RunRow};
use data_encoding::HEXUPPER;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::approvals::{Approval, gated};
use super::auth::{Granted, KeysManage, TerminalsRead};
use super::body::{Body, NoBody};
use super::json::{List, timestamp};
use super::problem::{Document, Problem};
use super::query::{Id, InjectionsQuery, Paging, Params};

/// Bytes of a check value that people compare.
const SHOWN_KCV: usize = 3;

/// One key for one place in one terminal.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Injection {
    /// `inj_…`.
    id: String,
    /// The terminal, `trm_…`.
    terminal_id: String,
    /// The key, `key_…`.
    key_id: String,
    /// The place in the terminal.
    slot: u32,
    /// The run it belongs to; null if to none.
    #[schema(required)]
    run_id: Option<String>,
    /// `assigned`, `issued`, `installed`, `failed`, `cancelled` or `replaced`.
    #[schema(example = "installed")]
    state: &'static str,
    /// Tokens that were made for it.
    attempts: u32,
    /// The KDH that signed the latest token; null before there is one.
    #[schema(required)]
    kdh_id: Option<String>,
    /// The key block header in it.
    #[schema(required, example = "D0016K0AD00N0000")]
    header: Option<String>,
    /// The check value that the terminal must report: 3 bytes, hexadecimal.
    #[schema(required, example = "08D7B4")]
    kcv: Option<String>,
    /// The initial key serial number of a DUKPT key, hexadecimal.
    #[schema(required)]
    ksn: Option<String>,
    /// Why it failed.
    #[schema(required, example = "crl-expired")]
    failed_check: Option<String>,
    /// Under which incident the audit has it.
    #[schema(required)]
    incident: Option<String>,
    /// When it was assigned.
    #[schema(format = DateTime)]
    assigned_at: String,
    /// When the latest token was made.
    #[schema(required, format = DateTime)]
    issued_at: Option<String>,
    /// When it was installed, failed, cancelled or replaced.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
}

impl From<Stored> for Injection {
    fn from(stored: Stored) -> Self {
        let shown = |kcv: Vec<u8>| HEXUPPER.encode(&kcv[..kcv.len().min(SHOWN_KCV)]);
        Self {
            id: stored.id,
            terminal_id: stored.device_id,
            key_id: stored.key_id,
            slot: stored.slot,
            run_id: stored.run_id,
            state: stored.state.name(),
            attempts: stored.attempts,
            kdh_id: stored.kdh_id,
            header: stored.header,
            kcv: stored.kcv.map(shown),
            ksn: stored.ksn.map(|ksn| HEXUPPER.encode(&ksn)),
            failed_check: stored.failed_check,
            incident: stored.incident,
            assigned_at: timestamp(stored.assigned_at),
            issued_at: stored.issued_at.map(timestamp),
            ended_at: stored.ended_at.map(timestamp),
        }
    }
}

/// A key for terminals, or for the inventory of a run: one of `terminals` and `run`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = AssignRequest)]
pub(super) struct Assign {
    /// The key, `key_…`.
    key_id: String,
    /// The place in the terminals, 0 to 31.
    #[schema(maximum = 31)]
    slot: u8,
    /// Terminals by id or serial number, 1 to 200.
    #[serde(default)]
    terminals: Option<Vec<String>>,
    /// A run, `run_…`.
    #[serde(default)]
    run: Option<String>,
    /// The approval, once others have agreed.
    #[serde(default)]
    approval_id: Option<String>,
}

/// What was assigned.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Assignments {
    /// Terminals that the key waits for now.
    terminals: usize,
    /// The first 200 of the injections.
    items: Vec<Injection>,
}

/// Assigns a key: each terminal is given it at its next contact, and its old key stays in use until
/// the new one is confirmed.
#[utoipa::path(post, path = "/injections", tag = "injections", operation_id = "assign",
    request_body = Assign, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "Assigned", body = Assignments),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`key-not-active`, `run-closed`, `run-slot-taken` …",
            body = Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn assign(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(body): Body<Assign>,
) -> Result<Response, Problem> {
    let to = match (body.terminals, body.run) {
        (Some(terminals), None) => AssignTo::Terminals(terminals),
        (None, Some(run)) => AssignTo::Run(Id(run).of("run")?),
        _ => {
            let detail = "give either terminals or run";
            return Err(Problem::value("assign-to", detail));
        }
    };
    let key_id = Id(body.key_id).of("key")?;
    let wanted = AssignKey { key_id, slot: body.slot, to };
    let approval = body.approval_id.as_deref();
    let assigned = api.service.assign_key(&granted.actor, &wanted, approval).await?;
    Ok(gated(assigned, |Assigned { terminals, injections }| {
        let items = injections.into_iter().map(Into::into).collect();
        (StatusCode::CREATED, None, Assignments { terminals, items })
    }))
}

/// Injections, newest first.
#[utoipa::path(get, path = "/injections", tag = "injections", operation_id = "injections",
    params(InjectionsQuery), security(("token" = ["terminals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Injection>)))]
pub(super) async fn list(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    Params(query): Params<InjectionsQuery>,
) -> Result<Json<List<Injection>>, Problem> {
    let (filter, cursor, limit) = query.checked()?;
    Ok(Json(List::of(api.service.injections(filter, cursor, limit).await?)))
}

/// One injection.
#[utoipa::path(get, path = "/injections/{id}", tag = "injections", operation_id = "injection",
    params(("id" = String, Path, description = "`inj_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The injection", body = Injection)))]
pub(super) async fn one(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Injection>, Problem> {
    Ok(Json(api.service.injection(&id.of("injection")?).await?.into()))
}

/// Takes back an injection that is not installed yet.
#[utoipa::path(post, path = "/injections/{id}/cancel", tag = "injections",
    operation_id = "cancel_injection",
    params(("id" = String, Path, description = "`inj_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "Cancelled", body = Injection),
        (status = 409, description = "`injection-closed`", body = Document,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Injection>, Problem> {
    let id = id.of("injection")?;
    Ok(Json(api.service.cancel_injection(&granted.actor, &id).await?.into()))
}

/// The keys of a terminal, by place: what was installed last, and what waits or failed since.
#[utoipa::path(get, path = "/terminals/{id}/keys", tag = "terminals",
    operation_id = "terminal_keys",
    params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The keys", body = List<Injection>)))]
pub(super) async fn keys(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<List<Injection>>, Problem> {
    let items = api.service.terminal_keys(&id.of("terminal")?).await?;
    Ok(Json(List::of(countersign_store::Page { items, next: None })))
}

/// An injection run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    /// `run_…`.
    id: String,
    /// Its name among people.
    label: String,
    /// `open` or `closed`.
    #[schema(example = "open")]
    state: &'static str,
    /// When it was begun.
    #[schema(format = DateTime)]
    begun_at: String,
    /// When it was closed.
    #[schema(required, format = DateTime)]
    closed_at: Option<String>,
}

impl From<InjectionRun> for Run {
    fn from(run: InjectionRun) -> Self {
        Self {
            id: run.id,
            label: run.label,
            state: run.state.name(),
            begun_at: timestamp(run.begun_at),
            closed_at: run.closed_at.map(timestamp),
        }
    }
}

/// A key of a run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeyOfRun {
    /// The place in the terminals.
    slot: u32,
    /// The key.
    key_id: String,
}

/// A terminal of a run's inventory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Inventoried {
    /// Its serial number.
    serial: String,
    /// The terminal; null if there is none with this serial number.
    #[schema(required)]
    terminal_id: Option<String>,
    /// `installed`: it has all of the run's keys; `failed`; `missing`.
    #[schema(example = "installed")]
    state: &'static str,
    /// Keys of the run that it has.
    installed: u32,
    /// The latest failed check.
    #[schema(required)]
    failed_check: Option<String>,
}

/// A terminal that is not of the inventory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Stranger {
    /// Its serial number.
    serial: String,
    /// The terminal.
    terminal_id: String,
    /// When it asked for keys with nothing assigned to it.
    #[schema(required, format = DateTime)]
    asked_at: Option<String>,
    /// Where an injection of one of the run's keys into it stands.
    #[schema(required)]
    injection: Option<&'static str>,
}

/// How many terminals stand where.
#[derive(Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase")]
struct Tally {
    installed: usize,
    missing: usize,
    failed: usize,
    unexpected: usize,
}

/// A run against its inventory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reconciliation {
    /// The run.
    run: Run,
    /// Its keys.
    keys: Vec<KeyOfRun>,
    /// How many terminals stand where.
    tally: Tally,
    /// Its inventory.
    terminals: Vec<Inventoried>,
    /// Terminals outside it that got one of its keys, or asked for keys, while it was open.
    unexpected: Vec<Stranger>,
}

impl From<RunReport> for Reconciliation {
    fn from(report: RunReport) -> Self {
        let mut tally = Tally { unexpected: report.unexpected.len(), ..Tally::default() };
        let mut row = |row: &RunRow| {
            let state = report.reconciled(row).name();
            match state {
                "installed" => tally.installed += 1,
                "failed" => tally.failed += 1,
                _ => tally.missing += 1,
            }
            Inventoried {
                serial: row.serial.clone(),
                terminal_id: row.device_id.clone(),
                state,
                installed: row.installed,
                failed_check: row.failed_check.clone(),
            }
        };
        let terminals = report.terminals.iter().map(&mut row).collect();
        let stranger = |one: &countersign_store::Unexpected| Stranger {
            serial: one.serial.clone(),
            terminal_id: one.device_id.clone(),
            asked_at: one.asked_at.map(timestamp),
            injection: one.injection.map(countersign_store::InjectionState::name),
        };
        let key = |key: countersign_store::RunKey| KeyOfRun { slot: key.slot, key_id: key.key_id };
        Self {
            tally,
            terminals,
            unexpected: report.unexpected.iter().map(stranger).collect(),
            keys: report.keys.into_iter().map(key).collect(),
            run: report.run.into(),
        }
    }
}

/// An inventory to inject into.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RunRequest)]
pub(super) struct Begin {
    /// Its name among people: 1 to 100 bytes, unique.
    #[schema(min_length = 1, max_length = 100)]
    label: String,
    /// Serial numbers, 1 to 2000. It does not change afterwards.
    serials: Vec<String>,
}

/// Begins a run over an inventory. Its keys are assigned with `POST /v1/injections`.
#[utoipa::path(post, path = "/runs", tag = "injections", operation_id = "begin_run",
    request_body = Begin, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "Begun", body = Reconciliation,
            headers(("Location" = String, description = "The run"))),
        (status = 409, description = "`run-label-taken`", body = Document,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn begin_run(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(Begin { label, serials }): Body<Begin>,
) -> Result<Response, Problem> {
    let report = api.service.begin_run(&granted.actor, &label, serials).await?;
    let location = format!("/v1/runs/{}", report.run.id);
    let body = Json(Reconciliation::from(report));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Runs, newest first.
#[utoipa::path(get, path = "/runs", tag = "injections", operation_id = "runs", params(Paging),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Run>)))]
pub(super) async fn runs(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Run>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.runs(cursor, limit).await?)))
}

/// A run against its inventory: installed, missing, failed, unexpected.
#[utoipa::path(get, path = "/runs/{id}", tag = "injections", operation_id = "run",
    params(("id" = String, Path, description = "`run_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The reconciliation", body = Reconciliation)))]
pub(super) async fn run(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Reconciliation>, Problem> {
    Ok(Json(api.service.run(&id.of("run")?).await?.into()))
}

/// Closes a run. What still waits is cancelled; what it came to does not change any more.
#[utoipa::path(post, path = "/runs/{id}/close", tag = "injections", operation_id = "close_run",
    params(("id" = String, Path, description = "`run_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "The reconciliation", body = Reconciliation),
        (status = 409, description = "`run-closed`", body = Document,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn close_run(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Reconciliation>, Problem> {
    Ok(Json(api.service.close_run(&granted.actor, &id.of("run")?).await?.into()))
}

//! A reader's record and the decisions of the risk rules (C5), below `/v1/readers/{id}`.

mod shape;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use countersign_service as service;
use countersign_service::Told;
use serde::Serialize;

use super::Api;
use super::auth::{Granted, ReadersBlock, ReadersRead, ReadersReport};
use super::body::Body;
use super::json::List;
use super::problem::Problem;
use super::query::{Id, Ids, Paging, Params};
use super::readers::Reason;
use shape::{
    Decision, Event, Factory, FactoryData, NewReport, NewTransaction, Record, Report, Transaction,
};

/// 201 for what is new, 200 for what was told before.
fn told<T, S: From<T> + Serialize>(told: Told<T>) -> Response {
    let status = if told.created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(S::from(told.stored))).into_response()
}

/// All that is known of a reader.
#[utoipa::path(get, path = "/readers/{id}/record", tag = "risk",
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "The record", body = Record)))]
pub(super) async fn record(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Record>, Problem> {
    let record = api.service.reader_record(&id.of("reader")?).await?;
    Ok(Json(Record::at(api.service.now(), record)))
}

/// Says how a reader was made; the latest word counts.
#[utoipa::path(put, path = "/readers/{id}/factory", tag = "risk", request_body = FactoryData,
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:report"])),
    responses((status = 200, description = "As it is stored", body = Factory)))]
pub(super) async fn set_factory(
    granted: Granted<ReadersReport>,
    State(api): State<Api>,
    id: Id,
    Body(said): Body<FactoryData>,
) -> Result<Json<Factory>, Problem> {
    let FactoryData { maker, model, hardware, firmware, batch, made_on, note } = said;
    let new = service::NewFactory { maker, model, hardware, firmware, batch, made_on, note };
    Ok(Json(api.service.set_factory(&granted.actor, &id.of("reader")?, new).await?.into()))
}

/// Stores a report against a reader. The same reference with the same content changes nothing.
#[utoipa::path(post, path = "/readers/{id}/reports", tag = "risk", request_body = NewReport,
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:report"])),
    responses(
        (status = 201, description = "Stored", body = Report),
        (status = 200, description = "Was told before", body = Report),
        (status = 409, description = "`reference-taken`: told before, with another content",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn report(
    granted: Granted<ReadersReport>,
    State(api): State<Api>,
    id: Id,
    Body(NewReport { kind, text, reference }): Body<NewReport>,
) -> Result<Response, Problem> {
    let new = service::NewReport { kind, text, reference };
    let stored = api.service.report_reader(&granted.actor, &id.of("reader")?, new).await?;
    Ok(told::<_, Report>(stored))
}

/// Reports against a reader, newest first.
#[utoipa::path(get, path = "/readers/{id}/reports", tag = "risk",
    params(("id" = String, Path, description = "`rdr_…`"), Paging),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "A part of the list", body = List<Report>)))]
pub(super) async fn reports(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Report>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.reports(&id.of("reader")?, cursor, limit).await?)))
}

/// Stores a transaction at a reader, as a back office tells it. The same reference with the same
/// content changes nothing.
#[utoipa::path(post, path = "/readers/{id}/transactions", tag = "risk",
    request_body = NewTransaction,
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:report"])),
    responses(
        (status = 201, description = "Stored", body = Transaction),
        (status = 200, description = "Was told before", body = Transaction),
        (status = 409, description = "`reference-taken`: told before, with another content",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn tell_transaction(
    granted: Granted<ReadersReport>,
    State(api): State<Api>,
    id: Id,
    Body(NewTransaction { reference, amount, currency, outcome }): Body<NewTransaction>,
) -> Result<Response, Problem> {
    let new = service::NewTransaction { reference, amount, currency, outcome };
    let stored = api.service.tell_transaction(&granted.actor, &id.of("reader")?, new).await?;
    Ok(told::<_, Transaction>(stored))
}

/// Transactions at a reader, newest first.
#[utoipa::path(get, path = "/readers/{id}/transactions", tag = "risk",
    params(("id" = String, Path, description = "`rdr_…`"), Paging),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "A part of the list", body = List<Transaction>)))]
pub(super) async fn transactions(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Transaction>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.transactions(&id.of("reader")?, cursor, limit).await?)))
}

/// What the rules count of a reader, newest first, as far back as the longest window.
#[utoipa::path(get, path = "/readers/{id}/events", tag = "risk",
    params(("id" = String, Path, description = "`rdr_…`"), Paging),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "A part of the list", body = List<Event>)))]
pub(super) async fn events(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Event>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.risk_events(&id.of("reader")?, cursor, limit).await?)))
}

/// Decisions over a reader, newest first.
#[utoipa::path(get, path = "/readers/{id}/decisions", tag = "risk",
    params(("id" = String, Path, description = "`rdr_…`"), Paging),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "A part of the list", body = List<Decision>)))]
pub(super) async fn decisions(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Decision>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    let page = api.service.decisions(&id.of("reader")?, cursor, limit).await?;
    let now = api.service.now();
    Ok(Json(List::mapped(page, |decision| Decision::at(now, decision))))
}

/// Ends a decision: a block or throttle is lifted at once, on all servers, and its rule counts
/// anew. An operator's own block stays.
#[utoipa::path(post, path = "/readers/{id}/decisions/{decisionId}/reverse", tag = "risk",
    request_body = Reason,
    params(
        ("id" = String, Path, description = "`rdr_…`"),
        ("decisionId" = String, Path, description = "`dec_…`"),
    ),
    security(("token" = ["readers:block"])),
    responses(
        (status = 200, description = "The decision", body = Decision),
        (status = 409, description = "`decision-ended`: it has ended already",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn reverse(
    granted: Granted<ReadersBlock>,
    State(api): State<Api>,
    ids: Ids,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Decision>, Problem> {
    let (id, decision_id) = ids.of("reader", "decision")?;
    let reversed = api.service.reverse_decision(&granted.actor, &id, &decision_id, &reason).await?;
    Ok(Json(Decision::at(api.service.now(), reversed)))
}

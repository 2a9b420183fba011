//! `/v1/approvals`: what others must agree to (interfaces.md, Operators).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{ApprovalRecord, Gated};
use countersign_store as store;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::auth::{ApprovalsRead, ApprovalsVote, Granted};
use super::body::Body;
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{ApprovalsQuery, Id, Params};

/// Something that is done only after others have agreed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Approval {
    /// `apr_…`.
    id: String,
    /// What is to be done.
    #[schema(example = "key.generate")]
    action: String,
    /// All parameters of it.
    #[schema(value_type = Object)]
    subject: Value,
    /// `pending`, `approved`, `rejected`, `expired` or `used`.
    #[schema(example = "pending")]
    state: &'static str,
    /// How many operators beside the one who asks must agree.
    needed: u32,
    /// The operator who asks, and who alone may use the approval.
    requested_by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// From when on it is void, used or not.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<store::Approval> for Approval {
    fn from(approval: store::Approval) -> Self {
        let subject = serde_json::from_str(&approval.subject);
        Self {
            id: approval.id,
            action: approval.action,
            subject: subject.unwrap_or(Value::String(approval.subject)),
            state: approval.state.name(),
            needed: approval.needed,
            requested_by: approval.requested_by,
            created_at: timestamp(approval.created_at),
            expires_at: timestamp(approval.expires_at),
        }
    }
}

/// A vote on it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApprovalVote)]
struct Counted {
    /// Who voted.
    operator_id: String,
    /// `approve` or `reject`.
    #[schema(example = "approve")]
    vote: &'static str,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

/// An approval and its votes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalAndVotes {
    #[serde(flatten)]
    approval: Approval,
    /// The votes counted so far, in order.
    votes: Vec<Counted>,
}

impl From<ApprovalRecord> for ApprovalAndVotes {
    fn from(record: ApprovalRecord) -> Self {
        let counted = |vote: store::ApprovalVote| Counted {
            operator_id: vote.operator_id,
            vote: vote.vote.name(),
            at: timestamp(vote.at),
        };
        Self {
            approval: record.approval.into(),
            votes: record.votes.into_iter().map(counted).collect(),
        }
    }
}

/// The answer of a gated action: 202 with the approval and where it is, or what was done.
pub(super) fn gated<T, S: Serialize>(
    gated: Gated<T>,
    answer: impl FnOnce(T) -> (StatusCode, Option<String>, S),
) -> Response {
    match gated {
        Gated::Pending(approval) => pending(approval),
        Gated::Done(done) => match answer(done) {
            (status, Some(location), body) => {
                (status, [(header::LOCATION, location)], Json(body)).into_response()
            }
            (status, None, body) => (status, Json(body)).into_response(),
        },
    }
}

/// 202: nothing was done yet.
pub(super) fn pending(approval: store::Approval) -> Response {
    let location = format!("/v1/approvals/{}", approval.id);
    let body = Json(Approval::from(approval));
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response()
}

/// The body of a gated action without other parameters.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Approved {
    /// The approval, once others have agreed; without it the answer is 202 and a new one.
    #[serde(default)]
    pub(super) approval_id: Option<String>,
}

/// Approvals, oldest first.
#[utoipa::path(get, path = "/approvals", tag = "approvals", operation_id = "approvals",
    params(ApprovalsQuery), security(("token" = ["approvals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Approval>)))]
pub(super) async fn list(
    _granted: Granted<ApprovalsRead>,
    State(api): State<Api>,
    Params(query): Params<ApprovalsQuery>,
) -> Result<Json<List<Approval>>, Problem> {
    let (state, cursor, limit) = query.checked()?;
    Ok(Json(List::of(api.service.approvals(state, cursor, limit).await?)))
}

/// One approval with its votes.
#[utoipa::path(get, path = "/approvals/{id}", tag = "approvals", operation_id = "approval",
    params(("id" = String, Path, description = "`apr_…`")),
    security(("token" = ["approvals:read"])),
    responses((status = 200, description = "The approval", body = ApprovalAndVotes)))]
pub(super) async fn one(
    _granted: Granted<ApprovalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<ApprovalAndVotes>, Problem> {
    let id = id.of("approval")?;
    Ok(Json(api.service.approval(&id).await?.into()))
}

/// A vote.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewVote {
    /// `approve` or `reject`; one objection suffices.
    #[schema(example = "approve")]
    vote: String,
}

/// Votes on an approval. Whoever asked for it has no vote; others have one each.
#[utoipa::path(post, path = "/approvals/{id}/votes", tag = "approvals",
    operation_id = "vote_on_approval", request_body = NewVote,
    params(("id" = String, Path, description = "`apr_…`")),
    security(("token" = ["approvals:vote"])),
    responses(
        (status = 200, description = "The approval with this vote", body = ApprovalAndVotes),
        (status = 409, description = "`approval-own-request`, `approval-voted`, \
            `approval-settled`, `approval-expired`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn vote(
    granted: Granted<ApprovalsVote>,
    State(api): State<Api>,
    id: Id,
    Body(NewVote { vote }): Body<NewVote>,
) -> Result<Json<ApprovalAndVotes>, Problem> {
    let id = id.of("approval")?;
    let vote = store::Vote::from_name(&vote)
        .ok_or_else(|| Problem::value("vote", "a vote is approve or reject"))?;
    Ok(Json(api.service.vote(&granted.actor, &id, vote).await?.into()))
}

//! `/v1/reads`: that reads happened and how they ended, never what a card said.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use countersign_idcard::Check;
use countersign_store as store;
use countersign_store::ReadState;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, ReadsRead};
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{Id, Params, ReadsQuery};

/// A read of a card. What the card said is not kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Read {
    /// `read_…`.
    id: String,
    /// The reader.
    reader_id: String,
    /// The reader's own name for this read, by which a retry is recognised; hexadecimal.
    client_read_id: String,
    /// Where it stands.
    state: Progress,
    /// The check that failed the latest attempt; `authentication` for all that depend on a
    /// secret, of which the audit has the detail.
    #[schema(required)]
    failed_check: Option<String>,
    /// The SAM that worked on it.
    #[schema(required)]
    sam_id: Option<String>,
    /// Which of the document types it was.
    #[schema(required)]
    document_type: Option<String>,
    /// How often the reader began it.
    attempts: u32,
    /// When the latest attempt began.
    #[schema(format = DateTime)]
    started_at: String,
    /// When it ended; null while it is under way.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
}

/// Where a read stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReadState)]
enum Progress {
    /// Under way.
    Started,
    /// The reader was given the record.
    Done,
    /// The latest attempt failed; the reader may try again.
    Failed,
}

impl From<store::Read> for Read {
    fn from(read: store::Read) -> Self {
        Self {
            id: read.id,
            reader_id: read.device_id,
            client_read_id: hexadecimal(&read.client_read_id),
            state: match read.state {
                ReadState::Started => Progress::Started,
                ReadState::Done => Progress::Done,
                ReadState::Failed => Progress::Failed,
            },
            failed_check: read.failed_check.map(|check| Check::publish(&check).to_owned()),
            sam_id: read.sam_id,
            document_type: read.document_type,
            attempts: read.attempts,
            started_at: timestamp(read.started_at),
            finished_at: read.finished_at.map(timestamp),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Reads, newest first.
#[utoipa::path(get, path = "/reads", operation_id = "list_reads", tag = "reads",
    params(ReadsQuery), security(("token" = ["reads:read"])),
    responses((status = 200, description = "A part of the list", body = List<Read>)))]
pub(super) async fn list(
    _granted: Granted<ReadsRead>,
    State(api): State<Api>,
    Params(query): Params<ReadsQuery>,
) -> Result<Json<List<Read>>, Problem> {
    let (reader_id, cursor, limit) = query.checked()?;
    Ok(Json(List::of(api.service.reads(reader_id, cursor, limit).await?)))
}

/// One read.
#[utoipa::path(get, path = "/reads/{id}", operation_id = "one_read", tag = "reads",
    params(("id" = String, Path, description = "`read_…`")),
    security(("token" = ["reads:read"])),
    responses((status = 200, description = "The read", body = Read)))]
pub(super) async fn one(
    _granted: Granted<ReadsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Read>, Problem> {
    let read = api.service.read(&id.of("read")?).await?;
    Ok(Json(read.into()))
}

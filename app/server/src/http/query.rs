//! What stands in the URL: ids and the query of lists.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Path, Query};
use axum::http::request::Parts;
use countersign_payment::{AccountNumber, State};
use countersign_store::{ApprovalState, InjectionFilter, InjectionState, MAX_ID_LEN, MAX_PAGE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::Api;
use super::problem::Problem;

/// Longest serial number that is looked for, in bytes.
const SERIAL_MAX: usize = 64;
/// Items of a list if the query does not say.
const LIMIT_DEFAULT: u32 = 50;
/// Longest that one request waits for a change, in seconds: less than a request may take.
pub(super) const WAIT_MAX: u64 = 25;
const _: () = assert!(WAIT_MAX < super::REQUEST_TIMEOUT.as_secs());

/// Whether this can be an id or a cursor: what no id looks like never reaches the database.
fn id_like(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
    !text.is_empty() && text.len() <= MAX_ID_LEN && text.bytes().all(allowed)
}

/// The `{id}` of a path. What cannot be an id does not exist.
pub(super) struct Id(pub(super) String);

impl Id {
    /// The id, or the problem that there is no such `what`.
    pub(super) fn of(self, what: &str) -> Result<String, Problem> {
        if id_like(&self.0) { Ok(self.0) } else { Err(Problem::not_found(what)) }
    }
}

impl FromRequestParts<Api> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, api).await?;
        Ok(Self(id))
    }
}

/// Who is at the other end of the connection, by address; for the audit and for limits.
pub(super) struct Peer(pub(super) String);

impl FromRequestParts<Api> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        let known = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(known.map_or_else(|| "unknown".to_owned(), |info| info.0.ip().to_string())))
    }
}

/// A query of a known shape; unknown and repeated parameters are refused.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Query(query) = Query::from_request_parts(parts, api).await?;
        Ok(Self(query))
    }
}

/// Where a list goes on and how much of it to send.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// `next` of the page before; the first page without it.
    pub(super) cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u32>,
}

impl Paging {
    /// Cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(Option<String>, u32), Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=MAX_PAGE).contains(&limit) {
            let detail = format!("limit is a number from 1 to {MAX_PAGE}");
            return Err(Problem::query("page-limit", detail));
        }
        match self.cursor {
            Some(cursor) if !id_like(&cursor) => {
                let detail = "cursor is the next of the page before";
                Err(Problem::query("page-cursor", detail))
            }
            cursor => Ok((cursor, limit)),
        }
    }
}

/// The ids of a path with two.
pub(super) struct Ids(String, String);

impl Ids {
    /// The two ids, or the problem that there is no such `first` or `second`.
    pub(super) fn of(self, first: &str, second: &str) -> Result<(String, String), Problem> {
        let (one, two) = (Id(self.0).of(first)?, Id(self.1).of(second)?);
        Ok((one, two))
    }
}

impl FromRequestParts<Api> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path((one, two)) = Path::<(String, String)>::from_request_parts(parts, api).await?;
        Ok(Self(one, two))
    }
}

/// The query of a list of devices.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SerialQuery {
    /// Only the device with this serial number: one or none.
    pub(super) serial: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl SerialQuery {
    /// The serial number, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(Option<String>, Option<String>, u32), Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        match self.serial {
            Some(serial) if serial.is_empty() || serial.len() > SERIAL_MAX => {
                let detail = format!("serial is a serial number, 1 to {SERIAL_MAX} bytes");
                Err(Problem::query("serial", detail))
            }
            serial => Ok((serial, cursor, limit)),
        }
    }
}

/// The query of the list of reads.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadsQuery {
    /// Only the reads of this reader.
    reader_id: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl ReadsQuery {
    /// The reader, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(Option<String>, Option<String>, u32), Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        match self.reader_id {
            Some(id) if !id_like(&id) => {
                Err(Problem::query("reader-id", "readerId is the id of a reader"))
            }
            reader_id => Ok((reader_id, cursor, limit)),
        }
    }
}

/// The query of the list of approvals.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApprovalsQuery {
    /// Only those in this state: `pending`, `approved`, `rejected`, `expired` or `used`.
    state: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl ApprovalsQuery {
    /// The state, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(Option<ApprovalState>, Option<String>, u32), Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        let state = self.state.map(|name| {
            let detail = "state is pending, approved, rejected, expired or used";
            ApprovalState::from_name(&name).ok_or_else(|| Problem::query("approval-state", detail))
        });
        Ok((state.transpose()?, cursor, limit))
    }
}

/// The query of the list of injections.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InjectionsQuery {
    /// Only those into this terminal.
    terminal_id: Option<String>,
    /// Only those of this key.
    key_id: Option<String>,
    /// Only those of this run.
    run_id: Option<String>,
    /// Only those in this state: `assigned`, `issued`, `installed`, `failed`, `cancelled` or
    /// `replaced`.
    state: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl InjectionsQuery {
    /// The filter, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(InjectionFilter, Option<String>, u32), Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        let state = self.state.map(|name| {
            let detail = "state is assigned, issued, installed, failed, cancelled or replaced";
            let state = InjectionState::from_name(&name);
            state.ok_or_else(|| Problem::query("injection-state", detail))
        });
        let filter = InjectionFilter {
            device_id: filter_id(self.terminal_id, "terminal-id")?,
            key_id: filter_id(self.key_id, "key-id")?,
            run_id: filter_id(self.run_id, "run-id")?,
            state: state.transpose()?,
        };
        Ok((filter, cursor, limit))
    }
}

fn filter_id(id: Option<String>, check: &'static str) -> Result<Option<String>, Problem> {
    match id {
        Some(id) if !id_like(&id) => Err(Problem::query(check, "what is asked for is not an id")),
        id => Ok(id),
    }
}

/// The query of the list of payments.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PaymentsQuery {
    /// Only those in this state: `created`, `pending`, `approved`, `executing`, `executed`,
    /// `rejected`, `expired`, `failed`, `cancelled` or `execution_failed`.
    status: Option<String>,
    /// Only those that the account with this number pays; needs `accounts:read` too.
    debtor_account: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl PaymentsQuery {
    /// The state, the payer's account number, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<PaymentsAsked, Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        let state = self.status.map(|name| {
            let detail = "status is a state of payments, for instance pending";
            State::from_name(&name).ok_or_else(|| Problem::query("payment-status", detail))
        });
        let payer = account_number(self.debtor_account)?;
        Ok(PaymentsAsked { state: state.transpose()?, payer, cursor, limit })
    }
}

/// Which payments are asked for.
pub(super) struct PaymentsAsked {
    pub(super) state: Option<State>,
    /// The number of an account.
    pub(super) payer: Option<String>,
    pub(super) cursor: Option<String>,
    pub(super) limit: u32,
}

/// What no account number looks like never reaches the database.
fn account_number(number: Option<String>) -> Result<Option<String>, Problem> {
    match number {
        Some(number) if AccountNumber::parse(&number).is_err() => {
            Err(Problem::query("account-number", "what is asked for is no account number"))
        }
        number => Ok(number),
    }
}

/// How long to wait for what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Seconds to wait until the payment's version is another than `version`, or nothing follows
    /// its state.
    #[param(minimum = 1, maximum = 25)]
    wait: Option<u64>,
    /// The version that the client has seen; without it, any change is waited for.
    version: Option<i64>,
}

impl WaitQuery {
    /// How long to wait, if at all, and the version that was seen; checked.
    pub(super) fn checked(self) -> Result<Option<(Duration, Option<i64>)>, Problem> {
        match self.wait {
            None if self.version.is_some() => Err(Problem::query("wait", "version goes with wait")),
            None => Ok(None),
            Some(seconds) if !(1..=WAIT_MAX).contains(&seconds) => {
                let detail = format!("wait is a number of seconds from 1 to {WAIT_MAX}");
                Err(Problem::query("wait", detail))
            }
            Some(seconds) => Ok(Some((Duration::from_secs(seconds), self.version))),
        }
    }
}

/// The query of the list of accounts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountsQuery {
    /// Only the account with this number: one or none.
    identification: Option<String>,
    /// `next` of the page before; the first page without it.
    cursor: Option<String>,
    /// Most items to send.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

impl AccountsQuery {
    /// The number, cursor and limit, checked.
    pub(super) fn checked(self) -> Result<(Option<String>, Option<String>, u32), Problem> {
        let (cursor, limit) = Paging { cursor: self.cursor, limit: self.limit }.checked()?;
        Ok((account_number(self.identification)?, cursor, limit))
    }
}

//! `/v1/keys` and `/v1/keks`: the keys that are injected, and those under which they come (E4).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use countersign_service::{ExportKey, ImportKey, KeyToMake, NewKsn};
use countersign_store::{KeyRecord, KeyScope, KsnSeries};
use data_encoding::{HEXUPPER, HEXUPPER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::approvals::{Approval, Approved, gated};
use super::auth::{Granted, KeysManage, KeysRead};
use super::body::Body;
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params};

/// A key for injection. Never its value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    /// `key_…`.
    id: String,
    /// Its unique name.
    name: String,
    /// `shared`: all terminals get the same; `per-terminal`: each injection a fresh value; `dukpt`:
    /// each injection an initial key derived from this base derivation key.
    #[schema(example = "per-terminal")]
    scope: &'static str,
    /// `pending` until its value is made, `active`, or `retired`: erased.
    #[schema(example = "active")]
    state: &'static str,
    /// `generated` or `imported`.
    #[schema(example = "generated")]
    origin: &'static str,
    /// Key usage (TR-31).
    #[schema(example = "K0")]
    usage: String,
    /// Algorithm (TR-31).
    #[schema(example = "A")]
    algorithm: String,
    /// Mode of use (TR-31).
    #[schema(example = "D")]
    mode: String,
    /// Exportability (TR-31).
    #[schema(example = "N")]
    exportability: String,
    /// Length in bytes.
    length: u32,
    /// Check value, hex: CMAC for AES, legacy for TDES; null where each terminal has a value of its
    /// own, and while pending.
    #[schema(required)]
    kcv: Option<String>,
    /// The key-encrypting key under which it came; null if it was made here.
    #[schema(required)]
    kek_id: Option<String>,
    /// Its serial numbers; null unless its scope is `dukpt`.
    #[schema(required)]
    ksn: Option<Ksn>,
    /// For how many different terminals a value of it was prepared.
    terminals: u32,
    /// The operator who made it or took it in.
    created_by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it could first be injected; null while pending.
    #[schema(required, format = DateTime)]
    activated_at: Option<String>,
    /// When it was erased; null if it was not.
    #[schema(required, format = DateTime)]
    retired_at: Option<String>,
}

/// The serial numbers of a DUKPT key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KsnSeries)]
struct Ksn {
    /// The key set identifier (TDES) or the base derivation key's identifier (AES), hex.
    #[schema(example = "FFFF987654")]
    base: String,
    /// The first device number.
    first: i64,
    /// The last one.
    last: i64,
    /// How many are left to give out.
    left: i64,
}

impl From<KsnSeries> for Ksn {
    fn from(series: KsnSeries) -> Self {
        Self {
            base: HEXUPPER.encode(&series.base),
            first: series.first,
            last: series.end - 1,
            left: series.end - series.next,
        }
    }
}

impl From<KeyRecord> for Key {
    fn from(KeyRecord { key, terminals }: KeyRecord) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scope: key.scope.name(),
            state: key.state.name(),
            origin: key.origin.name(),
            usage: key.usage,
            algorithm: key.algorithm,
            mode: key.mode,
            exportability: key.exportability,
            length: key.length,
            kcv: key.kcv,
            kek_id: key.kek_id,
            ksn: key.ksn.map(Into::into),
            terminals,
            created_by: key.created_by,
            created_at: timestamp(key.created_at),
            activated_at: key.activated_at.map(timestamp),
            retired_at: key.retired_at.map(timestamp),
        }
    }
}

/// The serial numbers that a DUKPT key is to give out.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKsnSeries)]
pub(super) struct KsnWanted {
    /// The key set identifier (TDES, 5 bytes) or the base derivation key's identifier (AES, 4
    /// bytes), hex. No two keys ever have the same.
    #[schema(example = "FFFF987654")]
    base: String,
    /// The first device number.
    #[serde(default)]
    first: u32,
    /// The last one; without it as many as there is room for.
    #[serde(default)]
    last: Option<u32>,
}

impl KsnWanted {
    fn checked(self) -> Result<NewKsn, Problem> {
        let base = HEXUPPER_PERMISSIVE
            .decode(self.base.as_bytes())
            .map_err(|_| Problem::value("ksn-base", "the base of serial numbers is hex"))?;
        Ok(NewKsn { base, first: self.first, last: self.last })
    }
}

fn scope_of(name: &str) -> Result<KeyScope, Problem> {
    let detail = "the scope is shared, per-terminal or dukpt";
    KeyScope::from_name(name).ok_or_else(|| Problem::value("key-scope", detail))
}

/// A key that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewKey {
    /// Its unique name, 1 to 64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// `shared`, `per-terminal` or `dukpt`.
    #[schema(example = "per-terminal")]
    scope: String,
    /// Key usage (TR-31); `B0` for the scope `dukpt`, and only for that.
    #[schema(example = "K0")]
    usage: String,
    /// `A` (AES) or `T` (TDES).
    #[schema(example = "A")]
    algorithm: String,
    /// Mode of use (TR-31).
    #[schema(example = "D")]
    mode: String,
    /// `N`, `E` or `S`.
    #[serde(default = "not_exportable")]
    #[schema(example = "N")]
    exportability: String,
    /// Bytes: AES 16, 24 or 32; TDES 16 or 24, for `dukpt` 16.
    #[schema(example = 16)]
    length: u32,
    /// For the scope `dukpt`, and only for that.
    #[serde(default)]
    ksn: Option<KsnWanted>,
    /// The approval, once others have agreed.
    #[serde(default)]
    approval_id: Option<String>,
}

fn not_exportable() -> String {
    "N".to_owned()
}

/// Makes a key, in the token where there is one.
#[utoipa::path(post, path = "/keys", tag = "keys", operation_id = "generate_key",
    request_body = NewKey, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "Made; pending while the vault is away", body = Key,
            headers(("Location" = String, description = "The key"))),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`key-name-taken`, `ksn-base-taken`, `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn generate(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(new): Body<NewKey>,
) -> Result<Response, Problem> {
    let wanted = KeyToMake {
        name: new.name,
        scope: scope_of(&new.scope)?,
        usage: new.usage,
        algorithm: new.algorithm,
        mode: new.mode,
        exportability: new.exportability,
        length: new.length,
        ksn: new.ksn.map(KsnWanted::checked).transpose()?,
    };
    let approval = new.approval_id.as_deref();
    Ok(gated(api.service.generate_key(&granted.actor, &wanted, approval).await?, created))
}

fn created(record: KeyRecord) -> (StatusCode, Option<String>, Key) {
    let location = format!("/v1/keys/{}", record.key.id);
    (StatusCode::CREATED, Some(location), record.into())
}

/// A key that comes as a TR-31 block.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Import {
    /// Its unique name, 1 to 64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// `kek_…`: the key-encrypting key that protects the block.
    kek_id: String,
    /// The TR-31 block. Usage, algorithm, mode and exportability of the key are the block's.
    block: String,
    /// `shared` or `dukpt`.
    #[schema(example = "shared")]
    scope: String,
    /// For the scope `dukpt`, and only for that.
    #[serde(default)]
    ksn: Option<KsnWanted>,
    /// Departures from X9.143 to forgive: `lower-case-hex`, `extended-length-04`,
    /// `unknown-optional-block`, `optional-block-padding`, `no-length-obfuscation`.
    #[serde(default)]
    lenient: Vec<String>,
    /// The approval, once others have agreed.
    #[serde(default)]
    approval_id: Option<String>,
}

/// Takes a key in. What TR-31 refuses is refused under its name, before anybody is asked.
#[utoipa::path(post, path = "/keys/import", tag = "keys", operation_id = "import_key",
    request_body = Import, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "Taken in", body = Key,
            headers(("Location" = String, description = "The key"))),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`key-name-taken`, `kek-not-active`, `ksn-base-taken`, \
            `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn import(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(new): Body<Import>,
) -> Result<Response, Problem> {
    let wanted = ImportKey {
        name: new.name,
        kek_id: new.kek_id,
        block: new.block,
        scope: scope_of(&new.scope)?,
        ksn: new.ksn.map(KsnWanted::checked).transpose()?,
        lenient: new.lenient,
    };
    let approval = new.approval_id.as_deref();
    Ok(gated(api.service.import_key(&granted.actor, &wanted, approval).await?, created))
}

/// Keys for injection, oldest first.
#[utoipa::path(get, path = "/keys", tag = "keys", operation_id = "keys", params(Paging),
    security(("token" = ["keys:read"])),
    responses((status = 200, description = "A part of the list", body = List<Key>)))]
pub(super) async fn list(
    _granted: Granted<KeysRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Key>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.keys(cursor, limit).await?)))
}

/// One key.
#[utoipa::path(get, path = "/keys/{id}", tag = "keys", operation_id = "key",
    params(("id" = String, Path, description = "`key_…`")),
    security(("token" = ["keys:read"])),
    responses((status = 200, description = "The key", body = Key)))]
pub(super) async fn one(
    _granted: Granted<KeysRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Key>, Problem> {
    let id = id.of("key")?;
    Ok(Json(api.service.key(&id).await?.into()))
}

/// Erases a key, and what was made of it for terminals. What terminals have, they keep.
#[utoipa::path(post, path = "/keys/{id}/retire", tag = "keys", operation_id = "retire_key",
    request_body = Approved, params(("id" = String, Path, description = "`key_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "The key, erased", body = Key),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`key-retired`, `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn retire(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    Body(Approved { approval_id }): Body<Approved>,
) -> Result<Response, Problem> {
    let id = id.of("key")?;
    let retired = api.service.retire_key(&granted.actor, &id, approval_id.as_deref()).await?;
    Ok(gated(retired, |record| (StatusCode::OK, None, Key::from(record))))
}

/// How a key is to leave.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Export {
    /// `kek_…`: the key-encrypting key that is to protect the block.
    kek_id: String,
    /// The block's version; without it `D` under an AES key and `B` under a TDES key.
    #[serde(default)]
    version: Option<String>,
    /// `inj_…`: the value that this injection sends, instead of the key itself.
    #[serde(default)]
    injection_id: Option<String>,
    /// The approval, once others have agreed.
    #[serde(default)]
    approval_id: Option<String>,
}

/// A key that leaves.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exported {
    /// The TR-31 block.
    block: String,
    /// The key's check value, hex.
    kcv: String,
}

/// Wraps a key under a key-encrypting key (TR-31), unless its exportability is `N`.
#[utoipa::path(post, path = "/keys/{id}/export", tag = "keys", operation_id = "export_key",
    request_body = Export, params(("id" = String, Path, description = "`key_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "The block", body = Exported),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`key-not-active`, `kek-not-active`, `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn export(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    Body(how): Body<Export>,
) -> Result<Response, Problem> {
    let id = id.of("key")?;
    let Export { kek_id, version, injection_id, approval_id } = how;
    let how = ExportKey { kek_id, version, injection_id };
    let exported = api.service.export_key(&granted.actor, &id, &how, approval_id.as_deref());
    Ok(gated(exported.await?, |exported| {
        (StatusCode::OK, None, Exported { block: exported.block, kcv: exported.kcv })
    }))
}

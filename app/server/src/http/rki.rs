//! `/v1/rki` and `/v1/rebinds`: the hierarchy of key injection, and campaigns that bind terminals
//! to another KDH (E2).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use countersign_service::{AuthorityStatus, RkiStatus};
use countersign_store::{AuthorityRole, RebindCampaign, RebindTerminal, StoredCrl};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::approvals::{Approval, Approved, gated};
use super::auth::{Granted, KeysManage, TerminalsRead};
use super::body::{Body, NoBody};
use super::json::{List, certificate_pem, crl_pem, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params};

/// The injection hierarchy.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rki {
    /// Where its private keys live, as the vault says of itself.
    #[schema(example = "sealed files")]
    vault: String,
    /// Every generation, the newest first.
    authorities: Vec<Authority>,
}

/// A member of the hierarchy.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RkiAuthority)]
pub(super) struct Authority {
    /// `rka_…`.
    id: String,
    /// `root`, `ca-krd` (certifies terminals), `ca-kdh` (certifies KDHs), `kdh` (signs tokens).
    #[schema(example = "kdh")]
    role: &'static str,
    /// From 1 in each role.
    generation: u32,
    /// `intended`, `active`, `retiring`, `retired` or `revoked`.
    #[schema(example = "active")]
    state: &'static str,
    /// Who certified it; null for a root.
    #[schema(required)]
    issuer_id: Option<String>,
    /// Length of its RSA key.
    bits: u32,
    /// Serial number of its certificate, lower-case hexadecimal; null until it is issued.
    #[schema(required)]
    serial: Option<String>,
    /// Its certificate, PEM; null until it is issued.
    #[schema(required)]
    certificate: Option<String>,
    /// Until when that holds.
    #[schema(required, format = DateTime)]
    not_after: Option<String>,
    /// Why it was revoked; null if it was not.
    #[schema(required)]
    end_reason: Option<String>,
    /// Terminals that are bound to it: of a KDH.
    bound: u64,
    /// Its newest CRL: of a CA; null if there is none.
    #[schema(required)]
    crl: Option<Crl>,
}

/// A CRL.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Crl {
    /// Its number.
    number: u64,
    /// How many certificates it lists.
    listed: u32,
    /// When it was made.
    #[schema(format = DateTime)]
    this_update: String,
    /// Until when it holds.
    #[schema(format = DateTime)]
    next_update: String,
    /// The CRL, PEM.
    crl: String,
}

impl From<StoredCrl> for Crl {
    fn from(crl: StoredCrl) -> Self {
        Self {
            number: crl.number,
            listed: crl.listed,
            this_update: timestamp(crl.this_update),
            next_update: timestamp(crl.next_update),
            crl: crl_pem(&crl.der.unwrap_or_default()),
        }
    }
}

impl From<AuthorityStatus> for Authority {
    fn from(status: AuthorityStatus) -> Self {
        let AuthorityStatus { authority, bound, crl } = status;
        Self {
            id: authority.id,
            role: authority.role.name(),
            generation: authority.generation,
            state: authority.state.name(),
            issuer_id: authority.issuer_id,
            bits: authority.bits,
            serial: authority.serial,
            certificate: authority.der.as_deref().map(certificate_pem),
            not_after: authority.not_after.map(timestamp),
            end_reason: authority.end_reason,
            bound,
            crl: crl.map(Into::into),
        }
    }
}

impl From<RkiStatus> for Rki {
    fn from(status: RkiStatus) -> Self {
        let authorities = status.authorities.into_iter().map(Into::into).collect();
        Self { vault: status.vault, authorities }
    }
}

/// The injection hierarchy and its CRLs.
#[utoipa::path(get, path = "/rki", tag = "injection", operation_id = "rki",
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "All generations", body = Rki)))]
pub(super) async fn status(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
) -> Result<Json<Rki>, Problem> {
    Ok(Json(api.service.rki_status().await?.into()))
}

/// What is to be rolled over.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RollRequest)]
pub(super) struct Roll {
    /// `kdh`, `ca-kdh` (a KDH under it comes with it) or `ca-krd`.
    #[schema(example = "kdh")]
    role: String,
    /// Length of the new RSA key: 2048, 3072 or 4096; as before without it.
    bits: Option<u32>,
    /// The approval, once others have agreed; without it the answer is 202 and a new one.
    approval_id: Option<String>,
}

/// Makes the next generation of a role and puts it into use; the one before is retiring.
#[utoipa::path(post, path = "/rki/roll", tag = "injection", operation_id = "roll_authority",
    request_body = Roll, security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "Done", body = Rki),
        (status = 202, description = "Others must agree first", body = Approval),
        (status = 409, description = "`rki-not-initialised`, `roll-under-way`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn roll(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(Roll { role, bits, approval_id }): Body<Roll>,
) -> Result<Response, Problem> {
    let role = AuthorityRole::from_name(&role)
        .ok_or_else(|| Problem::value("authority-role", "role is kdh, ca-kdh or ca-krd"))?;
    let approval = approval_id.as_deref();
    let rolled = api.service.roll_authority(&granted.actor, role, bits, approval).await?;
    Ok(gated(rolled, |status| (StatusCode::OK, None, Rki::from(status))))
}

/// Why a KDH is revoked.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RevokeAuthorityRequest)]
pub(super) struct Revoke {
    /// 1 to 200 bytes, no control characters.
    #[schema(min_length = 1, max_length = 200)]
    reason: String,
    /// The approval, once others have agreed; without it the answer is 202 and a new one.
    approval_id: Option<String>,
}

/// Revokes a KDH: it stands on the next CRL, which is made at once.
#[utoipa::path(post, path = "/rki/authorities/{id}/revoke", tag = "injection",
    operation_id = "revoke_authority", request_body = Revoke,
    params(("id" = String, Path, description = "`rka_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "Done", body = Rki),
        (status = 202, description = "Others must agree first", body = Approval),
        (status = 409, description = "`authority-ended`: it is revoked already",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    Body(Revoke { reason, approval_id }): Body<Revoke>,
) -> Result<Response, Problem> {
    let (id, approval) = (id.of("authority")?, approval_id.as_deref());
    let revoked = api.service.revoke_authority(&granted.actor, &id, &reason, approval).await?;
    Ok(gated(revoked, |status| (StatusCode::OK, None, Rki::from(status))))
}

/// A CA's CRL, valid now; made anew if it has to be.
#[utoipa::path(get, path = "/rki/authorities/{id}/crl", tag = "injection",
    operation_id = "authority_crl", params(("id" = String, Path, description = "`rka_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The CRL", body = Crl)))]
pub(super) async fn crl(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Crl>, Problem> {
    Ok(Json(api.service.authority_crl(&id.of("CA")?).await?.into()))
}

/// A rebind campaign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RebindCampaign)]
pub(super) struct Campaign {
    /// `reb_…`.
    id: String,
    /// The KDH to bind to, `rka_…`.
    to_kdh: String,
    /// `open`, `done` or `cancelled`.
    #[schema(example = "open")]
    state: &'static str,
    /// Who began it.
    by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended; null while it is open.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// Terminals that have not been in contact yet.
    open: u32,
    /// Terminals that were rebound.
    done: u32,
    /// Terminals whose last try failed; their next contact tries again.
    failed: u32,
}

impl From<RebindCampaign> for Campaign {
    fn from(campaign: RebindCampaign) -> Self {
        Self {
            id: campaign.id,
            to_kdh: campaign.to_kdh,
            state: campaign.state.name(),
            by: campaign.actor,
            created_at: timestamp(campaign.created_at),
            ended_at: campaign.ended_at.map(timestamp),
            open: campaign.open,
            done: campaign.done,
            failed: campaign.failed,
        }
    }
}

/// A terminal within a rebind campaign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RebindTerminal)]
pub(super) struct Member {
    /// `trm_…`.
    terminal_id: String,
    /// Its serial number.
    serial: String,
    /// The KDH that it was bound to, `rka_…`.
    from_kdh: String,
    /// `open`, `done` or `failed`.
    #[schema(example = "done")]
    state: &'static str,
    /// The check that failed last; null if none did.
    #[schema(required)]
    check: Option<String>,
    /// Since when.
    #[schema(format = DateTime)]
    at: String,
}

impl From<RebindTerminal> for Member {
    fn from(member: RebindTerminal) -> Self {
        Self {
            terminal_id: member.device_id,
            serial: member.serial,
            from_kdh: member.from_kdh,
            state: member.progress.name(),
            check: member.failed_check,
            at: timestamp(member.at),
        }
    }
}

/// Begins a rebind campaign: every terminal that is bound to an older KDH is bound to the one in
/// use at its next contact.
#[utoipa::path(post, path = "/rebinds", tag = "injection", operation_id = "begin_rebind",
    request_body = Approved, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "Begun", body = Campaign,
            headers(("Location" = String, description = "The campaign"))),
        (status = 202, description = "Others must agree first", body = Approval),
        (status = 409, description = "`rebind-open`, `rki-no-kdh`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn begin_rebind(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(Approved { approval_id }): Body<Approved>,
) -> Result<Response, Problem> {
    let begun = api.service.begin_rebind(&granted.actor, approval_id.as_deref()).await?;
    Ok(gated(begun, |campaign| {
        let location = format!("/v1/rebinds/{}", campaign.id);
        (StatusCode::CREATED, Some(location), Campaign::from(campaign))
    }))
}

/// Rebind campaigns, newest first.
#[utoipa::path(get, path = "/rebinds", tag = "injection", operation_id = "rebinds",
    params(Paging), security(("token" = ["terminals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Campaign>)))]
pub(super) async fn rebinds(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Campaign>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.rebinds(cursor, limit).await?)))
}

/// One rebind campaign.
#[utoipa::path(get, path = "/rebinds/{id}", tag = "injection", operation_id = "rebind",
    params(("id" = String, Path, description = "`reb_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The campaign", body = Campaign)))]
pub(super) async fn rebind(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Campaign>, Problem> {
    Ok(Json(api.service.rebind(&id.of("rebind campaign")?).await?.into()))
}

/// The terminals of a rebind campaign, and how far each is.
#[utoipa::path(get, path = "/rebinds/{id}/terminals", tag = "injection",
    operation_id = "rebind_terminals",
    params(("id" = String, Path, description = "`reb_…`"), Paging),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Member>)))]
pub(super) async fn rebind_terminals(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Member>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    let id = id.of("rebind campaign")?;
    Ok(Json(List::of(api.service.rebind_terminals(&id, cursor, limit).await?)))
}

/// Ends an open rebind campaign; terminals that were rebound stay so.
#[utoipa::path(post, path = "/rebinds/{id}/cancel", tag = "injection",
    operation_id = "cancel_rebind", params(("id" = String, Path, description = "`reb_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "The campaign", body = Campaign),
        (status = 409, description = "`rebind-ended`: it is not open",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel_rebind(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Campaign>, Problem> {
    let id = id.of("rebind campaign")?;
    Ok(Json(api.service.cancel_rebind(&granted.actor, &id).await?.into()))
}

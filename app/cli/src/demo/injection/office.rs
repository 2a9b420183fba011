//! The operators: one asks, another agrees, a third enters the other component.

use std::sync::Arc;

use countersign_device::Api;
use serde_json::Value;

use crate::demo::blocking;
use crate::failure::Failure;

/// Three operators with tokens of their own.
pub(super) struct Office {
    /// Asks, and enters the first component.
    pub(super) keeper: Arc<Api>,
    /// Agrees.
    pub(super) approver: Arc<Api>,
    /// Enters the second component.
    pub(super) custodian: Arc<Api>,
}

impl Office {
    /// What the API answers the keeper.
    pub(super) async fn see(&self, path: &str) -> Result<Value, Failure> {
        let (api, path) = (self.keeper.clone(), path.to_owned());
        blocking(move || Ok(api.get(&path)?)).await
    }

    /// A POST that nobody has to agree to.
    pub(super) async fn done(&self, path: &str, body: Value) -> Result<Value, Failure> {
        post(&self.keeper, path, body).await
    }

    /// A POST that the approver agrees to before it is done.
    pub(super) async fn agreed(&self, path: &str, body: Value) -> Result<Value, Failure> {
        let asked = post(&self.keeper, path, body.clone()).await?;
        self.agree(&asked).await?;
        self.repeat(path, body, &asked).await
    }

    /// The approver's vote.
    pub(super) async fn agree(&self, asked: &Value) -> Result<Value, Failure> {
        vote(&self.approver, asked).await
    }

    /// The keeper's own vote, which must be refused.
    pub(super) async fn agree_with_oneself(&self, asked: &Value) -> Result<Value, Failure> {
        vote(&self.keeper, asked).await
    }

    /// The same POST once others have agreed.
    pub(super) async fn repeat(
        &self,
        path: &str,
        mut body: Value,
        asked: &Value,
    ) -> Result<Value, Failure> {
        body["approvalId"] = asked["id"].clone();
        post(&self.keeper, path, body).await
    }
}

async fn vote(api: &Arc<Api>, asked: &Value) -> Result<Value, Failure> {
    let id = asked["id"].as_str().unwrap_or_default();
    let path = format!("/v1/approvals/{id}/votes");
    post(api, &path, serde_json::json!({ "vote": "approve" })).await
}

/// A POST in an operator's name.
pub(super) async fn post(api: &Arc<Api>, path: &str, body: Value) -> Result<Value, Failure> {
    let (api, path) = (api.clone(), path.to_owned());
    blocking(move || Ok(api.post(&path, &body)?)).await
}

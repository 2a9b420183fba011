//! `countersign demo`: every flow, on loopback ports and in a directory of its own.

mod bank;
mod idcard;
mod injection;
mod joint;
mod payments;
mod steps;
mod wallet;

use std::path::Path;

use countersign_crypto::{Secret, Suite};
use countersign_server::Config;
use serde_json::json;

use crate::failure::Failure;
use crate::init;
use crate::output::Output;

/// Runs all flows. Ends well only if every step's effect was checked and right.
pub(crate) async fn run(json: bool) -> Result<Output, Failure> {
    let flows = [
        idcard::run(json).await?,
        injection::run(json).await?,
        payments::run(json).await?,
        joint::run(json).await?,
        wallet::run(json).await?,
    ];
    let ok = flows.iter().all(steps::Flow::ok);
    let steps = flows.iter().map(|flow| flow.steps.len()).sum::<usize>();
    let verdict = if ok { "all checked" } else { "NOT all right" };
    let text = format!("{steps} steps, {verdict}");
    let flows: Vec<_> = flows.iter().map(steps::Flow::to_json).collect();
    let output = Output::new(json!({ "ok": ok, "flows": flows }), text);
    Ok(Output { refused: !ok, ..output })
}

/// Runs work that blocks (the API client does) beside the server's tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|error| Failure::environment("task", error.to_string()))?
}

/// Makes a flow's data directory; returns the first operator's token.
async fn make_data_dir(
    data: &Path,
    server_id: &str,
    passphrase: &Secret,
) -> Result<String, Failure> {
    let config = Config::default();
    let plan = init::Plan {
        suite: Suite::X25519_P256_AES128GCM_SHA256,
        server_id: Some(server_id.into()),
        tls_names: &[],
        config: &config,
        passphrase,
        keep_passphrase: false,
    };
    Ok(init::make(data, plan, None).await?.token.secret.to_string())
}

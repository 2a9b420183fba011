//! `webhook`: who is told what happens (D6), what came of it, and a receiver to try it with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};
use countersign_server::{ReceivedWebhook, WebhookReceiver, ambient, webhook_secret};
use serde_json::{Value, json};

use crate::device::{Client, read_file};
use crate::failure::Failure;
use crate::output::{Output, print};
use crate::reader::{all, encoded};

/// Most events that `receive` waits for.
const COUNT_MAX: i64 = 10_000;

/// Webhooks: who is told what happens.
#[derive(Subcommand)]
pub(crate) enum WebhookCommand {
    /// Register a receiver of events; prints its secret, once.
    ///
    /// Example: countersign webhook add https://shop:8443/countersign --type payment.executed
    Add(Add),
    /// List the webhooks.
    ///
    /// Example: countersign webhook list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a webhook.
    ///
    /// Example: countersign webhook show whk_0199…
    Show(Which),
    /// Disable a webhook: nothing is delivered until it is enabled.
    ///
    /// Example: countersign webhook disable whk_0199… --reason "the shop moves"
    Disable(Reasoned),
    /// Enable a webhook again.
    ///
    /// Example: countersign webhook enable whk_0199…
    Enable(Which),
    /// Remove a webhook for good.
    ///
    /// Example: countersign webhook remove whk_0199…
    Remove(Which),
    /// List the deliveries to a webhook, the newest first.
    ///
    /// Example: countersign webhook deliveries whk_0199…
    Deliveries(Which),
    /// Have an event delivered again.
    ///
    /// Example: countersign webhook resend dlv_0199…
    Resend(Resend),
    /// Receive events on this machine, verify them and print them; to try webhooks out.
    ///
    /// Example: countersign webhook receive --listen 127.0.0.1:9000 --secret-file hook.secret
    Receive(Receive),
}

/// Register a receiver.
#[derive(Args)]
pub(crate) struct Add {
    #[command(flatten)]
    client: Client,
    /// Where events are sent.
    url: String,
    /// A type of event that it wants, payment.executed or payment.*; repeat it for more. None: all.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
}

/// Which webhook.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The webhook's id (whk_…).
    webhook: String,
}

/// Which webhook, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// Which delivery.
#[derive(Args)]
pub(crate) struct Resend {
    #[command(flatten)]
    client: Client,
    /// The delivery's id (dlv_…).
    delivery: String,
}

/// Receive events.
#[derive(Args)]
pub(crate) struct Receive {
    /// Address and port; port 0 picks one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// File with the webhook's secret (whsec_…): what is not signed with it is refused.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// End after this many events.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=COUNT_MAX))]
    count: u32,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// What to answer: an HTTP status.
    #[arg(long, default_value_t = 204, value_parser = value_parser!(u16).range(200..=599))]
    status: u16,
}

impl WebhookCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        if let Self::Receive(receive) = self {
            return receive.run(json).await;
        }
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Add(Add { client, url, types }) => {
                let body = json!({ "url": url, "types": types });
                let made: Value = client.api()?.post("/v1/webhooks", &body)?;
                let secret = made["secret"].as_str().unwrap_or_default();
                let text = format!("{}\nsecret, shown this once: {secret}", line(&made));
                Ok(Output::new(made, text))
            }
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/webhooks")?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(which) => {
                let shown: Value = which.client.api()?.get(&which.path())?;
                Ok(told(shown, line))
            }
            Self::Disable(Reasoned { which, reason }) => {
                Ok(told(which.post("disable", &json!({ "reason": reason }))?, line))
            }
            Self::Enable(which) => Ok(told(which.post("enable", &json!({}))?, line)),
            Self::Remove(which) => Ok(told(which.post("remove", &json!({}))?, line)),
            Self::Deliveries(which) => {
                let items = all(&which.client.api()?, &format!("{}/deliveries", which.path()))?;
                let text = items.iter().map(delivery).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Resend(Resend { client, delivery: id }) => {
                let path = format!("/v1/webhook-deliveries/{}/resend", encoded(&id));
                Ok(told(client.api()?.post(&path, &json!({}))?, delivery))
            }
            Self::Receive(_) => Ok(Output::none()), // it does not ask
        }
    }
}

impl Which {
    fn path(&self) -> String {
        format!("/v1/webhooks/{}", encoded(&self.webhook))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Value, Failure> {
        Ok(self.client.api()?.post(&format!("{}/{step}", self.path()), body)?)
    }
}

fn told(value: Value, text: fn(&Value) -> String) -> Output {
    let text = text(&value);
    Output::new(value, text)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn line(webhook: &Value) -> String {
    let types: Vec<&str> = webhook["types"].as_array().into_iter().flatten().map(word).collect();
    let types = if types.is_empty() { "all".to_owned() } else { types.join(",") };
    let (id, status) = (word(&webhook["id"]), word(&webhook["status"]));
    let reason = webhook["statusReason"].as_str().map(|why| format!(" ({why})"));
    let (reason, url) = (reason.unwrap_or_default(), word(&webhook["url"]));
    format!("{id}  {status}{reason}  {types}  {url}")
}

fn delivery(delivery: &Value) -> String {
    let (id, kind, state) =
        (word(&delivery["id"]), word(&delivery["eventType"]), word(&delivery["state"]));
    let error = delivery["lastError"].as_str().map(|why| format!(" ({why})"));
    let (attempts, error) = (&delivery["attempts"], error.unwrap_or_default());
    format!("{id}  {kind}  {state}{error}  attempts {attempts}  {}", word(&delivery["eventId"]))
}

impl Receive {
    async fn run(self, json: bool) -> Result<Output, Failure> {
        let secret = match &self.secret_file {
            None => None,
            Some(path) => {
                let text = zeroize::Zeroizing::new(read_file(path)?);
                let detail = "the file holds no secret: whsec_ and base64";
                let absent = || Failure::check("webhook-secret", detail);
                Some(webhook_secret(&text).ok_or_else(absent)?)
            }
        };
        let clock = ambient().clock;
        let started = WebhookReceiver::start(self.listen, secret, self.status, clock).await;
        let mut receiver = started
            .map_err(|error| Failure::environment("listen", format!("{}: {error}", self.listen)))?;
        eprintln!("receiving at http://{}/", receiver.address());
        let mut items = Vec::new();
        let receiving = async {
            while items.len() < self.count as usize {
                let Some(received) = receiver.next().await else { break };
                let item = shown(&received);
                if !json {
                    print(&item.to_string());
                }
                items.push(item);
            }
        };
        let in_time = match self.wait {
            Some(seconds) => {
                tokio::time::timeout(Duration::from_secs(seconds), receiving).await.is_ok()
            }
            None => {
                receiving.await;
                true
            }
        };
        let came = items.len();
        let told = json!({ "items": items, "next": null });
        if in_time {
            return Ok(Output::new(told, ""));
        }
        let detail = format!("{came} of {} events came in time", self.count);
        Err(Failure::check("webhook-wait", detail).after(told))
    }
}

fn shown(received: &ReceivedWebhook) -> Value {
    json!({ "id": received.id, "verified": received.verified, "event": received.event })
}

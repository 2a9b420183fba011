//! `approval`: what others must agree to, and the votes on it.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all_where, encoded, shown};

/// Approvals: what is done only after others have agreed.
#[derive(Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List approvals, the oldest first.
    ///
    /// Example: countersign approval list --state pending
    List {
        #[command(flatten)]
        client: Client,
        /// Only those in this state.
        #[arg(long)]
        state: Option<State>,
    },
    /// Show an approval with all its parameters and votes.
    ///
    /// Example: countersign approval show apr_0193…
    Show(Which),
    /// Agree.
    ///
    /// Example: countersign approval approve apr_0193…
    Approve(Which),
    /// Object: one objection suffices.
    ///
    /// Example: countersign approval reject apr_0193…
    Reject(Which),
}

/// Which approval.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// Its id (apr_…).
    approval: String,
}

/// Where an approval stands.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum State {
    Pending,
    Approved,
    Rejected,
    Expired,
    Used,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Used => "used",
        }
    }
}

/// The approval with which a command goes on.
#[derive(Args)]
pub(crate) struct Approval {
    /// The approval (apr_…), once others have agreed; without it the command asks for one.
    #[arg(long = "approval", value_name = "ID")]
    pub(crate) id: Option<String>,
}

impl ApprovalCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::List { client, state } => {
                let query = state.map(|state| format!("&state={}", state.name()));
                let query = query.unwrap_or_default();
                let items = all_where(&client.api()?, "/v1/approvals", &query)?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({"items": items, "next": null}), text))
            }
            Self::Show(which) => {
                let approval: Value = which.client.api()?.get(&which.path())?;
                Ok(Output::new(approval.clone(), whole(&approval)))
            }
            Self::Approve(which) => which.vote("approve"),
            Self::Reject(which) => which.vote("reject"),
        }
    }
}

impl Which {
    fn path(&self) -> String {
        format!("/v1/approvals/{}", encoded(&self.approval))
    }

    fn vote(&self, vote: &str) -> Result<Output, Failure> {
        let path = format!("{}/votes", self.path());
        let approval: Value = self.client.api()?.post(&path, &json!({"vote": vote}))?;
        Ok(Output::new(approval.clone(), whole(&approval)))
    }
}

fn line(approval: &Value) -> String {
    ["id", "state", "action", "requestedBy", "expiresAt"]
        .map(|field| shown(approval, field))
        .join("  ")
}

fn whole(approval: &Value) -> String {
    let mut text = line(approval);
    for (name, value) in approval["subject"].as_object().into_iter().flatten() {
        if !value.is_null() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text += &format!("\n  {name:<14} {value}");
        }
    }
    for vote in approval["votes"].as_array().into_iter().flatten() {
        let who = shown(vote, "operatorId");
        text += &format!("\n  {:<14} {who} at {}", shown(vote, "vote"), shown(vote, "at"));
    }
    text
}

/// What a gated command prints: what was done, or that others must agree first and how to go on.
pub(crate) fn gated(answer: Value, done: impl FnOnce(&Value) -> String) -> Output {
    if !shown(&answer, "id").starts_with("apr_") {
        let text = done(&answer);
        return Output::new(answer, text);
    }
    let id = shown(&answer, "id");
    let text = format!(
        "Nothing was done yet: {} other operator(s) must agree until {}.\n\
         They:  countersign approval approve {id}\n\
         Then:  this command again, with --approval {id}",
        answer["needed"],
        shown(&answer, "expiresAt"),
    );
    Output::new(json!({ "approval": answer }), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gated_command_says_what_was_done_or_how_to_go_on() {
        let done = gated(json!({"id": "key_1"}), |key| format!("Key {}", shown(key, "id")));
        assert_eq!((done.text.as_str(), &done.json["id"]), ("Key key_1", &json!("key_1")));
        let pending = json!({"id": "apr_1", "needed": 2, "expiresAt": "tomorrow"});
        let output = gated(pending, |_| unreachable!("nothing was done"));
        assert!(output.text.contains("2 other operator(s)") && !output.refused);
        assert!(output.text.ends_with("--approval apr_1"), "{}", output.text);
        assert_eq!(output.json["approval"]["id"], "apr_1");
    }
}

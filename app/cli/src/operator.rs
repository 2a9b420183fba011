use clap::{Args, Subcommand, ValueEnum};
use countersign_service::{Actor, NewToken};
use countersign_store::{MAX_PAGE, Operator, Role};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::local::Local;
use crate::output::Output;

/// Operators and their tokens.
#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Add an operator and print its first token once.
    ///
    /// Example: countersign operator add kiosk-team --role integrator
    Add {
        #[command(flatten)]
        local: Local,
        /// Unique name.
        name: String,
        /// A role; may be given several times.
        #[arg(long, value_name = "ROLE", required = true)]
        role: Vec<RoleName>,
    },
    /// List operators.
    ///
    /// Example: countersign operator list
    List {
        #[command(flatten)]
        local: Local,
    },
    /// Disable an operator: all its tokens stop working.
    ///
    /// Example: countersign operator disable kiosk-team
    Disable {
        #[command(flatten)]
        local: Local,
        /// Its name.
        name: String,
    },
    /// Tokens.
    #[command(subcommand)]
    Token(Token),
}

/// Tokens of operators.
#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make another token and print it once.
    ///
    /// Example: countersign operator token add kiosk-team --label ci
    Add {
        #[command(flatten)]
        local: Local,
        /// The operator's name.
        name: String,
        /// What the token is for.
        #[arg(long)]
        label: String,
    },
    /// Revoke a token.
    ///
    /// Example: countersign operator token revoke tok_0193…
    Revoke(Revoke),
}

/// Which token to revoke.
#[derive(Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    local: Local,
    /// Its id (tok_…).
    id: String,
}

/// Roles as the command line spells them.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    Admin,
    Custodian,
    Approver,
    Auditor,
    Integrator,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Custodian => Self::Custodian,
            RoleName::Approver => Self::Approver,
            RoleName::Auditor => Self::Auditor,
            RoleName::Integrator => Self::Integrator,
        }
    }
}

impl OperatorCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        let console = Actor::Console;
        match self {
            Self::Add { local, name, role } => {
                let (_data, service) = local.service().await?;
                let roles: Vec<Role> = role.into_iter().map(Role::from).collect();
                let (operator, token) = service.add_operator(&console, &name, &roles).await?;
                let text = format!("Operator  {}  {}\n{}", operator.id, name, token_text(&token));
                let json =
                    json!({"operator": operator_json(&operator), "token": token_json(&token)});
                Ok(Output::new(json, text))
            }
            Self::List { local } => {
                let (_data, service) = local.service().await?;
                let mut items = Vec::new();
                let mut cursor = None;
                loop {
                    let page = service.operators(cursor, MAX_PAGE).await?;
                    items.extend(page.items);
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
                let line = |operator: &Operator| {
                    let state = if operator.disabled_at.is_some() { "disabled" } else { "" };
                    let roles: Vec<_> = operator.roles.iter().map(Role::name).collect();
                    format!("{}  {}  {}  {state}", operator.id, operator.name, roles.join(","))
                };
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                let json: Vec<Value> = items.iter().map(operator_json).collect();
                Ok(Output::new(json!({"items": json, "next": null}), text))
            }
            Self::Disable { local, name } => {
                let (_data, service) = local.service().await?;
                service.disable_operator(&console, &name).await?;
                Ok(Output::new(json!({"disabled": name}), format!("disabled {name}")))
            }
            Self::Token(Token::Add { local, name, label }) => {
                let (_data, service) = local.service().await?;
                let token = service.add_token(&console, &name, &label).await?;
                Ok(Output::new(json!({"token": token_json(&token)}), token_text(&token)))
            }
            Self::Token(Token::Revoke(Revoke { local, id })) => {
                let (_data, service) = local.service().await?;
                service.revoke_token(&console, &id).await?;
                Ok(Output::new(json!({"revoked": id}), format!("revoked {id}")))
            }
        }
    }
}

fn operator_json(operator: &Operator) -> Value {
    let roles: Vec<_> = operator.roles.iter().map(Role::name).collect();
    json!({
        "id": operator.id,
        "name": operator.name,
        "roles": roles,
        "disabled": operator.disabled_at.is_some(),
    })
}

fn token_json(token: &NewToken) -> Value {
    json!({"id": token.id, "secret": *token.secret})
}

fn token_text(token: &NewToken) -> String {
    format!("Token     {}  {}\n          (shown once: keep it safe)", token.id, *token.secret)
}

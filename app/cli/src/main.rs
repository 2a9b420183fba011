//! The `countersign` command: every program of the platform behind one name.
#![forbid(unsafe_code)]

mod account;
mod approval;
mod audit;
mod ca;
mod demo;
mod device;
mod emulator;
mod evidence;
mod failure;
mod host;
mod init;
mod inject;
mod key;
mod local;
mod once;
mod operator;
mod output;
mod pay;
mod payment;
mod phone;
mod reader;
mod reads;
mod rki;
mod sam;
mod secret_arg;
mod security_device;
mod serve;
mod terminal;
mod tr31;
mod tr34;
mod wallet;
mod webhook;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::output::Output;

/// One platform for devices that hold a security chip, the servers behind them and the people who
/// use them.
#[derive(Parser)]
#[command(name = "countersign", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Print exactly one JSON value on stdout, a failure too.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every flow against a server, devices and emulators of its own, and check each step.
    ///
    /// Example: countersign demo --json
    Demo,
    /// Make a new data directory: CA, keys, settings, and the first operator's token.
    ///
    /// Example: countersign init --data ./countersign-data --admin-token-file ./admin.token
    Init(init::Init),
    /// Run the server: HTTPS API and device gateway.
    ///
    /// Example: countersign serve --data ./countersign-data --sam /dev/ttyUSB0
    Serve(serve::Serve),
    /// The CA's certificates.
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Operators and their tokens.
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Device programs.
    #[command(subcommand)]
    Device(device::Device),
    /// Carry a reader on a serial port to the server, and let it read.
    ///
    /// Example: countersign host --port /dev/ttyUSB0 --gateway localhost:8444 --read
    Host(host::HostCommand),
    /// Readers as the server sees them: records, reports, blocks, risk rules.
    #[command(subcommand)]
    Reader(reader::ReaderCommand),
    /// Emulated hardware.
    #[command(subcommand)]
    Emulator(emulator::Emulator),
    /// Reads that were kept, or that a server knows of.
    #[command(subcommand)]
    Reads(reads::Reads),
    /// SAM modules, and SAM hosts that stand alone.
    #[command(subcommand)]
    Sam(sam::SamCommand),
    /// X9.143 / TR-31 key blocks: wrap, unwrap, inspect.
    #[command(subcommand)]
    Tr31(tr31::Tr31),
    /// X9 TR-34 key tokens: inspect, verify, unwrap, make.
    #[command(subcommand)]
    Tr34(tr34::Tr34),
    /// Keys for injection, and the key-encrypting keys under which they come.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Approvals: what is done only after others have agreed.
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// The RSA hierarchy of key injection: root, CAs, KDHs, CRLs.
    #[command(subcommand)]
    Rki(rki::RkiCommand),
    /// POS terminals as the server sees them: allow-list, codes, blocks.
    #[command(subcommand)]
    Terminal(terminal::TerminalCommand),
    /// Security devices, which confirm payments, as the server sees them.
    #[command(subcommand)]
    SecurityDevice(security_device::SecurityDeviceCommand),
    /// Payers' phones as the server sees them: codes, accounts.
    #[command(subcommand)]
    Phone(phone::PhoneCommand),
    /// Card sleeves as the server sees them: blocks, certificates, alarms.
    #[command(subcommand)]
    Sleeve(wallet::SleeveCommand),
    /// Managers of real cards as the server sees them: blocks, certificates.
    #[command(subcommand)]
    Manager(wallet::ManagerCommand),
    /// Injections: which keys go into which terminals.
    #[command(subcommand)]
    Inject(inject::InjectCommand),
    /// Injection runs over an inventory of terminals.
    #[command(subcommand)]
    Run(inject::RunCommand),
    /// Ask for a payment, wait until its payer has confirmed it, and tell how it ended.
    ///
    /// Says first what to show the payer: the number to match, and the URL of the payment's page.
    ///
    /// Example: countersign pay --from PAYER0001 --to SHOP0001 --payee "Tea Shop" --amount 12.34
    /// --currency CNY --order "Order 7"
    Pay(pay::Pay),
    /// Payments: show, cancel, refund, receipts, evidence.
    #[command(subcommand)]
    Payment(payment::PaymentCommand),
    /// Accounts of the ledger.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Evidence of payments, checked offline.
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Webhooks: who is told what happens to payments.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// The audit.
    #[command(subcommand)]
    Audit(audit::Audit),
}

impl Command {
    /// What is logged to stderr unless `COUNTERSIGN_LOG` says otherwise.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Sam(sam::SamCommand::Serve(_)) => "info",
            Self::Demo => "error",
            _ => "warn",
        }
    }

    async fn run(self, json: bool) -> Result<Output, Failure> {
        match self {
            Self::Demo => demo::run(json).await,
            Self::Init(init) => init.run().await,
            Self::Serve(serve) => serve.run(json).await,
            Self::Ca(ca) => ca.run(),
            Self::Operator(operator) => operator.run().await,
            Self::Device(device) => device.run(json).await,
            Self::Host(host) => host.run(json).await,
            Self::Reader(reader) => reader.run().await,
            Self::Emulator(emulator) => emulator.run(json).await,
            Self::Reads(reads) => reads.run(json).await,
            Self::Sam(sam) => sam.run(json).await,
            Self::Tr31(tr31) => tr31.run(),
            Self::Tr34(tr34) => tr34.run(),
            Self::Key(key) => key.run().await,
            Self::Approval(approval) => approval.run().await,
            Self::Rki(rki) => rki.run().await,
            Self::Terminal(terminal) => terminal.run().await,
            Self::SecurityDevice(device) => device.run().await,
            Self::Phone(phone) => phone.run().await,
            Self::Sleeve(sleeve) => sleeve.run().await,
            Self::Manager(manager) => manager.run().await,
            Self::Inject(inject) => inject.run().await,
            Self::Run(run) => run.run().await,
            Self::Pay(pay) => pay.run().await,
            Self::Payment(payment) => payment.run().await,
            Self::Account(account) => account.run().await,
            Self::Evidence(evidence) => evidence.run(),
            Self::Webhook(webhook) => webhook.run(json).await,
            Self::Audit(audit) => audit.run().await,
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    start_log(cli.command.log_level());
    let json = cli.json;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli.command.run(json)),
        Err(error) => Err(Failure::environment("runtime", error.to_string())),
    };
    output::finish(json, result)
}

/// Structured logs go to stderr: as text on a terminal, as JSON lines elsewhere.
fn start_log(level: &str) {
    use std::io::IsTerminal;
    let filter = EnvFilter::try_from_env("COUNTERSIGN_LOG").unwrap_or_else(|_| level.into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}

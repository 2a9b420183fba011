//! `host`: the PC of a reader on a serial line (C16).

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use countersign_device::{Host, HostEvent, HostOptions, LineResult, Step};
use countersign_idcard::record::IdRecord;
use countersign_net::serial::BAUD;
use countersign_server::ambient;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{self, Output};
use crate::serve::stopped;

/// Carry a reader's sealed datagrams between its serial line and the server.
#[derive(Args)]
pub(crate) struct HostCommand {
    /// The serial port on which the reader is.
    #[arg(long, value_name = "PATH")]
    port: String,
    /// The port's speed.
    #[arg(long, value_name = "N", default_value_t = BAUD,
          value_parser = clap::value_parser!(u32).range(1..))]
    baud: u32,
    /// The server's device gateway, over UDP.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8444")]
    gateway: String,
    /// Let the reader read once, print the record and end.
    #[arg(long)]
    read: bool,
    /// Also read the fingerprint, if the card has one.
    #[arg(long, requires = "read")]
    fingerprint: bool,
}

impl HostCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        let Self { port, baud, gateway, read, fingerprint } = self;
        let options = HostOptions { port: port.clone(), baud, gateway: gateway.clone() };
        let serial = Arc::new(Mutex::new(None));
        let known = serial.clone();
        let quiet = read || json;
        let mut host = Host::start(options, (ambient().rng)(), move |event| {
            if let HostEvent::Hello(hello) = &event {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(hello.serial.clone());
            }
            tell(&event, quiet);
        });
        let result = if read {
            let result = host.read(fingerprint).await?;
            let serial = serial.lock().unwrap_or_else(PoisonError::into_inner).take();
            shown(&result, serial.as_deref())
        } else {
            if json {
                output::print(&json!({ "port": port, "gateway": gateway }).to_string());
            } else {
                output::print(&format!("Host for {port}, forwarding to {gateway} over UDP"));
            }
            stopped().await.map_err(Failure::late)?;
            Ok(Output::none())
        };
        host.stop().await;
        result
    }
}

/// Prints what happens, or logs it where stdout is for something else.
fn tell(event: &HostEvent, quiet: bool) {
    let (bad, text) = match event {
        HostEvent::PortOpened => (false, "The port is open".to_owned()),
        HostEvent::PortAbsent { detail } => (true, format!("The port is not there: {detail}")),
        HostEvent::Hello(hello) => {
            let resident = if hello.resident { "takes commands" } else { "takes no commands" };
            let (serial, program) = (&hello.serial, &hello.program);
            (false, format!("Reader {serial}, program {program}, {resident}"))
        }
        HostEvent::ServerFound => (false, "The server answers".to_owned()),
        HostEvent::NoServer { detail } => (true, format!("No server: {detail}")),
        HostEvent::Progress(progress) => {
            let step = match progress.step {
                Step::WaitingForCard => "waiting for a card",
                Step::Reading => "reading",
            };
            (false, format!("The reader is {step} ({} ms)", progress.ms))
        }
        HostEvent::Unexpected { check, detail } => (true, format!("{detail} [{check}]")),
    };
    match (quiet, bad) {
        (false, _) => output::print(&text),
        (true, true) => tracing::warn!("{text}"),
        (true, false) => tracing::info!("{text}"),
    }
}

fn shown(result: &LineResult, serial: Option<&str>) -> Result<Output, Failure> {
    let record = IdRecord::decode(result.data.text())
        .map_err(|error| Failure::check("record", error.to_string()))?;
    let (summary, data) = (&result.summary, &result.data);
    let mut value = json!({
        "reader": serial,
        "record": record,
        "photoBytes": data.photo().len(),
        "fingerprintBytes": data.fingerprint().map(<[u8]>::len),
    });
    if let (Value::Object(value), Ok(Value::Object(rest))) =
        (&mut value, serde_json::to_value(summary))
    {
        value.extend(rest);
    }
    let fields = serde_json::to_value(&record).unwrap_or_default();
    let mut text = format!(
        "Read by {}: {} ms from {}, {} bytes sent, {} received\n",
        serial.unwrap_or("the reader"),
        summary.ms,
        summary.source,
        summary.bytes_sent,
        summary.bytes_received
    );
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("  {name:<14} {value}\n");
    }
    text += &format!("  {:<14} {} bytes, raw", "photo", data.photo().len());
    Ok(Output::new(value, text))
}

//! `device phone helper`: takes a security device's answers to the phone page of a browser.

use std::time::Duration;

use clap::Args;
use countersign_device::{Confirm, Helper, HelperError, HelperEvent, PageOrigin, Refusal};
use countersign_server::ambient;
use serde_json::json;
use tokio::runtime::Handle;

use super::key::PinFile;
use super::which_device::WhichDevice;
use crate::failure::Failure;
use crate::output::{Output, print, print_error};
use crate::serve::stopped;

/// How long a holder takes to bring a card to the reader, in seconds; and the longest wait that can
/// be set.
const CARD_WAIT: u64 = 30;
const CARD_WAIT_MAX: u64 = 300;

/// Answer the phone page of a browser on this machine, which cannot reach a security device itself.
#[derive(Args)]
pub(crate) struct HelperCommand {
    /// The server whose phone page is to be answered, for instance https://localhost:8443.
    #[arg(
        long,
        value_name = "URL",
        env = "COUNTERSIGN_SERVER",
        required_unless_present = "origin"
    )]
    server: Option<String>,
    /// The page's origin, if browsers reach the server by another name.
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// Port on 127.0.0.1; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    device: WhichDevice,
    /// How long to wait for the card when it is asked for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = CARD_WAIT,
          value_parser = clap::value_parser!(u64).range(..=CARD_WAIT_MAX))]
    card_wait: u64,
    /// The device's PIN; with a file nobody is asked here, which is for tests.
    #[command(flatten)]
    pin: PinFile,
}

impl HelperCommand {
    /// Blocks until SIGINT or SIGTERM.
    pub(super) fn run(self, json: bool) -> Result<Output, Failure> {
        let url = self.origin.or(self.server).unwrap_or_default();
        let origin = PageOrigin::of(&url)?;
        let confirm = at_terminal(self.device, Duration::from_secs(self.card_wait), self.pin);
        let told = move |event: HelperEvent| print(&told(&event, json));
        Handle::current().block_on(async {
            let helper = Helper::listen(origin, self.port, (ambient().rng)()).await?;
            print(&ready(&helper, json));
            let mut signals = Ok(());
            let stop = async { signals = stopped().await };
            let ended = helper.run(confirm, told, stop).await;
            ended.map_err(|error| Failure::from(error).late())?;
            signals.map_err(Failure::late)
        })?;
        Ok(Output::none())
    }
}

/// The device is opened for each request: it may come and go meanwhile, and others may use it.
fn at_terminal(device: WhichDevice, card_wait: Duration, pin: PinFile) -> Confirm {
    Box::new(move |request| {
        if device.reader.is_some() {
            print_error("The page asks for the security device: put the card to the reader.");
        }
        let mut opened = device.open_within(card_wait).map_err(refusal)?;
        let mut rng = (ambient().rng)();
        opened.confirm(request, &pin, &mut *rng).map_err(Refusal::from)
    })
}

fn refusal(failure: Failure) -> Refusal {
    Refusal { check: failure.check, detail: failure.detail }
}

fn ready(helper: &Helper, json: bool) -> String {
    let url = helper.url();
    if json {
        let told = json!({
            "event": "ready",
            "url": *url,
            "origin": helper.origin().as_str(),
            "port": helper.port(),
        });
        return told.to_string();
    }
    format!("Open  {}\nWhoever has this URL can ask for one signature; you are asked here.", *url)
}

fn told(event: &HelperEvent, json: bool) -> String {
    let HelperEvent { payment, outcome, heard, url } = event;
    if json {
        let mut told = json!({ "paymentId": payment, "heard": heard, "url": **url });
        match outcome {
            Ok(serial) => {
                told["event"] = "confirmed".into();
                told["deviceSerial"] = serial.as_str().into();
            }
            Err(why) => {
                told["event"] = "refused".into();
                told["check"] = why.check.as_str().into();
            }
        }
        return told.to_string();
    }
    let payment = payment.as_deref().unwrap_or("(no payment)");
    let said = match outcome {
        Ok(serial) => format!("{payment}  confirmed by {serial}"),
        Err(why) => format!("{payment}  not confirmed: {} [{}]", why.detail, why.check),
    };
    if *heard {
        return said;
    }
    format!("{said}\nThe page has gone and did not hear of it. Open  {}", **url)
}

impl From<HelperError> for Failure {
    fn from(error: HelperError) -> Self {
        match error {
            HelperError::Origin(_) => Self::usage(error.check(), error.to_string()),
            _ if error.is_environment() => Self::environment(error.check(), error.to_string()),
            _ => Self::check(error.check(), error.to_string()),
        }
    }
}

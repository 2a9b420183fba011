//! What the payer and the shop do, in a browser and beside it.

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::browser::Browser;

/// What a payment's own page needs.
pub(crate) struct Checkout {
    pub(crate) url: String,
    /// The number to type on the phone.
    pub(crate) number: String,
    /// What the QR code says.
    pub(crate) offline: String,
}

impl Bank {
    /// A one-time code for a phone of the payer.
    pub(crate) fn code(&self) -> Result<String, Failed> {
        let words = ["phone", "allow", "--label", "Li Lei's phone", "--account", "PAYER0001"];
        let allowed = self.done(&words)?;
        Ok(allowed["enrolmentCode"].as_str().ok_or("no code")?.to_owned())
    }

    /// A security device that shows digits, in the directory of its serial number.
    pub(crate) fn digits_device(&self, serial: &str) -> Result<(), Failed> {
        let enroll = ["device", "key", "enroll", "--key", serial, "--serial", serial];
        let more = ["--label", "the blue one", "--account", "PAYER0001", "--pin-file", "pin"];
        self.done(&[&enroll[..], &more, &["--method", "ocra"]].concat())?;
        Ok(())
    }

    /// A security device that signs, in the directory of its serial number.
    pub(crate) fn signing_device(&self, serial: &str) -> Result<(), Failed> {
        let enroll = ["device", "key", "enroll", "--key", serial, "--serial", serial];
        let more = ["--label", "the green one", "--account", "PAYER0001", "--pin-file", "pin"];
        self.done(&[&enroll[..], &more].concat())?;
        Ok(())
    }

    /// What the device shows after it was shown the QR code and given its PIN.
    pub(crate) fn digits(&self, serial: &str, offline: &str) -> Result<String, Failed> {
        let words = ["--json", "device", "key", "offline", "--qr", offline];
        let device = ["--key", serial, "--pin-file", "pin"];
        let answer = self.host.run(&[&words[..], &device].concat())?.ok()?.json()?;
        assert_eq!(answer["deviceSerial"], json!(serial), "{answer}");
        Ok(answer["digits"].as_str().ok_or("no digits")?.to_owned())
    }

    /// What the shop's terminal shows of a payment that it asked for.
    pub(crate) fn checkout(&self, id: &str) -> Result<Checkout, Failed> {
        let told = self.run("till", &["payment", "checkout", id])?.ok()?.json()?;
        let text = |name: &str| told[name].as_str().map(str::to_owned).ok_or("not in the checkout");
        let (number, offline) = (text("matchCode")?, text("offline")?);
        Ok(Checkout { url: text("url")?, number, offline })
    }

    /// A payment as its shop asks for it, with more words; its id.
    pub(crate) fn asked(&self, amount: &str, more: &[&str]) -> Result<String, Failed> {
        let words = self.pay_words(amount, &[&["--no-wait"], more].concat());
        let asked = self.run("till", &words)?.ok()?.json()?;
        Ok(asked["id"].as_str().ok_or("no id")?.to_owned())
    }

    /// State and reason of a payment.
    pub(crate) fn stands(&self, id: &str) -> Result<(String, Value), Failed> {
        let payment = self.payment(id)?;
        let status = payment["status"].as_str().ok_or("no status")?.to_owned();
        Ok((status, payment["statusReason"].clone()))
    }

    /// The payer connects the browser as a phone.
    pub(crate) fn connect(&self, browser: &Browser) -> Result<(), Failed> {
        browser.go(&format!("{}/phone", self.url()))?;
        browser.wait_view("enrol")?;
        browser.fill("#code", &self.code()?)?;
        browser.click("#enrol-button")?;
        browser.wait_view("payments")
    }

    /// The payer opens a payment that waits.
    pub(crate) fn look_at(&self, browser: &Browser, id: &str) -> Result<(), Failed> {
        browser.go(&format!("{}/phone/payments/{id}", self.url()))?;
        browser.wait_view("payment")
    }
}

impl Browser {
    /// Types the number to match and the digits of a device, and sends them.
    pub(crate) fn confirm_by_digits(
        &self,
        number: &str,
        device: &str,
        digits: &str,
    ) -> Result<(), Failed> {
        self.fill("#match-code", number)?;
        if !self.shows("#digits")? {
            self.click("#digits-open")?;
            self.wait_for("#digits")?;
        }
        self.choose("#device", device)?;
        self.fill("#digits", digits)?;
        self.click("#approve-digits")
    }

    /// Waits for a payment's end and its outcome.
    pub(crate) fn wait_outcome(&self, outcome: &str) -> Result<(), Failed> {
        self.wait_view("ended")?;
        let shown = self.attribute("#result", "data-outcome")?;
        assert_eq!(shown.as_deref(), Some(outcome), "{}", self.text("#result")?);
        Ok(())
    }

    /// Waits until the page says a failure in words, and gives them.
    pub(crate) fn wait_problem(&self) -> Result<String, Failed> {
        self.wait("a problem in words", |browser| Ok(!browser.text("#problem")?.is_empty()))?;
        self.text("#problem")
    }
}

/// Digits that are not these.
pub(crate) fn other_than(digits: &str) -> String {
    digits.chars().map(|digit| if digit == '9' { '1' } else { '9' }).collect()
}

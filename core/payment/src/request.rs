use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::str;

use countersign_crypto::UnixTime;

use crate::jcs::{self, Value};
use crate::{AccountNumber, Amount, PaymentError, from_rfc3339, text, to_rfc3339};

/// Longest confirmation request, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// Longest name of a payee or of an initiating terminal, in characters (pain.001 `Max140Text`).
pub const NAME_MAX: usize = 140;
/// Longest order, in characters (pain.001 `Max140Text`).
pub const ORDER_MAX: usize = 140;
/// Longest name of a server, in characters.
const SERVER_MAX: usize = 64;
/// Longest id of a payment, in characters.
const ID_MAX: usize = 64;
/// Most alerts, and the longest, in characters.
const ALERTS_MAX: usize = 8;
const ALERT_MAX: usize = 32;

const TYPE: &str = "countersign.payment.confirmation";
const VERSION: u32 = 1;

/// What the payer is asked to confirm (D1), taken apart. Its bytes are what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmationRequest {
    /// The name of the server that asks, at most 64 characters.
    pub server: String,
    /// The payment's id.
    pub payment: String,
    /// The account that pays.
    pub payer_account: AccountNumber,
    /// The account that is paid.
    pub payee_account: AccountNumber,
    /// Who is paid, at most [`NAME_MAX`] characters.
    pub payee_name: String,
    /// What is paid for, at most [`ORDER_MAX`] characters.
    pub order: String,
    /// How much, in which currency.
    pub amount: Amount,
    /// Until when an answer counts.
    pub expires: UnixTime,
    /// The initiating terminal, at most [`NAME_MAX`] characters.
    pub initiator: String,
    /// What the payer is warned of: names of `a-z 0-9 -`, such as `new-payee`.
    pub alerts: Vec<String>,
}

/// A line for a device's display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is, in English; a stable name for translations too.
    pub label: &'static str,
    /// What it says.
    pub text: String,
}

impl ConfirmationRequest {
    /// The bytes that are stored, sent, shown and signed: canonical JSON (RFC 8785) of one object
    /// with these texts, `type` and `version`.
    ///
    /// # Errors
    /// [`PaymentError::Text`] for a text that a device must not be asked to show;
    /// [`PaymentError::RequestForm`] for an id or an alert of another form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PaymentError> {
        self.check()?;
        let text = |text: &str| Value::Text(text.to_string());
        let members = [
            ("type", text(TYPE)),
            ("version", Value::Number(VERSION)),
            ("server", text(&self.server)),
            ("payment", text(&self.payment)),
            ("payerAccount", text(self.payer_account.as_str())),
            ("payeeAccount", text(self.payee_account.as_str())),
            ("payeeName", text(&self.payee_name)),
            ("order", text(&self.order)),
            ("amount", text(&self.amount.decimal())),
            ("currency", text(self.amount.currency().code())),
            ("expires", text(&to_rfc3339(self.expires))),
            ("initiator", text(&self.initiator)),
            ("alerts", text(&self.alerts.join(","))),
        ];
        let members = members.into_iter().map(|(name, value)| (name.to_string(), value));
        let mut out = String::new();
        jcs::write(&Value::Object(members.collect()), &mut out);
        Ok(out.into_bytes())
    }

    /// Reads the bytes of a request: all members and no others, in canonical form only, so that one
    /// request has one form, and what is shown is all there is.
    ///
    /// # Errors
    /// [`PaymentError::RequestTooLong`], [`PaymentError::RequestForm`], or what is wrong with a
    /// member.
    pub fn parse(bytes: &[u8]) -> Result<Self, PaymentError> {
        if bytes.len() > REQUEST_MAX {
            return Err(PaymentError::RequestTooLong);
        }
        let json = str::from_utf8(bytes).map_err(|_| PaymentError::RequestForm)?;
        let mut members = Members { rest: json };
        members.literal("{")?;
        let alerts = members.text("alerts")?;
        let amount = members.text("amount")?;
        let currency = members.text("currency")?;
        let expires = members.text("expires")?;
        let initiator = members.text("initiator")?;
        let order = members.text("order")?;
        let payee_account = members.text("payeeAccount")?;
        let payee_name = members.text("payeeName")?;
        let payer_account = members.text("payerAccount")?;
        let payment = members.text("payment")?;
        let server = members.text("server")?;
        if members.text("type")? != TYPE {
            return Err(PaymentError::RequestForm);
        }
        members.literal("\"version\":1}")?;
        let alerts = match alerts.as_str() {
            "" => Vec::new(),
            some => some.split(',').map(ToString::to_string).collect(),
        };
        let request = Self {
            server,
            payment,
            payer_account: AccountNumber::parse(&payer_account)?,
            payee_account: AccountNumber::parse(&payee_account)?,
            payee_name,
            order,
            amount: Amount::parse(&amount, &currency)?,
            expires: from_rfc3339(&expires)?,
            initiator,
            alerts,
        };
        // One form: escapes that need not be, decimals left out, characters behind the end.
        if request.to_bytes()? == bytes { Ok(request) } else { Err(PaymentError::RequestForm) }
    }

    /// What a device shows, in this order; every member is in it.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let line = |label, text| Line { label, text };
        let mut lines = vec![
            line("Amount", self.amount.to_string()),
            line("To", self.payee_name.clone()),
            line("Account", self.payee_account.grouped()),
            line("For", self.order.clone()),
            line("From", self.payer_account.grouped()),
        ];
        lines.extend(self.alerts.iter().map(|alert| line("Alert", alert.clone())));
        lines.extend([
            line("Asked by", self.initiator.clone()),
            line("Server", self.server.clone()),
            line("Until", to_rfc3339(self.expires)),
            line("Payment", self.payment.clone()),
        ]);
        lines
    }

    fn check(&self) -> Result<(), PaymentError> {
        text::check("server", &self.server, SERVER_MAX)?;
        text::check("payeeName", &self.payee_name, NAME_MAX)?;
        text::check("order", &self.order, ORDER_MAX)?;
        text::check("initiator", &self.initiator, NAME_MAX)?;
        let of_id = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
        let of_alert = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let is_name = |name: &str, max: usize, allowed: &dyn Fn(u8) -> bool| {
            !name.is_empty() && name.len() <= max && name.bytes().all(allowed)
        };
        let alerts = self.alerts.iter().all(|alert| is_name(alert, ALERT_MAX, &of_alert));
        if alerts && self.alerts.len() <= ALERTS_MAX && is_name(&self.payment, ID_MAX, &of_id) {
            Ok(())
        } else {
            Err(PaymentError::RequestForm)
        }
    }
}

/// Reads the members of a canonical object one after the other. What it takes too kindly, writing
/// the request again finds.
struct Members<'a> {
    rest: &'a str,
}

impl Members<'_> {
    fn literal(&mut self, wanted: &str) -> Result<(), PaymentError> {
        self.rest = self.rest.strip_prefix(wanted).ok_or(PaymentError::RequestForm)?;
        Ok(())
    }

    /// The text of the member `name`, which another one follows.
    fn text(&mut self, name: &str) -> Result<String, PaymentError> {
        self.literal("\"")?;
        self.literal(name)?;
        self.literal("\":\"")?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().ok_or(PaymentError::RequestForm)? {
                '"' => break,
                // Other escapes stand for characters that no text here has.
                '\\' => match chars.next() {
                    Some(c @ ('"' | '\\')) => text.push(c),
                    _ => return Err(PaymentError::RequestForm),
                },
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        self.literal(",")?;
        Ok(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::TextProblem;

    pub(crate) fn example() -> ConfirmationRequest {
        let account = |number| AccountNumber::parse(number).unwrap();
        ConfirmationRequest {
            server: "Bank of Example".into(),
            payment: "pay_0199a1b2".into(),
            payer_account: account("6222021234567890123"),
            payee_account: account("DE89370400440532013000"),
            payee_name: "Müller & Söhne GmbH".into(),
            order: "订单 2026-117: 2 × \"Kaffee\"".into(),
            amount: Amount::parse("1299.00", "CNY").unwrap(),
            expires: UnixTime::from_secs(1_800_000_300),
            initiator: "shop.example".into(),
            alerts: vec!["new-payee".into()],
        }
    }

    pub(crate) fn example_bytes() -> Vec<u8> {
        example().to_bytes().unwrap()
    }

    const WRITTEN: &str = "{\"alerts\":\"new-payee\",\"amount\":\"1299.00\",\"currency\":\"CNY\",\
        \"expires\":\"2027-01-15T08:05:00.000Z\",\"initiator\":\"shop.example\",\
        \"order\":\"订单 2026-117: 2 × \\\"Kaffee\\\"\",\
        \"payeeAccount\":\"DE89370400440532013000\",\"payeeName\":\"Müller & Söhne GmbH\",\
        \"payerAccount\":\"6222021234567890123\",\"payment\":\"pay_0199a1b2\",\
        \"server\":\"Bank of Example\",\
        \"type\":\"countersign.payment.confirmation\",\"version\":1}";

    fn refused(text: &str) -> PaymentError {
        ConfirmationRequest::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_request_has_these_bytes_and_is_read_back() {
        assert_eq!(str::from_utf8(&example_bytes()), Ok(WRITTEN));
        assert_eq!(ConfirmationRequest::parse(WRITTEN.as_bytes()), Ok(example()));
        let json: serde_json::Value = serde_json::from_str(WRITTEN).unwrap();
        assert_eq!(serde_json_canonicalizer::to_string(&json).unwrap(), WRITTEN, "RFC 8785");
    }

    #[test]
    fn another_form_of_the_same_request_is_refused() {
        let one = |from: &str, to: &str| {
            let altered = WRITTEN.replacen(from, to, 1);
            assert_ne!(altered, WRITTEN, "{from}");
            assert_eq!(refused(&altered), PaymentError::RequestForm, "{from} -> {to}");
        };
        one(":", ": ");
        one(",", ",\n");
        one("{", " {");
        one("ü", "\\u00fc");
        one("Bank", "\\u0042ank");
        one("&", "\\u0026");
        one("\"1299.00\"", "\"1299\"");
        one("\"1299.00\"", "1299.00");
        one("\"version\":1", "\"version\":1.0");
        one("\"version\":1", "\"version\":2");
        one("\"version\":1", "\"version\":\"1\"");
        one("confirmation", "receipt");
        one("\"alerts\":\"new-payee\",", "");
        one("\"alerts\":", "\"Alerts\":");
        one("{", "{\"aaa\":\"\",");
        one("\"amount\":\"1299.00\",", "\"amount\":\"1299.00\",\"amount\":\"9.00\",");
        one(":1}", ":1} ");
        one(":1}", ":1}{}");
        one(":1}", ":1");
        one("new-payee", "New Payee");
        one("new-payee", "new-payee,");
        one("pay_0199a1b2", "");
        one("pay_0199a1b2", "pay/../x");
    }

    #[test]
    fn what_is_wrong_with_a_member_has_its_name() {
        let one = |from: &str, to: &str| refused(&WRITTEN.replacen(from, to, 1)).check();
        assert_eq!(one("CNY", "XTS"), "currency-unknown");
        assert_eq!(one("CNY", "JPY"), "amount-decimals");
        assert_eq!(one("1299.00", "-1299.00"), "amount-form");
        assert_eq!(one("1299.00", "0.00"), "amount-range");
        assert_eq!(one("DE89", "DE88"), "account-check-digits");
        assert_eq!(one("622202", "6222 02"), "account-form");
        assert_eq!(one(".000Z", "Z"), "time-form");
        assert_eq!(one("Söhne", "So\u{308}hne"), "text-normalization");
        assert_eq!(one("Kaffee", "\u{202e}eeffaK"), "text-direction");
        assert_eq!(one("shop", "sh\u{200b}op"), "text-invisible");
        assert_eq!(one("Bank", "B\u{430}nk"), "text-scripts");
        assert_eq!(refused(&" ".repeat(REQUEST_MAX + 1)), PaymentError::RequestTooLong);
        assert_eq!(ConfirmationRequest::parse(b"\xff"), Err(PaymentError::RequestForm));
    }

    #[test]
    fn nothing_hostile_is_written_either() {
        let with = |change: fn(&mut ConfirmationRequest)| {
            let mut request = example();
            change(&mut request);
            request.to_bytes().unwrap_err()
        };
        let text = |field, problem| PaymentError::Text { field, problem };
        assert_eq!(with(|r| r.order = "a\u{202e}b".into()), text("order", TextProblem::Direction));
        assert_eq!(with(|r| r.payee_name.clear()), text("payeeName", TextProblem::Empty));
        assert_eq!(
            with(|r| r.order = "x".repeat(ORDER_MAX + 1)),
            text("order", TextProblem::TooLong)
        );
        assert_eq!(with(|r| r.payment = "a b".into()), PaymentError::RequestForm);
        assert_eq!(with(|r| r.alerts = vec!["a,b".into()]), PaymentError::RequestForm);
        assert_eq!(with(|r| r.alerts = vec!["a".into(); 9]), PaymentError::RequestForm);
    }

    #[test]
    fn markup_stays_text() {
        let mut request = example();
        request.order = "</td><script>alert('1')</script> \\ \"".into();
        let bytes = request.to_bytes().unwrap();
        assert_eq!(ConfirmationRequest::parse(&bytes), Ok(request));
    }

    #[test]
    fn the_longest_request_fits() {
        let mut request = example();
        let wide = |len| "\u{20000}".repeat(len);
        request.server = wide(SERVER_MAX);
        request.payee_name = wide(NAME_MAX);
        request.order = wide(ORDER_MAX);
        request.initiator = wide(NAME_MAX);
        request.payment = "a".repeat(ID_MAX);
        request.payer_account = AccountNumber::parse(&"9".repeat(34)).unwrap();
        request.payee_account = AccountNumber::parse(&"8".repeat(34)).unwrap();
        request.amount = Amount::new(crate::MAX_MINOR, request.amount.currency()).unwrap();
        request.alerts = vec!["a".repeat(ALERT_MAX); ALERTS_MAX];
        let bytes = request.to_bytes().unwrap();
        assert!(bytes.len() <= REQUEST_MAX, "{}", bytes.len());
        assert_eq!(ConfirmationRequest::parse(&bytes), Ok(request));
    }

    #[test]
    fn a_device_shows_every_member_the_amount_first() {
        let lines = example().lines();
        assert_eq!((lines[0].label, lines[0].text.as_str()), ("Amount", "1299.00 CNY"));
        assert_eq!(lines[2].text, "DE89 3704 0044 0532 0130 00");
        let shown: String = lines.iter().map(|line| line.text.replace(' ', "") + "\n").collect();
        let json: serde_json::Value = serde_json::from_str(WRITTEN).unwrap();
        for (name, value) in json.as_object().unwrap() {
            let Some(text) = value.as_str().filter(|_| name != "type") else { continue };
            assert!(shown.contains(&text.replace(' ', "")), "{name} is not shown");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payee in "[A-Za-z][a-z&.,'\"\\\\<>/-]{0,30}", order in "[一-龥0-9a-z]{1,40}",
            minor in 1..=crate::MAX_MINOR, millis in 0_u64..4_000_000_000_000,
            payer in "[0-9]{4,34}", alerts in prop::collection::vec("[a-z-]{1,12}", 0..4),
        ) {
            let mut request = example();
            request.payee_name = payee;
            request.order = order;
            request.amount = Amount::new(minor, request.amount.currency()).unwrap();
            request.expires = UnixTime::from_millis(millis);
            request.payer_account = AccountNumber::parse(&payer).unwrap();
            request.alerts = alerts;
            // A drawn order may mix scripts or digits; then it is refused at writing.
            if let Ok(bytes) = request.to_bytes() {
                prop_assert_eq!(ConfirmationRequest::parse(&bytes), Ok(request));
            }
        }

        /// A byte changed: refused, or another request. Never the same one again.
        #[test]
        fn each_changed_byte_changes_the_request(at in 0..WRITTEN.len(), bit in 0..8_u32) {
            let mut altered = example_bytes();
            altered[at] ^= 1 << bit;
            if let Ok(read) = ConfirmationRequest::parse(&altered) {
                prop_assert_ne!(&read, &example());
                prop_assert_eq!(read.to_bytes().unwrap(), altered);
            }
        }

        #[test]
        fn garbage_is_refused_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ConfirmationRequest::parse(&bytes).is_err());
        }
    }
}

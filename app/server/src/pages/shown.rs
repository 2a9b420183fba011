//! How a payment is put before people, on both screens.

use countersign_crypto::UnixTime;
use countersign_payment::{Amount, ConfirmationRequest, State, to_rfc3339};
use maud::{Markup, html};

use super::lang::Lang;
use super::texts::Text;

/// Characters from which on an amount is set smaller, and smaller still, so that it stays on one
/// line of a narrow phone.
const LONG_AMOUNT: usize = 13;
const LONGEST_AMOUNT: usize = 18;

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The payer, on the phone.
    Phone,
    /// Whoever stands before the initiating terminal.
    Checkout,
}

/// The decimal form with commas between thousands: `1,299.00`.
pub(super) fn grouped(amount: Amount) -> String {
    let decimal = amount.decimal();
    let (whole, rest) = decimal.split_once('.').unwrap_or((&decimal, ""));
    let mut shown = String::with_capacity(decimal.len() + whole.len() / 3 + 1);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    if !rest.is_empty() {
        shown.push('.');
        shown.push_str(rest);
    }
    shown
}

/// The class of an amount of this length, behind another.
pub(super) fn length_class(shown: &str) -> &'static str {
    match shown.len() {
        LONGEST_AMOUNT.. => " longest",
        LONG_AMOUNT.. => " long",
        _ => "",
    }
}

/// The amount, the largest thing on a page.
pub(super) fn amount(lang: Lang, amount: Amount) -> Markup {
    let shown = grouped(amount);
    html! {
        p class={ "amount" (length_class(&shown)) } {
            span.hidden { (Text::Amount.of(lang)) " " }
            span #currency { (amount.currency().code()) } " "
            strong #amount { (shown) }
        }
    }
}

/// A time: for machines to the millisecond, for people in UTC until the script says it in theirs.
pub(super) fn time(id: &str, at: UnixTime) -> Markup {
    let exact = to_rfc3339(at);
    let minute = exact.get(..16).unwrap_or(&exact).replace('T', " ");
    html! { time id=(id) datetime=(exact) { (minute) " UTC" } }
}

/// Until when it can be confirmed and how long that is; the script counts.
pub(super) fn countdown(lang: Lang, expires: UnixTime) -> Markup {
    html! {
        p.countdown {
            (Text::TimeLeft.of(lang)) " "
            strong #countdown data-until=(expires.as_millis()) { "…" }
        }
    }
}

/// What the payer is warned of.
pub(super) fn alerts(lang: Lang, request: &ConfirmationRequest) -> Markup {
    html! {
        @if !request.alerts.is_empty() {
            section.alerts aria-labelledby="alerts-title" {
                h2 #alerts-title { (Text::AlertsTitle.of(lang)) }
                ul #alerts {
                    @for alert in &request.alerts {
                        li data-alert=(alert) { (alert_text(lang, alert)) }
                    }
                }
            }
        }
    }
}

fn alert_text(lang: Lang, alert: &str) -> String {
    match alert {
        "new-payee" => Text::AlertNewPayee.of(lang).to_owned(),
        "payee-name-differs" => Text::AlertNameDiffers.of(lang).to_owned(),
        other => Text::AlertOther.of(lang).replace("{name}", other),
    }
}

/// Whether somebody can still answer it.
pub(super) const fn is_open(state: State) -> bool {
    matches!(state, State::Created | State::Pending)
}

/// How it ended, or that it is being carried out, with words and a sign beside the colour.
pub(super) fn result(lang: Lang, state: State, reason: Option<&str>, side: Side) -> Markup {
    let (class, sign, title, text) = told(state, reason, side);
    html! {
        section #result class={ "result " (class) } data-outcome=(state.name())
            aria-labelledby="result-heading"
        {
            p.sign aria-hidden="true" { (sign) }
            h1 #result-heading tabindex="-1" { (title.of(lang)) }
            p #result-text { (text.of(lang)) }
        }
    }
}

fn told(
    state: State,
    reason: Option<&str>,
    side: Side,
) -> (&'static str, &'static str, Text, Text) {
    let shop = side == Side::Checkout;
    let (title, text) = match state {
        State::Executed if shop => (Text::Executed, Text::ExecutedShop),
        State::Executed => (Text::Executed, Text::ExecutedText),
        State::Rejected => (Text::Rejected, rejected(reason, shop)),
        State::Expired => (Text::Expired, Text::ExpiredText),
        State::Cancelled => (Text::Cancelled, Text::CancelledText),
        State::Failed => (Text::Failed, failed(reason)),
        State::ExecutionFailed => (Text::ExecutionFailed, not_executed(reason)),
        State::Created | State::Pending | State::Approved | State::Executing => {
            (Text::UnderWay, Text::UnderWayText)
        }
    };
    match state {
        State::Executed => ("good", "✓", title, text),
        State::Rejected | State::Cancelled => ("plain", "–", title, text),
        State::Expired | State::Failed | State::ExecutionFailed => ("bad", "!", title, text),
        _ => ("plain", "…", title, text),
    }
}

fn rejected(reason: Option<&str>, shop: bool) -> Text {
    match (reason, shop) {
        (Some("not-mine"), false) => Text::RejectedNotMine,
        (Some("not-mine"), true) => Text::RejectedNotMineShop,
        (Some("wrong-details"), true) => Text::RejectedWrongDetails,
        (_, true) => Text::RejectedShop,
        (_, false) => Text::RejectedText,
    }
}

fn failed(reason: Option<&str>) -> Text {
    match reason {
        Some("too-many-wrong-answers") => Text::FailedText,
        Some("account-frozen") => Text::WhyFrozen,
        _ => Text::FailedOther,
    }
}

fn not_executed(reason: Option<&str>) -> Text {
    match reason {
        Some("insufficient-funds") => Text::WhyFunds,
        Some("account-frozen") => Text::WhyFrozen,
        Some("account-closed") => Text::WhyClosed,
        _ => Text::WhyOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted_and_decimals_stay() {
        for (decimal, currency, shown) in [
            ("1.00", "CNY", "1.00"),
            ("999.99", "CNY", "999.99"),
            ("1299.00", "CNY", "1,299.00"),
            ("123456", "JPY", "123,456"),
            ("1000000.001", "BHD", "1,000,000.001"),
            ("10000000000000.00", "CNY", "10,000,000,000,000.00"),
        ] {
            assert_eq!(grouped(Amount::parse(decimal, currency).unwrap()), shown);
        }
    }

    #[test]
    fn an_end_is_told_by_words_and_a_sign() {
        let said = |state, reason, side| {
            let told = result(Lang::En, state, reason, side).into_string();
            assert!(told.contains("class=\"sign\""), "{told}");
            told
        };
        let frozen = said(State::Rejected, Some("not-mine"), Side::Phone);
        assert!(frozen.contains("locked against further payments"), "{frozen}");
        let shop = said(State::Rejected, Some("not-mine"), Side::Checkout);
        assert!(shop.contains("did not start") && !shop.contains("locked"), "{shop}");
        let poor = said(State::ExecutionFailed, Some("insufficient-funds"), Side::Phone);
        assert!(poor.contains("not enough money") && poor.contains("class=\"result bad\""));
        let unknown = said(State::ExecutionFailed, Some("<b>new"), Side::Phone);
        assert!(unknown.contains("ask your bank") && !unknown.contains("<b>"), "{unknown}");
    }
}

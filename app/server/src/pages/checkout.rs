//! The checkout of an initiating terminal (D1, D6, D7): what is paid, the number to match, a code
//! for a security device without a phone, and how it ends.

use countersign_crypto::UnixTime;
use countersign_payment::{ConfirmationRequest, State};
use maud::{Markup, html};

use super::lang::Lang;
use super::layout::{Page, document, error_of, pair};
use super::phone::{code, digits_input};
use super::shown::{self, Side};
use super::texts::Text;

/// The page before anything is known.
pub(crate) fn checkout_shell(lang: Lang, now: UnixTime) -> Markup {
    let texts = [
        Text::CheckoutNoKey,
        Text::SerialForm,
        Text::DigitsForm,
        Text::Sending,
        Text::AnswerRefused,
        Text::AnswerUnknown,
        Text::AnsweredAlready,
    ];
    let page = Page { lang, title: Text::CheckoutTitle, script: "checkout.js", now, texts: &texts };
    document(&page, &html! { div #checkout {} })
}

/// What whoever has the checkout's key sees of a payment.
#[derive(Debug)]
pub(crate) struct CheckoutPart {
    /// Where it stands.
    pub(crate) state: State,
    /// Why it ended as it did.
    pub(crate) reason: Option<String>,
    /// One more with every change.
    pub(crate) version: i64,
    /// What is to be signed.
    pub(crate) request: ConfirmationRequest,
    /// The number to match, while it waits.
    pub(crate) match_code: Option<String>,
    /// The request signed by this server, while it waits.
    pub(crate) offline: Option<String>,
}

/// One payment: what it is; while it waits, the number to match and the way without a phone; then
/// how it ended.
pub(crate) fn checkout_part(lang: Lang, part: &CheckoutPart) -> Markup {
    let open = shown::is_open(part.state);
    let request = &part.request;
    let pair = |label, id, value: &str| pair(lang, label, id, value);
    html! {
        article #checkout-view data-state=(part.state.name()) data-version=(part.version) {
            @if open {
                h1 #checkout-heading tabindex="-1" { (Text::CheckoutWaiting.of(lang)) }
            } @else {
                (shown::result(lang, part.state, part.reason.as_deref(), Side::Checkout))
            }
            section.card.facts {
                (shown::amount(lang, request.amount))
                @if open { (shown::countdown(lang, request.expires)) }
                dl {
                    (pair(Text::Payee, "payee-name", &request.payee_name))
                    (pair(Text::PayeeAccount, "payee-account", &request.payee_account.grouped()))
                    (pair(Text::Order, "order", &request.order))
                    (pair(Text::PaymentId, "payment-id", &request.payment))
                }
            }
            @if open { (number(lang, part)) (offline(lang, part)) }
        }
    }
}

fn number(lang: Lang, part: &CheckoutPart) -> Markup {
    html! {
        @if let Some(code) = &part.match_code {
            section.card.number aria-labelledby="match-code-title" {
                h2 #match-code-title { (Text::CheckoutNumber.of(lang)) }
                p { (Text::CheckoutHow.of(lang)) }
                p.match-code { strong #match-code-shown { (code) } }
            }
        }
    }
}

fn offline(lang: Lang, part: &CheckoutPart) -> Markup {
    let text = |text: Text| text.of(lang);
    html! {
        @if let Some(offline) = &part.offline {
            details #offline .card {
                summary #offline-open { (text(Text::OfflineTitle)) }
                (code(lang, Some(offline)))
                form #offline-form novalidate {
                    label for="device-serial" { (text(Text::SerialLabel)) }
                    p #device-serial-hint .hint { (text(Text::SerialHint)) }
                    input #device-serial name="device-serial" type="text" required maxlength="64"
                        autocomplete="off" autocapitalize="characters" autocorrect="off"
                        spellcheck="false"
                        aria-describedby="device-serial-hint device-serial-error";
                    (error_of("device-serial"))
                    label for="digits" { (text(Text::DigitsLabel)) }
                    (digits_input())
                    button #offline-button .primary type="submit" {
                        (text(Text::ConfirmWithDigits))
                    }
                }
            }
        }
    }
}

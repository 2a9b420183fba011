//! The payer's phone (D2 to D5): connecting it, what waits, and one payment.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_crypto::UnixTime;
use countersign_payment::{ConfirmationRequest, State};
use maud::{Markup, html};

use super::lang::Lang;
use super::layout::{Page, document, error_of, nothing, pair};
use super::qr;
use super::shown::{self, Side};
use super::texts::Text;

/// Texts of the session's script, on both pages.
const SESSION: [Text; 2] = [Text::NeedsSecureContext, Text::NeedsStorage];

/// The list's page before anything is known: the form that connects this phone, and the place of
/// the list.
pub(crate) fn list_shell(lang: Lang, now: UnixTime) -> Markup {
    let own =
        [Text::CodeForm, Text::CodeRefused, Text::Connecting, Text::Connected, Text::NewPayment];
    let texts = [&SESSION[..], &own[..]].concat();
    let page = Page { lang, title: Text::PhoneTitle, script: "phone.js", now, texts: &texts };
    document(
        &page,
        &html! {
            (enrol_form(lang))
            div #payments hidden {
                p #helper-note .note hidden { (Text::HelperConnected.of(lang)) }
                div #payments-part {}
            }
        },
    )
}

fn enrol_form(lang: Lang) -> Markup {
    let text = |text: Text| text.of(lang);
    html! {
        section #enrol hidden aria-labelledby="enrol-heading" {
            div #signed-out .note hidden {
                p { (text(Text::SignedOut)) }
                button #try-again .quiet-button type="button" { (text(Text::TryAgain)) }
            }
            h1 #enrol-heading tabindex="-1" { (text(Text::EnrolTitle)) }
            p { (text(Text::EnrolIntro)) }
            form #enrol-form .card novalidate {
                label for="code" { (text(Text::CodeLabel)) }
                p #code-hint .hint { (text(Text::CodeHint)) }
                input #code .code name="code" type="text" required maxlength="40"
                    autocomplete="off" autocapitalize="characters" autocorrect="off"
                    spellcheck="false" aria-describedby="code-hint code-error";
                (error_of("code"))
                button #enrol-button .primary type="submit" { (text(Text::ConnectButton)) }
            }
        }
    }
}

/// A payment in the list.
#[derive(Debug)]
pub(crate) struct ListItem {
    /// `pay_…`.
    pub(crate) id: String,
    /// What is to be signed.
    pub(crate) request: ConfirmationRequest,
}

/// The payments that wait.
pub(crate) fn list_part(lang: Lang, items: &[ListItem]) -> Markup {
    html! {
        h1 #payments-heading tabindex="-1" { (Text::WaitingTitle.of(lang)) }
        @if items.is_empty() {
            div #payments-empty .card .empty {
                p.sign aria-hidden="true" { "✓" }
                p { strong { (Text::NothingWaits.of(lang)) } }
                p.hint { (Text::NothingWaitsHint.of(lang)) }
            }
        } @else {
            ul #payment-list { @for item in items { li { (list_item(lang, item)) } } }
        }
    }
}

fn list_item(lang: Lang, ListItem { id, request }: &ListItem) -> Markup {
    let href = format!("/phone/payments/{id}?lang={}", lang.code());
    let amount = shown::grouped(request.amount);
    html! {
        a.payment.card href=(href) data-payment=(id) {
            span class={ "item-amount" (shown::length_class(&amount)) } {
                (request.amount.currency().code()) " "
                strong { (amount) }
            }
            span.item-payee {
                (Text::PayTo.of(lang)) " " bdi { (request.payee_name) }
            }
            span.item-order { bdi { (request.order) } }
            span.item-left {
                (Text::TimeLeft.of(lang)) " "
                span data-until=(request.expires.as_millis()) { "…" }
            }
            span.item-go aria-hidden="true" { (Text::CheckPayment.of(lang)) " ›" }
        }
    }
}

/// A payment's page before anything is known.
pub(crate) fn payment_shell(lang: Lang, now: UnixTime) -> Markup {
    let own = [
        Text::MatchForm,
        Text::DigitsForm,
        Text::LookAtDevice,
        Text::Sending,
        Text::AnswerRefused,
        Text::AnswerUnknown,
        Text::AnsweredAlready,
        Text::NotYours,
        Text::NotConnected,
        Text::ReasonMissing,
        Text::HelperGone,
        Text::HelperToken,
        Text::HelperBusy,
        Text::HelperDeclined,
        Text::HelperPinWrong,
        Text::HelperPinBlocked,
        Text::HelperNoDevice,
        Text::HelperRequest,
    ];
    let texts = [&SESSION[..], &own[..]].concat();
    let page = Page { lang, title: Text::PaymentTitle, script: "payment.js", now, texts: &texts };
    document(
        &page,
        &html! {
            div #payment {}
            p { a #back .button-like href={ "/phone?lang=" (lang.code()) } {
                "‹ " (Text::BackToList.of(lang))
            } }
        },
    )
}

/// A security device that may answer for a payment's account.
#[derive(Debug)]
pub(crate) struct Device {
    /// What the payer's answer names it by.
    pub(crate) serial: String,
    /// For people.
    pub(crate) label: String,
    /// Whether it shows digits to be typed (a dynamic password); others sign.
    pub(crate) shows_digits: bool,
}

/// What a phone sees of a payment.
#[derive(Debug)]
pub(crate) struct PaymentPart {
    /// `pay_…`.
    pub(crate) id: String,
    /// Where it stands.
    pub(crate) state: State,
    /// Why it ended as it did.
    pub(crate) reason: Option<String>,
    /// The very bytes that are to be signed.
    pub(crate) bytes: Vec<u8>,
    /// The same, taken apart.
    pub(crate) request: ConfirmationRequest,
    /// Those that can be used.
    pub(crate) devices: Vec<Device>,
    /// The request signed by this server, for a device with a camera, while it waits.
    pub(crate) offline: Option<String>,
}

/// One payment: what it is; while it waits, how to confirm or reject it; then how it ended.
pub(crate) fn payment_part(lang: Lang, part: &PaymentPart) -> Markup {
    let open = shown::is_open(part.state);
    let request = URL_SAFE_NO_PAD.encode(&part.bytes);
    html! {
        article #payment-view data-state=(part.state.name()) data-payment=(part.id)
            data-request=[open.then_some(request)]
        {
            @if open {
                h1 #payment-heading tabindex="-1" { (Text::PaymentTitle.of(lang)) }
                (shown::alerts(lang, &part.request))
            } @else {
                (shown::result(lang, part.state, part.reason.as_deref(), Side::Phone))
            }
            (details(lang, &part.request, open))
            @if open { (confirm(lang, part)) (reject(lang)) }
        }
    }
}

fn details(lang: Lang, request: &ConfirmationRequest, open: bool) -> Markup {
    let pair = |label, id, value: &str| pair(lang, label, id, value);
    html! {
        section.card.facts {
            (shown::amount(lang, request.amount))
            @if open { (shown::countdown(lang, request.expires)) }
            dl {
                (pair(Text::Payee, "payee-name", &request.payee_name))
                (pair(Text::PayeeAccount, "payee-account", &request.payee_account.grouped()))
                (pair(Text::Order, "order", &request.order))
                (pair(Text::PayerAccount, "payer-account", &request.payer_account.grouped()))
                (pair(Text::Initiator, "initiator", &request.initiator))
                (pair(Text::Server, "server", &request.server))
                div { dt { (Text::ExpiresAt.of(lang)) }
                    dd { (shown::time("expires", request.expires)) } }
                (pair(Text::PaymentId, "payment-id", &request.payment))
            }
        }
    }
}

fn confirm(lang: Lang, part: &PaymentPart) -> Markup {
    let text = |text: Text| text.of(lang);
    html! {
        form #approve-form .card novalidate aria-labelledby="approve-heading" {
            h2 #approve-heading { (text(Text::ConfirmTitle)) }
            div #match-area {
                label for="match-code" { (text(Text::MatchLabel)) }
                p #match-code-hint .hint { (text(Text::MatchHint)) }
                input #match-code .short name="match-code" type="text" required
                    inputmode="numeric" pattern="[0-9]{2}" maxlength="2" autocomplete="off"
                    aria-describedby="match-code-hint match-code-error";
                (error_of("match-code"))
            }
            div #helper-area hidden {
                button #approve-helper .primary type="button" aria-describedby="helper-hint" {
                    (text(Text::ConfirmWithDevice))
                }
                p #helper-hint .hint { (text(Text::HelperHint)) }
            }
            (by_digits(lang, part))
        }
    }
}

fn by_digits(lang: Lang, part: &PaymentPart) -> Markup {
    let text = |text: Text| text.of(lang);
    let with_digits: Vec<&Device> = part.devices.iter().filter(|d| d.shows_digits).collect();
    if with_digits.is_empty() {
        return no_digits(lang, &part.devices);
    }
    html! {
        details #digits-area open {
            summary #digits-open { (text(Text::DigitsTitle)) }
            (code(lang, part.offline.as_deref()))
            label for="device" { (text(Text::DeviceLabel)) }
            select #device name="device" {
                @for device in with_digits {
                    option value=(device.serial) { (device.label) " (" (device.serial) ")" }
                }
            }
            label for="digits" { (text(Text::DigitsLabel)) }
            (digits_input())
            button #approve-digits .primary type="submit" { (text(Text::ConfirmWithDigits)) }
        }
    }
}

/// The input of a device's digits, and its error's place.
pub(super) fn digits_input() -> Markup {
    html! {
        input #digits .digits name="digits" type="text" required inputmode="numeric"
            pattern="[0-9]{8}" maxlength="11" autocomplete="off"
            aria-describedby="digits-error";
        (error_of("digits"))
    }
}

/// The square code and what to do with it; nothing where the payment is too long for one.
pub(super) fn code(lang: Lang, offline: Option<&str>) -> Markup {
    match offline.and_then(|offline| qr::svg(offline, Text::QrLabel.of(lang))) {
        Some(code) => html! {
            p { (Text::DigitsHow.of(lang)) }
            div #qr { (code) }
        },
        None => nothing(),
    }
}

fn no_digits(lang: Lang, devices: &[Device]) -> Markup {
    let text = |text: Text| text.of(lang);
    html! {
        div #no-device .note {
            @if devices.is_empty() {
                p { (text(Text::NoDevice)) }
            } @else {
                p { (text(Text::NoDigitsDevice)) }
                p { (text(Text::YourDevices)) }
                ul { @for device in devices { li { (device.label) " (" (device.serial) ")" } } }
            }
        }
    }
}

fn reject(lang: Lang) -> Markup {
    let reasons = [
        ("not-mine", Text::ReasonNotMine, Text::ReasonNotMineHint),
        ("wrong-details", Text::ReasonWrongDetails, Text::ReasonWrongDetailsHint),
        ("changed-mind", Text::ReasonChangedMind, Text::ReasonChangedMindHint),
    ];
    html! {
        details #reject .card {
            summary #reject-open { (Text::RejectOpen.of(lang)) }
            form #reject-form novalidate {
                fieldset aria-describedby="reason-error" {
                    legend { (Text::RejectWhy.of(lang)) }
                    @for (name, title, hint) in reasons {
                        div.choice {
                            input #{ "reason-" (name) } type="radio" name="reason" value=(name)
                                aria-describedby={ "reason-" (name) "-hint" };
                            label for={ "reason-" (name) } { (title.of(lang)) }
                            p.hint #{ "reason-" (name) "-hint" } { (hint.of(lang)) }
                        }
                    }
                }
                (error_of("reason"))
                button #reject-button .danger type="submit" { (Text::RejectButton.of(lang)) }
            }
        }
    }
}

#[cfg(test)]
mod tests;

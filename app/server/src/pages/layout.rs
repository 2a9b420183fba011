//! What every page has around its content.

use countersign_crypto::UnixTime;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lang::Lang;
use super::texts::Text;

/// The name of the product, the same in all languages.
const BRAND: &str = "Countersign";

/// What tells one page from another.
pub(super) struct Page<'a> {
    pub(super) lang: Lang,
    pub(super) title: Text,
    /// The file of its script.
    pub(super) script: &'static str,
    /// Now: a phone's own clock may be wrong.
    pub(super) now: UnixTime,
    /// The texts that its script says.
    pub(super) texts: &'a [Text],
}

/// Texts that every script says.
const COMMON: [Text; 12] = [
    Text::Offline,
    Text::OnlineAgain,
    Text::LoadFailed,
    Text::TooMany,
    Text::ServerTrouble,
    Text::LeftHours,
    Text::LeftMinutes,
    Text::LeftSeconds,
    Text::TimeIsUp,
    Text::OneMinuteLeft,
    Text::EndedMeanwhile,
    Text::Reference,
];

/// A whole document. The places where results and failures are said stand in it from the start, so
/// that screen readers listen to them.
pub(super) fn document(page: &Page<'_>, content: &Markup) -> Markup {
    let lang = page.lang;
    let text = |text: Text| text.of(lang);
    let head = html! { script type="module" src={ "/assets/" (page.script) } {} };
    let body = html! {
        p #offline-note role="status" {}
        main #main tabindex="-1" {
            h1 #page-heading { (text(page.title)) }
            p #problem role="alert" {}
            p #status role="status" {}
            noscript { p.note { (text(Text::NeedsScript)) } }
            p #loading .hint { (text(Text::Loading)) }
            button #retry .primary type="button" hidden { (text(Text::TryAgain)) }
            (content)
        }
        template #texts { (said(lang, &COMMON)) (said(lang, page.texts)) }
    };
    whole(lang, page.title, Some(page.now), &head, &body)
}

/// A document without a script.
pub(super) fn plain_document(lang: Lang, title: Text, content: &Markup) -> Markup {
    whole(lang, title, None, &nothing(), &html! { main #main tabindex="-1" { (content) } })
}

fn whole(lang: Lang, title: Text, now: Option<UnixTime>, head: &Markup, body: &Markup) -> Markup {
    let view = if now.is_some() { "loading" } else { "failed" };
    html! {
        (DOCTYPE)
        html lang=(lang.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex, nofollow";
                title { (title.of(lang)) " · " (BRAND) }
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                link rel="stylesheet" href="/assets/page.css";
                (head)
            }
            body data-view=(view) data-now=[now.map(UnixTime::as_millis)] data-lang=(lang.code()) {
                a.skip href="#main" { (Text::SkipToContent.of(lang)) }
                header {
                    p.brand { (BRAND) }
                    (switch(lang))
                }
                (body)
            }
        }
    }
}

fn switch(now: Lang) -> Markup {
    html! {
        nav.languages aria-label=(Text::Language.of(now)) {
            @for lang in Lang::ALL {
                a #{ "lang-" (lang.code()) } href={ "?lang=" (lang.code()) } lang=(lang.tag())
                    hreflang=(lang.tag()) aria-current=[(lang == now).then_some("true")]
                { (lang.own_name()) }
            }
        }
    }
}

fn said(lang: Lang, texts: &[Text]) -> Markup {
    html! { @for text in texts { span data-text=(text.key()) { (text.of(lang)) } } }
}

/// A word and what it says, in a list of them. `id` is the value's.
pub(super) fn pair(lang: Lang, label: Text, id: &str, value: &str) -> Markup {
    html! { div { dt { (label.of(lang)) } dd id=(id) dir="auto" { (value) } } }
}

/// An error's place below an input; the input names it in `aria-describedby`.
pub(super) fn error_of(id: &str) -> Markup {
    html! { p.error id={ (id) "-error" } {} }
}

/// Nothing.
pub(super) fn nothing() -> Markup {
    PreEscaped(String::new())
}

//! What a person sees instead of a page.

use maud::{Markup, html};

use super::lang::Lang;
use super::layout::plain_document;
use super::texts::Text;

/// Why there is no page.
pub(crate) struct ErrorPage<'a> {
    /// The status of the answer.
    pub(crate) status: u16,
    /// Under which the server's log has it.
    pub(crate) request_id: &'a str,
}

/// Says it in words; it has no script.
pub(crate) fn error_page(lang: Lang, page: &ErrorPage<'_>) -> Markup {
    let (title, text) = match page.status {
        404 | 405 => (Text::NothingHere, Text::NothingHereText),
        403 => (Text::NotAllowedHere, Text::NotAllowedHereText),
        429 => (Text::WentWrong, Text::TooMany),
        _ => (Text::WentWrong, Text::WentWrongText),
    };
    plain_document(
        lang,
        title,
        &html! {
            section.result.plain {
                p.sign aria-hidden="true" { "!" }
                h1 { (title.of(lang)) }
                p { (text.of(lang)) }
                p.hint { (Text::Reference.of(lang).replace("{id}", page.request_id)) }
            }
            p { a.button-like href={ "/phone?lang=" (lang.code()) } {
                (Text::PhoneTitle.of(lang))
            } }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_in_words() {
        let page = |status| {
            let page = ErrorPage { status, request_id: "req_<1>" };
            error_page(Lang::Zh, &page).into_string()
        };
        let missing = page(404);
        assert!(missing.contains("找不到页面") && missing.contains("req_&lt;1&gt;"), "{missing}");
        assert!(page(500).contains("出错了") && page(403).contains("其他网站"));
        assert!(!missing.contains("<script"), "{missing}");
    }
}

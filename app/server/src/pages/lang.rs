//! The languages of the pages, and which one a browser wants (RFC 9110, section 12.5.4).

/// Longest `Accept-Language` that is looked at, in bytes; what is behind is not read.
const ACCEPT_MAX: usize = 256;

/// A language that the pages speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lang {
    /// English.
    En,
    /// Chinese, simplified.
    Zh,
}

impl Lang {
    /// All of them, in the order of the switch.
    pub(crate) const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// What `?lang=` says.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// What `<html lang>` says: browsers choose fonts and voices by it.
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-Hans",
        }
    }

    /// Its own name for itself.
    pub(crate) const fn own_name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::Zh => "中文",
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lang| lang.code() == code)
    }

    /// The language of a request: what its query chose, else what its browser likes best of what
    /// there is, else English. Values that mean nothing are passed over.
    pub(crate) fn of_request(query: Option<&str>, accept: Option<&str>) -> Self {
        let chosen = query.unwrap_or_default().split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            if name == "lang" { Self::of_code(value) } else { None }
        });
        chosen.or_else(|| accept.and_then(Self::of_accept)).unwrap_or(Self::En)
    }

    fn of_accept(accept: &str) -> Option<Self> {
        let mut best = None;
        let end = accept.floor_char_boundary(ACCEPT_MAX.min(accept.len()));
        for range in accept[..end].split(',') {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let Some(lang) = Self::of_code(&primary) else { continue };
            let quality = match parameters.trim().strip_prefix("q=") {
                Some(quality) => quality.trim().parse::<f32>().unwrap_or(0.0),
                None => 1.0,
            };
            // The first of equals, and none of what is not wanted (q=0).
            if quality > best.map_or(0.0, |(_, best)| best) {
                best = Some((lang, quality));
            }
        }
        best.map(|(lang, _)| lang)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_goes_before_the_browser_and_nonsense_is_english() {
        let of = Lang::of_request;
        assert_eq!(of(Some("lang=zh"), Some("en")), Lang::Zh);
        assert_eq!(of(Some("a=b&lang=en"), Some("zh")), Lang::En);
        assert_eq!(of(Some("lang=xx"), Some("zh-CN,zh;q=0.9")), Lang::Zh);
        assert_eq!(of(Some("lang=%3Cscript%3E"), None), Lang::En);
        assert_eq!(of(None, Some("fr, de;q=0.5")), Lang::En);
        assert_eq!(of(None, None), Lang::En);
    }

    #[test]
    fn browsers_are_asked_what_they_like_best() {
        let of = |accept: &str| Lang::of_request(None, Some(accept));
        assert_eq!(of("zh-Hans-CN"), Lang::Zh);
        assert_eq!(of("ZH"), Lang::Zh);
        assert_eq!(of("en;q=0.5, zh;q=0.8"), Lang::Zh);
        assert_eq!(of("fr, zh;q=0.1, *;q=0.5"), Lang::Zh);
        assert_eq!(of("zh;q=0"), Lang::En);
        assert_eq!(of("zh;q=NaN, en"), Lang::En);
        assert_eq!(of("zhx"), Lang::En);
        assert_eq!(of(&format!("{}zh", "fr, ".repeat(100))), Lang::En, "beyond the bound");
        assert_eq!(of(&"语".repeat(200)), Lang::En, "cut between characters");
    }
}

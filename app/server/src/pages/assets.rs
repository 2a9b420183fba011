//! The files of the pages, compiled in: styles, scripts, the icon.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// A file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    /// Its name below `/assets/`.
    pub(crate) name: &'static str,
    /// Its media type.
    pub(crate) media_type: &'static str,
    /// Its content.
    pub(crate) content: &'static str,
}

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $media_type:ident) => {
        Asset {
            name: $name,
            media_type: $media_type,
            content: include_str!(concat!("assets/", $name)),
        }
    };
}

const ASSETS: [Asset; 8] = [
    asset!("page.css", STYLE),
    asset!("icon.svg", ICON),
    asset!("common.js", SCRIPT),
    asset!("session.js", SCRIPT),
    asset!("helper.js", SCRIPT),
    asset!("phone.js", SCRIPT),
    asset!("payment.js", SCRIPT),
    asset!("checkout.js", SCRIPT),
];

impl Asset {
    /// The file of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ASSETS.into_iter().find(|asset| asset.name == name)
    }

    /// What tells this content from another (RFC 9110, section 8.8.3). Names stay as they are,
    /// since scripts import each other by name; a browser asks each time whether it has the right
    /// one.
    pub(crate) fn etag(&self) -> String {
        let hash = digest(&SHA256, self.content.as_bytes());
        format!("\"{}\"", HEXLOWER.encode(&hash.as_ref()[..16]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_exact_name_only() {
        assert_eq!(Asset::named("page.css").unwrap().media_type, STYLE);
        for none in ["", "Page.css", "../page.css", "page.css/", "mod.rs"] {
            assert!(Asset::named(none).is_none(), "{none}");
        }
    }

    #[test]
    fn contents_have_tags_of_their_own() {
        let mut tags: Vec<String> = ASSETS.iter().map(Asset::etag).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), ASSETS.len());
    }

    /// What the policies would stop, or what would let a text become markup, is not in the files.
    #[test]
    fn scripts_neither_evaluate_nor_build_markup() {
        let scripts = ASSETS.iter().filter(|asset| asset.media_type == SCRIPT);
        for Asset { name, content, .. } in scripts {
            let forbidden = [
                "eval(",
                "new Function",
                "document.write",
                "outerHTML",
                "insertAdjacentHTML",
                "http://", // but for the helper's
                "https://",
                "localStorage",
                "document.cookie",
                "console.",
            ];
            for word in forbidden {
                let helper = *name == "helper.js" && word == "http://";
                assert!(helper || !content.contains(word), "{name}: {word}");
            }
            let sets = content.matches("innerHTML").count();
            assert_eq!(sets, usize::from(*name == "common.js"), "{name}: one place sets parts");
            assert!(content.lines().all(|line| line.chars().count() <= 100), "{name}");
        }
    }

    /// The relative luminance of `#rrggbb` (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn colours_can_be_told_apart() {
        let style = Asset::named("page.css").unwrap().content;
        let sets: Vec<&str> = style.split(":root {").skip(1).collect();
        assert_eq!(sets.len(), 2, "a light set and a dark one");
        for set in sets {
            let colour = |name: &str| {
                let found = set.split_once(&format!("--{name}: "));
                luminance(&found.unwrap_or_else(|| panic!("{name}")).1[..7])
            };
            for (ink, ground, least) in [
                ("ink", "ground", 4.5),
                ("ink", "card", 4.5),
                ("ink", "accent-soft", 4.5),
                ("quiet", "ground", 4.5),
                ("quiet", "card", 4.5),
                ("accent", "ground", 4.5),
                ("accent", "card", 4.5),
                ("on-accent", "accent", 4.5),
                ("good", "good-soft", 4.5),
                ("bad", "bad-soft", 4.5),
                ("bad", "card", 4.5),
                ("warn", "warn-soft", 4.5),
                // Of what is not text.
                ("edge", "card", 3.0),
            ] {
                let (a, b) = (colour(ink), colour(ground));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= least, "{ink} on {ground}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn styles_load_nothing() {
        let style = Asset::named("page.css").unwrap().content;
        for word in ["url(", "@import", "@font-face", "expression"] {
            assert!(!style.contains(word), "{word}");
        }
    }
}

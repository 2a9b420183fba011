//! QR codes as inline SVG: no image to fetch, sharp in any size.

use std::fmt::Write;

use maud::{Markup, html};
use qrcode::{Color, EcLevel, QrCode};

/// The light border that readers need, in modules (ISO/IEC 18004, section 6.3.8).
const QUIET_ZONE: usize = 4;

/// The code of a text, for people named `label`; `None` if the text is longer than a code can be.
/// The lowest level of correction: a display has no stains, and fewer modules are larger ones.
/// Its background is light also where the page is dark.
pub(super) fn svg(text: &str, label: &str) -> Option<Markup> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (width, colors) = (code.width(), code.to_colors());
    let mut path = String::new();
    for (at, row) in colors.chunks(width).enumerate() {
        // One rectangle for each run of dark modules: gaps between them would confuse readers.
        let mut column = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] == Color::Dark {
                let (x, y, length) = (column + QUIET_ZONE, at + QUIET_ZONE, run.len());
                let _never_fails = write!(path, "M{x} {y}h{length}v1h-{length}z");
            }
            column += run.len();
        }
    }
    let side = width + 2 * QUIET_ZONE;
    Some(html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (side) " " (side) } role="img"
            aria-label=(label) shape-rendering="crispEdges"
        {
            rect width=(side) height=(side) fill="#fff" {}
            path d=(path) fill="#000" {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_border_and_its_label() {
        let svg = svg("CS1:ABC", "a <code>").unwrap().into_string();
        // Version 1 has 21 modules.
        assert!(svg.contains("viewBox=\"0 0 29 29\"") && svg.contains("role=\"img\""), "{svg}");
        assert!(svg.contains("aria-label=\"a &lt;code&gt;\""), "{svg}");
        // The finder's top edge: seven modules, behind the border.
        assert!(svg.contains("d=\"M4 4h7v1h-7z"), "{svg}");
    }

    #[test]
    fn capital_letters_and_digits_take_less_room() {
        let side = |text: &str| QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let upper = side(&"CS1:MZXW6YTBOI".repeat(60)).width();
        let lower = side(&"cs1:mzxw6ytboi".repeat(60)).width();
        assert!(upper < lower);
    }

    #[test]
    fn what_fits_in_no_code_has_none() {
        assert!(svg(&"A".repeat(4296), "").is_some());
        assert!(svg(&"A".repeat(4297), "").is_none());
    }
}

//! The codes that a scanner reads.

use barcoders::sym::code128::Code128;
use countersign_payment::joint::JointPassword;
use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use super::grid::{Grid, with_room};

/// The light border of a QR code, in modules (ISO/IEC 18004 §6.3.8).
const QR_QUIET: usize = 4;
/// The light border at both ends of a bar code, in modules (ISO/IEC 15417 §4.6).
const BARS_QUIET: usize = 10;
/// Light rows above and below the bars of an image, and the rows of the bars.
const BARS_MARGIN: usize = 4;
const BARS_HEIGHT: usize = 32;
/// Lines of text that bars are high.
const BARS_LINES: usize = 6;

/// The QR code of the digits.
pub(super) fn qr(password: &JointPassword) -> Grid {
    let code = QrCode::with_error_correction_level(password.digits(), EcLevel::M)
        .expect("nine digits fit into any QR code");
    let width = code.width();
    let colors = Zeroizing::new(code.into_colors().into_iter().map(is_dark).collect::<Vec<_>>());
    let side = width + 2 * QR_QUIET;
    let mut grid = Grid::new(side, side);
    for (at, _) in colors.iter().enumerate().filter(|(_, dark)| **dark) {
        grid.darken(at % width + QR_QUIET, at / width + QR_QUIET);
    }
    grid
}

fn is_dark(color: Color) -> bool {
    color == Color::Dark
}

/// The bars of the digits: code set C for four pairs, then code set B for the last digit.
fn bars(password: &JointPassword) -> Zeroizing<Vec<u8>> {
    let (pairs, last) = password.digits().split_at(8);
    let data = Zeroizing::new(["Ć", pairs, "Ɓ", last].concat());
    let code = Code128::new(&*data).expect("digits are in both code sets");
    Zeroizing::new(code.encode())
}

/// The bar code of the digits.
pub(super) fn code128(password: &JointPassword) -> Grid {
    let bars = bars(password);
    let mut grid = Grid::new(bars.len() + 2 * BARS_QUIET, BARS_HEIGHT + 2 * BARS_MARGIN);
    for (x, _) in bars.iter().enumerate().filter(|(_, bar)| **bar == 1) {
        for y in 0..BARS_HEIGHT {
            grid.darken(x + BARS_QUIET, y + BARS_MARGIN);
        }
    }
    grid
}

/// The bar code as text: a light line above and below the bars.
pub(super) fn code128_text(password: &JointPassword) -> Zeroizing<String> {
    let grid = code128(password);
    let (margin, bars) = (grid.line(0), grid.line(BARS_MARGIN));
    let mut text = with_room(bars.len(), BARS_LINES + 2);
    text.push_str(&margin);
    for _ in 0..BARS_LINES {
        text.push_str(&bars);
    }
    text.push_str(&margin);
    text
}

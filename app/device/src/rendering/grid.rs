//! Points that are dark or light, and what is made of them: images, and half blocks of text.

use zeroize::Zeroizing;

use super::RenderedImage;

const DARK: u8 = 0;
const LIGHT: u8 = 255;

/// Dark and light points. Light at first.
pub(super) struct Grid {
    width: usize,
    height: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Grid {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, dark: Zeroizing::new(vec![false; width * height]) }
    }

    /// Darkens a point; beyond the border nothing.
    pub(super) fn darken(&mut self, x: usize, y: usize) {
        if x < self.width && y < self.height {
            self.dark[y * self.width + x] = true;
        }
    }

    /// Draws rows of `columns` points, the leftmost of a row in its highest bit of those.
    pub(super) fn draw(&mut self, left: usize, top: usize, rows: &[u16], columns: usize) {
        for (y, row) in rows.iter().enumerate() {
            for x in (0..columns).filter(|x| row >> (columns - 1 - x) & 1 == 1) {
                self.darken(left + x, top + y);
            }
        }
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.dark[y * self.width + x]
    }

    /// Each point a square of this side.
    pub(super) fn image(&self, scale: usize) -> RenderedImage {
        let (width, height) = (self.width * scale, self.height * scale);
        let mut pixels = Zeroizing::new(vec![LIGHT; width * height]);
        for (y, row) in pixels.chunks_mut(width).enumerate() {
            for (x, pixel) in row.iter_mut().enumerate() {
                if self.is_dark(x / scale, y / scale) {
                    *pixel = DARK;
                }
            }
        }
        let side = |points| u32::try_from(points).expect("a few hundred");
        RenderedImage { width: side(width), height: side(height), pixels }
    }

    /// Two rows in a line of text. `ink`: the dark points are written, as for a drawing; otherwise
    /// the light ones are, as for a code on a dark ground.
    pub(super) fn half_blocks(&self, ink: bool) -> Zeroizing<String> {
        let mut text = with_room(self.width, self.height.div_ceil(2));
        for y in (0..self.height).step_by(2) {
            for x in 0..self.width {
                let written = |y| y < self.height && self.is_dark(x, y) == ink;
                text.push(match (written(y), written(y + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            text.push('\n');
        }
        text
    }

    /// A line of text of one row, two points in a column; the light points are written.
    pub(super) fn line(&self, y: usize) -> Zeroizing<String> {
        let mut text = with_room(self.width.div_ceil(2), 1);
        for x in (0..self.width).step_by(2) {
            let written = |x| x < self.width && !self.is_dark(x, y);
            text.push(match (written(x), written(x + 1)) {
                (true, true) => '█',
                (true, false) => '▌',
                (false, true) => '▐',
                (false, false) => ' ',
            });
        }
        text.push('\n');
        text
    }
}

/// An empty text with room for lines of blocks, which have three bytes each in UTF-8: growing would
/// leave a copy behind.
pub(super) fn with_room(columns: usize, lines: usize) -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity((3 * columns + 1) * lines))
}

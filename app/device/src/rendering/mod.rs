//! What a signing card displays of a joint password (B6): digits, a QR code, a Code 128 bar code or
//! pictures, each as an image and as text for a terminal window.
//!
//! QR code and bar code hold the nine digits and nothing else, so any scanner that types what it
//! reads will do. Our own buffers are wiped on drop; what the libraries of QR codes and PNG files
//! allocate meanwhile is not.

mod codes;
mod glyphs;
mod grid;

use std::io::Cursor;

use countersign_payment::joint::{JointPassword, Language};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use zeroize::Zeroizing;

/// Room for what a PNG file has besides its points, in bytes.
const PNG_HEAD: usize = 1024;

/// A way to display a joint password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendering {
    /// Nine digits in groups of 4, 4 and 1.
    Digits,
    /// A QR code of the digits, level M.
    Qr,
    /// A Code 128 bar code of the digits, in code set C as far as they come in pairs.
    Code128,
    /// A picture for each digit, in groups of 4, 4 and 1.
    Pictures,
}

impl Rendering {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Digits, Self::Qr, Self::Code128, Self::Pictures];

    /// Its name in commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Qr => "qr",
            Self::Code128 => "code128",
            Self::Pictures => "pictures",
        }
    }

    /// The way of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The password as an image, dark on light, with the quiet zone that scanners need.
    #[must_use]
    pub fn image(self, password: &JointPassword) -> RenderedImage {
        let (grid, scale) = match self {
            Self::Digits => (glyphs::digits(password), 8),
            Self::Qr => (codes::qr(password), 8),
            Self::Code128 => (codes::code128(password), 3),
            Self::Pictures => (glyphs::pictures(password), 4),
        };
        grid.image(scale)
    }

    /// The password as lines of text, each with its line end, at most 80 columns wide; pictures
    /// have their names in this language. Codes are dark where the terminal's ground is: mostly
    /// dark.
    #[must_use]
    pub fn text(self, password: &JointPassword, language: Language) -> Zeroizing<String> {
        match self {
            Self::Digits => {
                let digits = password.grouped();
                Zeroizing::new([digits.as_str(), "\n"].concat())
            }
            Self::Qr => codes::qr(password).half_blocks(false),
            Self::Code128 => codes::code128_text(password),
            Self::Pictures => glyphs::pictures_text(password, language),
        }
    }
}

/// An image of grey values: 0 is dark, 255 is light. Wiped on drop.
pub struct RenderedImage {
    width: u32,
    height: u32,
    pixels: Zeroizing<Vec<u8>>,
}

impl RenderedImage {
    /// Width in points.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height in points.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// A byte a point, in rows from the top, each from the left.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The image as a PNG file.
    ///
    /// # Panics
    /// Never: there is memory, or the program has ended.
    #[must_use]
    pub fn png(&self) -> Zeroizing<Vec<u8>> {
        // At a size that it will not outgrow: growing would leave a copy behind.
        let mut file = Zeroizing::new(Vec::with_capacity(PNG_HEAD + 2 * self.pixels.len()));
        let encoder = PngEncoder::new(Cursor::new(&mut *file));
        encoder
            .write_image(&self.pixels, self.width, self.height, ExtendedColorType::L8)
            .expect("an image of its own size, into memory");
        file
    }
}

#[cfg(test)]
mod tests;

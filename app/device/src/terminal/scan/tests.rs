use countersign_crypto::CryptoRng;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::pnm::PnmEncoder;
use image::{ExtendedColorType, ImageEncoder, Luma};
use testkit::rng::seeded;

use super::*;
use crate::Rendering;

const CODES: [Rendering; 2] = [Rendering::Qr, Rendering::Code128];

fn password(seed: u64) -> JointPassword {
    JointPassword::random(&mut seeded(seed)).unwrap()
}

fn drawn(way: Rendering, password: &JointPassword) -> GrayImage {
    let image = way.image(password);
    GrayImage::from_raw(image.width(), image.height(), image.pixels().to_vec()).unwrap()
}

fn png(image: &GrayImage) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(image, image.width(), image.height(), ExtendedColorType::L8).unwrap();
    file
}

fn pnm(image: &GrayImage) -> Vec<u8> {
    let mut file = Vec::new();
    let (width, height) = image.dimensions();
    let encoder = PnmEncoder::new(&mut file);
    encoder.write_image(image, width, height, ExtendedColorType::L8).unwrap();
    file
}

fn draw(rng: &mut dyn CryptoRng, end: u64) -> u64 {
    rng.next_u64() % end
}

/// These images one below the other on a grey ground.
fn below(images: &[&GrayImage]) -> GrayImage {
    let width = images.iter().map(|image| image.width()).max().unwrap() + 80;
    let height = images.iter().map(|image| image.height() + 80).sum::<u32>() + 80;
    let mut ground = GrayImage::from_pixel(width, height, Luma([190]));
    let mut top = 80;
    for image in images {
        imageops::overlay(&mut ground, *image, 40, i64::from(top));
        top += image.height() + 80;
    }
    ground
}

#[track_caller]
fn reads(file: &[u8], password: &JointPassword) {
    assert!(scan(file).unwrap().ct_eq(password), "other digits");
}

#[test]
fn our_scanner_reads_every_code_in_every_kind_of_file() {
    for seed in 0..20 {
        let password = password(seed);
        for way in CODES {
            reads(&way.image(&password).png(), &password);
            let image = drawn(way, &password);
            let (width, height, grey) = (image.width(), image.height(), ExtendedColorType::L8);
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, 60)
                .write_image(&image, width, height, grey)
                .unwrap();
            reads(&jpeg, &password);
            reads(&pnm(&image), &password);
        }
    }
}

/// As a camera sees them: turned by a quarter, smaller, larger, faint, noisy, light on dark.
#[test]
fn our_scanner_reads_codes_as_cameras_see_them() {
    for seed in 20..22 {
        let password = password(seed);
        for way in CODES {
            let image = below(&[&drawn(way, &password)]);
            for turned in [imageops::rotate90(&image), imageops::rotate180(&image)] {
                reads(&png(&turned), &password);
            }
            reads(&png(&imageops::rotate270(&image)), &password);
            let (width, height) = image.dimensions();
            let scale = |by: u32| (width * by / 100, height * by / 100);
            for by in [60, 85, 133, 250] {
                let (width, height) = scale(by);
                let image = imageops::resize(&image, width, height, FilterType::Triangle);
                reads(&png(&image), &password);
            }
            let mut faint = image.clone();
            faint.pixels_mut().for_each(|pixel| pixel.0[0] = 70 + pixel.0[0] / 3);
            reads(&png(&faint), &password);
            let mut noise = seeded(seed);
            let mut noisy = image.clone();
            for pixel in noisy.pixels_mut() {
                let by = i16::try_from(draw(&mut noise, 61)).unwrap() - 30;
                pixel.0[0] = u8::try_from((i16::from(pixel.0[0]) + by).clamp(0, 255)).unwrap();
            }
            reads(&png(&noisy), &password);
            let mut dark = image.clone();
            imageops::invert(&mut dark);
            reads(&png(&dark), &password);
        }
    }
}

/// `image` in a plane that is turned and tilted before the camera.
fn askew(image: &GrayImage, degrees: f32, tilt: f32) -> GrayImage {
    let (width, height) = image.dimensions();
    let (middle_x, middle_y) = (width as f32 / 2.0, height as f32 / 2.0);
    let (sin, cos) = degrees.to_radians().sin_cos();
    GrayImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 - middle_x, y as f32 - middle_y);
        let (x, y) = (x * cos - y * sin, x * sin + y * cos);
        let away = 1.0 + tilt * x / width as f32;
        let (x, y) = (x / away + middle_x, y / away + middle_y);
        let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
        if inside { *image.get_pixel(x as u32, y as u32) } else { Luma([190]) }
    })
}

/// The smallest QR code has no fourth mark to measure a tilt by, so it must not be large.
#[test]
fn our_scanner_reads_codes_that_are_held_askew() {
    for seed in 26..30 {
        let password = password(seed);
        for way in CODES {
            let image = below(&[&drawn(way, &password)]);
            for (degrees, tilt) in [(7.0, 0.0), (-9.0, 0.0), (0.0, 0.1), (5.0, -0.1)] {
                reads(&png(&askew(&image, degrees, tilt)), &password);
            }
        }
    }
}

/// A photograph is larger than what is searched.
#[test]
fn a_large_photograph_is_made_smaller() {
    let password = password(30);
    for way in CODES {
        let code = drawn(way, &password);
        let scale = 1600 / code.width();
        let (width, height) = (code.width() * scale, code.height() * scale);
        let code = imageops::resize(&code, width, height, FilterType::Nearest);
        let mut photograph = GrayImage::from_pixel(4000, 3000, Luma([150]));
        imageops::overlay(&mut photograph, &code, 900, 500);
        reads(&pnm(&photograph), &password);
    }
}

#[test]
fn several_codes_must_say_the_same() {
    let (one, other) = (password(40), password(41));
    let [qr, bars] = CODES.map(|way| drawn(way, &one));
    let [other_qr, other_bars] = CODES.map(|way| drawn(way, &other));
    reads(&png(&below(&[&qr, &bars])), &one);
    reads(&png(&below(&[&bars, &bars, &qr])), &one);
    for images in [
        [&qr, &other_qr],
        [&bars, &other_bars],
        [&qr, &other_bars],
        [&other_bars, &qr],
        [&bars, &other_qr],
    ] {
        let error = scan(&png(&below(&images))).err();
        assert_eq!(error, Some(ScanError::Ambiguous));
    }
    let error = scan(&png(&below(&[&qr, &qr, &bars, &other_bars]))).err();
    assert_eq!(error, Some(ScanError::Ambiguous));
}

/// The QR code of any text.
fn code_of(text: &str) -> GrayImage {
    let code = qrcode::QrCode::new(text).unwrap();
    let width = u32::try_from(code.width()).unwrap();
    let colors = code.into_colors();
    GrayImage::from_fn((width + 8) * 6, (width + 8) * 6, |x, y| {
        let at = |place: u32| (place / 6).checked_sub(4).filter(|place| *place < width);
        let dark = at(x).zip(at(y)).is_some_and(|(x, y)| {
            colors[usize::try_from(y * width + x).unwrap()] == qrcode::Color::Dark
        });
        Luma([if dark { 0 } else { 255 }])
    })
}

#[test]
fn what_is_no_joint_password_is_not_taken_for_one() {
    let password = password(50);
    let digits = password.digits();
    let last = (digits.as_bytes()[8] - b'0' + 1) % 10;
    let wrong = code_of(&format!("{}{last}", &digits[..8]));
    assert_eq!(scan(&png(&wrong)).err(), Some(ScanError::CheckDigit));
    // Both are candidates: which of them is meant cannot be told.
    let both = below(&[&wrong, &drawn(Rendering::Qr, &password)]);
    assert_eq!(scan(&png(&both)).err(), Some(ScanError::Ambiguous));
    let grouped = password.grouped();
    let texts = [
        "https://example.org",
        &digits[..8],
        "1234567890",
        "12345678x",
        "１２３４５６７８９",
        &grouped,
    ];
    for text in texts {
        assert_eq!(scan(&png(&code_of(text))).err(), Some(ScanError::Nothing), "{text}");
    }
    // But such a code beside the right one does no harm.
    let image = below(&[&code_of("https://example.org"), &drawn(Rendering::Qr, &password)]);
    reads(&png(&image), &password);
    for way in [Rendering::Digits, Rendering::Pictures] {
        assert_eq!(scan(&way.image(&password).png()).err(), Some(ScanError::Nothing));
    }
    let half = imageops::crop_imm(&drawn(Rendering::Qr, &password), 0, 0, 120, 232).to_image();
    assert_eq!(scan(&png(&half)).err(), Some(ScanError::Nothing));
    for (width, height) in [(1, 1), (1, 3000), (3000, 1), (2, 2), (39, 41), (640, 480)] {
        for grey in [0, 128, 255] {
            let image = GrayImage::from_pixel(width, height, Luma([grey]));
            assert_eq!(scan(&png(&image)).err(), Some(ScanError::Nothing), "{width}×{height}");
        }
    }
}

#[test]
fn files_are_bounded_before_they_are_decoded() {
    let head = |width: u64, height: u64| format!("P5 {width} {height} 255\n").into_bytes();
    let cases = [
        (head(24_000, 24_000), ScanError::TooLarge),
        (head(16_000, 1501), ScanError::TooLarge),
        (head(16_385, 1), ScanError::TooLarge),
        (head(4_000_000_000, 4_000_000_000), ScanError::TooLarge),
        (head(100, 100), ScanError::Format),
        (head(0, 0), ScanError::Format),
        (vec![0; SCAN_BYTES_MAX + 1], ScanError::TooLarge),
        (vec![0; 1000], ScanError::Format),
        (Vec::new(), ScanError::Format),
        (b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), ScanError::Format),
        (b"BM".to_vec(), ScanError::Format),
        (b"<svg/>".to_vec(), ScanError::Format),
    ];
    for (file, wanted) in cases {
        let start = String::from_utf8_lossy(&file[..file.len().min(40)]).into_owned();
        assert_eq!(scan(&file).err(), Some(wanted), "{start:?}");
    }
    // A PNG file of few bytes that says it is huge, and one that unpacks to more than it says.
    let mut huge = png(&GrayImage::new(8, 8));
    huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    assert!(matches!(scan(&huge).err(), Some(ScanError::Format | ScanError::TooLarge)));
    let whole = Rendering::Qr.image(&password(60)).png();
    for end in (0..whole.len()).step_by(7) {
        let error = scan(&whole[..end]).err();
        let cut = matches!(error, None | Some(ScanError::Format | ScanError::Nothing));
        assert!(cut, "{end}: {error:?}");
    }
}

/// Damaged files and pictures of disorder end with an answer, whatever it is: never with another
/// password than the one that was drawn.
#[test]
fn disorder_gives_no_other_password() {
    let mut rng = seeded(70);
    let password = password(70);
    for way in CODES {
        let image = drawn(way, &password);
        for _ in 0..20 {
            let mut image = image.clone();
            for _ in 0..draw(&mut rng, 40) {
                let (width, height) = image.dimensions();
                let mut place = |end: u32| u32::try_from(draw(&mut rng, u64::from(end))).unwrap();
                let (left, top) = (place(width), place(height));
                let (right, bottom) =
                    ((left + 1 + place(24)).min(width), (top + 1 + place(24)).min(height));
                let grey = u8::try_from(place(256)).unwrap();
                for (x, y) in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
                    image.put_pixel(x, y, Luma([grey]));
                }
            }
            let mut file = png(&image);
            if let Ok(read) = scan(&file) {
                assert!(read.ct_eq(&password));
            }
            let at = usize::try_from(draw(&mut rng, file.len() as u64)).unwrap();
            file[at] ^= 1 << draw(&mut rng, 8);
            if let Ok(read) = scan(&file) {
                assert!(read.ct_eq(&password));
            }
        }
    }
    for _ in 0..40 {
        let mut noise = GrayImage::new(160, 120);
        noise.pixels_mut().for_each(|pixel| {
            pixel.0[0] = if draw(&mut rng, 2) == 0 { 0 } else { 255 };
        });
        assert_eq!(scan(&png(&noise)).err(), Some(ScanError::Nothing));
    }
}

/// However many codes there are, the search ends: here with what it found.
#[test]
fn a_page_full_of_codes_is_ambiguous() {
    let mut page = GrayImage::from_pixel(1600, 1600, Luma([255]));
    for at in 0..36 {
        let code = drawn(CODES[usize::try_from(at % 2).unwrap()], &password(80 + at));
        let (left, top) = (at % 4 * 400, at / 4 * 170);
        imageops::overlay(
            &mut page,
            &code,
            i64::try_from(left).unwrap(),
            i64::try_from(top).unwrap(),
        );
    }
    assert_eq!(scan(&png(&page)).err(), Some(ScanError::Ambiguous));
}

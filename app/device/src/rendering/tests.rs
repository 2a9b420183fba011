use std::collections::HashSet;
use std::process::Command;

use countersign_payment::joint::{JointPassword, Language, Picture};
use testkit::parts::in_ci;
use testkit::rng::seeded;

use super::*;

fn password(seed: u64) -> JointPassword {
    JointPassword::random(&mut seeded(seed)).unwrap()
}

/// What `zbarimg`, which shares no code with ours, reads in an image; none where it is not
/// installed, which only CI does not forgive.
fn zbarimg(image: &RenderedImage, only: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.png");
    std::fs::write(&path, &*image.png()).unwrap();
    let mut zbarimg = Command::new("zbarimg");
    zbarimg.args(["--quiet", "--raw", "-Sdisable", &format!("-S{only}.enable")]).arg(&path);
    match zbarimg.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        }
        Err(error) if !in_ci() => {
            println!("skipped: zbarimg ({error}); run: apt-get install -y zbar-tools");
            None
        }
        Err(error) => panic!("zbarimg: {error}"),
    }
}

#[test]
fn zbarimg_reads_every_code() {
    for seed in 0..40 {
        let password = password(seed);
        for (way, only) in [(Rendering::Qr, "qrcode"), (Rendering::Code128, "code128")] {
            let Some(read) = zbarimg(&way.image(&password), only) else { return };
            assert_eq!(read, password.digits(), "{way:?}");
        }
    }
    // Digits that start with zeros, or are all the same, are digits as others.
    for digits in ["000000000", "999999999"] {
        let check = (0..10).map(|check| format!("{}{check}", &digits[..8]));
        let password = check.into_iter().find_map(|text| JointPassword::parse(&text).ok()).unwrap();
        for (way, only) in [(Rendering::Qr, "qrcode"), (Rendering::Code128, "code128")] {
            let Some(read) = zbarimg(&way.image(&password), only) else { return };
            assert_eq!(read, password.digits(), "{way:?}");
        }
    }
}

#[test]
fn images_are_png_files_of_their_points_with_a_light_border() {
    for way in Rendering::ALL {
        let image = way.image(&password(1));
        let file = image.png();
        let read = image::load_from_memory(&file).unwrap().into_luma8();
        assert_eq!(read.dimensions(), (image.width(), image.height()), "{way:?}");
        assert_eq!(read.as_raw(), image.pixels(), "{way:?}");
        assert!(file.len() <= PNG_HEAD + 2 * image.pixels().len(), "it would have grown");
        let width = usize::try_from(image.width()).unwrap();
        let rows: Vec<_> = image.pixels().chunks(width).collect();
        // In points: 4 modules of a QR code, 10 of a bar code at its sides.
        let (side, edge) = match way {
            Rendering::Qr => (32, 32),
            Rendering::Code128 => (30, 12),
            Rendering::Digits => (32, 32),
            Rendering::Pictures => (16, 16),
        };
        let light = |points: &[u8]| points.iter().all(|point| *point == 255);
        assert!(rows[..edge].iter().all(|row| light(row)), "{way:?}");
        assert!(rows[rows.len() - edge..].iter().all(|row| light(row)), "{way:?}");
        assert!(rows.iter().all(|row| light(&row[..side]) && light(&row[width - side..])));
        let dark = image.pixels().iter().filter(|point| **point == 0).count();
        assert!(dark * 20 > image.pixels().len(), "{way:?}: hardly anything is drawn");
    }
}

/// Each way shows all of the password: other digits look otherwise, in the image and in the text.
#[test]
fn no_two_passwords_look_alike() {
    for way in Rendering::ALL {
        let (mut images, mut texts) = (HashSet::new(), HashSet::new());
        for seed in 0..200 {
            let password = password(seed);
            assert!(images.insert(way.image(&password).pixels().to_vec()), "{way:?}");
            assert!(texts.insert(way.text(&password, Language::Zh).to_string()), "{way:?}");
        }
    }
}

/// The points that the text shows are those of the image: the half blocks of a QR code are read
/// back, drawn large, and zbarimg reads that.
#[test]
fn the_text_of_a_code_holds_the_code() {
    let password = password(2);
    let qr = Rendering::Qr.text(&password, Language::En);
    let halves = |c| match c {
        '█' => [true, true],
        '▀' => [true, false],
        '▄' => [false, true],
        _ => [false, false],
    };
    let lines: Vec<Vec<[bool; 2]>> =
        qr.lines().map(|line| line.chars().map(halves).collect()).collect();
    let side = lines[0].len();
    let mut grid = grid::Grid::new(side, side);
    for (y, line) in lines.iter().enumerate() {
        for (x, light) in line.iter().enumerate() {
            for (half, _) in light.iter().enumerate().filter(|(_, light)| !**light) {
                grid.darken(x, 2 * y + half);
            }
        }
    }
    assert_eq!(grid.image(8).pixels(), Rendering::Qr.image(&password).pixels());

    let bars = Rendering::Code128.text(&password, Language::En);
    let lines: Vec<&str> = bars.lines().collect();
    assert!(lines[0].chars().all(|c| matches!(c, '█' | '▌')), "a light line above");
    let modules = lines[1].chars().flat_map(|c| match c {
        '█' => [true, true],
        '▌' => [true, false],
        '▐' => [false, true],
        _ => [false, false],
    });
    let image = Rendering::Code128.image(&password);
    let width = usize::try_from(image.width()).unwrap();
    let middle = &image.pixels()[image.pixels().len() / 2 / width * width..][..width];
    let drawn: Vec<bool> = middle.chunks(3).map(|module| module[0] == 255).collect();
    assert_eq!(modules.take(drawn.len()).collect::<Vec<_>>(), drawn);
}

#[test]
fn texts_fit_a_terminal_window() {
    for way in Rendering::ALL {
        for language in Language::ALL {
            let text = way.text(&password(3), language);
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{way:?}");
            assert!(text.lines().count() <= 32, "{way:?}");
            for line in text.lines() {
                let columns: usize =
                    line.chars().map(|c| if ('一'..='鿿').contains(&c) { 2 } else { 1 }).sum();
                assert!(columns <= 80, "{way:?}: {columns}");
            }
        }
    }
}

#[test]
fn the_names_of_pictures_give_the_password_back() {
    for language in Language::ALL {
        let password = password(4);
        let text = Rendering::Pictures.text(&password, language);
        let named: Vec<Picture> = text.split_whitespace().filter_map(Picture::from_name).collect();
        assert!(JointPassword::from_pictures(&named).unwrap().ct_eq(&password));
        // Each row of names stands below its pictures: the name begins where the picture does.
        let rows: Vec<&str> = text.lines().collect();
        let names = rows[8];
        assert!(names.starts_with(password.pictures()[0].name(language)), "{names}");
    }
}

/// Pictures are told apart by their shapes, also by somebody who sees them blurred.
#[test]
fn pictures_and_digits_differ_in_many_points() {
    let distance =
        |a: &[u16], b: &[u16]| -> u32 { a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum() };
    for one in Picture::ALL {
        let ink: u32 = one.bitmap().iter().map(|row| row.count_ones()).sum();
        assert!((30..=200).contains(&ink), "{one:?}: {ink} points of ink");
        for other in Picture::ALL.into_iter().filter(|other| *other != one) {
            let apart = distance(one.bitmap(), other.bitmap());
            assert!(apart >= 56, "{one:?} and {other:?}: {apart} of 256 points");
            for language in Language::ALL {
                assert_ne!(one.name(language), other.name(language));
            }
            let (one, other) = (usize::from(one.digit()), usize::from(other.digit()));
            let apart = distance(&glyphs::FONT[one], &glyphs::FONT[other]);
            assert!(apart >= 4, "{one} and {other}: {apart} of 35 points");
        }
    }
}

#[test]
fn ways_have_their_names() {
    for way in Rendering::ALL {
        assert_eq!(Rendering::from_name(way.name()), Some(way));
    }
    assert_eq!(Rendering::from_name("aztec"), None);
}

//! Writes the seed corpus: `cargo run -p fuzz-entry --bin seeds`.
//!
//! Files whose name does not begin with `seed-` are found inputs; they stay.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use fuzz_entry::{TARGETS, seeds};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("seed-") {
                fs::remove_file(entry.path())?;
            }
        }
        let seeds = seeds::seeds(target.name);
        println!("{}: {} seeds", target.name, seeds.len());
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

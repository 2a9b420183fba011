//! Debian packages that the build and the tests need.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::child::{capture, run};

/// What is needed, each for a reason: the C parts of AWS-LC and SQLite are compiled (gcc,
/// libc6-dev), the tests talk to a real PostgreSQL and ask OpenSSL about our certificates. Keys
/// live in a software token (softhsm2); another one (kryoptic) is built against the libraries named
/// here and set up with opensc's pkcs11-tool. The foreign oracle of key blocks lives in a Python
/// environment of its own (python3-venv). Cards are reached through a real smart-card service with
/// a virtual reader (pcscd, vsmartcard-vpcd, libpcsclite-dev) and by programs of other makers
/// (opensc, pcsc-tools). Pages are driven in a real browser (chromium, chromium-driver), in Chinese
/// too (fonts-noto-cjk), and their QR codes are read off the screen (zbar-tools).
const NEEDED: [&str; 19] = [
    "chromium",
    "chromium-driver",
    "fonts-noto-cjk",
    "gcc",
    "libc6-dev",
    "libclang-dev",
    "libpcsclite-dev",
    "libsqlite3-dev",
    "libssl-dev",
    "openssl",
    "opensc",
    "pcsc-tools",
    "pcscd",
    "pkg-config",
    "postgresql",
    "python3-venv",
    "softhsm2",
    "vsmartcard-vpcd",
    "zbar-tools",
];

/// Installs what is missing if we are root; otherwise says how.
///
/// # Errors
/// If something is missing and we may not or cannot install it.
pub(crate) fn install() -> Result<()> {
    let Some(installed) = installed()? else {
        println!("   no dpkg here: the equivalents of {} are expected", NEEDED.join(", "));
        return Ok(());
    };
    let missing = missing(&installed);
    if missing.is_empty() {
        println!("   installed: {}", NEEDED.join(", "));
        return Ok(());
    }
    let packages = missing.join(" ");
    if capture(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("packages are missing; run:\n  sudo apt-get install -y {packages}");
    }
    run(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(missing);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn missing(installed: &BTreeSet<String>) -> Vec<&'static str> {
    NEEDED.into_iter().filter(|package| !installed.contains(*package)).collect()
}

/// The needed packages that are installed; `None` on a system without dpkg.
fn installed() -> Result<Option<BTreeSet<String>>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${db:Status-Status} ${Package}\n"]).args(NEEDED);
    // It fails, and complains, when one package is unknown; what it found is on stdout anyway.
    match query.stderr(Stdio::null()).output() {
        Ok(output) => Ok(Some(parse(&String::from_utf8_lossy(&output.stdout)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run dpkg-query"),
    }
}

fn parse(listing: &str) -> BTreeSet<String> {
    let lines = listing.lines().filter_map(|line| line.strip_prefix("installed "));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let installed = parse(
            "installed gcc\nconfig-files postgresql\n\
             not-installed pkg-config\ninstalled libc6-dev\n",
        );
        let missing_here = missing(&installed);
        assert!(!missing_here.contains(&"gcc") && !missing_here.contains(&"libc6-dev"));
        for package in ["openssl", "pkg-config", "postgresql"] {
            assert!(missing_here.contains(&package), "{package}");
        }
        assert_eq!(missing(&parse("")), NEEDED);
    }
}

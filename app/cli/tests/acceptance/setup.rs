//! `init`: all of it, or nothing of it, or a sentence that says how to go on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Ended, Host, Ports, exists};

fn names(dir: &Path) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn init(host: &Host, token: &str, more: &[&str]) -> Result<Ended, Failed> {
    let words = ["--json", "init", "--data", "data", "--admin-token-file", token];
    host.run(&[&words[..], more].concat())
}

fn expect(ended: &Ended, code: i32, check: &str) -> Result<String, Failed> {
    let error = ended.json()?["error"].clone();
    assert_eq!((ended.code, error["check"].as_str()), (code, Some(check)), "{error}");
    Ok(error["detail"].as_str().unwrap_or_default().to_owned())
}

/// A token that cannot be kept is never made, and a file for one that was not made goes.
pub(crate) fn no_token_is_lost() -> Result<(), Failed> {
    let host = Host::new()?;
    let here = host.path("");
    expect(&init(&host, "no-such-dir/admin.token", &[])?, 3, "file")?;
    assert_eq!(names(&here)?, [""; 0], "nothing is made");
    std::fs::write(host.path("taken"), "mine")?;
    expect(&init(&host, "taken", &[])?, 2, "admin-token-file")?;
    assert_eq!(std::fs::read_to_string(host.path("taken"))?, "mine");
    assert_eq!(names(&here)?, ["taken"]);
    expect(&init(&host, "data/admin.token", &[])?, 2, "admin-token-file")?;
    expect(&init(&host, "admin.token", &["--server-id", "a b"])?, 1, "serial-format")?;
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    let unreachable = init(&host, "admin.token", &["--database", nowhere])?;
    expect(&unreachable, 3, "database-unreachable")?;
    assert_eq!(names(&here)?, ["taken"], "no token file, no directory, no leftover");

    init(&host, "admin.token", &[])?.ok()?;
    assert_eq!(names(&here)?, ["admin.token", "data", "taken"]);
    let mode = std::fs::metadata(host.path("admin.token"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    expect(&init(&host, "other.token", &[])?, 1, "data-not-empty")?;
    assert!(!exists(&host.path("other.token")));
    token_works(&host, "admin.token")
}

/// Moments at which `init` is killed, and what lies between them.
const KILLS: u64 = 16;
const KILL_STEP: Duration = Duration::from_millis(30);

/// `kill -9` at any moment: a directory that is there is whole, and its token is on the disk.
pub(crate) fn a_killed_init_loses_no_token() -> Result<(), Failed> {
    let mut published = 0;
    for kill in 0..KILLS {
        let host = Host::new()?;
        let words = ["--json", "init", "--data", "data", "--admin-token-file", "admin.token"];
        let init = host.spawn(&words)?;
        std::thread::sleep(KILL_STEP * u32::try_from(kill)?);
        init.kill()?;
        if exists(&host.data()) {
            published += 1;
            token_works(&host, "admin.token")?;
        } else {
            let again = ["--json", "init", "--data", "data", "--admin-token-file", "new.token"];
            host.run(&again)?.ok()?;
            assert!(std::fs::read(host.path("new.token"))?.starts_with(b"cst_"));
        }
    }
    assert!(published < KILLS, "none was killed early enough");
    Ok(())
}

fn token_works(host: &Host, token: &str) -> Result<(), Failed> {
    let ca = host.run(&["ca", "export", "--data", "data", "tls-root"])?.ok()?;
    std::fs::write(host.path("ca.pem"), ca.stdout)?;
    if token != "admin.token" {
        std::fs::rename(host.path(token), host.path("admin.token"))?;
    }
    let ports = Ports::pick()?;
    let _server = host.serve(&ports)?;
    let _readers: Value = host.api(&ports)?.get("/v1/readers")?;
    Ok(())
}

/// As after an `init` that broke off between database and token: the next one keeps its directory
/// and says what gives a token; that works.
pub(crate) fn a_used_database_is_gone_on_with(database: &Database) -> Result<(), Failed> {
    let Database::Postgres(url) = database else { return Err("for PostgreSQL only".into()) };
    let first = Host::new()?;
    first.init(database)?;
    let host = Host::new()?;
    let ended = init(&host, "admin.token", &["--database", url])?;
    let detail = expect(&ended, 1, "operator-name-taken")?;
    assert!(!exists(&host.path("admin.token")), "an empty token file helps nobody");
    let (_, command) = detail.split_once("`countersign operator token").ok_or(&*detail)?;
    let (command, _) = command.split_once('`').ok_or(&*detail)?;
    let words = ["--json", "operator", "token"].into_iter().chain(command.split_whitespace());
    let made = host.run(&words.collect::<Vec<_>>())?.ok()?.json()?;
    let secret = made["token"]["secret"].as_str().ok_or("no token")?;
    std::fs::write(host.path("new.token"), secret)?;
    token_works(&host, "new.token")
}

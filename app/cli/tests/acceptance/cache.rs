//! What a reader keeps, and how it goes: C6, C7, C8, C11, C13, C14 and C15 through the command.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Ended, Host, Ports, Process, command, wait_for};

/// A server with a module, and the reader RD-1.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) ports: Ports,
    _sam: Process,
    server: Option<Process>,
}

impl Stage {
    /// With the plaintext cache allowed or not (C13: the server's policy, off by default).
    pub(crate) fn new(plaintext_cache: bool) -> Result<Self, Failed> {
        let host = Host::new()?;
        let ports = Ports::pick()?;
        host.init(&Database::Sqlite)?;
        let path = host.path("data/config.toml");
        let config = fs::read_to_string(&path)?;
        assert!(config.contains("plaintext_cache = false"), "{config}");
        let policy = format!("plaintext_cache = {plaintext_cache}");
        fs::write(path, config.replace("plaintext_cache = false", &policy))?;
        let sam = host.sam()?;
        let server = host.serve(&ports)?;
        host.enroll(&ports, "RD-1")?;
        Ok(Self { host, ports, _sam: sam, server: Some(server) })
    }

    fn words<'a>(gateway: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let program = ["--json", "device", "reader", "--device", "RD-1", "--gateway", gateway];
        [&program[..], more].concat()
    }

    /// `device reader` with these words more.
    pub(crate) fn read(&self, more: &[&str]) -> Result<Ended, Failed> {
        self.host.run(&Self::words(&self.ports.gateway(), more))
    }

    /// The same, going on while the test does something; its log is in the file `log`.
    pub(crate) fn reading(&self, more: &[&str]) -> Result<Process, Failed> {
        let mut command = command();
        command.args(Self::words(&self.ports.gateway(), more)).current_dir(self.host.path("."));
        command.stderr(File::create(self.host.path("log"))?);
        Process::start(command)
    }

    pub(crate) fn log(&self) -> Result<String, Failed> {
        Ok(fs::read_to_string(self.host.path("log"))?)
    }

    /// What lies in the cache's directory, but for its lock.
    fn kept(&self) -> Result<Vec<PathBuf>, Failed> {
        let Ok(entries) = fs::read_dir(self.host.path("RD-1/cache")) else {
            return Ok(Vec::new());
        };
        let mut kept = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if !path.ends_with("lock") && path.extension().is_none() {
                kept.push(path);
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// Waits until so many files are kept.
    fn until_kept(&self, count: usize) -> Result<Vec<PathBuf>, Failed> {
        wait_for(&format!("{count} files in the cache"), || {
            let kept = self.kept()?;
            Ok((kept.len() == count).then_some(kept))
        })
    }
}

pub(crate) fn reads(ended: &Value) -> Result<&[Value], Failed> {
    Ok(ended["reads"].as_array().ok_or_else(|| format!("no reads: {ended}"))?)
}

fn sources(ended: &Value) -> Result<Vec<&str>, Failed> {
    Ok(reads(ended)?.iter().filter_map(|read| read["source"].as_str()).collect())
}

const CITIZEN: [&str; 2] = ["--card", "emulated:citizen"];
const TWO_CARDS: [&str; 4] = ["--card", "emulated:citizen", "--card", "emulated:foreigner2017"];

/// C6, C7, C8: as many cards as the mode says.
fn cards_are_kept_as_the_mode_says() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    let expected = [
        ("multi", ["server", "server", "serverFromCache", "serverFromCache"]),
        ("single", ["server"; 4]),
        ("off", ["server"; 4]),
    ];
    for memory in [&[][..], &["--cache-memory"]] {
        for (mode, sources) in expected {
            let more = [&TWO_CARDS[..], &["--reads", "4", "--cache", mode], memory].concat();
            let ended = stage.read(&more)?.ok()?.json()?;
            assert_eq!(self::sources(&ended)?, sources, "{mode} {memory:?}");
            let [first, second, third, fourth] = reads(&ended)? else { panic!("not four") };
            assert_eq!(first["record"], third["record"]);
            assert_eq!(second["record"], fourth["record"]);
            assert_ne!(first["record"], second["record"]);
            assert_eq!(stage.kept()?, Vec::<PathBuf>::new(), "nothing stays behind");
        }
    }
    // One card that stays is kept also where one card is: C8.
    let one = |mode: &str| {
        let more = [&CITIZEN[..], &["--reads", "2", "--cache", mode]].concat();
        stage.read(&more)?.ok()?.json()
    };
    assert_eq!(sources(&one("single")?)?, ["server", "serverFromCache"]);
    assert_eq!(sources(&one("off")?)?, ["server", "server"]);
    Ok(())
}

/// C6: the configuration is read when the card appears, before any command.
fn the_configuration_is_read_before_any_command() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    let mut reader = command();
    let gateway = stage.ports.gateway();
    let more = [&CITIZEN[..], &["--reads", "2"]].concat();
    reader.args(Stage::words(&gateway, &more)).current_dir(stage.host.path("."));
    reader.env("COUNTERSIGN_LOG", "debug").stderr(File::create(stage.host.path("log"))?);
    Process::start(reader)?.finish()?.ok()?;
    let log = stage.log()?;
    let steps: Vec<_> = ["the card's configuration is read", "read command"]
        .into_iter()
        .flat_map(|step| log.match_indices(step))
        .collect();
    let [(configuration, _), (first, _), (second, _)] = steps[..] else {
        return Err(format!("not one configuration and two commands: {steps:?}").into());
    };
    assert!(configuration < first && first < second, "{steps:?}");
    Ok(())
}

/// C13, C14: kept under the server's policy, and then the second read needs no server.
fn the_second_read_needs_no_server() -> Result<(), Failed> {
    let mut stage = Stage::new(true)?;
    let reader = stage.reading(&[&CITIZEN[..], &["--reads", "2", "--pause", "3"]].concat())?;
    let kept = stage.until_kept(2)?;
    for path in &kept {
        assert_eq!(fs::metadata(path)?.permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let dir = fs::metadata(stage.host.path("RD-1/cache"))?;
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    stage.server.take().ok_or("a server")?.kill()?;
    let ended = reader.finish()?.ok()?.json()?;
    assert_eq!(sources(&ended)?, ["server", "cache"]);
    let [first, second] = reads(&ended)? else { panic!("not two reads") };
    assert_eq!(first["record"], second["record"]);
    assert_eq!((&second["bytesSent"], &ended["fromCache"]), (&0.into(), &1.into()));
    Ok(())
}

/// Whatever happens to the files, the second read gives the right record, from the card.
fn tampered_files_are_not_used() -> Result<(), Failed> {
    type Tamper = fn(&[PathBuf]) -> Result<(), Failed>;
    let tampers: [(&str, Tamper); 4] = [
        ("a bit changed", |files| {
            for file in files {
                let mut bytes = fs::read(file)?;
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                fs::write(file, bytes)?;
            }
            Ok(())
        }),
        ("emptied", |files| files.iter().try_for_each(|file| Ok(fs::write(file, "")?))),
        ("removed", |files| files.iter().try_for_each(|file| Ok(fs::remove_file(file)?))),
        ("each other's", |files| {
            let [one, two] = files else { return Err("not two files".into()) };
            let (first, second) = (fs::read(one)?, fs::read(two)?);
            fs::write(one, second)?;
            Ok(fs::write(two, first)?)
        }),
    ];
    let stage = Stage::new(true)?;
    for (what, tamper) in tampers {
        let more = [&CITIZEN[..], &["--reads", "2", "--pause", "1.5"]].concat();
        let reader = stage.reading(&more)?;
        tamper(&stage.until_kept(2)?)?;
        let ended = reader.finish()?.ok()?.json()?;
        assert_eq!(sources(&ended)?, ["server", "server"], "{what}");
        let [first, second] = reads(&ended)? else { panic!("not two reads") };
        assert_eq!(first["record"], second["record"], "{what}");
        assert!(stage.log()?.contains("tampered with"), "{what}: {}", stage.log()?);
    }
    Ok(())
}

/// C15: after `kill -9` the files are noise whose keys nobody has, the next program included.
fn a_killed_reader_leaves_nothing_that_opens() -> Result<(), Failed> {
    let stage = Stage::new(true)?;
    let forever = [&CITIZEN[..], &["--reads", "2", "--pause", "60"]].concat();
    let reader = stage.reading(&forever)?;
    let kept = stage.until_kept(2)?;
    let contents = || kept.iter().map(fs::read).collect::<Result<Vec<_>, _>>();
    reader.kill()?;
    let old = contents()?;
    assert!(old.iter().all(|bytes| bytes.len() > 1000), "nobody was there to erase them");

    let reader = stage.reading(&[&CITIZEN[..], &["--reads", "2", "--pause", "2"]].concat())?;
    wait_for("the next program's own files", || {
        let now = contents().ok();
        Ok(now.filter(|now| now.iter().zip(&old).all(|(now, old)| now.len() > 1000 && now != old)))
    })?;
    // The same card, the same places, the same device: and still none of them opens.
    for (path, old) in kept.iter().zip(&old) {
        fs::write(path, old)?;
    }
    let ended = reader.finish()?.ok()?.json()?;
    assert_eq!(sources(&ended)?, ["server", "server"]);
    assert!(stage.log()?.contains("tampered with"), "{}", stage.log()?);
    assert_eq!(stage.kept()?, Vec::<PathBuf>::new(), "a good end erases");

    // Stopped before all was read: told, with what was read; and it erases too.
    let reader = stage.reading(&forever)?;
    stage.until_kept(2)?;
    reader.terminate()?;
    let ended = reader.finish()?;
    assert_eq!(ended.code, 3);
    let told = ended.json()?;
    assert_eq!((sources(&told)?, &told["error"]["check"]), (vec!["server"], &"stopped".into()));
    assert_eq!(stage.kept()?, Vec::<PathBuf>::new());
    Ok(())
}

/// What a dead program left is gone as soon as the next one starts, before any card is read.
fn the_next_start_erases_leftovers() -> Result<(), Failed> {
    let mut stage = Stage::new(true)?;
    let more = [&CITIZEN[..], &["--reads", "2", "--pause", "60"]].concat();
    let reader = stage.reading(&more)?;
    stage.until_kept(2)?;
    reader.kill()?;
    fs::write(stage.host.path("RD-1/cache/3-encrypted.new"), "half written")?;
    // Without a server nothing new can be kept.
    stage.server.take().ok_or("a server")?.kill()?;
    let reader = stage.reading(&CITIZEN)?;
    stage.until_kept(0)?;
    wait_for("the half written one's end", || {
        let gone = !stage.host.path("RD-1/cache/3-encrypted.new").exists();
        Ok(gone.then_some(()))
    })?;
    reader.kill()
}

/// C11 (encrypted data) and C15 (plaintext): wiped once no card was seen for the preset time.
fn absence_wipes() -> Result<(), Failed> {
    for (plaintext, from_cache) in [(false, "serverFromCache"), (true, "cache")] {
        let stage = Stage::new(plaintext)?;
        for cache in ["multi", "single"] {
            let more = |away, wipe_after| {
                let times = ["--away", away, "--wipe-after", wipe_after, "--cache", cache];
                [&CITIZEN[..], &["--reads", "2"], &times].concat()
            };
            // Away for longer than that: the card is read again. Meanwhile nothing lies there.
            let reader = stage.reading(&more("4", "1"))?;
            stage.until_kept(1 + usize::from(plaintext))?;
            stage.until_kept(0)?;
            let ended = reader.finish()?.ok()?.json()?;
            assert_eq!(sources(&ended)?, ["server", "server"], "{cache}");
            // Back in time.
            let ended = stage.read(&more("1", "30"))?.ok()?.json()?;
            assert_eq!(sources(&ended)?, ["server", from_cache], "{cache}");
        }
        // A card that stays is seen all the time.
        let stays = ["--reads", "2", "--pause", "2.5", "--wipe-after", "1"];
        let ended = stage.read(&[&CITIZEN[..], &stays].concat())?.ok()?.json()?;
        assert_eq!(sources(&ended)?, ["server", from_cache]);
    }
    Ok(())
}

/// C11, C15: power-off.
fn sigterm_wipes_and_tells_what_was_read() -> Result<(), Failed> {
    let stage = Stage::new(true)?;
    let more = [&CITIZEN[..], &["--until-stopped", "--pause", "60"]].concat();
    let reader = stage.reading(&more)?;
    stage.until_kept(2)?;
    reader.terminate()?;
    let ended = reader.finish()?.ok()?.json()?;
    assert_eq!((&ended["done"], &ended["failed"]), (&1.into(), &0.into()));
    assert_eq!(sources(&ended)?, ["server"]);
    assert_eq!(stage.kept()?, Vec::<PathBuf>::new());
    Ok(())
}

/// A full disk, played by a limit on file sizes: not kept, said so, and read all the same.
fn a_full_disk_fails_no_read() -> Result<(), Failed> {
    let stage = Stage::new(true)?;
    let mut reader = std::process::Command::new("sh");
    // The signal that would come with it is one that a full disk does not send.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    reader.args(["-c", limited, env!("CARGO_BIN_EXE_countersign")]);
    let gateway = stage.ports.gateway();
    let more = [&CITIZEN[..], &["--reads", "2"]].concat();
    reader.args(Stage::words(&gateway, &more)).current_dir(stage.host.path("."));
    let output = reader.output()?;
    let stderr = String::from_utf8(output.stderr)?;
    let stdout = String::from_utf8(output.stdout)?;
    let ended = Ended { code: output.status.code().unwrap_or(-1), stdout, stderr };
    assert!(ended.stderr.contains("are not kept"), "{}", ended.stderr);
    let ended = ended.ok()?.json()?;
    assert_eq!(sources(&ended)?, ["server", "server"]);
    assert_eq!(stage.kept()?, Vec::<PathBuf>::new());
    // A place that cannot be used at all, neither.
    fs::remove_dir_all(stage.host.path("RD-1/cache"))?;
    fs::write(stage.host.path("RD-1/cache"), "in the way")?;
    let ended = stage.read(&more)?.ok()?;
    assert!(ended.stderr.contains("in memory only"), "{}", ended.stderr);
    assert_eq!(sources(&ended.json()?)?, ["server", "cache"]);
    assert_eq!(fs::read(stage.host.path("RD-1/cache"))?, b"in the way");
    Ok(())
}

/// Two programs on one device: the second keeps in memory, and neither loses anything.
fn two_programs_do_not_share_files() -> Result<(), Failed> {
    let stage = Stage::new(true)?;
    let more = [&CITIZEN[..], &["--reads", "2", "--pause", "4"]].concat();
    let first = stage.reading(&more)?;
    let kept = stage.until_kept(2)?;
    let second = stage.read(&[&TWO_CARDS[..], &["--reads", "4"]].concat())?.ok()?;
    assert!(second.stderr.contains("in use by another reader program"), "{}", second.stderr);
    assert_eq!(sources(&second.json()?)?, ["server", "server", "cache", "cache"]);
    assert_eq!(stage.kept()?, kept);
    assert_eq!(sources(&first.finish()?.ok()?.json()?)?, ["server", "cache"]);
    Ok(())
}

/// A test of this file by its name.
type Named = (&'static str, fn() -> Result<(), Failed>);

pub(crate) const TRIALS: [Named; 10] = [
    ("cards_are_kept_as_the_mode_says", cards_are_kept_as_the_mode_says),
    ("the_configuration_is_read_before_any_command", the_configuration_is_read_before_any_command),
    ("the_second_read_needs_no_server", the_second_read_needs_no_server),
    ("tampered_files_are_not_used", tampered_files_are_not_used),
    ("a_killed_reader_leaves_nothing_that_opens", a_killed_reader_leaves_nothing_that_opens),
    ("the_next_start_erases_leftovers", the_next_start_erases_leftovers),
    ("absence_wipes", absence_wipes),
    ("sigterm_wipes_and_tells_what_was_read", sigterm_wipes_and_tells_what_was_read),
    ("a_full_disk_fails_no_read", a_full_disk_fails_no_read),
    ("two_programs_do_not_share_files", two_programs_do_not_share_files),
];

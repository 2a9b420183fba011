//! Chromium as a part: its driver answers, sessions have browsers of their own, nothing stays.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};
use testkit::parts::{Chromium, require};

/// How long the driver may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at processes that end, and how many looks: 20 s.
const POLL: Duration = Duration::from_millis(100);
const POLLS: u32 = 200;

fn main() {
    let chromium = require(Chromium::start());
    let trials = vec![
        chromium.trial("a page runs in a session", a_page_runs),
        chromium.trial("sessions share nothing", sessions_share_nothing),
        chromium.trial("dropping ends browsers and files", |_| dropping_cleans_up()),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(chromium);
    conclusion.exit();
}

/// A WebDriver command as its bytes; the answer's body.
fn say(chromium: &Chromium, line: &str, body: &str) -> Result<String, Failed> {
    let url = chromium.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // It keeps connections open, also when asked not to: the length says where an answer ends.
    let mut stream = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status)?;
    for line in stream.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        match line.strip_prefix("content-length:") {
            Some(said) => length = said.trim().parse()?,
            None if line.is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body)?;
    if status.starts_with("HTTP/1.1 200") {
        Ok(body)
    } else {
        Err(format!("{line}: {body}").into())
    }
}

/// The text behind a member's name.
fn member<'a>(json: &'a str, name: &str) -> Result<&'a str, Failed> {
    let (_, after) = json.split_once(&format!("\"{name}\":\"")).ok_or("no such member")?;
    Ok(after.split_once('"').ok_or("no end")?.0)
}

fn session(chromium: &Chromium) -> Result<String, Failed> {
    let arguments: Vec<String> =
        chromium.arguments()?.iter().map(|argument| format!("{argument:?}")).collect();
    let options = format!(r#"{{"goog:chromeOptions":{{"args":[{}]}}}}"#, arguments.join(","));
    let body = format!(r#"{{"capabilities":{{"alwaysMatch":{options}}}}}"#);
    Ok(member(&say(chromium, "POST /session", &body)?, "sessionId")?.to_owned())
}

fn run(chromium: &Chromium, session: &str, script: &str) -> Result<String, Failed> {
    let body = format!("{{\"script\":{script:?},\"args\":[]}}");
    say(chromium, &format!("POST /session/{session}/execute/sync"), &body)
}

fn a_page_runs(chromium: &Chromium) -> Result<(), Failed> {
    let session = session(chromium)?;
    let page =
        r#"{"url":"data:text/html,<title>before</title><script>document.title=6*7</script>"}"#;
    say(chromium, &format!("POST /session/{session}/url"), page)?;
    let title = say(chromium, &format!("GET /session/{session}/title"), "")?;
    assert_eq!(member(&title, "value")?, "42", "its scripts run");
    say(chromium, &format!("DELETE /session/{session}"), "")?;
    assert!(run(chromium, &session, "return 1").is_err(), "a session that ended is gone");
    Ok(())
}

fn sessions_share_nothing(chromium: &Chromium) -> Result<(), Failed> {
    let (one, two) = (session(chromium)?, session(chromium)?);
    // A page of the driver's own server, for a page without an origin has no storage.
    for session in [&one, &two] {
        let page = format!("{{\"url\":\"{}/status\"}}", chromium.url());
        say(chromium, &format!("POST /session/{session}/url"), &page)?;
    }
    run(chromium, &one, "localStorage.setItem('k', 'kept')")?;
    let read = "return localStorage.getItem('k') || 'nothing'";
    assert_eq!(member(&run(chromium, &one, read)?, "value")?, "kept");
    assert_eq!(member(&run(chromium, &two, read)?, "value")?, "nothing");
    say(chromium, &format!("DELETE /session/{one}"), "")?;
    say(chromium, &format!("DELETE /session/{two}"), "").map(|_| ())
}

/// Processes whose command line names this folder.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

fn dropping_cleans_up() -> Result<(), Failed> {
    let chromium = Chromium::start()?;
    session(&chromium)?;
    let folder = chromium.folder();
    assert!(!processes_in(&folder).is_empty(), "a browser runs in it");
    drop(chromium);
    assert!(!folder.exists(), "its files are gone");
    for _ in 0..POLLS {
        if processes_in(&folder).is_empty() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    Err(format!("still there: {:?}", processes_in(&folder)).into())
}

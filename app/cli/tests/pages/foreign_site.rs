//! Another site: pages of somebody else's, on a port of their own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Failed;

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A site that serves fixed pages; gone with this value.
pub(crate) struct ForeignSite {
    port: u16,
    over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl ForeignSite {
    /// These pages, by path.
    pub(crate) fn serve(pages: &[(&str, String)]) -> Result<Self, Failed> {
        let pages: BTreeMap<String, String> =
            pages.iter().map(|(path, page)| ((*path).to_owned(), page.clone())).collect();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                // A browser opens connections that it may never use.
                let pages = pages.clone();
                std::thread::spawn(move || stream.map(|stream| answer(&stream, &pages)));
            }
        });
        Ok(Self { port, over, serving: Some(serving) })
    }

    /// A page's address; another name than the bank's, so another site too.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }
}

fn answer(stream: &TcpStream, pages: &BTreeMap<String, String>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (status, page) = match pages.get(path) {
        Some(page) => ("200 OK", page.as_str()),
        None => ("404 Not Found", ""),
    };
    let mut writing = stream;
    write!(
        writing,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{page}",
        page.len()
    )
}

impl Drop for ForeignSite {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
        let _ended = self.serving.take().map(JoinHandle::join);
    }
}

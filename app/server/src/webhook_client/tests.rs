//! The client against receivers that behave, and against those that do not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

/// Much longer than any exchange here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(300);

fn request(url: String) -> WebhookRequest {
    WebhookRequest {
        url,
        id: "evt_1".to_owned(),
        timestamp: 1_800_000_000,
        signature: "v1,AAAA".to_owned(),
        body: b"{\"id\":\"evt_1\"}".to_vec(),
    }
}

/// A receiver that reads one request and answers with these bytes, endlessly many times.
async fn receiver(answer: Vec<u8>, endless: bool) -> (SocketAddr, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, hearing) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        while !bytes[..length].ends_with(b"}") {
            length += stream.read(&mut bytes[length..]).await.unwrap();
        }
        let _told = heard.send(String::from_utf8(bytes[..length].to_vec()).unwrap());
        while stream.write_all(&answer).await.is_ok() && endless {}
    });
    (address, hearing)
}

async fn post(url: String, address: SocketAddr) -> Result<u16, WebhookFailure> {
    let client = HttpWebhooks::new(None).unwrap();
    timeout(PATIENCE, client.post(&request(url), address)).await.unwrap()
}

#[tokio::test]
async fn a_request_has_its_headers_and_goes_where_it_was_sent() {
    let (address, hearing) = receiver(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), false).await;
    // The name does not exist: the address decides, the name only stands in Host.
    let url = format!("http://shop.invalid:{}/hooks/1?key=a%20b", address.port());
    assert_eq!(post(url, address).await, Ok(204));
    let heard = hearing.await.unwrap().to_ascii_lowercase();
    assert!(heard.starts_with("post /hooks/1?key=a%20b http/1.1\r\n"), "{heard}");
    for line in [
        format!("host: shop.invalid:{}", address.port()).as_str(),
        "content-type: application/cloudevents+json; charset=utf-8",
        "webhook-id: evt_1",
        "webhook-timestamp: 1800000000",
        "webhook-signature: v1,aaaa",
        "content-length: 14",
        "connection: close",
    ] {
        assert!(heard.lines().any(|found| found == line), "{line} in {heard}");
    }
    assert!(heard.ends_with("{\"id\":\"evt_1\"}"), "{heard}");
}

#[tokio::test]
async fn a_redirect_inward_is_an_answer_and_is_not_followed() {
    let inward = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let to = inward.local_addr().unwrap();
        let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: http://{to}/\r\n\r\n");
        let (address, _hearing) = receiver(answer.into_bytes(), false).await;
        assert_eq!(post(format!("http://{address}/"), address).await, Ok(status));
    }
    assert!(timeout(QUIET, inward.accept()).await.is_err(), "nobody came");
}

#[tokio::test]
async fn huge_answers_are_not_read() {
    // A body without end: its status counts, the rest is left.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let (address, _hearing) = receiver([head, vec![b'x'; 65_536]].concat(), true).await;
    assert_eq!(post(format!("http://{address}/"), address).await, Ok(200));
    // A head without end.
    for line in [&b"HTTP/1.1 200 OK\r\n"[..], b"x-more: and more\r\n", &[b'x'; 70_000]] {
        let start = b"HTTP/1.1 200 OK\r\n".to_vec();
        let (address, _hearing) = receiver([start, line.repeat(100)].concat(), true).await;
        assert_eq!(post(format!("http://{address}/"), address).await, Err(WebhookFailure::Answer));
    }
}

#[tokio::test]
async fn what_is_no_answer_fails() {
    for answer in ["", "HTTP/1.1", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 99999 No\r\n\r\n"] {
        let (address, _hearing) = receiver(answer.into(), false).await;
        let sent = post(format!("http://{address}/"), address).await;
        assert_eq!(sent, Err(WebhookFailure::Answer), "{answer:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(post(format!("http://{nobody}/"), nobody).await, Err(WebhookFailure::Connect));
}

/// Who answers nothing is left to the caller's time limit: dropping the future closes.
#[tokio::test]
async fn a_receiver_that_hangs_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = HttpWebhooks::new(None).unwrap();
    let request = request(format!("http://{address}/"));
    assert!(timeout(QUIET, client.post(&request, address)).await.is_err());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes.ends_with(b"}"), "the connection was closed after the request");
}

mod tls {
    use countersign_crypto::aws_lc;
    use countersign_net::{Clock, SystemClock};
    use testkit::rng::seeded;

    use super::*;
    use crate::ca::Maker;
    use crate::data_dir::parse_tls_name;

    async fn tls_receiver(certificate: Vec<u8>, key: Vec<u8>) -> SocketAddr {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate)],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut bytes = vec![0; 4096];
                let mut length = 0;
                while !bytes[..length].ends_with(b"}") {
                    length += stream.read(&mut bytes[length..]).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_receiver_proves_its_name_under_a_root_that_is_trusted() {
        let (provider, now) = (aws_lc::provider(), SystemClock::default().now());
        let mut maker = Maker { provider: &provider, rng: &mut seeded(1), now };
        let names = [parse_tls_name("localhost")];
        let trees = maker.trees("srv-1", &names).unwrap();
        let key = trees.tls.key.pkcs8.expose().to_vec();
        let (root, leaf) = (trees.tls_root.certificate, trees.tls.certificate);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        std::fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", root))).unwrap();
        let address = tls_receiver(leaf, key).await;
        let trusting = HttpWebhooks::new(Some(&path)).unwrap();
        let send = async |client: &HttpWebhooks, host: &str| {
            let request = request(format!("https://{host}:{}/", address.port()));
            timeout(PATIENCE, client.post(&request, address)).await.unwrap()
        };
        assert_eq!(send(&trusting, "localhost").await, Ok(200));
        assert_eq!(send(&trusting, "shop.invalid").await, Err(WebhookFailure::Tls), "another name");
        let strange = HttpWebhooks::new(None).unwrap();
        assert_eq!(send(&strange, "localhost").await, Err(WebhookFailure::Tls), "no such root");
    }

    #[test]
    fn a_file_of_roots_is_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let check = |content: &str| {
            std::fs::write(&path, content).unwrap();
            HttpWebhooks::new(Some(&path)).map(|_| ()).unwrap_err().check()
        };
        for bad in ["", "no PEM", &pem::encode(&pem::Pem::new("CERTIFICATE", [1, 2, 3]))] {
            assert_eq!(check(bad), "config", "{bad}");
        }
        assert!(HttpWebhooks::new(Some(&dir.path().join("absent"))).is_err());
    }
}

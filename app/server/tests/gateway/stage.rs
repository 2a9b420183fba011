//! A server in a directory of its own, a SAM emulator, readers, and hands on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Credential, IdKind, Mode, Policy, ReaderConfig};
use countersign_crypto::{Provider, Secret, SecureElement, UnixTime, aws_lc};
use countersign_device::Reader;
use countersign_emulator::{
    CardHandle, CardImage, EmulatedCard, EmulatedSam, Faults, SamPty, Scheme, sample,
};
use countersign_idcard::record::DocumentType;
use countersign_net::{Clock, SystemClock, SystemRng};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, TrustStore, Validity, parse_request, request,
};
use countersign_server::{
    Config, DataDir, Init, NewDataDir, Sam, ServeOptions, Server, open_store, parse_tls_name,
};
use countersign_service::Actor;
use countersign_store::{
    CertificateIntent, Device, DeviceKind, DeviceStatus, IdKind as Id, new_id,
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) faults: Faults,
    pub(crate) sam: SamPty,
    dir: tempfile::TempDir,
    passphrase: Secret,
    provider: Provider,
}

/// A reader's key and certificate.
pub(crate) struct Enrolled {
    pub(crate) id: String,
    pub(crate) config: ReaderConfig,
}

pub(crate) fn now() -> UnixTime {
    SystemClock::default().now()
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(&Config::default()).await
    }

    pub(crate) async fn with(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = Secret::copied_from(b"correct horse");
        let provider = aws_lc::provider();
        let init = Init {
            passphrase: &passphrase,
            keep_passphrase: false,
            server_id: "srv-test",
            tls_names: &[parse_tls_name("localhost")],
            config,
        };
        let target = dir.path().join("data");
        let mut rng = SystemRng::default();
        NewDataDir::build(&target, &init, &provider, now(), &mut rng).unwrap().publish().unwrap();
        let faults = Faults::none();
        let sam = start_sam(&faults);
        let server = start(&target, &passphrase, &sam).await;
        let stage = Self { server, faults, sam, dir, passphrase, provider };
        stage.wait_for_sam().await;
        stage
    }

    pub(crate) fn data(&self) -> DataDir {
        DataDir::open(&self.dir.path().join("data")).unwrap()
    }

    pub(crate) fn gateway(&self) -> SocketAddr {
        self.server.gateway()
    }

    /// The pool's health, polled: a module's task runs beside the test.
    pub(crate) async fn wait_for_sam(&self) {
        for _ in 0..1000 {
            if self.server.service().sams().health().iter().any(|health| health.ready) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the SAM never became ready: {:?}", self.server.service().sams().health());
    }

    /// Enrols a reader through the use case.
    pub(crate) async fn enroll(&self, serial: &str) -> Enrolled {
        let service = self.server.service();
        let mut rng = SystemRng::default();
        let key = self.provider.signature.generate(&mut rng).unwrap().key;
        let identity = Identity::new(Role::Reader, serial).unwrap();
        let csr = request(&self.provider, &identity, &*key, &mut rng).unwrap();
        let enrolled =
            service.enrol_device(DeviceKind::Reader, &Actor::Console, &csr, None).await.unwrap();
        let config = self.config(serial, key, enrolled.certificate);
        Enrolled { id: enrolled.device.id, config }
    }

    pub(crate) fn config(
        &self,
        serial: &str,
        key: Arc<dyn SecureElement>,
        certificate: Vec<u8>,
    ) -> ReaderConfig {
        let authority = self.server.service().authority();
        let mut trust = TrustStore::new(self.provider.clone());
        trust.trust(&authority.root, &authority.server_issuer, Role::Server, now()).unwrap();
        let credential = Credential {
            provider: self.provider.clone(),
            key,
            certificate,
            trust: Arc::new(trust),
            encryption: None,
        };
        ReaderConfig {
            credentials: vec![credential],
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: serial.to_owned(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some("srv-test".into()),
            peer_role: Role::Server,
        }
    }

    /// A reader with a certificate of our CA of which the directory knows nothing.
    pub(crate) fn unlisted(&self, serial: &str) -> ReaderConfig {
        let validity = Validity { not_before: now().minus(DAY), not_after: now().plus(DAY) };
        let (key, certificate) = self.issue(serial, validity);
        self.config(serial, key, certificate)
    }

    /// A key and its certificate, signed past the use cases.
    fn issue(&self, serial: &str, validity: Validity) -> (Arc<dyn SecureElement>, Vec<u8>) {
        let keys = self.data().open_keys(&self.passphrase, now(), None).unwrap();
        let mut rng = SystemRng::default();
        let key = self.provider.signature.generate(&mut rng).unwrap().key;
        let identity = Identity::new(Role::Reader, serial).unwrap();
        let csr = request(&self.provider, &identity, &*key, &mut rng).unwrap();
        let requested = parse_request(&self.provider, &csr).unwrap();
        let number = CertificateNumber::random(&mut rng);
        let authority = keys.authority;
        let certificate = Issuer::from_certificate(&self.provider, &authority.device_issuer)
            .unwrap()
            .prepare(&requested, Role::Reader, number, validity)
            .unwrap()
            .sign(&*authority.device_issuer_key, &mut rng)
            .unwrap();
        (key, certificate)
    }

    /// A reader whose certificate is of our CA and in the store, but ran out yesterday.
    pub(crate) async fn enroll_expired(&self, serial: &str) -> Enrolled {
        let validity = Validity { not_before: now().minus(10 * DAY), not_after: now().minus(DAY) };
        let (key, certificate) = self.issue(serial, validity);
        let number = countersign_pki::number(&certificate).unwrap();
        let mut rng = SystemRng::default();
        let device = Device {
            id: new_id(Id::Reader, now(), &mut rng),
            kind: DeviceKind::Reader,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: now(),
            updated_at: now(),
        };
        let intent = CertificateIntent {
            number: number.to_string(),
            device_id: device.id.clone(),
            public_key: [0; 32],
            not_after: validity.not_after,
            at: now(),
        };
        let id = device.id.clone();
        let der = certificate.clone();
        let store = open_store(&self.data(), None).await.unwrap();
        store
            .run_tx("test", move |tx| {
                tx.insert_device(&device)?;
                tx.intend_certificate(&intent)?;
                tx.record_issued_certificate(&intent.number, &der, now())
            })
            .await
            .unwrap();
        Enrolled { id, config: self.config(serial, key, certificate) }
    }

    /// A reader program with a citizen's card on it.
    pub(crate) fn reader(&self, config: ReaderConfig) -> (Reader, CardHandle) {
        self.reader_through(config, self.gateway())
    }

    pub(crate) fn reader_through(
        &self,
        config: ReaderConfig,
        gateway: SocketAddr,
    ) -> (Reader, CardHandle) {
        let (link, field) = field();
        field.insert(Arc::new(card(DocumentType::Citizen)));
        let rng = Box::new(|| Box::new(SystemRng::default()) as _);
        let gateway = gateway.to_string();
        let reader =
            Reader::new(config, gateway, Box::new(link), Arc::new(SystemClock::default()), rng);
        (reader, field)
    }

    /// Reads stored, newest first: state and failed check. Waits until none is under way: a reader
    /// that gives up does not wait for the server to have noticed.
    pub(crate) async fn reads(&self) -> Vec<(String, Option<String>)> {
        for _ in 0..500 {
            let reads = self.reads_now().await;
            if reads.iter().all(|(state, _)| state != "started") {
                return reads;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a read never ended: {:?}", self.reads_now().await);
    }

    async fn reads_now(&self) -> Vec<(String, Option<String>)> {
        let page = self.server.service().reads(None, None, 200).await.unwrap();
        let row = |read: countersign_store::Read| (read.state.name().to_owned(), read.failed_check);
        page.items.into_iter().map(row).collect()
    }

    /// The checks of all audit rows that refused or failed something, newest first.
    pub(crate) async fn refusals(&self) -> Vec<String> {
        let page = self.server.service().audit_page(None, 200).await.unwrap();
        page.items.into_iter().filter_map(|row| row.entry.check).collect()
    }
}

async fn start(data: &std::path::Path, passphrase: &Secret, sam: &SamPty) -> Server {
    let options = ServeOptions {
        https_port: 0,
        gateway_port: 0,
        sams: vec![Sam { port: sam.path().display().to_string(), baud: 115_200 }],
        ..ServeOptions::default()
    };
    Server::start(&DataDir::open(data).unwrap(), passphrase, &options).await.unwrap()
}

pub(crate) fn start_sam(faults: &Faults) -> SamPty {
    let scheme = Scheme::with_demo_key(aws_lc::provider());
    let sam = EmulatedSam::new(scheme, 1, faults.clone());
    SamPty::start(sam, Box::new(SystemRng::default())).unwrap()
}

pub(crate) fn field() -> (EmulatedCard, CardHandle) {
    EmulatedCard::new(Scheme::with_demo_key(aws_lc::provider()), Box::new(SystemRng::default()))
}

pub(crate) fn card(document: DocumentType) -> CardImage {
    let scheme = Scheme::with_demo_key(aws_lc::provider());
    let mut rng = SystemRng::default();
    let serial = document as u64 + 1;
    CardImage::new(&scheme, &mut rng, serial, &sample(document), None, None).unwrap()
}

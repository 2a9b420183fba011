//! HTTP API, device gateway, data directory and wiring.
//!
//! [`Server::start`] joins everything on a data directory and returns the addresses it listens on.
//! [`open_service`] is the same without sockets, for commands that work on the directory itself.
//!
//! Absent on purpose: decisions (they are `service`'s) and protocol bytes (they are `core`'s).
#![forbid(unsafe_code)]

mod audit_file;
mod ca;
mod config;
mod data_dir;
mod descriptors;
mod gateway;
pub mod http;
mod https;
mod jobs;
mod pages;
mod per_source;
mod risk_file;
mod sam_host;
mod seal;
mod webhook_client;
mod webhook_receiver;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use countersign_crypto::Secret;
use countersign_hsm::Vault;
use countersign_idcard::sam::SamConfig;
use countersign_idcard::server::ReadPolicy;
use countersign_net::{SystemClock, SystemRng, serial};
use countersign_pki::PkiError;
use countersign_service::{
    Ambient, ENCRYPTION_KEY_NAME, Policy, RiskRules, RkiPolicy, SamConnector, SamPool, SamPort,
    Service, ServiceError,
};
use countersign_store::{Store, StoreError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use sam_host::RemoteSam;

pub use audit_file::{append_checkpoint, read_checkpoints};
pub use config::{
    APPROVAL_HOURS_MAX, Approvals, CONNECTIONS_LIMIT, CRL_DAYS_MAX, Config, Gateway,
    Http as HttpConfig, Keys as KeysConfig, Payments as PaymentsConfig, Readers, Sam, SamAt,
    SamHostAt, VaultAt, Webhooks as WebhooksConfig, parse_sam_ports,
};
pub use data_dir::{DataDir, DataError, Init, Keys, NewDataDir, parse_tls_name};
pub use gateway::{
    CONNECTIONS_MAX, IDLE_TIMEOUT, PER_SOURCE_MAX, RELAY_SESSION_MAX, RELAY_SILENCE, SESSION_MAX,
};
pub use https::HTTP_CONNECTIONS_MAX;
pub use risk_file::{INITIAL_RULES, parse_rules};
pub use sam_host::{SAM_HOST_PORT, SamHost, SamHostOptions};
pub use seal::SealError;
pub use webhook_receiver::{ReceivedWebhook, WEBHOOK_TOLERANCE, WebhookReceiver, webhook_secret};

/// HTTPS port unless chosen otherwise (interfaces.md).
pub const HTTPS_PORT: u16 = 8443;
/// Device gateway's port unless chosen otherwise.
pub const GATEWAY_PORT: u16 = 8444;
/// How many port numbers are tried for one that is free for TCP and UDP.
const PORT_TRIES: u32 = 16;
/// How long requests under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

/// Time and randomness of the machine.
#[must_use]
pub fn ambient() -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock::default()),
        rng: Arc::new(|| Box::new(SystemRng::default())),
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Plain HTTP was asked for on an address that others can reach.
    #[error("plain HTTP is served on loopback only, not on {0}")]
    PlainHttp(IpAddr),
    /// The CA's certificates do not fit together.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The devices' channel cannot be served like this.
    #[error("the devices' channel: {0}")]
    Channel(countersign_channel::Error),
    /// Which SAM modules are out of service could not be read.
    #[error("SAM modules out of service: {0}")]
    Drains(ServiceError),
    /// The vault's storage key cannot be opened, or is another than this database was begun with.
    #[error(transparent)]
    StorageKey(ServiceError),
    /// Whether the server's encryption key is the database's could not be read.
    #[error(transparent)]
    EncryptionKey(ServiceError),
    /// The server's encryption key is missing, or is another than the servers of this database
    /// have: what cards seal for them it would not open.
    #[error(
        "this server does not have the encryption key that this database was begun with: copy \
         ca/server-encryption.pem and keys/server-encryption.sealed from the data directory of \
         the server that started first"
    )]
    EncryptionKeyDiffers,
    /// The HTTPS certificate or key is refused by the TLS library.
    #[error("the HTTPS certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl StartError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &'static str {
        match self {
            Self::Data(error) => error.check(),
            Self::Store(StoreError::Unreachable { .. }) => "database-unreachable",
            Self::Store(StoreError::NotOurs) => "database-not-ours",
            Self::Store(StoreError::TooNew { .. }) => "database-too-new",
            Self::Store(StoreError::TlsUnsupported) => "database-tls",
            Self::Store(_) => "database",
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "port-in-use"
            }
            Self::Listen { .. } => "listen",
            Self::PlainHttp(_) => "plain-http",
            Self::Pki(error) => error.check(),
            Self::Channel(error) => error.check(),
            Self::Drains(error) | Self::StorageKey(error) | Self::EncryptionKey(error) => {
                error.check()
            }
            Self::EncryptionKeyDiffers => "encryption-key-differs",
            Self::Tls(_) => "tls-certificate",
        }
    }

    /// Whether the environment is to blame, rather than what the caller gave.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        match self {
            Self::Data(error) => error.is_environment(),
            Self::Store(_) | Self::Listen { .. } | Self::Drains(_) | Self::EncryptionKey(_) => true,
            Self::StorageKey(error) => !matches!(error, ServiceError::Refused { .. }),
            Self::PlainHttp(_)
            | Self::Pki(_)
            | Self::Channel(_)
            | Self::EncryptionKeyDiffers
            | Self::Tls(_) => false,
        }
    }
}

/// Opens the database: `database` if given, else the configured one, else the directory's own.
///
/// # Errors
/// [`StoreError`].
pub async fn open_store(data: &DataDir, database: Option<&str>) -> Result<Store, StoreError> {
    match database.or(data.config.database.as_deref()) {
        Some(url) => Store::postgres(url).await,
        None => Store::sqlite(data.store_path()).await,
    }
}

/// The use cases over a data directory, without sockets. The directory's keys are opened, its
/// files stay as they are.
///
/// # Errors
/// [`StartError`].
pub async fn open_service(
    data: &DataDir,
    passphrase: &Secret,
    database: Option<&str>,
    sams: &[SamAt],
) -> Result<(Arc<Service>, Keys), StartError> {
    let ambient = ambient();
    let keys = data.open_keys(passphrase, ambient.clock.now(), None)?;
    // Nothing that is done on the directory itself is a reader's.
    let rules = RiskRules::default();
    // A token is asked for its PIN only where keys of injection are needed.
    let vault = match data.config.keys.vault {
        VaultAt::File => Some(data.open_vault(&keys)?),
        VaultAt::Token { .. } => None,
    };
    let service = service_over(data, &keys, vault, database, sams, ambient, rules).await?;
    Ok((service, keys))
}

/// As [`open_service`], with the vault that holds the keys of injection, wherever that is.
///
/// # Errors
/// [`StartError`], also if the token is not there.
pub async fn open_service_with_vault(
    data: &DataDir,
    passphrase: &Secret,
    database: Option<&str>,
) -> Result<Arc<Service>, StartError> {
    let ambient = ambient();
    let keys = data.open_keys(passphrase, ambient.clock.now(), None)?;
    let vault = Some(data.open_vault(&keys)?);
    service_over(data, &keys, vault, database, &[], ambient, RiskRules::default()).await
}

/// Opens the keys for serving. Where the server's encryption key is to be made, which directories
/// from before there was one need, it is made only if the database knows of none: a copy of such a
/// directory gets that of the server that started first.
async fn serving_keys(
    data: &DataDir,
    passphrase: &Secret,
    database: Option<&str>,
    ambient: &Ambient,
) -> Result<Keys, StartError> {
    let now = ambient.clock.now();
    match data.open_keys(passphrase, now, Some(&mut *(ambient.rng)())) {
        Err(DataError::Outdated(_)) => {}
        opened => return Ok(opened?),
    }
    let store = open_store(data, database).await?;
    let begun = store
        .read::<_, StoreError, _>("server_key", |tx| tx.server_key(ENCRYPTION_KEY_NAME))
        .await?;
    if begun.is_some() {
        return Err(StartError::EncryptionKeyDiffers);
    }
    let mut rng = (ambient.rng)();
    data.make_encryption_key(passphrase, now, &mut *rng)?;
    Ok(data.open_keys(passphrase, now, Some(&mut *rng))?)
}

async fn service_over(
    data: &DataDir,
    keys: &Keys,
    vault: Option<Arc<dyn Vault>>,
    database: Option<&str>,
    sams: &[SamAt],
    ambient: Ambient,
    risk: RiskRules,
) -> Result<Arc<Service>, StartError> {
    let store = open_store(data, database).await?;
    let (mut connectors, mut hosts) = (Vec::new(), Vec::new());
    for sam in sams {
        match sam {
            SamAt::Port(sam) => connectors.push(Arc::new(SerialSam(sam.clone())) as _),
            SamAt::Host(at) => hosts.extend(RemoteSam::all(at, &keys.authority, &store)),
        }
    }
    let pool = SamPool::start_with_hosts(connectors, hosts, SamConfig::default(), &ambient);
    let policy = Policy {
        read: ReadPolicy {
            cache_plaintext: data.config.readers.plaintext_cache,
            ..ReadPolicy::default()
        },
        risk,
        approvals: data.config.approvals.policy(),
        rki: RkiPolicy {
            crl_validity: DAY * u32::from(data.config.keys.crl_days),
            ..RkiPolicy::default()
        },
        payments: data.config.payments.policy(),
        ..Policy::default()
    };
    let authority = keys.authority.clone();
    let service =
        Service::new(store, authority, pool, policy, ambient).with_webhooks(data.webhooks()?);
    Ok(Arc::new(match vault {
        Some(vault) => service
            .with_vault(vault, Arc::new(tr34::aws_lc::AwsLc))
            .with_ciphers(Arc::new(tr31::aws_lc::AwsLc)),
        None => service,
    }))
}

/// A SAM module on a serial port.
pub(crate) struct SerialSam(Sam);

impl SamConnector for SerialSam {
    fn name(&self) -> &str {
        &self.0.port
    }

    fn open(&self) -> io::Result<Box<dyn SamPort>> {
        Ok(Box::new(serial::open(&self.0.port, self.0.baud)?))
    }
}

/// What `serve` may be told beside the configuration.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address of both listeners.
    pub listen: IpAddr,
    /// HTTPS port; 0 picks one.
    pub https_port: u16,
    /// Device gateway's port; 0 picks one.
    pub gateway_port: u16,
    /// Serve plain HTTP instead of HTTPS; on loopback only.
    pub plain_http: bool,
    /// Database that goes before the configured one.
    pub database: Option<String>,
    /// SAM modules beside the configured ones.
    pub sams: Vec<Sam>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: IpAddr::from([127, 0, 0, 1]),
            https_port: HTTPS_PORT,
            gateway_port: GATEWAY_PORT,
            plain_http: false,
            database: None,
            sams: Vec::new(),
        }
    }
}

/// A running server. Dropping it stops accepting; [`Server::stop`] also waits.
pub struct Server {
    service: Arc<Service>,
    https: SocketAddr,
    gateway: SocketAddr,
    devices: Arc<gateway::Gateway>,
    datagrams: bool,
    plain_http: bool,
    stop: watch::Sender<bool>,
    http_handle: axum_server::Handle<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens keys and database, listens on both ports and starts the jobs.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(
        data: &DataDir,
        passphrase: &Secret,
        options: &ServeOptions,
    ) -> Result<Self, StartError> {
        if options.plain_http && !options.listen.is_loopback() {
            return Err(StartError::PlainHttp(options.listen));
        }
        descriptors::warn_if_few(data.config.gateway.connections);
        let rules = data.risk_rules()?;
        // Ports first: a second `serve` must fail before it touches the database.
        let http_listener = listen(options.listen, options.https_port)?;
        let datagrams = data.config.gateway.datagrams;
        let (gateway_listener, gateway_socket) =
            listen_gateway(options.listen, options.gateway_port, datagrams)?;
        let (https, gateway) = (local(&http_listener)?, local(&gateway_listener)?);
        let own = options.sams.iter().cloned().map(SamAt::Port);
        let sams: Vec<SamAt> = data.config.sams.iter().cloned().chain(own).collect();
        let database = options.database.as_deref();
        let ambient = ambient();
        let keys = serving_keys(data, passphrase, database, &ambient).await?;
        let vault = Some(data.open_vault(&keys)?);
        let service = service_over(data, &keys, vault, database, &sams, ambient, rules).await?;

        // A server that opens none of the database's secrets must not claim work on them.
        service.storage_key().await.map_err(StartError::StorageKey)?;
        if !service.has_common_encryption_key().await.map_err(StartError::EncryptionKey)? {
            return Err(StartError::EncryptionKeyDiffers);
        }
        service.refresh_drains().await.map_err(StartError::Drains)?;
        let (stop, stopped) = watch::channel(false);
        let metrics = http::metrics::install();
        let public = data.config.http.public_url().map(str::to_owned);
        let site = http::Site::new(!options.plain_http, public);
        let router = http::router(service.clone(), metrics.clone(), stopped.clone(), site);
        let http_handle = axum_server::Handle::new();
        let devices = Arc::new(gateway::Gateway::new(
            service.clone(),
            &data.config.gateway,
            stopped.clone(),
        )?);
        gateway::advertise(&service, &data.config.gateway, gateway);
        let unheard = |source| StartError::Listen { address: gateway, source };
        let gateway_listener =
            tokio::net::TcpListener::from_std(gateway_listener).map_err(unheard)?;
        let gateway_socket =
            gateway_socket.map(tokio::net::UdpSocket::from_std).transpose().map_err(unheard)?;
        let tls = if options.plain_http { None } else { Some(tls_config(&keys.tls)?) };
        let holder = format!("{}/{}", service.authority().server_id, std::process::id());
        let mut tasks = vec![
            tokio::spawn(https::serve(
                http_listener,
                router,
                tls,
                http_handle.clone(),
                https::Limits::default(),
            )),
            tokio::spawn(devices.clone().expire_challenges(stopped.clone())),
            tokio::spawn(devices.clone().serve_streams(gateway_listener, stopped.clone())),
            tokio::spawn(jobs::chain(
                service.clone(),
                holder,
                data.checkpoints_path(),
                stopped.clone(),
            )),
            tokio::spawn(jobs::drains(service.clone(), stopped.clone())),
            tokio::spawn(jobs::abandon(service.clone(), stopped.clone())),
            tokio::spawn(jobs::clean_up_risk(service.clone(), stopped.clone())),
            tokio::spawn(jobs::maintain_rki(service.clone(), stopped.clone())),
            tokio::spawn(jobs::approvals(service.clone(), stopped.clone())),
            tokio::spawn(jobs::expire_payments(service.clone(), stopped.clone())),
            tokio::spawn(jobs::finish_keys(service.clone(), stopped.clone())),
            tokio::spawn(jobs::sweep_keks(service.clone(), stopped.clone())),
            tokio::spawn(gateway::keep_relay(service.clone(), stopped.clone())),
            tokio::spawn(jobs::deliver_webhooks(service.clone(), stopped.clone())),
            tokio::spawn(jobs::sweep_events(service.clone(), stopped.clone())),
            tokio::spawn(jobs::upkeep(metrics, stopped.clone())),
        ];
        if let Some(socket) = gateway_socket {
            tasks.push(tokio::spawn(devices.clone().serve_datagrams(socket, stopped)));
        }
        let plain_http = options.plain_http;
        Ok(Self {
            service,
            https,
            gateway,
            devices,
            datagrams,
            plain_http,
            stop,
            http_handle,
            tasks,
        })
    }

    /// The use cases.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The API's base URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.plain_http { "http" } else { "https" };
        format!("{scheme}://{}", self.https)
    }

    /// Where devices connect.
    #[must_use]
    pub const fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// How many places of the gateway's `connections` are taken by contacts with devices, over TCP
    /// and UDP together; the next TCP connection's place is among them.
    #[must_use]
    pub fn contacts(&self) -> usize {
        self.devices.contacts()
    }

    /// Whether devices may also come over UDP, at the same address.
    #[must_use]
    pub const fn takes_datagrams(&self) -> bool {
        self.datagrams
    }

    /// Leases no SAM module any more and lets reads that have one finish, within a few seconds;
    /// then stops accepting, lets results still on their way leave and requests under way finish,
    /// within a few seconds, and chains the audit once more.
    pub async fn stop(mut self) {
        self.service.sams().close(GRACE).await;
        let _all_ended = self.stop.send(true);
        self.http_handle.graceful_shutdown(Some(GRACE));
        self.devices.ended(GRACE).await;
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task failed");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _all_ended = self.stop.send(true);
        self.http_handle.shutdown();
    }
}

fn listen(ip: IpAddr, port: u16) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(ip, port);
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| StartError::Listen { address, source })
}

/// The gateway's listener and, for datagrams, a socket on the port with the same number.
fn listen_gateway(
    ip: IpAddr,
    port: u16,
    datagrams: bool,
) -> Result<(TcpListener, Option<UdpSocket>), StartError> {
    let mut tries = if port == 0 { PORT_TRIES } else { 1 };
    loop {
        let listener = listen(ip, port)?;
        if !datagrams {
            return Ok((listener, None));
        }
        let address = local(&listener)?;
        tries -= 1;
        let bound = UdpSocket::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match bound {
            Ok(socket) => return Ok((listener, Some(socket))),
            // The number was free for TCP only; the system picks another one.
            Err(source) if source.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(source) => return Err(StartError::Listen { address, source }),
        }
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        source,
    })
}

fn tls_config((certificate, key): &(Vec<u8>, Secret)) -> Result<RustlsConfig, StartError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.expose().to_vec());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.clone())],
            PrivateKeyDer::Pkcs8(key),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

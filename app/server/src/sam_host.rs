//! SAM modules at other hosts (C12): how a server reaches a SAM host, and a SAM host itself.

mod contact;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    Challenges, Credential, EPOCH, Error, IdKind, Mode, Policy, ReaderConfig, ServerConfig,
    SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::UnixTime;
use countersign_idcard::sam::SamConfig;
use countersign_pki::{BoundedLeafCache, CertificateNumber, Role, TrustStore};
use countersign_service::{
    Ambient, Authority, Promise, SamConnector, SamHostConnector, SamHostRefused, SamPool, SamPort,
    vouch_for_sam_host,
};
use countersign_store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::SamHostAt;
use crate::per_source::PerSource;
use crate::{Sam, SerialSam, StartError};
use contact::Contact;

/// SAM host's port unless chosen otherwise (interfaces.md).
pub const SAM_HOST_PORT: u16 = 8445;
/// Connections that a SAM host serves at once.
const CONNECTIONS_MAX: usize = 256;
/// Of these, from one address; one more is closed at once.
const PER_SOURCE_MAX: usize = 64;
/// How long the system may refuse to accept before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long leases under way may last when the host stops.
const GRACE: Duration = Duration::from_secs(5);

/// One of a server's connections to a SAM host.
pub(crate) struct RemoteSam {
    name: String,
    at: SamHostAt,
    authority: Authority,
    store: Store,
}

impl RemoteSam {
    /// As many connectors as the section wants.
    pub(crate) fn all(
        at: &SamHostAt,
        authority: &Authority,
        store: &Store,
    ) -> Vec<Arc<dyn SamHostConnector>> {
        let one = |number| {
            let name = format!("{}#{number}", at.host);
            let (at, authority, store) = (at.clone(), authority.clone(), store.clone());
            Arc::new(Self { name, at, authority, store }) as _
        };
        (1..=at.modules).map(one).collect()
    }
}

impl SamHostConnector for RemoteSam {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Promise<'_, io::Result<Box<dyn SamPort>>> {
        Box::pin(async {
            let stream = TcpStream::connect(&self.at.host).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn SamPort>)
        })
    }

    fn channel(&self, now: UnixTime) -> Result<Arc<ReaderConfig>, Error> {
        let authority = &self.authority;
        let provider = authority.provider.clone();
        let mut trust = TrustStore::new(provider.clone());
        trust.trust(&authority.root, &authority.device_issuer, Role::SamHost, now)?;
        let credential = Credential {
            provider,
            key: authority.server_key.clone(),
            certificate: authority.server.clone(),
            trust: Arc::new(trust),
            encryption: None,
        };
        Ok(Arc::new(ReaderConfig {
            credentials: vec![credential],
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: authority.server_id.clone(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(self.at.id.clone()),
            peer_role: Role::SamHost,
        }))
    }

    fn vouch<'a>(
        &'a self,
        number: &'a CertificateNumber,
    ) -> Promise<'a, Result<(), SamHostRefused>> {
        Box::pin(vouch_for_sam_host(&self.store, &self.at.id, number))
    }
}

/// What a SAM host needs to serve.
pub struct SamHostOptions {
    /// Address to listen on.
    pub listen: IpAddr,
    /// Port; 0 picks one.
    pub port: u16,
    /// Its modules.
    pub sams: Vec<Sam>,
    /// The host's id, as in its certificate.
    pub id: String,
    /// What it proves itself with, and whom it trusts to certify servers.
    pub credential: Credential,
    /// The servers that it serves, by the ids in their certificates.
    pub servers: Vec<String>,
}

/// A SAM host that serves its modules to servers. Dropping it stops it.
pub struct SamHost {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// What all of its connections share.
pub(crate) struct Shared {
    pub(crate) pool: SamPool,
    pub(crate) id: String,
    pub(crate) servers: Vec<String>,
    pub(crate) ambient: Ambient,
    pub(crate) channel: Arc<ServerConfig>,
    /// Which modules each server has taken out of service.
    pub(crate) drained: contact::Drained,
}

impl SamHost {
    /// Opens the modules and listens.
    ///
    /// # Errors
    /// [`StartError::Listen`]; [`StartError::Channel`] for a credential that cannot work.
    pub async fn start(options: SamHostOptions) -> Result<Self, StartError> {
        let SamHostOptions { listen, port, sams, id, credential, servers } = options;
        let address = SocketAddr::new(listen, port);
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let ambient = crate::ambient();
        let provider = credential.provider.clone();
        let sources = SourceLimits::new(provider.clone(), &mut *(ambient.rng)());
        let channel = ServerConfig {
            credentials: vec![credential],
            modes: vec![Mode::C1],
            policies: vec![Policy::default()],
            server_id: id.clone(),
            leaf_cache: Arc::new(BoundedLeafCache::default()),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
            sources: Arc::new(SharedSources::new(sources)),
            peer_roles: vec![Role::Server],
        };
        channel.check().map_err(StartError::Channel)?;
        let connectors = sams.into_iter().map(|sam| Arc::new(SerialSam(sam)) as _);
        let connectors: Vec<Arc<dyn SamConnector>> = connectors.collect();
        let pool = SamPool::start(connectors, SamConfig::default(), &ambient);
        let channel = Arc::new(channel);
        let drained = contact::Drained::default();
        let shared = Arc::new(Shared { pool, id, servers, ambient, channel, drained });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(shared, listener, stopped));
        Ok(Self { address, stop, task })
    }

    /// Where servers connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, begins no more leases, and lets those under way finish within a few
    /// seconds.
    pub async fn stop(mut self) {
        let _all_ended = self.stop.send(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the SAM host failed");
        }
    }
}

impl Drop for SamHost {
    fn drop(&mut self) {
        let _all_ended = self.stop.send(true);
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = PerSource::new(PER_SOURCE_MAX);
    let mut contacts = JoinSet::new();
    let mut numbers = 0_u64;
    let mut epoch = tokio::time::interval(EPOCH);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            _ = epoch.tick() => {
                shared.channel.challenges.expire(shared.ambient.clock.now());
                continue;
            }
            Some(_ended) = contacts.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a server's connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let held = sources.hold(peer.ip()).zip(places.clone().try_acquire_owned().ok());
        let Some(held) = held else { continue }; // a log line were a flood
        numbers += 1;
        let contact = Contact::new(shared.clone(), numbers, stream, peer, stop.clone());
        contacts.spawn(async move {
            contact.run().await;
            drop(held);
        });
    }
    let rest = async { while contacts.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("leases under way did not end in time");
    }
}

//! snow: `Noise_XX_25519_AESGCM_SHA256`, as it ships and with the Diffie-Hellman of AWS-LC.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver, FallbackResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};

use super::{Client, Server};
use crate::Fallible;

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
/// Longest message of the handshake without payload, in bytes, generously.
const MESSAGE_MAX: usize = 256;
const KEY_LEN: usize = 32;

/// Whose X25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// snow's default resolver.
    Shipped,
    /// AWS-LC, as ours; cipher and hash as shipped.
    AwsLc,
}

/// Static keys of both ends.
pub(crate) struct Noise {
    pattern: NoiseParams,
    backend: Backend,
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Noise {
    /// Fresh static keys.
    pub(crate) fn new(backend: Backend) -> Fallible<Self> {
        let pattern: NoiseParams = PATTERN.parse()?;
        let keys = || Builder::new(pattern.clone()).generate_keypair();
        let (client, server) = (keys()?.private, keys()?.private);
        Ok(Self { pattern, backend, client, server })
    }

    fn builder(&self) -> Builder<'_> {
        match self.backend {
            Backend::Shipped => Builder::new(self.pattern.clone()),
            Backend::AwsLc => Builder::with_resolver(self.pattern.clone(), resolver()),
        }
    }

    /// The initiator.
    pub(crate) fn client(&self) -> Fallible<NoiseParty> {
        let state = self.builder().local_private_key(&self.client)?.build_initiator()?;
        Ok(NoiseParty(Ok(Stage::Handshake(Box::new(state)))))
    }

    /// The responder.
    pub(crate) fn server(&self) -> NoiseParty {
        let built = self.builder().local_private_key(&self.server);
        let state = built.and_then(Builder::build_responder);
        NoiseParty(state.map(|state| Stage::Handshake(Box::new(state))))
    }
}

enum Stage {
    Handshake(Box<HandshakeState>),
    Transport(#[expect(dead_code, reason = "made because it is part of the cost")] TransportState),
}

/// One end; an error if it could not start, or once it failed.
pub(crate) struct NoiseParty(Result<Stage, snow::Error>);

impl NoiseParty {
    fn advance(&mut self, flight: &[u8]) -> Result<Vec<u8>, snow::Error> {
        let taken = std::mem::replace(&mut self.0, Err(snow::Error::Input));
        let Stage::Handshake(mut state) = taken? else { return Ok(Vec::new()) };
        let mut message = [0; MESSAGE_MAX];
        if !flight.is_empty() {
            state.read_message(flight, &mut message)?;
        }
        let mut answer = Vec::new();
        if !state.is_handshake_finished() && state.is_my_turn() {
            let len = state.write_message(&[], &mut message)?;
            answer = message[..len].to_vec();
        }
        self.0 = if state.is_handshake_finished() {
            state.into_transport_mode().map(Stage::Transport)
        } else {
            Ok(Stage::Handshake(state))
        };
        Ok(answer)
    }
}

impl Client for NoiseParty {
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>> {
        Ok(self.advance(flight)?)
    }
}

impl Server for NoiseParty {
    type Refusal = snow::Error;

    fn receive(&mut self, flight: &[u8]) -> Result<Vec<u8>, snow::Error> {
        self.advance(flight)
    }

    fn check(refusal: &snow::Error) -> String {
        refusal.to_string()
    }

    fn is_connected(&self) -> bool {
        matches!(self.0, Ok(Stage::Transport(_)))
    }
}

fn resolver() -> BoxedCryptoResolver {
    Box::new(FallbackResolver::new(Box::new(AwsLcResolver), Box::new(DefaultResolver)))
}

struct AwsLcResolver;

impl CryptoResolver for AwsLcResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        None
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<AwsLcDh>::default() as _)
    }

    fn resolve_hash(&self, _choice: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

#[derive(Default)]
struct AwsLcDh {
    key: Option<PrivateKey>,
    private: [u8; KEY_LEN],
    public: [u8; KEY_LEN],
}

impl Dh for AwsLcDh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, privkey: &[u8]) {
        // snow's trait has no error here; a key that is refused fails at its first use.
        self.key = PrivateKey::from_private_key(&X25519, privkey).ok();
        self.private.copy_from_slice(privkey);
        if let Some(public) = self.key.as_ref().and_then(|key| key.compute_public_key().ok()) {
            self.public.copy_from_slice(public.as_ref());
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = [0; KEY_LEN];
        rng.try_fill_bytes(&mut private)?;
        self.set(&private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.key.as_ref().ok_or(snow::Error::Dh)?;
        let peer = UnparsedPublicKey::new(&X25519, &pubkey[..KEY_LEN]);
        agreement::agree(key, peer, snow::Error::Dh, |shared| {
            out[..KEY_LEN].copy_from_slice(shared);
            Ok(())
        })
    }
}

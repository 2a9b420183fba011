//! Everyone who takes part: both handshakes, and the peers.

use countersign_channel::Mode;

use crate::Fallible;
use crate::party::noise::{Backend, Noise};
use crate::party::ours::{Ours, Setting};
use crate::party::tls::Tls;
use crate::party::tree::Tree;

/// Both handshakes between a reader and a server.
pub(super) const MODES: [Mode; 2] = [Mode::C1, Mode::C2];

/// One handshake on AWS-LC.
pub(super) struct Handshake {
    pub(super) mode: Mode,
    /// The server remembers certificates.
    pub(super) cached: Ours,
    /// The server verifies each certificate anew.
    pub(super) fresh: Ours,
    /// In suite `SM2_SM4GCM_SM3`, which has a provider in pure Rust only.
    pub(super) sm2: Ours,
    /// In the P-256 suite in pure Rust.
    pub(super) pure: Ours,
}

pub(super) struct Worlds {
    pub(super) ours: Vec<Handshake>,
    pub(super) tls: Tls,
    pub(super) noise: Noise,
    pub(super) noise_aws_lc: Noise,
}

/// The tree of the suite that is Chinese throughout.
pub(super) fn sm2_tree() -> Fallible<Tree> {
    Tree::on(countersign_crypto::sm::provider())
}

impl Worlds {
    pub(super) fn new(tree: &Tree) -> Fallible<Self> {
        let sm2 = sm2_tree()?;
        let pure = Tree::on(countersign_crypto::rust_crypto::provider())?;
        let handshake = |mode| -> Fallible<Handshake> {
            let setting = Setting::of(mode);
            Ok(Handshake {
                mode,
                cached: Ours::new(tree, setting)?,
                fresh: Ours::new(tree, Setting { cached: false, ..setting })?,
                sm2: Ours::new(&sm2, setting)?,
                pure: Ours::new(&pure, setting)?,
            })
        };
        Ok(Self {
            ours: MODES.into_iter().map(handshake).collect::<Result<_, _>>()?,
            tls: Tls::new(tree)?,
            noise: Noise::new(Backend::Shipped)?,
            noise_aws_lc: Noise::new(Backend::AwsLc)?,
        })
    }
}

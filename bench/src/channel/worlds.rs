//! Everyone who takes part: our handshakes, and the peers.

use countersign_channel::Mode;

use crate::Fallible;
use crate::party::noise::{Backend, Noise};
use crate::party::ours::{Ours, Setting};
use crate::party::paired::Paired;
use crate::party::tls::Tls;
use crate::party::tree::Tree;

/// Both handshakes between a reader and a server.
pub(super) const MODES: [Mode; 2] = [Mode::C1, Mode::C2];
/// Those of a sleeve and a manager: pairing, and both ways to connect.
pub(super) const PAIRED_MODES: [Mode; 3] = [Mode::A1, Mode::A2, Mode::A3];

/// One handshake on AWS-LC.
pub(super) struct Handshake<C> {
    pub(super) mode: Mode,
    /// The server, or manager, remembers certificates.
    pub(super) cached: C,
    /// It verifies each certificate anew.
    pub(super) fresh: C,
    /// In suite `SM2_SM4GCM_SM3`, which has a provider in pure Rust only.
    pub(super) sm2: C,
    /// In the P-256 suite in pure Rust.
    pub(super) pure: C,
}

pub(super) struct Worlds {
    pub(super) ours: Vec<Handshake<Ours>>,
    pub(super) paired: Vec<Handshake<Paired>>,
    pub(super) tls: Tls,
    pub(super) noise: Noise,
    pub(super) noise_aws_lc: Noise,
}

/// The tree of the suite that is Chinese throughout.
pub(super) fn sm2_tree() -> Fallible<Tree> {
    Tree::on(countersign_crypto::sm::provider())
}

fn handshake<C>(
    [tree, sm2, pure]: [&Tree; 3],
    mode: Mode,
    make: fn(&Tree, Setting) -> Fallible<C>,
) -> Fallible<Handshake<C>> {
    let setting = Setting::of(mode);
    Ok(Handshake {
        mode,
        cached: make(tree, setting)?,
        fresh: make(tree, Setting { cached: false, ..setting })?,
        sm2: make(sm2, setting)?,
        pure: make(pure, setting)?,
    })
}

impl Worlds {
    pub(super) fn new(tree: &Tree) -> Fallible<Self> {
        let sm2 = sm2_tree()?;
        let pure = Tree::on(countersign_crypto::rust_crypto::provider())?;
        let trees = [tree, &sm2, &pure];
        let ours = MODES.into_iter().map(|mode| handshake(trees, mode, Ours::new));
        let paired = PAIRED_MODES.into_iter().map(|mode| handshake(trees, mode, Paired::new));
        Ok(Self {
            ours: ours.collect::<Result<_, _>>()?,
            paired: paired.collect::<Result<_, _>>()?,
            tls: Tls::new(tree)?,
            noise: Noise::new(Backend::Shipped)?,
            noise_aws_lc: Noise::new(Backend::AwsLc)?,
        })
    }
}

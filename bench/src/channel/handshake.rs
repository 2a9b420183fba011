//! What a good handshake costs the server.

use countersign_channel::Mode;

use super::contact::{End, batch};
use super::worlds::{Handshake, Worlds};
use super::{BATCH, SLOW_BATCH};
use crate::measure::{Samples, Subject, Subjects};
use crate::party::Contacts;
use crate::party::noise::Noise;
use crate::report::Row;

pub(super) const MTLS: &str = "rustls mTLS, whole handshake";
const NOISE: &str = "snow XX-25519 as it ships";
const NOISE_AWS_LC: &str = "snow XX-25519 on AWS-LC's X25519";

/// One handshake of ours.
struct Accept {
    mode: Mode,
    cached: Subject,
    fresh: Subject,
    sm2: Subject,
    pure: Subject,
}

impl Accept {
    fn new<'a, C: Contacts>(handshake: &'a Handshake<C>, subjects: &mut Subjects<'a>) -> Self {
        let Handshake { mode, cached, fresh, sm2, pure } = handshake;
        let mut accept = |ours: &'a C, count| {
            subjects.add(move || batch(count, || ours.client(), || ours.server(), End::Connected))
        };
        Self {
            mode: *mode,
            cached: accept(cached, BATCH),
            fresh: accept(fresh, BATCH),
            sm2: accept(sm2, SLOW_BATCH),
            pure: accept(pure, SLOW_BATCH),
        }
    }
}

pub(super) struct Handshakes {
    ours: Vec<Accept>,
    tls: Subject,
    noise: Subject,
    noise_aws_lc: Subject,
}

impl Handshakes {
    pub(super) fn new<'a>(worlds: &'a Worlds, subjects: &mut Subjects<'a>) -> Self {
        let mut ours: Vec<_> =
            worlds.ours.iter().map(|handshake| Accept::new(handshake, subjects)).collect();
        ours.extend(worlds.paired.iter().map(|handshake| Accept::new(handshake, subjects)));
        let tls = &worlds.tls;
        let mut noise = |noise: &'a Noise| {
            subjects.add(move || batch(BATCH, || noise.client(), || noise.server(), End::Connected))
        };
        Self {
            ours,
            noise: noise(&worlds.noise),
            noise_aws_lc: noise(&worlds.noise_aws_lc),
            tls: subjects.add(|| batch(BATCH, || tls.client(), || tls.server(), End::Connected)),
        }
    }

    /// What rustls spends on a whole handshake.
    pub(super) fn tls(&self, samples: &Samples) -> f64 {
        samples.whole(self.tls)
    }

    /// What rustls spends to make a connection and to answer a ClientHello.
    pub(super) fn tls_hello(&self, samples: &Samples) -> f64 {
        samples.lap(self.tls, 0)
    }

    /// The targets are the design's, for each handshake.
    pub(super) fn rows(&self, samples: &Samples) -> Vec<Row> {
        let tls = self.tls(samples);
        let row = |what: String, subject| Row::new(what, samples.whole(subject), "us");
        let against = |what: String, subject, peer| row(what, subject).against(peer, tls);
        let mut rows = Vec::new();
        for Accept { mode, cached, fresh, .. } in &self.ours {
            let known = format!("accept, {mode:?}, certificate cached");
            let unknown = format!("accept, {mode:?}, certificate not cached");
            rows.extend([
                against(known.clone(), *cached, MTLS).at_most(0.75),
                against(unknown, *fresh, MTLS).at_most(1.0),
                row(known.clone(), *cached)
                    .against(NOISE_AWS_LC, samples.whole(self.noise_aws_lc))
                    .at_most(1.5),
                row(known, *cached).against(NOISE, samples.whole(self.noise)).at_most(0.6),
            ]);
        }
        rows
    }

    /// Informative: no peer speaks this suite.
    pub(super) fn suite_rows(&self, samples: &Samples) -> Vec<Row> {
        let mut rows = Vec::new();
        for Accept { mode, cached, sm2, pure, .. } in &self.ours {
            let name = format!("accept, {mode:?}, suite SM2_SM4GCM_SM3");
            let row = || Row::new(name.clone(), samples.whole(*sm2), "us");
            let pure = samples.whole(*pure);
            rows.extend([
                row().against("our P-256 suite in pure Rust", pure),
                row().against("our P-256 suite on AWS-LC", samples.whole(*cached)),
            ]);
        }
        rows
    }

    /// Informative: what follows from the medians.
    pub(super) fn throughput_rows(&self, samples: &Samples) -> Vec<Row> {
        let per_second = |subject| 1e6 / samples.whole(subject);
        let mut rows = Vec::new();
        for Accept { mode, cached, sm2, .. } in &self.ours {
            let name = format!("handshakes per second and core, {mode:?}, certificate cached");
            let row = || Row::new(name.clone(), per_second(*cached), "1/s");
            rows.extend([
                row().against(MTLS, per_second(self.tls)),
                row().against(NOISE, per_second(self.noise)),
                Row::new(
                    format!("handshakes per second and core, {mode:?}, suite SM2_SM4GCM_SM3"),
                    per_second(*sm2),
                    "1/s",
                ),
            ]);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use testkit::counting::CountingProvider;

    use super::super::worlds::{MODES, PAIRED_MODES};
    use crate::Fallible;
    use crate::party::noise::{Backend, Noise};
    use crate::party::ours::{Ours, Setting};
    use crate::party::paired::Paired;
    use crate::party::tree::Tree;
    use crate::party::{Contacts, connect};

    #[test]
    fn the_two_noise_backends_understand_each_other() {
        let shipped = Noise::new(Backend::Shipped).unwrap();
        let aws_lc = Noise::new(Backend::AwsLc).unwrap();
        connect(&mut shipped.client().unwrap(), &mut aws_lc.server()).unwrap();
        connect(&mut aws_lc.client().unwrap(), &mut shipped.server()).unwrap();
    }

    #[test]
    fn the_cache_saves_the_server_one_verification() {
        let mut tree = Tree::new().unwrap();
        let counting = CountingProvider::new(tree.provider.clone());
        tree.provider = counting.provider();
        fn verifications<C: Contacts>(ours: &Fallible<C>, counting: &CountingProvider) -> u64 {
            let ours = ours.as_ref().unwrap();
            let run = || connect(&mut ours.client().unwrap(), &mut ours.server()).unwrap();
            run();
            counting.measure(run).1.verify
        }
        let of = |setting: Setting| match MODES.contains(&setting.mode) {
            true => verifications(&Ours::new(&tree, setting), &counting),
            false => verifications(&Paired::new(&tree, setting), &counting),
        };
        for mode in MODES.into_iter().chain(PAIRED_MODES) {
            let cached = Setting::of(mode);
            assert_eq!(of(Setting { cached: false, ..cached }), of(cached) + 1, "{mode:?}");
        }
    }
}

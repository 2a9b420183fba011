//! What a good handshake costs the server.

use countersign_channel::Mode;

use super::contact::{End, batch};
use super::worlds::Worlds;
use super::{BATCH, SLOW_BATCH};
use crate::measure::{Samples, Subject, Subjects};
use crate::party::noise::Noise;
use crate::party::ours::Ours;
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

pub(super) struct Handshakes {
    ours: Vec<Accept>,
    tls: Subject,
    noise: Subject,
    noise_aws_lc: Subject,
}

impl Handshakes {
    pub(super) fn new<'a>(worlds: &'a Worlds, subjects: &mut Subjects<'a>) -> Self {
        let mut accept = |ours: &'a Ours, count| {
            subjects.add(move || batch(count, || ours.reader(), || ours.server(), End::Connected))
        };
        let ours = worlds.ours.iter().map(|ours| Accept {
            mode: ours.mode,
            cached: accept(&ours.cached, BATCH),
            fresh: accept(&ours.fresh, BATCH),
            sm2: accept(&ours.sm2, SLOW_BATCH),
            pure: accept(&ours.pure, SLOW_BATCH),
        });
        let ours = ours.collect();
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

    /// The targets are the design's, for each of the two handshakes.
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

    use super::super::worlds::MODES;
    use crate::party::connect;
    use crate::party::noise::{Backend, Noise};
    use crate::party::ours::{Ours, Setting};
    use crate::party::tree::Tree;

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
        let verifications = |setting| {
            let ours = Ours::new(&tree, setting).unwrap();
            let run = || connect(&mut ours.reader().unwrap(), &mut ours.server()).unwrap();
            run();
            counting.measure(run).1.verify
        };
        for mode in MODES {
            let cached = Setting::of(mode);
            let fresh = verifications(Setting { cached: false, ..cached });
            assert_eq!(fresh, verifications(cached) + 1, "{mode:?}");
        }
    }
}

//! `KT_KDH` beside a bare RSA signature, its opening beside a bare RSA decryption.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use countersign_crypto::Secret;
use testkit::rng::{ChaCha20Rng, seeded};
use tr31::{Header, Version, policy};
use tr34::aws_lc::AwsLc;
use tr34::kdh::{KeyOrder, Sender};
use tr34::krd::{Policy, Receiver, State};
use tr34::token::{ContentCipher, Freshness, RtKrd};
use tr34::{Dialect, Rsa};

use super::parties::{NOW, Parties};
use crate::Fallible;
use crate::measure::{Samples, Subject, Subjects, cpu_time, micros};
use crate::report::Row;

/// The design's goal: what a token costs beside its signature is less than a sixth of it.
const SIGNING_SHARE: f64 = 0.85;
/// About as long as the signed attributes of a token.
const MESSAGE_LEN: usize = 160;

/// One length of keys: who takes part, and which key is carried. RSA of 2048 bits may carry a TDES
/// key at most, of 3072 an AES-128 key too.
struct Kind {
    bits: u32,
    /// Operations per sample.
    batch: usize,
    parties: Parties,
    cipher: ContentCipher,
    header: Header,
    key: Secret,
}

impl Kind {
    fn all() -> Fallible<[Self; 2]> {
        let tdes = policy::with_odd_parity(&Secret::copied_from(b"0123456789abcdefghijklmn"));
        Ok([
            Self {
                bits: 2048,
                batch: 16,
                parties: Parties::new(2048)?,
                cipher: ContentCipher::Tdes,
                header: Header::new(Version::B, *b"K0", b'T', b'B', b'S'),
                key: tdes,
            },
            Self {
                bits: 3072,
                batch: 4,
                parties: Parties::new(3072)?,
                cipher: ContentCipher::Aes128,
                header: Header::new(Version::D, *b"K0", b'A', b'B', b'S'),
                key: Secret::copied_from(b"an AES key of 16"),
            },
        ])
    }

    fn sender(&self) -> Sender<'_> {
        Sender {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            certificate: &self.parties.kdh.certificate,
            crl: Some(&self.parties.crl),
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        }
    }

    fn receiver(&self) -> Receiver<'_> {
        Receiver {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            key: &self.parties.krd.key,
            certificate: &self.parties.krd.certificate,
            kdh_cas: std::slice::from_ref(&self.parties.ca_kdh),
            krd_ca: &self.parties.ca_krd,
            policy: Policy::STRICT,
        }
    }

    fn token(&self, rng: &mut ChaCha20Rng, freshness: &Freshness) -> Fallible<Vec<u8>> {
        let order = KeyOrder {
            krd: &self.parties.verified_krd,
            freshness,
            cipher: self.cipher,
            header: &self.header,
            key: &self.key,
        };
        Ok(self.sender().key_token(rng, &order)?.sign(&self.parties.kdh.key)?)
    }
}

/// A terminal that is bound and has asked, the token that answers it, and the bare operations.
struct Stage<'a> {
    kind: &'a Kind,
    receiver: Receiver<'a>,
    state: State,
    freshness: Freshness,
    token: Vec<u8>,
    bare: Bare,
}

impl<'a> Stage<'a> {
    fn new(kind: &'a Kind) -> Fallible<Self> {
        let receiver = kind.receiver();
        let mut rng = seeded(5);
        let bound = receiver.bind(&State::default(), &kind.sender().credential(), NOW)?;
        let (asked, state) = receiver.request(&bound, &mut rng, NOW)?;
        let freshness = Freshness::TwoPass(RtKrd::parse(&asked)?.nonce);
        let token = kind.token(&mut rng, &freshness)?;
        let opened = receiver.receive(&state, &token, NOW)?.install();
        if !opened.key.ct_eq(kind.key.expose()) {
            return Err("the terminal took another key out of the token".into());
        }
        Ok(Self { kind, receiver, state, freshness, token, bare: Bare::new(kind)? })
    }

    fn open(&self) -> Fallible<()> {
        self.receiver.receive(&self.state, &self.token, NOW)?;
        Ok(())
    }

    fn turns(&'a self, subjects: &mut Subjects<'a>) -> Turns {
        let Kind { bits, batch, .. } = *self.kind;
        let mut rng = seeded(7);
        let make = move || sample(batch, || self.kind.token(&mut rng, &self.freshness).map(drop));
        Turns {
            bits,
            token_len: self.token.len(),
            make: subjects.add(make),
            sign: subjects.add(move || sample(batch, || self.bare.sign())),
            open: subjects.add(move || sample(batch, || self.open())),
            decrypt: subjects.add(move || sample(batch, || self.bare.decrypt())),
        }
    }
}

/// The library's operations by themselves, with the keys of the parties.
struct Bare {
    signing: RsaKeyPair,
    decryption: OaepPrivateDecryptingKey,
    ciphertext: Vec<u8>,
}

impl Bare {
    fn new(kind: &Kind) -> Fallible<Self> {
        let Parties { kdh, krd, .. } = &kind.parties;
        let signing = RsaKeyPair::from_pkcs8(kdh.key.to_pkcs8().expose())?;
        let key = PrivateDecryptingKey::from_pkcs8(krd.key.to_pkcs8().expose())?;
        let decryption = OaepPrivateDecryptingKey::new(key)?;
        let public_key = krd.certificate.public_key();
        let text = Secret::copied_from(&[7; 24]);
        let ciphertext = AwsLc.encrypt(&mut seeded(6), public_key, &text)?;
        Ok(Self { signing, decryption, ciphertext })
    }

    fn sign(&self) -> Fallible<()> {
        let mut signature = vec![0; self.signing.public_modulus_len()];
        let message = [0x5a; MESSAGE_LEN];
        Ok(self.signing.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)?)
    }

    fn decrypt(&self) -> Fallible<()> {
        let mut text = vec![0; self.decryption.min_output_size()];
        let oaep = &OAEP_SHA256_MGF1SHA256;
        let text = self.decryption.decrypt(oaep, &self.ciphertext, &mut text, None)?;
        if text == [7; 24] { Ok(()) } else { Err("the ciphertext opened to another text".into()) }
    }
}

/// One sample: CPU microseconds per operation.
fn sample(batch: usize, mut operation: impl FnMut() -> Fallible<()>) -> Fallible<Vec<f64>> {
    let (done, spent) = cpu_time(|| (0..batch).try_for_each(|_| operation()))?;
    done?;
    Ok(vec![micros(spent) / batch as f64])
}

/// The subjects of one length.
struct Turns {
    bits: u32,
    token_len: usize,
    make: Subject,
    sign: Subject,
    open: Subject,
    decrypt: Subject,
}

impl Turns {
    fn rows(&self, samples: &Samples) -> [Row; 3] {
        let Self { bits, token_len, make, sign, open, decrypt } = *self;
        let per_second = |subject| 1e6 / samples.whole(subject);
        let row = |name: String, subject| Row::new(name, per_second(subject), "1/s");
        [
            row(format!("KT_KDH made per second and core, RSA-{bits}"), make)
                .against(format!("bare RSA-{bits} signatures of AWS-LC"), per_second(sign))
                .at_least(SIGNING_SHARE),
            row(format!("KT_KDH checked and opened per second and core, RSA-{bits}"), open)
                .against(format!("bare RSA-{bits} decryptions of AWS-LC"), per_second(decrypt)),
            Row::new(format!("bytes of a KT_KDH, RSA-{bits}"), token_len as f64, "bytes"),
        ]
    }
}

/// Measures and compares.
pub(super) fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let kinds = Kind::all()?;
    let stages: Vec<Stage<'_>> = kinds.iter().map(Stage::new).collect::<Fallible<_>>()?;
    let mut subjects = Subjects::default();
    let turns: Vec<Turns> = stages.iter().map(|stage| stage.turns(&mut subjects)).collect();
    let samples = subjects.run(rounds)?;
    Ok(turns.iter().flat_map(|turns| turns.rows(&samples)).collect())
}

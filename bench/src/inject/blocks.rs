//! Wrapping and unwrapping of key blocks, beside the cipher calls that they take.

use std::sync::Mutex;

use countersign_crypto::Secret;
use testkit::rng::seeded;
use tr31::aws_lc::AwsLc;
use tr31::{
    BlockCipher, CipherError, Ciphers, Header, Kbpk, Leniency, Padding, Version, policy, unwrap,
    wrap,
};

use crate::Fallible;
use crate::measure::{Subject, Subjects, cpu_time, micros};
use crate::report::Row;

/// Operations per sample.
const BATCH: usize = 128;

/// One call of a cipher, with what it was given.
enum Call {
    Encrypt(BlockCipher, Secret, Vec<u8>, Vec<u8>),
    Decrypt(BlockCipher, Secret, Vec<u8>, Vec<u8>),
    Ctr(Secret, [u8; 16], Vec<u8>),
    Cmac(BlockCipher, Secret, Vec<u8>),
}

impl Call {
    fn run(&mut self) -> Result<(), CipherError> {
        match self {
            Self::Encrypt(cipher, key, iv, data) => AwsLc.cbc_encrypt(*cipher, key, iv, data),
            Self::Decrypt(cipher, key, iv, data) => AwsLc.cbc_decrypt(*cipher, key, iv, data),
            Self::Ctr(key, iv, data) => AwsLc.aes_ctr(key, iv, data),
            Self::Cmac(cipher, key, data) => AwsLc.cmac(*cipher, key, data).map(drop),
        }
    }
}

/// Ciphers that remember what they were asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<Call>>);

impl Recorder {
    fn note(&self, call: Call) -> Result<(), CipherError> {
        self.0.lock().map_err(|_| CipherError)?.push(call);
        Ok(())
    }

    fn calls(self) -> Fallible<Vec<Call>> {
        Ok(self.0.into_inner().map_err(|_| "a recording thread died")?)
    }
}

fn copy(key: &Secret) -> Secret {
    Secret::copied_from(key.expose())
}

impl Ciphers for Recorder {
    fn cbc_encrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        self.note(Call::Encrypt(cipher, copy(key), iv.to_vec(), data.to_vec()))?;
        AwsLc.cbc_encrypt(cipher, key, iv, data)
    }

    fn cbc_decrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        self.note(Call::Decrypt(cipher, copy(key), iv.to_vec(), data.to_vec()))?;
        AwsLc.cbc_decrypt(cipher, key, iv, data)
    }

    fn aes_ctr(&self, key: &Secret, iv: &[u8; 16], data: &mut [u8]) -> Result<(), CipherError> {
        self.note(Call::Ctr(copy(key), *iv, data.to_vec()))?;
        AwsLc.aes_ctr(key, iv, data)
    }

    fn cmac(&self, cipher: BlockCipher, key: &Secret, data: &[u8]) -> Result<Secret, CipherError> {
        self.note(Call::Cmac(cipher, copy(key), data.to_vec()))?;
        AwsLc.cmac(cipher, key, data)
    }
}

/// One version of key block with its keys.
struct Kind {
    name: &'static str,
    header: Header,
    kbpk: Secret,
    key: Secret,
}

impl Kind {
    fn all() -> [Self; 2] {
        let tdes = |bytes: &[u8; 24]| policy::with_odd_parity(&Secret::copied_from(bytes));
        [
            Self {
                name: "D (AES-128)",
                header: Header::new(Version::D, *b"P0", b'A', b'E', b'N'),
                kbpk: Secret::copied_from(b"an AES key of 16"),
                key: Secret::copied_from(b"another of the A"),
            },
            Self {
                name: "B (TDES, three parts)",
                header: Header::new(Version::B, *b"P0", b'T', b'E', b'N'),
                kbpk: tdes(b"0123456789abcdefghijklmn"),
                key: tdes(b"ponmlkjihgfedcba98765432"),
            },
        ]
    }

    fn wrap(&self, ciphers: &dyn Ciphers, rng: &mut testkit::rng::ChaCha20Rng) -> Fallible<String> {
        let padding = Padding::Random(rng);
        let kbpk = Kbpk::Clear(&self.kbpk);
        Ok(wrap(ciphers, kbpk, &self.header, &self.key, padding, Leniency::NONE)?)
    }

    fn unwrap(&self, ciphers: &dyn Ciphers, block: &str) -> Fallible<()> {
        let kbpk = Kbpk::Clear(&self.kbpk);
        let opened = unwrap(ciphers, kbpk, block.as_bytes(), Leniency::NONE)?;
        let same = opened.key.ct_eq(self.key.expose());
        if same { Ok(()) } else { Err("the block opened to another key".into()) }
    }

    /// The cipher calls of one wrapping.
    fn calls_of_wrap(&self) -> Fallible<Vec<Call>> {
        let recorder = Recorder::default();
        self.wrap(&recorder, &mut seeded(2))?;
        recorder.calls()
    }

    /// The cipher calls of one unwrapping.
    fn calls_of_unwrap(&self, block: &str) -> Fallible<Vec<Call>> {
        let recorder = Recorder::default();
        self.unwrap(&recorder, block)?;
        recorder.calls()
    }
}

/// One sample: CPU microseconds per operation.
fn sample(mut operation: impl FnMut() -> Fallible<()>) -> Fallible<Vec<f64>> {
    let (done, spent) = cpu_time(|| (0..BATCH).try_for_each(|_| operation()))?;
    done?;
    Ok(vec![micros(spent) / BATCH as f64])
}

fn run_all(calls: &mut [Call]) -> Fallible<()> {
    calls.iter_mut().try_for_each(|call| Ok(call.run()?))
}

/// What is measured of one version: the operation, and its cipher calls alone.
struct Turn {
    name: String,
    calls: usize,
    ours: Subject,
    bare: Subject,
}

/// Measures and compares.
pub(super) fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let kinds = Kind::all();
    let mut subjects = Subjects::default();
    let mut turns = Vec::new();
    for kind in &kinds {
        let mut rng = seeded(3);
        let block = kind.wrap(&AwsLc, &mut rng)?;
        let (mut wrapping, mut unwrapping) = (kind.calls_of_wrap()?, kind.calls_of_unwrap(&block)?);
        turns.push(Turn {
            name: format!("blocks of version {} wrapped per second and core", kind.name),
            calls: wrapping.len(),
            ours: subjects.add(move || sample(|| kind.wrap(&AwsLc, &mut rng).map(drop))),
            bare: subjects.add(move || sample(|| run_all(&mut wrapping))),
        });
        turns.push(Turn {
            name: format!("blocks of version {} unwrapped per second and core", kind.name),
            calls: unwrapping.len(),
            ours: subjects.add(move || sample(|| kind.unwrap(&AwsLc, &block))),
            bare: subjects.add(move || sample(|| run_all(&mut unwrapping))),
        });
    }
    let samples = subjects.run(rounds)?;
    let per_second = |subject| 1e6 / samples.whole(subject);
    let row = |turn: &Turn| {
        let peer = format!("its {} cipher calls alone", turn.calls);
        Row::new(turn.name.clone(), per_second(turn.ours), "1/s")
            .against(peer, per_second(turn.bare))
    };
    Ok(turns.iter().map(row).collect())
}

//! A foreign implementation reads what we write and we read what it writes: psec (Python), versions
//! A to D, on keys, headers and optional blocks drawn from a seed.
#![expect(clippy::unwrap_used, reason = "an oracle that answers otherwise fails its test")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use countersign_crypto::Secret;
use libtest_mimic::{Arguments, Failed};
use rand_core::Rng;
use serde_json::{Value, json};
use testkit::parts::{self, Psec};
use testkit::rng::{ChaCha20Rng, seeded};
use tr31::aws_lc::AwsLc;
use tr31::{
    BlockCipher, Header, Kbpk, Leniency, OptionalBlock, OptionalId, Padding, Tr31Error, Version,
    policy, unwrap, wrap,
};

/// Blocks for each version and direction.
const BLOCKS: usize = 150;
/// The first four versions: psec has no E.
const VERSIONS: [Version; 4] = [Version::A, Version::B, Version::C, Version::D];

fn main() {
    let arguments = Arguments::from_args();
    let psec = parts::require(Psec::find());
    let trials = vec![
        psec.trial("psec_reads_what_we_write", psec_reads_what_we_write),
        psec.trial("we_read_what_psec_writes", we_read_what_psec_writes),
        psec.trial("both_refuse_altered_blocks", both_refuse_altered_blocks),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The foreign program, asked a line at a time.
struct Oracle {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Oracle {
    fn start(psec: &Psec) -> Result<Self, Failed> {
        let mut python = psec.python();
        python.args(["-W", "ignore", "-c", include_str!("oracle.py")]);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().ok_or("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        Ok(Self { child, stdin, stdout })
    }

    fn ask(&mut self, request: &Value) -> Result<Value, Failed> {
        writeln!(self.stdin, "{request}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A protection key, a header and a key that go together.
struct Case {
    kbpk: Secret,
    header: Header,
    key: Secret,
}

impl Case {
    fn draw(version: Version, rng: &mut ChaCha20Rng) -> Self {
        let mut pick = |most: u32| (rng.next_u32() % most) as usize;
        let (kbpk_len, key_len, algorithm, cipher) = match version {
            Version::D => ([16, 24, 32][pick(3)], 16, [b'A', b'T'][pick(2)], BlockCipher::Aes),
            _ => ([16, 24][pick(2)], 16, b'T', BlockCipher::Tdes),
        };
        let usages: [(&[u8; 2], u8); 6] = [
            (b"P0", b'E'),
            (b"K0", b'B'),
            (b"D0", b'N'),
            (b"B0", b'X'),
            (b"V2", b'V'),
            (b"C0", b'G'),
        ];
        let (usage, mode) = usages[pick(6)];
        let mut header = Header::new(version, *usage, algorithm, mode, [b'E', b'N', b'S'][pick(3)]);
        let key_len = match algorithm {
            b'A' if kbpk_len > 16 => [16, 24][pick(2)],
            b'T' if kbpk_len > 16 => [16, 24][pick(2)],
            _ => key_len,
        };
        for _ in 0..pick(3) {
            let label = "abcdefghij".repeat(pick(30) + 1);
            let blocks = [
                (OptionalId::LB, label),
                (OptionalId::TS, "20260102030405Z".to_owned()),
                (OptionalId::KV, "0099".to_owned()),
                (OptionalId::KC, String::new()),
            ];
            let (id, data) = blocks[pick(4)].clone();
            if header.block(id).is_none() {
                header.optional.push(OptionalBlock::new(id, data));
            }
        }
        Self {
            kbpk: drawn_key(cipher, kbpk_len, rng),
            key: drawn_key(policy::cipher_of(algorithm).unwrap(), key_len, rng),
            header,
        }
    }

    fn wrap(&self, rng: &mut ChaCha20Rng, leniency: Leniency) -> Result<String, Tr31Error> {
        let kbpk = Kbpk::Clear(&self.kbpk);
        wrap(&AwsLc, kbpk, &self.header, &self.key, Padding::Random(rng), leniency)
    }

    fn unwrap(&self, block: &str, leniency: Leniency) -> Result<tr31::Unwrapped, Tr31Error> {
        unwrap(&AwsLc, Kbpk::Clear(&self.kbpk), block.as_bytes(), leniency)
    }
}

fn drawn_key(cipher: BlockCipher, len: usize, rng: &mut ChaCha20Rng) -> Secret {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    let key = Secret::new(bytes);
    if cipher == BlockCipher::Tdes { policy::with_odd_parity(&key) } else { key }
}

fn digits(key: &Secret) -> String {
    key.expose().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02X}").unwrap();
        text
    })
}

fn psec_reads_what_we_write(psec: &Psec) -> Result<(), Failed> {
    let mut oracle = Oracle::start(psec)?;
    let mut rng = seeded(31);
    for version in VERSIONS {
        for round in 0..BLOCKS {
            let case = Case::draw(version, &mut rng);
            // Every third without hiding the key's length.
            let leniency =
                if round % 3 == 0 { Leniency::NO_LENGTH_OBFUSCATION } else { Leniency::NONE };
            let block = case.wrap(&mut rng, leniency)?;
            let read = oracle.ask(&json!({ "kbpk": digits(&case.kbpk), "block": block }))?;
            assert_eq!(read["key"], digits(&case.key), "{block}: {read}");
            assert_eq!(read["header"], block[5..12], "{block}: {read}");
        }
    }
    Ok(())
}

fn we_read_what_psec_writes(psec: &Psec) -> Result<(), Failed> {
    let mut oracle = Oracle::start(psec)?;
    let mut rng = seeded(32);
    for version in VERSIONS {
        for _ in 0..BLOCKS {
            let mut case = Case::draw(version, &mut rng);
            // What we fill in ourselves, psec does not.
            case.header.optional.retain(|block| !block.data.is_empty());
            let header = String::from_utf8(case.header.encode()?)?;
            let request =
                json!({ "kbpk": digits(&case.kbpk), "header": header, "key": digits(&case.key) });
            let written = oracle.ask(&request)?;
            let block = written["block"].as_str().ok_or_else(|| written.to_string())?;
            let opened = case.unwrap(block, Leniency::NONE).map_err(|e| format!("{block}: {e}"))?;
            assert!(opened.key.ct_eq(case.key.expose()), "{block}");
            let ours = &case.header;
            assert_eq!(opened.header.usage, ours.usage, "{block}");
            assert!(opened.header.optional.starts_with(&ours.optional), "{block}");
        }
    }
    Ok(())
}

fn both_refuse_altered_blocks(psec: &Psec) -> Result<(), Failed> {
    let mut oracle = Oracle::start(psec)?;
    let mut rng = seeded(33);
    for version in VERSIONS {
        for _ in 0..20 {
            let case = Case::draw(version, &mut rng);
            let mut block = case.wrap(&mut rng, Leniency::NONE)?.into_bytes();
            // In the payload or the MAC, where one digit is as good as another.
            let body = version.mac_len() * 2 + 32;
            let at = block.len() - 1 - (rng.next_u32() as usize % body);
            block[at] = if block[at] == b'0' { b'1' } else { b'0' };
            let block = String::from_utf8(block)?;
            assert_eq!(case.unwrap(&block, Leniency::NONE).unwrap_err(), Tr31Error::Mac);
            let read = oracle.ask(&json!({ "kbpk": digits(&case.kbpk), "block": block }))?;
            assert!(read["refused"].is_string(), "{block}: {read}");
        }
    }
    Ok(())
}

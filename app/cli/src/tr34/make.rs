//! `tr34 make`: tokens from files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use countersign_crypto::UnixTime;
use countersign_net::SystemRng;
use data_encoding::HEXUPPER;
use serde_json::json;
use tr31::Header;
use tr34::aws_lc::AwsLc;
use tr34::kdh::{Authority, KeyOrder, PreparedToken, Sender};
use tr34::token::{ContentCipher, CtKrd, Freshness, Nonce, RtKrd};
use tr34::{Certificate, Krd, RsaKey};

use super::verify::{nonce, verified_kdh};
use super::{Terms, input, time};
use crate::failure::Failure;
use crate::output::Output;
use crate::secret_arg;

#[derive(Subcommand)]
pub(crate) enum Make {
    /// CT_KRD: a receiver's certificate.
    ///
    /// Example: countersign tr34 make ct-krd --krd krd.pem --out ct-krd.pem
    CtKrd(MakeCtKrd),
    /// CT_KDH: a KDH's certificate and the revocation list of its authority.
    ///
    /// Example: countersign tr34 make ct-kdh --kdh kdh.pem --crl crl.pem --out ct-kdh.pem
    CtKdh(MakeCtKdh),
    /// RT_KRD: a receiver's random number.
    ///
    /// Example: countersign tr34 make rt --out rt.pem
    Rt(MakeRt),
    /// KT_KDH: a key for a receiver.
    ///
    /// Example: countersign tr34 make kt --kdh kdh.pem --kdh-key kdh.key --crl crl.pem
    /// --krd krd.pem --krd-ca ca-krd.pem --nonce HEX --header B0016K0TB00S0000 --key @key.hex
    Kt(MakeKt),
    /// UBT_KDH: a receiver shall forget its KDH.
    ///
    /// Example: countersign tr34 make ubt --kdh kdh.pem --kdh-key kdh.key --crl crl.pem
    /// --krd krd.pem --nonce HEX
    Ubt(MakeUbt),
    /// RBT_KDH: a receiver shall take another KDH.
    ///
    /// Example: countersign tr34 make rbt --kdh kdh.pem --kdh-key kdh.key --crl crl.pem
    /// --krd krd.pem --nonce HEX --new new-kdh.pem --new-ca ca-kdh.pem
    Rbt(MakeRbt),
    /// UBT_CA: the same as ubt at the word of CA_KRD. It can be replayed.
    ///
    /// Example: countersign tr34 make ubt-ca --krd-ca ca-krd.pem --krd-ca-key ca-krd.key
    /// --krd krd.pem --kdh kdh.pem
    UbtCa(MakeUbtCa),
    /// RBT_CA: the same as rbt at the word of CA_KRD.
    ///
    /// Example: countersign tr34 make rbt-ca --krd-ca ca-krd.pem --krd-ca-key ca-krd.key
    /// --krd krd.pem --kdh old-kdh.pem --new kdh.pem --new-ca ca-kdh.pem --crl crl.pem
    RbtCa(MakeRbtCa),
}

impl Make {
    pub(super) fn run(&self) -> Result<Output, Failure> {
        match self {
            Self::CtKrd(make) => make.run(),
            Self::CtKdh(make) => make.run(),
            Self::Rt(make) => make.run(),
            Self::Kt(make) => make.run(),
            Self::Ubt(make) => make.run(),
            Self::Rbt(make) => make.run(),
            Self::UbtCa(make) => make.run(),
            Self::RbtCa(make) => make.run(),
        }
    }
}

/// Where the token goes.
#[derive(Args)]
struct Target {
    /// Write the token to this file, in PEM, and print nothing of it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Target {
    fn put(&self, kind: &str, label: &str, token: Vec<u8>) -> Result<Output, Failure> {
        let length = token.len();
        let hex = HEXUPPER.encode(&token);
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&pem::Pem::new(label, token), config);
        let Some(path) = &self.out else {
            return Ok(Output::new(json!({ "kind": kind, "token": hex }), text));
        };
        std::fs::write(path, text).map_err(|error| Failure::file(path, &error))?;
        let shown = path.display().to_string();
        let said = format!("{kind}: {shown}, {length} bytes of DER");
        Ok(Output::new(json!({ "kind": kind, "file": shown, "length": length }), said))
    }

    /// A token that is CMS, under the label by which OpenSSL knows it.
    fn put_cms(&self, kind: &str, token: Vec<u8>) -> Result<Output, Failure> {
        self.put(kind, "CMS", token)
    }
}

/// The KDH that signs.
#[derive(Args)]
struct Signer {
    /// The KDH's certificate.
    #[arg(long, value_name = "FILE")]
    kdh: String,
    /// The KDH's private key: PKCS#8 or PKCS#1, not encrypted.
    #[arg(long, value_name = "FILE")]
    kdh_key: String,
    /// The revocation list of the KDH's authority.
    #[arg(long, value_name = "FILE")]
    crl: Option<String>,
}

/// What a [`Signer`]'s files hold.
struct Signs {
    certificate: Certificate,
    key: Box<dyn RsaKey>,
    crl: Option<Vec<u8>>,
}

impl Signer {
    fn read(&self, terms: &Terms) -> Result<Signs, Failure> {
        let certificate = input::certificate("kdh", &self.kdh, terms.leniency())?;
        let key = Box::new(input::key("kdh-key", &self.kdh_key)?);
        let crl = self.crl.as_deref().map(|crl| list("crl", crl)).transpose()?;
        Ok(Signs { certificate, key, crl })
    }

    fn words(&self) -> [Option<&str>; 3] {
        [Some(&self.kdh), Some(&self.kdh_key), self.crl.as_deref()]
    }
}

impl Signs {
    fn sender(&self, terms: &Terms) -> Result<Sender<'_>, Failure> {
        Ok(Sender {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            certificate: &self.certificate,
            crl: self.crl.as_deref(),
            dialect: terms.dialect()?,
            weaker_wrapping: false,
        })
    }

    fn sign(&self, prepared: PreparedToken) -> Result<Vec<u8>, Failure> {
        Ok(prepared.sign(self.key.as_ref())?)
    }
}

fn list(name: &str, word: &str) -> Result<Vec<u8>, Failure> {
    Ok(tr34::Crl::parse(&input::octets(name, word)?)?.raw().to_vec())
}

/// The random number that a token answers.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Answer {
    /// The receiver's random number, in hex digits.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// The receiver's request, RT_KRD.
    #[arg(long, value_name = "FILE")]
    rt: Option<String>,
}

impl Answer {
    fn read(&self) -> Result<Nonce, Failure> {
        match (&self.nonce, &self.rt) {
            (Some(word), _) => nonce(word),
            (None, Some(word)) => Ok(RtKrd::parse(&input::octets("rt", word)?)?.nonce),
            (None, None) => Err(Failure::usage("nonce", "--nonce or --rt says what is answered")),
        }
    }
}

#[derive(Args)]
pub(crate) struct MakeCtKrd {
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: String,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl MakeCtKrd {
    fn run(&self) -> Result<Output, Failure> {
        let krd = input::certificate("krd", &self.krd, self.terms.leniency())?;
        self.target.put_cms("CT_KRD", CtKrd { certificate: krd.raw() }.encode())
    }
}

#[derive(Args)]
pub(crate) struct MakeCtKdh {
    /// The KDH's certificate.
    #[arg(long, value_name = "FILE")]
    kdh: String,
    /// The revocation list of the KDH's authority.
    #[arg(long, value_name = "FILE")]
    crl: Option<String>,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl MakeCtKdh {
    fn run(&self) -> Result<Output, Failure> {
        input::at_most_one_stdin(&[Some(&self.kdh), self.crl.as_deref()])?;
        let kdh = input::certificate("kdh", &self.kdh, self.terms.leniency())?;
        let crl = self.crl.as_deref().map(|crl| list("crl", crl)).transpose()?;
        let dialect = self.terms.dialect()?;
        let token = tr34::token::CtKdh::encode(kdh.raw(), crl.as_deref(), &dialect);
        self.target.put_cms("CT_KDH", token)
    }
}

#[derive(Args)]
pub(crate) struct MakeRt {
    /// The random number in hex digits; a new one of 16 bytes, unless given.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl MakeRt {
    fn run(&self) -> Result<Output, Failure> {
        let nonce = match &self.nonce {
            Some(word) => nonce(word)?,
            None => Nonce::random(&mut SystemRng::default()),
        };
        let shown = nonce.to_string();
        let mut output = self.target.put("RT_KRD", "TR34 RT KRD", RtKrd { nonce }.encode())?;
        output.json["nonce"] = shown.into();
        Ok(output)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Content {
    Tdes,
    Aes128,
}

#[derive(Args)]
pub(crate) struct MakeKt {
    #[command(flatten)]
    signer: Signer,
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: String,
    /// The certificate of the receiver's certification authority.
    #[arg(long, value_name = "FILE")]
    krd_ca: String,
    /// The receiver's random number, in hex digits.
    #[arg(long, value_name = "HEX", group = "fresh")]
    nonce: Option<String>,
    /// The receiver's request, RT_KRD.
    #[arg(long, value_name = "FILE", group = "fresh")]
    rt: Option<String>,
    /// Make a token of one pass, signed at this time, RFC 3339.
    #[arg(long, value_name = "TIME", group = "fresh")]
    signing_time: Option<String>,
    /// The key block header, 16 characters and its optional blocks.
    #[arg(long, value_name = "STR")]
    header: String,
    /// The key: HEX, @FILE or - for stdin.
    #[arg(long, value_name = "HEX")]
    key: String,
    /// The envelope's cipher.
    #[arg(long, value_enum, default_value = "aes128")]
    content: Content,
    /// Send a key that RSA or the content's cipher is too weak for.
    #[arg(long)]
    weaker_wrapping: bool,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl MakeKt {
    fn run(&self) -> Result<Output, Failure> {
        let [kdh, kdh_key, crl] = self.signer.words();
        let rest = [Some(self.krd.as_str()), Some(&self.krd_ca), self.rt.as_deref()];
        let words = [kdh, kdh_key, crl, rest[0], rest[1], rest[2], Some(self.key.as_str())];
        input::at_most_one_stdin(&words)?;
        let freshness = match &self.signing_time {
            Some(at) => Freshness::OnePass(time(at)?),
            None => {
                let answer = Answer { nonce: self.nonce.clone(), rt: self.rt.clone() };
                Freshness::TwoPass(answer.read()?)
            }
        };
        let signs = self.signer.read(&self.terms)?;
        let leniency = self.terms.leniency();
        let krd = input::certificate("krd", &self.krd, leniency)?;
        let ca = input::certificate("krd-ca", &self.krd_ca, leniency)?;
        let krd = Krd::verify(&AwsLc, krd, &ca, self.terms.now()?)?;
        let header = Header::parse(self.header.as_bytes(), tr31::Leniency::OPTIONAL_BLOCK_PADDING)?;
        let key = secret_arg::secret("key", &self.key)?;
        let cipher = match self.content {
            Content::Tdes => ContentCipher::Tdes,
            Content::Aes128 => ContentCipher::Aes128,
        };
        let sender = Sender { weaker_wrapping: self.weaker_wrapping, ..signs.sender(&self.terms)? };
        let order =
            KeyOrder { krd: &krd, freshness: &freshness, cipher, header: &header, key: &key };
        let prepared = sender.key_token(&mut SystemRng::default(), &order)?;
        self.target.put_cms("KT_KDH", signs.sign(prepared)?)
    }
}

#[derive(Args)]
pub(crate) struct MakeUbt {
    #[command(flatten)]
    signer: Signer,
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: String,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl MakeUbt {
    fn run(&self) -> Result<Output, Failure> {
        let [kdh, kdh_key, crl] = self.signer.words();
        let words = [kdh, kdh_key, crl, Some(self.krd.as_str()), self.answer.rt.as_deref()];
        input::at_most_one_stdin(&words)?;
        let signs = self.signer.read(&self.terms)?;
        let krd = input::certificate("krd", &self.krd, self.terms.leniency())?;
        let prepared = signs.sender(&self.terms)?.unbind(krd.identity(), &self.answer.read()?)?;
        self.target.put_cms("UBT_KDH", signs.sign(prepared)?)
    }
}

/// The new KDH.
#[derive(Args)]
struct New {
    /// The new KDH's certificate.
    #[arg(long, value_name = "FILE")]
    new: String,
    /// The certificate of the new KDH's certification authority.
    #[arg(long, value_name = "FILE")]
    new_ca: String,
}

impl New {
    fn read(&self, terms: &Terms, now: UnixTime) -> Result<tr34::Kdh, Failure> {
        let new = input::certificate("new", &self.new, terms.leniency())?;
        let ca = input::certificate("new-ca", &self.new_ca, terms.leniency())?;
        verified_kdh(new, &ca, now)
    }
}

#[derive(Args)]
pub(crate) struct MakeRbt {
    #[command(flatten)]
    signer: Signer,
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: String,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    new: New,
    /// The revocation list of the new KDH's authority, where that is another.
    #[arg(long, value_name = "FILE")]
    new_crl: Option<String>,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl MakeRbt {
    fn run(&self) -> Result<Output, Failure> {
        let [kdh, kdh_key, crl] = self.signer.words();
        let files = [&self.krd, &self.new.new, &self.new.new_ca].map(|word| Some(word.as_str()));
        let [krd, new, new_ca] = files;
        let answer = [self.answer.rt.as_deref(), self.new_crl.as_deref()];
        let words = [kdh, kdh_key, crl, krd, new, new_ca, answer[0], answer[1]];
        input::at_most_one_stdin(&words)?;
        let signs = self.signer.read(&self.terms)?;
        let krd = input::certificate("krd", &self.krd, self.terms.leniency())?;
        let new = self.new.read(&self.terms, self.terms.now()?)?;
        let new_crl = self.new_crl.as_deref().map(|crl| list("new-crl", crl)).transpose()?;
        let nonce = self.answer.read()?;
        let sender = signs.sender(&self.terms)?;
        let prepared = sender.rebind(krd.identity(), &nonce, &new, new_crl.as_deref())?;
        self.target.put_cms("RBT_KDH", signs.sign(prepared)?)
    }
}

/// The authority that signs.
#[derive(Args)]
struct CaSigner {
    /// The certificate of CA_KRD.
    #[arg(long, value_name = "FILE")]
    krd_ca: String,
    /// The private key of CA_KRD: PKCS#8 or PKCS#1, not encrypted.
    #[arg(long, value_name = "FILE")]
    krd_ca_key: String,
    /// The receiver's certificate.
    #[arg(long, value_name = "FILE")]
    krd: String,
    /// The certificate of the KDH that is bound.
    #[arg(long, value_name = "FILE")]
    kdh: String,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    target: Target,
}

impl CaSigner {
    fn words(&self) -> [Option<&str>; 4] {
        [&self.krd_ca, &self.krd_ca_key, &self.krd, &self.kdh].map(|word| Some(word.as_str()))
    }

    fn put(
        &self,
        kind: &str,
        prepare: impl FnOnce(
            &Authority<'_>,
            [&tr34::IssuerAndSerial; 2],
        ) -> Result<PreparedToken, Failure>,
    ) -> Result<Output, Failure> {
        let read = |name, word| input::certificate(name, word, self.terms.leniency());
        let certificate = read("krd-ca", &self.krd_ca)?;
        let (krd, kdh) = (read("krd", &self.krd)?, read("kdh", &self.kdh)?);
        let key = input::key("krd-ca-key", &self.krd_ca_key)?;
        let dialect = self.terms.dialect()?;
        let authority = Authority { rsa: &AwsLc, certificate: &certificate, dialect };
        let prepared = prepare(&authority, [krd.identity(), kdh.identity()])?;
        self.target.put_cms(kind, prepared.sign(&key)?)
    }
}

#[derive(Args)]
pub(crate) struct MakeUbtCa {
    #[command(flatten)]
    signer: CaSigner,
}

impl MakeUbtCa {
    fn run(&self) -> Result<Output, Failure> {
        input::at_most_one_stdin(&self.signer.words())?;
        self.signer.put("UBT_CA", |authority, [krd, kdh]| Ok(authority.unbind(krd, kdh)))
    }
}

#[derive(Args)]
pub(crate) struct MakeRbtCa {
    #[command(flatten)]
    signer: CaSigner,
    #[command(flatten)]
    new: New,
    /// The revocation list of the new KDH's authority.
    #[arg(long, value_name = "FILE")]
    crl: Option<String>,
}

impl MakeRbtCa {
    fn run(&self) -> Result<Output, Failure> {
        let [ca, ca_key, krd, kdh] = self.signer.words();
        let more = [Some(self.new.new.as_str()), Some(&self.new.new_ca), self.crl.as_deref()];
        input::at_most_one_stdin(&[ca, ca_key, krd, kdh, more[0], more[1], more[2]])?;
        let now = self.signer.terms.now()?;
        let new = self.new.read(&self.signer.terms, now)?;
        let crl = self.crl.as_deref().map(|crl| list("crl", crl)).transpose()?;
        self.signer.put("RBT_CA", |authority, [krd, old]| {
            Ok(authority.rebind(krd, old, &new, crl.as_deref(), now)?)
        })
    }
}

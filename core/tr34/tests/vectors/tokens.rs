//! A token of Clover's client, and ours for its sample hierarchy.

use std::path::Path;

use countersign_crypto::{Secret, UnixTime};
use libtest_mimic::Failed;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tr31::{Header, Version};
use tr34::aws_lc::AwsLc;
use tr34::kdh::{self, KeyOrder, Sender};
use tr34::krd::{Policy, Receiver, State};
use tr34::token::{ContentCipher, CtKdh, CtKrd, Freshness, RtKrd};
use tr34::{Certificate, CrlTerms, Dialect, Issuer, Krd, Leniency};

use crate::Check;
use crate::hierarchy::{NOW, contents, foreign, key};

pub(crate) const CHECKS: [(&str, Check); 3] = [
    ("the_clients_credential_is_read", the_clients_credential_is_read),
    ("tokens_for_the_sample_terminal_are_taken", tokens_for_the_sample_terminal_are_taken),
    ("a_sample_terminal_binds_no_other_terminal", a_sample_terminal_binds_no_other_terminal),
];

fn krd(folder: &Path) -> Result<Krd, tr34::Error> {
    let token = contents(folder, "ct_krd.pem");
    let ca = foreign(folder, "krd_ca");
    kdh::receiver(&AwsLc, &token, &ca, None, Leniency::FOREIGN, NOW)
}

fn the_clients_credential_is_read(folder: &Path) -> Result<(), Failed> {
    let token = contents(folder, "ct_krd.pem");
    let certificate = foreign(folder, "krd_1");
    let read = CtKrd::parse(&token)?;
    assert_eq!(read.certificate, certificate.raw());
    assert_eq!(read.encode(), token, "ours is the same, byte by byte");
    assert_eq!(krd(folder)?.certificate(), &certificate);
    let wrong = foreign(folder, "kdh_ca");
    let refused = kdh::receiver(&AwsLc, &token, &wrong, None, Leniency::FOREIGN, NOW).unwrap_err();
    assert_eq!(refused.check(), "certificate-issuer");
    let late = UnixTime::from_secs(2_200_000_000);
    let ca = foreign(folder, "krd_ca");
    let refused = kdh::receiver(&AwsLc, &token, &ca, None, Leniency::FOREIGN, late).unwrap_err();
    assert_eq!(refused.check(), "certificate-issuer-time");
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<u8>, Failed> {
    let next_update = NOW.plus(std::time::Duration::from_secs(86_400));
    let terms = CrlTerms { number: 1, this_update: NOW, next_update };
    let prepared = Issuer::new(foreign(folder, "kdh_ca"))?.prepare_crl(terms, &[])?;
    Ok(prepared.sign(&AwsLc, &key(folder, "kdh_ca"))?)
}

fn tokens_for_the_sample_terminal_are_taken(folder: &Path) -> Result<(), Failed> {
    let (own, cas) = (foreign(folder, "krd_1"), [foreign(folder, "kdh_ca")]);
    let (krd_ca, private) = (foreign(folder, "krd_ca"), key(folder, "krd_1"));
    let list = list(folder)?;
    for (name, dialect) in Dialect::NAMED {
        // Its tokens carry no list.
        for crl in [Some(&list[..]), None] {
            let without_crl = crl.is_none();
            let certificates = Leniency::FOREIGN;
            let policy = Policy { dialect, certificates, without_crl, ..Policy::STRICT };
            let receiver = Receiver {
                rsa: &AwsLc,
                ciphers: &tr31::aws_lc::AwsLc,
                key: &private,
                certificate: &own,
                kdh_cas: &cas,
                krd_ca: &krd_ca,
                policy,
            };
            for kdh in ["kdh_1", "kdh_2"] {
                deliver(folder, &receiver, (kdh, crl))
                    .map_err(|error| format!("{name} {kdh}: {error}"))?;
            }
        }
    }
    Ok(())
}

fn deliver(
    folder: &Path,
    receiver: &Receiver<'_>,
    (kdh, crl): (&str, Option<&[u8]>),
) -> Result<(), Box<dyn std::error::Error>> {
    let certificate: Certificate = foreign(folder, kdh);
    let sender = Sender {
        rsa: &AwsLc,
        ciphers: &tr31::aws_lc::AwsLc,
        certificate: &certificate,
        crl,
        dialect: receiver.policy.dialect,
        weaker_wrapping: false,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let bound = receiver.bind(&State::default(), &sender.credential(), NOW)?;
    let (request, state) = receiver.request(&bound, &mut rng, NOW)?;
    let freshness = Freshness::TwoPass(RtKrd::parse(&request)?.nonce);
    let secret = Secret::copied_from(&[0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
    let secret = Secret::new([secret.expose(), b"abcdefgh"].concat());
    let secret = tr31::policy::with_odd_parity(&secret);
    let order = KeyOrder {
        krd: &krd(folder)?,
        freshness: &freshness,
        cipher: ContentCipher::Aes128,
        header: &Header::new(Version::B, *b"K0", b'T', b'B', b'S'),
        key: &secret,
    };
    let token = sender.key_token(&mut rng, &order)?.sign(&key(folder, kdh))?;
    let installed = receiver.receive(&state, &token, NOW)?.install();
    assert!(installed.key.ct_eq(secret.expose()));
    Ok(())
}

fn a_sample_terminal_binds_no_other_terminal(folder: &Path) -> Result<(), Failed> {
    let (own, cas) = (foreign(folder, "krd_1"), [foreign(folder, "krd_ca")]);
    let private = key(folder, "krd_1");
    let policy = Policy { certificates: Leniency::FOREIGN, ..Policy::STRICT };
    let receiver = Receiver {
        rsa: &AwsLc,
        ciphers: &tr31::aws_lc::AwsLc,
        key: &private,
        certificate: &own,
        kdh_cas: &cas,
        krd_ca: &cas[0],
        policy,
    };
    // One root above both, and no role in the certificates: the issuer decides.
    let bind = |name: &str| {
        let list = list(folder).unwrap();
        let token = CtKdh::encode(foreign(folder, name).raw(), Some(&list), &Dialect::STRICT);
        receiver.bind(&State::default(), &token, NOW).unwrap_err().check()
    };
    assert_eq!(bind("krd_1"), "certificate-role");
    assert_eq!(bind("kdh_1"), "certificate-issuer");
    Ok(())
}

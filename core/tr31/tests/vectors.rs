//! The published vectors of the folder that `COUNTERSIGN_VECTORS` names: each key block unwrapped,
//! and wrapped again byte by byte with the padding it was made with; DUKPT and check values.
//! Without the folder the tests are shown as skipped, in the CI too: it is not part of the project.
#![expect(clippy::unwrap_used, reason = "a vector that is not as described fails its test")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use countersign_crypto::Secret;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde::Deserialize;
use serde_json::Value;
use tr31::aws_lc::AwsLc;
use tr31::dukpt::{AesKeyType, AesKeyUsage, AesKsn, InitialKeyId, TdesKsn};
use tr31::{Header, Kbpk, Kcv, Leniency, Padding, kcv, unwrap, wrap};

const VARIABLE: &str = "COUNTERSIGN_VECTORS";

#[derive(Deserialize)]
struct KeyBlock {
    source: String,
    version: String,
    kbpk: String,
    header: String,
    key: String,
    padding: Option<String>,
    key_block: String,
    expect: String,
    kcv: Option<String>,
}

type Check = fn(&Path) -> Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let folder = env::var_os(VARIABLE).map(PathBuf::from);
    let checks: [(&str, Check); 5] = [
        ("every_key_block_unwraps", every_key_block_unwraps),
        ("every_key_block_is_wrapped_byte_by_byte", every_key_block_is_wrapped_byte_by_byte),
        ("every_altered_character_is_refused", every_altered_character_is_refused),
        ("dukpt_derives_the_published_keys", dukpt_derives_the_published_keys),
        ("check_values_are_the_published", check_values_are_the_published),
    ];
    let trials = checks.map(|(name, check)| {
        let folder = folder.clone();
        Trial::ignorable_test(name, move || match folder {
            Some(folder) => check(&folder).map(|()| Completion::Completed),
            None => Ok(Completion::ignored_with(format!("{VARIABLE} names no folder"))),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

fn key_blocks(folder: &Path) -> Vec<KeyBlock> {
    let text = fs::read_to_string(folder.join("tr31/tr31_vectors.json")).unwrap();
    let blocks: Vec<KeyBlock> = serde_json::from_str(&text).unwrap();
    assert!(blocks.len() >= 25, "the file has at least the 25 blocks it had");
    blocks
}

fn secret(digits: &str) -> Secret {
    Secret::new(hex::decode(digits).unwrap())
}

fn every_key_block_unwraps(folder: &Path) -> Result<(), Failed> {
    let mut refused = 0;
    for vector in key_blocks(folder) {
        let kbpk = secret(&vector.kbpk);
        let opened = unwrap(
            &AwsLc,
            Kbpk::Clear(&kbpk),
            vector.key_block.as_bytes(),
            Leniency::PUBLISHED_SAMPLES,
        );
        if vector.expect == "reject" {
            // They were printed with padding that their length field does not count.
            assert_eq!(opened.unwrap_err().check(), "block-length", "{}", vector.source);
            refused += 1;
            continue;
        }
        let opened = opened.map_err(|error| format!("{}: {error}", vector.source))?;
        assert_eq!(opened.header.version.to_string(), vector.version);
        assert!(opened.key.ct_eq(&hex::decode(&vector.key).unwrap()), "{}", vector.source);
        if let Some(expected) = &vector.kcv {
            let computed = kcv::kcv(&AwsLc, opened.header.algorithm, &opened.key)?;
            assert_eq!(&computed.to_string(), expected, "{}", vector.source);
        }
        // The departures that were reported are all that is needed, and each of them is.
        let again =
            |leniency| unwrap(&AwsLc, Kbpk::Clear(&kbpk), vector.key_block.as_bytes(), leniency);
        assert!(again(opened.used).is_ok(), "{}", vector.source);
        for name in opened.used.names() {
            let without = opened.used.without(Leniency::from_name(name).unwrap());
            assert!(again(without).is_err(), "{}: {name}", vector.source);
        }
    }
    assert_eq!(refused, 2, "two of the printed examples do not verify");
    Ok(())
}

fn every_key_block_is_wrapped_byte_by_byte(folder: &Path) -> Result<(), Failed> {
    for vector in key_blocks(folder) {
        let Some(padding) = vector.padding else { continue };
        let kbpk = secret(&vector.kbpk);
        let padding = hex::decode(padding).unwrap();
        let header = Header::parse(vector.header.as_bytes(), Leniency::PUBLISHED_SAMPLES)?;
        let block = wrap(
            &AwsLc,
            Kbpk::Clear(&kbpk),
            &header,
            &secret(&vector.key),
            Padding::Exact(&padding),
            Leniency::PUBLISHED_SAMPLES,
        )
        .map_err(|error| format!("{}: {error}", vector.source))?;
        // One sample is printed with a payload in lower case; what is written is upper case.
        let (head, body) = vector.key_block.split_at(vector.header.len());
        assert_eq!(block, format!("{head}{}", body.to_ascii_uppercase()), "{}", vector.source);
    }
    Ok(())
}

fn every_altered_character_is_refused(folder: &Path) -> Result<(), Failed> {
    for vector in key_blocks(folder).iter().filter(|vector| vector.expect == "ok") {
        let kbpk = secret(&vector.kbpk);
        let block = vector.key_block.as_bytes();
        // Long blocks cost too much for every place: the header, the last characters, and a few.
        let places = (0..block.len()).filter(|at| block.len() < 200 || at % 37 == 0 || *at < 20);
        for at in places {
            let mut altered = block.to_vec();
            altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
            let opened = unwrap(&AwsLc, Kbpk::Clear(&kbpk), &altered, Leniency::all());
            assert!(opened.is_err(), "{} at {at}", vector.source);
        }
    }
    Ok(())
}

fn dukpt_derives_the_published_keys(folder: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(folder.join("dukpt/dukpt_vectors.json"))?;
    let vectors: Value = serde_json::from_str(&text)?;
    tdes_dukpt(&vectors["tdes"])?;
    aes_dukpt(&vectors["aes128"])
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is a text"))
}

fn same(key: &Secret, expected: &str, what: &str) {
    assert!(key.ct_eq(&hex::decode(expected).unwrap()), "{what} is not {expected}");
}

fn tdes_dukpt(tdes: &Value) -> Result<(), Failed> {
    let ksn = |digits: &str| TdesKsn::from_bytes(hex::decode(digits).unwrap().try_into().unwrap());
    let base = secret(text(tdes, "bdk"));
    let initial = ksn(text(tdes, "iksn")).initial_key(&AwsLc, &base)?;
    same(&initial, text(tdes, "ik"), "the initial key");
    let serials = tdes["ksn"].as_array().unwrap();
    assert_eq!(serials.len(), 21);
    for (serial, expected) in serials.iter().zip(tdes["txn_key"].as_array().unwrap()) {
        let key = ksn(serial.as_str().unwrap()).transaction_key(&AwsLc, &initial)?;
        same(&key, expected.as_str().unwrap(), serial.as_str().unwrap());
    }
    Ok(())
}

fn aes_dukpt(aes: &Value) -> Result<(), Failed> {
    let base = secret(text(aes, "bdk"));
    let id = InitialKeyId::from_bytes(hex::decode(text(aes, "ikid"))?.try_into().unwrap());
    let initial = id.initial_key(&AwsLc, &base)?;
    same(&initial, text(aes, "ik"), "the initial key");
    let serials = aes["ksn"].as_array().unwrap();
    assert_eq!(serials.len(), 8);
    for (at, serial) in serials.iter().enumerate() {
        let serial = serial.as_str().unwrap();
        let ksn = AesKsn::from_bytes(hex::decode(serial).unwrap().try_into().unwrap());
        let expected = |name: &str| aes[name][at].as_str().unwrap().to_owned();
        same(&ksn.derivation_key(&AwsLc, &initial)?, &expected("derivation_key"), serial);
        for (usage, name) in [
            (AesKeyUsage::PinEncryption, "pin_key_aes128"),
            (AesKeyUsage::MacGeneration, "cmac_aes128_key"),
            (AesKeyUsage::DataEncrypt, "data_aes128_key"),
        ] {
            let key = ksn.working_key(&AwsLc, &initial, usage, AesKeyType::Aes128)?;
            same(&key, &expected(name), name);
        }
    }
    for (key_type, name) in [
        (AesKeyType::Aes128, "update_key_aes128"),
        (AesKeyType::Tdes2, "update_key_tdes2"),
        (AesKeyType::Tdes3, "update_key_tdes3"),
    ] {
        same(&id.update_key(&AwsLc, &initial, key_type)?, text(aes, name), name);
    }
    Ok(())
}

fn check_values_are_the_published(folder: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(folder.join("dukpt/dukpt_vectors.json"))?;
    let vectors: Value = serde_json::from_str(&text)?;
    let values = vectors["kcv"].as_array().unwrap();
    assert_eq!(values.len(), 2);
    for value in values {
        let (algorithm, name) = if value["alg"] == "TDES" { (b'T', "kcv") } else { (b'A', "kcv5") };
        let key = secret(value["key"].as_str().unwrap());
        let computed: Kcv = kcv::kcv(&AwsLc, algorithm, &key)?;
        assert_eq!(computed.to_string(), value[name].as_str().unwrap());
    }
    Ok(())
}

use countersign_service::{ExportKey, ImportKey, NewKsn};
use countersign_store::{KeyOrigin, KeyScope, KeyState};
use data_encoding::HEXUPPER;
use tr31::aws_lc::AwsLc;
use tr31::dukpt::Allotted;
use tr31::{Header, Kbpk, Leniency, OptionalBlock, OptionalId, Padding, Version};

use crate::office::{Office, check, done, kcv, new_key, odd, secret};

fn header(version: Version, usage: [u8; 2], algorithm: u8, mode: u8, export: u8) -> Header {
    Header::new(version, usage, algorithm, mode, export)
}

fn wrap(kbpk: &[u8], header: &Header, key: &[u8]) -> String {
    wrap_so(kbpk, header, key, Leniency::NONE)
}

fn wrap_so(kbpk: &[u8], header: &Header, key: &[u8], leniency: Leniency) -> String {
    let mut rng = testkit::rng::seeded(3);
    let (kbpk, key) = (secret(kbpk), secret(key));
    let padding = Padding::Random(&mut rng);
    tr31::wrap(&AwsLc, Kbpk::Clear(&kbpk), header, &key, padding, leniency).unwrap()
}

fn import(name: &str, kek: &str, block: String) -> ImportKey {
    ImportKey {
        name: name.to_owned(),
        kek_id: kek.to_owned(),
        block,
        scope: KeyScope::Shared,
        ksn: None,
        lenient: Vec::new(),
    }
}

fn numbers<const N: usize>() -> [u8; N] {
    std::array::from_fn(|at| u8::try_from(at * 7 + 1).unwrap())
}

fn tdes<const N: usize>(seed: u8) -> [u8; N] {
    std::array::from_fn(|at| odd(seed.wrapping_mul(u8::try_from(at).unwrap() + 5)))
}

#[tokio::test]
async fn a_key_comes_under_a_kek_keeps_its_policy_and_goes_to_terminals() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let key: [u8; 16] = tdes(51);
    for (name, algorithm, kbpk, version) in [
        ("a", "T", tdes::<24>(37).to_vec(), Version::A),
        ("b", "T", tdes::<16>(37).to_vec(), Version::B),
        ("c", "T", tdes::<24>(39).to_vec(), Version::C),
        ("d", "A", numbers::<32>().to_vec(), Version::D),
        ("e", "A", numbers::<16>().to_vec(), Version::E),
    ] {
        let kek = office.kek_of(name, algorithm, &kbpk).await.kek;
        assert_eq!(kek.kcv, Some(kcv(algorithm, &kbpk)));
        let block = wrap(&kbpk, &header(version, *b"P0", b'T', b'E', b'N'), &key);
        let new = import(name, &kek.id, block);
        let id = office.agreed(service.import_key(&office.ann, &new, None).await).await;
        let imported = done(service.import_key(&office.ann, &new, Some(&id)).await).key;
        assert_eq!((imported.state, imported.origin), (KeyState::Active, KeyOrigin::Imported));
        assert_eq!((&*imported.usage, &*imported.exportability), ("P0", "N"));
        assert_eq!((imported.kcv, imported.kek_id), (Some(kcv("T", &key)), Some(kek.id)));
        let injection = format!("inj_{name}");
        let sent = service.key_for_injection(&imported.id, &terminal, &injection).await.unwrap();
        assert!(sent.key.ct_eq(&key));
        assert_eq!((sent.header.version, sent.header.mode), (Version::B, b'E'));
        let subject = service.approval(&id).await.unwrap().approval.subject;
        assert!(subject.contains(&kcv("T", &key)), "approvers see the check value: {subject}");
        assert!(!subject.contains(&HEXUPPER.encode(&key)), "and not the key");
    }
}

#[tokio::test]
async fn what_tr31_refuses_is_refused_by_its_name_before_anybody_is_asked() {
    let office = Office::new().await;
    let service = &office.service;
    let kbpk: [u8; 16] = numbers();
    let kek = office.kek_of("zone", "A", &kbpk).await.kek;
    let tdes_kbpk: [u8; 16] = tdes(37);
    let tdes_kek = office.kek_of("old", "T", &tdes_kbpk).await.kek;
    let plain = header(Version::D, *b"K0", b'A', b'D', b'N');
    let key = numbers::<16>().map(|byte| byte ^ 0x5A);
    let good = wrap(&kbpk, &plain, &key);
    let with = |at: usize, with: &str| {
        let mut altered = good.clone();
        altered.replace_range(at..at + with.len(), with);
        altered
    };
    let last = good.len() - 1;
    let digit = if good.ends_with('0') { "1" } else { "0" };
    let unknown = {
        let mut header = plain.clone();
        header.optional.push(OptionalBlock::new(OptionalId(*b"ZZ"), "0123456789ABC"));
        wrap_so(&kbpk, &header, &key, Leniency::UNKNOWN_OPTIONAL_BLOCK)
    };
    let stronger = wrap_so(&kbpk, &plain, &numbers::<32>(), Leniency::WEAKER_WRAPPING_KEY);
    let parity = {
        let header = header(Version::D, *b"K0", b'T', b'D', b'N');
        wrap_so(&kbpk, &header, &tdes::<16>(51).map(|byte| byte ^ 1), Leniency::DES_PARITY)
    };
    let under_tdes = {
        let mut header = plain.clone();
        header.version = Version::B;
        wrap_so(&tdes_kbpk, &header, &key, Leniency::WEAKER_WRAPPING_KEY)
    };
    let hmac = {
        let mut header = header(Version::D, *b"M7", b'H', b'G', b'N');
        header.optional.push(OptionalBlock::new(OptionalId::HM, "21"));
        wrap(&kbpk, &header, &key)
    };
    let part = wrap(&kbpk, &Header { key_version: *b"c1", ..plain.clone() }, &key);
    let bdk = wrap(&kbpk, &header(Version::D, *b"B0", b'A', b'X', b'N'), &key);
    for (expected, kek, block) in [
        ("mac", &kek.id, wrap(&numbers::<16>().map(|byte| byte ^ 1), &plain, &key)),
        ("mac", &kek.id, with(11, "E")),
        ("mac", &kek.id, with(last, digit)),
        ("mac", &kek.id, with(60, if &good[60..61] == "0" { "1" } else { "0" })),
        ("block-length", &kek.id, with(1, "0128")),
        ("block-length", &kek.id, good[..last].to_owned()),
        ("hex", &kek.id, with(last, "g")),
        ("unknown-optional-block", &kek.id, unknown),
        ("wrapping-key-weaker", &kek.id, stronger),
        ("wrapping-key-weaker", &tdes_kek.id, under_tdes),
        ("des-parity", &kek.id, parity),
        (
            "kbpk-cipher",
            &kek.id,
            wrap(&tdes_kbpk, &header(Version::B, *b"K0", b'T', b'D', b'N'), &tdes::<16>(3)),
        ),
        ("key-algorithm", &kek.id, hmac),
        ("key-scope", &kek.id, bdk),
        ("key-component", &kek.id, part),
    ] {
        let refused = service.import_key(&office.ann, &import("k", kek, block), None).await;
        assert_eq!(check(refused), expected);
    }
    assert_eq!(service.keys(None, 10).await.unwrap().items, []);
    let asked = service.approvals(None, None, 10).await.unwrap().items;
    assert_eq!(asked.len(), 2, "those for the two key-encrypting keys");

    let lenient = |names: &[&str]| ImportKey {
        lenient: names.iter().map(|name| (*name).to_owned()).collect(),
        ..import("k", &kek.id, wrap_so(&kbpk, &plain, &key, Leniency::NO_LENGTH_OBFUSCATION))
    };
    let strict = service.import_key(&office.ann, &lenient(&[]), None).await;
    assert_eq!(check(strict), "length-obfuscation");
    for weakening in ["weaker-wrapping-key", "des-parity", "single-des", "unheard-of"] {
        let refused = service.import_key(&office.ann, &lenient(&[weakening]), None).await;
        assert_eq!(check(refused), "leniency", "{weakening}");
    }
    let new = lenient(&["no-length-obfuscation"]);
    let id = office.agreed(service.import_key(&office.ann, &new, None).await).await;
    done(service.import_key(&office.ann, &new, Some(&id)).await);

    let own = ImportKey { scope: KeyScope::PerTerminal, ..import("t", &kek.id, good.clone()) };
    assert_eq!(check(service.import_key(&office.ann, &own, None).await), "key-scope");
    let nowhere = import("n", "kek_none", good.clone());
    assert_eq!(check(service.import_key(&office.ann, &nowhere, None).await), "not-found");
    let id = office.agreed(service.retire_kek(&office.ann, &kek.id, None).await).await;
    done(service.retire_kek(&office.ann, &kek.id, Some(&id)).await);
    let retired = service.import_key(&office.ann, &import("r", &kek.id, good), None).await;
    assert_eq!(check(retired), "kek-not-active");
}

#[tokio::test]
async fn a_bdk_gives_the_published_initial_key() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let kbpk: [u8; 16] = numbers();
    let kek = office.kek_of("zone", "A", &kbpk).await.kek;
    // X9.24-1 annex A.4.
    let bdk = HEXUPPER.decode(b"0123456789ABCDEFFEDCBA9876543210").unwrap();
    let block = wrap(&kbpk, &header(Version::D, *b"B0", b'T', b'X', b'E'), &bdk);
    let base = HEXUPPER.decode(b"FFFF987654").unwrap();
    let ksn = Some(NewKsn { base, first: 0x19087, last: None });
    let new = ImportKey { scope: KeyScope::Dukpt, ksn, ..import("bdk", &kek.id, block) };
    let id = office.agreed(service.import_key(&office.ann, &new, None).await).await;
    let bdk = done(service.import_key(&office.ann, &new, Some(&id)).await).key;
    for _retry in 0..2 {
        let sent = service.key_for_injection(&bdk.id, &terminal, "inj_1").await.unwrap();
        let Some(Allotted::Tdes(ksn)) = sent.ksn else { panic!("a TDES key has TDES numbers") };
        assert_eq!(ksn.to_string(), "FFFF9876543210E00000");
        assert_eq!(HEXUPPER.encode(sent.key.expose()), "6AC292FAA1315B4D858AB3A3D7D5933A");
        assert_eq!((&sent.header.usage, sent.header.algorithm), (b"B1", b'T'));
        let block = sent.header.block(OptionalId::KS).unwrap();
        assert_eq!(block.data, b"FFFF9876543210E00000");
    }
}

#[tokio::test]
async fn keys_leave_under_a_kek_unless_they_must_not() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let kbpk: [u8; 16] = numbers();
    let kek = office.kek_of("zone", "A", &kbpk).await.kek;
    let made = async |name: &str, scope, export: &str, length| {
        let new = countersign_service::KeyToMake {
            exportability: export.to_owned(),
            length,
            ..new_key(name, scope)
        };
        office.key(&new).await.key
    };
    let how = ExportKey { kek_id: kek.id.clone(), version: None, injection_id: None };
    let key = made("zone", KeyScope::Shared, "E", 16).await;
    let id = office.agreed(service.export_key(&office.ann, &key.id, &how, None).await).await;
    let exported = done(service.export_key(&office.ann, &key.id, &how, Some(&id)).await);
    let kbpk = secret(&kbpk);
    let open = |block: &str| {
        tr31::unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), Leniency::NONE).unwrap()
    };
    let opened = open(&exported.block);
    assert_eq!((opened.header.version, &opened.header.usage), (Version::D, b"K0"));
    assert_eq!(
        (Some(&exported.kcv), key.kcv.as_ref()),
        (key.kcv.as_ref(), Some(&kcv("A", opened.key.expose())))
    );
    assert!(opened.header.block(OptionalId::LB).is_none(), "our rows are nobody's business");
    let twice = service.export_key(&office.ann, &key.id, &how, Some(&id)).await;
    assert_eq!(check(twice), "approval-used");

    let fixed = made("fixed", KeyScope::Shared, "N", 16).await;
    let refused = service.export_key(&office.ann, &fixed.id, &how, None).await;
    assert_eq!(check(refused), "key-not-exportable");
    let strong = made("strong", KeyScope::Shared, "E", 32).await;
    let refused = service.export_key(&office.ann, &strong.id, &how, None).await;
    assert_eq!(check(refused), "wrapping-key-weaker");
    for version in ["B", "X", "DD", ""] {
        let how = ExportKey { version: Some(version.to_owned()), ..how.clone() };
        let refused = service.export_key(&office.ann, &key.id, &how, None).await;
        assert_eq!(check(refused), "export-version", "{version}");
    }
    let tmk = made("tmk", KeyScope::PerTerminal, "E", 16).await;
    let refused = service.export_key(&office.ann, &tmk.id, &how, None).await;
    assert_eq!(check(refused), "injection-needed");
    let sent = service.key_for_injection(&tmk.id, &terminal, "inj_1").await.unwrap();
    let of = |id: &str| ExportKey { injection_id: Some(id.to_owned()), ..how.clone() };
    let refused = service.export_key(&office.ann, &key.id, &of("inj_1"), None).await;
    assert_eq!(check(refused), "not-found", "the injection is of another key");
    let how = ExportKey { version: Some("E".to_owned()), ..of("inj_1") };
    let id = office.agreed(service.export_key(&office.ann, &tmk.id, &how, None).await).await;
    let exported = done(service.export_key(&office.ann, &tmk.id, &how, Some(&id)).await);
    assert!(open(&exported.block).key.ct_eq(sent.key.expose()));
    let id = office.agreed(service.retire_key(&office.ann, &key.id, None).await).await;
    done(service.retire_key(&office.ann, &key.id, Some(&id)).await);
    let how = ExportKey { kek_id: kek.id, version: None, injection_id: None };
    let retired = service.export_key(&office.ann, &key.id, &how, None).await;
    assert_eq!(check(retired), "key-not-active");
}

#[tokio::test]
async fn a_kek_that_is_retired_meanwhile_opens_and_protects_nothing_more() {
    let office = Office::new().await;
    let service = &office.service;
    let kbpk = numbers::<16>();
    let at = service.now();
    for name in ["import", "export"] {
        let kek = office.kek_of(name, "A", &kbpk).await.kek;
        let block = wrap(&kbpk, &header(Version::D, *b"K0", b'A', b'D', b'E'), &[0x3C; 16]);
        let new = import(name, &kek.id, block);
        let id = office.agreed(service.import_key(&office.ann, &new, None).await).await;
        let retired = kek.id.clone();
        let retire = move |tx: &mut countersign_store::Tx<'_>| tx.retire_kek(&retired, at);
        if name == "import" {
            office.meanwhile(retire);
            let refused = service.import_key(&office.ann, &new, Some(&id)).await;
            assert_eq!(check(refused), "kek-not-active");
            assert_eq!(service.keys(None, 10).await.unwrap().items, []);
            continue;
        }
        let key = done(service.import_key(&office.ann, &new, Some(&id)).await).key;
        let how = ExportKey { kek_id: kek.id.clone(), version: None, injection_id: None };
        let asked = service.export_key(&office.ann, &key.id, &how, None).await;
        let id = office.agreed(asked).await;
        office.meanwhile(retire);
        let refused = service.export_key(&office.ann, &key.id, &how, Some(&id)).await;
        assert_eq!(check(refused), "kek-not-active");
    }
}

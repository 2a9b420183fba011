//! The seed corpus: short scripts and real protocol bytes, from which mutations start.

use countersign_idcard::message::{
    AbortReason, CardAnswer, Missing, Plaintext, ReadBegin, ReaderMessage, Refused, ServerMessage,
    Source,
};
use countersign_idcard::record::{
    Citizen, Date, Foreigner2017, Foreigner2023, IdRecord, Nation, ResidencePermit, Sex,
    ValidUntil, id_check_digit,
};
use countersign_idcard::sam::remote::{
    FromHost, ModuleHealth, ModuleState, NoLease, RemoteText, ToHost,
};
use countersign_idcard::sam::{Command, Response, SamError, SamOperation, SamResult, Status, Sw3};
use countersign_idcard::{Configuration, ShortText};

mod flows;
mod hierarchy;
mod injection;
mod joint;
mod joint_card;
mod payment;
mod smartcard;
mod tokens;
mod wallet;

use flows::{reader_flow, server_flow};
use hierarchy::hierarchy;
use tokens::tokens;

use crate::idcard::{encrypted, plain};
use crate::pki::trees;
use crate::tr31::genuine;

/// A file of the corpus: its name and its bytes.
pub type Seed = (String, Vec<u8>);

/// Most bytes of a seed.
pub const SEED_MAX: usize = 4096;
/// Most seeds of a target.
pub const SEEDS_MAX: usize = 20;

/// The seeds of `target`; none for an unknown one.
#[must_use]
pub fn seeds(target: &str) -> Vec<Seed> {
    let seeds: Vec<(&str, Vec<u8>)> = match target {
        "alert" => alert(),
        "apdu" => smartcard::apdu(),
        "card" => card(),
        "certificate" => certificate(),
        "certificate_edits" => certificate_edits(),
        "device_card" => smartcard::device_card(),
        "evidence" => payment::evidence(),
        "handshake" => handshake(),
        "hierarchy" => hierarchy(),
        "injection" => injection::injection(),
        "joint_commitment" => joint::joint_commitment(),
        "joint_card" => joint_card::joint_card(),
        "key_block" => key_block(),
        "manager_channel" | "sleeve_channel" => wallet::side(),
        "messages" => messages(),
        "offline_request" => smartcard::offline_request(),
        "payment" => payment::payment(),
        "reader_channel" | "server_channel" => side(),
        "reader_flow" => reader_flow(),
        "record" => record(),
        "records" => records(),
        "relay_messages" => wallet::relay_messages(),
        "request" => request(),
        "sam_frames" => sam_frames(),
        "sam_host" => sam_host(),
        "sam_remote" => sam_remote(),
        "server_flow" => server_flow(),
        "tokens" => tokens(),
        "wallet_messages" => wallet::wallet_messages(),
        "wallet_policy" => wallet::wallet_policy(),
        "wallet_rules" => wallet::wallet_rules(),
        _ => Vec::new(),
    };
    seeds.into_iter().map(|(name, bytes)| (format!("seed-{name}"), bytes)).collect()
}

type Named = Vec<(&'static str, Vec<u8>)>;

fn sam_remote() -> Named {
    let text = |text| RemoteText::new(text).expect("short");
    let begin = SamOperation::Begin { configuration: Configuration::new([1; 32]) };
    let answer = SamOperation::Answer { answer: [2; 8], random: [3; 8] };
    let module = ModuleHealth {
        sam_id: text("05.03-20260101-0000000001-0000000001"),
        port: text("/dev/ttyUSB0"),
        state: ModuleState::Ready,
        failures: 1,
    };
    let plaintext = SamResult::Plaintext { data: plain(0x20, None), card_checked: true };
    let error = SamError::Card { during: "find", status: Sw3::NoCard };
    let to = |message: ToHost| message.encode().to_vec();
    let from = |message: FromHost| message.encode().to_vec();
    vec![
        ("hello", to(ToHost::Hello(vec![1, 2]))),
        ("lease", to(ToHost::Lease(std::time::Duration::from_millis(250)))),
        ("begin", to(ToHost::Operate(begin))),
        ("answer", to(ToHost::Operate(answer))),
        ("decrypt", to(ToHost::Operate(SamOperation::Decrypt(encrypted(4, false))))),
        ("release", to(ToHost::Release)),
        ("ping", to(ToHost::Ping(1))),
        ("drained", to(ToHost::Drained(vec![module.sam_id.clone()]))),
        ("greeting", from(FromHost::Hello { version: 1, host: text("H-1"), modules: 2 })),
        ("leased", from(FromHost::Leased(module.sam_id.clone()))),
        ("busy", from(FromHost::Unavailable(NoLease::Busy))),
        ("challenge", from(FromHost::Done(SamResult::Challenge([5; 8])))),
        ("plaintext", from(FromHost::Done(plaintext))),
        ("failed", from(FromHost::Failed(error))),
        ("pong", from(FromHost::Pong { number: 1, modules: vec![module] })),
    ]
}

fn key_block() -> Named {
    const NAMES: [&str; 10] = [
        "a",
        "a-optional",
        "b",
        "b-optional",
        "c",
        "c-optional",
        "d",
        "d-optional",
        "e",
        "e-optional",
    ];
    let sample = "D0112P0AE00E0000B82679114F470F540165EDFBF7E250FCEA43F810D215F8D207E2E417C07156A2\
                  7E8E31DA05F7425509593D03A457DC34";
    let mut seeds: Named = NAMES
        .into_iter()
        .zip(genuine())
        .map(|(name, block)| (name, block.clone().into()))
        .collect();
    seeds.push(("another-key", sample.into()));
    seeds
}

fn card() -> Named {
    let late = |at: usize, kind: u8| {
        let mut script = vec![0; 2 * at + 12];
        script[0] = 3;
        script.push(kind);
        script
    };
    vec![
        ("configuration", vec![0]),
        ("authentication", vec![1, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("files", vec![2]),
        ("files-and-fingerprint", vec![3]),
        ("no-fingerprint", late(18, 0xF0)),
        ("removed", late(5, 0xF8)),
        ("too-long", late(7, 0xFF)),
    ]
}

fn certificate() -> Named {
    let [tree, sm2] = trees();
    let [readers, servers] = &tree.branches;
    let leaf = &readers.issues[0].certificate;
    let [signing, encryption] = sm2.branches[0].issues.as_slice() else {
        unreachable!("SM2 has both usages");
    };
    vec![
        ("reader", leaf.clone()),
        ("server", servers.issues[0].certificate.clone()),
        ("readers-ca", readers.certificate.clone()),
        ("root", tree.root.clone()),
        ("request", readers.issues[0].request.clone()),
        ("truncated", leaf[..leaf.len() / 2].to_vec()),
        ("sm2-reader", signing.certificate.clone()),
        ("sm2-encryption", encryption.certificate.clone()),
        ("sm2-servers-ca", sm2.branches[1].certificate.clone()),
    ]
}

fn certificate_edits() -> Named {
    // Which certificate: bit 0 SM2, bit 1 the server's, bit 2 for encryption, bit 3 the CA's.
    let [readers, servers] = &trees()[0].branches;
    let (reader, server) = (&readers.issues[0].certificate, &servers.issues[0].certificate);
    let place = |bytes: &[u8], word: &[u8]| {
        // Scripts edit the signed part, which begins behind a header of four bytes.
        let at = bytes.windows(word.len()).position(|window| window == word).expect("a word of it");
        u16::try_from(at - 4).expect("certificates are short").to_be_bytes()
    };
    let [high, low] = place(reader, b"reader/RD-1");
    let mut to_server = vec![0x00, 0x01];
    for (at, byte) in (0..).zip(*b"server") {
        to_server.extend([0, high, low + at, byte]);
    }
    let [high, low] = place(server, b"srv-1");
    let tbs = reader[4..reader.len() - 80].to_vec();
    vec![
        ("reader", vec![0x00, 0x00]),
        ("sm2-server", vec![0x03, 0x00]),
        ("ca", vec![0x08, 0x00]),
        ("reader-flipped", vec![0x00, 0x00, 1, 0, 0x50, 3]),
        ("server-truncated", vec![0x02, 0x00, 4, 1, 0, 0]),
        ("reader-signed", vec![0x00, 0x01]),
        ("sm2-server-signed", vec![0x03, 0x01]),
        ("sm2-encryption-signed", vec![0x05, 0x01]),
        ("reader-by-root", vec![0x00, 0x11]),
        ("reader-by-itself", vec![0x00, 0x21]),
        ("reader-by-servers", vec![0x00, 0x31]),
        ("server-by-readers", vec![0x02, 0x31]),
        ("reader-renamed-server", to_server),
        ("server-renamed", vec![0x02, 0x01, 0, high, low, b'S']),
        ("ca-signed", vec![0x08, 0x11]),
        ("raw-signed", [vec![0x00, 0x03], tbs].concat()),
    ]
}

fn request() -> Named {
    let [tree, sm2] = trees();
    let raw = |which: u8, der: &[u8]| [&[which, 0x02], der].concat();
    let [readers, servers] = &tree.branches;
    vec![
        ("reader", raw(0, &readers.issues[0].request)),
        ("server", raw(2, &servers.issues[0].request)),
        ("sm2-encryption", raw(1, &sm2.branches[0].issues[1].request)),
        ("unaltered", vec![0x00, 0x00]),
        ("flipped", vec![0x01, 0x00, 1, 0, 0x20, 1]),
        ("signed", vec![0x00, 0x01]),
        ("sm2-signed", vec![0x05, 0x01]),
        ("altered-and-signed", vec![0x02, 0x01, 1, 0, 0x40, 1]),
        ("certificate", raw(0, &readers.issues[0].certificate)),
    ]
}

fn record() -> Named {
    let date = |year, month, day| Date::new(year, month, day).expect("a real date");
    let numbered = |digits: &str| format!("{digits}{}", id_check_digit(digits).expect("17 digits"));
    let (birth, from, until) = (date(1949, 12, 31), date(2020, 2, 29), date(2030, 2, 28));
    let records = [
        (
            "citizen",
            IdRecord::Citizen(Citizen {
                name: "样本甲".into(),
                sex: Sex::Male,
                nation: Nation::from_code(56).expect("known"),
                birth,
                address: "虚构省样本市不存在路1号".into(),
                id_number: "11010519491231002X".into(),
                issuer: "虚构市公安局".into(),
                valid_from: from,
                valid_until: ValidUntil::LongTerm,
            }),
        ),
        (
            "permit",
            IdRecord::ResidencePermit(ResidencePermit {
                name: "样本乙".into(),
                sex: Sex::Unstated,
                birth,
                address: "虚构省样本市不存在路2号".into(),
                id_number: numbered("83000019491231002"),
                issuer: "虚构市公安局".into(),
                valid_from: from,
                valid_until: ValidUntil::Date(until),
                pass_number: "00000000".into(),
                issue_count: 99,
            }),
        ),
        (
            "foreigner-2017",
            IdRecord::Foreigner2017(Foreigner2017 {
                english_name: "SAMPLE, PERSON".into(),
                sex: Sex::Female,
                number: "UTO000000000001".into(),
                country: "UTO".into(),
                chinese_name: String::new(),
                valid_from: from,
                valid_until: until,
                birth,
                version: "01".into(),
                authority: "1500".into(),
            }),
        ),
        (
            "foreigner-2023",
            IdRecord::Foreigner2023(Foreigner2023 {
                chinese_name: String::new(),
                // A space stands at the cut after 35 characters.
                english_name: format!("{} {}", "B".repeat(34), "C".repeat(11)),
                sex: Sex::Unknown,
                renewal_count: 0,
                birth,
                id_number: numbered("90000019491231002"),
                country: "UTO".into(),
                valid_from: from,
                valid_until: until,
                old_number_link: "001".into(),
            }),
        ),
    ];
    let bytes = |record: IdRecord| record.encode().expect("a valid record").to_vec();
    records.into_iter().map(|(name, record)| (name, bytes(record))).collect()
}

fn messages() -> Named {
    let text = |text| ShortText::new(text).expect("short");
    let begin = ReaderMessage::ReadBegin(ReadBegin {
        read_id: [1; 16],
        configuration: Configuration::new([2; 32]),
        source: Source::Card,
    });
    let answer = ReaderMessage::CardAnswer(CardAnswer { answer: [3; 8], random: [4; 8] });
    let packet = |at| ReaderMessage::Packet(encrypted(5, false).packets().swap_remove(at));
    let plaintext = |fingerprint| {
        let data = plain(0x20, fingerprint);
        ServerMessage::Plaintext(Plaintext { data, cache_plaintext: true })
    };
    let check = ShortText::new("sam-timeout").expect("short");
    let refused = ServerMessage::Refused(Refused::new(check, true, text("inc_1")));
    let part = encrypted(6, false).packets().swap_remove(1);
    vec![
        ("read-begin", begin.encode().to_vec()),
        ("card-answer", answer.encode().to_vec()),
        ("packet", packet(0).encode().to_vec()),
        ("last-packet", packet(1).encode().to_vec()),
        ("abort", ReaderMessage::Abort(AbortReason::CardRemoved).encode().to_vec()),
        ("card-challenge", ServerMessage::CardChallenge([1; 8]).encode().to_vec()),
        ("sam-proof", ServerMessage::SamProof([2; 8]).encode().to_vec()),
        ("send-packets", ServerMessage::SendPackets.encode().to_vec()),
        ("plaintext", plaintext(None).encode().to_vec()),
        ("plaintext-and-fingerprint", plaintext(Some(512)).encode().to_vec()),
        ("refused", refused.encode().to_vec()),
        ("resend-result", ReaderMessage::ResendResult(Missing::ALL).encode().to_vec()),
        ("received", ReaderMessage::Received.encode().to_vec()),
        ("resend", ServerMessage::Resend(Missing::ALL).encode().to_vec()),
        ("result-part", ServerMessage::ResultPart(part).encode().to_vec()),
    ]
}

fn sam_frames() -> Named {
    let commands = [
        Command::Reset,
        Command::SamId,
        Command::Find,
        Command::ReadTextPhoto,
        Command::RemoteCard(Configuration::new([1; 32])),
        Command::CardAnswer { answer: [1; 8], random: [2; 8] },
    ];
    let answer = |status: Sw3, data: &[u8]| {
        Response::frame(Status::from(status), data).expect("answers fit").to_vec()
    };
    let in_pieces = |piece: u8, bytes: &[u8]| [&[piece], bytes].concat();
    let all: Vec<u8> = commands.iter().flat_map(|c| c.to_frame().to_vec()).collect();
    let long = answer(Sw3::Ok, &plain(0x20, Some(1024)).to_sam(true));
    let chunk = Command::EncryptedData { index: 0, total: 2, chunk: vec![7; 1024].into() };
    let mut damaged = answer(Sw3::Ok, &[9; 8]);
    damaged[9] ^= 1;
    let after_garbage = [&[0xAA; 9][..], &[0x96, 0x69, 0xFF], &answer(Sw3::NoCard, &[])].concat();
    vec![
        ("commands", in_pieces(1, &all)),
        ("chunk", in_pieces(255, &chunk.to_frame())),
        ("found", in_pieces(3, &answer(Sw3::CardFound, &[0; 4]))),
        ("id", in_pieces(8, &answer(Sw3::Ok, &[1; 16]))),
        ("plaintext", in_pieces(64, &answer(Sw3::Ok, &plain(0x20, None).to_sam(false)))),
        ("fingerprint", in_pieces(255, &long)),
        ("cut-and-whole", in_pieces(16, &[&long[..40], &answer(Sw3::Ok, &[])].concat())),
        ("damaged", in_pieces(5, &[damaged, answer(Sw3::Ok, &[9; 8])].concat())),
        ("after-garbage", in_pieces(2, &after_garbage)),
        ("endless", in_pieces(255, &[&[0xAA, 0xAA, 0xAA, 0x96, 0x69][..], &[0xFF; 3000]].concat())),
    ]
}

fn sam_host() -> Named {
    const GOOD: [u8; 4] = [10, 7, 0xFF, 0xFF];
    let begin = [vec![1, 5], GOOD.repeat(3)].concat();
    let answer = [vec![3], vec![7; 16], GOOD.to_vec()].concat();
    // The chunks, the read, the card's number.
    let decrypt = |kind, chunks: usize| [vec![kind, 2], GOOD.repeat(chunks + 2)].concat();
    let read = [&begin[..], &answer, &decrypt(4, 2)].concat();
    let damaged = [10, 1, 1, 0, 9, 0, 0xFF, 0xFF];
    let status = |byte: u8| vec![10, 3, byte, 0, 0xFF, 0xFF];
    let bridge = |outcome: &[u8]| [&[7], outcome].concat();
    let with = |settings: u8, steps: &[&[u8]]| [&[settings], &steps.concat()[..]].concat();
    let (challenge, proof) = (bridge(&[0; 9]), bridge(&[1, 0, 0, 0, 0, 0, 0, 0, 0]));
    vec![
        ("read", with(0, &[&read])),
        ("read-twice", with(0, &[&read, &begin, &decrypt(5, 3)])),
        ("start-by-script", with(8, &[&[0], &GOOD.repeat(3)])),
        ("cancel-open", with(0, &[&[1, 5], &[6], &GOOD.repeat(2), &begin])),
        ("cancel-selected", with(0, &[&begin, &[6], &GOOD])),
        ("damaged", with(6, &[&[1, 5], &damaged, &damaged, &GOOD.repeat(3)])),
        ("read-damaged", with(6, &[&begin, &[4, 2], &GOOD.repeat(2), &damaged, &GOOD.repeat(6)])),
        ("always-damaged", with(2, &[&[1, 5], &damaged.repeat(20)])),
        ("other-card", with(0, &[&begin, &[4, 2], &GOOD.repeat(3), &[10, 4, 9, 0xFF, 0xFF]])),
        ("card-unchecked", with(0, &[&begin, &[4, 2], &GOOD.repeat(3), &status(0x24), &begin])),
        (
            "card-check-required",
            with(0x10, &[&begin, &[4, 2], &GOOD.repeat(3), &status(0x91), &GOOD]),
        ),
        ("card-refused", with(0, &[&[1, 5], &GOOD, &status(0x80), &GOOD])),
        ("module-failed", with(0, &[&[1, 5], &status(0x66)])),
        ("late", with(0, &[&[1, 5], &[8, 0xFF, 0xFF]])),
        ("gone", with(0, &[&begin, &[9, 0]])),
        (
            "bridge",
            with(
                1,
                &[
                    &[1, 5],
                    &challenge,
                    &GOOD.repeat(2),
                    &[3],
                    &[7; 16],
                    &proof,
                    &[4, 2],
                    &[7, 2],
                    &GOOD,
                ],
            ),
        ),
        ("bridge-refused", with(1, &[&[1, 5], &[7, 3], &GOOD])),
    ]
}

// The channel's scripts begin with a setting: bit 0 C2, bit 1 SM2, bit 2 datagrams, bit 3 sealed to
// certificates, bit 4 both suites; then the protection, bit 7 all protections. A step's upper two
// bits name the party: 0 the reader, 1 (0x40) the server.
const FROM_READER: u8 = 0x00;
const FROM_SERVER: u8 = 0x40;
const HONEST: [u8; 5] = [FROM_READER, FROM_SERVER, FROM_READER, FROM_SERVER, FROM_READER];

fn say(from: u8, text: &[u8]) -> Vec<u8> {
    [&[from | 18, u8::try_from(text.len()).expect("short")], text].concat()
}

fn script(setting: [u8; 2], steps: &[&[u8]]) -> Vec<u8> {
    [&setting[..], &steps.concat()].concat()
}

fn handshake() -> Named {
    let flip = |from: u8, at: u16| [&[from | 9, 1][..], &at.to_be_bytes(), &[3]].concat();
    let (early, late) = (&HONEST[..2], &HONEST[2..]);
    // M2 of the first pair to the server of the second one, then once more to its own.
    let stolen = [FROM_READER | 12, 3, FROM_SERVER | 13, 0, 1];
    vec![
        ("c1", script([0x00, 0], &[&HONEST, &say(FROM_READER, b"a"), &[FROM_READER]])),
        ("c2", script([0x01, 0], &[&HONEST, &say(FROM_SERVER, b"a"), &[FROM_SERVER]])),
        ("c1-sm2-sealed", script([0x0A, 0], &[&HONEST])),
        ("c2-sm2-sealed", script([0x0B, 0], &[&HONEST])),
        ("c2-datagrams", script([0x05, 0], &[&HONEST])),
        ("all-offers", script([0x10, 0x80], &[&HONEST])),
        // M0: header, then with a length before each: version, two suites, three policies.
        ("weaker-policy-asked", script([0x10, 0x80], &[&[9, 0, 0, 17, 2], &HONEST])),
        ("other-suite-asked", script([0x10, 0x80], &[&[9, 0, 0, 13, 2], &HONEST])),
        ("altered-challenge", script([0x00, 0], &[&early[..1], &flip(FROM_SERVER, 40), &HONEST])),
        ("altered-proof", script([0x01, 0], &[early, &flip(FROM_READER, 200), late])),
        ("altered-answer", script([0x00, 0], &[&HONEST[..3], &flip(FROM_SERVER, 90), &HONEST])),
        ("reflected", script([0x00, 0], &[&[FROM_READER | 11], &HONEST])),
        ("replayed", script([0x00, 0], &[&HONEST, &[FROM_SERVER | 13, 0, 1]])),
        ("two-pairs", script([0x00, 0], &[early, &[26], &stolen, late])),
        ("lost-and-repeated", script([0x04, 0], &[&[6], &[17, 0, 60], &HONEST, &HONEST])),
        ("doubled", script([0x05, 0], &[&[7], &HONEST, &[FROM_READER], &HONEST])),
        ("cut", script([0x00, 0], &[&[16, 0, 5], &[FROM_READER], &HONEST])),
        ("blocked", script([0x00, 0], &[&[24, 2], &HONEST])),
        ("slow-directory", script([0x00, 0], &[&[24, 4], &HONEST[..3], &[24, 5, 0x40 | 25], late])),
        ("late", script([0x01, 0], &[early, &[17 | 0x20, 0, 11], late])),
    ]
}

fn records() -> Named {
    let talk = [say(FROM_READER, b"one"), say(FROM_READER, b"two"), say(FROM_SERVER, b"three")];
    let talk = talk.concat();
    let pass = [FROM_READER, FROM_READER, FROM_SERVER];
    let flipped = [FROM_READER | 9, 1, 0, 12, 3];
    let (close, rekey) = ([FROM_READER | 20], [FROM_READER | 21]);
    let sleep = [FROM_READER | 22, 0x10, FROM_SERVER | 22, 0x12];
    vec![
        ("talk", script([0x00, 0], &[&talk, &pass])),
        ("mac", script([0x01, 1], &[&talk, &pass])),
        ("encrypt", script([0x00, 2], &[&talk, &pass])),
        ("sm2", script([0x02, 0], &[&talk, &pass])),
        ("datagrams", script([0x04, 0], &[&talk, &pass])),
        ("datagrams-mac", script([0x05, 1], &[&talk, &pass])),
        ("flipped", script([0x00, 0], &[&talk, &flipped, &pass])),
        ("datagram-flipped", script([0x04, 0], &[&talk, &flipped, &pass])),
        ("dropped", script([0x00, 0], &[&talk, &[6], &pass])),
        ("datagram-dropped", script([0x04, 0], &[&talk, &[6], &pass])),
        ("doubled", script([0x00, 0], &[&talk, &[7], &pass, &pass])),
        ("datagram-doubled", script([0x04, 0], &[&talk, &[7], &pass, &pass])),
        ("swapped", script([0x00, 0], &[&talk, &[8], &pass])),
        ("datagram-swapped", script([0x04, 0], &[&talk, &[8], &pass])),
        ("rekeyed", script([0x00, 0], &[&rekey, &talk, &pass, &pass])),
        ("datagram-rekeyed", script([0x04, 0], &[&talk, &rekey, &talk, &[8], &pass, &pass])),
        ("closed", script([0x00, 0], &[&talk, &close, &pass, &pass, &[FROM_SERVER | 23]])),
        ("cut-off", script([0x00, 0], &[&talk, &[FROM_SERVER | 23]])),
        ("asleep", script([0x00, 0], &[&sleep, &[17 | 0x20, 0, 4], &pass, &pass])),
        ("silent", script([0x04, 0], &[&sleep, &[17 | 0x20, 0, 40]])),
    ]
}

/// For either side: its states in turn, with the awaited message altered or not.
fn side() -> Named {
    // setting, turns before, how (bit 0: the awaited message; then the length of a piece), edits.
    let flip =
        |turn: u8, at: u16| [&[0x00, 0x00, turn, 1, 1][..], &at.to_be_bytes(), &[3]].concat();
    vec![
        ("m0", vec![0x00, 0, 0, 1]),
        ("m1", vec![0x00, 0, 1, 1]),
        ("m2", vec![0x01, 0, 2, 1]),
        ("m3", vec![0x01, 0, 3, 1]),
        ("m4", vec![0x02, 0, 4, 1]),
        ("to-server", vec![0x03, 1, 6, 1]),
        ("to-reader", vec![0x00, 0, 5, 1]),
        ("m2-datagram", vec![0x05, 0, 2, 1]),
        ("m3-datagram", vec![0x04, 0, 3, 1]),
        ("m2-in-pieces", vec![0x00, 0, 2, 0x41]),
        ("m3-in-pieces", vec![0x01, 0, 3, 0x23]),
        ("m0-flipped", flip(0, 14)),
        ("m1-flipped", flip(1, 16)),
        ("m2-flipped", flip(2, 160)),
        ("m3-flipped", flip(3, 20)),
        ("m2-longer", vec![0x00, 0, 2, 1, 6, 0, 0, 4, 1, 2, 3, 4]),
        ("raw-alert", [&[0x00, 0, 1, 0][..], b"CS\x01\x01\x0f\0\0\x03\0\x01\0"].concat()),
        ("raw-noise", [&[0x00, 0, 0, 0][..], b"GET / HTTP/1.1\r\n"].concat()),
        ("raw-long", [&[0x00, 0, 1, 0][..], b"CS\x01\x01\x02\xff\xff\xff"].concat()),
    ]
}

fn alert() -> Named {
    vec![
        ("busy", [&[0, 0, 0, 0, 15][..], &[5], b"inc-1"].concat()),
        ("unknown-code", vec![0, 0, 0, 0xFF, 0xFF, 0]),
        ("trailing", vec![1, 0, 0, 0, 1, 0, 9]),
        ("unprintable", vec![0, 0, 0, 0, 1, 1, 7]),
        ("datagram", vec![4, 0, 0, 0, 13, 0]),
        ("told", [&[0, 0, 1][..], b"inc-2"].concat()),
        ("told-long", [&[0, 0, 3][..], "é".repeat(40).as_bytes()].concat()),
        ("told-nobody", vec![0, 0, 7, b'x']),
    ]
}

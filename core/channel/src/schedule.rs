//! The key schedule: HKDF, one key per purpose, sender, mode and policy.

use alloc::boxed::Box;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AeadKey, CryptoError, Digest, HASH_LEN, Provider, Secret,
};

use crate::record::Direction;
use crate::transcript::{CONTEXT, Role, Transcript};
use crate::{Error, Mode, Policy};

/// Derives `len` bytes under `label`, for whom they are, bound to mode and transcript.
fn expand(
    provider: &Provider,
    prk: &Secret,
    transcript: &Transcript,
    (label, role): (&[u8], Option<Role>),
    len: usize,
) -> Result<Secret, Error> {
    let label_len = [u8::try_from(label.len()).expect("labels are short literals")];
    let role = [role.map_or(0, |role| role as u8)];
    let mode = [transcript.mode() as u8];
    let info: [&[u8]; 6] = [CONTEXT, &mode, &label_len, label, &role, transcript.hash()];
    provider.kdf.expand(prk, &info, len).map_err(Error::Local)
}

/// The key that seals one contribution to a share that its owner has signed: the channel's
/// realisation of the patents' `E_reader(R3)` (C1) and `E_server(R2)` (C2). Used once.
pub(crate) fn sealing_key(
    provider: &Provider,
    transcript: &Transcript,
    shared: &Secret,
    label: &[u8],
) -> Result<Box<dyn AeadKey>, Error> {
    let prk = provider.kdf.extract(transcript.hash(), shared.expose());
    let key = expand(provider, &prk, transcript, (label, None), AEAD_KEY_LEN)?;
    provider.aead.key(&key).map_err(Error::Local)
}

/// `R3 = f(R1, R2)` (S106 of the patent).
pub(crate) fn r3(provider: &Provider, r1: &[u8], r2: &Secret) -> Result<Secret, Error> {
    let prk = provider.kdf.extract(r1, r2.expose());
    provider.kdf.expand(&prk, &[CONTEXT, b" R3"], HASH_LEN).map_err(Error::Local)
}

/// What a paired sleeve proves that it knows the binding factor with: a MAC over the transcript
/// under a key of its own. The factor itself never travels (G13).
pub(crate) fn binder(
    provider: &Provider,
    transcript: &Transcript,
    factor: &Secret,
) -> Result<Digest, Error> {
    let key = binder_key(provider, transcript, factor)?;
    Ok(provider.mac.mac(key.expose(), &binder_input(transcript)))
}

/// Compares in constant time.
pub(crate) fn verify_binder(
    provider: &Provider,
    transcript: &Transcript,
    factor: &Secret,
    binder: &[u8],
) -> Result<(), Error> {
    let key = binder_key(provider, transcript, factor)?;
    provider
        .mac
        .verify(key.expose(), &binder_input(transcript), binder)
        .map_err(|_| Error::Authentication("binder"))
}

fn binder_key(
    provider: &Provider,
    transcript: &Transcript,
    factor: &Secret,
) -> Result<Secret, Error> {
    let prk = provider.kdf.extract(transcript.hash(), factor.expose());
    expand(provider, &prk, transcript, (b"binder", Some(Role::Sleeve)), HASH_LEN)
}

fn binder_input(transcript: &Transcript) -> [&[u8]; 4] {
    const SLEEVE: [u8; 1] = [Role::Sleeve as u8];
    [CONTEXT, b" binder", &SLEEVE, transcript.hash()]
}

/// Key and IV of one generation of record keys; a MAC-only policy uses all of it as its key.
pub(crate) fn record_key(provider: &Provider, traffic: &Secret) -> Result<Secret, Error> {
    let info: [&[u8]; 2] = [CONTEXT, b" record key"];
    provider.kdf.expand(traffic, &info, RECORD_KEY_LEN).map_err(Error::Local)
}

/// Long enough for an AEAD's key and IV, and for HMAC.
const RECORD_KEY_LEN: usize = HASH_LEN;
const _: () = assert!(RECORD_KEY_LEN >= AEAD_KEY_LEN + AEAD_NONCE_LEN);

/// The secret of the next generation; there is no way back.
pub(crate) fn next_traffic_secret(provider: &Provider, traffic: &Secret) -> Result<Secret, Error> {
    let info: [&[u8]; 2] = [CONTEXT, b" next traffic secret"];
    provider.kdf.expand(traffic, &info, HASH_LEN).map_err(Error::Local)
}

/// The keys of what one party sends.
struct PartyKeys {
    role: Role,
    finished: Secret,
    traffic: Secret,
}

/// All keys of one session; the two parties derive the same.
pub(crate) struct SessionKeys {
    parties: [PartyKeys; 2],
    exporter: Secret,
    /// A1: what the pair will know each other by.
    binding: Option<Secret>,
}

impl SessionKeys {
    /// From `contribution ‖ ECDH` and the transcript through the last signature. The contribution
    /// has a length that is fixed by the mode, so the concatenation is unambiguous.
    pub(crate) fn derive(
        provider: &Provider,
        transcript: &Transcript,
        contribution: &Secret,
        shared: &Secret,
    ) -> Result<Self, Error> {
        let at = contribution.len();
        let input = Secret::try_filled(at + shared.len(), |out| {
            let (first, second) = out.split_at_mut(at);
            first.copy_from_slice(contribution.expose());
            second.copy_from_slice(shared.expose());
            Ok::<_, CryptoError>(())
        })
        .map_err(Error::Local)?;
        let prk = provider.kdf.extract(transcript.hash(), input.expose());
        let key = |label, role| expand(provider, &prk, transcript, (label, role), HASH_LEN);
        let party = |role| -> Result<PartyKeys, Error> {
            Ok(PartyKeys {
                role,
                finished: key(b"finished", Some(role))?,
                traffic: key(b"traffic", Some(role))?,
            })
        };
        let [initiator, responder] = Role::of(transcript.mode());
        let pairs = transcript.mode() == Mode::A1;
        Ok(Self {
            parties: [party(initiator)?, party(responder)?],
            exporter: key(b"exporter", None)?,
            binding: pairs.then(|| key(b"binding factor", None)).transpose()?,
        })
    }

    /// A1: takes the binding factor, once.
    pub(crate) fn take_binding_factor(&mut self) -> Result<Secret, Error> {
        self.binding.take().ok_or(Error::Misuse("only pairing makes a binding factor"))
    }

    fn finished_key(&self, role: Role) -> &[u8] {
        let [initiator, responder] = &self.parties;
        let party = if initiator.role == role { initiator } else { responder };
        party.finished.expose()
    }

    /// `Fin`: key confirmation by `role`.
    pub(crate) fn finished(
        &self,
        provider: &Provider,
        role: Role,
        transcript: &Transcript,
    ) -> Digest {
        let parts: [&[u8]; 4] = [CONTEXT, b" finished", &[role as u8], transcript.hash()];
        provider.mac.mac(self.finished_key(role), &parts)
    }

    pub(crate) fn verify_finished(
        &self,
        provider: &Provider,
        role: Role,
        transcript: &Transcript,
        tag: &[u8],
    ) -> Result<(), Error> {
        let parts: [&[u8]; 4] = [CONTEXT, b" finished", &[role as u8], transcript.hash()];
        provider
            .mac
            .verify(self.finished_key(role), &parts, tag)
            .map_err(|_| Error::Authentication("finished"))
    }

    /// What `me` sends with, what it receives with, and the exporter.
    pub(crate) fn into_directions(
        self,
        provider: &Provider,
        transcript: &Transcript,
        policy: Policy,
        me: Role,
    ) -> Result<(Direction, Direction, Exporter), Error> {
        let [initiator, responder] = self.parties;
        let (mine, theirs) =
            if initiator.role == me { (initiator, responder) } else { (responder, initiator) };
        let direction =
            |keys: PartyKeys| Direction::new(provider, transcript.mode(), policy, keys.traffic);
        let exporter = Exporter { provider: provider.clone(), secret: self.exporter };
        Ok((direction(mine)?, direction(theirs)?, exporter))
    }
}

/// Derives further keys from a finished session, the same on both sides.
pub struct Exporter {
    provider: Provider,
    secret: Secret,
}

impl Exporter {
    /// `len` bytes for `label`, which is framed, and `context`, which comes last.
    ///
    /// # Errors
    /// [`Error::Local`] if `len` exceeds what HKDF gives (8160 bytes).
    pub fn export(&self, label: &str, context: &[u8], len: usize) -> Result<Secret, Error> {
        let label_len = (label.len() as u64).to_be_bytes();
        let info: [&[u8]; 5] = [CONTEXT, b" export", &label_len, label.as_bytes(), context];
        self.provider.kdf.expand(&self.secret, &info, len).map_err(Error::Local)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;
    use crate::record::Content;
    use crate::wire::Kind;

    fn transcript(bytes: &[u8]) -> Transcript {
        let provider = rust_crypto::provider();
        Transcript::new(&provider, Mode::C1).append(&*provider.hash, bytes)
    }

    fn keys(transcript: &Transcript, r3: &[u8], shared: &[u8]) -> SessionKeys {
        let secret = Secret::copied_from;
        SessionKeys::derive(&rust_crypto::provider(), transcript, &secret(r3), &secret(shared))
            .expect("keys")
    }

    /// What two parties with these inputs would put on the wire.
    fn outputs(transcript: &Transcript, r3: &[u8], shared: &[u8]) -> Vec<Vec<u8>> {
        let provider = rust_crypto::provider();
        let keys = keys(transcript, r3, shared);
        let mut outputs = vec![
            keys.finished(&provider, Role::Reader, transcript).to_vec(),
            keys.finished(&provider, Role::Server, transcript).to_vec(),
        ];
        let (mut to_server, mut to_reader, exporter) = keys
            .into_directions(&provider, transcript, Policy::default(), Role::Reader)
            .expect("directions");
        for direction in [&mut to_server, &mut to_reader] {
            outputs.push(direction.seal(Content::Data, b"data").expect("sealed"));
            direction.rekey().expect("rekeyed");
            outputs.push(direction.seal(Content::Data, b"data").expect("sealed"));
        }
        outputs.push(exporter.export("x", b"", 32).expect("exported").expose().to_vec());
        outputs
    }

    /// Every purpose, role and direction has a key of its own (G9).
    #[test]
    fn purposes_roles_and_directions_differ() {
        let outputs = outputs(&transcript(b"t"), &[1; 32], &[2; 32]);
        for (at, one) in outputs.iter().enumerate() {
            assert!(outputs[at + 1..].iter().all(|other| other != one), "output {at}");
        }
    }

    /// Every input reaches every output (G2, G3, G6): transcript, R3, exchange.
    #[test]
    fn g1_every_input_changes_every_output() {
        let base = outputs(&transcript(b"t"), &[1; 32], &[2; 32]);
        for changed in [
            outputs(&transcript(b"u"), &[1; 32], &[2; 32]),
            outputs(&transcript(b"t"), &[3; 32], &[2; 32]),
            outputs(&transcript(b"t"), &[1; 32], &[4; 32]),
        ] {
            for (at, (one, other)) in base.iter().zip(&changed).enumerate() {
                assert_ne!(one, other, "output {at}");
            }
        }
    }

    /// A server's confirmation is not a reader's, whatever the key (reflection, G9).
    #[test]
    fn the_finished_mac_has_its_role_in_it() {
        let provider = rust_crypto::provider();
        let transcript = transcript(b"t");
        let mut keys = keys(&transcript, &[1; 32], &[2; 32]);
        let [reader, server] = &mut keys.parties;
        reader.finished = Secret::copied_from(server.finished.expose());
        let fin = keys.finished(&provider, Role::Server, &transcript);
        let same = keys.verify_finished(&provider, Role::Server, &transcript, &fin);
        assert_eq!(same, Ok(()));
        let reflected = keys.verify_finished(&provider, Role::Reader, &transcript, &fin);
        assert_eq!(reflected, Err(Error::Authentication("finished")));
    }

    /// The binder depends on mode, transcript and factor, and is none of the session's outputs; the
    /// binding factor is a key of its own, of pairings only.
    #[test]
    fn g13_binder_and_binding_factor_have_keys_of_their_own() {
        let provider = rust_crypto::provider();
        let hash = &*provider.hash;
        let of = |mode, bytes: &[u8]| Transcript::new(&provider, mode).append(hash, bytes);
        let factor = Secret::copied_from(&[7; 32]);
        let made = |transcript: &Transcript, factor: &Secret| {
            binder(&provider, transcript, factor).expect("binder")
        };
        let base = of(Mode::A2, b"t");
        let tag = made(&base, &factor);
        assert_eq!(verify_binder(&provider, &base, &factor, &tag), Ok(()));
        let refused = Err(Error::Authentication("binder"));
        let other = Secret::copied_from(&[8; 32]);
        assert_eq!(verify_binder(&provider, &base, &other, &tag), refused);
        assert_eq!(verify_binder(&provider, &base, &factor, &tag[..31]), refused);
        for transcript in [of(Mode::A3, b"t"), of(Mode::A2, b"u")] {
            assert_eq!(verify_binder(&provider, &transcript, &factor, &tag), refused);
        }
        let derive = |mode, r4: &[u8]| {
            let contribution = Secret::copied_from(r4);
            let shared = Secret::copied_from(&[2; 32]);
            SessionKeys::derive(&provider, &of(mode, b"t"), &contribution, &shared).expect("keys")
        };
        let mut keys = derive(Mode::A1, &[1; 32]);
        let factor = keys.take_binding_factor().expect("a factor");
        assert!(keys.take_binding_factor().is_err(), "once");
        assert!(derive(Mode::A2, &[1; 32]).take_binding_factor().is_err());
        let again = derive(Mode::A1, &[3; 32]).take_binding_factor().expect("a factor");
        assert_ne!(factor.expose(), again.expose());
        let exporter = Exporter { provider, secret: keys.exporter };
        let exported = exporter.export("binding factor", b"", 32).expect("exported");
        assert_ne!(factor.expose(), exported.expose());
    }

    /// What `docs/protocols/channel.md` says of A1 to A3, computed from it by another program.
    #[test]
    fn the_documented_derivations_have_their_known_answers() {
        let provider = rust_crypto::provider();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let of = |mode, contribution: &[u8]| {
            let transcript = Transcript::new(&provider, mode).append(&*provider.hash, b"t");
            let keys = keys(&transcript, contribution, &[2; 32]);
            (transcript, keys)
        };
        let (transcript, mut keys) = of(Mode::A1, &[1; 32]);
        let factor = keys.take_binding_factor().expect("a factor");
        let fin = |keys: &SessionKeys, role, transcript: &Transcript| {
            hex(&keys.finished(&provider, role, transcript))
        };
        let answers = [
            hex(factor.expose()),
            fin(&keys, Role::Sleeve, &transcript),
            fin(&keys, Role::Manager, &transcript),
        ];
        assert_eq!(
            answers,
            [
                "8b21a8a6ec45695420cb790e2d0cea98837ca69f7ebd98d3da5e321c6cb4d968",
                "557be700980533ec080431dd97f503ccbac408a4415cb1a39eaa0d1c5db8249e",
                "0c3fee1820ee8ac028d45e27c93f9a838daf137a22132a9c37cccb23ebf5b28e",
            ]
        );
        let connects = [
            (
                Mode::A2,
                [
                    "5cc519cdf7869527c55054bb3842b9166f297a730dc381b080a5ce63ffcbbbb4",
                    "ecac89c094d37976e87242417f4948c5bc76590a680de481c4274d327e9bc509",
                    "86a181929efa7af0292d5a6bc23f0b10212644455394c86e3fc87707f7a2132e",
                ],
            ),
            (
                Mode::A3,
                [
                    "0bcbcd3274be55a3053bbcf3ee5389b1a8c9890ff5cd77699502f11d3aec1233",
                    "9ced3d869047008bedbbe2e616abaabd4ff8c9ad156a5bcc77e065b839812cb2",
                    "2d44099947b37ed4f2d352b391ad3277db4cc99c9196ac355ab82457cde19693",
                ],
            ),
        ];
        for (mode, expected) in connects {
            let contribution = [[1; 32], [7; 32]].concat(); // R6 or R8, then the factor
            let (transcript, keys) = of(mode, &contribution);
            let factor = Secret::copied_from(&[7; 32]);
            let tag = binder(&provider, &transcript, &factor).expect("binder");
            let confirmed = [Role::Sleeve, Role::Manager].map(|role| fin(&keys, role, &transcript));
            let [sleeve, manager] = confirmed;
            assert_eq!([hex(&tag), sleeve, manager], expected, "{mode:?}");
        }
    }

    /// Signatures name role and signed id; parts of a transcript cannot be moved across borders.
    #[test]
    fn signatures_and_transcripts_are_unambiguous() {
        let one = transcript(b"t");
        assert_ne!(one.to_be_signed(Role::Reader, b""), one.to_be_signed(Role::Server, b""));
        assert_ne!(one.to_be_signed(Role::Reader, b"a"), one.to_be_signed(Role::Reader, b"b"));
        assert!(one.to_be_signed(Role::Reader, b"a").starts_with(b"Countersign v1 signature"));
        let provider = rust_crypto::provider();
        let hash = &*provider.hash;
        let split = |first: &[u8], second: &[u8]| {
            let fresh = Transcript::new(&provider, Mode::C1);
            *fresh.append(hash, first).append(hash, second).hash()
        };
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(split(b"", b"abc"), split(b"abc", b""));
        // The mode is the first thing in the transcript, and in every frame, signature and key.
        let [c1, c2] = [Mode::C1, Mode::C2].map(|mode| Transcript::new(&provider, mode));
        assert_ne!(c1.hash(), c2.hash());
        assert_ne!(c1.to_be_signed(Role::Reader, b"")[24], c2.to_be_signed(Role::Reader, b"")[24]);
        assert_eq!(crate::wire::header(Mode::C2, Kind::Record, 1)[3], 2);
    }
}

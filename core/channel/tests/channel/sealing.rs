//! `certificate-sealed`: contributions sealed to the peer's encryption certificate as well, for
//! dual-certificate deployments of the SM2 suite.

use std::sync::Arc;

use countersign_channel::{EncryptionCredential, Policy, Refusal};
use countersign_crypto::{
    CryptoError, CryptoRng, DecryptionKey, EncryptionScheme, Secret, SoftwareDecryptionKey,
};
use countersign_payment::PaymentError;
use countersign_payment::joint::{
    Commitment, Form, JointPassword, Opener, SHARED_LEN, SealTo, commit, verify_password,
};
use countersign_pki::{PkiError, Role};
use testkit::counting::CountingProvider;

use super::*;

const SEALED: Policy = Policy {
    protection: countersign_channel::Protection::EncryptAndMac,
    delivery: countersign_channel::Delivery::Stream,
    certificate_sealed: true,
};

fn dual(mode: Mode, seed: u64) -> World {
    let provider = sm::provider();
    world_with(&provider, seed).speaking(mode).under(SEALED).with_dual_certificates()
}

/// The receiver of the contribution (the reader in C1, the server in C2) decrypts with the key of
/// its encryption certificate, the other side encrypts to it, once each.
#[test]
fn contributions_are_sealed_to_the_encryption_certificate_as_well() {
    for mode in MODES {
        let (reader, server) =
            (CountingProvider::new(sm::provider()), CountingProvider::new(sm::provider()));
        let mut world = World::new(sm::provider(), reader.provider(), server.provider(), 50)
            .speaking(mode)
            .under(SEALED)
            .with_dual_certificates();
        // Encryption keys that nobody holds any more: the peer cannot finish.
        let mut broken = dual(mode, 51);
        let (stray, _) = broken.pki.encryption(Role::Reader, "RD-1");
        let swap = |encryption: &mut Option<EncryptionCredential>| {
            encryption.as_mut().unwrap().key = stray.clone();
        };
        match mode {
            Mode::C1 => broken.change_reader(|config| swap(&mut config.credentials[0].encryption)),
            _ => broken.change_server(|config| swap(&mut config.credentials[0].encryption)),
        }
        assert_eq!(refused(&mut broken), Error::Authentication("contribution"));

        let mut pair = connected(&mut world);
        assert_eq!(pair.server.policy(), Some(SEALED));
        pair.reader.send(b"sealed").unwrap();
        pair.drive().unwrap();
        assert_eq!(server_data(&mut pair), [b"sealed".to_vec()]);
        let encrypted = [reader.snapshot().encrypt, server.snapshot().encrypt];
        assert_eq!(encrypted, if mode == Mode::C1 { [0, 1] } else { [1, 0] });
    }
}

/// An encryption key and the certificate that is shown for it.
type Encryption = (Arc<dyn DecryptionKey>, Vec<u8>);

/// The encryption certificate must be an encryption certificate, of the same party, of our CA.
#[test]
fn a_wrong_encryption_certificate_is_refused_by_name() {
    for mode in MODES {
        let (role, id) = match mode {
            Mode::C1 => (Role::Reader, "RD-1"),
            _ => (Role::Server, "srv-1"),
        };
        let with = |change: &dyn Fn(&mut World) -> Encryption| {
            let mut world = dual(mode, 52);
            let (key, certificate) = change(&mut world);
            let encryption = Some(EncryptionCredential { key, certificate });
            match mode {
                Mode::C1 => world.change_reader(|c| c.credentials[0].encryption = encryption),
                _ => world.change_server(|c| c.credentials[0].encryption = encryption),
            }
            refused(&mut world)
        };
        let another = with(&|world| world.pki.encryption(role, "RD-2"));
        assert_eq!(another, Refusal::EncryptionIdMismatch.into());
        let signing = with(&|world| {
            let (key, _) = world.pki.encryption(role, id);
            (key, world.pki.party(role, id).certificate)
        });
        assert_eq!(signing, PkiError::WrongUsage.into());
        let foreign =
            with(&|_| testkit::pki::TestPki::new(sm::provider(), 99).encryption(role, id));
        assert_eq!(foreign, PkiError::UnknownIssuer.into());
    }
}

/// Where the policy does not ask for it, a second certificate is out of place.
#[test]
fn a_server_without_the_key_does_not_select_the_policy() {
    let mut world = dual(Mode::C2, 53);
    world.change_server(|config| config.credentials[0].encryption = None);
    assert_eq!(refused(&mut world), Error::Incompatible("protection policy"));
    let plain = Policy::default();
    world.change_reader(|config| config.policies = vec![SEALED, plain]);
    world.change_server(|config| config.policies = vec![SEALED, plain]);
    let pair = connected(&mut world);
    assert_eq!(pair.reader.policy(), Some(plain));
}

const SERIAL: &str = "SC-1";
const TRANSACTION: &[u8] = b"of whatever payment";

/// What a signing card of the same server seals to the same key: its commitment to a joint
/// password, without the code of the form.
fn committed(
    rng: &mut dyn CryptoRng,
    form: Form,
    server_point: &[u8],
) -> (Commitment, JointPassword) {
    let password = JointPassword::random(rng).unwrap();
    let to = SealTo { server_point, shared: &Secret::new(vec![9; SHARED_LEN]) };
    let provider = sm::provider();
    let made = commit(&provider, rng, form, SERIAL, TRANSACTION, &password, &to);
    (made.unwrap(), password)
}

/// The scheme of a reader that has its contribution made by a signing card.
struct Smuggler {
    scheme: Arc<dyn EncryptionScheme>,
    form: Form,
}

impl EncryptionScheme for Smuggler {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareDecryptionKey, CryptoError> {
        self.scheme.generate(rng)
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn DecryptionKey>, CryptoError> {
        self.scheme.load_pkcs8(der)
    }

    fn encrypt(
        &self,
        rng: &mut dyn CryptoRng,
        point: &[u8],
        _contribution: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        Ok(committed(rng, self.form, point).0.as_bytes()[1..].to_vec())
    }
}

/// Under SM2 the key of the server's encryption certificate opens contributions and commitments to
/// joint passwords. Neither passes for the other: their texts have other lengths.
#[test]
fn a_commitment_to_a_joint_password_is_no_contribution_and_the_other_way_round() {
    for form in [Form::Sealed, Form::SealedRandom] {
        let mut reader = sm::provider();
        let scheme = reader.encryption.clone().unwrap();
        reader.encryption = Some(Arc::new(Smuggler { scheme: scheme.clone(), form }));
        let mut world = World::new(sm::provider(), reader, sm::provider(), 54)
            .speaking(Mode::C2)
            .under(SEALED)
            .with_dual_certificates();
        assert_eq!(refused(&mut world), Error::Malformed("length of a contribution"));

        let key = world.server.credentials[0].encryption.as_ref().unwrap().key.clone();
        let rng = &mut world.pki.rng;
        let (genuine, password) = committed(rng, form, key.public_key());
        let verify = |commitment: &Commitment| {
            let (provider, opener) = (sm::provider(), Opener::Server(&*key));
            verify_password(&provider, opener, SERIAL, TRANSACTION, commitment, &password)
        };
        assert_eq!(verify(&genuine), Ok(()), "it opens");
        let sealed = scheme.encrypt(rng, key.public_key(), &[7; 32]).unwrap();
        let contribution = Commitment::parse(&[&[form.code()][..], &sealed].concat()).unwrap();
        assert_eq!(verify(&contribution), Err(PaymentError::JointSealed));
    }
}

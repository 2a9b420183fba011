//! Points and shares that are none, for whoever takes one.

use countersign_crypto::{CryptoError, Provider, Suite};

use crate::support::{bytes, providers, rng};

/// A point of small x, so that x plus the field's prime still has 32 bytes: a second encoding.
struct Small {
    x: &'static str,
    x_plus_prime: &'static str,
    y: &'static str,
    prime: &'static str,
}

const P256: Small = Small {
    x: "0000000000000000000000000000000000000000000000000000000000000005",
    x_plus_prime: "ffffffff00000001000000000000000000000001000000000000000000000004",
    y: "459243b9aa581806fe913bce99817ade11ca503c64d9a3c533415c083248fbcc",
    prime: "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
};
const SM2: Small = Small {
    x: "0000000000000000000000000000000000000000000000000000000000000001",
    x_plus_prime: "fffffffeffffffffffffffffffffffffffffffff000000010000000000000000",
    y: "9f7a091433a81e3f218f405f792355bf2aa98b5ffa95982f03870800065279a3",
    prime: "fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff",
};

/// What takes a point.
type Taker = fn(&Provider, &[u8]) -> Option<CryptoError>;

const SIGNATURE: Taker = |provider, point| provider.signature.public_key(point).err();
const EXCHANGE: Taker =
    |provider, point| provider.key_exchange.generate(&mut rng()).unwrap().agree(point).err();
const ENCRYPTION: Taker = |provider, point| {
    provider.encryption.as_ref().unwrap().encrypt(&mut rng(), point, b"text").err()
};
const SEALING: Taker = |provider, point| provider.sealing.encrypt(&mut rng(), point, b"text").err();

#[test]
fn points_have_one_encoding_and_lie_on_the_curve() {
    for provider in providers() {
        let (small, takers): (_, &[(&str, Taker)]) = match provider.suite {
            Suite::SM2_SM4GCM_SM3 => (
                SM2,
                &[("signature", SIGNATURE), ("exchange", EXCHANGE), ("encryption", ENCRYPTION)],
            ),
            _ => (P256, &[("signature", SIGNATURE), ("sealing", SEALING)]),
        };
        let Small { x, x_plus_prime, y, prime } = small;
        let zero = "00".repeat(32);
        let good = bytes(&format!("04 {x} {y}"));
        let mut twisted = good.clone();
        twisted[64] ^= 1;
        let bad = [
            ("y off the curve", twisted),
            ("coordinates exchanged", bytes(&format!("04 {y} {x}"))),
            ("x not reduced", bytes(&format!("04 {x_plus_prime} {y}"))),
            ("x is the prime", bytes(&format!("04 {prime} {y}"))),
            ("y is the prime", bytes(&format!("04 {x} {prime}"))),
            ("all zeros", bytes(&format!("04 {zero} {zero}"))),
            ("all ones", [&[4][..], &[0xff; 64]].concat()),
            ("compressed", bytes(&format!("02 {x}"))),
            ("compressed, odd", bytes(&format!("03 {x}"))),
            ("compact", bytes(&format!("05 {x}"))),
            ("hybrid", bytes(&format!("06 {x} {y}"))),
            ("hybrid, odd", bytes(&format!("07 {x} {y}"))),
            ("infinity", vec![0]),
            ("infinity, long", vec![0; 65]),
            ("without its tag", good[1..].to_vec()),
            ("cut", good[..64].to_vec()),
            ("with a tail", [&good[..], &[0]].concat()),
            ("nothing", Vec::new()),
        ];
        for (taker, take) in takers {
            assert_eq!(take(&provider, &good), None, "{taker} of {}", provider.suite);
            for (what, point) in &bad {
                let error = take(&provider, point);
                let wanted = Some(CryptoError::InvalidKey);
                assert_eq!(error, wanted, "{what} to {taker} of {}", provider.suite);
            }
        }
    }
}

/// Two ephemeral keys agree; another does not; a key may be used again (an epoch's share).
#[test]
fn exchanges_agree_within_a_suite() {
    for provider in providers() {
        let exchange = &provider.key_exchange;
        let mut rng = rng();
        let [a, b, c] = [(); 3].map(|()| exchange.generate(&mut rng).unwrap());
        let is_sm2 = provider.suite == Suite::SM2_SM4GCM_SM3;
        assert_eq!(a.share().len(), if is_sm2 { 65 } else { 32 });
        let secret = a.agree(b.share()).unwrap();
        assert!(secret.ct_eq(b.agree(a.share()).unwrap().expose()));
        assert!(secret.ct_eq(a.agree(b.share()).unwrap().expose()));
        assert!(!secret.ct_eq(a.agree(c.share()).unwrap().expose()));
    }
}

/// RFC 7748 §5: a share that is not reduced is taken, as the point that it is.
#[test]
fn x25519_reduces_its_shares() {
    let others = providers().into_iter().filter(|p| p.suite != Suite::SM2_SM4GCM_SM3);
    for provider in others {
        let key = provider.key_exchange.generate(&mut rng()).unwrap();
        let base = bytes(&("09".to_owned() + &"00".repeat(31)));
        let unreduced = bytes(&("f6".to_owned() + &"ff".repeat(30) + "7f"));
        let secret = key.agree(&base).unwrap();
        assert!(secret.ct_eq(key.agree(&unreduced).unwrap().expose()));
        assert_eq!(secret.expose(), key.agree(&base).unwrap().expose());
    }
}

use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::{CryptoRng, Secret};
use cryptoki::mechanism::MechanismType;
use tr31::{BlockCipher, Ciphers, CmacKey};
use tr34::{Rsa, RsaKey};

use super::failure::{Failure, is_lost};
use super::keys::{TokenCmac, TokenRsa};
use super::objects;
use super::token::Token;
use crate::vault::{check_bits, check_cmac_len, check_random_len, wrong_kind};
use crate::{
    Description, HeldKey, HsmError, KeyKind, Pkcs11Config, RsaUse, STORAGE_KEY_LEN, Vault,
    check_label,
};

/// What a key signs, decrypts or MACs once to show that it is what it seems.
const PROBE: &[u8] = b"countersign: a key of a token shows that it works";

/// Keys in a PKCS#11 token: made there, sensitive, not extractable, persistent.
///
/// Threads share it. A session that is lost is opened again, and a key is looked up again, when it
/// is next used; a wrong PIN is sent once only. Whoever uses the same module in this process
/// shares its login.
pub struct Pkcs11Vault {
    token: Arc<Token>,
    rng: Mutex<Box<dyn CryptoRng + Send>>,
    /// Keys are made one after the other, so that labels stay unique.
    making: Mutex<()>,
}

impl Pkcs11Vault {
    /// Loads the module, finds the token and logs in. `rng` serves public-key encryption when a key
    /// is tried; every key comes from the token.
    ///
    /// # Errors
    /// [`HsmError::Module`]; [`HsmError::TokenAbsent`]; [`HsmError::TokenAmbiguous`];
    /// [`HsmError::PinWrong`]; [`HsmError::PinLocked`]; [`HsmError::PinNotSet`].
    pub fn open(
        config: Pkcs11Config,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, HsmError> {
        Ok(Self {
            token: Arc::new(Token::open(config)?),
            rng: Mutex::new(Box::new(rng)),
            making: Mutex::new(()),
        })
    }

    fn require_signing(&self) -> Result<(), HsmError> {
        self.token.require(MechanismType::SHA256_RSA_PKCS, "CKM_SHA256_RSA_PKCS")
    }

    fn require_cmac(&self) -> Result<(), HsmError> {
        self.token.require(MechanismType::AES_CMAC, "CKM_AES_CMAC")
    }

    /// Has the key sign, and decrypt if it may, and compares.
    fn try_out(&self, label: &str, key: &TokenRsa) -> Result<(), Failure> {
        let signature = key.try_sign(PROBE)?;
        let verified = tr34::aws_lc::AwsLc.verify(key.public_key(), PROBE, &signature);
        verified.map_err(|_| HsmError::KeyInconsistent(label.to_owned()))?;
        if key.usage() == RsaUse::Sign {
            return Ok(());
        }
        self.token.require(MechanismType::RSA_PKCS_OAEP, "CKM_RSA_PKCS_OAEP")?;
        let text = Secret::copied_from(PROBE);
        let sealed = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            tr34::aws_lc::AwsLc.encrypt(&mut **rng, key.public_key(), &text)
        };
        match key.try_decrypt(&sealed.map_err(|_| HsmError::Crypto)?) {
            Ok(opened) if opened.ct_eq(PROBE) => Ok(()),
            // Some tokens refuse the parameters, some take them and use SHA-1.
            Ok(_) => Err(HsmError::OaepSha256Unsupported.into()),
            Err(Failure::Token(error)) if !is_lost(&error) => {
                Err(HsmError::OaepSha256Unsupported.into())
            }
            Err(failure) => Err(failure),
        }
    }

    fn open_cmac(&self, label: &str) -> Result<TokenCmac, HsmError> {
        self.require_cmac()?;
        Ok(TokenCmac::open(Arc::clone(&self.token), label)?)
    }
}

impl Vault for Pkcs11Vault {
    fn describe(&self) -> Result<Description, HsmError> {
        self.token.describe()
    }

    fn labels(&self) -> Result<Vec<HeldKey>, HsmError> {
        let keys = self.token.run(|lease| {
            lease.check_present()?;
            objects::list(&lease.session)
        })?;
        Ok(keys.into_iter().map(|(label, kind)| HeldKey { label, kind }).collect())
    }

    fn random(&self, len: usize) -> Result<Secret, HsmError> {
        check_random_len(len)?;
        Ok(self.token.run(|lease| {
            Secret::try_filled(len, |out| lease.session.generate_random_slice(out))
                .map_err(Failure::from)
        })?)
    }

    fn rsa_generate(
        &self,
        label: &str,
        usage: RsaUse,
        bits: u32,
    ) -> Result<Arc<dyn RsaKey>, HsmError> {
        check_bits(bits)?;
        self.require_signing()?;
        self.token.require(MechanismType::RSA_PKCS_KEY_PAIR_GEN, "CKM_RSA_PKCS_KEY_PAIR_GEN")?;
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.token.run(|lease| objects::check_free(lease, label))?;
        let (made, key) = self.token.run_once(|lease| {
            let made = objects::make_pair(&lease.session, label, usage, bits)?;
            objects::check_alone(&lease.session, label, &made)?;
            Ok((made, TokenRsa::of(&self.token, lease, label, usage, made[1])?))
        })?;
        self.try_out(label, &key).inspect_err(|_| {
            let _gone = self.token.run_once(|lease| {
                objects::take_back(&lease.session, &made);
                Ok(())
            });
        })?;
        Ok(Arc::new(key))
    }

    fn rsa_open(&self, label: &str) -> Result<Arc<dyn RsaKey>, HsmError> {
        self.require_signing()?;
        let key = self.token.run(|lease| {
            let key = objects::the_key(&lease.session, label)?;
            let KeyKind::Rsa(usage) = key.kind else {
                return Err(wrong_kind(label, key.kind).into());
            };
            TokenRsa::of(&self.token, lease, label, usage, key.handle)
        })?;
        self.try_out(label, &key)?;
        Ok(Arc::new(key))
    }

    fn rsa_delete(&self, label: &str) -> Result<(), HsmError> {
        Ok(self.token.run(|lease| objects::destroy_pair(&lease.session, label))?)
    }

    fn storage_key(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        check_label(label)?;
        self.require_cmac()?;
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.token.run(|lease| objects::all(&lease.session, label))?;
        if there.is_empty() {
            self.token.require(MechanismType::AES_KEY_GEN, "CKM_AES_KEY_GEN")?;
            self.token.run(|lease| objects::check_free(lease, label))?;
            self.token.run_once(|lease| {
                let made = objects::make_cmac(&lease.session, label)?;
                objects::check_alone(&lease.session, label, &[made])
            })?;
        }
        let key = self.open_cmac(label)?;
        if key.key_len() != STORAGE_KEY_LEN {
            return Err(wrong_kind(label, KeyKind::Cmac(BlockCipher::Aes)));
        }
        Ok(Arc::new(key))
    }

    fn cmac_import(
        &self,
        label: &str,
        cipher: BlockCipher,
        key: Secret,
    ) -> Result<Arc<dyn CmacKey>, HsmError> {
        check_cmac_len(cipher, key.len())?;
        if cipher == BlockCipher::Tdes {
            return Err(HsmError::MechanismUnsupported("CKM_DES3_CMAC"));
        }
        self.require_cmac()?;
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.token.run(|lease| objects::check_free(lease, label))?;
        let made = self.token.run_once(|lease| {
            let made = objects::import_aes(&lease.session, label, key.expose())?;
            objects::check_alone(&lease.session, label, &[made])?;
            Ok(made)
        })?;
        let opened = self.open_cmac(label).and_then(|held| {
            let wanted = tr31::aws_lc::AwsLc.cmac(cipher, &key, PROBE);
            let same = match (held.cmac(PROBE), wanted) {
                (Ok(held), Ok(wanted)) => held.ct_eq(wanted.expose()),
                _ => false,
            };
            if same { Ok(held) } else { Err(HsmError::KeyInconsistent(label.to_owned())) }
        });
        let held = opened.inspect_err(|_| {
            let _gone = self.token.run_once(|lease| {
                objects::take_back(&lease.session, &[made]);
                Ok(())
            });
        })?;
        Ok(Arc::new(held))
    }

    fn cmac_open(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        Ok(Arc::new(self.open_cmac(label)?))
    }

    fn cmac_delete(&self, label: &str) -> Result<(), HsmError> {
        Ok(self.token.run(|lease| objects::destroy_cmac(&lease.session, label))?)
    }
}

//! Who may use the cards: two passwords, and the lock after wrong ones (A4, A5).
//!
//! A login and an alarm cost the same, operation for operation. Both hashes are computed at every
//! attempt, over the same [`PASSWORD_LEN`] bytes whatever was typed; without an alarm password
//! there is the hash of a value that nobody knows, so that not even the file says which it is. What
//! came of it is selected without a branch ([`Verdict`]), and whoever answers asks it nothing but
//! [`Verdict::is_right`] before the answer has left.

use core::fmt;

use argon2::password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use countersign_crypto::{CryptoRng, Secret};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;
use tls_codec::{DeserializeBytes, Error as CodecError, SerializeBytes, Size};
use zeroize::{Zeroize, Zeroizing};

mod lockout;
#[cfg(test)]
mod tests;

pub use lockout::{FREE_TRIES, LOCK_FIRST, LOCK_MAX, Locked, Lockout};

/// Bytes of a password on the wire and under the hash: it is padded with zeros.
pub const PASSWORD_LEN: usize = 128;
/// Fewest bytes of a password, UTF-8.
pub const PASSWORD_MIN: usize = 4;
/// Bytes of a salt.
pub const SALT_LEN: usize = 16;
/// Bytes of a hash.
pub const PASSWORD_HASH_LEN: usize = 32;

/// Why a password is not set, or a file of passwords not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Shorter than [`PASSWORD_MIN`], longer than [`PASSWORD_LEN`], not UTF-8, or with a control
    /// character.
    #[error("a password has 4 to 128 bytes of text")]
    Form,
    /// Login and alarm password must differ: equal ones would never raise an alarm.
    #[error("login and alarm password are the same")]
    Equal,
    /// The old password is wrong.
    #[error("the password is wrong")]
    Wrong,
    /// Not an Argon2id hash with parameters from [`Cost::LEAST`] to [`Cost::MOST`].
    #[error("not an Argon2id hash of the required cost")]
    Hash,
    /// Not enough memory.
    #[error("the password hash cannot be computed")]
    Failed,
}

impl PasswordError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Form => "password-form",
            Self::Equal => "password-equal",
            Self::Wrong => "password-wrong",
            Self::Hash => "password-hash",
            Self::Failed => "internal",
        }
    }
}

/// What Argon2id costs (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// Nothing cheaper is taken: OWASP's minimum, 19 MiB and 2 passes.
    pub const LEAST: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    /// For new passwords: 64 MiB and 3 passes (RFC 9106 §4, the second choice's memory and passes;
    /// one lane, as one thread computes them).
    pub const USUAL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// Nothing dearer is taken: a damaged file must not take all memory.
    pub const MOST: Self = Self { memory_kib: 1024 * 1024, passes: 16, lanes: 8 };

    fn params(self) -> Result<Params, PasswordError> {
        let within = |value, least, most| (least..=most).contains(&value);
        let fits = within(self.memory_kib, Self::LEAST.memory_kib, Self::MOST.memory_kib)
            && within(self.passes, Self::LEAST.passes, Self::MOST.passes)
            && within(self.lanes, Self::LEAST.lanes, Self::MOST.lanes);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(PASSWORD_HASH_LEN));
        params.ok().filter(|_| fits).ok_or(PasswordError::Hash)
    }
}

/// What computes a password's hash. Argon2id does; tests count with another.
pub trait PasswordHashing {
    /// The hash of these [`PASSWORD_LEN`] bytes.
    ///
    /// # Errors
    /// [`PasswordError::Hash`] or [`PasswordError::Failed`].
    fn hash(
        &self,
        cost: Cost,
        password: &[u8; PASSWORD_LEN],
        salt: &[u8],
    ) -> Result<Zeroizing<[u8; PASSWORD_HASH_LEN]>, PasswordError>;
}

/// Argon2id, version 0x13. Its memory is wiped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Argon2id;

impl PasswordHashing for Argon2id {
    fn hash(
        &self,
        cost: Cost,
        password: &[u8; PASSWORD_LEN],
        salt: &[u8],
    ) -> Result<Zeroizing<[u8; PASSWORD_HASH_LEN]>, PasswordError> {
        let params = cost.params()?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(params.block_count()).map_err(|_| PasswordError::Failed)?;
        memory.resize(params.block_count(), Block::default());
        let mut out = Zeroizing::new([0; PASSWORD_HASH_LEN]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let done =
            argon.hash_password_into_with_memory(password, salt, &mut out[..], &mut memory[..]);
        memory.zeroize();
        done.map_err(|_| PasswordError::Failed)?;
        Ok(out)
    }
}

/// A password with its zeros: what travels, and what is hashed. Wiped, and never shown.
pub struct PaddedPassword(Zeroizing<[u8; PASSWORD_LEN]>);

impl PaddedPassword {
    /// Pads a password.
    ///
    /// # Errors
    /// [`PasswordError::Form`].
    pub fn new(password: &Secret) -> Result<Self, PasswordError> {
        let bytes = password.expose();
        let text = core::str::from_utf8(bytes).map_err(|_| PasswordError::Form)?;
        let fits = (PASSWORD_MIN..=PASSWORD_LEN).contains(&bytes.len());
        if !fits || text.chars().any(char::is_control) {
            return Err(PasswordError::Form);
        }
        let mut padded = Zeroizing::new([0; PASSWORD_LEN]);
        padded[..bytes.len()].copy_from_slice(bytes);
        Ok(Self(padded))
    }

    /// What came from the wire, whatever it is: a form that no password has is just wrong.
    fn received(bytes: &[u8; PASSWORD_LEN]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The bytes. Named so that each use shows in review.
    #[must_use]
    pub fn expose(&self) -> &[u8; PASSWORD_LEN] {
        &self.0
    }

    /// In a buffer that is wiped.
    pub(crate) fn encode(&self, kind: u8) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + PASSWORD_LEN));
        out.push(kind);
        out.extend_from_slice(self.expose());
        out
    }
}

impl PartialEq for PaddedPassword {
    fn eq(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }
}

impl Eq for PaddedPassword {}

impl fmt::Debug for PaddedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaddedPassword(..)")
    }
}

impl Size for PaddedPassword {
    fn tls_serialized_len(&self) -> usize {
        PASSWORD_LEN
    }
}

impl SerializeBytes for PaddedPassword {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, CodecError> {
        Ok(self.0.to_vec())
    }
}

impl DeserializeBytes for PaddedPassword {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let (password, rest) =
            bytes.split_first_chunk::<PASSWORD_LEN>().ok_or(CodecError::EndOfStream)?;
        Ok((Self::received(password), rest))
    }
}

/// What came of an attempt. It is two bits that no branch has looked at: which of the two passwords
/// it was is told by [`Self::access`], after the answer.
#[derive(Clone, Copy)]
pub struct Verdict {
    right: Choice,
    alarm: Choice,
}

impl Verdict {
    /// The login password.
    #[must_use]
    pub fn login() -> Self {
        Self { right: 1.into(), alarm: 0.into() }
    }

    /// The alarm password.
    #[must_use]
    pub fn alarm() -> Self {
        Self { right: 1.into(), alarm: 1.into() }
    }

    /// Neither.
    #[must_use]
    pub fn wrong() -> Self {
        Self { right: 0.into(), alarm: 0.into() }
    }

    /// Either password: all that the answer may depend on.
    #[must_use]
    pub fn is_right(self) -> bool {
        self.right.into()
    }

    /// How far the session goes. Meaningful for a right password only.
    #[must_use]
    pub fn access(self) -> Access {
        Access { alarm: self.alarm }
    }

    /// `usual`, `alarm` or `wrong`, selected without a branch and of one length: for the audit.
    #[must_use]
    pub fn word(self) -> Word {
        let login = Word::select(Word::WRONG, Word::USUAL, self.right);
        Word::select(login, Word::ALARM, self.alarm)
    }
}

/// Nothing of it.
impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verdict(..)")
    }
}

/// Five letters that say what an attempt was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word([u8; 5]);

impl Word {
    const USUAL: Self = Self(*b"usual");
    const ALARM: Self = Self(*b"alarm");
    const WRONG: Self = Self(*b"wrong");

    fn select(one: Self, other: Self, choice: Choice) -> Self {
        let mut word = one;
        for (byte, other) in word.0.iter_mut().zip(other.0) {
            byte.conditional_assign(&other, choice);
        }
        word
    }

    /// The letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("letters of ASCII")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a session goes.
#[derive(Clone, Copy)]
pub struct Access {
    alarm: Choice,
}

impl Access {
    /// After the login password.
    #[must_use]
    pub fn usual() -> Self {
        Verdict::login().access()
    }

    /// After the alarm password: an alarm is to be raised, and the session is limited (A5). To be
    /// asked only once the answer to the login has left.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        self.alarm.into()
    }
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        self.is_alarm() == other.is_alarm()
    }
}

impl Eq for Access {}

/// Nothing of it: what prints events prints no alarm.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access(..)")
    }
}

/// Which of the two passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The login password.
    Login,
    /// The alarm password.
    Alarm,
}

/// A salted hash, written as a PHC string.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hashed {
    cost: Cost,
    salt: [u8; SALT_LEN],
    hash: [u8; PASSWORD_HASH_LEN],
}

impl Hashed {
    fn new(
        hashing: &dyn PasswordHashing,
        cost: Cost,
        password: &PaddedPassword,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, PasswordError> {
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let hash = *hashing.hash(cost, password.expose(), &salt)?;
        Ok(Self { cost, salt, hash })
    }

    /// The hash of a value that is forgotten at once.
    fn of_nothing(
        hashing: &dyn PasswordHashing,
        cost: Cost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, PasswordError> {
        let mut bytes = Zeroizing::new([0; PASSWORD_LEN]);
        rng.fill_bytes(&mut bytes[..]);
        Self::new(hashing, cost, &PaddedPassword(bytes), rng)
    }

    fn is_of(
        &self,
        hashing: &dyn PasswordHashing,
        password: &PaddedPassword,
    ) -> Result<Choice, PasswordError> {
        let hash = hashing.hash(self.cost, password.expose(), &self.salt)?;
        Ok(hash[..].ct_eq(&self.hash[..]))
    }
}

impl From<Hashed> for String {
    fn from(hashed: Hashed) -> Self {
        let params = hashed.cost.params().expect("checked when it was made");
        let params = ParamsString::try_from(&params).expect("numbers fit a PHC string");
        let salt = Salt::new(&hashed.salt).expect("a salt of its length");
        let hash = Output::new(&hashed.hash).expect("a hash of its length");
        let phc = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params,
            salt: Some(salt),
            hash: Some(hash),
        };
        phc.to_string()
    }
}

impl TryFrom<String> for Hashed {
    type Error = PasswordError;

    fn try_from(text: String) -> Result<Self, PasswordError> {
        let wrong = PasswordError::Hash;
        let phc = PasswordHash::new(&text).map_err(|_| wrong)?;
        let params = Params::try_from(&phc).map_err(|_| wrong)?;
        let cost =
            Cost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
        cost.params()?;
        let known: Ident = Algorithm::Argon2id.ident();
        if phc.algorithm != known || phc.version != Some(Version::V0x13.into()) {
            return Err(wrong);
        }
        let salt = phc.salt.ok_or(wrong)?;
        let hash = phc.hash.ok_or(wrong)?;
        Ok(Self {
            cost,
            salt: salt.as_ref().try_into().map_err(|_| wrong)?,
            hash: hash.as_bytes().try_into().map_err(|_| wrong)?,
        })
    }
}

/// Both passwords, as Argon2id hashes in PHC strings. Whether an alarm password is set cannot be
/// seen: without one, there is the hash of a random value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passwords {
    login: Hashed,
    alarm: Hashed,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(..)")
    }
}

impl Passwords {
    /// Sets both; without an alarm password none raises an alarm. Computes two hashes.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn new(
        login: &Secret,
        alarm: Option<&Secret>,
        cost: Cost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, PasswordError> {
        let login = PaddedPassword::new(login)?;
        let alarm = alarm.map(PaddedPassword::new).transpose()?;
        if alarm.as_ref() == Some(&login) {
            return Err(PasswordError::Equal);
        }
        let login = Hashed::new(&Argon2id, cost, &login, rng)?;
        let alarm = match alarm {
            Some(alarm) => Hashed::new(&Argon2id, cost, &alarm, rng)?,
            None => Hashed::of_nothing(&Argon2id, cost, rng)?,
        };
        Ok(Self { login, alarm })
    }

    /// What a password is: two hashes, always both. Takes long: not for a thread that serves
    /// others.
    ///
    /// # Errors
    /// [`PasswordError::Failed`].
    pub fn verify(&self, password: &PaddedPassword) -> Result<Verdict, PasswordError> {
        self.verify_by(&Argon2id, password)
    }

    /// The same by another way of hashing: for tests that count.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_by(
        &self,
        hashing: &dyn PasswordHashing,
        password: &PaddedPassword,
    ) -> Result<Verdict, PasswordError> {
        // Both before either is looked at, also where one could not be computed.
        let login = self.login.is_of(hashing, password);
        let alarm = self.alarm.is_of(hashing, password);
        let (login, alarm) = (login?, alarm?);
        // Login wins where both fit, which setting them prevents.
        Ok(Verdict { right: login | alarm, alarm: alarm & !login })
    }

    /// Changes one of them for who knows it. To be counted by [`Lockout`] as a login is.
    ///
    /// # Errors
    /// [`PasswordError`]; nothing is changed then.
    pub fn change(
        &mut self,
        which: Which,
        old: &Secret,
        new: &Secret,
        cost: Cost,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PasswordError> {
        let old = PaddedPassword::new(old).map_err(|_| PasswordError::Wrong)?;
        let verdict = self.verify(&old)?;
        let fits = match which {
            Which::Login => verdict.right & !verdict.alarm,
            Which::Alarm => verdict.alarm,
        };
        if !bool::from(fits) {
            return Err(PasswordError::Wrong);
        }
        self.reset(which, Some(new), cost, rng)
    }

    /// Sets one of them anew, as the owner may at the manager itself. `None` takes the alarm
    /// password away; a login password there always is.
    ///
    /// # Errors
    /// [`PasswordError`]; nothing is changed then.
    pub fn reset(
        &mut self,
        which: Which,
        new: Option<&Secret>,
        cost: Cost,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PasswordError> {
        let new = new.map(PaddedPassword::new).transpose()?;
        let (place, other) = match which {
            Which::Login => (&mut self.login, &self.alarm),
            Which::Alarm => (&mut self.alarm, &self.login),
        };
        let hashed = match (&new, which) {
            (Some(new), _) => {
                if bool::from(other.is_of(&Argon2id, new)?) {
                    return Err(PasswordError::Equal);
                }
                Hashed::new(&Argon2id, cost, new, rng)?
            }
            (None, Which::Alarm) => Hashed::of_nothing(&Argon2id, cost, rng)?,
            (None, Which::Login) => return Err(PasswordError::Form),
        };
        *place = hashed;
        Ok(())
    }
}

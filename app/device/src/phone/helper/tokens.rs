//! The tokens by which the page proves that its user was shown the helper's URL.

use countersign_crypto::{CryptoRng, Secret};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::HelperError;

/// Bytes of randomness in a token.
const TOKEN_LEN: usize = 32;
/// Wrong tokens after which a helper ends.
pub const WRONG_TOKENS_MAX: u32 = 5;

/// The one token that is good now.
pub(super) struct Tokens {
    current: Zeroizing<String>,
    wrong: u32,
    rng: Box<dyn CryptoRng + Send>,
}

/// What became of a token that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// It was good, and is used up.
    Good,
    /// It was not.
    Wrong,
    /// It was not, and it was one too many: none is good any more.
    Ended,
}

impl Tokens {
    pub(super) fn new(rng: Box<dyn CryptoRng + Send>) -> Result<Self, HelperError> {
        let mut tokens = Self { current: Zeroizing::default(), wrong: 0, rng };
        tokens.renew()?;
        Ok(tokens)
    }

    fn renew(&mut self) -> Result<(), HelperError> {
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        self.rng.try_fill_bytes(&mut *bytes).map_err(|_| HelperError::Random)?;
        self.current = Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes));
        Ok(())
    }

    pub(super) fn current(&self) -> &str {
        &self.current
    }

    /// Takes a token. A good one is replaced by the next; each wrong one counts, for good.
    pub(super) fn present(&mut self, token: &Secret) -> Result<Presented, HelperError> {
        if self.wrong >= WRONG_TOKENS_MAX {
            return Ok(Presented::Ended);
        }
        if token.ct_eq(self.current.as_bytes()) {
            self.renew()?;
            return Ok(Presented::Good);
        }
        self.wrong += 1;
        Ok(if self.wrong >= WRONG_TOKENS_MAX { Presented::Ended } else { Presented::Wrong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(Box::new(testkit::rng::seeded(1))).unwrap()
    }

    fn sent(text: &str) -> Secret {
        Secret::copied_from(text.as_bytes())
    }

    #[test]
    fn a_token_works_once() {
        let mut tokens = tokens();
        let first = tokens.current().to_owned();
        assert_eq!(first.len(), 43);
        assert_eq!(tokens.present(&sent(&first)).unwrap(), Presented::Good);
        assert_ne!(tokens.current(), first);
        assert_eq!(tokens.present(&sent(&first)).unwrap(), Presented::Wrong);
        let next = tokens.current().to_owned();
        assert_eq!(tokens.present(&sent(&next)).unwrap(), Presented::Good);
    }

    #[test]
    fn the_fifth_wrong_one_ends_it_whatever_comes_between_and_after() {
        let mut tokens = tokens();
        for wrong in ["", "x", &"A".repeat(43), "\0"] {
            assert_eq!(tokens.present(&sent(wrong)).unwrap(), Presented::Wrong);
            let good = tokens.current().to_owned();
            assert_eq!(tokens.present(&sent(&good)).unwrap(), Presented::Good);
        }
        assert_eq!(tokens.present(&sent("y")).unwrap(), Presented::Ended);
        let good = tokens.current().to_owned();
        assert_eq!(tokens.present(&sent(&good)).unwrap(), Presented::Ended);
    }
}

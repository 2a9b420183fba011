//! What a receiver keeps between messages.

use alloc::vec::Vec;

use countersign_crypto::UnixTime;

use crate::reader::{DerError, Element, Walker, tag, tlv, unsigned};
use crate::token::Nonce;
use crate::{Certificate, CrlSeen, Error, Leniency};

/// Most revocation lists that are remembered, one for each certification authority.
pub const CRLS_MAX: usize = 8;
/// Longest encoding, in bytes.
pub const STATE_MAX: usize = 32 * 1024;
/// Version of the encoding.
const VERSION: u8 = 1;

/// A request that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// `R_KRD`.
    pub nonce: Nonce,
    /// Until when an answer is taken.
    pub expires: UnixTime,
}

/// What a receiver keeps between messages. Each step returns the next state, which its owner
/// stores in the same transaction as what the step brought: a key, a binding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The certificate of the KDH that is bound. It was verified when it was bound.
    pub(super) kdh: Option<Certificate>,
    pub(super) outstanding: Option<Outstanding>,
    pub(super) crls: Vec<CrlSeen>,
    /// The latest signing time of a key token of one pass. Outlives a binding, so that no old
    /// token is taken after unbinding and binding again.
    pub(super) key_signed: Option<UnixTime>,
    /// The latest signing time of a token of the certification authority.
    pub(super) ca_signed: Option<UnixTime>,
}

impl State {
    /// Bound to this KDH, and waiting, where it says so: for tools that look at one token. Every
    /// step verifies the certificate against the pinned authorities all the same.
    #[must_use]
    pub fn assumed(kdh: Certificate, outstanding: Option<Outstanding>) -> Self {
        Self { kdh: Some(kdh), outstanding, ..Self::default() }
    }

    /// The KDH that is bound.
    #[must_use]
    pub const fn kdh(&self) -> Option<&Certificate> {
        self.kdh.as_ref()
    }

    /// The request that waits for its answer.
    #[must_use]
    pub const fn outstanding(&self) -> Option<&Outstanding> {
        self.outstanding.as_ref()
    }

    /// The revocation lists that were seen last.
    #[must_use]
    pub fn crls(&self) -> &[CrlSeen] {
        &self.crls
    }

    /// The lists that were seen, with this one in the place of an earlier one. An authority that is
    /// not pinned may be pinned again, so its list is forgotten only for want of room.
    pub(super) fn with_seen(
        &self,
        seen: CrlSeen,
        pinned: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<CrlSeen>, Error> {
        let others = self.crls.iter().filter(|known| known.issuer() != seen.issuer());
        let mut crls: Vec<CrlSeen> = others.cloned().collect();
        if crls.len() >= CRLS_MAX {
            crls.retain(|known| pinned(known.issuer()));
        }
        if crls.len() >= CRLS_MAX {
            return Err(Error::TooMany);
        }
        crls.push(seen);
        Ok(crls)
    }

    /// For storage. Nothing in it is secret, but it must not be altered: seal it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let octets = |bytes: &[u8]| tlv(tag::OCTET_STRING, &[bytes]);
        let time = |time: UnixTime| unsigned(&time.as_millis().to_be_bytes());
        let field = |number: u8, content: Option<Vec<u8>>| {
            content
                .map_or_else(Vec::new, |content| tlv(tag::context_constructed(number), &[&content]))
        };
        let outstanding = self
            .outstanding
            .as_ref()
            .map(|it| [octets(it.nonce.as_bytes()), time(it.expires)].concat());
        let crls: Vec<u8> = self.crls.iter().flat_map(|seen| octets(&seen.to_bytes())).collect();
        tlv(
            tag::SEQUENCE,
            &[
                &unsigned(&[VERSION]),
                &field(0, self.kdh.as_ref().map(|kdh| kdh.raw().to_vec())),
                &field(1, outstanding),
                &field(2, Some(crls)),
                &field(3, self.key_signed.map(time)),
                &field(4, self.ca_signed.map(time)),
            ],
        )
    }

    /// From storage. `leniency` is what the certificate was accepted with.
    ///
    /// # Errors
    /// [`Error::State`] unless [`Self::to_bytes`] wrote it; [`Error::Certificate`].
    pub fn from_bytes(bytes: &[u8], leniency: Leniency) -> Result<Self, Error> {
        if bytes.len() > STATE_MAX {
            return Err(Error::State);
        }
        let mut inside = Walker::single(bytes, tag::SEQUENCE)
            .and_then(|state| state.inside())
            .map_err(|_| Error::State)?;
        let state = Self::read(&mut inside).map_err(|_| Error::State)?;
        let (certificate, state) = state;
        let kdh = certificate.map(|der| Certificate::parse_with(der, leniency)).transpose()?;
        Ok(Self { kdh, ..state })
    }

    fn read<'a>(inside: &mut Walker<'a>) -> Result<(Option<&'a [u8]>, Self), DerError> {
        if inside.element(tag::INTEGER)?.small()? != VERSION {
            return Err(DerError::Value);
        }
        let certificate = inside.optional(tag::context_constructed(0))?;
        let outstanding = match inside.optional(tag::context_constructed(1))? {
            Some(field) => {
                let mut field = field.inside()?;
                let nonce = field.element(tag::OCTET_STRING)?.content;
                let nonce = Nonce::new(nonce).map_err(|_| DerError::Value)?;
                let expires = time(&field.element(tag::INTEGER)?)?;
                field.end()?;
                Some(Outstanding { nonce, expires })
            }
            None => None,
        };
        let mut list = inside.element(tag::context_constructed(2))?.inside()?;
        let mut crls = Vec::new();
        while !list.is_at_end() {
            if crls.len() == CRLS_MAX {
                return Err(DerError::Value);
            }
            let seen = list.element(tag::OCTET_STRING)?.content;
            crls.push(CrlSeen::from_bytes(seen).ok_or(DerError::Value)?);
        }
        let mut signed = |number: u8| -> Result<Option<UnixTime>, DerError> {
            let Some(field) = inside.optional(tag::context_constructed(number))? else {
                return Ok(None);
            };
            let mut field = field.inside()?;
            let at = time(&field.element(tag::INTEGER)?)?;
            field.end()?;
            Ok(Some(at))
        };
        let (key_signed, ca_signed) = (signed(3)?, signed(4)?);
        inside.end()?;
        let state = Self { kdh: None, outstanding, crls, key_signed, ca_signed };
        Ok((certificate.map(|field| field.content), state))
    }
}

fn time(element: &Element<'_>) -> Result<UnixTime, DerError> {
    let octets = element.unsigned()?;
    if octets.len() > 8 {
        return Err(DerError::Value);
    }
    let millis = octets.iter().fold(0_u64, |sum, octet| sum << 8 | u64::from(*octet));
    Ok(UnixTime::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let nonce = Nonce::new(&[7; 16]).unwrap();
        let full = State {
            outstanding: Some(Outstanding { nonce, expires: UnixTime::from_millis(1_234_567) }),
            key_signed: Some(UnixTime::from_secs(1_700_000_000)),
            ca_signed: Some(UnixTime::from_millis(0)),
            ..State::default()
        };
        for state in [State::default(), full] {
            let bytes = state.to_bytes();
            assert_eq!(State::from_bytes(&bytes, Leniency::STRICT).unwrap(), state);
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(State::from_bytes(&longer, Leniency::STRICT), Err(Error::State));
            let shorter = &bytes[..bytes.len() - 1];
            assert_eq!(State::from_bytes(shorter, Leniency::STRICT), Err(Error::State));
        }
    }

    /// What was seen of the authority with this name.
    fn seen(name: u8, number: u8) -> CrlSeen {
        let mut bytes = vec![0; 29];
        (bytes[0], bytes[20]) = (1, number);
        bytes.extend(tlv(tag::SEQUENCE, &[&[tag::NULL, 0].repeat(usize::from(name))]));
        CrlSeen::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn lists_of_authorities_that_are_not_pinned_make_room_last() {
        let mut state = State::default();
        for name in 0..8 {
            state.crls = state.with_seen(seen(name, 1), |_| false).unwrap();
        }
        assert_eq!(state.crls.len(), CRLS_MAX, "there was room");
        let newer = state.with_seen(seen(3, 2), |_| false).unwrap();
        assert_eq!(newer.len(), CRLS_MAX);
        assert!(newer.contains(&seen(3, 2)) && !newer.contains(&seen(3, 1)));
        let (first, ninth) = (seen(0, 1), seen(8, 1));
        let made = state.with_seen(ninth.clone(), |issuer| issuer == first.issuer()).unwrap();
        assert_eq!(made, [first, ninth.clone()]);
        assert_eq!(state.with_seen(ninth, |_| true), Err(Error::TooMany));
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = State::from_bytes(&bytes, Leniency::FOREIGN);
        }
    }
}

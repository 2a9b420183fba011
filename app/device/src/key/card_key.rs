//! A card behind a link as a security device (D3): the phone's side of the conversation.

use countersign_crypto::{CryptoRng, Secret};
use countersign_iso7816::CardLink;
use countersign_payment::ConfirmationRequest;
use countersign_payment::card::{CardClient, CardError, CardInfo, Method, PinEntry, Tries};
use countersign_pki::Role;

use super::{DeviceAnswer, Holder, KeyError, SecurityDevice, ShownBy};

/// A card that is reached over `L`.
pub struct CardKey<L: CardLink> {
    client: CardClient<L>,
    info: CardInfo,
}

impl<L: CardLink> CardKey<L> {
    /// Finds the application on the card and asks what it is.
    ///
    /// # Errors
    /// [`KeyError::Card`]: [`CardError::NotOurs`] for a card of someone else's, or the link's;
    /// [`KeyError::OtherCard`] if it names itself otherwise than its certificate does.
    pub fn new(link: L) -> Result<Self, KeyError> {
        let mut client = CardClient::new(link);
        client.select()?;
        let info = client.info()?;
        // Its holder is told the serial number, so that it has to be the one that will count.
        if info.method == Method::Pki {
            let der = client.certificate()?.ok_or(KeyError::OtherCard)?;
            let certified = countersign_pki::identity(&der).map_err(KeyError::Pki)?;
            if certified.role() != Role::SecurityDevice || certified.id() != info.serial {
                return Err(KeyError::OtherCard);
            }
        }
        Ok(Self { client, info })
    }

    /// What the card says of itself.
    #[must_use]
    pub const fn info(&self) -> &CardInfo {
        &self.info
    }

    /// Tries that are left.
    ///
    /// # Errors
    /// [`KeyError::Card`].
    pub fn tries(&mut self) -> Result<Tries, KeyError> {
        Ok(self.client.tries()?)
    }

    /// Its certificate, DER; `None` for a device that makes dynamic passwords.
    ///
    /// # Errors
    /// [`KeyError::Card`].
    pub fn certificate(&mut self) -> Result<Option<Vec<u8>>, KeyError> {
        Ok(self.client.certificate()?)
    }

    /// Whether the card takes a PIN and a PUK from here.
    ///
    /// # Errors
    /// [`CardError::Keypad`].
    pub const fn check_host_entry(&self) -> Result<(), KeyError> {
        match self.info.pin_entry {
            PinEntry::Host => Ok(()),
            PinEntry::Keypad => Err(KeyError::Card(CardError::Keypad)),
        }
    }

    /// Changes the PIN of a card without a keypad.
    ///
    /// # Errors
    /// [`KeyError::PinForm`], [`KeyError::PinWrong`], [`KeyError::PinBlocked`],
    /// [`KeyError::Card`], [`CardError::Keypad`] among them.
    pub fn change_pin(&mut self, old: &Secret, new: &Secret) -> Result<(), KeyError> {
        self.again()?;
        Ok(self.client.change_pin(old, new)?)
    }

    /// Sets a new PIN for the PUK, of a card without a keypad whose PIN is blocked.
    ///
    /// # Errors
    /// [`KeyError::PinForm`], [`KeyError::PukWrong`], [`KeyError::PukBlocked`],
    /// [`KeyError::Card`], [`CardError::Keypad`] and [`CardError::PinNotBlocked`] among them.
    pub fn unblock(&mut self, puk: &Secret, new: &Secret) -> Result<(), KeyError> {
        self.again()?;
        Ok(self.client.unblock(puk, new)?)
    }

    /// The link, to do to it what happens to cards.
    pub const fn link_mut(&mut self) -> &mut L {
        self.client.link_mut()
    }

    /// Selects it again: it may have been away, and another card may lie there.
    fn again(&mut self) -> Result<(), KeyError> {
        self.client.select()?;
        if self.client.info()? == self.info { Ok(()) } else { Err(KeyError::OtherCard) }
    }
}

impl<L: CardLink> SecurityDevice for CardKey<L> {
    fn serial(&self) -> &str {
        &self.info.serial
    }

    /// The card has a display of its own where it has a keypad.
    fn shown_by(&self) -> ShownBy {
        match self.info.pin_entry {
            PinEntry::Keypad => ShownBy::Device,
            PinEntry::Host => ShownBy::Host,
        }
    }

    /// With a keypad on the card, its holder is asked there and not here.
    fn confirm(
        &mut self,
        request: &[u8],
        holder: &mut dyn Holder,
        _rng: &mut dyn CryptoRng,
    ) -> Result<DeviceAnswer, KeyError> {
        // A carrier's look only: the card parses the bytes itself.
        let parsed = ConfirmationRequest::parse(request).map_err(KeyError::Request)?;
        self.again()?;
        if self.client.tries()?.pin == 0 {
            return Err(KeyError::PinBlocked);
        }
        self.client.load(request)?;
        match self.info.pin_entry {
            PinEntry::Host => {
                let pin = holder.asked(&parsed.lines())?.ok_or(KeyError::Declined)?;
                self.client.verify(&pin)?;
            }
            PinEntry::Keypad => holder.sent_to_device(),
        }
        let answer = self.client.sign()?;
        let (method, serial) = (self.info.method.into(), self.info.serial.clone());
        DeviceAnswer::of(method, serial, answer).ok_or(KeyError::Card(CardError::Malformed))
    }
}

impl From<CardError> for KeyError {
    fn from(error: CardError) -> Self {
        match error {
            CardError::PinWrong { left } => Self::PinWrong { left: left.into() },
            CardError::PinBlocked => Self::PinBlocked,
            CardError::PukWrong { left } => Self::PukWrong { left: left.into() },
            CardError::PukBlocked => Self::PukBlocked,
            CardError::PukAbsent => Self::PukAbsent,
            CardError::Declined => Self::Declined,
            other => Self::Card(other),
        }
    }
}

//! A card in a terminal's reader.

use std::fmt;

use countersign_crypto::{Provider, aws_lc};
use countersign_iso7816::CardLink;
use countersign_payment::card::Tries;
use countersign_payment::joint::card::{JointClient, JointInfo, Signed};
use countersign_payment::joint::{Commitment, Form, JointPassword, verify_signature};
use countersign_pki::{Role, certified_point};

use super::{Announced, JointError};

/// What a card signed for a payment: all that the server wants but the joint password. Kept by the
/// terminal until the payer has given that; it is worth nothing without.
pub struct CardSigned {
    payment: String,
    serial: String,
    transaction: Vec<u8>,
    signed: Signed,
    provider: Provider,
}

impl CardSigned {
    /// `pay_…`.
    #[must_use]
    pub fn payment(&self) -> &str {
        &self.payment
    }

    /// The card's serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The bytes that were signed.
    #[must_use]
    pub fn transaction(&self) -> &[u8] {
        &self.transaction
    }

    /// The form of what commits the card to its joint password.
    #[must_use]
    pub fn form(&self) -> Form {
        self.signed.commitment.form()
    }

    /// What commits the card to its joint password.
    #[must_use]
    pub const fn commitment(&self) -> &Commitment {
        &self.signed.commitment
    }

    /// Asks a card at a contactless reader for the joint password (B7), after its holder has
    /// consented at the card. Given once, to whoever has the signature; another card than the one
    /// that signed refuses.
    ///
    /// # Errors
    /// [`JointError::Card`]: while its holder has not consented yet the check is `card-consent`,
    /// and it may be asked again.
    pub fn fetch_password<L: CardLink>(&self, link: L) -> Result<JointPassword, JointError> {
        let mut client = JointClient::new(link);
        client.select()?;
        Ok(client.release(&*self.provider.hash, &self.signed)?)
    }

    /// The signature over transaction and commitment, as the suite's signatures are (DER).
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signed.signature
    }
}

impl fmt::Debug for CardSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CardSigned");
        shown.field("payment", &self.payment).field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// A signing card in a terminal's contact reader, which is reached over `L`. At a contactless one
/// it only gives its joint password: [`CardSigned::fetch_password`].
pub struct TerminalCard<L: CardLink> {
    client: JointClient<L>,
    info: JointInfo,
    /// Its certificate, DER, unverified.
    certificate: Vec<u8>,
}

impl<L: CardLink> TerminalCard<L> {
    /// Finds the application on the card and asks what it is. A terminal does not verify the
    /// card's certificate, the server does; it looks whether the card is the one that it says.
    ///
    /// # Errors
    /// [`JointError::Card`]: for a card of someone else's, or of the link's;
    /// [`JointError::NotEnrolled`]; [`JointError::OtherCard`], [`JointError::Certificate`] for one
    /// that names itself otherwise than its certificate does.
    pub fn new(link: L) -> Result<Self, JointError> {
        let mut client = JointClient::new(link);
        client.select()?;
        let info = client.info()?;
        let certificate = client.certificate()?.ok_or(JointError::NotEnrolled)?;
        let certified = countersign_pki::identity(&certificate).map_err(JointError::Certificate)?;
        if certified.role() != Role::SecurityDevice || certified.id() != info.serial {
            return Err(JointError::OtherCard);
        }
        Ok(Self { client, info, certificate })
    }

    /// What the card says of itself.
    #[must_use]
    pub const fn info(&self) -> &JointInfo {
        &self.info
    }

    /// The number of the account that the card pays from; empty if it does not say.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.info.account
    }

    /// Its certificate, DER, unverified.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Tries of PIN and PUK that are left.
    ///
    /// # Errors
    /// [`JointError::Card`].
    pub fn tries(&mut self) -> Result<Tries, JointError> {
        Ok(self.client.tries()?)
    }

    /// Has the card sign what was announced (B1–B5), in the server's favourite form of those that
    /// the card has and that are among `forms`. The card then wants to be taken out: its joint
    /// password it shows to its holder only, after the PIN.
    ///
    /// # Errors
    /// [`JointError::NoForm`]; [`JointError::CardSignature`] from a card whose signature nobody
    /// could verify; [`JointError::Card`]: take the card out then and begin again with
    /// [`Self::new`].
    pub fn sign(
        &mut self,
        announced: &Announced,
        forms: &[Form],
    ) -> Result<CardSigned, JointError> {
        let has = |form: &&Form| forms.contains(form) && self.info.forms.contains(form);
        let form = *announced.forms().iter().find(has).ok_or(JointError::NoForm)?;
        let transaction = announced.transaction().to_vec();
        self.client.put_transaction(&transaction)?;
        let signed = self.client.sign(form)?;
        let provider = self.check(&transaction, &signed)?;
        let (payment, serial) = (announced.payment().to_owned(), self.info.serial.clone());
        Ok(CardSigned { payment, serial, transaction, signed, provider })
    }

    /// The link.
    pub const fn link_mut(&mut self) -> &mut L {
        self.client.link_mut()
    }

    /// Finds it here rather than at the server, when the payer has long consented.
    fn check(&self, transaction: &[u8], signed: &Signed) -> Result<Provider, JointError> {
        let suite = self.info.suite;
        let provider = aws_lc::provider_of(suite).ok_or(JointError::Suite(suite))?;
        let point =
            certified_point(&provider, &self.certificate).map_err(JointError::Certificate)?;
        let key = provider.signature.public_key(&point).map_err(|_| JointError::CardSignature)?;
        let Signed { commitment, signature } = signed;
        verify_signature(&*key, &*provider.hash, transaction, commitment, signature)
            .map_err(|_| JointError::CardSignature)?;
        Ok(provider)
    }
}

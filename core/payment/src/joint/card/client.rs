use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str;

use countersign_crypto::{Hash, Suite};
use countersign_iso7816::{CardLink, Status, Terminal, tlv};
use countersign_pki::Role;
use zeroize::Zeroizing;

use super::{AID, JointInfo, LABEL, Phase, VERSION, instruction, parameter, tag};
use crate::card::client::{id, refused, select, transmit};
use crate::card::{CardError, Tries, instruction as basic, parameter as object};
use crate::joint::{Commitment, Form, JointPassword, SIGNATURE_MAX, release_hash};
use crate::{AccountNumber, REQUEST_MAX};

/// What a card handed out for a transaction. Alone it proves nothing: the joint password is
/// missing, which the card gives out after its holder's consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The commitment to the joint password.
    pub commitment: Commitment,
    /// The signature (DER) over the transaction and the commitment.
    pub signature: Vec<u8>,
}

/// Whoever talks to a signing card: the terminal, with the card in its contact reader and, later,
/// at its contactless one. Blocking.
///
/// In the contact reader the order is [`select`](Self::select),
/// [`put_transaction`](Self::put_transaction), [`sign`](Self::sign); at the contactless one
/// `select`, [`release`](Self::release). After an error of the link, all begins again with
/// `select`, and a transaction that was not signed with `put_transaction`.
#[derive(Debug)]
pub struct JointClient<L> {
    terminal: Terminal<L>,
}

impl<L: CardLink> JointClient<L> {
    /// Over this link; sends nothing yet.
    #[must_use]
    pub const fn new(link: L) -> Self {
        Self { terminal: Terminal::new(link) }
    }

    /// The link.
    pub const fn link_mut(&mut self) -> &mut L {
        self.terminal.link_mut()
    }

    /// Gives the link back.
    #[must_use]
    pub fn into_link(self) -> L {
        self.terminal.into_link()
    }

    /// Selects the application. A transaction that was not signed is gone; a joint password that
    /// waits is not.
    ///
    /// # Errors
    /// [`CardError::NotOurs`], [`CardError::Link`], [`CardError::Malformed`].
    pub fn select(&mut self) -> Result<(), CardError> {
        select(&mut self.terminal, &AID, LABEL)
    }

    /// What the card says of itself, unverified: whether it fits its certificate is for the caller.
    /// In a contact reader only, as are the next two.
    ///
    /// # Errors
    /// [`CardError::Link`], [`CardError::Malformed`], [`CardError::OutOfOrder`] before `select` and
    /// without contact.
    pub fn info(&mut self) -> Result<JointInfo, CardError> {
        let serial = self.data_object(object::SERIAL)?;
        let info = self.data_object(object::INFO)?;
        read_info(&serial, &info).ok_or(CardError::Malformed)
    }

    /// Tries that are left of PIN and PUK.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn tries(&mut self) -> Result<Tries, CardError> {
        match self.data_object(object::TRIES)?[..] {
            [pin, puk] => Ok(Tries { pin, puk }),
            _ => Err(CardError::Malformed),
        }
    }

    /// The card's certificate (DER), unverified; none before it is enrolled.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn certificate(&mut self) -> Result<Option<Vec<u8>>, CardError> {
        match self.data_object(object::CERTIFICATE) {
            Ok(der) if der.is_empty() => Err(CardError::Malformed),
            Ok(der) => Ok(Some(der)),
            Err(CardError::Status(word)) if Status::new(word) == Status::NO_DATA_OBJECT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the card stands: how a terminal sees that it was taken out and what became of it.
    ///
    /// # Errors
    /// As [`Self::info`]; also without contact.
    pub fn state(&mut self) -> Result<Phase, CardError> {
        match self.data_object(parameter::STATE)?[..] {
            [code] => Phase::from_code(code).ok_or(CardError::Malformed),
            _ => Err(CardError::Malformed),
        }
    }

    /// Gives the card the bytes of a confirmation request (B1). What it had before is destroyed,
    /// also a joint password.
    ///
    /// # Errors
    /// [`CardError::RequestRefused`] for bytes that the card could not show; those of
    /// [`Self::info`].
    pub fn put_transaction(&mut self, transaction: &[u8]) -> Result<(), CardError> {
        if transaction.is_empty() || transaction.len() > REQUEST_MAX {
            return Err(CardError::RequestRefused);
        }
        match self.transmit(basic::PUT_DATA, object::REQUEST, transaction, false)? {
            Ok(_) => Ok(()),
            Err(Status::WRONG_DATA) => Err(CardError::RequestRefused),
            Err(status) => Err(refused(status)),
        }
    }

    /// Has the card sign in this form (B3, B4, B5). Once for each transaction; afterwards the card
    /// is to be taken out.
    ///
    /// # Errors
    /// [`CardError::FormRefused`]; [`CardError::PinBlocked`], as its holder could not consent;
    /// those of [`Self::info`].
    pub fn sign(&mut self, form: Form) -> Result<Signed, CardError> {
        let mut template = Vec::new();
        tlv::write(&mut template, tag::ALGORITHM, &[form.code()])
            .map_err(|_| CardError::Malformed)?;
        let (mse, of_signature) =
            (instruction::MANAGE_SECURITY_ENVIRONMENT, parameter::SIGNATURE_TEMPLATE);
        match self.transmit(mse, of_signature, &template, false)? {
            Ok(_) => {}
            Err(Status::WRONG_DATA) => return Err(CardError::FormRefused),
            Err(status) => return Err(refused(status)),
        }
        let sign = basic::PERFORM_SECURITY_OPERATION;
        match self.transmit(sign, object::SIGNATURE, &[], true)? {
            Ok(answer) => read_signed(&answer, form).ok_or(CardError::Malformed),
            Err(Status::BLOCKED) => Err(CardError::PinBlocked),
            Err(Status::WRONG_DATA) => Err(CardError::RequestRefused),
            Err(status) => Err(refused(status)),
        }
    }

    /// Asks the card at the contactless reader for the joint password of what it signed (B7). It
    /// gives it once.
    ///
    /// # Errors
    /// [`CardError::ConsentPending`] as long as its holder has not answered;
    /// [`CardError::Declined`] for a no, or too late an answer; [`CardError::PinBlocked`];
    /// [`CardError::OtherSignature`] if it signed something else, and then nothing is lost;
    /// [`CardError::NothingReleased`]; [`CardError::Link`], [`CardError::Malformed`].
    pub fn release(
        &mut self,
        hash: &dyn Hash,
        signed: &Signed,
    ) -> Result<JointPassword, CardError> {
        let wanted = release_hash(hash, &signed.commitment, &signed.signature);
        let get = instruction::GET_DATA_ODD;
        match self.transmit(get, parameter::RELEASE, &wanted, true)? {
            Ok(digits) => str::from_utf8(&digits)
                .ok()
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
                .and_then(|digits| JointPassword::parse(digits).ok())
                .ok_or(CardError::Malformed),
            Err(Status::SECURITY) => Err(CardError::ConsentPending),
            Err(Status::NOT_ALLOWED) => Err(CardError::Declined),
            Err(Status::BLOCKED) => Err(CardError::PinBlocked),
            Err(Status::WRONG_DATA) => Err(CardError::OtherSignature),
            Err(Status::CONDITIONS) => Err(CardError::NothingReleased),
            Err(status) => Err(refused(status)),
        }
    }

    fn data_object(&mut self, parameters: u16) -> Result<Vec<u8>, CardError> {
        let response = self.transmit(basic::GET_DATA, parameters, &[], true)?;
        response.map(|data| data.to_vec()).map_err(refused)
    }

    /// The data of a response, or its status word.
    fn transmit(
        &mut self,
        instruction: u8,
        parameters: u16,
        data: &[u8],
        expects: bool,
    ) -> Result<Result<Zeroizing<Vec<u8>>, Status>, CardError> {
        transmit(&mut self.terminal, instruction, parameters, data, expects)
    }
}

fn read_signed(answer: &[u8], form: Form) -> Option<Signed> {
    let [commitment, signature] = tlv::exactly(answer, [tag::COMMITMENT, tag::SIGNATURE]).ok()?;
    let commitment = Commitment::parse(commitment).ok()?;
    let fits =
        commitment.form() == form && !signature.is_empty() && signature.len() <= SIGNATURE_MAX;
    fits.then(|| Signed { commitment, signature: signature.to_vec() })
}

fn read_info(serial: &[u8], info: &[u8]) -> Option<JointInfo> {
    let tags = [tag::VERSION, tag::FORMS, tag::SUITE, tag::SERVER, tag::ACCOUNT];
    let [version, codes, suite, server, account] = tlv::exactly(info, tags).ok()?;
    let mut forms = Vec::new();
    for code in codes {
        let form = Form::from_code(*code)?;
        if forms.contains(&form) {
            return None;
        }
        forms.push(form);
    }
    if version != [VERSION] || forms.is_empty() {
        return None;
    }
    Some(JointInfo {
        serial: id(serial, Role::SecurityDevice)?,
        forms,
        suite: Suite::from_name(str::from_utf8(suite).ok()?)?,
        server_id: if server.is_empty() { String::new() } else { id(server, Role::Server)? },
        account: match str::from_utf8(account).ok()? {
            "" => String::new(),
            number => AccountNumber::parse(number).ok()?.as_str().to_string(),
        },
    })
}

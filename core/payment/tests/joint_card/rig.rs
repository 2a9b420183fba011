//! A signing card in memory, its holder, its server, and time.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{
    CryptoRng, DecryptionKey, Hash, Provider, Secret, SecureElement, Suite, UnixTime, VerifyingKey,
    provider_of,
};
use countersign_iso7816::{CardMachine, InProcess, Response, Status};
use countersign_payment::card::{ChipError, Tries};
use countersign_payment::joint::card::{
    AID, ConfirmError, Interface, JointCard, JointChip, JointClient, JointInfo, Phase, Signed, View,
};
use countersign_payment::joint::{
    Commitment, Form, JointPassword, Opener, SealTo, commit, release_hash, sign, verify_password,
    verify_signature,
};
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest, Line};
use testkit::pki::NOW;
use testkit::rng::{ChaCha20Rng, seeded};

pub(crate) const P256: Suite = Suite::X25519_P256_AES128GCM_SHA256;
pub(crate) const SM2: Suite = Suite::SM2_SM4GCM_SM3;
pub(crate) const PIN: &str = "135790";
pub(crate) const WRONG_PIN: &str = "246801";
pub(crate) const PIN_TRIES: u8 = 3;
pub(crate) const SERIAL: &str = "SC-1";

pub(crate) const SIGN: &[u8] = &[0, 0x2a, 0x9e, 0x9a, 0, 0, 0];
pub(crate) const STATE: &[u8] = &[0, 0xca, 0xdf, 6, 0];

pub(crate) fn secret(digits: &str) -> Secret {
    Secret::copied_from(digits.as_bytes())
}

/// Bytes of a transaction of so many yuan.
pub(crate) fn transaction(yuan: u32) -> Vec<u8> {
    let account = |number| AccountNumber::parse(number).unwrap();
    let request = ConfirmationRequest {
        server: "Bank of Example".into(),
        payment: format!("pay_{yuan}"),
        payer_account: account("6222021234567890123"),
        payee_account: account("DE89370400440532013000"),
        payee_name: "Müller & Söhne GmbH".into(),
        order: "订单 2026-117".into(),
        amount: Amount::parse(&format!("{yuan}.00"), "CNY").unwrap(),
        expires: NOW.plus(Duration::from_secs(300)),
        initiator: "till 4".into(),
        alerts: vec!["new-payee".into()],
    };
    request.to_bytes().unwrap()
}

pub(crate) fn lines(transaction: &[u8]) -> Vec<Line> {
    ConfirmationRequest::parse(transaction).unwrap().lines()
}

pub(crate) struct SoftChip {
    provider: Provider,
    key: Arc<dyn SecureElement>,
    server_point: Vec<u8>,
    shared: Secret,
    pub(crate) info: JointInfo,
    pub(crate) tries: Tries,
    /// The joint passwords of what it signed.
    pub(crate) passwords: Vec<String>,
    /// It fails at the next signature.
    pub(crate) is_broken: bool,
}

impl JointChip for SoftChip {
    fn info(&self) -> JointInfo {
        self.info.clone()
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        (!self.info.server_id.is_empty()).then(|| vec![0x30; 700])
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(self.tries)
    }

    fn hash(&self) -> &dyn Hash {
        &*self.provider.hash
    }

    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError> {
        if self.is_broken {
            return Err(ChipError::Failed("worn out".into()));
        }
        let to = SealTo { server_point: &self.server_point, shared: &self.shared };
        let commitment =
            commit(&self.provider, rng, form, &self.info.serial, transaction, password, &to)?;
        let signature = sign(&*self.key, rng, self.hash(), transaction, &commitment)?;
        self.passwords.push(password.digits().into());
        Ok((commitment, signature))
    }

    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError> {
        if !(4..=12).contains(&pin.len()) {
            return Err(ChipError::PinForm);
        }
        self.tries.pin = self.tries.pin.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !pin.ct_eq(PIN.as_bytes()) {
            return Err(ChipError::PinWrong { left: self.tries.pin });
        }
        self.tries.pin = PIN_TRIES;
        Ok(())
    }
}

pub(crate) type Card = JointCard<SoftChip>;

/// A signing card, its holder and its server.
pub(crate) struct Rig {
    pub(crate) machine: CardMachine<Card>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: UnixTime,
    pub(crate) provider: Provider,
    public: Arc<dyn VerifyingKey>,
    server: Arc<dyn DecryptionKey>,
    shared: Secret,
}

impl Rig {
    /// A card in a terminal's reader.
    pub(crate) fn new(suite: Suite) -> Self {
        let provider = provider_of(suite).unwrap();
        let mut rng = seeded(7);
        let key = provider.signature.generate(&mut rng).unwrap().key;
        let public = provider.signature.public_key(key.public_key()).unwrap();
        let server = provider.sealing.generate(&mut rng).unwrap().key;
        let shared = || Secret::new(vec![9; 32]);
        let chip = SoftChip {
            provider: provider.clone(),
            key,
            server_point: server.public_key().to_vec(),
            shared: shared(),
            info: JointInfo {
                serial: SERIAL.into(),
                forms: vec![Form::SealedRandom, Form::Sealed, Form::Digest],
                suite,
                server_id: "server-1".into(),
                account: "6222021234567890123".into(),
            },
            tries: Tries { pin: PIN_TRIES, puk: 10 },
            passwords: Vec::new(),
            is_broken: false,
        };
        let machine = CardMachine::new(JointCard::new(chip));
        let mut rig = Self { machine, rng, now: NOW, provider, public, server, shared: shared() };
        rig.insert();
        rig
    }

    pub(crate) fn p256() -> Self {
        Self::new(P256)
    }

    /// In its holder's hand, with the question about so many yuan.
    pub(crate) fn asking(form: Form, yuan: u32) -> (Self, Signed) {
        let mut rig = Self::p256();
        let signed = rig.sign(form, yuan);
        rig.take_out();
        assert_eq!(rig.phase(), Phase::Asking);
        (rig, signed)
    }

    /// The same, and its holder has consented.
    pub(crate) fn released(form: Form, yuan: u32) -> (Self, Signed) {
        let (mut rig, signed) = Self::asking(form, yuan);
        rig.confirm(PIN).unwrap();
        (rig, signed)
    }

    pub(crate) fn card(&mut self) -> &mut Card {
        let now = self.now;
        let card = self.machine.application_mut();
        card.tick(now);
        card
    }

    pub(crate) fn chip(&mut self) -> &mut SoftChip {
        self.machine.application_mut().chip_mut()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.machine.application().phase()
    }

    pub(crate) fn insert(&mut self) {
        self.card().set_interface(Interface::Contact);
        self.machine.power();
    }

    pub(crate) fn take_out(&mut self) {
        self.machine.reset();
        self.card().removed();
    }

    /// Held to a contactless reader.
    pub(crate) fn tap(&mut self) {
        self.take_out();
        self.card().set_interface(Interface::Contactless);
        self.machine.power();
    }

    pub(crate) fn confirm(&mut self, pin: &str) -> Result<(), ConfirmError> {
        self.card().confirm(&secret(pin))
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.card();
    }

    pub(crate) fn client(&mut self) -> JointClient<InProcess<'_, Card>> {
        self.card();
        JointClient::new(InProcess::new(&mut self.machine, &mut self.rng))
    }

    /// The whole way to a signature, in the terminal.
    pub(crate) fn sign(&mut self, form: Form, yuan: u32) -> Signed {
        let mut client = self.client();
        client.select().unwrap();
        client.put_transaction(&transaction(yuan)).unwrap();
        client.sign(form).unwrap()
    }

    /// The digits on its display, if they are there.
    pub(crate) fn shown(&mut self) -> Option<String> {
        match self.card().view() {
            View::Password { password, .. } => Some(password.digits().into()),
            _ => None,
        }
    }

    pub(crate) fn raw(&mut self, apdu: &[u8]) -> Response {
        self.card();
        Response::parse(&self.machine.handle(&mut self.rng, apdu)).unwrap()
    }

    /// The status word of an answer without data.
    pub(crate) fn status(&mut self, apdu: &[u8]) -> Status {
        let response = self.raw(apdu);
        assert!(response.data.is_empty(), "data with {}", response.status);
        response.status
    }

    pub(crate) fn select(&mut self) {
        assert_eq!(self.status(&select()), Status::OK);
    }

    pub(crate) fn put(&mut self, transaction: &[u8]) -> Status {
        self.status(&put(transaction))
    }

    pub(crate) fn choose(&mut self, form: Form) -> Status {
        self.status(&choose(form.code()))
    }

    /// RELEASE for what was signed.
    pub(crate) fn release(&mut self, signed: &Signed) -> Response {
        let hash = self.hash_of(signed);
        self.raw(&release(&hash))
    }

    pub(crate) fn hash_of(&self, signed: &Signed) -> [u8; 32] {
        release_hash(&*self.provider.hash, &signed.commitment, &signed.signature)
    }

    /// Whether the server takes this for so many yuan.
    pub(crate) fn is_taken(&self, yuan: u32, signed: &Signed, digits: &str) -> bool {
        let (transaction, commitment) = (transaction(yuan), &signed.commitment);
        let hash = &*self.provider.hash;
        let opener = match commitment.form() {
            Form::Sealed | Form::SealedRandom => Opener::Server(&*self.server),
            Form::Digest => Opener::Shared(&self.shared),
        };
        let password = JointPassword::parse(digits).unwrap();
        verify_signature(&*self.public, hash, &transaction, commitment, &signed.signature).is_ok()
            && verify_password(&self.provider, opener, SERIAL, &transaction, commitment, &password)
                .is_ok()
    }

    /// The whole flow for so many yuan works, whatever came before.
    pub(crate) fn assert_works(&mut self, yuan: u32) {
        self.take_out();
        self.insert();
        let signed = self.sign(Form::Digest, yuan);
        self.take_out();
        assert_eq!(self.shown(), None);
        self.confirm(PIN).unwrap();
        let shown = self.shown().unwrap();
        assert!(self.is_taken(yuan, &signed, &shown));
        self.tap();
        let provider = self.provider.clone();
        let mut client = self.client();
        client.select().unwrap();
        let given = client.release(&*provider.hash, &signed).unwrap();
        assert_eq!(given.digits(), shown);
        assert_eq!(self.phase(), Phase::Idle);
    }
}

pub(crate) fn select() -> Vec<u8> {
    [&[0, 0xa4, 4, 0x0c, 16][..], &AID].concat()
}

/// PUT TRANSACTION in one extended APDU.
pub(crate) fn put(transaction: &[u8]) -> Vec<u8> {
    let len = u16::try_from(transaction.len()).unwrap().to_be_bytes();
    [&[0, 0xda, 0xdf, 0x10, 0][..], &len, transaction].concat()
}

pub(crate) fn choose(code: u8) -> Vec<u8> {
    vec![0, 0x22, 0x41, 0xb6, 3, 0x80, 1, code]
}

pub(crate) fn release(hash: &[u8]) -> Vec<u8> {
    release_expecting(hash, &[0])
}

/// RELEASE with this Le, or none.
pub(crate) fn release_expecting(hash: &[u8], le: &[u8]) -> Vec<u8> {
    let len = u8::try_from(hash.len()).unwrap();
    [&[0, 0xcb, 0xdf, 0x20, len][..], hash, le].concat()
}

/// A generator that is stuck at a byte.
pub(crate) struct Stuck(pub(crate) u8);

impl rand_core::TryRng for Stuck {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        to.fill(self.0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Stuck {}

use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Secret};
use countersign_iso7816::tlv::{self, TlvError};
use countersign_iso7816::{Application, Command, Response, Status};

use super::pin_block::{self, BLOCK_LEN, PUK_LEN};
use super::{
    AID, CardInfo, Chip, ChipError, LABEL, Method, PinEntry, Screen, VERSION, instruction,
    parameter, tag,
};
use crate::{ConfirmationRequest, Line};

/// A confirmation request that was loaded and can be shown.
struct Loaded {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// The application of a security device: what is loaded is parsed and shown, and signed once, for
/// a PIN that was given after it was loaded (D3, D4).
pub struct SecurityDeviceCard<C, S> {
    chip: C,
    screen: S,
    loaded: Option<Loaded>,
    /// A PIN was given for what is loaded.
    is_verified: bool,
}

impl<C: Chip, S: Screen> SecurityDeviceCard<C, S> {
    /// The application on this chip, with this display and keypad.
    #[must_use]
    pub const fn new(chip: C, screen: S) -> Self {
        Self { chip, screen, loaded: None, is_verified: false }
    }

    /// The chip.
    #[must_use]
    pub const fn chip(&self) -> &C {
        &self.chip
    }

    /// The chip, to change it.
    pub const fn chip_mut(&mut self) -> &mut C {
        &mut self.chip
    }

    /// The display and keypad.
    pub const fn screen_mut(&mut self) -> &mut S {
        &mut self.screen
    }

    fn forget_pin(&mut self) {
        self.is_verified = false;
        self.chip.lock();
    }

    fn forget(&mut self) {
        self.loaded = None;
        self.forget_pin();
    }

    fn run(&mut self, command: &Command, rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Status> {
        let takes = |parameters| {
            if command.parameters() == parameters { Ok(()) } else { Err(Status::WRONG_PARAMETERS) }
        };
        match command.ins {
            instruction::GET_DATA => self.data_object(command),
            instruction::PUT_DATA => {
                takes(parameter::REQUEST)?;
                self.load(command.data())
            }
            instruction::VERIFY => {
                takes(parameter::PIN)?;
                self.verify(command.data())
            }
            instruction::PERFORM_SECURITY_OPERATION => {
                takes(parameter::SIGNATURE)?;
                self.sign(command, Method::Pki, rng)
            }
            instruction::INTERNAL_AUTHENTICATE => {
                takes(parameter::NONE)?;
                self.sign(command, Method::Ocra, rng)
            }
            instruction::CHANGE_REFERENCE_DATA => {
                takes(parameter::PIN)?;
                self.check_host_entry()?;
                let (old, new) = two_blocks(command.data())?;
                self.forget_pin();
                done(self.chip.change_pin(&old, &new, rng))
            }
            instruction::RESET_RETRY_COUNTER => {
                takes(parameter::PIN)?;
                self.unblock(command.data(), rng)
            }
            _ => Err(Status::INSTRUCTION),
        }
    }

    /// A card with a keypad takes neither PIN nor PUK from whoever talks to it: its holder would
    /// not know that they are tried.
    fn check_host_entry(&self) -> Result<(), Status> {
        match self.chip.info().pin_entry {
            PinEntry::Host => Ok(()),
            PinEntry::Keypad => Err(Status::UNSUPPORTED),
        }
    }

    /// RESET RETRY COUNTER: of a blocked PIN only, so that nobody uses up the PUK's tries before.
    fn unblock(&mut self, data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Status> {
        self.check_host_entry()?;
        let (puk, new) = two_blocks(data)?;
        if puk.len() != PUK_LEN {
            return Err(Status::WRONG_DATA);
        }
        if self.chip.tries().map_err(|error| error.status())?.pin > 0 {
            return Err(Status::CONDITIONS);
        }
        self.forget_pin();
        done(self.chip.unblock(&puk, &new, rng))
    }

    /// GET DATA: the value of a data object, without its tag and length.
    fn data_object(&self, command: &Command) -> Result<Vec<u8>, Status> {
        if !command.data().is_empty() {
            return Err(Status::WRONG_LENGTH);
        }
        match command.parameters() {
            parameter::SERIAL => Ok(self.chip.info().serial.into_bytes()),
            parameter::INFO => info(&self.chip.info()).map_err(|_| Status::FAILED),
            parameter::TRIES => {
                let tries = self.chip.tries().map_err(|error| error.status())?;
                Ok([tries.pin, tries.puk].into())
            }
            parameter::CERTIFICATE => self.chip.certificate().ok_or(Status::NO_DATA_OBJECT),
            _ => Err(Status::NO_DATA_OBJECT),
        }
    }

    /// Takes what is to be signed. What was loaded before is gone, whatever comes of it.
    fn load(&mut self, request: &[u8]) -> Result<Vec<u8>, Status> {
        self.forget();
        let parsed = ConfirmationRequest::parse(request).map_err(|_| Status::WRONG_DATA)?;
        let lines = parsed.lines();
        if self.chip.info().pin_entry == PinEntry::Host {
            self.screen.shown(&lines);
        }
        self.loaded = Some(Loaded { bytes: request.to_vec(), lines });
        Ok(Vec::new())
    }

    /// VERIFY: a PIN, or without data the question how it stands.
    fn verify(&mut self, data: &[u8]) -> Result<Vec<u8>, Status> {
        if data.is_empty() {
            return match self.chip.tries().map_err(|error| error.status())?.pin {
                _ if self.is_verified => Ok(Vec::new()),
                0 => Err(Status::BLOCKED),
                left => Err(Status::tries(left)),
            };
        }
        self.check_host_entry()?;
        // A PIN is for something that its holder has seen.
        if self.loaded.is_none() {
            return Err(Status::CONDITIONS);
        }
        let pin = block(data)?;
        self.forget_pin();
        done(self.chip.unlock(&pin))?;
        self.is_verified = true;
        Ok(Vec::new())
    }

    /// Signs what is loaded, once.
    fn sign(
        &mut self,
        command: &Command,
        method: Method,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Status> {
        if !command.data().is_empty() {
            return Err(Status::WRONG_LENGTH);
        }
        let info = self.chip.info();
        if info.method != method {
            return Err(Status::UNSUPPORTED);
        }
        let loaded = self.loaded.as_ref().ok_or(Status::CONDITIONS)?;
        match info.pin_entry {
            PinEntry::Host if !self.is_verified => return Err(Status::SECURITY),
            PinEntry::Host => {}
            PinEntry::Keypad => {
                if self.chip.tries().map_err(|error| error.status())?.pin == 0 {
                    return Err(Status::BLOCKED);
                }
                let Some(pin) = self.screen.asked(&loaded.lines) else {
                    self.forget();
                    return Err(Status::NOT_ALLOWED);
                };
                done(self.chip.unlock(&pin))?;
            }
        }
        // Gone before it is signed: nothing is signed twice.
        let loaded = self.loaded.take().ok_or(Status::CONDITIONS)?;
        let signed = self.chip.sign(&loaded.bytes, rng);
        self.forget();
        signed.map_err(|error| error.status())
    }
}

impl<C: Chip, S: Screen> Application for SecurityDeviceCard<C, S> {
    fn aid(&self) -> &[u8] {
        &AID
    }

    fn selected(&mut self) -> Vec<u8> {
        self.forget();
        control_information(&AID, LABEL).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.forget();
    }

    fn handle(&mut self, command: &Command, rng: &mut dyn CryptoRng) -> Response {
        match self.run(command, rng) {
            Ok(data) => Response::ok(data),
            Err(status) => status.into(),
        }
    }
}

fn done(result: Result<(), ChipError>) -> Result<Vec<u8>, Status> {
    result.map(|()| Vec::new()).map_err(|error| error.status())
}

/// A PIN block; one that is none costs no try.
fn block(data: &[u8]) -> Result<Secret, Status> {
    let block = <&[u8; BLOCK_LEN]>::try_from(data).map_err(|_| Status::WRONG_LENGTH)?;
    pin_block::decode(block).ok_or(Status::WRONG_DATA)
}

fn two_blocks(data: &[u8]) -> Result<(Secret, Secret), Status> {
    let (first, second) = data.split_at_checked(BLOCK_LEN).ok_or(Status::WRONG_LENGTH)?;
    let second = <&[u8; BLOCK_LEN]>::try_from(second).map_err(|_| Status::WRONG_LENGTH)?;
    Ok((block(first)?, block(second)?))
}

/// What SELECT answers: a template with the identifier and the label.
pub(crate) fn control_information(aid: &[u8], label: &str) -> Result<Vec<u8>, TlvError> {
    let (mut own, mut template, mut out) = (Vec::new(), Vec::new(), Vec::new());
    tlv::write(&mut own, tag::LABEL, label.as_bytes())?;
    tlv::write(&mut template, tag::NAME, aid)?;
    tlv::write(&mut template, tag::PROPRIETARY, &own)?;
    tlv::write(&mut out, tag::FCI, &template)?;
    Ok(out)
}

fn info(info: &CardInfo) -> Result<Vec<u8>, TlvError> {
    let suite = info.suite.name().ok_or(TlvError)?;
    let mut out = Vec::new();
    tlv::write(&mut out, tag::VERSION, &[VERSION])?;
    tlv::write(&mut out, tag::METHOD, info.method.name().as_bytes())?;
    tlv::write(&mut out, tag::SUITE, suite.as_bytes())?;
    tlv::write(&mut out, tag::PIN_ENTRY, info.pin_entry.name().as_bytes())?;
    tlv::write(&mut out, tag::SERVER, info.server_id.as_bytes())?;
    Ok(out)
}

//! What the terminal does with each token (E2, E3, E6, E8): every check, then one write.

use countersign_crypto::{CryptoRng, UnixTime};
use countersign_injection::message::{
    Binding, CheckValue, CrlNumber, Fingerprint, InjectionId, Installed, KCV_LEN, KeyToken,
};
use countersign_injection::terminal::{Standing, TerminalWork};
use countersign_injection::{Bounded, Name};
use tr31::aws_lc::AwsLc as Ciphers;
use tr34::aws_lc::AwsLc;
use tr34::krd::{Policy, Receiver, Refused, State};
use tr34::{Certificate, IssuingCa, Role, Rsa, token::CtKrd};

use super::kept::{HeldKey, Hex};
use super::{Pos, PosError, own, parse, stored_block};

impl Pos {
    fn receiver<'a>(&'a self, kdh_cas: &'a [Certificate]) -> Receiver<'a> {
        Receiver {
            rsa: &AwsLc,
            ciphers: &Ciphers,
            key: &*self.key,
            certificate: &self.certificate,
            kdh_cas,
            krd_ca: &self.ca_krd,
            policy: Policy::STRICT,
        }
    }

    fn ca_kdh(&self) -> Result<Certificate, PosError> {
        parse(&self.kept.ca_kdh.0)
    }

    /// What the flow begins with.
    pub(super) fn standing(&self) -> Result<Standing, PosError> {
        let ct_krd = CtKrd { certificate: self.certificate.raw() }.encode();
        let pending = self.kept.slots.iter().filter_map(|(slot, kept)| {
            let held = kept.pending.as_ref()?;
            let kcv = CheckValue::new(&held.kcv.0)?;
            Some(Installed { injection: InjectionId::new(&held.injection)?, slot: *slot, kcv })
        });
        Ok(Standing {
            ct_krd: Bounded::new(&ct_krd)
                .ok_or_else(|| PosError::Own("the certificate is too long".to_owned()))?,
            bound: self.receiver.kdh().map(fingerprint),
            pending: pending.collect(),
        })
    }

    /// Binds to the KDH of `CT_KDH` (E2).
    pub(super) fn bind(
        &mut self,
        binding: &Binding,
        now: UnixTime,
    ) -> Result<TerminalWork, PosError> {
        self.bind_by(binding, now, |receiver, state, token| Ok(receiver.bind(state, token, now)?))
    }

    /// Takes another KDH at the word of the one it is bound to.
    pub(super) fn rebind(
        &mut self,
        binding: &Binding,
        now: UnixTime,
    ) -> Result<TerminalWork, PosError> {
        self.bind_by(binding, now, |receiver, state, token| receiver.rebind(state, token, now))
    }

    /// Takes another KDH at the word of the `Sub_CA_KRD` that certified it: the one it is bound to
    /// can sign no more.
    pub(super) fn rebind_by_ca(
        &mut self,
        binding: &Binding,
        now: UnixTime,
    ) -> Result<TerminalWork, PosError> {
        self.bind_by(binding, now, |receiver, state, token| {
            Ok(receiver.rebind_by_ca(state, token, now)?)
        })
    }

    /// Checks a token that binds, under the pinned CAs and the one that comes with it.
    fn bind_by(
        &mut self,
        binding: &Binding,
        now: UnixTime,
        check: impl FnOnce(&Receiver<'_>, &State, &[u8]) -> Result<State, Refused>,
    ) -> Result<TerminalWork, PosError> {
        let cas = match self.cas(binding, now) {
            Ok(cas) => cas,
            Err(check) => return Ok(refused(check)),
        };
        let bound = check(&self.receiver(&cas), &self.receiver, binding.token.as_slice());
        self.bound(&cas, bound, now)
    }

    /// Stores the new binding, and of the pinned CAs the one that it comes from.
    fn bound(
        &mut self,
        cas: &[Certificate],
        bound: Result<State, Refused>,
        now: UnixTime,
    ) -> Result<TerminalWork, PosError> {
        let state = match bound {
            Ok(state) => state,
            Err(error) => return self.refuse(error),
        };
        let kdh = state.kdh().ok_or_else(|| own(tr34::Error::NotBound))?;
        let fingerprint = fingerprint(kdh);
        if let Some(ca) = cas.iter().find(|ca| kdh.verified_by(&AwsLc, ca, now).is_ok()) {
            self.kept.ca_kdh = Hex(ca.raw().to_vec());
        }
        self.receiver = state;
        self.save()?;
        Ok(TerminalWork::Bound(fingerprint))
    }

    /// The pinned `CA_KDH`, and the one that came if it is another: it has to descend from the
    /// pinned root, with the role.
    fn cas(&self, binding: &Binding, now: UnixTime) -> Result<Vec<Certificate>, String> {
        let pinned = self.ca_kdh().map_err(|error| error.check().to_owned())?;
        let came = binding.ca_kdh.as_slice();
        if came == pinned.raw() {
            return Ok(vec![pinned]);
        }
        let named = |error: tr34::CertificateError| error.check().to_owned();
        let came = Certificate::parse(came).map_err(named)?;
        let ca = IssuingCa::verify(&AwsLc, came, &self.root, Role::CaKdh, now).map_err(named)?;
        Ok(vec![pinned, ca.certificate().clone()])
    }

    /// Forgets the KDH at its own word. The keys stay.
    pub(super) fn unbind(&mut self, token: &[u8], now: UnixTime) -> Result<TerminalWork, PosError> {
        let cas = [self.ca_kdh()?];
        match self.receiver(&cas).unbind(&self.receiver, token, now) {
            Ok(state) => {
                self.receiver = state;
                self.save()?;
                Ok(TerminalWork::Unbound)
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Makes `RT_KRD` (E3). Its nonce is stored before it leaves.
    pub(super) fn request(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<TerminalWork, PosError> {
        let cas = [self.ca_kdh()?];
        let made = self.receiver(&cas).request(&self.receiver, rng, now);
        let (request, state) = made.map_err(own)?;
        self.receiver = state;
        self.save()?;
        let request = Bounded::new(&request);
        let request = request.ok_or_else(|| PosError::Own("RT_KRD is too long".to_owned()))?;
        Ok(TerminalWork::Requested { request, crl_seen: self.crl_seen() })
    }

    fn crl_seen(&self) -> CrlNumber {
        let kdh = self.receiver.kdh();
        let seen = self.receiver.crls().iter();
        let number = kdh
            .and_then(|kdh| seen.clone().find(|seen| seen.issuer() == kdh.identity().issuer()))
            .and_then(tr34::CrlSeen::number);
        let octets = number.map(|number| *number.as_bytes()).unwrap_or_default();
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        CrlNumber::new(&octets[zeros..]).expect("a number has at most 20 octets")
    }

    /// Checks `KT_KDH` in the order of E6 and stores the key beside the old one. The check value is
    /// that of the key as it was stored.
    pub(super) fn install(
        &mut self,
        token: &KeyToken,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<TerminalWork, PosError> {
        let cas = [self.ca_kdh()?];
        let received = self.receiver(&cas).receive(&self.receiver, token.token.as_slice(), now);
        let verified = match received {
            Ok(verified) => verified,
            Err(error) => return self.refuse(error),
        };
        let fits = verified.kcv().is_some_and(|kcv| KCV_LEN.contains(&kcv.as_bytes().len()));
        if !fits {
            // Without a check value nobody could confirm it (E7).
            self.receiver = verified.state().clone();
            self.save()?;
            return Ok(refused("kcv-absent"));
        }
        let installation = verified.install();
        let kcv = installation.kcv.map(|kcv| kcv.as_bytes().to_vec()).unwrap_or_default();
        let block = stored_block(&*self.storage, &installation.header, &installation.key, rng)?;
        let held = HeldKey::new(token.injection.as_str(), block, &kcv, now);
        let (_header, kcv) = self.look_into(&held)?;
        self.kept.slots.entry(token.slot).or_default().pending = Some(held);
        self.receiver = installation.state;
        self.save()?;
        let kcv = CheckValue::new(&kcv).expect("its length was checked");
        Ok(TerminalWork::Installed(kcv))
    }

    /// Uses the key of a confirmed injection from now on (E7). The one before it is kept as the
    /// previous one.
    pub(super) fn activate(&mut self, injection: &InjectionId) -> Result<Option<u8>, PosError> {
        let mut activated = None;
        for (number, slot) in &mut self.kept.slots {
            let is_it = |held: &mut HeldKey| held.injection == injection.as_str();
            if let Some(held) = slot.pending.take_if(is_it) {
                slot.previous = slot.active.replace(held);
                activated = Some(*number);
            }
        }
        self.save()?;
        Ok(activated)
    }

    /// Erases a key that will not be confirmed.
    pub(super) fn discard(&mut self, injection: &InjectionId) -> Result<(), PosError> {
        for slot in self.kept.slots.values_mut() {
            let _erased = slot.pending.take_if(|held| held.injection == injection.as_str());
        }
        self.kept.slots.retain(|_, slot| *slot != super::kept::Slot::default());
        self.save()
    }

    /// A token's refusal goes to the server; a failure of our own ends the contact, so that the
    /// injection can be tried again.
    fn refuse(&mut self, refused_token: Refused) -> Result<TerminalWork, PosError> {
        if let Some(state) = refused_token.state {
            self.receiver = *state;
            self.save()?;
        }
        if refused_token.error.is_own() {
            return Err(own(refused_token.error));
        }
        Ok(refused(refused_token.error.check()))
    }
}

fn refused(check: impl AsRef<str>) -> TerminalWork {
    TerminalWork::Refused(Name::clipped(check.as_ref()))
}

fn fingerprint(certificate: &Certificate) -> Fingerprint {
    AwsLc.sha256(certificate.raw())
}

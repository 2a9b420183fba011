//! The objects of a token that are our keys: found by label, read, made, destroyed.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use tr31::BlockCipher;
use tr34::PublicKey;
use zeroize::Zeroize;

use super::failure::Failure;
use super::token::Lease;
use crate::vault::wrong_kind;
use crate::{HsmError, KeyKind, LABELS_MAX, RsaUse, STORAGE_KEY_LEN, check_label};

/// F4, the exponent of every key made here.
const EXPONENT: [u8; 3] = [1, 0, 1];
/// Length of `CKA_ID`, by which the halves of a pair belong together.
pub(super) const ID_LEN: usize = 16;

/// A key's object and what is known of it.
pub(super) struct Object {
    pub(super) handle: ObjectHandle,
    pub(super) kind: KeyKind,
}

/// Both classes of objects that hold secrets.
const CLASSES: [ObjectClass; 2] = [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY];

/// The one key under `label`, checked to be one that the token keeps to itself.
pub(super) fn the_key(session: &Session, label: &str) -> Result<Object, Failure> {
    check_label(label)?;
    let handle = match all(session, label)?.as_slice() {
        [] => return Err(HsmError::LabelUnknown(label.to_owned()).into()),
        [one] => *one,
        _ => return Err(HsmError::LabelAmbiguous(label.to_owned()).into()),
    };
    let Some(kind) = kind(session, handle)? else {
        let found = "not a key that this vault uses";
        return Err(HsmError::WrongKind { label: label.to_owned(), found }.into());
    };
    let kept = [Attribute::Sensitive(true), Attribute::Extractable(false)];
    let read =
        session.get_attributes(handle, &[AttributeType::Sensitive, AttributeType::Extractable])?;
    if kept.iter().all(|wanted| read.contains(wanted)) {
        Ok(Object { handle, kind })
    } else {
        Err(HsmError::KeyExposed(label.to_owned()).into())
    }
}

/// The one CMAC key under `label`.
pub(super) fn the_cmac(session: &Session, label: &str) -> Result<ObjectHandle, Failure> {
    let key = the_key(session, label)?;
    match key.kind {
        KeyKind::Cmac(_) => Ok(key.handle),
        KeyKind::Rsa(_) => Err(wrong_kind(label, key.kind).into()),
    }
}

/// Every private or secret key of the token under `label`.
pub(super) fn all(session: &Session, label: &str) -> Result<Vec<ObjectHandle>, Failure> {
    let mut handles = Vec::new();
    for class in CLASSES {
        handles.extend(session.find_objects(&template(class, label))?);
    }
    Ok(handles)
}

/// Every key of ours with its label.
pub(super) fn list(session: &Session) -> Result<Vec<(String, KeyKind)>, Failure> {
    let mut keys = Vec::new();
    for class in CLASSES {
        for handle in session.find_objects(&[Attribute::Token(true), Attribute::Class(class)])? {
            let Some(kind) = kind(session, handle)? else { continue };
            let Some(label) = label(session, handle)? else { continue };
            keys.push((label, kind));
        }
    }
    keys.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(keys)
}

fn label(session: &Session, handle: ObjectHandle) -> Result<Option<String>, Failure> {
    let read = session.get_attributes(handle, &[AttributeType::Label])?;
    Ok(read.into_iter().find_map(|attribute| match attribute {
        Attribute::Label(bytes) => {
            String::from_utf8(bytes).ok().filter(|label| check_label(label).is_ok())
        }
        _ => None,
    }))
}

fn template(class: ObjectClass, label: &str) -> [Attribute; 3] {
    [Attribute::Token(true), Attribute::Class(class), Attribute::Label(label.into())]
}

/// What a key is for; none if it is of no use here.
fn kind(session: &Session, handle: ObjectHandle) -> Result<Option<KeyKind>, Failure> {
    let wanted = [AttributeType::KeyType, AttributeType::Sign, AttributeType::Decrypt];
    let read = session.get_attributes(handle, &wanted)?;
    let has = |attribute: Attribute| read.contains(&attribute);
    if !has(Attribute::Sign(true)) {
        return Ok(None);
    }
    if has(Attribute::KeyType(KeyType::AES)) {
        return Ok(Some(KeyKind::Cmac(BlockCipher::Aes)));
    }
    if !has(Attribute::KeyType(KeyType::RSA)) {
        return Ok(None);
    }
    let decrypts = has(Attribute::Decrypt(true));
    Ok(Some(KeyKind::Rsa(if decrypts { RsaUse::SignAndDecrypt } else { RsaUse::Sign })))
}

/// The public key of a private one, as `SubjectPublicKeyInfo`.
pub(super) fn public_key(
    session: &Session,
    private: ObjectHandle,
    label: &str,
) -> Result<Vec<u8>, Failure> {
    let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
    let mut read = session.get_attributes(private, &wanted)?;
    if read.len() < wanted.len() {
        // The standard lets a private key not know its exponent; its other half does.
        let public = session.find_objects(&template(ObjectClass::PUBLIC_KEY, label))?;
        if let [one] = public.as_slice() {
            read.extend(session.get_attributes(*one, &wanted)?);
        }
    }
    let (mut modulus, mut exponent) = (None, None);
    for attribute in read {
        match attribute {
            Attribute::Modulus(bytes) => modulus = modulus.or(Some(bytes)),
            Attribute::PublicExponent(bytes) => exponent = exponent.or(Some(bytes)),
            _ => {}
        }
    }
    let inconsistent = || HsmError::KeyInconsistent(label.to_owned());
    let (modulus, exponent) = modulus.zip(exponent).ok_or_else(inconsistent)?;
    Ok(PublicKey::encode(&modulus, &exponent).map_err(|_| inconsistent())?)
}

/// The length of a symmetric key, in bytes.
pub(super) fn value_len(
    session: &Session,
    handle: ObjectHandle,
    label: &str,
) -> Result<usize, Failure> {
    let read = session.get_attributes(handle, &[AttributeType::ValueLen])?;
    let length = read.into_iter().find_map(|attribute| match attribute {
        Attribute::ValueLen(length) => Some(usize::from(length)),
        _ => None,
    });
    Ok(length.ok_or_else(|| HsmError::KeyInconsistent(label.to_owned()))?)
}

/// No key under this label, and room for one.
pub(super) fn check_free(lease: &Lease<'_>, label: &str) -> Result<(), Failure> {
    check_label(label)?;
    lease.check_present()?;
    let session = &lease.session;
    if !all(session, label)?.is_empty() {
        return Err(HsmError::LabelTaken(label.to_owned()).into());
    }
    if list(session)?.len() >= LABELS_MAX {
        return Err(HsmError::Full.into());
    }
    Ok(())
}

/// A token does not keep labels unique. Of two programs that make a key at the same moment each
/// that sees the other's takes its own back.
pub(super) fn check_alone(
    session: &Session,
    label: &str,
    own: &[ObjectHandle],
) -> Result<(), Failure> {
    if all(session, label)?.len() <= 1 {
        return Ok(());
    }
    take_back(session, own);
    Err(HsmError::LabelTaken(label.to_owned()).into())
}

/// Destroys what was just made and shall not stay; the reason why is the error that counts.
pub(super) fn take_back(session: &Session, own: &[ObjectHandle]) {
    for handle in own {
        let _unless_gone = session.destroy_object(*handle);
    }
}

/// Makes a pair: the public half first.
pub(super) fn make_pair(
    session: &Session,
    label: &str,
    usage: RsaUse,
    bits: u32,
) -> Result<[ObjectHandle; 2], Failure> {
    let id = session.generate_random_vec(ID_LEN as u32)?;
    let decrypts = usage == RsaUse::SignAndDecrypt;
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.into()),
        Attribute::Id(id.clone()),
        Attribute::Verify(true),
        Attribute::Encrypt(decrypts),
        Attribute::Wrap(false),
        Attribute::ModulusBits(Ulong::from(u64::from(bits))),
        Attribute::PublicExponent(EXPONENT.to_vec()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.into()),
        Attribute::Id(id),
        Attribute::Sign(true),
        Attribute::Decrypt(decrypts),
        Attribute::Unwrap(false),
    ];
    let (public, private) =
        session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)?;
    Ok([public, private])
}

/// Destroys a pair.
pub(super) fn destroy_pair(session: &Session, label: &str) -> Result<(), Failure> {
    let key = the_key(session, label)?;
    if !matches!(key.kind, KeyKind::Rsa(_)) {
        return Err(wrong_kind(label, key.kind).into());
    }
    // The private half last: while it is there, this can be done again.
    for public in session.find_objects(&template(ObjectClass::PUBLIC_KEY, label))? {
        session.destroy_object(public)?;
    }
    Ok(session.destroy_object(key.handle)?)
}

/// Destroys a symmetric key.
pub(super) fn destroy_cmac(session: &Session, label: &str) -> Result<(), Failure> {
    let key = the_cmac(session, label)?;
    Ok(session.destroy_object(key)?)
}

/// What every symmetric key here is: it signs (MACs), stays, and never comes out.
fn cmac_template(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.into()),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

/// Makes a storage key.
pub(super) fn make_cmac(session: &Session, label: &str) -> Result<ObjectHandle, Failure> {
    let mut template = cmac_template(label);
    template.push(Attribute::ValueLen(Ulong::from(STORAGE_KEY_LEN as u64)));
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}

/// Puts an AES key in. The copy made for the call is wiped.
pub(super) fn import_aes(
    session: &Session,
    label: &str,
    key: &[u8],
) -> Result<ObjectHandle, Failure> {
    let mut template = cmac_template(label);
    template.push(Attribute::Class(ObjectClass::SECRET_KEY));
    template.push(Attribute::KeyType(KeyType::AES));
    template.push(Attribute::Value(key.to_vec()));
    let created = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(bytes) = attribute {
            bytes.zeroize();
        }
    }
    Ok(created?)
}

//! The forms in which tokens are written. Published samples, the standard's editions and products
//! differ, so writer and reader are told the dialect by name; it is never guessed.

use alloc::vec::Vec;
use core::fmt;

/// Version of the key block inside the envelope, an INTEGER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyBlockVersion {
    /// `v1(0)`, as the ASN.1 module says.
    Zero,
    /// 1, as the samples have it.
    One,
}

/// How the key block header stands in the key block inside the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderForm {
    /// An OCTET STRING.
    OctetString,
    /// An Attribute of type id-data with one OCTET STRING, as among the signed attributes.
    Attribute,
}

/// How a CMS structure stands in the octets of `eContent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentForm {
    /// The whole SEQUENCE.
    Sequence,
    /// Its content alone, without tag and length.
    Bare,
}

/// Where `encryptedContent` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptedContentPlace {
    /// Beside the content encryption algorithm, as CMS says.
    Sibling,
    /// Inside the algorithm's SEQUENCE, after the IV.
    InAlgorithm,
}

/// How the parameters of RSAES-OAEP are tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OaepForm {
    /// Hash, mask and label under the tags 0, 1 and 2, as RFC 4055 says.
    Tagged,
    /// The three without these tags.
    Untagged,
}

/// Order of the signed attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeOrder {
    /// As DER orders a SET OF.
    Sorted,
    /// As the standard lists them: contentType, randomNonce or signingTime, header, messageDigest.
    Listed,
}

/// Version of a SignedData.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedDataVersion {
    /// As CMS says: 1 around id-data, 3 around anything else.
    Cms,
    /// Always 1.
    One,
}

/// How a SignerInfo names its algorithm. The signature is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureName {
    /// `sha256WithRSAEncryption`.
    Sha256WithRsa,
    /// `rsaEncryption`.
    RsaEncryption,
}

/// Where a SignedData has its revocation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlPlace {
    /// Before `signerInfos`, as CMS says.
    BeforeSigners,
    /// After `signerInfos`.
    AfterSigners,
}

/// A dialect: presets made of separate switches, since products set some of them independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Version of the key block inside the envelope.
    pub key_block_version: KeyBlockVersion,
    /// Form of the header inside the envelope.
    pub header: HeaderForm,
    /// Form of the EnvelopedData of `KT_KDH`.
    pub content: ContentForm,
    /// Form of the inner SignedData of rebind tokens.
    pub rebind_content: ContentForm,
    /// Place of `encryptedContent`.
    pub encrypted_content: EncryptedContentPlace,
    /// Form of the RSAES-OAEP parameters.
    pub oaep: OaepForm,
    /// Order of the signed attributes.
    pub attributes: AttributeOrder,
    /// Version of each SignedData with content.
    pub version: SignedDataVersion,
    /// Name of the signature algorithm.
    pub signature: SignatureName,
    /// Place of the revocation list in `CT_KDH`.
    pub credential_crl: CrlPlace,
}

impl Dialect {
    /// CMS and the standard's ASN.1 module to the letter.
    pub const STRICT: Self = Self {
        key_block_version: KeyBlockVersion::Zero,
        header: HeaderForm::OctetString,
        content: ContentForm::Sequence,
        rebind_content: ContentForm::Sequence,
        encrypted_content: EncryptedContentPlace::Sibling,
        oaep: OaepForm::Tagged,
        attributes: AttributeOrder::Sorted,
        version: SignedDataVersion::Cms,
        signature: SignatureName::Sha256WithRsa,
        credential_crl: CrlPlace::BeforeSigners,
    };
    /// The samples of 2019 with the corrigendum, which moved `encryptedContent` to its CMS place.
    pub const ERRATA_2019: Self = Self {
        key_block_version: KeyBlockVersion::One,
        header: HeaderForm::Attribute,
        oaep: OaepForm::Untagged,
        attributes: AttributeOrder::Listed,
        version: SignedDataVersion::One,
        signature: SignatureName::RsaEncryption,
        ..Self::STRICT
    };
    /// The samples of 2019 as they were printed.
    pub const PRINTED_2019: Self = Self {
        encrypted_content: EncryptedContentPlace::InAlgorithm,
        rebind_content: ContentForm::Bare,
        credential_crl: CrlPlace::AfterSigners,
        ..Self::ERRATA_2019
    };
    /// The edition of 2012: `eContent` without the SEQUENCE's header.
    pub const TR34_2012: Self = Self { content: ContentForm::Bare, ..Self::PRINTED_2019 };

    /// The presets with their names.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("strict", Self::STRICT),
        ("errata-2019", Self::ERRATA_2019),
        ("printed-2019", Self::PRINTED_2019),
        ("2012", Self::TR34_2012),
    ];

    /// The preset with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, dialect)| *dialect)
    }

    /// This dialect's name, if it is a preset.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, known)| known == self).map(|(name, _)| *name)
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::STRICT
    }
}

/// A switch of [`Dialect`] in which a token differs from what its reader was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// [`Dialect::key_block_version`].
    KeyBlockVersion,
    /// [`Dialect::header`].
    Header,
    /// [`Dialect::content`].
    Content,
    /// [`Dialect::rebind_content`].
    RebindContent,
    /// [`Dialect::encrypted_content`].
    EncryptedContent,
    /// [`Dialect::oaep`].
    Oaep,
    /// [`Dialect::attributes`].
    Attributes,
    /// [`Dialect::version`].
    Version,
    /// [`Dialect::signature`].
    Signature,
    /// [`Dialect::credential_crl`].
    CredentialCrl,
}

impl Switch {
    /// Stable name of the check that a token is in the dialect that its reader was told.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::KeyBlockVersion => "dialect-key-block-version",
            Self::Header => "dialect-header",
            Self::Content => "dialect-content",
            Self::RebindContent => "dialect-rebind-content",
            Self::EncryptedContent => "dialect-encrypted-content",
            Self::Oaep => "dialect-oaep",
            Self::Attributes => "dialect-attribute-order",
            Self::Version => "dialect-version",
            Self::Signature => "dialect-signature",
            Self::CredentialCrl => "dialect-crl-place",
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyBlockVersion => "the key block's version",
            Self::Header => "the form of the key block's header",
            Self::Content => "the form of the enveloped data",
            Self::RebindContent => "the form of the inner signed data",
            Self::EncryptedContent => "the place of the encrypted content",
            Self::Oaep => "the form of the OAEP parameters",
            Self::Attributes => "the order of the signed attributes",
            Self::Version => "the signed data's version",
            Self::Signature => "the name of the signature algorithm",
            Self::CredentialCrl => "the place of the revocation list",
        })
    }
}

/// What a token shows of its dialect: each switch that it has something for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// [`Dialect::key_block_version`]; seen in a decrypted key block only.
    pub key_block_version: Option<KeyBlockVersion>,
    /// [`Dialect::header`]; seen in a decrypted key block only.
    pub header: Option<HeaderForm>,
    /// [`Dialect::content`].
    pub content: Option<ContentForm>,
    /// [`Dialect::rebind_content`].
    pub rebind_content: Option<ContentForm>,
    /// [`Dialect::encrypted_content`].
    pub encrypted_content: Option<EncryptedContentPlace>,
    /// [`Dialect::oaep`].
    pub oaep: Option<OaepForm>,
    /// [`Dialect::attributes`]: in DER's order.
    pub sorted: Option<bool>,
    /// [`Dialect::attributes`]: in the standard's order. Both may be true.
    pub listed: Option<bool>,
    /// [`Dialect::version`]: the version as CMS wants it.
    pub cms_version: Option<bool>,
    /// [`Dialect::version`]: 1.
    pub version_one: Option<bool>,
    /// [`Dialect::signature`].
    pub signature: Option<SignatureName>,
    /// [`Dialect::credential_crl`].
    pub credential_crl: Option<CrlPlace>,
}

impl Observed {
    /// The first switch in which a token does not fit this dialect, in the order in which a token
    /// is read.
    #[must_use]
    pub fn differs_from(&self, dialect: &Dialect) -> Option<Switch> {
        let differs = |seen: Option<bool>| seen == Some(false);
        let version = match dialect.version {
            SignedDataVersion::Cms => self.cms_version,
            SignedDataVersion::One => self.version_one,
        };
        let order = match dialect.attributes {
            AttributeOrder::Sorted => self.sorted,
            AttributeOrder::Listed => self.listed,
        };
        let switches = [
            (Switch::Version, differs(version)),
            (Switch::CredentialCrl, other(self.credential_crl, dialect.credential_crl)),
            (Switch::Signature, other(self.signature, dialect.signature)),
            (Switch::Attributes, differs(order)),
            (Switch::Content, other(self.content, dialect.content)),
            (Switch::RebindContent, other(self.rebind_content, dialect.rebind_content)),
            (Switch::Oaep, other(self.oaep, dialect.oaep)),
            (Switch::EncryptedContent, other(self.encrypted_content, dialect.encrypted_content)),
            (Switch::KeyBlockVersion, other(self.key_block_version, dialect.key_block_version)),
            (Switch::Header, other(self.header, dialect.header)),
        ];
        switches.iter().find(|(_, differs)| *differs).map(|(switch, _)| *switch)
    }

    /// The names of the presets that a token fits.
    #[must_use]
    pub fn fits(&self) -> Vec<&'static str> {
        let fitting = Dialect::NAMED.iter().filter(|(_, known)| self.differs_from(known).is_none());
        fitting.map(|(name, _)| *name).collect()
    }
}

fn other<T: PartialEq>(seen: Option<T>, told: T) -> bool {
    seen.is_some_and(|seen| seen != told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_presets_belong_together() {
        for (name, dialect) in Dialect::NAMED {
            assert_eq!(Dialect::named(name), Some(dialect));
            assert_eq!(dialect.name(), Some(name));
        }
        assert_eq!(Dialect::named("2019"), None);
        let own = Dialect { attributes: AttributeOrder::Sorted, ..Dialect::TR34_2012 };
        assert_eq!(own.name(), None);
    }

    #[test]
    fn nothing_seen_fits_all_and_one_difference_is_named() {
        assert_eq!(Observed::default().fits().len(), 4);
        let bare = Observed { content: Some(ContentForm::Bare), ..Observed::default() };
        assert_eq!(bare.fits(), ["2012"]);
        assert_eq!(bare.differs_from(&Dialect::STRICT), Some(Switch::Content));
        assert_eq!(Switch::Content.check(), "dialect-content");
    }
}

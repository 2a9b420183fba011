//! Where each field lies in the 256 bytes, one table per document.
//!
//! Citizen: GA 450, agreed on by every public implementation. `J` and `I`: three independent
//! implementations each. `Y`: one vendor's header, whose fields sum to 256 bytes; to be checked
//! against a real card.

/// A field's place and length, in bytes (two per UTF-16 unit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name used in errors.
    pub name: &'static str,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

const fn field(name: &'static str, offset: usize, len: usize) -> Field {
    assert!(len.is_multiple_of(2) && offset.is_multiple_of(2) && offset + len <= crate::TEXT_LEN);
    Field { name, offset, len }
}

/// The document's type, in all four.
pub const FLAG: Field = field("document type", 248, 2);

/// Citizen, and what `J` and partly `Y` share with it.
pub mod citizen {
    use super::{Field, field};

    /// 姓名.
    pub const NAME: Field = field("name", 0, 30);
    /// 性别.
    pub const SEX: Field = field("sex", 30, 2);
    /// 民族.
    pub const NATION: Field = field("nation", 32, 4);
    /// 出生.
    pub const BIRTH: Field = field("birth", 36, 16);
    /// 住址.
    pub const ADDRESS: Field = field("address", 52, 70);
    /// 公民身份号码.
    pub const ID_NUMBER: Field = field("id number", 122, 36);
    /// 签发机关.
    pub const ISSUER: Field = field("issuer", 158, 30);
    /// Valid from.
    pub const VALID_FROM: Field = field("valid from", 188, 16);
    /// Valid until.
    pub const VALID_UNTIL: Field = field("valid until", 204, 16);
}

/// `J`: what differs from the citizen's layout.
pub mod permit {
    use super::{Field, field};

    /// 通行证号码.
    pub const PASS_NUMBER: Field = field("pass number", 220, 18);
    /// 签发次数.
    pub const ISSUE_COUNT: Field = field("issue count", 238, 4);
}

/// `Y`: what differs from the citizen's layout.
pub mod foreigner_2023 {
    use super::{Field, field};

    /// Chinese name.
    pub const CHINESE_NAME: Field = field("chinese name", 0, 30);
    /// 换证次数.
    pub const RENEWAL_COUNT: Field = field("renewal count", 32, 4);
    /// English name, characters 1 to 35.
    pub const ENGLISH_NAME_1: Field = field("english name", 52, 70);
    /// English name, characters 36 to 46.
    pub const ENGLISH_NAME_2: Field = field("english name", 220, 22);
    /// Nationality.
    pub const COUNTRY: Field = field("country", 242, 6);
    /// Link to the number of 2017.
    pub const OLD_NUMBER_LINK: Field = field("old number link", 250, 6);
}

/// `I`.
pub mod foreigner_2017 {
    use super::{Field, field};

    /// English name.
    pub const ENGLISH_NAME: Field = field("english name", 0, 120);
    /// Sex.
    pub const SEX: Field = field("sex", 120, 2);
    /// 永久居留证号码.
    pub const NUMBER: Field = field("number", 122, 30);
    /// Nationality.
    pub const COUNTRY: Field = field("country", 152, 6);
    /// Chinese name.
    pub const CHINESE_NAME: Field = field("chinese name", 158, 30);
    /// Valid from.
    pub const VALID_FROM: Field = field("valid from", 188, 16);
    /// Expiry.
    pub const VALID_UNTIL: Field = field("valid until", 204, 16);
    /// Date of birth.
    pub const BIRTH: Field = field("birth", 220, 16);
    /// Card version.
    pub const VERSION: Field = field("version", 236, 4);
    /// Authority.
    pub const AUTHORITY: Field = field("authority", 240, 8);
}

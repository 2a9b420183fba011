use alloc::format;
use alloc::string::String;

use zeroize::Zeroize;

/// GB/T 3304, codes 01 to 56 in order.
const NAMES: [&str; 56] = [
    "汉",
    "蒙古",
    "回",
    "藏",
    "维吾尔",
    "苗",
    "彝",
    "壮",
    "布依",
    "朝鲜",
    "满",
    "侗",
    "瑶",
    "白",
    "土家",
    "哈尼",
    "哈萨克",
    "傣",
    "黎",
    "傈僳",
    "佤",
    "畲",
    "高山",
    "拉祜",
    "水",
    "东乡",
    "纳西",
    "景颇",
    "柯尔克孜",
    "土",
    "达斡尔",
    "仫佬",
    "羌",
    "布朗",
    "撒拉",
    "毛南",
    "仡佬",
    "锡伯",
    "阿昌",
    "普米",
    "塔吉克",
    "怒",
    "乌孜别克",
    "俄罗斯",
    "鄂温克",
    "德昂",
    "保安",
    "裕固",
    "京",
    "塔塔尔",
    "独龙",
    "鄂伦春",
    "赫哲",
    "门巴",
    "珞巴",
    "基诺",
];
const OTHER: u8 = 97;
const NATURALISED: u8 = 98;

/// A nationality of China: a code of GB/T 3304, or 97 (other), 98 (naturalised foreigner).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Zeroize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Text"))]
pub struct Nation(u8);

impl Nation {
    /// 汉, code 01.
    pub const HAN: Self = Self(1);

    /// A known code, or `None`.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        matches!(code, 1..=56 | OTHER | NATURALISED).then_some(Self(code))
    }

    /// The code, 1 to 56, 97 or 98.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The Chinese name, as printed on the card for 01 to 56.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            OTHER => "其他",
            NATURALISED => "外国血统中国籍人士",
            code => NAMES[usize::from(code) - 1],
        }
    }

    /// Two digits.
    pub(crate) fn to_digits(self) -> String {
        format!("{:02}", self.0)
    }
}

impl core::fmt::Debug for Nation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Nation(..)")
    }
}

/// In JSON `{"code":"01","name":"汉"}`; when read, the code decides and the name may be left out.
#[cfg(feature = "serde")]
impl serde::Serialize for Nation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Nation", 2)?;
        out.serialize_field("code", &self.to_digits())?;
        out.serialize_field("name", self.name())?;
        out.end()
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    code: String,
    #[serde(default)]
    name: Option<String>,
}

#[cfg(feature = "serde")]
impl TryFrom<Text> for Nation {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        let code = text.code.parse().ok().filter(|_| text.code.len() == 2);
        let nation = code.and_then(Self::from_code).ok_or("unknown nation code")?;
        match text.name {
            Some(name) if name != nation.name() => Err("the nation's name is not its code's"),
            _ => Ok(nation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_starts_and_ends_where_the_standard_does() {
        let name = |code| Nation::from_code(code).map(Nation::name);
        assert_eq!(name(1), Some("汉"));
        assert_eq!(name(13), Some("瑶"));
        assert_eq!(name(30), Some("土"));
        assert_eq!(name(56), Some("基诺"));
        assert!(name(97).is_some() && name(98).is_some());
        for code in [0, 57, 96, 99, 255] {
            assert_eq!(name(code), None, "{code}");
        }
    }
}

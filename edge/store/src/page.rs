use crate::StoreError;

/// Most items one page may ask for.
pub const MAX_PAGE: u32 = 200;

/// Longest cursor in bytes; longer ones were not made here.
pub(crate) const MAX_CURSOR_LEN: usize = 64;

/// A part of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Cursor of the next page; `None` if this is the last.
    pub next: Option<String>,
}

/// Checks a caller's limit (1..=[`MAX_PAGE`]) and asks for one more, to know if there is more.
pub(crate) fn fetch_limit(limit: u32) -> Result<i64, StoreError> {
    if (1..=MAX_PAGE).contains(&limit) {
        Ok(i64::from(limit) + 1)
    } else {
        Err(StoreError::Refused { check: "page-limit" })
    }
}

/// Checks a caller's cursor.
pub(crate) fn check_cursor(cursor: Option<&str>) -> Result<Option<&str>, StoreError> {
    match cursor {
        Some(text) if text.len() > MAX_CURSOR_LEN || text.is_empty() => {
            Err(StoreError::Refused { check: "page-cursor" })
        }
        other => Ok(other),
    }
}

impl<T> Page<T> {
    /// Cuts the one item too many and makes the cursor from the last that stays.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_more() {
        let page = Page::cut(vec![1, 2, 3], 2, i32::to_string);
        assert_eq!(page, Page { items: vec![1, 2], next: Some("2".to_owned()) });
        let last = Page::cut(vec![1, 2], 2, i32::to_string);
        assert_eq!(last, Page { items: vec![1, 2], next: None });
    }

    #[test]
    fn limits_and_cursors_are_bounded() {
        assert_eq!(fetch_limit(1), Ok(2));
        assert_eq!(fetch_limit(MAX_PAGE), Ok(201));
        assert!(fetch_limit(0).is_err() && fetch_limit(MAX_PAGE + 1).is_err());
        assert!(check_cursor(Some("")).is_err());
        assert!(check_cursor(Some(&"x".repeat(65))).is_err());
        assert_eq!(check_cursor(None), Ok(None));
    }
}

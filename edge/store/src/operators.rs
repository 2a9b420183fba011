//! Operators: people (or programs) who may use the API, with their roles.

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// What an operator may do (interfaces.md, Operators). An operator may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Manages operators and settings.
    Admin,
    /// Holds key components and enrols devices.
    Custodian,
    /// Votes on approvals.
    Approver,
    /// Reads the audit.
    Auditor,
    /// A program that uses the API.
    Integrator,
}

stored_as_text!(Role, "role", {
    Admin => "admin",
    Custodian => "custodian",
    Approver => "approver",
    Auditor => "auditor",
    Integrator => "integrator",
});

/// A set of roles. Stored as names joined by commas, in the order of [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// True if `role` is in the set.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// True for no role at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles in the set, in the order of [`Role`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.iter().copied().filter(move |role| self.contains(*role))
    }

    fn to_text(self) -> String {
        self.iter().map(Role::name).collect::<Vec<_>>().join(",")
    }

    fn from_text(text: &str) -> Result<Self, StoreError> {
        text.split(',').filter(|name| !name.is_empty()).map(Role::stored).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |set, role| set | 1 << role as u8))
    }
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// `opr_…`.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Roles.
    pub roles: Roles,
    /// When it was made.
    pub created_at: UnixTime,
    /// Since when it is disabled, if it is.
    pub disabled_at: Option<UnixTime>,
}

const COLUMNS: &str = "o.id, o.name, o.roles, o.created_at, o.disabled_at";

/// Number of columns that [`operator`] reads.
pub(crate) const OPERATOR_WIDTH: usize = 5;

/// Reads an operator from the first columns of a row.
pub(crate) fn operator(row: &Row) -> Result<Operator, StoreError> {
    Ok(Operator {
        id: row.text(0)?.to_owned(),
        name: row.text(1)?.to_owned(),
        roles: Roles::from_text(row.text(2)?)?,
        created_at: row.time(3)?,
        disabled_at: row.opt_time(4)?,
    })
}

impl Tx<'_> {
    /// Inserts an operator.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `operators_name_key` if the name is taken;
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn insert_operator(&mut self, operator: &Operator) -> Result<(), StoreError> {
        check_texts([operator.id.as_str(), &operator.name])?;
        self.execute(
            "INSERT INTO operators (id, name, roles, created_at, disabled_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &[
                (&operator.id).into(),
                (&operator.name).into(),
                operator.roles.to_text().into(),
                operator.created_at.into(),
                operator.disabled_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The operator with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn operator_by_id(&mut self, id: &str) -> Result<Option<Operator>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM operators o WHERE o.id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| operator(&row)).transpose()
    }

    /// The operator with this name.
    ///
    /// # Errors
    /// What the database answers.
    pub fn operator_by_name(&mut self, name: &str) -> Result<Option<Operator>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM operators o WHERE o.name = ?1");
        self.query_one(&sql, &[name.into()])?.map(|row| operator(&row)).transpose()
    }

    /// Operators, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn operators_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Operator>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM operators o WHERE o.id > ?1 ORDER BY o.id LIMIT ?2");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let rows = self.query(&sql, &[after.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(operator).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |operator| operator.id.clone()))
    }

    /// Replaces an operator's roles.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn set_operator_roles(&mut self, id: &str, roles: Roles) -> Result<(), StoreError> {
        let sql = "UPDATE operators SET roles = ?2 WHERE id = ?1";
        self.change_one("operator", sql, &[id.into(), roles.to_text().into()])
    }

    /// Disables an operator: its tokens no longer work. Disabling again keeps the first time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn disable_operator(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE operators SET disabled_at = COALESCE(disabled_at, ?2) WHERE id = ?1";
        self.change_one("operator", sql, &[id.into(), now.into()])
    }

    /// Runs an update that must meet one row.
    pub(crate) fn change_one(
        &mut self,
        what: &'static str,
        sql: &str,
        values: &[crate::Value],
    ) -> Result<(), StoreError> {
        if self.execute(sql, values)? == 0 { Err(StoreError::NotFound { what }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_round_trip_and_unknown_ones_are_corrupt() {
        let roles: Roles = [Role::Integrator, Role::Admin].into_iter().collect();
        assert_eq!(roles.to_text(), "admin,integrator");
        assert_eq!(Roles::from_text("admin,integrator"), Ok(roles));
        assert!(roles.contains(Role::Admin) && !roles.contains(Role::Auditor));
        assert_eq!(Roles::from_text(""), Ok(Roles::default()));
        assert!(Roles::from_text("admin,root").is_err());
    }
}

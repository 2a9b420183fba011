//! The RSA hierarchy of key injection: authorities and KDHs by generation, and their CRLs (E2, E5).
//!
//! An authority is intended before its key is made and its certificate signed; at most one of a
//! role is active. A CRL is numbered before it is signed, so that the numbers rise whoever signs.

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::value::check_texts;
use crate::{Row, StoreError, Tx};

/// Most generations that [`Tx::authorities`] returns: the newest.
pub const AUTHORITIES_MAX: u32 = 400;

/// What a member of the hierarchy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityRole {
    /// The root: signs the two CAs.
    Root,
    /// Sub_CA_KRD: certifies terminals.
    CaKrd,
    /// CA_KDH: certifies KDHs.
    CaKdh,
    /// A KDH: signs key tokens.
    Kdh,
}

stored_as_text!(AuthorityRole, "authority role", {
    Root => "root",
    CaKrd => "ca-krd",
    CaKdh => "ca-kdh",
    Kdh => "kdh",
});

/// Where a member of the hierarchy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityState {
    /// Decided; its certificate is not known to be signed.
    Intended,
    /// The one in use.
    Active,
    /// Followed by another; what it certified, or whom it is bound to, still counts.
    Retiring,
    /// Of no use any more.
    Retired,
    /// Revoked: it stands on its issuer's CRL.
    Revoked,
}

stored_as_text!(AuthorityState, "authority state", {
    Intended => "intended",
    Active => "active",
    Retiring => "retiring",
    Retired => "retired",
    Revoked => "revoked",
});

/// A member of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAuthority {
    /// `rka_…`.
    pub id: String,
    /// What it is.
    pub role: AuthorityRole,
    /// From 1, rising in each role.
    pub generation: u32,
    /// Where it stands.
    pub state: AuthorityState,
    /// Who certified it; `None` for a root.
    pub issuer_id: Option<String>,
    /// Its key's label in the vault.
    pub label: String,
    /// Length of its key.
    pub bits: u32,
    /// Serial number of its certificate in lower-case hexadecimal, once issued.
    pub serial: Option<String>,
    /// Its certificate, once issued.
    pub der: Option<Vec<u8>>,
    /// Until when that holds.
    pub not_after: Option<UnixTime>,
    /// When it was decided.
    pub intended_at: UnixTime,
    /// When its certificate was stored.
    pub issued_at: Option<UnixTime>,
    /// When it was retired or revoked.
    pub ended_at: Option<UnixTime>,
    /// Why it was revoked.
    pub end_reason: Option<String>,
}

/// What changes when the hierarchy does: asked for at each use, so that every server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyPulse {
    /// The active KDH.
    pub kdh: Option<String>,
    /// Who certified it: the CA_KDH whose CRL counts.
    pub ca_kdh: Option<String>,
    /// The active Sub_CA_KRD.
    pub ca_krd: Option<String>,
    /// The active root.
    pub root: Option<String>,
    /// The number of that CA_KDH's newest CRL; 0 if there is none.
    pub crl: u64,
    /// How many KDHs of that CA_KDH were ever revoked: it only rises, so that one more shows, also
    /// when another has expired.
    pub revoked: u32,
}

/// A certificate on a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// Since when it is revoked.
    pub at: UnixTime,
}

/// A CRL, or the intent to sign one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCrl {
    /// Whose it is.
    pub issuer_id: String,
    /// Its number, from 1, rising for each issuer.
    pub number: u64,
    /// How many certificates it lists.
    pub listed: u32,
    /// When it was made.
    pub this_update: UnixTime,
    /// Until when it holds.
    pub next_update: UnixTime,
    /// The CRL, once signed.
    pub der: Option<Vec<u8>>,
}

const COLUMNS: &str = "id, role, generation, state, issuer_id, label, bits, serial, der, \
     not_after, intended_at, issued_at, ended_at, end_reason";

fn authority(row: &Row) -> Result<KeyAuthority, StoreError> {
    Ok(KeyAuthority {
        id: row.text(0)?.to_owned(),
        role: AuthorityRole::stored(row.text(1)?)?,
        generation: row.u32(2)?,
        state: AuthorityState::stored(row.text(3)?)?,
        issuer_id: row.opt_text(4)?.map(str::to_owned),
        label: row.text(5)?.to_owned(),
        bits: row.u32(6)?,
        serial: row.opt_text(7)?.map(str::to_owned),
        der: row.opt_blob(8)?.map(<[u8]>::to_vec),
        not_after: row.opt_time(9)?,
        intended_at: row.time(10)?,
        issued_at: row.opt_time(11)?,
        ended_at: row.opt_time(12)?,
        end_reason: row.opt_text(13)?.map(str::to_owned),
    })
}

const CRL_COLUMNS: &str = "issuer_id, number, listed, this_update, next_update, der";

fn crl(row: &Row) -> Result<StoredCrl, StoreError> {
    let number = u64::try_from(row.int(1)?)
        .map_err(|_| StoreError::corrupt("the number of a CRL is negative"))?;
    Ok(StoredCrl {
        issuer_id: row.text(0)?.to_owned(),
        number,
        listed: row.u32(2)?,
        this_update: row.time(3)?,
        next_update: row.time(4)?,
        der: row.opt_blob(5)?.map(<[u8]>::to_vec),
    })
}

impl Tx<'_> {
    /// Stores the intent to make an authority, of the next generation of its role (whatever
    /// `generation`, `state` and the members of its certificate say), and returns the generation.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `rki_authorities_role_generation_key` if another is intended at
    /// once; [`StoreError::NotFound`] for no such issuer; [`StoreError::Refused`] `text-too-long`.
    pub fn intend_authority(&mut self, new: &KeyAuthority) -> Result<u32, StoreError> {
        check_texts([new.id.as_str(), &new.label])?;
        let last = self.query_one(
            "SELECT COALESCE(max(generation), 0) FROM rki_authorities WHERE role = ?1",
            &[new.role.name().into()],
        )?;
        let last = last.map_or(Ok(0), |row| row.u32(0))?;
        self.execute(
            "INSERT INTO rki_authorities
                 (id, role, generation, state, issuer_id, label, bits, intended_at)
             VALUES (?1, ?2, ?3, 'intended', ?4, ?5, ?6, ?7)",
            &[
                (&new.id).into(),
                new.role.name().into(),
                (last + 1).into(),
                new.issuer_id.as_deref().into(),
                (&new.label).into(),
                new.bits.into(),
                new.intended_at.into(),
            ],
        )?;
        Ok(last + 1)
    }

    /// Stores the certificate of an intended authority and makes it the active one of its role;
    /// the one before it is retiring from now on. Storing the same bytes again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `authority-not-intended` if it has
    /// another certificate or has ended.
    pub fn activate_authority(
        &mut self,
        id: &str,
        serial: &str,
        der: &[u8],
        not_after: UnixTime,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let found = self.authority_by_id(id)?.ok_or(StoreError::NotFound { what: "authority" })?;
        match found.state {
            AuthorityState::Intended => {}
            AuthorityState::Active if found.der.as_deref() == Some(der) => return Ok(()),
            _ => return Err(StoreError::Refused { check: "authority-not-intended" }),
        }
        self.execute(
            "UPDATE rki_authorities SET state = 'retiring' WHERE role = ?1 AND state = 'active'",
            &[found.role.name().into()],
        )?;
        self.change_one(
            "authority",
            "UPDATE rki_authorities
             SET state = 'active', serial = ?2, der = ?3, not_after = ?4, issued_at = ?5
             WHERE id = ?1 AND state = 'intended'",
            &[id.into(), serial.into(), der.into(), not_after.into(), now.into()],
        )
    }

    /// Notes the serial number under which an intended authority's certificate is to be signed.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `authority-not-intended`.
    pub fn intend_authority_serial(&mut self, id: &str, serial: &str) -> Result<(), StoreError> {
        let sql = "UPDATE rki_authorities SET serial = ?2 WHERE id = ?1 AND state = 'intended'";
        let gone = StoreError::Refused { check: "authority-not-intended" };
        if self.execute(sql, &[id.into(), serial.into()])? == 1 { Ok(()) } else { Err(gone) }
    }

    /// Ends a retiring authority.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not retiring.
    pub fn retire_authority(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        self.change_one(
            "retiring authority",
            "UPDATE rki_authorities SET state = 'retired', ended_at = ?2
             WHERE id = ?1 AND state = 'retiring'",
            &[id.into(), now.into()],
        )
    }

    /// Retiring authorities that nothing depends on at `now`: KDHs to which no terminal is bound,
    /// CAs under which no KDH is in use or retiring and no terminal's certificate still holds.
    ///
    /// # Errors
    /// What the database answers.
    pub fn unneeded_authorities(&mut self, now: UnixTime) -> Result<Vec<String>, StoreError> {
        let rows = self.query(
            "SELECT a.id FROM rki_authorities a WHERE a.state = 'retiring'
               AND NOT EXISTS (SELECT 1 FROM terminals t WHERE t.bound_kdh = a.id)
               AND NOT EXISTS (SELECT 1 FROM rki_authorities b WHERE b.issuer_id = a.id
                   AND b.state IN ('intended', 'active', 'retiring'))
               AND NOT EXISTS (SELECT 1 FROM krd_certificates k WHERE k.issuer_id = a.id
                   AND k.state IN ('intended', 'issued') AND k.not_after > ?1)
             ORDER BY a.id LIMIT ?2",
            &[now.into(), AUTHORITIES_MAX.into()],
        )?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// Revokes an issued authority that is active, retiring or retired.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is none of these; [`StoreError::Refused`] `text-too-long`.
    pub fn revoke_authority(
        &mut self,
        id: &str,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts([reason])?;
        self.change_one(
            "live authority",
            "UPDATE rki_authorities SET state = 'revoked', ended_at = ?3, end_reason = ?2
             WHERE id = ?1 AND state IN ('active', 'retiring', 'retired') AND der IS NOT NULL",
            &[id.into(), reason.into(), now.into()],
        )
    }

    /// The authority with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn authority_by_id(&mut self, id: &str) -> Result<Option<KeyAuthority>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rki_authorities WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| authority(&row)).transpose()
    }

    /// The newest authority of a role in this state.
    ///
    /// # Errors
    /// What the database answers.
    pub fn authority_in(
        &mut self,
        role: AuthorityRole,
        state: AuthorityState,
    ) -> Result<Option<KeyAuthority>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rki_authorities WHERE role = ?1 AND state = ?2
             ORDER BY generation DESC LIMIT 1"
        );
        let row = self.query_one(&sql, &[role.name().into(), state.name().into()])?;
        row.map(|row| authority(&row)).transpose()
    }

    /// All authorities, the newest first, at most [`AUTHORITIES_MAX`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn authorities(&mut self) -> Result<Vec<KeyAuthority>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rki_authorities
             ORDER BY intended_at DESC, generation DESC, id DESC LIMIT ?1"
        );
        self.query(&sql, &[AUTHORITIES_MAX.into()])?.iter().map(authority).collect()
    }

    /// What changes when the hierarchy does, in one round trip.
    ///
    /// # Errors
    /// What the database answers.
    pub fn hierarchy_pulse(&mut self) -> Result<HierarchyPulse, StoreError> {
        const ACTIVE: &str = "(SELECT id FROM rki_authorities WHERE state = 'active' AND role =";
        const ISSUER: &str =
            "(SELECT issuer_id FROM rki_authorities WHERE state = 'active' AND role = 'kdh')";
        let sql = format!(
            "SELECT {ACTIVE} 'kdh'), {ISSUER}, {ACTIVE} 'ca-krd'), {ACTIVE} 'root'),
                 (SELECT COALESCE(max(number), 0) FROM rki_crls
                  WHERE der IS NOT NULL AND issuer_id = {ISSUER}),
                 (SELECT count(*) FROM rki_authorities
                  WHERE state = 'revoked' AND issuer_id = {ISSUER})"
        );
        let row = self.query_one(&sql, &[])?;
        let row = row.ok_or_else(|| StoreError::corrupt("a row of scalars is missing"))?;
        let id = |column| Ok::<_, StoreError>(row.opt_text(column)?.map(str::to_owned));
        Ok(HierarchyPulse {
            kdh: id(0)?,
            ca_kdh: id(1)?,
            ca_krd: id(2)?,
            root: id(3)?,
            crl: u64::try_from(row.int(4)?).unwrap_or_default(),
            revoked: row.u32(5)?,
        })
    }

    /// What an issuer's CRL has to list at `now`: its revoked certificates, of authorities and of
    /// terminals, that have not expired. By serial number, at most `limit`.
    ///
    /// # Errors
    /// What the database answers.
    pub fn revoked_under(
        &mut self,
        issuer_id: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<Listed>, StoreError> {
        let rows = self.query(
            "SELECT serial, ended_at FROM rki_authorities
             WHERE issuer_id = ?1 AND state = 'revoked' AND not_after > ?2
             UNION ALL
             SELECT serial, revoked_at FROM krd_certificates
             WHERE issuer_id = ?1 AND state = 'revoked' AND der IS NOT NULL AND not_after > ?2
             ORDER BY 1 LIMIT ?3",
            &[issuer_id.into(), now.into(), limit.into()],
        )?;
        let listed = |row: &Row| Ok(Listed { serial: row.text(0)?.to_owned(), at: row.time(1)? });
        rows.iter().map(listed).collect()
    }

    /// Numbers an issuer's next CRL (whatever `number` and `der` say) and returns the number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `rki_crls_issuer_id_number_key` if another one took the number at
    /// once; [`StoreError::NotFound`] for no such issuer.
    pub fn intend_crl(&mut self, new: &StoredCrl) -> Result<u64, StoreError> {
        let last = self.query_one(
            "SELECT COALESCE(max(number), 0) FROM rki_crls WHERE issuer_id = ?1",
            &[(&new.issuer_id).into()],
        )?;
        let number = last.map_or(Ok(0), |row| row.int(0))? + 1;
        self.execute(
            "INSERT INTO rki_crls (issuer_id, number, listed, this_update, next_update)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &[
                (&new.issuer_id).into(),
                number.into(),
                new.listed.into(),
                new.this_update.into(),
                new.next_update.into(),
            ],
        )?;
        u64::try_from(number).map_err(|_| StoreError::corrupt("a negative CRL number"))
    }

    /// Stores a CRL that was signed under an intended number. Storing again is refused.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if no CRL of this number is intended.
    pub fn record_crl(
        &mut self,
        issuer_id: &str,
        number: u64,
        der: &[u8],
    ) -> Result<(), StoreError> {
        let number =
            i64::try_from(number).map_err(|_| StoreError::misuse("a CRL number out of range"))?;
        self.change_one(
            "intended CRL",
            "UPDATE rki_crls SET der = ?3 WHERE issuer_id = ?1 AND number = ?2 AND der IS NULL",
            &[issuer_id.into(), number.into(), der.into()],
        )
    }

    /// An issuer's newest signed CRL.
    ///
    /// # Errors
    /// What the database answers.
    pub fn newest_crl(&mut self, issuer_id: &str) -> Result<Option<StoredCrl>, StoreError> {
        let sql = format!(
            "SELECT {CRL_COLUMNS} FROM rki_crls WHERE issuer_id = ?1 AND der IS NOT NULL
             ORDER BY number DESC LIMIT 1"
        );
        self.query_one(&sql, &[issuer_id.into()])?.map(|row| crl(&row)).transpose()
    }

    /// Keeps the check value of the storage key with this label, if there is none yet, and returns
    /// the one that is kept.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn keep_storage_key(
        &mut self,
        label: &str,
        check_value: &[u8],
        now: UnixTime,
    ) -> Result<Vec<u8>, StoreError> {
        check_texts([label])?;
        self.execute(
            "INSERT INTO storage_keys (label, check_value, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (label) DO NOTHING",
            &[label.into(), check_value.into(), now.into()],
        )?;
        let sql = "SELECT check_value FROM storage_keys WHERE label = ?1";
        let row = self.query_one(sql, &[label.into()])?;
        let row = row.ok_or_else(|| StoreError::corrupt("the storage key's row is missing"))?;
        Ok(row.blob(0)?.to_vec())
    }
}

//! From a verified person's roles to the PostgreSQL account that runs their queries.
//!
//! The token decides, never the startup packet: the `user` that a client sends is a wish. It may be the person's own name
//! (then the best role counts), or one of the roles or accounts that the token maps to (then that one). Anything else is
//! refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::jwt::is_hidden;
use super::{Identity, Method};
use crate::fault::{Refusal, SqlState};
use crate::policy::Account;

/// How many names a message lists before it stops.
const MAX_LISTED: usize = 8;
/// How much of a name a message shows.
const MAX_SHOWN_CHARS: usize = 80;

/// One line of the configuration: this role runs as this account.
#[derive(Clone)]
pub struct RoleEntry {
    /// The role as tokens name it, compared trimmed and without case.
    pub role: String,
    /// Who runs the queries.
    pub account: Arc<Account>,
    /// When a token has several mapped roles, the one with the highest priority counts; `None` is 0, and among equals the
    /// token's own order decides.
    pub priority: Option<i32>,
}

/// The configured mapping.
#[derive(Default)]
pub struct RoleMap {
    entries: Vec<Entry>,
    /// From the folded role to its place in `entries`.
    by_role: BTreeMap<String, usize>,
    default: Option<usize>,
}

struct Entry {
    role: Arc<str>,
    account: Arc<Account>,
    priority: i32,
}

/// The account that somebody may use, and the role that gave it to them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Grant {
    /// Who runs the queries.
    pub account: Arc<Account>,
    /// The role as the configuration spells it.
    pub role: Arc<str>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("account", &self.account.name).field("role", &self.role).finish()
    }
}

/// Why a role mapping cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RoleMapError {
    /// A role without a name.
    EmptyRole,
    /// The same role twice, after trimming and folding.
    DuplicateRole(String),
    /// The default role is not mapped to an account.
    UnmappedDefault(String),
}

impl fmt::Display for RoleMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyRole => {
                f.write_str("a role mapping has an empty role name; expected the name as tokens carry it")
            }
            Self::DuplicateRole(role) => {
                write!(
                    f,
                    "the role \"{role}\" is mapped twice (roles are compared without case); expected one account for it"
                )
            }
            Self::UnmappedDefault(role) => {
                write!(f, "the default role \"{role}\" is not mapped to an account; expected one of the mapped roles")
            }
        }
    }
}

impl std::error::Error for RoleMapError {}

impl RoleMap {
    /// Checks and indexes a mapping.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn new(entries: impl IntoIterator<Item = RoleEntry>, default_role: Option<&str>) -> Result<Self, RoleMapError> {
        let mut map = Self::default();
        for RoleEntry { role, account, priority } in entries {
            let folded = fold(&role);
            if folded.is_empty() {
                return Err(RoleMapError::EmptyRole);
            }
            if map.by_role.insert(folded, map.entries.len()).is_some() {
                return Err(RoleMapError::DuplicateRole(shown(&role)));
            }
            map.entries.push(Entry { role: role.trim().into(), account, priority: priority.unwrap_or(0) });
        }
        if let Some(role) = default_role {
            let place = map.by_role.get(&fold(role)).copied();
            map.default = Some(place.ok_or_else(|| RoleMapError::UnmappedDefault(shown(role)))?);
        }
        Ok(map)
    }

    /// The account for a person who asked to be `wanted_user`.
    ///
    /// # Errors
    /// 28000 when none of their roles is mapped, or when they ask for a name that is not theirs.
    pub fn grant(&self, identity: &Identity, wanted_user: &str) -> Result<Grant, Refusal> {
        let mapped = self.mapped(identity)?;
        let Some(best) = mapped.first() else { return Err(no_role(identity)) };
        if is_own_name(identity, wanted_user) {
            return Ok(best.grant());
        }
        let folded = fold(wanted_user);
        // A role before an account: the same word may be both, and a role is the more exact of the two.
        let by_role = mapped.iter().find(|entry| fold(&entry.role) == folded);
        let wanted = by_role.or_else(|| mapped.iter().find(|entry| *entry.account.name == *wanted_user));
        wanted.map(|entry| entry.grant()).ok_or_else(|| not_theirs(identity, wanted_user, &mapped))
    }

    /// All accounts, one for each role.
    #[cfg(feature = "driver")]
    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.entries.iter().map(|entry| &entry.account)
    }

    /// The account of this name as it is now, for somebody who runs as it already: settings may have changed since.
    ///
    /// # Errors
    /// No role of theirs leads there any more.
    pub fn renew(&self, identity: &Identity, account: &str) -> Result<Arc<Account>, Refusal> {
        let mapped = self.mapped(identity)?;
        let same = mapped.iter().find(|entry| *entry.account.name == *account);
        same.map(|entry| entry.account.clone()).ok_or_else(|| not_theirs(identity, account, &mapped))
    }

    /// The entries that a person's roles lead to, the best first.
    fn mapped(&self, identity: &Identity) -> Result<Vec<&Entry>, Refusal> {
        if identity.method != Method::Token {
            // PostgreSQL accepted a password: that session runs as its own user, and the default role is not for it.
            return Err(Refusal::new(
                SqlState::INVALID_AUTHORIZATION,
                "roles come with tokens, and this login was by password",
            ));
        }
        let mut places: Vec<usize> = Vec::new();
        for role in identity.roles.iter() {
            if let Some(&place) = self.by_role.get(&fold(role))
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
        if places.is_empty() {
            places.extend(self.default);
        }
        let mut mapped: Vec<&Entry> = places.into_iter().map(|place| &self.entries[place]).collect();
        // Stable: among equals the token's order stays.
        mapped.sort_by_key(|entry| std::cmp::Reverse(entry.priority));
        Ok(mapped)
    }
}

impl Entry {
    fn grant(&self) -> Grant {
        Grant { account: self.account.clone(), role: self.role.clone() }
    }
}

/// A subject is opaque and compared exactly (OpenID Connect Core section 2). So is a readable name, unless it is an e-mail
/// address: those people type as they like.
fn is_own_name(identity: &Identity, wanted: &str) -> bool {
    let is_email = identity.user.contains('@');
    *identity.subject == *wanted
        || *identity.user == *wanted
        || (is_email && identity.user.eq_ignore_ascii_case(wanted))
}

/// Whether two names are of the same role: trimmed, and without case as far as that cannot make two roles alike.
#[must_use]
pub fn is_same_role(one: &str, other: &str) -> bool {
    fold(one) == fold(other)
}

/// Trimmed and in lower case. A character outside of ASCII never becomes one inside it: the Kelvin sign is not a `k`, so no
/// role that looks like another can be taken for it.
fn fold(role: &str) -> String {
    let mut folded = String::with_capacity(role.len());
    for c in role.trim().chars() {
        if c.is_ascii() || c.to_lowercase().any(|lower| lower.is_ascii()) {
            folded.push(c.to_ascii_lowercase());
        } else {
            folded.extend(c.to_lowercase());
        }
    }
    folded
}

fn no_role(identity: &Identity) -> Refusal {
    let refusal =
        Refusal::new(SqlState::INVALID_AUTHORIZATION, "none of the token's roles is mapped to a PostgreSQL account");
    if identity.roles.is_empty() {
        return refusal.hint(
            "The token carries no role at all: ask for one at the identity provider, or compare the configured roles claims.",
        );
    }
    refusal.hint(format!(
        "The token's roles are {}: ask for one that is mapped, or have one of these mapped.",
        listed(identity.roles.iter().map(|role| &**role))
    ))
}

fn not_theirs(identity: &Identity, wanted: &str, mapped: &[&Entry]) -> Refusal {
    let mut names: Vec<&str> = Vec::new();
    let own = [&*identity.user, &*identity.subject];
    let granted = mapped.iter().flat_map(|entry| [&*entry.role, &*entry.account.name]);
    for name in own.into_iter().chain(granted) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Refusal::new(
        SqlState::INVALID_AUTHORIZATION,
        format!("the token does not belong to \"{}\" and does not allow that account", shown(wanted)),
    )
    .hint(format!("Connect as {}.", listed(names.into_iter())))
}

/// `"a", "b" or "c"`, with an end.
fn listed<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = names.by_ref().take(MAX_LISTED).map(|name| format!("\"{}\"", shown(name))).collect();
    let more = names.count();
    if more > 0 {
        quoted.push(format!("{more} more"));
    }
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A name from outside, fit for one line.
fn shown(name: &str) -> String {
    let mut out: String =
        name.trim().chars().take(MAX_SHOWN_CHARS).map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect();
    if name.trim().chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn account(name: &str) -> Arc<Account> {
        Arc::new(Account { name: name.into(), password: Some(Arc::new(Secret::new(b"hunter2".to_vec()))) })
    }

    fn entry(role: &str, account_name: &str, priority: Option<i32>) -> RoleEntry {
        RoleEntry { role: role.into(), account: account(account_name), priority }
    }

    fn map(default: Option<&str>) -> RoleMap {
        let entries =
            [entry("Reader", "svc_ro", None), entry(" writer ", "svc_rw", None), entry("admin", "svc_dba", None)];
        RoleMap::new(entries, default).unwrap()
    }

    fn person(roles: &[&str]) -> Identity {
        Identity {
            issuer: "https://idp.example".into(),
            subject: "auth0|Abc".into(),
            user: "Ann@corp.example".into(),
            roles: roles.iter().map(|role| Arc::from(*role)).collect(),
            expires: None,
            method: Method::Token,
        }
    }

    fn granted(map: &RoleMap, roles: &[&str], wanted: &str) -> String {
        let grant = map.grant(&person(roles), wanted).unwrap();
        format!("{}={}", grant.role, grant.account.name)
    }

    fn refused(map: &RoleMap, roles: &[&str], wanted: &str) -> Refusal {
        let refusal = map.grant(&person(roles), wanted).unwrap_err();
        assert_eq!(refusal.code, SqlState::INVALID_AUTHORIZATION);
        refusal
    }

    #[test]
    fn the_first_mapped_role_of_the_token_wins() {
        let map = map(None);
        assert_eq!(granted(&map, &["unknown", "WRITER", "reader"], "ann@corp.example"), "writer=svc_rw");
        assert_eq!(granted(&map, &["  reader "], "ann@corp.example"), "Reader=svc_ro");
    }

    #[test]
    fn a_priority_overrides_the_order_and_equals_keep_it() {
        let entries = [
            entry("a", "acc_a", None),
            entry("b", "acc_b", Some(5)),
            entry("c", "acc_c", Some(5)),
            entry("d", "x", Some(-1)),
        ];
        let map = RoleMap::new(entries, None).unwrap();
        let own = "auth0|Abc";
        assert_eq!(granted(&map, &["a", "c", "b"], own), "c=acc_c");
        assert_eq!(granted(&map, &["d", "a"], own), "a=acc_a");
        assert_eq!(granted(&map, &["d"], own), "d=x");
    }

    #[test]
    fn the_default_is_only_for_people_without_a_mapped_role() {
        let map = map(Some("READER"));
        assert_eq!(granted(&map, &[], "ann@corp.example"), "Reader=svc_ro");
        assert_eq!(granted(&map, &["nobody"], "reader"), "Reader=svc_ro");
        assert_eq!(granted(&map, &["admin"], "ann@corp.example"), "admin=svc_dba");
        let _ = refused(&map, &["admin"], "reader");
    }

    #[test]
    fn the_startup_user_is_the_person_or_one_of_their_roles_or_accounts() {
        let map = map(None);
        let roles = ["reader", "writer"];
        for own in ["Ann@corp.example", "ann@CORP.example", "auth0|Abc"] {
            assert_eq!(granted(&map, &roles, own), "Reader=svc_ro", "{own}");
        }
        assert_eq!(granted(&map, &roles, "Writer"), "writer=svc_rw");
        assert_eq!(granted(&map, &roles, "svc_rw"), "writer=svc_rw");
        for foreign in
            ["ceo@corp.example", "auth0|abc", "admin", "svc_dba", "SVC_RW", "postgres", "", "ann@corp.example "]
        {
            let refusal = refused(&map, &roles, foreign);
            let hint = refusal.hint.unwrap();
            assert!(hint.contains("\"Ann@corp.example\"") && hint.contains("\"svc_rw\""), "{hint}");
            assert!(!hint.contains("svc_dba") && !hint.contains("hunter2"), "{hint}");
        }
    }

    #[test]
    fn a_name_that_is_no_address_is_compared_exactly() {
        let map = map(None);
        let ann = Identity { user: "Ann".into(), ..person(&["reader"]) };
        assert!(map.grant(&ann, "Ann").is_ok());
        assert!(map.grant(&ann, "ann").is_err());
    }

    #[test]
    fn without_a_mapped_role_nobody_gets_in() {
        let map = map(None);
        let refusal = refused(&map, &["guest", "sales"], "ann@corp.example");
        assert!(refusal.hint.unwrap().contains("\"guest\" or \"sales\""));
        assert!(refused(&map, &[], "ann@corp.example").hint.unwrap().contains("no role at all"));
        assert!(RoleMap::default().grant(&person(&["reader"]), "ann@corp.example").is_err());
    }

    #[test]
    fn a_password_login_gets_no_role_and_no_default() {
        let by_password = Identity { method: Method::Password, ..person(&[]) };
        assert!(map(Some("admin")).grant(&by_password, "auth0|Abc").is_err());
    }

    #[test]
    fn mistakes_in_the_mapping_are_told() {
        let twice = RoleMap::new([entry("Reader", "a", None), entry(" reader", "b", None)], None).err().unwrap();
        assert_eq!(twice, RoleMapError::DuplicateRole("reader".into()));
        assert!(twice.to_string().contains("mapped twice"));
        let default = RoleMap::new([entry("reader", "a", None)], Some("writer")).err().unwrap();
        assert!(default.to_string().contains("\"writer\" is not mapped"));
        assert_eq!(RoleMap::new([entry("  ", "a", None)], None).err(), Some(RoleMapError::EmptyRole));
    }

    #[test]
    fn folding_never_leads_into_ascii() {
        assert_eq!(fold(" ÄRZTE "), "ärzte");
        assert_eq!(fold("İ"), "İ");
        assert_ne!(fold("\u{212a}ing"), fold("king"));
        let map = RoleMap::new([entry("king", "acc", None)], None).unwrap();
        assert!(map.grant(&person(&["\u{212a}ing"]), "auth0|Abc").is_err());
    }

    #[test]
    fn messages_stay_one_bounded_line() {
        let map = map(None);
        let wanted = format!("x\nFATAL\u{202e}{}", "y".repeat(5000));
        let refusal = refused(&map, &["reader"], &wanted);
        assert!(refusal.message.len() < 300 && !refusal.message.contains(['\n', '\u{202e}']), "{}", refusal.message);
        let many: Vec<String> = (0..512).map(|i| format!("role{i}{}", "z".repeat(400))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let hint = refused(&map, &many, "x").hint.unwrap();
        assert!(hint.len() < 1200 && hint.contains("or 504 more"), "{hint}");
    }
}

//! Who may use the console, and for what.

use std::sync::Arc;

use crate::auth::{Identity, Method, is_same_role};

/// What somebody may do at the console.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// SHOW only.
    Stats,
    /// Everything.
    Admin,
}

/// Who may use the console; by default nobody but gprxy's own user of this machine.
#[derive(Clone, Debug, Default)]
pub struct ConsoleAccess {
    /// Roles of a token that may do everything.
    pub admin_roles: Vec<Arc<str>>,
    /// Roles of a token that may look.
    pub stats_roles: Vec<Arc<str>>,
    /// Users, let in by a password, who may do everything (PgBouncer's `admin_users`).
    pub admin_users: Vec<Arc<str>>,
    /// The same for those who may look (PgBouncer's `stats_users`).
    pub stats_users: Vec<Arc<str>>,
    /// The user id of gprxy's process: its processes may do everything through a Unix socket, without a password.
    pub own_uid: Option<u32>,
}

impl ConsoleAccess {
    /// The names of the database that the console is, as clients ask for it.
    pub const DATABASES: [&'static str; 2] = ["pgbouncer", "gprxy"];

    /// The users that need no password where gprxy's own user of this machine asks.
    pub const OWN_USERS: [&'static str; 2] = Self::DATABASES;

    /// Whether a client that asks for this database means the console.
    #[must_use]
    pub fn is_console(database: &str) -> bool {
        Self::DATABASES.contains(&database)
    }

    /// Whether a peer is gprxy's own user of this machine, and says so.
    #[must_use]
    pub fn is_own(&self, user: &str, uid: Option<u32>) -> bool {
        uid.is_some() && uid == self.own_uid && Self::OWN_USERS.contains(&user)
    }

    /// What this identity may do. Roles come with tokens and names with passwords: neither counts for the other, so that a
    /// token's claim cannot be taken for a name of this list.
    #[must_use]
    pub fn standing(&self, who: &Identity) -> Option<Standing> {
        let among = |roles: &[Arc<str>], users: &[Arc<str>]| match who.method {
            Method::Token => who.roles.iter().any(|role| roles.iter().any(|wanted| is_same_role(role, wanted))),
            Method::Password | Method::Trust => users.contains(&who.subject),
            Method::Peer => true,
        };
        if among(&self.admin_roles, &self.admin_users) {
            Some(Standing::Admin)
        } else if among(&self.stats_roles, &self.stats_users) {
            Some(Standing::Stats)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(method: Method, name: &str, roles: &[&str]) -> Identity {
        Identity {
            issuer: "".into(),
            subject: name.into(),
            user: name.into(),
            roles: roles.iter().map(|role| Arc::from(*role)).collect(),
            expires: None,
            method,
        }
    }

    fn access() -> ConsoleAccess {
        ConsoleAccess {
            admin_roles: vec!["dba".into()],
            stats_roles: vec!["monitoring".into()],
            admin_users: vec!["root".into()],
            stats_users: vec!["exporter".into()],
            own_uid: Some(1000),
        }
    }

    #[test]
    fn roles_count_for_tokens_and_names_for_passwords() {
        let access = access();
        let standing = |method, name, roles: &[&str]| access.standing(&identity(method, name, roles));
        assert_eq!(standing(Method::Token, "ann", &["reader", "DBA"]), Some(Standing::Admin));
        assert_eq!(standing(Method::Token, "ann", &["monitoring"]), Some(Standing::Stats));
        assert_eq!(standing(Method::Token, "ann", &["monitoring", "dba"]), Some(Standing::Admin));
        assert_eq!(standing(Method::Token, "root", &["reader"]), None);
        assert_eq!(standing(Method::Password, "root", &[]), Some(Standing::Admin));
        assert_eq!(standing(Method::Trust, "exporter", &[]), Some(Standing::Stats));
        assert_eq!(standing(Method::Password, "ann", &["dba"]), None);
    }

    #[test]
    fn by_default_nobody_may_do_anything() {
        let access = ConsoleAccess::default();
        assert_eq!(access.standing(&identity(Method::Token, "ann", &["", "dba"])), None);
        assert_eq!(access.standing(&identity(Method::Password, "", &[])), None);
        assert!(!access.is_own("pgbouncer", None));
    }

    #[test]
    fn only_the_process_own_user_is_its_own() {
        let access = access();
        assert!(access.is_own("pgbouncer", Some(1000)) && access.is_own("gprxy", Some(1000)));
        assert!(!access.is_own("pgbouncer", Some(0)), "not even root");
        assert!(!access.is_own("pgbouncer", None));
        assert!(!access.is_own("root", Some(1000)));
    }
}

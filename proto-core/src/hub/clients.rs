//! How many clients there are of each database, user and identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::{Refusal, SqlState};
use crate::policy::Limits;
use crate::pool::PoolSettings;
use crate::session_id::SessionId;

/// A client that has said and proven who it is, and wants to begin.
#[derive(Clone, Debug)]
pub struct Applicant<'a> {
    /// The database that it names.
    pub database: &'a Arc<str>,
    /// The name that it is counted under; `None`: nobody's.
    pub user: Option<&'a Arc<str>>,
    /// Its verified identity in one canonical spelling; `None` while PostgreSQL has to check its password.
    pub identity: Option<&'a Arc<str>>,
    /// Whether the places that are kept for administrators are for it, too.
    pub is_admin: bool,
    /// Whether it is at the console, which administrators reach in any case.
    pub at_console: bool,
    /// What holds for its pool.
    pub settings: &'a PoolSettings,
}

/// Clients that were let in, counted by what they have in common.
#[derive(Default)]
pub(super) struct Clients {
    databases: Counts,
    users: Counts,
    identities: Counts,
    places: BTreeMap<SessionId, Place>,
}

/// What a client is counted under.
struct Place {
    database: Arc<str>,
    user: Option<Arc<str>>,
    identity: Option<Arc<str>>,
}

/// Names with the number of clients of each; none with zero.
#[derive(Default)]
struct Counts(BTreeMap<Arc<str>, u32>);

impl Counts {
    fn of(&self, name: &str) -> u32 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, name: &Arc<str>) {
        *self.0.entry(name.clone()).or_insert(0) += 1;
    }

    fn remove(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }
}

const fn is_reached(limit: u32, count: u32) -> bool {
    limit > 0 && count >= limit
}

impl Clients {
    /// Takes a place for a session, until [`Self::depart`].
    pub(super) fn admit(
        &mut self,
        session: SessionId,
        client: &Applicant<'_>,
        limits: &Limits,
        connected: u32,
    ) -> Result<(), Refusal> {
        self.check(client, limits, connected)?;
        if self.places.contains_key(&session) {
            return Ok(());
        }
        let (user, identity) = (client.user.cloned(), client.identity.cloned());
        let database = client.database.clone();
        self.databases.add(&database);
        for (counts, name) in [(&mut self.users, &user), (&mut self.identities, &identity)] {
            if let Some(name) = name {
                counts.add(name);
            }
        }
        self.places.insert(session, Place { database, user, identity });
        Ok(())
    }

    /// Whether a limit is in the way.
    pub(super) fn check(&self, client: &Applicant<'_>, limits: &Limits, connected: u32) -> Result<(), Refusal> {
        if client.at_console && client.is_admin {
            return Ok(());
        }
        let open = limits.max_client_conn.saturating_sub(limits.reserved_for_admins);
        let (database, settings) = (client.database, client.settings);
        let per_identity = limits.max_client_conn_per_identity;
        if !client.is_admin && limits.reserved_for_admins > 0 && connected > open {
            let message = "no more connections allowed: the remaining ones are kept for administrators";
            return Err(refusal(message.into(), "max_client_conn"));
        }
        if is_reached(settings.max_db_client_connections, self.databases.of(database)) {
            let limit = settings.max_db_client_connections;
            let message = format!("no more connections allowed: database \"{database}\" has its {limit} clients");
            return Err(refusal(message, "max_db_client_connections"));
        }
        let limit = settings.max_user_client_connections;
        if let Some(user) = client.user.filter(|user| is_reached(limit, self.users.of(user))) {
            let message = format!("no more connections allowed: user \"{user}\" has its {limit} clients");
            return Err(refusal(message, "max_user_client_connections"));
        }
        if client.identity.is_some_and(|identity| is_reached(per_identity, self.identities.of(identity))) {
            let message = format!("no more connections allowed: you have {per_identity} already");
            return Err(refusal(message, "max_client_conn_per_identity"));
        }
        Ok(())
    }

    /// Frees the place of a session, if it has one.
    pub(super) fn depart(&mut self, session: SessionId) {
        let Some(Place { database, user, identity }) = self.places.remove(&session) else { return };
        self.databases.remove(&database);
        for (counts, name) in [(&mut self.users, user), (&mut self.identities, identity)] {
            if let Some(name) = name {
                counts.remove(&name);
            }
        }
    }

    pub(super) fn of_database(&self, database: &str) -> u32 {
        self.databases.of(database)
    }

    pub(super) fn is_empty(&self) -> bool {
        let counts = [&self.databases, &self.users, &self.identities];
        self.places.is_empty() && counts.iter().all(|it| it.0.is_empty())
    }
}

fn refusal(message: String, setting: &str) -> Refusal {
    Refusal::new(SqlState::TOO_MANY_CONNECTIONS, format!("{message} ({setting})"))
        .hint(format!("Close sessions that are not in use, or ask the operator of gprxy to raise {setting}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PoolSettings {
        PoolSettings { max_db_client_connections: 3, max_user_client_connections: 2, ..PoolSettings::default() }
    }

    fn admit(clients: &mut Clients, session: u64, names: [&str; 3], limits: &Limits) -> Result<(), Refusal> {
        let [database, user, identity] = names.map(Arc::<str>::from);
        let settings = settings();
        let applicant = Applicant {
            database: &database,
            user: (!user.is_empty()).then_some(&user),
            identity: (!identity.is_empty()).then_some(&identity),
            is_admin: &*identity == "root",
            at_console: &*database == "pgbouncer",
            settings: &settings,
        };
        clients.admit(SessionId(session), &applicant, limits, u32::try_from(clients.places.len()).unwrap() + 1)
    }

    #[test]
    fn each_limit_is_told_by_its_name_and_ends_with_a_departure() {
        let limits = Limits { max_client_conn_per_identity: 1, ..Limits::default() };
        for (present, next, setting) in [
            (vec![["d", "a", ""], ["d", "a", ""]], ["e", "a", ""], "max_user_client_connections"),
            (vec![["d", "a", ""], ["d", "b", ""], ["d", "c", ""]], ["d", "e", ""], "max_db_client_connections"),
            (vec![["d", "a", "ann"]], ["e", "b", "ann"], "max_client_conn_per_identity"),
        ] {
            let mut clients = Clients::default();
            for (session, names) in present.iter().enumerate() {
                admit(&mut clients, session as u64, *names, &limits).unwrap();
            }
            let refusal = admit(&mut clients, 9, next, &limits).unwrap_err();
            assert_eq!(refusal.code, SqlState::TOO_MANY_CONNECTIONS);
            assert!(refusal.message.contains(setting), "{}", refusal.message);
            clients.depart(SessionId(0));
            // Who was refused has taken nothing.
            clients.depart(SessionId(9));
            admit(&mut clients, 9, next, &limits).unwrap();
            for session in 1..10 {
                clients.depart(SessionId(session));
            }
            assert!(clients.is_empty());
        }
    }

    #[test]
    fn who_is_not_proven_is_limited_and_takes_nobodys_place() {
        let limits = Limits { max_client_conn_per_identity: 1, ..Limits::default() };
        let (database, user, settings) = ("d".into(), "a".into(), settings());
        let unproven = Applicant {
            database: &database,
            user: Some(&user),
            identity: None,
            is_admin: false,
            at_console: false,
            settings: &settings,
        };
        let mut clients = Clients::default();
        for _ in 0..9 {
            clients.check(&unproven, &limits, 1).unwrap();
        }
        assert!(clients.is_empty());
        admit(&mut clients, 1, ["d", "a", "\0a"], &limits).unwrap();
        clients.check(&unproven, &limits, 1).unwrap();
        let refusal = admit(&mut clients, 2, ["e", "a", "\0a"], &limits).unwrap_err();
        assert!(refusal.message.contains("max_client_conn_per_identity"), "{}", refusal.message);
        admit(&mut clients, 3, ["e", "a", "\0b"], &limits).unwrap();
        let refusal = clients.check(&unproven, &limits, 1).unwrap_err();
        assert!(refusal.message.contains("max_user_client_connections"), "{}", refusal.message);
    }

    #[test]
    fn the_last_places_are_for_administrators() {
        let limits = Limits { max_client_conn: 2, reserved_for_admins: 1, ..Limits::default() };
        let mut clients = Clients::default();
        admit(&mut clients, 1, ["d", "a", "ann"], &limits).unwrap();
        let refusal = admit(&mut clients, 2, ["d", "b", "ben"], &limits).unwrap_err();
        assert!(refusal.message.contains("administrators"), "{}", refusal.message);
        admit(&mut clients, 3, ["d", "b", "root"], &limits).unwrap();
    }

    #[test]
    fn an_administrator_gets_to_the_console_in_any_case_and_counts() {
        let limits = Limits::default();
        let mut clients = Clients::default();
        for session in 0..4 {
            admit(&mut clients, session, ["pgbouncer", "", "root"], &limits).unwrap();
        }
        assert!(admit(&mut clients, 5, ["pgbouncer", "", "mona"], &limits).is_err(), "who only looks is limited");
        assert!(admit(&mut clients, 6, ["d", "a", "root"], &limits).is_ok());
    }
}

//! `[admin]`: who may use the admin console, and what it counts by.

use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::console::ConsoleAccess;

use super::draft::Draft;
use super::kinds::{List, Span};
use super::reader::{Entry, Reader};
use super::schema;
use super::settings::AdminSettings;

/// Reads `[admin]`. Nobody may use the console by default, but gprxy's own user of this machine.
pub(crate) fn admin(entry: Entry, draft: &mut Draft) -> AdminSettings {
    let mut reader = Reader::of_section(&schema::ADMIN, entry, draft);
    let mut names = |name: &'static str, expected: &'static str| -> Vec<Arc<str>> {
        let list = reader.optional_or(name, &List(expected), "not set, nobody");
        list.unwrap_or_default().into_iter().map(|name| name.trim().into()).collect()
    };
    const ROLES: &str = "names of roles as tokens carry them, separated by commas";
    const USERS: &str = "names of users who log in with a password that gprxy checks, separated by commas";
    let access = ConsoleAccess {
        admin_roles: names("admin_roles", ROLES),
        stats_roles: names("stats_roles", ROLES),
        admin_users: names("admin_users", USERS),
        stats_users: names("stats_users", USERS),
        own_uid: None,
    };
    let period = reader.read("stats_period", &Span { min: Duration::from_secs(1), max: Duration::from_secs(86_400) });
    reader.finish();
    AdminSettings { access, stats_period: period }
}

//! The connection strings of `[databases]`, `[peers]` and `[users]`.

use gprxy_proto::secret::Secret;

use super::super::ini;
use super::super::options::{self, Fate, Form, Known, OF_DATABASES, OF_PEERS, OF_USERS};
use super::Translation;
use crate::config::document::Value;
use crate::config::problem::{Origin, nearest};
use crate::config::reader::{Entry, Found};
use crate::config::schema;

/// Where a peer listens that is given no port.
const PEER_PORT: &str = "6432";

impl Translation<'_> {
    pub(super) fn database(&mut self, name: &str, text: &Secret<String>, origin: &Origin) {
        let place = format!("[databases] {name}");
        if name == "pgbouncer" {
            return self.problem(&place, origin, "the name of the admin console", "another name");
        }
        let mut entry = Entry { origin: Some(origin.clone()), ..Entry::default() };
        for (known, value) in self.strings(&place, text, OF_DATABASES, origin) {
            let key = match (
                known.fate,
                schema::DATABASES.key(if known.name == "reserve_pool" { "reserve_pool_size" } else { known.name }),
            ) {
                (Fate::Without(instead), _) => {
                    self.note(&format!("{place}: {}", known.name), origin, instead);
                    continue;
                }
                (Fate::Same | Fate::Woven, None) => {
                    self.note(&format!("{place}: {}", known.name), origin, "gprxy has no such setting");
                    continue;
                }
                (Fate::Same | Fate::Woven, Some(key)) => key,
            };
            // -1 stands for a value that is not set.
            if value.expose() == "-1" {
                continue;
            }
            self.secrets |= key.secret;
            entry.values.insert(key.name, Found { value: Value::Text(value), origin: origin.clone() });
        }
        let several = entry.text("host").is_some_and(|hosts| hosts.contains(','));
        if several && !entry.values.contains_key("load_balance_hosts") {
            entry.set("load_balance_hosts", "round-robin", Origin::PgBouncer);
        }
        self.merged.databases.retain(|(earlier, _)| earlier != name);
        self.merged.databases.push((name.to_owned(), entry));
    }

    pub(super) fn peer(&mut self, name: &str, text: &Secret<String>, origin: &Origin) {
        let mut entry = Entry { origin: Some(origin.clone()), ..Entry::default() };
        entry.set("port", PEER_PORT, Origin::PgBouncer);
        for (known, value) in self.strings(&format!("[peers] {name}"), text, OF_PEERS, origin) {
            if let Some(key) = schema::PEERS.key(known.name).filter(|_| value.expose() != "-1") {
                entry.set(key.name, value.expose(), origin.clone());
            }
        }
        self.merged.peers.push((name.to_owned(), entry));
    }

    pub(super) fn user(&mut self, name: &str, text: &Secret<String>, origin: &Origin) {
        let place = format!("[users] {name}");
        let mut entry = Entry { origin: Some(origin.clone()), ..Entry::default() };
        entry.set("name", name, origin.clone());
        entry.set("account", name, origin.clone());
        for (known, value) in self.strings(&place, text, OF_USERS, origin) {
            match schema::ROLE.key(known.name) {
                Some(key) if value.expose() != "-1" => entry.set(key.name, value.expose(), origin.clone()),
                Some(_) => {}
                None => self.note(&format!("{place}: {}", known.name), origin, "gprxy has no such setting"),
            }
        }
        self.merged.roles.retain(|earlier| earlier.text("name") != Some(name));
        self.merged.roles.push(entry);
    }

    /// The known parameters of a connection string, the last of each name.
    fn strings(
        &mut self,
        place: &str,
        text: &Secret<String>,
        table: &'static [Known],
        origin: &Origin,
    ) -> Vec<(&'static Known, Secret<String>)> {
        let mut all: Vec<(&'static Known, Secret<String>)> = Vec::new();
        let pairs = match ini::pairs(text.expose()) {
            Ok(pairs) => pairs,
            Err(what) => {
                self.problem(place, origin, what, "name=value pairs; values with blanks in single quotes");
                return all;
            }
        };
        for (name, value) in pairs {
            let Some(known) = options::find(table, name) else {
                let expected = match nearest(name, table.iter().map(|known| known.name)) {
                    Some(near) => format!("a parameter of PgBouncer's; the nearest is {near}"),
                    None => "a parameter of PgBouncer's".to_owned(),
                };
                // Not shown: with a quote forgotten before it, it is the rest of a password.
                self.problem(place, origin, "an unknown name", &expected);
                continue;
            };
            let value = match known.form {
                Form::Text => value,
                _ if value.expose() == "-1" => value,
                _ => match self.value(known, value.expose(), origin) {
                    Some(value) => Secret::new(value),
                    None => continue,
                },
            };
            all.retain(|(earlier, _)| earlier.name != known.name);
            all.push((known, value));
        }
        all
    }
}

//! The configuration file as entries: known keys only, variables expanded, secret files read.

use std::path::Path;
use std::sync::Arc;

use super::document::{self, Item, Table, Value};
use super::draft::Draft;
use super::files;
use super::merge::Merged;
use super::problem::{Origin, Problem, nearest};
use super::reader::{Entry, Found};
use super::schema::{self, Form, Key, Section};
use super::sources::Variables;

/// Reads the file; everything that is wrong with it is noted. `None`: it cannot be read or is no TOML, and what it
/// would have said is not known, so that further complaints would only mislead.
pub(crate) fn read(path: &Path, variables: &Variables<'_>, draft: &mut Draft) -> Option<Merged> {
    FileReader { path: path.display().to_string().into(), variables, draft }.tables(path)
}

struct FileReader<'r, 's> {
    path: Arc<str>,
    variables: &'r Variables<'s>,
    draft: &'r mut Draft,
}

impl FileReader<'_, '_> {
    fn tables(mut self, path: &Path) -> Option<Merged> {
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(why) => {
                self.draft.problem(Problem {
                    setting: "configuration file".into(),
                    origin: None,
                    found: format!("{}, which cannot be read ({why})", self.path),
                    expected: "a readable TOML file".into(),
                });
                return None;
            }
        };
        let (root, errors) = document::parse(text.expose());
        let broken = !errors.is_empty();
        for error in errors {
            let origin = self.origin(error.line);
            self.draft.problem(Problem::at("configuration file", &origin, error.message, "TOML (toml.io)"));
        }
        if broken {
            return None;
        }
        let mut merged = Merged::default();
        for item in root.entries {
            self.section(item, &mut merged);
        }
        Some(merged)
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::File { path: self.path.clone(), line }
    }

    fn section(&mut self, item: Item, merged: &mut Merged) {
        let Some(section) = schema::SECTIONS.into_iter().find(|section| section.name == item.key) else {
            let mut expected =
                "one of the sections server, tls, issuer, role, databases, peers, pool, audit, limits, log".to_owned();
            if let Some(near) = nearest(&item.key, schema::SECTIONS.iter().map(|section| section.name)) {
                expected = format!("the section {near}");
            } else if let Some((home, key)) = home_of(&item.key) {
                expected = format!("{key} inside [{home}]");
            }
            let origin = self.origin(item.line);
            self.draft.problem(Problem::at(&item.key, &origin, "an unknown name", expected));
            return;
        };
        match (section.form, item.value) {
            (Form::One, Value::Table(table)) => {
                let entry = self.entry(section, section.name, table);
                if let Some(place) = merged.single(section.name) {
                    *place = entry;
                }
            }
            (Form::Many, Value::List(items)) => self.list(section, items, item.line, merged),
            (Form::Named, Value::Table(table)) => {
                for Item { key, line, value } in table.entries {
                    let place = format!("{}.{key}", section.name);
                    match value {
                        Value::Table(table) => {
                            let entry = self.entry(section, &place, table);
                            let list = if section.name == "peers" { &mut merged.peers } else { &mut merged.databases };
                            list.push((key, entry));
                        }
                        other => self.wrong_form(&place, line, &other, &format!("a table {}", section.header())),
                    }
                }
            }
            (form, other) => {
                let expected = match form {
                    Form::One => section.header(),
                    Form::Many => format!("{} in double brackets", section.header()),
                    Form::Named => format!("tables {}", section.header()),
                };
                self.wrong_form(section.name, item.line, &other, &expected);
            }
        }
    }

    fn list(&mut self, section: &'static Section, items: Vec<Value>, line: usize, merged: &mut Merged) {
        for (nth, item) in items.into_iter().enumerate() {
            let place = format!("{}[{}]", section.name, nth + 1);
            match item {
                Value::Table(table) => {
                    let entry = self.entry(section, &place, table);
                    let list = if section.name == "issuer" { &mut merged.issuers } else { &mut merged.roles };
                    list.push(entry);
                }
                other => self.wrong_form(&place, line, &other, &format!("a table [[{}]]", section.name)),
            }
        }
    }

    fn wrong_form(&mut self, place: &str, line: usize, value: &Value, expected: &str) {
        let origin = self.origin(line);
        self.draft.problem(Problem::at(place, &origin, value.form(), expected));
    }

    fn entry(&mut self, section: &'static Section, place: &str, table: Table) -> Entry {
        let mut entry = Entry { origin: Some(self.origin(table.line)), ..Entry::default() };
        for Item { key: name, line, value } in table.entries {
            let origin = self.origin(line);
            let full = format!("{place}.{name}");
            let Some(key) = section.key(&name) else {
                let expected = match nearest(&name, section.names()) {
                    Some(near) => format!("a setting of [{}]; the nearest is {near}", section.name),
                    None => match home_of(&name) {
                        Some((home, key)) => format!("{key} inside [{home}]"),
                        None => format!("one of {}", section.names().collect::<Vec<_>>().join(", ")),
                    },
                };
                self.draft.problem(Problem::at(full, &origin, "an unknown name", expected));
                continue;
            };
            if entry.values.contains_key(key.name) {
                let found = format!("a second value for {}", key.name);
                self.draft.problem(Problem::at(full, &origin, found, "one name or the other"));
                continue;
            }
            match self.resolve(key, value) {
                Ok(value) => {
                    entry.values.insert(key.name, Found { value, origin });
                }
                Err((found, expected)) => self.draft.problem(Problem::at(full, &origin, found, expected)),
            }
        }
        entry
    }

    /// Expands variables; for a secret also reads the file that is named instead of it.
    fn resolve(&mut self, key: &Key, value: Value) -> Result<Value, (String, String)> {
        let unset = |found| (found, "a variable of the environment or of .env".to_owned());
        match value {
            Value::Text(text) => {
                let raw = text.expose();
                if let (true, Some(path)) = (key.secret, raw.strip_prefix("file:")) {
                    let path = self.variables.expand(path).map_err(unset)?;
                    return self.secret_file(Path::new(&path));
                }
                if key.secret && !raw.contains("${") && files::readable_by_all(Path::new(self.path.as_ref())) {
                    let path = &self.path;
                    self.draft.warn(format!(
                        "{path} holds passwords and is readable by every user of this machine: chmod 600 {path}"
                    ));
                }
                Ok(Value::text(self.variables.expand(raw).map_err(unset)?))
            }
            Value::List(items) => {
                let items: Result<_, _> = items.into_iter().map(|item| self.resolve(key, item)).collect();
                Ok(Value::List(items?))
            }
            other => Ok(other),
        }
    }

    fn secret_file(&mut self, path: &Path) -> Result<Value, (String, String)> {
        let shown = path.display();
        let expected = || "a readable file that holds the secret".to_owned();
        let mut secret = files::read_text(path).map_err(|why| (format!("file:{shown} ({why})"), expected()))?;
        // One line end, as `echo` leaves it; more of them are part of the secret.
        let text = secret.expose_mut();
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty() {
            return Err((format!("file:{shown}, which is empty"), expected()));
        }
        if files::readable_by_all(path) {
            self.draft.warn(format!("{shown} holds a secret and is readable by every user of this machine"));
        }
        Ok(Value::Text(secret))
    }
}

/// The section that has a key of this name, for those who wrote it in the wrong one.
fn home_of(name: &str) -> Option<(&'static str, &'static str)> {
    let homes = schema::SECTIONS.iter().filter(|section| section.form == Form::One);
    homes.into_iter().find_map(|section| section.key(name).map(|key| (section.name, key.name)))
}

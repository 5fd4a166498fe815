//! Typed reading of one table: defaults, problems and the effective view in one place.

use std::collections::BTreeMap;

use gprxy_proto::secret::Secret;

use super::document::Value;
use super::draft::{Block, Draft};
use super::kinds::Kind;
use super::problem::{Origin, Problem};
use super::schema::{Key, Section};

/// A value and where it came from.
pub(crate) struct Found {
    /// The value, variables and secret files already in their places.
    pub(crate) value: Value,
    /// Where it was set.
    pub(crate) origin: Origin,
}

/// The values of one table after all sources were laid over each other.
#[derive(Default)]
pub(crate) struct Entry {
    /// By the key's own name, never its alias.
    pub(crate) values: BTreeMap<&'static str, Found>,
    /// Where the table itself stands, for problems with what it lacks.
    pub(crate) origin: Option<Origin>,
}

impl Entry {
    /// The text of a value.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.value.as_text()
    }

    /// Sets a value; an earlier one is replaced.
    pub(crate) fn set(&mut self, key: &'static str, value: &str, origin: Origin) {
        self.values.insert(key, Found { value: Value::text(value), origin });
    }
}

/// Reads the values of one table, one after the other.
pub(crate) struct Reader<'d> {
    entry: Entry,
    section: &'static Section,
    place: String,
    block: Block,
    draft: &'d mut Draft,
}

impl<'d> Reader<'d> {
    /// `place` is the table's name in messages (`issuer[2]`), `header` its line in the effective settings.
    pub(crate) fn new(
        section: &'static Section,
        entry: Entry,
        place: &str,
        header: &str,
        draft: &'d mut Draft,
    ) -> Self {
        Self { entry, section, place: place.to_owned(), block: Block::new(header), draft }
    }

    /// A reader of a section that stands once.
    pub(crate) fn of_section(section: &'static Section, entry: Entry, draft: &'d mut Draft) -> Self {
        Self::new(section, entry, section.name, &format!("[{}]", section.name), draft)
    }

    /// A setting with a default. A wrong value is noted and the default takes its place, so that reading can go on.
    pub(crate) fn read<K: Kind>(&mut self, name: &str, kind: &K) -> K::Out {
        let key = self.key(name);
        if let Some(found) = self.entry.values.get(key.name) {
            match kind.parse(&found.value) {
                Some(out) => {
                    self.block.set(key.name, (kind.show(&out), kind.plain(&out)), &found.origin);
                    return out;
                }
                None => self.refuse(key, kind),
            }
        }
        let default = kind.parse(&Value::text(key.default));
        // Infallible: a unit test reads the whole schema with nothing set.
        let default = default.expect("a default is of its own kind");
        if !self.entry.values.contains_key(key.name) {
            self.block.set(key.name, (kind.show(&default), kind.plain(&default)), &Origin::Default);
        }
        default
    }

    /// A setting that may be missing; a wrong value is noted.
    pub(crate) fn optional<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Out> {
        self.optional_or(name, kind, "not set")
    }

    /// The same; `absent` is what the effective settings say when it is missing.
    pub(crate) fn optional_or<K: Kind>(&mut self, name: &str, kind: &K, absent: &str) -> Option<K::Out> {
        let key = self.key(name);
        let Some(found) = self.entry.values.get(key.name) else {
            self.block.unset(key.name, absent);
            return None;
        };
        let out = kind.parse(&found.value);
        match &out {
            Some(out) => self.block.set(key.name, (kind.show(out), kind.plain(out)), &found.origin),
            None => self.refuse(key, kind),
        }
        out
    }

    /// A setting that need not be there, and is not spoken of then.
    pub(crate) fn own<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Out> {
        let key = self.key(name);
        if self.is_set(key.name) { self.optional(key.name, kind) } else { None }
    }

    /// A setting that falls back to another one, which is shown in its place.
    pub(crate) fn inherited<K: Kind>(&mut self, name: &str, kind: &K, fallback: K::Out) -> K::Out {
        self.own(name, kind).unwrap_or(fallback)
    }

    /// A secret: never shown, neither where it is right nor where it is wrong.
    pub(crate) fn secret(&mut self, name: &str) -> Option<Secret<String>> {
        let key = self.key(name);
        let Some(found) = self.entry.values.get_mut(key.name) else {
            self.block.unset(key.name, "not set");
            return None;
        };
        let sound = found.value.as_text().is_some_and(|text| !text.contains('\0') && text != SHOWN_SECRET);
        if let (true, Value::Text(text)) = (sound, &mut found.value) {
            self.block.set(key.name, (format!("\"{SHOWN_SECRET}\""), SHOWN_SECRET.into()), &found.origin);
            return Some(Secret::new(std::mem::take(text.expose_mut())));
        }
        let found_words = match found.value.as_text() {
            Some(SHOWN_SECRET) => "the placeholder that `gprxy check` prints",
            Some(_) => "text with a NUL character",
            None => found.value.form(),
        };
        let origin = found.origin.clone();
        self.fault(key.name, &origin, found_words, "text, ${VARIABLE} or file:PATH");
        None
    }

    /// Whether the setting was given anywhere.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.entry.values.contains_key(name)
    }

    /// The setting as it was written, when it is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.entry.text(name)
    }

    /// Where the setting came from.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.entry.values.get(name).map_or(Origin::Default, |found| found.origin.clone())
    }

    /// Notes a problem with a value that was of the right kind and is wrong all the same.
    pub(crate) fn reject(&mut self, name: &str, found: impl Into<String>, expected: impl Into<String>) {
        let origin = self.origin(name);
        self.fault(name, &origin, found, expected);
    }

    /// Notes that a value is missing.
    pub(crate) fn require(&mut self, name: &str, expected: impl Into<String>) {
        let mut problem = Problem::missing(self.full_name(name), expected);
        problem.origin.clone_from(&self.entry.origin);
        self.draft.problem(problem);
    }

    /// A comment in the effective settings, for a key that has no value of its own.
    pub(crate) fn remark(&mut self, name: &str, words: &str) {
        let key = self.key(name);
        self.block.unset(key.name, words);
    }

    /// Notes a warning about this table.
    pub(crate) fn warn(&mut self, words: &str) {
        self.draft.warn(format!("{}: {words}", self.place));
    }

    /// `server.listen_port`.
    pub(crate) fn full_name(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }

    /// Closes the table: it becomes part of the effective settings.
    pub(crate) fn finish(self) {
        self.draft.effective.push(self.block);
    }

    fn key(&self, name: &str) -> &'static Key {
        // Infallible: a unit test reads the whole schema with nothing set.
        self.section.key(name).expect("only keys of the schema are read")
    }

    fn refuse<K: Kind>(&mut self, key: &'static Key, kind: &K) {
        let Some(found) = self.entry.values.get(key.name) else { return };
        let mut expected = kind.expected();
        if let Some(meant) = kind.meant(&found.value) {
            expected.push_str(&format!(" (did you mean {meant}?)"));
        }
        let (words, origin) = (found.value.describe(), found.origin.clone());
        self.fault(key.name, &origin, words, expected);
    }

    fn fault(&mut self, name: &str, origin: &Origin, found: impl Into<String>, expected: impl Into<String>) {
        self.draft.problem(Problem::at(self.full_name(name), origin, found, expected));
    }
}

/// What stands in the place of a secret in the effective settings.
pub(crate) const SHOWN_SECRET: &str = "(set)";

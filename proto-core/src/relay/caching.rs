//! Unnamed statements that are prepared again and again: they run as named ones, which the server need not parse and plan
//! anew each time (`cache_unnamed_statements`).
//!
//! Only statements that PostgreSQL plans: it looks for itself whether a kept plan still means the same (tables that were
//! altered, another `search_path`, another role) and makes a new one where it does not. Where the new one would have other
//! columns it says so (0A000), and the next Parse of the text is a real one again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::meaning::Meaning;
use super::names::Name;
use super::prepared::{Before, Statements, Text, Unnamed, Use, Way};
use super::tracker::Op;
use super::way::cstr;
use super::{Relay, Step};
use crate::codec::Header;
use crate::time::Now;

/// How many unnamed statements are remembered as seen.
const RECENT: usize = 128;

/// What was seen not long ago, as far as a hash says. One that is wrong costs a name that was not worth it.
#[derive(Default)]
pub(super) struct Recent(VecDeque<u64>);

impl Recent {
    /// Whether it was seen before. It is, from now on.
    fn has_seen(&mut self, definition: &[u8], settings: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        (definition, settings).hash(&mut hasher);
        let hash = hasher.finish();
        if self.0.contains(&hash) {
            return true;
        }
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(hash);
        false
    }
}

impl Statements {
    /// Whether an unnamed statement is to run as a named one: it can be planned, and has come before.
    pub(super) fn wants_cached(&mut self, definition: &[u8]) -> bool {
        if !self.caches || !is_planned(definition) {
            return false;
        }
        // What it will be understood as must be known, for others find it under that.
        let Some(settings) = self.settings_now() else { return false };
        let Some(here) = self.here.as_mut().filter(|here| here.has_room_for_any()) else { return false };
        here.find_again(definition, Some(&settings)).is_some() || here.recent.has_seen(definition, &settings)
    }

    /// Whether what decides on a statement of this name is still to be answered.
    pub(super) fn must_wait(&self, name: &Name) -> bool {
        (!name.is_empty() || self.unnamed == Unnamed::Cached) && self.is_unsettled()
    }

    /// How a Parse of such a statement goes.
    fn cached_parse_of(&mut self, definition: &[u8]) -> Use {
        let settings = self.settings_now();
        let Some(here) = &mut self.here else { return Use::Go(Way::Same) };
        if let Some(known) = here.find_again(definition, settings.as_ref()) {
            return if here.is_doubted(&known) {
                Use::First(Before::Close(known))
            } else {
                Use::Go(Way::Answered(known))
            };
        }
        if let Some(surplus) = here.surplus() {
            return Use::First(Before::Close(surplus));
        }
        Use::Go(Way::Renamed(here.free_name()))
    }

    /// How a message finds the unnamed statement that runs as a named one.
    pub(super) fn use_of_cached(&mut self) -> Use {
        let now = self.settings_now();
        let Some(here) = &mut self.here else { return Use::Go(Way::Same) };
        let Text { definition, settings } = &mut self.unnamed_text;
        if let Some(known) = here.find_again(definition, settings.as_ref()) {
            here.note_use(&known);
            return Use::Go(Way::Renamed(known));
        }
        let Some(now) = now else { return Use::First(self.unnamed_anew()) };
        if settings.as_ref() != Some(&now) {
            *settings = Some(now);
            return self.use_of_cached();
        }
        if let Some(surplus) = here.surplus() {
            return Use::First(Before::Close(surplus));
        }
        let name = here.free_name();
        Use::First(Before::Parse(name, Meaning::new(definition.as_slice(), Some(now))))
    }
}

impl Relay {
    /// A Parse of the unnamed statement goes under another name, or no further.
    pub(super) fn way_of_cached(&mut self, header: Header, body: &[u8], front: bool, now: Now) -> Step {
        let Some(pooled) = self.pooled.as_mut().filter(|_| front) else { return Step::Wait };
        if pooled.statements.is_unsettled() {
            return Step::Wait;
        }
        // Behind the empty name.
        let definition = &body[1..];
        match pooled.statements.cached_parse_of(definition) {
            Use::First(before) => self.first(&before),
            Use::Go(way) => {
                pooled.statements.handle_cached(definition, way);
                match way {
                    Way::Renamed(name) => self.renamed(header, body, 1, &cstr(&name), now),
                    Way::Same | Way::Answered(_) => self.answered(Op::AnsweredParse, header, body, now),
                }
            }
        }
    }
}

/// Whether PostgreSQL makes a plan for it, as far as its first word says.
fn is_planned(definition: &[u8]) -> bool {
    const WORDS: [&[u8]; 8] = [b"select", b"insert", b"update", b"delete", b"merge", b"values", b"with", b"table"];
    let mut text = definition;
    loop {
        text = text.trim_ascii_start();
        let end = match text {
            [b'(', ..] => Some(1),
            [b'-', b'-', ..] => memchr::memchr(b'\n', text),
            [b'/', b'*', ..] => memchr::memmem::find(text, b"*/").map(|at| at + 2),
            _ => break,
        };
        let Some(end) = end else { return false };
        text = &text[end..];
    }
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    WORDS.iter().any(|word| text[..length].eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_planned_is_kept() {
        for text in [
            "select 1",
            "  SELECT 1",
            "-- why\n /* and how */ Insert into t values (1)",
            "((select 1))",
            "with a as (select 1) table a",
            "values (1)",
            "table t",
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
            "/* unclosed inside: -- */ delete from t",
        ] {
            assert!(is_planned(text.as_bytes()), "{text}");
        }
        for text in
            ["", "set a = 1", "begin", "selects", "explain select 1", "call p()", "/* open", "-- open", "\"select\""]
        {
            assert!(!is_planned(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        assert!(!recent.has_seen(b"a", b"") && recent.has_seen(b"a", b"") && !recent.has_seen(b"a", b"other settings"));
        for n in 0..RECENT {
            assert!(!recent.has_seen(&n.to_be_bytes(), b""));
        }
        assert!(recent.0.len() == RECENT && !recent.has_seen(b"a", b""), "the oldest is forgotten");
    }
}

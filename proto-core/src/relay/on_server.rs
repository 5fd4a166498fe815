//! The prepared statements of one server connection: those of everybody who has used it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::caching::Recent;
use super::meaning::{Definition, Settings, are_one};
use super::names::Name;

/// How names of gprxy's own begin.
const NAMES_OF_OURS: &str = "gprxy_";

pub(super) struct Prepared {
    pub(super) definition: Definition,
    /// When it was used last, as an order.
    pub(super) used: u64,
    /// The server has refused to run something as it was prepared; it may have been this.
    doubted: bool,
}

/// The prepared statements of one server connection.
pub struct OnServer {
    pub(super) by_name: BTreeMap<Name, Prepared>,
    /// Behind which the one that was used least recently is closed.
    pub(super) most: usize,
    pub(super) clock: u64,
    /// For names of gprxy's own.
    named: u64,
    /// What was found last.
    found: Option<Name>,
    /// Unnamed statements that were prepared here not long ago.
    pub(super) recent: Recent,
}

impl Prepared {
    pub(super) const fn new(definition: Definition, used: u64) -> Self {
        Self { definition, used, doubted: false }
    }
}

impl OnServer {
    /// A connection that has none, and is to have no more than this many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_name: BTreeMap::new(), most, clock: 0, named: 0, found: None, recent: Recent::default() }
    }

    /// It is to have no more than this many from here on: those beyond that are closed when the next one is prepared.
    pub const fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// All are gone.
    pub fn clear(&mut self) {
        self.by_name.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether any statement may stay here.
    pub(super) const fn has_room_for_any(&self) -> bool {
        self.most > 0
    }

    /// It is used again.
    pub(super) fn note_use(&mut self, name: &Name) {
        self.clock += 1;
        if let Some(prepared) = self.by_name.get_mut(name) {
            prepared.used = self.clock;
        }
    }

    /// Notes a use of this name for this definition; `false` when it stands for another one, or for none.
    pub(super) fn uses(&mut self, name: &Name, definition: &mut Definition) -> bool {
        let Some(prepared) = self.by_name.get_mut(name) else { return false };
        if !Arc::ptr_eq(&prepared.definition, definition) {
            if !are_one(&prepared.definition, definition) {
                return false;
            }
            // From now on it is known to be the same.
            *definition = prepared.definition.clone();
        }
        self.clock += 1;
        prepared.used = self.clock;
        true
    }

    /// The name of what this text means under these settings.
    pub(super) fn find(&self, text: &[u8], settings: Option<&Settings>) -> Option<Name> {
        self.find_where(|definition| definition.is(text, settings))
    }

    /// The same for what is looked for several times in a row: where it stood the last time is looked at first.
    pub(super) fn find_again(&mut self, text: &[u8], settings: Option<&Settings>) -> Option<Name> {
        let is_it = |prepared: &Prepared| prepared.definition.is(text, settings);
        let found = self.found.filter(|name| self.by_name.get(name).is_some_and(is_it));
        self.found = found.or_else(|| self.find(text, settings));
        self.found
    }

    /// Something has come to answer otherwise than when it was prepared, and nothing tells what it was: whoever prepares one
    /// of these texts anew gets it prepared anew.
    pub(super) fn doubt(&mut self) {
        for prepared in self.by_name.values_mut() {
            prepared.doubted = true;
        }
    }

    /// Whether this one has to be prepared anew for somebody who parses its text.
    pub(super) fn is_doubted(&self, name: &Name) -> bool {
        self.by_name.get(name).is_some_and(|prepared| prepared.doubted)
    }

    pub(super) fn find_where(&self, is_it: impl Fn(&Definition) -> bool) -> Option<Name> {
        self.by_name.iter().find(|(_, prepared)| is_it(&prepared.definition)).map(|(name, _)| *name)
    }

    /// The one that was used least recently, when there is no room for another one.
    pub(super) fn surplus(&self) -> Option<Name> {
        let oldest = || self.by_name.iter().min_by_key(|(_, prepared)| prepared.used).map(|(name, _)| *name);
        (self.by_name.len() >= self.most).then(oldest)?
    }

    pub(super) fn free_name(&mut self) -> Name {
        loop {
            self.named += 1;
            let name = Name::new(format!("{NAMES_OF_OURS}{}", self.named).as_bytes());
            if !self.by_name.contains_key(&name) {
                return name;
            }
        }
    }

    pub(super) fn insert(&mut self, name: Name, definition: Definition) -> Option<Prepared> {
        self.clock += 1;
        self.by_name.insert(name, Prepared::new(definition, self.clock))
    }

    pub(super) fn restore(&mut self, name: Name, before: Option<Prepared>) {
        match before {
            Some(prepared) => self.by_name.insert(name, prepared),
            None => self.by_name.remove(&name),
        };
    }
}

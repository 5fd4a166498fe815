//! Prepared statements that follow a session from one server connection to the next.
//!
//! ```text
//!   a session knows                      a connection knows
//!   name ──▶ definition                  name ──▶ definition, last use
//! ```
//! A client's name is used on the connection, too, as long as nothing else has it there; equal definitions are one,
//! whoever made them, as far as they were prepared under equal settings (see [`super::meaning`]). Before a message goes
//! that names a statement, the connection is brought to have it.
//!
//! Both books are ahead of the server: a Parse counts when it is sent. So each message that changes them leaves a note of
//! how to undo it, and an error, behind which the server skips everything up to the next Sync, undoes them from the last to
//! the first. What comes behind that Sync would stand on sand while this is open: it waits until all before it is answered.

use std::collections::{BTreeMap, BTreeSet};

use super::by_sql::{EMPTY, UnderWay};
use super::meaning::{Definition, Meaning, Settings, anew, are_one};
use super::names::Name;
use super::on_server::{OnServer, Prepared};
use super::undo::{Notes, Undo};

/// The longest Parse that is kept, in bytes; a longer one ties its session to the connection.
pub(super) const MAX_PARSE: usize = 12 * 1024;
/// Prepared statements of one session. Beyond that it is tied to its connection.
const MAX_STATEMENTS: usize = 1000;
/// The unnamed statement, as far as the session is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unnamed {
    /// It has none; the connection may have somebody else's.
    #[default]
    Unknown,
    /// Nobody has one on this connection.
    Gone,
    /// Its own, on this connection. The text is kept.
    Here,
    /// Its own, not on this connection.
    Away,
    /// Its own, under a name of gprxy's, on this connection or the next. The text is kept.
    Cached,
    /// Its own, on this connection, and too long to be kept.
    Long {
        /// It was bound: it has served its purpose.
        bound: bool,
    },
}

/// What goes to the server in front of a message, so that the message finds what it names.
pub(super) enum Before {
    /// Parse of gprxy's own.
    Parse(Name, Definition),
    /// Close of gprxy's own.
    Close(Name),
}

/// What becomes of a message that names a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It goes as it is.
    Same,
    /// It goes with another name.
    Renamed(Name),
    /// It does not go: the server has it under this name, and the answer is known.
    Answered(Name),
}

/// How a message goes.
pub(super) enum Use {
    /// Like this.
    Go(Way),
    /// Something goes first; then ask again.
    First(Before),
}

/// What a Parse of the unnamed statement said.
#[derive(Default)]
pub(super) struct Text {
    /// Kept from one Parse to the next, so that none allocates.
    pub(super) definition: Vec<u8>,
    /// The settings under which it was prepared, where it runs as a named one.
    pub(super) settings: Option<Settings>,
}

/// The prepared statements of one session, and those of the connection that it has.
#[derive(Default)]
pub(super) struct Statements {
    pub(super) mine: BTreeMap<Name, Definition>,
    pub(super) unnamed: Unnamed,
    pub(super) unnamed_text: Text,
    /// The text before it, for the case that it comes to nothing.
    pub(super) text_before: Text,
    /// The session's settings that decide what a text means; `None` until somebody asks behind a change.
    pub(super) settings: Option<Settings>,
    /// Something has run since the server reported its settings.
    pub(super) has_run: bool,
    /// The session has state that decides what a text means and is not reported.
    pub(super) is_apart: bool,
    pub(super) here: Option<Box<OnServer>>,
    pub(super) notes: Notes,
    /// Names that were prepared here for this session alone; it does not leave the connection.
    pub(super) fixed: BTreeSet<Name>,
    /// SQL has deallocated something.
    pub(super) in_doubt: bool,
    pub(super) by_sql: UnderWay,
    /// Unnamed statements that are prepared again and again run as named ones.
    pub(super) caches: bool,
}

impl Statements {
    /// Of a session that begins. `caches`: unnamed statements that are prepared again and again run as named ones.
    pub(super) fn new(caches: bool) -> Self {
        Self { caches, ..Self::default() }
    }

    /// The session goes on on a connection with these.
    pub(super) fn arrive(&mut self, here: Box<OnServer>) {
        self.here = Some(here);
    }

    /// The connection goes without the session.
    pub(super) fn depart(&mut self) -> Option<Box<OnServer>> {
        self.unnamed = match self.unnamed {
            Unnamed::Here | Unnamed::Away => Unnamed::Away,
            Unnamed::Cached => Unnamed::Cached,
            Unnamed::Unknown | Unnamed::Gone | Unnamed::Long { .. } => Unnamed::Unknown,
        };
        self.fixed.clear();
        self.in_doubt = false;
        self.handle_ready();
        self.handle_all_answered();
        self.notes.clear();
        (self.has_run, self.is_apart) = (false, false);
        self.here.take()
    }

    /// The settings under which a text that goes now is understood; `None` when that is not known.
    pub(super) fn settings_now(&self) -> Option<Settings> {
        self.settings.clone().filter(|_| !self.has_run && !self.is_apart)
    }

    /// How many names there are.
    pub(super) fn count(&self) -> usize {
        self.mine.len()
    }

    /// Whether another name may be prepared.
    pub(super) fn has_room(&self) -> bool {
        self.here.as_ref().is_some_and(|here| here.most > 0) && self.mine.len() < MAX_STATEMENTS
    }

    /// Whether something of before an earlier Sync is not answered that decides which statements there are.
    pub(super) const fn is_unsettled(&self) -> bool {
        self.notes.unsettled > 0 || self.is_freeing()
    }

    /// A Sync of the client goes.
    pub(super) fn handle_sync(&mut self) {
        let here = self.notes.undo.iter().rev().take_while(|undo| undo.group == self.notes.group);
        self.notes.unsettled += here.filter(|undo| undo.matters()).count();
        self.notes.group = self.notes.group.wrapping_add(1);
    }

    /// Whether the connection holds what the session still needs and cannot have elsewhere.
    pub(super) fn is_tied(&self) -> bool {
        self.unnamed == Unnamed::Long { bound: false }
    }

    /// How a message that names a statement finds it.
    ///
    /// A statement that the session does not have must not be found, even where another session has left one of that name.
    pub(super) fn use_of(&mut self, name: &Name) -> Use {
        if name.is_empty() {
            return match self.unnamed {
                Unnamed::Gone | Unnamed::Here | Unnamed::Long { .. } => Use::Go(Way::Same),
                Unnamed::Cached => self.use_of_cached(),
                Unnamed::Away => Use::First(self.unnamed_anew()),
                Unnamed::Unknown => Use::First(Before::Close(*name)),
            };
        }
        let settings = self.settings_now();
        let Some(here) = self.here.as_mut() else { return Use::Go(Way::Same) };
        let Some(definition) = self.mine.get_mut(name) else {
            let foreign = here.by_name.contains_key(name);
            return if foreign { Use::First(Before::Close(*name)) } else { Use::Go(Way::Same) };
        };
        if here.uses(name, definition) {
            return Use::Go(Way::Same);
        }
        // As it was understood; or as it would be now, which is all that there is where nobody has it as it was.
        let as_it_was = here.find_where(|known| are_one(known, definition));
        if let Some(other) = as_it_was.or_else(|| here.find(&definition.text, settings.as_ref())) {
            if let Some(known) = here.by_name.get(&other) {
                *definition = known.definition.clone();
            }
            here.note_use(&other);
            return Use::Go(if other == *name { Way::Same } else { Way::Renamed(other) });
        }
        if let Some(surplus) = here.surplus() {
            return Use::First(Before::Close(surplus));
        }
        *definition = anew(definition, settings);
        let name = if here.by_name.contains_key(name) { here.free_name() } else { *name };
        Use::First(Before::Parse(name, definition.clone()))
    }

    /// The unnamed statement is prepared once more.
    pub(super) fn unnamed_anew(&self) -> Before {
        Before::Parse(Name::new(b""), Meaning::new(self.unnamed_text.definition.as_slice(), None))
    }

    /// How a Parse of a named statement goes; in a `failed` transaction the server has to refuse it.
    pub(super) fn parse_of(&mut self, name: &Name, definition: &[u8], failed: bool) -> Use {
        let settings = self.settings_now();
        if self.mine.contains_key(name) {
            // It is refused by the server, which must have something of that very name for it; what the session has may not
            // be parsed any more.
            return match &self.here {
                Some(here) if !here.by_name.contains_key(name) => {
                    let parse = || Before::Parse(*name, Meaning::new(EMPTY, None));
                    Use::First(here.surplus().map_or_else(parse, Before::Close))
                }
                _ => Use::Go(Way::Same),
            };
        }
        let Some(here) = self.here.as_mut().filter(|_| !self.fixed.contains(name)) else { return Use::Go(Way::Same) };
        if let Some(known) = here.find(definition, settings.as_ref()).filter(|_| !failed) {
            return if here.is_doubted(&known) {
                Use::First(Before::Close(known))
            } else {
                Use::Go(Way::Answered(known))
            };
        }
        if let Some(surplus) = here.surplus() {
            return Use::First(Before::Close(surplus));
        }
        let taken = here.by_name.contains_key(name);
        Use::Go(if taken { Way::Renamed(here.free_name()) } else { Way::Same })
    }

    /// A Parse of the unnamed statement counts from here on; `None` when it is too long to be kept.
    pub(super) fn handle_unnamed(&mut self, definition: Option<&[u8]>) {
        std::mem::swap(&mut self.unnamed_text, &mut self.text_before);
        self.unnamed_text.definition.clear();
        self.unnamed_text.settings = None;
        let before = self.unnamed;
        self.unnamed = match definition {
            Some(definition) => {
                self.unnamed_text.definition.extend_from_slice(definition);
                Unnamed::Here
            }
            None => Unnamed::Long { bound: false },
        };
        self.note(Undo { unnamed: Some(before), replaces_text: true, ..Undo::default() });
    }

    /// A Parse of the unnamed statement counts from here on that runs as a named one.
    pub(super) fn handle_cached(&mut self, definition: &[u8], way: Way) {
        std::mem::swap(&mut self.unnamed_text, &mut self.text_before);
        let settings = self.settings_now();
        self.unnamed_text.definition.clear();
        self.unnamed_text.definition.extend_from_slice(definition);
        self.unnamed_text.settings.clone_from(&settings);
        let before = std::mem::replace(&mut self.unnamed, Unnamed::Cached);
        let mut undo = Undo { unnamed: Some(before), replaces_text: true, ..Undo::default() };
        if let Some(here) = &mut self.here {
            match way {
                Way::Renamed(name) => {
                    undo.here = Some((name, here.insert(name, Meaning::new(definition, settings))));
                }
                Way::Answered(name) => here.note_use(&name),
                Way::Same => {}
            }
        }
        self.note(undo);
    }

    /// A Bind of the unnamed statement.
    pub(super) const fn handle_bound(&mut self) {
        self.handle_bound_by_sql();
        if let Unnamed::Long { bound } = &mut self.unnamed {
            *bound = true;
        }
    }

    /// A Parse of a name that the session has goes to be refused; `None` when it is too long to be kept.
    pub(super) fn handle_taken(&mut self, name: Name, definition: Option<&[u8]>) {
        let definition = definition.map(|definition| Meaning::new(definition, self.settings_now()));
        self.note(Undo { refused: Some((name, definition)), ..Undo::default() });
    }

    /// A Parse of the client counts from here on.
    pub(super) fn handle_parse(&mut self, name: Name, definition: &[u8], way: Way) {
        let mut undo = Undo::default();
        let mut definition = Meaning::new(definition, self.settings_now());
        if let Some(here) = &mut self.here {
            let on_server = match way {
                Way::Same => Some(name),
                Way::Renamed(other) => Some(other),
                Way::Answered(known) => {
                    let _ = here.uses(&known, &mut definition);
                    None
                }
            };
            undo.here = on_server.map(|other| (other, here.insert(other, definition.clone())));
        }
        undo.mine = Some((name, self.mine.insert(name, definition)));
        self.note(undo);
    }

    /// A Close of the client counts from here on. Of a named statement it goes no further than this: others may use it.
    pub(super) fn handle_close(&mut self, name: Name) {
        let mut undo = Undo::default();
        if name.is_empty() {
            undo.unnamed = Some(std::mem::replace(&mut self.unnamed, Unnamed::Gone));
        } else if let Some(definition) = self.mine.remove(&name) {
            undo.mine = Some((name, Some(definition)));
        }
        self.note(undo);
    }

    /// A Parse goes that no other connection will ever know of.
    pub(super) fn handle_fixed(&mut self, name: Name) {
        self.fixed.insert(name);
        self.note(Undo::default());
    }

    /// Whether the connection has, or had, something of this name for this session alone.
    pub(super) fn is_fixed(&self, name: &Name) -> bool {
        self.fixed.contains(name)
    }

    /// A Close of such a name goes to the server.
    pub(super) fn handle_close_fixed(&mut self, name: Name) {
        let mut undo = Undo::default();
        if let Some(definition) = self.mine.remove(&name) {
            undo.mine = Some((name, Some(definition)));
        }
        if let Some(here) = &mut self.here
            && let Some(prepared) = here.by_name.remove(&name)
        {
            undo.here = Some((name, Some(prepared)));
        }
        self.note(undo);
    }

    /// A Parse or Close that changes neither book.
    pub(super) fn handle_other(&mut self) {
        self.note(Undo::default());
    }

    /// A Parse or Close of gprxy's own goes.
    pub(super) fn handle_before(&mut self, before: &Before) {
        let mut undo = Undo::default();
        match before {
            Before::Parse(name, _) if name.is_empty() => {
                undo.unnamed = Some(std::mem::replace(&mut self.unnamed, Unnamed::Here));
            }
            Before::Close(name) if name.is_empty() => {
                undo.unnamed = Some(std::mem::replace(&mut self.unnamed, Unnamed::Gone));
            }
            Before::Parse(name, definition) => {
                if let Some(here) = &mut self.here {
                    undo.here = Some((*name, here.insert(*name, definition.clone())));
                }
            }
            Before::Close(name) => {
                if let Some(here) = &mut self.here {
                    undo.here = Some((*name, here.by_name.remove(name)));
                }
            }
        }
        self.note(undo);
    }

    /// `DEALLOCATE ALL`, `DISCARD ALL`: what was there is gone; what was sent behind it is still to come.
    pub(super) fn handle_all_gone(&mut self) {
        let (mut mine, mut here) = (BTreeMap::new(), BTreeMap::new());
        for undo in &mut self.notes.undo {
            if let Some((name, before)) = &mut undo.mine {
                *before = None;
                mine.extend(self.mine.remove_entry(name));
            }
            if let (Some((name, before)), Some(on_server)) = (&mut undo.here, &mut self.here) {
                *before = None;
                here.extend(on_server.by_name.remove_entry(name));
            }
            let kept = undo.refused.take_if(|(_, definition)| definition.is_some());
            if let (Some((name, Some(definition))), Some(on_server)) = (kept, &mut self.here) {
                // Its name is free by now.
                self.notes.unsettled += usize::from(undo.group != self.notes.group);
                on_server.clock += 1;
                here.insert(name, Prepared::new(definition.clone(), on_server.clock));
                mine.insert(name, definition);
                (undo.mine, undo.here) = (Some((name, None)), Some((name, None)));
            }
        }
        self.mine = mine;
        self.fixed.clear();
        if let Some(on_server) = &mut self.here {
            on_server.by_name = here;
        }
    }

    /// A DEALLOCATE that the server has carried out, of something that is not known for certain.
    pub(super) const fn handle_doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether the connection may have other statements than are known here.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether the session has a statement of this name.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.mine.contains_key(name)
    }

    /// Whether the connection has one that the session does not have, or has another one under this name.
    pub(super) fn is_foreign(&mut self, name: &Name) -> bool {
        let Some(here) = self.here.as_mut().filter(|here| here.by_name.contains_key(name)) else { return false };
        !self.mine.get_mut(name).is_some_and(|definition| here.uses(name, definition))
    }

    /// The session has it no more; on the server it may serve others.
    pub(super) fn handle_gone_here(&mut self, name: &Name) {
        self.mine.remove(name);
        // The query that says so takes the unnamed one along, which the server still has.
        self.unnamed = Unnamed::Unknown;
    }

    /// What must go so that SQL finds by this name what the session has by it, and nothing else.
    pub(super) fn before_sql(&mut self, name: &Name) -> Option<Before> {
        let settings = self.settings_now();
        let here = self.here.as_mut()?;
        let mine = self.mine.get_mut(name);
        if here.by_name.contains_key(name) {
            let same = mine.is_some_and(|definition| here.uses(name, definition));
            return (!same).then_some(Before::Close(*name));
        }
        mine.map(|definition| {
            *definition = anew(definition, settings);
            Before::Parse(*name, definition.clone())
        })
    }
}

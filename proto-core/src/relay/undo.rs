//! How prepared statements come back to what the server has, when a message that changed them fails.

use std::collections::VecDeque;

use super::meaning::Definition;
use super::names::Name;
use super::on_server::Prepared;
use super::prepared::{Statements, Unnamed};

/// What undoes a message that fails.
#[derive(Default)]
pub(super) struct Undo {
    pub(super) mine: Option<(Name, Option<Definition>)>,
    pub(super) here: Option<(Name, Option<Prepared>)>,
    /// What the unnamed statement was before.
    pub(super) unnamed: Option<Unnamed>,
    /// It was a Parse of the unnamed statement: the text before it is kept, unless another such Parse came behind it.
    pub(super) replaces_text: bool,
    /// The name is taken: the server must refuse this. `None` where it is too long to be kept.
    pub(super) refused: Option<(Name, Option<Definition>)>,
    /// The Syncs that were sent before it.
    pub(super) group: u32,
    /// Bytes of texts that it keeps, at most.
    pub(super) held: usize,
}

/// What undoes each message without an answer, in their order.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) undo: VecDeque<Undo>,
    /// The newest is about a message that is not all sent.
    open: bool,
    /// Syncs that were sent.
    pub(super) group: u32,
    /// Those that matter and stand behind an earlier Sync.
    pub(super) unsettled: usize,
    /// The Syncs that were sent before the newest simple query.
    queried: Option<u32>,
    /// Bytes of texts in all of them.
    held: usize,
}

impl Notes {
    /// What was sent is for nobody any more. The next transaction finds the memory that this one had.
    pub(super) fn clear(&mut self) {
        self.undo.clear();
        (self.unsettled, self.queried, self.held) = (0, None, 0);
    }
}

/// Bytes of texts in notes of messages without an answer, behind which no more is taken in. A client that leaves its answers
/// unread would have all texts kept that it sends.
const MAX_HELD: usize = 1024 * 1024;

impl Undo {
    /// Whether others may depend on how it ends.
    pub(super) const fn matters(&self) -> bool {
        self.mine.is_some() || self.here.is_some()
    }

    fn texts(&self) -> usize {
        let mine = self.mine.iter().filter_map(|(_, before)| before.as_ref());
        let here = self.here.iter().filter_map(|(_, before)| before.as_ref().map(|prepared| &prepared.definition));
        let refused = self.refused.iter().filter_map(|(_, definition)| definition.as_ref());
        mine.chain(here).chain(refused).map(|definition| definition.text.len()).sum()
    }
}

impl Statements {
    pub(super) fn note(&mut self, undo: Undo) {
        let held = undo.texts();
        self.notes.held += held;
        self.notes.undo.push_back(Undo { group: self.notes.group, held, ..undo });
        self.notes.open = true;
    }

    /// Whether so much is kept of what is not answered that no more is to be taken in.
    pub(super) const fn holds_too_much(&self) -> bool {
        self.notes.held >= MAX_HELD
    }

    /// A Parse or Close of the client's has been sent to its end. It counts unless an error came while it was on its way.
    pub(super) fn handle_whole(&mut self, counts: bool) {
        if std::mem::take(&mut self.notes.open)
            && !counts
            && let Some(undo) = self.notes.undo.pop_back()
        {
            self.notes.held -= undo.held;
            if undo.replaces_text {
                std::mem::swap(&mut self.unnamed_text, &mut self.text_before);
            }
            self.revert(undo, false);
        }
    }

    /// The same for a message of gprxy's own, or one that gprxy answers.
    pub(super) const fn handle_own(&mut self) {
        self.notes.open = false;
    }

    fn settle(&mut self, undo: &Undo) {
        self.notes.held -= undo.held;
        if undo.matters() && undo.group != self.notes.group {
            self.notes.unsettled -= 1;
        }
    }

    /// The oldest Parse or Close is done. `false` when none was sent.
    #[must_use]
    pub(super) fn handle_done(&mut self) -> bool {
        let Some(undo) = self.notes.undo.pop_front() else { return false };
        self.settle(&undo);
        match undo.refused {
            Some((name, Some(definition))) => self.handle_accepted(name, definition),
            Some((name, None)) => self.handle_accepted_long(name),
            None => {}
        }
        true
    }

    /// The server has accepted a Parse that it had to refuse: something unseen, a function it may be, has freed the name,
    /// and perhaps others. The session goes on with what the server has, and nobody else gets the connection as it is.
    fn handle_accepted(&mut self, name: Name, definition: Definition) {
        self.in_doubt = true;
        let (mut mine, mut here) = (true, true);
        // What was sent behind it has changed it again, and is undone to this.
        for undo in &mut self.notes.undo {
            if let Some((_, before)) = undo.mine.as_mut().filter(|(other, _)| mine && *other == name) {
                *before = Some(definition.clone());
                mine = false;
            }
            if let Some((_, before)) = undo.here.as_mut().filter(|(other, _)| here && *other == name) {
                *before = Some(Prepared::new(definition.clone(), 0));
                here = false;
            }
        }
        if let Some(on_server) = self.here.as_mut().filter(|_| here) {
            drop(on_server.insert(name, definition.clone()));
        }
        if mine {
            self.mine.insert(name, definition);
        }
    }

    /// The same where the text is too long to be kept: the name is the connection's from here on.
    fn handle_accepted_long(&mut self, name: Name) {
        self.in_doubt = true;
        self.fixed.insert(name);
        self.mine.remove(&name);
        if let Some(on_server) = &mut self.here {
            on_server.by_name.remove(&name);
        }
        for undo in &mut self.notes.undo {
            if let Some((_, before)) = undo.mine.as_mut().filter(|(other, _)| *other == name) {
                *before = None;
            }
            if let Some((_, before)) = undo.here.as_mut().filter(|(other, _)| *other == name) {
                *before = None;
            }
        }
    }

    /// The oldest of these have failed, or will not happen because of it; `itself`: the first is what has failed.
    /// `skips`: nor will a message that is not all sent.
    pub(super) fn handle_failed(&mut self, failed: usize, itself: bool, skips: bool) {
        if skips {
            // It is the newest, and may stand on what is undone below.
            self.handle_whole(false);
        }
        let failed: Vec<Undo> = self.notes.undo.drain(..failed.min(self.notes.undo.len())).collect();
        for undo in &failed {
            self.settle(undo);
        }
        // One that was sent behind a later Sync stands on its own feet.
        let replaced = self.notes.undo.iter().any(|undo| undo.unnamed.is_some()) || self.is_queried_behind(&failed);
        // What the first of those found is what the failed ones have left, or a query among them.
        let touched = failed.iter().any(|undo| undo.unnamed.is_some());
        if let Some(found) = self.notes.undo.iter_mut().find_map(|undo| undo.unnamed.as_mut())
            && (touched || *found == Unnamed::Gone)
        {
            *found = Unnamed::Unknown;
        }
        let texts = failed.iter().filter(|undo| undo.replaces_text).count();
        // The server has dropped the one before it began to look at the text.
        let dropped = itself && failed.first().is_some_and(|undo| undo.unnamed.is_some());
        for undo in failed.into_iter().rev() {
            self.revert(undo, replaced);
        }
        if texts > 0 && !replaced {
            std::mem::swap(&mut self.unnamed_text, &mut self.text_before);
            if dropped || texts > 1 && matches!(self.unnamed, Unnamed::Here | Unnamed::Away | Unnamed::Cached) {
                self.unnamed = Unnamed::Unknown;
            }
        }
        // A query that was skipped has not used the place of the unnamed statement.
        if self.unnamed == Unnamed::Gone {
            self.unnamed = Unnamed::Unknown;
        }
    }

    /// Whether a simple query was sent behind the Sync that ends what these belong to.
    fn is_queried_behind(&self, failed: &[Undo]) -> bool {
        let behind = |group: u32, failed: &Undo| group.wrapping_sub(failed.group).cast_signed() > 0;
        self.notes.queried.zip(failed.first()).is_some_and(|(group, failed)| behind(group, failed))
    }

    pub(super) fn revert(&mut self, undo: Undo, replaced: bool) {
        match undo.mine {
            Some((name, Some(definition))) => drop(self.mine.insert(name, definition)),
            Some((name, None)) => drop(self.mine.remove(&name)),
            None => {}
        }
        if let (Some((name, before)), Some(on_server)) = (undo.here, &mut self.here) {
            on_server.restore(name, before);
        }
        if let Some(before) = undo.unnamed.filter(|_| !replaced) {
            self.unnamed = before;
        }
    }

    /// A simple query goes: it uses the place of the unnamed statement itself (manual, section 54.2.3).
    pub(super) fn handle_query(&mut self) {
        self.unnamed = Unnamed::Gone;
        self.notes.queried = Some(self.notes.group);
    }
}

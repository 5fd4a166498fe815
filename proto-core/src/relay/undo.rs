//! How prepared statements come back to what the server has, when a message that changed them fails.

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
    /// The name is taken: the server must refuse this.
    pub(super) refused: Option<(Name, Definition)>,
    /// The Syncs that were sent before it.
    pub(super) group: u32,
}

impl Undo {
    /// Whether others may depend on how it ends.
    pub(super) const fn matters(&self) -> bool {
        self.mine.is_some() || self.here.is_some()
    }
}

impl Statements {
    pub(super) fn note(&mut self, undo: Undo) {
        self.undo.push_back(Undo { group: self.group, ..undo });
        self.open = true;
    }

    /// A Parse or Close of the client's has been sent to its end. It counts unless an error came while it was on its way.
    pub(super) fn handle_whole(&mut self, counts: bool) {
        if std::mem::take(&mut self.open)
            && !counts
            && let Some(undo) = self.undo.pop_back()
        {
            if undo.replaces_text {
                std::mem::swap(&mut self.unnamed_text, &mut self.text_before);
            }
            self.revert(undo, false);
        }
    }

    /// The same for a message of gprxy's own, or one that gprxy answers.
    pub(super) const fn handle_own(&mut self) {
        self.open = false;
    }

    pub(super) fn settle(&mut self, undo: &Undo) {
        if undo.matters() && undo.group != self.group {
            self.unsettled -= 1;
        }
    }

    /// The oldest Parse or Close is done. `false` when the server has accepted what it had to refuse: it has other
    /// statements than are known here.
    #[must_use]
    pub(super) fn handle_done(&mut self) -> bool {
        let Some(undo) = self.undo.pop_front() else { return false };
        self.settle(&undo);
        undo.refused.is_none()
    }

    /// The oldest of these have failed, or will not happen because of it; `itself`: the first is what has failed.
    /// `skips`: nor will a message that is not all sent.
    pub(super) fn handle_failed(&mut self, failed: usize, itself: bool, skips: bool) {
        if skips {
            // It is the newest, and may stand on what is undone below.
            self.handle_whole(false);
        }
        let failed: Vec<Undo> = self.undo.drain(..failed.min(self.undo.len())).collect();
        for undo in &failed {
            self.settle(undo);
        }
        // One that was sent behind a later Sync stands on its own feet.
        let replaced = self.undo.iter().any(|undo| undo.unnamed.is_some());
        for unnamed in self.undo.iter_mut().filter_map(|undo| undo.unnamed.as_mut()) {
            *unnamed = Unnamed::Unknown;
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
    }
}

//! The idle connections of one pool, and which of them serves whom.

use std::sync::Arc;

use super::Owner;
use super::lease::SlotId;
use super::one::Slot;
use crate::time::Tick;

/// When a connection became idle, as an order and not as a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Stamp(pub(super) u64);

/// The place of an idle connection among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) stamp: Stamp,
    /// When it became idle.
    pub(super) since: Tick,
    /// The earlier of its idle timeout and the end of its lifetime.
    pub(super) retire: Tick,
}

struct Entry {
    slot: SlotId,
    rest: Rest,
    /// What it was opened with, or brought to.
    parameters: Arc<[u8]>,
    /// It can be brought to others.
    bare: bool,
    /// Whose state it holds.
    owner: Owner,
}

/// An idle connection that serves a claim.
pub(super) struct Match {
    pub(super) slot: SlotId,
    pub(super) rest: Rest,
    /// It holds somebody else's state.
    pub(super) foreign: bool,
}

/// In the order of their stamps. A pool is small, and the last ones are the likeliest to fit: a list that keeps its memory
/// beats a tree that allocates.
#[derive(Default)]
pub(super) struct Idle(Vec<Entry>);

impl Idle {
    pub(super) fn insert(&mut self, id: SlotId, slot: &Slot, rest: Rest) {
        let at = self.0.partition_point(|entry| entry.rest.stamp < rest.stamp);
        let (parameters, owner) = (slot.parameters.clone(), slot.owner.clone());
        self.0.insert(at, Entry { slot: id, rest, parameters, bare: slot.bare, owner });
    }

    pub(super) fn remove(&mut self, stamp: Stamp) {
        if let Ok(at) = self.0.binary_search_by_key(&stamp, |entry| entry.rest.stamp) {
            self.0.remove(at);
        }
    }

    /// Of those that have these parameters: the one that this owner used last, else the most recently used
    /// one that nobody owns, else the one that somebody else has left alone for longest. `round_robin`: of those that are
    /// as good as each other, the one that was used longest ago.
    pub(super) fn best(&self, parameters: &Arc<[u8]>, owner: &Owner, round_robin: bool) -> Option<Match> {
        let fits = |entry: &&Entry| Arc::ptr_eq(&entry.parameters, parameters) || entry.parameters == *parameters;
        let owned = |entry: &&Entry, wanted: &Owner| fits(entry) && entry.owner == *wanted;
        let first = |wanted: &Owner| match round_robin {
            true => self.0.iter().find(|entry| owned(entry, wanted)),
            false => self.0.iter().rev().find(|entry| owned(entry, wanted)),
        };
        let own = first(owner).or_else(|| first(&None));
        let found = own.or_else(|| self.0.iter().find(fits))?;
        Some(Match { slot: found.slot, rest: found.rest, foreign: own.is_none() })
    }

    /// The one that its owner has left alone for longest, and since when; `None`: somebody else finds one of the same kind
    /// that nobody owns.
    pub(super) fn to_be_cleaned(&self) -> Option<(SlotId, Tick)> {
        let owned = self.0.iter().find(|entry| entry.owner.is_some())?;
        let is_ready = |entry: &Entry| entry.owner.is_none() && entry.parameters == owned.parameters;
        (!self.0.iter().any(is_ready)).then_some((owned.slot, owned.rest.since))
    }

    /// The one that can be brought to any parameters and that has been left alone for longest.
    pub(super) fn bare(&self) -> Option<(SlotId, Rest)> {
        self.0.iter().find(|entry| entry.bare).map(|entry| (entry.slot, entry.rest))
    }

    pub(super) fn oldest(&self) -> Option<(Stamp, SlotId)> {
        self.0.first().map(|entry| (entry.rest.stamp, entry.slot))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = SlotId> {
        self.0.iter().map(|entry| entry.slot)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

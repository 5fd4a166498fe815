//! Who is connected, and the letter boxes of these sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::driver::card::Card;
use crate::driver::mailbox::{Mail, Mailbox, lock};
use crate::driver::runtime::Runtime;
use crate::fault::Refusal;
use crate::session_id::SessionId;

/// A session that has not ended.
pub(super) struct Present {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) card: Arc<Card>,
}

/// A client that has connected.
pub(in crate::driver) struct Arrived {
    pub(in crate::driver) id: SessionId,
    /// What it is to be told when there are too many.
    pub(in crate::driver) crowded: Option<Refusal>,
    pub(in crate::driver) mailbox: Arc<Mailbox>,
    pub(in crate::driver) card: Arc<Card>,
}

impl<R: Runtime> Shared<R> {
    /// Mail for a session that has gone goes nowhere, but a lease in it goes back.
    pub(super) fn post(self: &Arc<Self>, session: SessionId, mail: Mail) {
        // Put under the lock: whoever departs finds in the box whatever was put into it.
        let present = lock(&self.present);
        match (present.get(&session), mail) {
            (Some(present), mail) => present.mailbox.put(mail),
            (None, Mail::Granted(lease, _)) => {
                drop(present);
                self.discard(lease);
            }
            (None, _) => {}
        }
    }

    /// A session that waits for a server connection was cancelled.
    pub(in crate::driver) fn cancel_waiting(self: &Arc<Self>, session: SessionId) {
        self.post(session, Mail::Cancel);
    }

    /// Lets everybody who waits for keys look again; who waits for another round says so again.
    pub(super) fn tell_key_waiters(self: &Arc<Self>) {
        for session in std::mem::take(&mut *lock(&self.awaiting_keys)) {
            self.post(session, Mail::KeysFetched);
        }
    }

    /// This session is told when a fetch may have ended. It says so before it asks whether one is under way.
    pub(in crate::driver) fn await_keys(&self, session: SessionId) {
        lock(&self.awaiting_keys).insert(session);
    }

    /// This session waits for no fetch.
    pub(in crate::driver) fn forget_awaiting(&self, session: SessionId) {
        lock(&self.awaiting_keys).remove(&session);
    }

    /// A client has connected.
    pub(in crate::driver) fn arrive(
        self: &Arc<Self>,
        address: &Arc<str>,
        local: Option<SocketAddr>,
    ) -> Result<Arrived, Refusal> {
        let (id, crowded) = self.with_hub(|hub, _| match hub.handle_arrival() {
            Ok(id) => Ok((id, None)),
            Err(refusal) => hub.handle_surplus().map(|id| (id, Some(refusal.clone()))).ok_or(refusal),
        })?;
        let mailbox = Arc::new(Mailbox::default());
        let card = Arc::new(Card::new(id, address.clone(), local, R::now().unix));
        lock(&self.present).insert(id, Present { mailbox: mailbox.clone(), card: card.clone() });
        if self.is_draining() {
            mailbox.put(Mail::Drain);
        }
        if self.is_suspended() {
            mailbox.put(Mail::Suspend(None));
        }
        Ok(Arrived { id, crowded, mailbox, card })
    }

    /// A client has gone.
    pub(in crate::driver) fn depart(self: &Arc<Self>, session: SessionId, mailbox: &Mailbox) {
        self.sign_off(session);
        self.forget_awaiting(session);
        self.with_hub(|hub, now| hub.handle_departure(session, now));
        for mail in mailbox.take() {
            if let Mail::Granted(lease, _) = mail {
                self.discard(lease);
            }
        }
        if self.is_closed() {
            self.wake_watchers();
        }
    }

    /// What it has done goes into its database's statistics; who looks sees it exactly once.
    fn sign_off(&self, session: SessionId) {
        let mut present = lock(&self.present);
        let Some(Present { card, .. }) = present.remove(&session) else { return };
        if let Some(database) = card.database() {
            lock(&self.statistics).fold(database, &card.figures());
        }
        if card.at_console.load(Ordering::Acquire) {
            self.consoles.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// A session is at the console: it keeps no drain waiting.
    pub(in crate::driver) fn enter_console(&self, card: &Card) {
        if !card.at_console.swap(true, Ordering::AcqRel) {
            self.consoles.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Sessions that have not ended, those at the console left out.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.present).len().saturating_sub(self.consoles.load(Ordering::Acquire))
    }

    /// Sessions that have not ended, all of them.
    #[must_use]
    pub fn everybody(&self) -> usize {
        lock(&self.present).len()
    }

    pub(super) fn all_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.present).values().map(|present| present.mailbox.clone()).collect()
    }
}

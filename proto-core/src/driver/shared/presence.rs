//! Who is connected, and the letter boxes of these sessions.

use std::sync::Arc;

use super::Shared;
use crate::driver::mailbox::{Mail, Mailbox, lock};
use crate::driver::runtime::Runtime;
use crate::fault::Refusal;
use crate::session_id::SessionId;

impl<R: Runtime> Shared<R> {
    /// Mail for a session that has gone goes nowhere, but a lease in it goes back.
    pub(super) fn post(self: &Arc<Self>, session: SessionId, mail: Mail) {
        // Put under the lock: whoever departs finds in the box whatever was put into it.
        let mailboxes = lock(&self.mailboxes);
        match (mailboxes.get(&session), mail) {
            (Some(mailbox), mail) => mailbox.put(mail),
            (None, Mail::Granted(lease, _)) => {
                drop(mailboxes);
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

    /// A client has connected: its number and letter box, and what it is to be told when there are too many.
    pub(in crate::driver) fn arrive(self: &Arc<Self>) -> Result<(SessionId, Option<Refusal>, Arc<Mailbox>), Refusal> {
        let (id, crowded) = self.with_hub(|hub, _| match hub.handle_arrival() {
            Ok(id) => Ok((id, None)),
            Err(refusal) => hub.handle_surplus().map(|id| (id, Some(refusal.clone()))).ok_or(refusal),
        })?;
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.mailboxes).insert(id, mailbox.clone());
        if self.is_draining() {
            mailbox.put(Mail::Drain);
        }
        Ok((id, crowded, mailbox))
    }

    /// A client has gone.
    pub(in crate::driver) fn depart(self: &Arc<Self>, session: SessionId, mailbox: &Mailbox) {
        lock(&self.mailboxes).remove(&session);
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

    /// Sessions that have not ended.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.mailboxes).len()
    }

    pub(super) fn all_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.mailboxes).values().cloned().collect()
    }
}

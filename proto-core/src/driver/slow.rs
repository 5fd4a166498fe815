//! What takes longer than a turn: logins, resets, derivations, cancels, the console.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connection::Connection;
use super::dial::OpenFailure;
use super::runtime::Runtime;
use super::server::ServerConnection;
use crate::auth::scram::ScramKeys;
use crate::console::Found;
use crate::pool::Lease;
use crate::session::Reply;
use crate::time::Now;
use crate::upstream::{LoggedIn, ResetFault};

type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(super) type Opened<S> = Result<(ServerConnection<S>, LoggedIn), OpenFailure>;

/// Something slow that the session waits for.
pub(super) enum Slow<R: Runtime> {
    /// A login to the server, under this lease.
    Opening(Option<Lease>, Job<Opened<R::Socket>>),
    /// The removal of somebody else's state from a connection, or its check, under this lease.
    Resetting(Option<Lease>, Job<Result<ServerConnection<R::Socket>, ResetFault>>),
    /// PBKDF2, for a client's proof.
    Deriving(Job<ScramKeys>),
    /// A cancel request that is passed on.
    Cancelling(Job<()>),
    /// What was said at the console.
    Console(Job<Found>),
}

/// What came of it.
enum Done<S> {
    Opened(Option<Lease>, Box<Opened<S>>),
    Reset(Option<Lease>, Box<Result<ServerConnection<S>, ResetFault>>),
    Derived(ScramKeys),
    Cancelled,
    Found(Box<Found>),
}

impl<R: Runtime> Connection<R> {
    pub(super) fn poll_slow(&mut self, context: &mut Context<'_>, now: Now) {
        let done = match &mut self.slow {
            None => return,
            Some(Slow::Cancelling(job)) => job.as_mut().poll(context).map(|()| Done::Cancelled),
            Some(Slow::Console(job)) => job.as_mut().poll(context).map(|found| Done::Found(Box::new(found))),
            Some(Slow::Deriving(job)) => job.as_mut().poll(context).map(Done::Derived),
            Some(Slow::Opening(lease, job)) => {
                job.as_mut().poll(context).map(|opened| Done::Opened(lease.take(), Box::new(opened)))
            }
            Some(Slow::Resetting(lease, job)) => {
                job.as_mut().poll(context).map(|reset| Done::Reset(lease.take(), Box::new(reset)))
            }
        };
        let Poll::Ready(done) = done else { return };
        self.slow = None;
        match done {
            Done::Cancelled | Done::Opened(None, _) | Done::Reset(None, _) => {}
            Done::Found(found) => self.reply(Reply::Console(*found), now),
            Done::Derived(keys) => self.reply(Reply::Derived(keys), now),
            Done::Opened(Some(lease), opened) => self.opened(lease, *opened, now),
            Done::Reset(Some(lease), connection) => self.was_reset(lease, *connection, now),
        }
    }
}

//! Giving server connections back: at once, behind a reset, or to be closed.

use std::sync::Arc;

use super::cancels::cancel;
use super::connection::Connection;
use super::runtime::Runtime;
use super::server::{self, ServerConnection};
use super::shared::Shared;
use super::told;
use crate::codec::backend::TransactionStatus;
use crate::pool::{Lease, Returned};
use crate::session::{Return, ReturnState};
use crate::session_id::SessionId;
use crate::upstream::{Discard, ResetPlan};

impl<R: Runtime> Connection<R> {
    pub(super) fn give_back(&mut self, back: Return) {
        let session = self.session.id();
        self.gauge.returned();
        // What a transaction left unread is nobody's answer, and was judged to the last byte.
        let (connection, certain) = match back.state {
            ReturnState::Between | ReturnState::InDoubt => self.take_server_between(),
            _ => self.take_server(),
        };
        let Some(mut connection) = connection else {
            let _ = self.shared.with_hub(|hub, _| hub.cancels.handle_unlease(session));
            return self.shared.discard(back.lease);
        };
        let Return { mut lease, state, changed, statements } = back;
        connection.parameters.set_all(&changed);
        connection.statements = statements;
        let mut plan = None;
        if state == ReturnState::Between && certain {
            plan = ResetPlan::end_of_transaction(&connection.settings, || self.shared.with_hub(|hub, _| hub.random()));
            if plan.is_none() {
                match self.hand_back(session, lease, connection) {
                    None => return,
                    Some(kept) => (lease, connection) = kept,
                }
            }
        } else if matches!(state, ReturnState::Between | ReturnState::InDoubt) {
            // What the server left off reading is nobody's any more; what the client said behind it is for the next one.
            self.from_client.consume(self.to_server.span());
            self.to_server.drop_all();
        }
        // What becomes of the connection takes its time; the session may ask for another one meanwhile.
        let may_hand_on = self.shared.with_hub(|hub, _| {
            hub.pools.handle_parted(&lease);
            hub.cancels.handle_unlease(session)
        });
        let state = match state {
            ReturnState::Quiet { .. } if !certain => ReturnState::Broken,
            ReturnState::InDoubt if certain => ReturnState::Quiet { status: TransactionStatus::Idle, touched: true },
            ReturnState::Between if plan.is_some() => {
                ReturnState::Quiet { status: TransactionStatus::Idle, touched: true }
            }
            // Its hand-over has failed.
            ReturnState::Between | ReturnState::InDoubt => ReturnState::Broken,
            state => state,
        };
        let returning = self.shared.begin_return();
        let (shared, crashed) = (self.shared.clone(), self.from_server.closed);
        R::spawn(async move {
            give_back(shared, session, lease, connection, Parting { state, plan, may_hand_on, crashed }).await;
            drop(returning);
        });
    }

    /// At once, and as it is, to the next one; not while a cancel is on its way to it.
    fn hand_back(
        &self,
        session: SessionId,
        lease: Lease,
        connection: ServerConnection<R::Socket>,
    ) -> Option<(Lease, ServerConnection<R::Socket>)> {
        self.shared.with_hub(|hub, now| {
            if !hub.cancels.handle_unlease(session) {
                return Some((lease, connection));
            }
            self.shared.park(lease.slot(), connection);
            hub.pools.handle_release(lease, Returned::Kept, now);
            None
        })
    }
}

/// How a connection comes back.
struct Parting {
    state: ReturnState,
    /// What has to be done when only a transaction has ended.
    plan: Option<ResetPlan>,
    /// No cancel is on its way to it.
    may_hand_on: bool,
    /// Its server has closed it.
    crashed: bool,
}

/// Makes a server connection fit for the next session, or closes it.
async fn give_back<R: Runtime>(
    shared: Arc<Shared<R>>,
    session: SessionId,
    lease: Lease,
    mut connection: ServerConnection<R::Socket>,
    parting: Parting,
) {
    let slot = lease.slot();
    let Parting { state, plan, may_hand_on, crashed } = parting;
    // What an operator's query leaves is its owner's.
    let keeps = plan.as_ref().is_some_and(|plan| plan.discard != Discard::All);
    let clean = match state {
        // A cancel that is still on its way must hit neither the reset nor whoever comes next.
        ReturnState::Quiet { .. } if !may_hand_on || connection.single_use => false,
        ReturnState::Quiet { touched: false, .. } => true,
        ReturnState::Quiet { status, touched: true } => {
            let proof = shared.with_hub(|hub, _| hub.random());
            let plan = plan.unwrap_or_else(|| ResetPlan::end_of_session(&connection.settings, proof));
            server::reset::<R>(&mut connection, status, plan).await.is_ok()
        }
        ReturnState::Busy => {
            let tls = connection.tls.as_ref().and_then(|terms| shared.server_tls(terms));
            let limit = shared.terms().profile.limits.cancel_wait_timeout;
            if let Err(error) = cancel::<R>(&connection.endpoint, &connection.key, tls, limit).await {
                let reason = error.reason;
                log::warn!("session {session}: what its client left running could not be cancelled: {reason}");
            }
            false
        }
        ReturnState::Between | ReturnState::InDoubt | ReturnState::Broken => false,
    };
    if clean {
        shared.park(slot, connection);
        let returned = if keeps { Returned::Kept } else { Returned::Clean };
        shared.with_hub(|hub, now| hub.pools.handle_release(lease, returned, now));
    } else {
        let why = match state {
            _ if crashed => told::CRASHED,
            ReturnState::Quiet { .. } if connection.single_use => "client's own login",
            ReturnState::Quiet { .. } => told::UNCLEAN,
            _ => told::NOT_READY,
        };
        shared.tell_end(&connection, why);
        match state {
            ReturnState::Quiet { .. } => connection.close::<R>().await,
            ReturnState::Busy | ReturnState::Between | ReturnState::InDoubt | ReturnState::Broken => {
                connection.abandon::<R>().await
            }
        }
        shared.with_hub(|hub, now| hub.pools.handle_release(lease, Returned::Broken, now));
    }
}

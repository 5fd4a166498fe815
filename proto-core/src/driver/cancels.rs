//! Cancel requests that are passed on.

use std::sync::Arc;

use super::connection::{Connection, Slow};
use super::runtime::Runtime;
use super::server;
use super::shared::Shared;
use crate::cancel::{CancelOrder, Decision};

impl<R: Runtime> Connection<R> {
    /// A cancel of this session goes to its server from here on.
    pub(super) fn cancellable(&mut self) {
        if let Some(target) = self.target.take().filter(|_| self.server.is_some()) {
            let session = self.session.id();
            self.shared.with_hub(|hub, _| hub.cancels.handle_lease(session, target));
        }
    }

    pub(super) fn pass_on_cancel(&mut self, pid: u32, key: &[u8]) {
        let decision = self.shared.with_hub(|hub, now| hub.cancels.handle_request(pid, key, now));
        match decision {
            Decision::Unknown | Decision::NotLeased(_) | Decision::InFlight(_) => {}
            Decision::Overloaded(session) => log::warn!("session {session}: too many cancel requests are under way"),
            Decision::Waiting(session) => self.shared.cancel_waiting(session),
            Decision::Forward(order) => {
                let under_way = UnderWay { shared: self.shared.clone(), order, over: false };
                self.slow = Some(Slow::Cancelling(Box::pin(forward_cancel(under_way))));
                self.mailbox.wake();
            }
        }
    }
}

/// A cancel order that is finished in any case, also when its task ends early.
struct UnderWay<R: Runtime> {
    shared: Arc<Shared<R>>,
    order: CancelOrder,
    /// The server has had its say, or will never get the request.
    over: bool,
}

impl<R: Runtime> Drop for UnderWay<R> {
    fn drop(&mut self) {
        self.shared.with_hub(|hub, now| hub.cancels.handle_finished(self.order.id, self.over, now));
    }
}

async fn forward_cancel<R: Runtime>(mut under_way: UnderWay<R>) {
    let UnderWay { shared, order, over } = &mut under_way;
    let target = &order.target;
    let tls = target.tls.as_ref().and_then(|terms| shared.server_tls(terms));
    let limit = shared.terms().profile.limits.cancel_wait_timeout;
    match server::cancel::<R>(&target.endpoint, &target.backend, tls, limit).await {
        Ok(()) => *over = true,
        Err(error) => {
            *over = !error.may_strike_late;
            let doubt = if error.may_strike_late {
                "it is not known whether a cancel request was"
            } else {
                "a cancel request was not"
            };
            log::warn!("session {}: {doubt} delivered: {}", order.session, error.reason);
        }
    }
}

//! Cancel requests that are passed on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::ClientConfig;

use super::connection::Connection;
use super::dial::tls_possible;
use super::link::Link;
use super::runtime::Runtime;
use super::server::{read_until, timely, write_all};
use super::shared::Shared;
use super::slow::Slow;
use super::tls;
use crate::cancel::{CancelOrder, Decision, PeerOrder};
use crate::fault::Lost;
use crate::policy::{Endpoint, SslMode};
use crate::upstream::{BackendKey, CancelOutput, CancelRequest, CancelTls};

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
            Decision::PeerBusy { peer, failures } => {
                let id = self.session.id();
                log::log!(level(failures), "session {id}: too many cancel requests are under way to peer {peer}");
            }
            Decision::PassOn(order) => {
                log::debug!("session {}: a cancel request is passed on to peer {}", self.session.id(), order.peer);
                let passing = Passing { shared: self.shared.clone(), order };
                self.slow = Some(Slow::Cancelling(Box::pin(pass_to_peer(passing))));
                self.mailbox.wake();
            }
        }
    }
}

/// A request for a peer takes no longer, whatever servers may take: anybody can send one, and it has a client's place.
const PASSING: Duration = Duration::from_secs(10);

/// A request for a peer that is finished in any case, also when its task ends early.
struct Passing<R: Runtime> {
    shared: Arc<Shared<R>>,
    order: PeerOrder,
}

impl<R: Runtime> Drop for Passing<R> {
    fn drop(&mut self) {
        let PeerOrder { peer, id, .. } = self.order;
        self.shared.with_hub(|hub, _| hub.cancels.handle_peer_finished(peer, id));
    }
}

async fn pass_to_peer<R: Runtime>(passing: Passing<R>) {
    let Passing { shared, order } = &passing;
    let PeerOrder { id, peer, settings, key, .. } = order;
    let tls = match settings.sslmode {
        mode if !tls_possible(&settings.endpoint, mode) => None,
        SslMode::Prefer => shared.server_tls(&settings.tls_terms()).map(|config| (CancelTls::IfOffered, config)),
        _ => match shared.server_tls(&settings.tls_terms()) {
            Some(config) => Some((CancelTls::Required, config)),
            None => {
                return log::warn!("a cancel request was not delivered to peer {peer}: it has no TLS configuration");
            }
        },
    };
    let limit = shared.terms().profile.limits.cancel_wait_timeout.min(PASSING);
    let sent = || shared.with_hub(|hub, _| hub.cancels.handle_sent_to_peer(*peer, *id));
    match carry::<R>(&settings.endpoint, key, tls, limit, sent).await {
        Ok(()) => shared.with_hub(|hub, _| hub.cancels.handle_peer_reached(*peer)),
        Err(error) => {
            let failures = shared.with_hub(|hub, _| hub.cancels.handle_peer_failed(*peer));
            let (doubt, endpoint) = (error.doubt(), &settings.endpoint);
            log::log!(level(failures), "{doubt} delivered to peer {peer} at {endpoint}: {}", error.reason);
        }
    }
}

/// The 1st, 2nd, 4th, 8th ... failure of a row: anybody can send requests that come to nothing.
const fn level(failures: u64) -> log::Level {
    if failures.is_power_of_two() { log::Level::Warn } else { log::Level::Debug }
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
    match cancel::<R>(&target.endpoint, &target.backend, tls, limit).await {
        Ok(()) => *over = true,
        Err(error) => {
            *over = !error.may_strike_late;
            let doubt = error.doubt();
            log::warn!("session {}: {doubt} delivered: {}", order.session, error.reason);
        }
    }
}

/// Why it is not known that the server has cancelled.
pub(super) struct CancelError {
    pub(super) reason: String,
    /// The request, or a part of it, is out: the server may act on it at any time.
    pub(super) may_strike_late: bool,
}

impl CancelError {
    fn before(error: &io::Error) -> Self {
        Self { reason: error.to_string(), may_strike_late: false }
    }

    const fn doubt(&self) -> &'static str {
        if self.may_strike_late { "it is not known whether a cancel request was" } else { "a cancel request was not" }
    }
}

/// Cancels what a server process runs, and waits until the server has closed the cancel connection: from then on the
/// cancel has been delivered, or will never be. With `tls` it travels under TLS or not at all.
pub(super) async fn cancel<R: Runtime>(
    endpoint: &Endpoint,
    key: &BackendKey,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
) -> Result<(), CancelError> {
    carry::<R>(endpoint, key, tls.map(|config| (CancelTls::Required, config)), timeout, || {}).await
}

/// The same, and tells when the request is out.
async fn carry<R: Runtime>(
    endpoint: &Endpoint,
    key: &BackendKey,
    tls: Option<(CancelTls, Arc<ClientConfig>)>,
    timeout: Duration,
    told: impl Fn(),
) -> Result<(), CancelError> {
    let begun = R::now();
    let until = begun.tick.after(timeout);
    let socket = timely::<R, _>(until, R::connect(endpoint.clone())).await;
    let mut link = Link::Plain(socket.map_err(|error| CancelError::before(&error))?);
    let wish = tls.as_ref().map_or(CancelTls::Without, |(wish, _)| *wish);
    let mut machine = CancelRequest::new(key, wish, timeout, begun);
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                CancelOutput::Send(bytes) => {
                    // What is sent before TLS is only the wish for it.
                    let is_request = machine.is_out();
                    let sent = timely::<R, _>(until, write_all(&mut link, bytes.expose())).await;
                    sent.map_err(|error| CancelError { reason: error.to_string(), may_strike_late: is_request })?;
                    if is_request {
                        told();
                    }
                }
                CancelOutput::StartTls => {
                    let (Link::Plain(socket), Some((_, config))) = (link, tls.clone()) else {
                        let error = io::Error::other("TLS was asked for twice");
                        return Err(CancelError::before(&error));
                    };
                    let encrypted = timely::<R, _>(until, tls::connect(config, endpoint, socket)).await;
                    link = encrypted.map_err(|error| CancelError::before(&error))?;
                    machine.handle_tls_established(R::now());
                }
                CancelOutput::Finished(result) => {
                    return result.map_err(|failure| CancelError {
                        reason: failure.to_string(),
                        may_strike_late: failure.may_strike_late(),
                    });
                }
            }
        }
        let mut bytes = [0; 64];
        match read_until::<R>(&mut link, &mut bytes, machine.poll_timeout().map(|deadline| deadline.at)).await {
            None => machine.handle_timeout(R::now()),
            Some(Ok(0)) => machine.handle_close(Lost::Closed, R::now()),
            Some(Ok(n)) => {
                machine.handle_input(&bytes[..n], R::now());
            }
            Some(Err(_)) => machine.handle_close(Lost::Broken, R::now()),
        }
    }
}

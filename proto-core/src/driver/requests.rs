//! What a session's task does for its machine's actions: verifying, leasing, giving back, cancelling.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::connection::{Connection, Opened, Slow};
use super::runtime::Runtime;
use super::server::{self, OpenFailure, ServerConnection};
use super::shared::Shared;
use super::told::{self, Teller};
use crate::auth::Authenticated;
use crate::auth::jwks::Unknown;
use crate::auth::jwt::{IssuerId, Verdict};
use crate::cancel::{BackendTarget, CancelOrder, Decision};
use crate::codec::backend::TransactionStatus;
use crate::console::Standing;
use crate::fault::{Refusal, SqlState};
use crate::hub::Applicant;
use crate::pool::{How, Lease, PoolMode, Returned};
use crate::relay::OnServer;
use crate::secret::Secret;
use crate::session::{Credential, Leased, Reply, Return, ReturnState, Wish};
use crate::session_id::SessionId;
use crate::time::Now;
use crate::upstream::{self, BackendKey, LoggedIn, LoginFailure, LoginSettings, Reset, ResetPlan};

/// How long a server may take to answer a reset before its connection is closed instead.
const RESET_TIME: Duration = Duration::from_secs(5);

impl<R: Runtime> Connection<R> {
    pub(super) fn verify(&mut self, token: Secret<Vec<u8>>, now: Now) {
        let issuer = match self.shared.keyring().verify(token.expose(), now) {
            Verdict::NeedsKey(issuer) => issuer,
            verdict => return self.verified(verdict, now),
        };
        match self.ask_for_key(issuer) {
            Unknown::Fetching(awaited) => self.unverified = Some((token, awaited)),
            // The fetch that this cools down from may have brought the key since the keys were looked at.
            Unknown::CoolingDown => self.verify_finally(&token, now),
        }
    }

    fn ask_for_key(&self, issuer: IssuerId) -> Unknown {
        let session = self.session.id();
        self.shared.await_keys(session);
        let unknown = self.shared.with_hub(|hub, now| hub.keys.handle_unknown_key(issuer, now));
        if unknown == Unknown::CoolingDown {
            self.shared.forget_awaiting(session);
        }
        unknown
    }

    /// Judges by the keys that are there now, and asks for no others.
    fn verify_finally(&mut self, token: &Secret<Vec<u8>>, now: Now) {
        let verdict = self.shared.keyring().verify(token.expose(), now);
        self.verified(verdict, now);
    }

    fn verified(&mut self, verdict: Verdict, now: Now) {
        let result = match verdict {
            Verdict::Proven(who) => Ok(who),
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::NeedsKey(issuer) => Err(self.shared.keyring().without_key(issuer)),
        };
        self.reply(Reply::Verified(result), now);
    }

    /// A fetch may have ended; if it was the awaited one, the keys decide this time.
    pub(super) fn verify_again(&mut self, now: Now) {
        let Some((token, awaited)) = self.unverified.take() else { return };
        let session = self.session.id();
        self.shared.await_keys(session);
        if !self.shared.with_hub(|hub, _| hub.keys.has_ended(awaited)) {
            self.unverified = Some((token, awaited));
            return;
        }
        self.shared.forget_awaiting(session);
        self.verify_finally(&token, now);
    }

    /// A session wants its first server connection: it gets a cancel key, and where others have been greeted before, the
    /// same greeting instead of the connection.
    pub(super) fn request(&mut self, wish: Box<Wish>, now: Now) {
        let session = self.session.id();
        let profile = self.terms.profile.clone();
        let about = self.session.about();
        let user = about.as_ref().map_or(&wish.account, |about| profile.counted_as(&about.user, &wish.account));
        let who = about.as_ref().and_then(|about| about.identity.as_ref());
        let standing = who.and_then(|who| profile.console.as_ref()?.standing(who));
        let admitted = self.shared.with_hub(|hub, _| {
            let applicant = Applicant {
                database: &wish.database,
                user: Some(user),
                identity: wish.identity.as_ref(),
                is_admin: standing == Some(Standing::Admin),
                at_console: false,
                settings: &wish.settings,
            };
            hub.admit(session, &applicant)?;
            Ok((hub.enroll(session, wish.wide_key), hub.clients_of(&wish.database)))
        });
        let key = match admitted {
            Ok((key, clients)) => {
                if clients == 1 && profile.log.connections && !profile.databases.has(&wish.database) {
                    log::info!("session {session}: registered new auto-database: {}", wish.database);
                }
                key
            }
            Err(refusal) => return self.reply(Reply::Refused(refusal), now),
        };
        self.introduce(key.pid());
        let welcome = match wish.mode {
            PoolMode::Session => None,
            PoolMode::Transaction | PoolMode::Statement => self.shared.welcome(&wish.pool(), &wish.parameters),
        };
        self.wish = Some(wish.into());
        self.reply(Reply::Enrolled(key), now);
        match welcome {
            Some(parameters) => self.reply(Reply::Welcome(parameters.into()), now),
            None => self.borrow(now),
        }
    }

    /// A session that is not proven yet wants a server connection to look its user up on.
    pub(super) fn look_up(&mut self, wish: Box<Wish>, now: Now) {
        if let Err(refusal) = self.shared.with_hub(|hub, _| hub.pools.admit(&wish.database)) {
            return self.reply(Reply::Refused(refusal), now);
        }
        self.wish = Some(wish.into());
        self.borrow(now);
    }

    /// Asks the pool for a server connection, under the session's wish.
    pub(super) fn borrow(&mut self, now: Now) {
        let Some(wish) = &self.wish else { return };
        let session = self.session.id();
        let mut request = wish.request(session);
        self.asked = true;
        let (shared, terms) = (&self.shared, &self.terms);
        let (current, turn) = shared.with_hub_for(Some(session), |hub, now| {
            let current = shared.generation() == terms.generation;
            if !current && self.session.facts().is_some() {
                return false;
            }
            // Who was let in by settings that are no more gets a connection that nobody else gets.
            request.reuse &= current;
            hub.cancels.handle_waiting(session);
            hub.pools.handle_request(request, now);
            true
        });
        if !current {
            return self.renew(now);
        }
        if let Some((lease, how)) = turn {
            self.granted(lease, how, now);
        }
    }

    /// The settings have changed since this session wished for server connections.
    fn renew(&mut self, now: Now) {
        let Some(wish) = self.wish.take() else { return };
        self.terms = self.shared.terms();
        match self.session.renew(self.terms.profile.clone(), &self.shared.keyring(), &wish) {
            Ok(wish) => {
                self.wish = Some(wish.into());
                self.borrow(now);
            }
            Err(refusal) => {
                self.stop_asking();
                self.reply(Reply::Refused(refusal), now);
            }
        }
    }

    /// The session's turn has come.
    pub(super) fn granted(&mut self, lease: Lease, how: How, now: Now) {
        let parked = self.shared.take_parked(lease.slot());
        if !self.asked {
            // The session gave up while its turn came.
            if let Some(connection) = parked {
                self.shared.park(lease.slot(), connection);
            }
            return self.shared.discard(lease);
        }
        // Its socket wakes this task when it is read from next.
        let context = &mut Context::from_waker(Waker::noop());
        let alive = parked.and_then(|mut connection| {
            let alive = connection.poll_alive(context);
            if !alive {
                self.shared.tell_end(&connection, told::CRASHED);
            }
            alive.then_some(connection)
        });
        match (how, alive) {
            (How::Open, _) => self.open(lease),
            (How::Reuse, Some(connection)) => self.leased(lease, connection, None, now),
            (How::Check, Some(connection)) => {
                let query = self.wish.as_ref().and_then(|wish| wish.settings.check_query());
                self.reset(lease, connection, |proof| check(query, proof));
            }
            (How::Reset, Some(connection)) => self.reset(lease, connection, full_reset),
            (How::Reuse | How::Check | How::Reset, None) => self.reopen(lease),
        }
    }

    /// Its server has closed the connection meanwhile, or it cannot be cleaned: a new one takes its place.
    fn reopen(&mut self, lease: Lease) {
        self.shared.with_hub(|hub, now| hub.pools.handle_reopen(&lease, now));
        self.open(lease);
    }

    /// Somebody else's state is in it, or nobody knows whether its server is still there.
    fn reset(
        &mut self,
        lease: Lease,
        mut connection: ServerConnection<R::Socket>,
        plan: impl FnOnce([u8; 16]) -> ResetPlan,
    ) {
        let plan = plan(self.shared.with_hub(|hub, _| hub.random()));
        let job = async move {
            let reset = Reset::new(TransactionStatus::Idle, plan, RESET_TIME, R::now());
            server::reset::<R>(&mut connection, reset).await.then_some(connection)
        };
        self.slow = Some(Slow::Resetting(Some(lease), Box::pin(job)));
        self.mailbox.wake();
    }

    pub(super) fn was_reset(&mut self, lease: Lease, connection: Option<ServerConnection<R::Socket>>, now: Now) {
        match connection {
            Some(connection) => self.leased(lease, connection, None, now),
            None => self.reopen(lease),
        }
    }

    /// Nothing is asked for any more. A session that keeps its connection will not ask again, and a person's own password
    /// is not kept longer than it takes.
    pub(super) fn stop_asking(&mut self) {
        self.asked = false;
        if self.wish.as_ref().is_some_and(|wish| wish.mode == PoolMode::Session) {
            self.wish = None;
        }
    }

    pub(super) fn give_up(&mut self) {
        let session = self.session.id();
        self.stop_asking();
        self.unverified = None;
        if let Some(Slow::Opening(lease, _) | Slow::Resetting(lease, _)) = &mut self.slow
            && let Some(lease) = lease.take()
        {
            self.shared.discard(lease);
        }
        self.slow = None;
        self.shared.with_hub(|hub, now| hub.pools.handle_gave_up(session, now));
    }

    /// Logs in to the server under this lease.
    pub(super) fn open(&mut self, lease: Lease) {
        let Some(wish) = &self.wish else { return self.shared.discard(lease) };
        let (shared, wish) = (self.shared.clone(), wish.clone());
        let job = async move { log_in::<R>(&shared, &wish).await };
        self.slow = Some(Slow::Opening(Some(lease), Box::pin(job)));
        // It is polled for the first time with this task's next wake-up.
        self.mailbox.wake();
    }

    pub(super) fn opened(
        &mut self,
        lease: Lease,
        opened: Result<(ServerConnection<R::Socket>, LoggedIn), OpenFailure>,
        now: Now,
    ) {
        let (mut connection, login) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.open_failed(lease, &failure, now),
        };
        if let Some(wish) = &self.wish {
            furnish(&self.shared, wish, &lease, &mut connection, &login);
            self.shared.recipes.keep(self.terms.generation, wish);
        }
        let proof = match self.wish.as_ref().map(|wish| &wish.credential) {
            None => return self.shared.discard(lease),
            Some(Credential::Account(_) | Credential::Passed(_) | Credential::Provided) => None,
            Some(Credential::Own(_)) => match Authenticated::by_server(&login) {
                Some(who) => Some(who),
                None => {
                    self.shared.tell_end(&connection, "password not asked for");
                    R::spawn(connection.close::<R>());
                    self.shared.discard(lease);
                    return self.reply(Reply::Refused(password_not_asked()), now);
                }
            },
        };
        self.shared.with_hub(|hub, now| hub.pools.handle_opened(&lease, now));
        self.leased(lease, connection, proof, now);
    }

    fn open_failed(&mut self, lease: Lease, failure: &OpenFailure, now: Now) {
        let refusal = failure.refusal();
        let own_password = self.wish.as_ref().is_some_and(|wish| matches!(wish.credential, Credential::Own(_)));
        if !own_password && let Some(wish) = &self.wish {
            told::login_failed(wish, failure);
        }
        // A person's wrong password says nothing about the server, and must not hold up the others.
        if own_password || !failure.concerns_others() {
            self.shared.discard(lease);
        } else {
            self.shared.with_hub(|hub, now| hub.pools.handle_open_failed(lease, refusal.clone(), now));
        }
        self.stop_asking();
        let reply = match failure {
            OpenFailure::Login { failure: LoginFailure::Server(error), .. } => {
                let mut message = Vec::new();
                error.emit(&mut message);
                Reply::RefusedByServer(message.into(), refusal)
            }
            _ => Reply::Refused(refusal),
        };
        self.reply(reply, now);
    }

    /// The session has its server connection.
    pub(super) fn leased(
        &mut self,
        lease: Lease,
        mut connection: ServerConnection<R::Socket>,
        proof: Option<Authenticated>,
        now: Now,
    ) {
        self.stop_asking();
        self.gauge.leased(lease.slot().0, now.tick);
        self.target.clone_from(&connection.target);
        let parameters = connection.parameters.clone();
        let mut statements = connection.statements.take();
        if let (Some(statements), Some(wish)) = (&mut statements, &self.wish) {
            // It may have been opened under other settings.
            statements.set_most(wish.settings.max_prepared_statements as usize);
        }
        if let Some(who) = &proof {
            self.gauge.card().identify(who.identity());
        }
        self.server = Some(connection);
        self.from_server.look_again();
        self.reply(Reply::Leased(Leased { lease, parameters, statements, proof }), now);
        if !self.session.is_preparing() {
            self.cancellable();
        }
    }

    /// A cancel of this session goes to its server from here on.
    pub(super) fn cancellable(&mut self) {
        if let Some(target) = self.target.take().filter(|_| self.server.is_some()) {
            let session = self.session.id();
            self.shared.with_hub(|hub, _| hub.cancels.handle_lease(session, target));
        }
    }

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
        if state == ReturnState::Between && certain {
            match self.hand_back(session, lease, connection) {
                None => return,
                Some(kept) => (lease, connection) = kept,
            }
        } else if matches!(state, ReturnState::Between | ReturnState::InDoubt) {
            // What the server left off reading is nobody's any more; what the client said behind it is for the next one.
            self.from_client.consume(self.to_server.span());
            self.to_server.drop_all();
        }
        let may_hand_on = self.shared.with_hub(|hub, _| hub.cancels.handle_unlease(session));
        let state = match state {
            ReturnState::Quiet { .. } if !certain => ReturnState::Broken,
            ReturnState::InDoubt if certain => ReturnState::Quiet { status: TransactionStatus::Idle, touched: true },
            // Its hand-over has failed.
            ReturnState::Between | ReturnState::InDoubt => ReturnState::Broken,
            state => state,
        };
        let returning = self.shared.begin_return();
        let shared = self.shared.clone();
        let crashed = self.from_server.closed;
        R::spawn(async move {
            give_back(shared, session, lease, connection, state, may_hand_on, crashed).await;
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

/// Logs in to a server as a wish says.
pub(super) async fn log_in<R: Runtime>(shared: &Arc<Shared<R>>, wish: &Wish) -> Opened<R::Socket> {
    let target = &*wish.target;
    let tls = shared.server_tls(&target.tls_terms());
    let token = match &wish.credential {
        Credential::Provided => Some(fresh_token(shared).await?),
        _ => None,
    };
    let profile = shared.terms().profile.clone();
    let teller = Teller::of(wish, profile.log);
    let hosts = shared.hosts(target);
    server::open::<R>(target, &hosts, tls, profile.sockets, &teller, |endpoint| {
        let settings = wish.login_settings(shared.with_hub(|hub, _| hub.random()));
        let credential = match (&wish.credential, &token) {
            (Credential::Account(_), _) => settings.credential.with_keys(shared.scram_keys(&wish.account, endpoint)),
            (_, Some(token)) => upstream::Credential::Token { token: token.clone(), stays_here: endpoint.is_local() },
            _ => settings.credential,
        };
        LoginSettings { tls_possible: server::tls_possible(endpoint, target.sslmode), credential, ..settings }
    })
    .await
}

/// What a connection needs that was opened by a wish under this lease, and what is kept of its login.
pub(super) fn furnish<R: Runtime>(
    shared: &Arc<Shared<R>>,
    wish: &Wish,
    lease: &Lease,
    connection: &mut ServerConnection<R::Socket>,
    login: &LoggedIn,
) {
    if wish.mode != PoolMode::Session {
        let reported = shared.keep_welcome(wish.pool(), wish.parameters.clone(), &login.parameters);
        connection.parameters = reported.into();
        connection.statements = Some(Box::new(OnServer::new(wish.settings.max_prepared_statements as usize)));
    }
    connection.single_use = !wish.credential.may_be_shared();
    let number = shared.with_hub(|hub, _| hub.number_server());
    shared.name_server(connection, wish, number);
    let target = Arc::new(BackendTarget {
        endpoint: connection.endpoint.clone(),
        tls: connection.tls.clone(),
        backend: BackendKey { pid: connection.key.pid, key: connection.key.key.clone() },
        slot: lease.slot(),
    });
    shared.note_server(&target, number, connection.local);
    connection.target = Some(target);
    if let (Credential::Account(account), Some(keys)) = (&wish.credential, login.new_keys.clone()) {
        shared.keep_scram_keys(&account.name, &connection.endpoint, keys);
    }
}

/// A token for a login that begins now.
async fn fresh_token<R: Runtime>(shared: &Shared<R>) -> Result<Arc<Secret<Vec<u8>>>, OpenFailure> {
    let tokens = shared.tokens.clone().ok_or_else(|| OpenFailure::NoToken(no_source()))?;
    let token = R::blocking(move || tokens.fresh()).await;
    token.map(Arc::new).map_err(OpenFailure::NoToken)
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

/// Makes a server connection fit for the next session, or closes it.
async fn give_back<R: Runtime>(
    shared: Arc<Shared<R>>,
    session: SessionId,
    lease: Lease,
    mut connection: ServerConnection<R::Socket>,
    state: ReturnState,
    may_hand_on: bool,
    crashed: bool,
) {
    let slot = lease.slot();
    let clean = match state {
        // A cancel that is still on its way must hit neither the reset nor whoever comes next.
        ReturnState::Quiet { .. } if !may_hand_on || connection.single_use => false,
        ReturnState::Quiet { touched: false, .. } => true,
        ReturnState::Quiet { status, touched: true } => {
            let proof = shared.with_hub(|hub, _| hub.random());
            let plan = ResetPlan { rollback: true, ..full_reset(proof) };
            server::reset::<R>(&mut connection, Reset::new(status, plan, RESET_TIME, R::now())).await
        }
        ReturnState::Busy => {
            let tls = connection.tls.as_ref().and_then(|terms| shared.server_tls(terms));
            let limit = shared.terms().profile.limits.cancel_wait_timeout;
            if let Err(error) = server::cancel::<R>(&connection.endpoint, &connection.key, tls, limit).await {
                let reason = error.reason;
                log::warn!("session {session}: what its client left running could not be cancelled: {reason}");
            }
            false
        }
        ReturnState::Between | ReturnState::InDoubt | ReturnState::Broken => false,
    };
    if clean {
        shared.park(slot, connection);
        shared.with_hub(|hub, now| hub.pools.handle_release(lease, Returned::Clean, now));
    } else {
        let why = match state {
            _ if crashed => told::CRASHED,
            ReturnState::Quiet { .. } if connection.single_use => "client's own login",
            ReturnState::Quiet { .. } => "unclean server",
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

/// Of a connection that is between transactions.
const fn full_reset(proof: [u8; 16]) -> ResetPlan {
    ResetPlan { rollback: false, query: None, discard_all: true, prove: true, proof }
}

/// Of a connection that keeps its state.
const fn check(query: Option<Arc<str>>, proof: [u8; 16]) -> ResetPlan {
    ResetPlan { rollback: false, query, discard_all: false, prove: true, proof }
}

fn no_source() -> Refusal {
    Refusal::new(SqlState::CANNOT_CONNECT, "gprxy has no source of tokens for this server")
}

fn password_not_asked() -> Refusal {
    Refusal::new(
        SqlState::INVALID_AUTHORIZATION,
        "the PostgreSQL server did not ask for the password, so it proves nothing",
    )
    .hint("Log in with a token; passwords count only where PostgreSQL checks them (scram-sha-256, md5, password).")
}

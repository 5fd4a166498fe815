//! Asking for a server connection, and what comes of it.

use std::sync::Arc;
use std::task::{Context, Waker};

use super::connection::Connection;
use super::opening;
use super::runtime::Runtime;
use super::server::{self, ServerConnection};
use super::slow::Slow;
use super::told;
use crate::auth::Authenticated;
use crate::codec::backend::TransactionStatus;
use crate::console::Standing;
use crate::fault::Refusal;
use crate::hub::Applicant;
use crate::pool::{How, Lease, PoolMode};
use crate::session::{Leased, Reply, Wish};
use crate::time::Now;
use crate::upstream::{ResetFault, ResetPlan};

impl<R: Runtime> Connection<R> {
    /// A session wants its first server connection: it gets a cancel key, and where others have been greeted before, the
    /// same greeting instead of the connection.
    pub(super) fn request(&mut self, wish: Box<Wish>, now: Now) {
        let session = self.session.id();
        if let Err(refusal) = self.admit(&wish, wish.identity.as_ref()) {
            return self.reply(Reply::Refused(refusal), now);
        }
        let key = self.shared.with_hub(|hub, _| hub.enroll(session, wish.wide_key));
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

    /// Takes a place for this client under its identity. Before there is one, only looks whether there would be room.
    pub(super) fn admit(&self, wish: &Wish, identity: Option<&Arc<str>>) -> Result<(), Refusal> {
        let (session, profile) = (self.session.id(), &self.terms.profile);
        let about = self.session.about();
        let user = about.as_ref().map_or(&wish.account, |about| profile.counted_as(&about.user, &wish.account));
        let who = about.as_ref().and_then(|about| about.identity.as_ref());
        let standing = who.and_then(|who| profile.console.as_ref()?.standing(who));
        let applicant = Applicant {
            database: &wish.database,
            user: Some(user),
            identity,
            is_admin: standing == Some(Standing::Admin),
            at_console: false,
            settings: &wish.settings,
        };
        let clients = self.shared.with_hub(|hub, _| match identity {
            Some(_) => hub.admit(session, &applicant).map(|()| hub.clients_of(&wish.database)),
            None => hub.check(&applicant).map(|()| 0),
        })?;
        if clients == 1 && profile.log.connections && !profile.databases.has(&wish.database) {
            log::info!("session {session}: registered new auto-database: {}", wish.database);
        }
        Ok(())
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
            (How::Open, _) => self.open(lease, false),
            (How::OpenBare, _) => self.open(lease, true),
            (How::Reuse, Some(connection)) => self.leased(lease, connection, None, now),
            (How::Check, Some(connection)) => {
                let plan = ResetPlan::check(&connection.settings, self.random());
                self.reset(lease, connection, plan);
            }
            (How::Reset, Some(mut connection)) => {
                if connection.bare.is_some() {
                    connection.startup_query = self.wish.as_ref().and_then(|wish| wish.startup_query.clone());
                }
                let plan = ResetPlan::for_another(&connection.settings, self.random());
                self.reset(lease, connection, plan);
            }
            (How::Reuse | How::Check | How::Reset, None) => self.reopen(lease),
        }
    }

    /// Its server has closed the connection meanwhile, or it cannot be cleaned: a new one takes its place.
    fn reopen(&mut self, lease: Lease) {
        self.shared.with_hub(|hub, now| hub.pools.handle_reopen(&lease, now));
        self.open(lease, false);
    }

    /// Somebody else's state is in it, or nobody knows whether its server is still there.
    fn reset(&mut self, lease: Lease, mut connection: ServerConnection<R::Socket>, plan: ResetPlan) {
        let shared = self.shared.clone();
        let job = async move {
            match server::reset::<R>(&mut connection, TransactionStatus::Idle, plan).await {
                Ok(()) => Ok(connection),
                Err(fault) => {
                    shared.tell_end(&connection, told::UNCLEAN);
                    Err(fault)
                }
            }
        };
        self.slow = Some(Slow::Resetting(Some(lease), Box::pin(job)));
        self.mailbox.wake();
    }

    fn random(&self) -> [u8; 16] {
        self.shared.with_hub(|hub, _| hub.random())
    }

    pub(super) fn was_reset(
        &mut self,
        lease: Lease,
        connection: Result<ServerConnection<R::Socket>, ResetFault>,
        now: Now,
    ) {
        match connection {
            Ok(mut connection) => {
                if connection.bare.is_some()
                    && let Some(wish) = &self.wish
                {
                    // It begins as one that was opened with these parameters.
                    let reported = opening::current(&connection);
                    connection.parameters = self.shared.keep_welcome(self.terms.generation, wish, &reported).into();
                }
                self.leased(lease, connection, None, now);
            }
            Err(fault) => {
                if matches!(fault, ResetFault::Startup(_)) {
                    self.shared.with_hub(|hub, _| hub.pools.handle_unadaptable(&lease));
                }
                self.reopen(lease);
            }
        }
    }

    /// There is no server connection, if this is about what was asked for last: the session may have given up and asked again
    /// while it was on its way.
    pub(super) fn refused(&mut self, refusal: Refusal, now: Now) {
        let session = self.session.id();
        if !self.asked || self.shared.with_hub(|hub, _| hub.pools.is_served(session)) {
            return;
        }
        self.stop_asking();
        self.reply(Reply::Refused(refusal), now);
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

    /// The session has its server connection.
    pub(super) fn leased(
        &mut self,
        lease: Lease,
        mut connection: ServerConnection<R::Socket>,
        proof: Option<Authenticated>,
        now: Now,
    ) {
        if let Some(wish) = &self.wish {
            connection.settings.clone_from(&wish.settings);
        }
        self.stop_asking();
        self.gauge.leased(lease.slot().0, now.tick);
        self.target.clone_from(&connection.target);
        let parameters = connection.parameters.clone();
        let bare = connection.bare.clone();
        let mut statements = connection.statements.take();
        if let Some(statements) = &mut statements {
            // It may have been opened under other settings.
            statements.set_most(connection.settings.max_prepared_statements as usize);
        }
        if let Some(who) = &proof {
            self.gauge.card().identify(who.identity());
        }
        self.server = Some(connection);
        self.from_server.look_again();
        self.reply(Reply::Leased(Leased { lease, parameters, bare, statements, proof }), now);
        if !self.session.is_preparing() {
            self.cancellable();
        }
    }
}

//! One client's task: two sockets, one [`Session`], and the moving of bytes between them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::audit_log::Permit;
use super::card::{Card, Gauge};
use super::flow::{Inbound, Outbound};
use super::link::Link;
use super::mailbox::{Mail, Mailbox};
use super::replayed::Replayed;
use super::runtime::{Alarm, Runtime};
use super::server::{OpenFailure, ServerConnection};
use super::shared::{Shared, Unwritten};
use super::terms::Terms;
use super::told;
use crate::audit::Record;
use crate::auth::jwks::Awaited;
use crate::auth::scram::ScramKeys;
use crate::cancel::BackendTarget;
use crate::console::Found;
use crate::fault::{Lost, Refusal, SqlState};
use crate::pool::Lease;
use crate::secret::Secret;
use crate::session::{Action, Finish, Output, Reply, Session, Side, Verdict, Wish};
use crate::time::{Now, Tick};
use crate::upstream::{LoggedIn, ResetFault};

/// Rounds of reading and writing per wake-up: a flooding peer gets its turn again, but after everybody else.
const ROUNDS: usize = 16;

/// Answers of the proxy's own that a client may leave unread before nothing more is taken from it, in bytes.
const MOST_UNREAD: usize = 64 * 1024;

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

/// What the task has to do outside of the pump.
pub(super) enum Next {
    /// The client's handshake.
    StartTls,
    /// Nothing more: the client's last bytes are out, or nobody is there to read them.
    End(Finish),
}

pub(super) struct Connection<R: Runtime> {
    pub(super) shared: Arc<Shared<R>>,
    /// By which the session was let in, or has asked for server connections last.
    pub(super) terms: Arc<Terms>,
    pub(super) session: Session,
    pub(super) mailbox: Arc<Mailbox>,
    /// `None` while a handshake has it.
    pub(super) client: Option<Link<Replayed<R::Socket>>>,
    pub(super) server: Option<ServerConnection<R::Socket>>,
    pub(super) from_client: Inbound,
    pub(super) from_server: Inbound,
    /// Bytes of the server were dropped that the machine had not judged.
    dropped_unjudged: bool,
    pub(super) to_client: Outbound,
    pub(super) to_server: Outbound,
    alarm: Option<R::Alarm>,
    alarm_at: Option<Tick>,
    /// What the session wants of its pool.
    pub(super) wish: Option<Arc<Wish>>,
    /// It has asked for a connection, and has neither got one nor a refusal.
    pub(super) asked: bool,
    /// What a cancel will be aimed at, once the connection runs what is the client's own.
    pub(super) target: Option<Arc<BackendTarget>>,
    pub(super) slow: Option<Slow<R>>,
    /// A token whose key is being fetched.
    pub(super) unverified: Option<(Secret<Vec<u8>>, Awaited)>,
    /// Places in the audit trail for statements that run or are about to.
    permits: Vec<Permit>,
    start_tls: bool,
    finish: Option<Finish>,
    pub(super) gauge: Gauge,
    announced: bool,
    /// Nothing is read; the inner one is there until all is written.
    suspended: Option<Option<Unwritten>>,
    /// When it connected.
    began: Tick,
}

/// A task that ends early, by a panic or with its runtime, gives back what it holds.
impl<R: Runtime> Drop for Connection<R> {
    fn drop(&mut self) {
        if self.slow.is_some() {
            self.give_up();
        }
        if self.server.is_some() {
            let refusal = Refusal::new(SqlState::INTERNAL_ERROR, "the session's task ended early");
            let now = R::now();
            self.session.handle_kill(refusal, now);
            self.carry_out(now);
        }
    }
}

impl<R: Runtime> Connection<R> {
    pub(super) fn new(
        shared: Arc<Shared<R>>,
        terms: Arc<Terms>,
        session: Session,
        mailbox: Arc<Mailbox>,
        card: Arc<Card>,
        socket: R::Socket,
    ) -> Self {
        Self {
            shared,
            terms,
            session,
            mailbox,
            client: Some(Link::Plain(Replayed::new(socket))),
            server: None,
            from_client: Inbound::default(),
            from_server: Inbound::default(),
            dropped_unjudged: false,
            to_client: Outbound::default(),
            to_server: Outbound::default(),
            alarm: None,
            alarm_at: None,
            wish: None,
            asked: false,
            target: None,
            slow: None,
            unverified: None,
            permits: Vec::new(),
            start_tls: false,
            finish: None,
            gauge: Gauge::new(card),
            announced: false,
            suspended: None,
            began: R::now().tick,
        }
    }

    /// Moves whatever can be moved.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let now = R::now();
        let next = self.poll_at(context, now);
        if self.to_client.is_empty()
            && self.to_server.is_empty()
            && let Some(unwritten) = &mut self.suspended
        {
            *unwritten = None;
        }
        self.gauge.observe(&self.session, now);
        self.announce();
        next
    }

    /// Once it is known what the client wants, the log may tell.
    fn announce(&mut self) {
        if !self.announced && self.session.asked().is_some() {
            self.announced = true;
            if self.terms.profile.log.connections {
                told::Client::of(&self.session).attempts(self.session.encryption().as_deref());
            }
        }
    }

    fn poll_at(&mut self, context: &mut Context<'_>, now: Now) -> Poll<Next> {
        self.from_client.look_again();
        self.from_server.look_again();
        self.mailbox.register(context.waker());
        for mail in self.mailbox.take() {
            self.read(mail, now);
            // What it made the session give up must not be granted by the next one.
            self.carry_out(now);
        }
        self.poll_slow(context, now);
        for round in 0..=ROUNDS {
            self.carry_out(now);
            let moved = self.poll_client_to_server(context, now) | self.poll_server_to_client(context, now);
            self.carry_out(now);
            if let Some(next) = self.next() {
                return Poll::Ready(next);
            }
            if !moved && !self.poll_alarm(context, now) {
                return Poll::Pending;
            }
            if round == ROUNDS {
                context.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn next(&mut self) -> Option<Next> {
        if self.start_tls && self.to_client.is_empty() {
            self.start_tls = false;
            return Some(Next::StartTls);
        }
        let done = self.to_client.is_empty() || self.client.is_none();
        if self.finish.is_some() && done && !matches!(self.slow, Some(Slow::Cancelling(_))) {
            return self.finish.take().map(Next::End);
        }
        None
    }

    /// One pass over client → server: what is read is written at once. Whether anything moved.
    fn poll_client_to_server(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let Poll::Ready(mut moved) = self.poll_write_server(context) else { return false };
        moved |= self.judge(Side::Client, now);
        if self.poll_read(Side::Client, context, now) {
            moved = true;
            let _ = self.poll_write_server(context);
        }
        moved
    }

    fn poll_server_to_client(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let Poll::Ready(mut moved) = self.poll_write_client(context, now) else { return false };
        moved |= self.judge(Side::Server, now);
        if self.poll_read(Side::Server, context, now) {
            moved = true;
            let _ = self.poll_write_client(context, now);
        }
        moved
    }

    /// Whether anything moved, once all is written.
    fn poll_write_server(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Some(server) = &mut self.server else { return Poll::Ready(false) };
        let idle = self.to_server.is_empty();
        if ready!(self.to_server.poll_write(&mut server.link, &mut self.from_client, context)).is_ok() {
            return Poll::Ready(!idle);
        }
        // What the server said last is still to be read; its end shows there.
        self.to_server.drop_all();
        self.from_client.clear();
        self.from_client.closed = true;
        Poll::Ready(true)
    }

    fn poll_write_client(&mut self, context: &mut Context<'_>, now: Now) -> Poll<bool> {
        let Some(client) = &mut self.client else { return Poll::Pending };
        let idle = self.to_client.is_empty();
        if ready!(self.to_client.poll_write(client, &mut self.from_server, context)).is_ok() {
            return Poll::Ready(!idle);
        }
        self.dropped_unjudged |= self.from_server.len() != self.to_client.span();
        self.to_client.drop_all();
        self.from_server.clear();
        self.client = None;
        self.session.handle_close(Side::Client, Lost::Broken, now);
        Poll::Ready(true)
    }

    /// Shows the machine what has come from a side.
    fn judge(&mut self, side: Side, now: Now) -> bool {
        let mut moved = false;
        loop {
            let (from, to) = match side {
                Side::Client => (&mut self.from_client, &mut self.to_server),
                Side::Server => (&mut self.from_server, &mut self.to_client),
            };
            if from.is_empty() || from.waiting || !to.is_empty() || self.start_tls || self.finish.is_some() {
                return moved;
            }
            if side == Side::Client && self.to_client.own() > MOST_UNREAD {
                return moved;
            }
            let verdict = self.session.handle_input(side, from.bytes(), now);
            match verdict {
                Verdict::Wait => from.waiting = true,
                Verdict::Take(n) => {
                    from.consume(n);
                    if side == Side::Server {
                        self.from_client.waiting = false;
                    }
                }
                Verdict::Forward(_) => {}
            }
            self.carry_out(now);
            moved = true;
            if let Verdict::Forward(n) = verdict {
                self.gauge.forwarded(side == Side::Client, n);
                match side {
                    Side::Client => self.to_server.forward(n),
                    Side::Server => {
                        // Answers make room for operations that were held back.
                        self.from_client.waiting = false;
                        self.to_client.forward(n);
                    }
                }
                return true;
            }
        }
    }

    fn poll_read(&mut self, side: Side, context: &mut Context<'_>, now: Now) -> bool {
        // Who is not served yet may be on the way to the console, where a suspension ends.
        let suspended = self.suspended.is_some() && self.session.facts().is_some();
        if self.start_tls || self.finish.is_some() || !self.session.wants_input(side) || suspended {
            return false;
        }
        let result = match side {
            Side::Client => {
                let Some(link) = &mut self.client else { return false };
                if self.from_client.closed || !self.to_server.is_empty() {
                    return false;
                }
                self.from_client.poll_read(link, context)
            }
            Side::Server => {
                let Some(server) = &mut self.server else { return false };
                if self.from_server.closed || !self.to_client.is_empty() {
                    return false;
                }
                self.from_server.poll_read(&mut server.link, context)
            }
        };
        let how = match result {
            Poll::Pending => return false,
            Poll::Ready(Ok(n)) if n > 0 => {
                self.judge(side, now);
                return true;
            }
            Poll::Ready(Ok(_)) => Lost::Closed,
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Lost::Closed,
            Poll::Ready(Err(_)) => Lost::Broken,
        };
        match side {
            Side::Client => self.from_client.closed = true,
            Side::Server => self.from_server.closed = true,
        }
        self.session.handle_close(side, how, now);
        true
    }

    /// Does what the session wants done, in its order.
    fn carry_out(&mut self, now: Now) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(Side::Client, bytes) => self.to_client.push(bytes),
                Output::Send(Side::Server, bytes) => self.to_server.push(bytes),
                Output::StartTls => self.start_tls = true,
                Output::Do(action) => self.perform(action, now),
                Output::Audit(record) => {
                    if let Some(audit) = &self.shared.audit {
                        audit.offer(*record);
                    }
                }
                Output::AuditStatement(record) => self.record_statement(*record),
                Output::Finished(finish) => {
                    // Before the client hears of it: whoever looks into the log then finds it there.
                    let age = now.tick.since(self.began);
                    told::Client::of(&self.session).ended(&finish, self.terms.profile.log, age);
                    self.finish = Some(finish);
                }
            }
        }
    }

    fn read(&mut self, mail: Mail, now: Now) {
        match mail {
            Mail::Granted(lease, how) => self.granted(lease, how, now),
            Mail::Refused(refusal) => {
                self.stop_asking();
                self.reply(Reply::Refused(refusal), now);
            }
            Mail::Notice(notice) => self.reply(Reply::Waiting(notice), now),
            Mail::KeysFetched => {
                self.verify_again(now);
            }
            Mail::Cancel => {
                self.session.handle_cancel(now);
                self.from_client.waiting = false;
            }
            Mail::Drain => self.session.handle_drain(now),
            Mail::Stale => self.session.handle_stale(now),
            Mail::Kill(refusal) => self.session.handle_kill(refusal, now),
            Mail::Suspend(unwritten) => self.suspended = Some(unwritten),
            Mail::Resume => self.suspended = None,
        }
    }

    /// Tells the session something, and lets it look again at what it waited with.
    pub(super) fn reply(&mut self, reply: Reply, now: Now) {
        self.session.handle_reply(reply, now);
        self.from_client.waiting = false;
    }

    fn poll_slow(&mut self, context: &mut Context<'_>, now: Now) {
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

    /// Whether a deadline has passed and the session was told.
    fn poll_alarm(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        if matches!(self.slow, Some(Slow::Cancelling(_))) {
            // It has a limit of its own.
            return false;
        }
        let next = self.session.poll_timeout().map(|deadline| deadline.at);
        if next.is_some_and(|at| at <= now.tick) {
            self.session.handle_timeout(now);
            if self.finish.is_some() {
                // The client had its time to read its last bytes.
                self.client = None;
            }
            return true;
        }
        if next != self.alarm_at {
            self.alarm_at = next;
            if next.is_none() {
                self.alarm = None;
            } else {
                self.alarm.get_or_insert_with(R::alarm).set(next);
            }
        }
        if let Some(alarm) = &mut self.alarm
            && alarm.poll(context).is_ready()
        {
            self.alarm_at = None;
            context.waker().wake_by_ref();
        }
        false
    }

    /// The client's socket for its handshake, and what was read of it already.
    pub(super) fn take_client_for_tls(&mut self) -> Option<Replayed<R::Socket>> {
        match self.client.take() {
            Some(Link::Plain(mut socket)) => {
                socket.replay(self.from_client.take_rest());
                Some(socket)
            }
            encrypted => {
                self.client = encrypted;
                None
            }
        }
    }

    /// Takes the server connection away. Bytes half written to it, or read from it and never looked at, mean that
    /// its state is not known.
    pub(super) fn take_server(&mut self) -> (Option<ServerConnection<R::Socket>>, bool) {
        let judged = !self.dropped_unjudged && self.from_server.len() == self.to_client.span();
        let certain = judged && self.to_server.is_empty();
        self.to_server.drop_all();
        self.from_client.clear();
        (self.server.take(), certain)
    }

    /// The same between two transactions. What was read from the server has been judged, and goes to the client behind this.
    pub(super) fn take_server_between(&mut self) -> (Option<ServerConnection<R::Socket>>, bool) {
        let certain = !self.dropped_unjudged && self.to_server.is_empty() && !self.from_server.closed;
        (self.server.take(), certain)
    }

    /// Sets a place in the audit trail aside for a statement.
    fn reserve(&mut self) -> bool {
        let Some(audit) = &self.shared.audit else { return false };
        match audit.try_reserve() {
            Ok(permit) => {
                self.permits.push(permit);
                true
            }
            Err(down) => {
                log::warn!("session {}: a statement is refused: {down}", self.session.id());
                false
            }
        }
    }

    /// Where the trail is required, the statement has its place already; elsewhere it takes what is free.
    fn record_statement(&mut self, record: Record) {
        match (self.permits.pop(), &self.shared.audit) {
            (Some(permit), _) => drop(permit.record(record)),
            (None, Some(audit)) => drop(audit.offer(record)),
            (None, None) => {}
        }
    }

    pub(super) fn perform(&mut self, action: Action, now: Now) {
        match action {
            Action::Verify(token) => self.verify(token, now),
            Action::Nonce => {
                let nonce = self.shared.with_hub(|hub, _| hub.random());
                self.reply(Reply::Nonce(nonce), now);
            }
            Action::Derive(derivation) => {
                self.slow = Some(Slow::Deriving(Box::pin(R::blocking(move || derivation.run()))));
                // It is polled for the first time with this task's next wake-up.
                self.mailbox.wake();
            }
            Action::Lease(wish) => self.request(wish, now),
            Action::LookUp(wish) => self.look_up(wish, now),
            Action::Enroll { wide_key } => self.enroll(wide_key, now),
            Action::Console(errand) => self.console(errand, now),
            Action::Borrow => self.borrow(now),
            Action::Cancellable => self.cancellable(),
            Action::GiveUp => self.give_up(),
            Action::Reserve => {
                let granted = self.reserve();
                self.reply(Reply::Reserved(granted), now);
            }
            Action::Unreserve(places) => self.permits.truncate(self.permits.len().saturating_sub(places as usize)),
            Action::Release(back) => self.give_back(back),
            Action::Cancel { pid, key } => self.pass_on_cancel(pid, &key),
        }
    }
}

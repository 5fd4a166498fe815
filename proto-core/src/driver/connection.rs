//! One client's task: two sockets, one [`Session`], and the moving of bytes between them.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::audit_log::Permit;
use super::card::{Card, Gauge};
use super::flow::{Inbound, Outbound};
use super::link::Link;
use super::mailbox::{Mail, Mailbox};
use super::replayed::Replayed;
use super::runtime::{Alarm, Runtime};
use super::server::ServerConnection;
use super::shared::{Shared, Unwritten};
use super::slow::Slow;
use super::terms::Terms;
use super::told;
use crate::audit::Record;
use crate::auth::jwks::Awaited;
use crate::cancel::BackendTarget;
use crate::fault::{Refusal, SqlState};
use crate::secret::Secret;
use crate::session::{Action, Finish, Output, Reply, Session, Side, Wish};
use crate::time::{Now, Tick};

/// Rounds of reading and writing per wake-up: a flooding peer gets its turn again, but after everybody else.
const ROUNDS: usize = 16;

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
    pub(super) dropped_unjudged: bool,
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
    pub(super) start_tls: bool,
    pub(super) finish: Option<Finish>,
    pub(super) gauge: Gauge,
    announced: bool,
    /// Nothing is read; the inner one is there until all is written.
    pub(super) suspended: Option<Option<Unwritten>>,
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

    /// Does what the session wants done, in its order.
    pub(super) fn carry_out(&mut self, now: Now) {
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
            Mail::Refused(refusal) => self.refused(refusal, now),
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
                self.slow = Some(Slow::Deriving(Box::pin(self.shared.derive(derivation))));
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

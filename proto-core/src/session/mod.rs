//! One client's session, from its first byte to its last.
//!
//! ```text
//!  Opening ──startup──▶ Proving ──proof──▶ Leasing ──lease──▶ Relaying ──▶ Closing
//!     │ SSLRequest, TLS     │ ▲ token → Verify  │ wait for a        │ bytes pass
//!     │ CancelRequest       │ │ Looking: who?   │ server connection │
//!     └──────────── a refusal at any point: ErrorResponse, Closing ┘
//! ```
//! The contract: show it what a side has sent with [`Session::handle_input`] and do with the front of those bytes
//! what the [`Verdict`] says; carry out what [`Session::poll_output`] gives, in order, before the bytes that the
//! verdict forwards; answer every [`Action`] with [`Session::handle_reply`]; call [`Session::handle_timeout`] when
//! [`Session::poll_timeout`] has passed. Any call order is legal; late and repeated replies are ignored.

mod about;
mod actions;
mod clocks;
mod console;
mod ending;
mod gating;
mod leasing;
mod looking;
mod opening;
mod pooling;
mod profile;
mod proving;
mod relaying;
mod renewing;
mod standing;
mod startup;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::audit::{Event, Record, Refused, SessionFacts, Sheet, Tls};
use crate::auth::Authenticated;
use crate::codec::backend::{Severity, emit_error};
use crate::fault::{Refusal, SqlState, Violation};
use crate::preamble::Startup;
use crate::relay::Step;
use crate::relay::pins::Pin;
use crate::session_id::SessionId;
use crate::time::{Deadline, Now, Tick, Timer, earliest};

pub use about::{About, Progress};
pub use actions::{Action, Credential, Finish, Leased, Output, Reply, Return, ReturnState, Wish};
use console::Consoling;
#[cfg(feature = "driver")]
pub(crate) use ending::shutting_down;
use leasing::Leasing;
use looking::Looking;
use opening::Open;
#[cfg(feature = "driver")]
pub(crate) use pooling::canonical;
pub use profile::{Encryption, Peer, Profile};
use proving::Proving;
use relaying::Relaying;

/// How long a client may take to read its last bytes.
const CLOSING_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// The two peers of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The person's program (the protocol's "frontend").
    Client,
    /// PostgreSQL (the protocol's "backend").
    Server,
}

impl Side {
    /// The one across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What to do with the front of the bytes just shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// These go to the other side as they are.
    Forward(usize),
    /// These are the machine's; drop them.
    Take(usize),
    /// Nothing yet: show the same front again with more behind it, or after the next reply.
    Wait,
}

enum Phase {
    Opening(Open),
    Proving(Box<Proving>),
    Looking(Box<Looking>),
    Leasing(Box<Leasing>),
    Relaying(Box<Relaying>),
    Console(Box<Consoling>),
    Closing(Tick),
}

/// One client's session.
pub struct Session {
    id: SessionId,
    profile: Arc<Profile>,
    peer: Peer,
    tls: Option<Encryption>,
    phase: Phase,
    out: VecDeque<Output>,
    login_until: Tick,
    /// The user and the database of its startup packet.
    asked: Option<(Arc<str>, Arc<str>)>,
    /// There are too many clients: what this one is told when it asks for a session.
    crowded: Option<Box<Refusal>>,
    /// How far it had come when it ended.
    last: Option<Box<Progress>>,
}

impl Session {
    /// A session for a client that has just connected.
    #[must_use]
    pub fn new(id: SessionId, profile: Arc<Profile>, peer: Peer, now: Now) -> Self {
        let login_until = now.tick.after(profile.limits.client_login_timeout);
        let phase = Phase::Opening(Open::default());
        Self {
            id,
            profile,
            peer,
            tls: None,
            phase,
            out: VecDeque::new(),
            login_until,
            asked: None,
            crowded: None,
            last: None,
        }
    }

    /// There are too many clients: this one may cancel, and is refused when it asks for a session.
    pub fn handle_crowd(&mut self, refusal: Refusal) {
        self.crowded = Some(Box::new(refusal));
    }

    /// Its number in logs and audit records.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The user and the database that the client has asked for, which says nothing about who it is.
    #[must_use]
    pub fn asked(&self) -> Option<(&str, &str)> {
        self.asked.as_ref().map(|(user, database)| (&**user, &**database))
    }

    /// What was known of the client before it said anything.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// How it is encrypted, in words.
    #[must_use]
    pub fn encryption(&self) -> Option<Arc<str>> {
        self.tls.as_ref().map(|tls| format!("{}/{}", tls.version, tls.cipher).into())
    }

    /// What the client is told to be connected to, once it is.
    #[must_use]
    pub fn facts(&self) -> Option<&Arc<SessionFacts>> {
        match &self.phase {
            Phase::Relaying(relaying) => Some(&relaying.facts),
            _ => None,
        }
    }

    /// Whether more bytes of that side can be made use of.
    #[must_use]
    pub const fn wants_input(&self, from: Side) -> bool {
        match (&self.phase, from) {
            (Phase::Closing(_), _) => false,
            (Phase::Relaying(_) | Phase::Looking(_), _) | (_, Side::Client) => true,
            (_, Side::Server) => false,
        }
    }

    /// Whether it is at the admin console.
    #[must_use]
    pub const fn is_at_console(&self) -> bool {
        matches!(self.phase, Phase::Console(_))
    }

    /// What ties the session to its server connection between transactions, in a word.
    #[must_use]
    pub fn pinned(&self) -> Option<&'static str> {
        match &self.phase {
            Phase::Relaying(relaying) if relaying.has_server() => relaying.relay.pins().iter().next().map(Pin::word),
            _ => None,
        }
    }

    /// How often the session has begun to keep its server connection between transactions.
    #[must_use]
    pub const fn times_pinned(&self) -> u32 {
        match &self.phase {
            Phase::Relaying(relaying) => relaying.times_held,
            _ => 0,
        }
    }

    /// Whether its server connection is first brought to its parameters: until [`Action::Cancellable`], a cancel is not for
    /// what runs there.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        matches!(&self.phase, Phase::Relaying(relaying) if relaying.relay.is_preparing())
    }

    /// Bytes at the front of what a side has sent.
    pub fn handle_input(&mut self, from: Side, bytes: &[u8], now: Now) -> Verdict {
        let verdict = self.judge(from, bytes, now);
        if let Phase::Relaying(relaying) = &mut self.phase
            && relaying.clocks.is_some()
        {
            relaying.keep_time(from == Side::Client && verdict != Verdict::Wait, now);
        }
        verdict
    }

    fn judge(&mut self, from: Side, bytes: &[u8], now: Now) -> Verdict {
        while let Phase::Relaying(relaying) = &mut self.phase {
            let step = match from {
                Side::Client if relaying.is_reserving() => return Verdict::Wait,
                Side::Client if !relaying.has_server() => return self.borrow(bytes, now),
                Side::Client => relaying.relay.handle_client(bytes, now),
                Side::Server => relaying.relay.handle_server(bytes, now),
            };
            match step {
                Step::SayServer(own) => self.out.push_back(Output::Send(Side::Server, own)),
                Step::SayClient(own) => {
                    self.record_outcomes();
                    self.send(own);
                }
                Step::Instead(n, own) => {
                    self.record_outcomes();
                    self.send(own);
                    self.heard(n == bytes.len());
                    self.answered();
                    return Verdict::Take(n);
                }
                step => return self.relay_step(from, step, bytes, now),
            }
        }
        if bytes.is_empty() {
            return Verdict::Wait;
        }
        match (&self.phase, from) {
            (Phase::Opening(_), Side::Client) => self.opening_input(bytes, now),
            (Phase::Proving(_), Side::Client) => self.proving_input(bytes, now),
            (Phase::Looking(_), Side::Server) => self.looking_input(bytes, now),
            (Phase::Leasing(_) | Phase::Looking(_), Side::Client) => Verdict::Wait,
            (Phase::Console(_), Side::Client) => self.console_input(bytes, now),
            _ => Verdict::Take(bytes.len()),
        }
    }

    /// The client's TLS is established: how, in words, and the ALPN protocol that was agreed on.
    pub fn handle_tls(&mut self, encryption: Encryption, alpn: Option<&[u8]>, now: Now) {
        self.tls = Some(encryption);
        self.opening_encrypted(alpn, now);
    }

    /// The answer to an action. One that does not fit the phase is late and changes nothing, but for a lease, which
    /// goes back at once.
    pub fn handle_reply(&mut self, reply: Reply, now: Now) {
        match reply {
            Reply::Verified(verdict) => self.proving_verified(verdict, now),
            Reply::Nonce(nonce) => self.gate_nonce(nonce, now),
            Reply::Derived(keys) => self.gate_derived(keys, now),
            Reply::Enrolled(key) if self.is_at_console() => self.console_enrolled(&key, now),
            Reply::Enrolled(key) => self.leasing_enrolled(key),
            Reply::Welcome(reported) => self.leasing_welcome(reported, now),
            Reply::Leased(leased) => self.leased(leased, now),
            Reply::Refused(refusal) if self.is_at_console() => self.console_killed(refusal, now),
            Reply::Refused(refusal) => self.leasing_refused(refusal, now),
            Reply::RefusedByServer(message, refusal) => self.leasing_refused_by_server(message, refusal, now),
            Reply::Waiting(notice) => self.leasing_waiting(&notice),
            Reply::Reserved(granted) if self.is_at_console() => self.console_reserved(granted, now),
            Reply::Reserved(granted) => self.relaying_reserved(granted),
            Reply::Console(found) => self.console_found(found, now),
        }
    }

    /// Time has passed. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        match &self.phase {
            Phase::Opening(open) if now.tick >= self.login_until => {
                if open.is_untouched() {
                    self.finish(Finish::Untouched, now);
                } else {
                    self.refuse(login_timed_out(), now);
                }
            }
            Phase::Proving(_) | Phase::Looking(_) if now.tick >= self.login_until => {
                self.stop_looking();
                self.refuse(login_timed_out(), now);
            }
            Phase::Looking(_) => self.looking_timed_out(now),
            Phase::Leasing(_) => self.leasing_timed_out(now),
            Phase::Relaying(_) => {
                self.answer_due(now);
                self.leave_if_forwarded();
                self.end_if_over(now);
                self.end_if_timed_out(now);
            }
            _ => {}
        }
    }

    /// When [`Session::handle_timeout`] will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Opening(_) | Phase::Proving(_) => Some(Deadline { at: self.login_until, why: Timer::ClientLogin }),
            Phase::Looking(looking) => {
                let login = Deadline { at: self.login_until, why: Timer::ClientLogin };
                earliest(looking.poll_timeout(), Some(login))
            }
            Phase::Closing(until) => Some(Deadline { at: *until, why: Timer::Closing }),
            Phase::Leasing(leasing) => leasing.poll_timeout(self.login_until),
            // What was just judged is forwarded first; the farewell follows at the next wake-up, which is now.
            Phase::Relaying(relaying) if relaying.is_over() || relaying.has_something_to_say() => {
                Some(Deadline { at: Tick::default(), why: Timer::Drain })
            }
            Phase::Relaying(relaying) => relaying.clocks.as_ref().and_then(|clocks| clocks.poll_timeout()),
            Phase::Console(_) => None,
        }
    }

    /// The next thing to do. Nothing comes after [`Output::Finished`].
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn send(&mut self, bytes: Vec<u8>) {
        self.out.push_back(Output::Send(Side::Client, bytes));
    }

    fn write(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        emit(&mut bytes);
        self.send(bytes);
    }

    /// Tells the client why it cannot go on, and ends.
    fn refuse(&mut self, refusal: Refusal, now: Now) {
        self.write(|out| emit_error(out, Severity::Fatal, &refusal));
        self.note_refusal(&refusal, now);
        self.finish(Finish::Refused(refusal), now);
    }

    fn violate(&mut self, violation: Violation, now: Now) {
        self.write(|out| emit_error(out, Severity::Fatal, &violation.into()));
        self.finish(Finish::Broken(Side::Client, violation), now);
    }

    fn finish(&mut self, finish: Finish, now: Now) {
        self.out.push_back(Output::Finished(finish));
        self.phase = Phase::Closing(now.tick.after(CLOSING_TIME));
    }

    /// A refusal is written down once it is known what was wanted.
    fn note_refusal(&mut self, refusal: &Refusal, now: Now) {
        if self.profile.audit.is_none() {
            return;
        }
        let (startup, who) = match &self.phase {
            Phase::Proving(proving) => (&proving.startup, None),
            Phase::Leasing(leasing) => (&leasing.startup, leasing.who.as_ref()),
            _ => return,
        };
        let facts = self.facts_of(startup, who, None);
        let refused = Refused { refusal: refusal.clone(), claimed_user: Some(startup.user.as_bytes().into()) };
        let event = Event::Refusal(Box::new(refused));
        self.out.push_back(Output::Audit(Box::new(Record { time: now.unix, facts, event })));
    }

    fn facts_of(&self, startup: &Startup, who: Option<&Authenticated>, account: Option<&str>) -> Arc<SessionFacts> {
        let sheet = Sheet {
            who,
            account,
            database: Some(startup.database.as_bytes()),
            client_addr: Some(&self.peer.address),
            application: startup.application.as_deref().map(str::as_bytes),
            tls: self.tls.as_ref().map(|tls| Tls { version: &tls.version, cipher: &tls.cipher }),
        };
        Arc::new(SessionFacts::new(self.id, &sheet))
    }
}

fn login_timed_out() -> Refusal {
    Refusal::new(SqlState::INVALID_AUTHORIZATION, "the login was not finished in time")
        .hint("Connect again; the limit is client_login_timeout.")
}

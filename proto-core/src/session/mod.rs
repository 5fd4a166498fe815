//! One client's session, from its first byte to its last.
//!
//! ```text
//!  Opening ──startup──▶ Proving ──proof──▶ Leasing ──lease──▶ Relaying ──▶ Closing
//!     │ SSLRequest, TLS     │ token → Verify    │ wait for a        │ bytes pass
//!     │ CancelRequest ──▶ Cancelling            │ server connection │
//!     └──────────── a refusal at any point: ErrorResponse, Closing ┘
//! ```
//! The contract: show it what a side has sent with [`Session::handle_input`] and do with the front of those bytes
//! what the [`Verdict`] says; carry out what [`Session::poll_output`] gives, in order, before the bytes that the
//! verdict forwards; answer every [`Action`] with [`Session::handle_reply`]; call [`Session::handle_timeout`] when
//! [`Session::poll_timeout`] has passed. Any call order is legal; late and repeated replies are ignored.

mod gating;
mod leasing;
mod opening;
mod pooling;
mod proving;
mod relaying;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::audit::{AuditProfile, Event, Record, Refused, SessionFacts, Sheet, Tls};
use crate::auth::Authenticated;
use crate::auth::gate::Gate;
use crate::auth::roles::RoleMap;
use crate::auth::scram::{Derivation, NONCE_LEN, ScramKeys};
use crate::cancel::CancelKey;
use crate::codec::backend::{Severity, TransactionStatus, emit_error};
use crate::fault::{Lost, Refusal, SqlState, Violation};
use crate::policy::{AllowPlaintext, Database, Databases, Limits};
use crate::pool::{Lease, Owner, PoolKey, PoolMode, Request};
use crate::preamble::Startup;
use crate::relay::{OnServer, Step};
use crate::secret::Secret;
use crate::session_id::SessionId;
use crate::time::{Deadline, Now, Tick, Timer};
use crate::upstream::{self, LoginSettings, Parameters, Reported};

use leasing::Leasing;
use opening::Open;
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

/// What every session of a process has in common.
pub struct Profile {
    /// Whether clients can have TLS.
    pub tls: bool,
    /// Where secrets may travel in clear.
    pub allow_plaintext: AllowPlaintext,
    /// Who is let in by another proof than a token; `None`: tokens count, and what `password_fallback` says.
    pub gate: Option<Arc<Gate>>,
    /// Whether a password that is no token may be checked by PostgreSQL itself.
    pub password_fallback: bool,
    /// Which role runs as which account.
    pub roles: RoleMap,
    /// Where the databases are.
    pub databases: Databases,
    /// Bounds.
    pub limits: Limits,
    /// Whether statements are written down, and how strictly.
    pub audit: Option<AuditProfile>,
}

impl Default for Profile {
    /// The narrowest one: no TLS, secrets in clear from this machine only, no roles, no databases, so that nobody gets in;
    /// the usual limits, and no audit trail.
    fn default() -> Self {
        Self {
            tls: false,
            allow_plaintext: AllowPlaintext::default(),
            gate: None,
            password_fallback: false,
            roles: RoleMap::default(),
            databases: Databases::default(),
            limits: Limits::default(),
            audit: None,
        }
    }
}

/// What is known of a client before it says anything.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port, or `unix`.
    pub address: Arc<str>,
    /// Loopback or a Unix socket.
    pub is_local: bool,
}

/// How a client's connection is encrypted, in PostgreSQL's words (`pg_stat_ssl`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    /// `TLSv1.3`, ...
    pub version: Arc<str>,
    /// `TLS_AES_256_GCM_SHA384`, ...
    pub cipher: Arc<str>,
}

/// What the machine wants to happen, in this order.
#[must_use]
#[non_exhaustive]
pub enum Output {
    /// These bytes go to that side, behind everything sent there before.
    Send(Side, Vec<u8>),
    /// The client's side is encrypted from here on; [`Session::handle_tls`] when it is.
    StartTls,
    /// A slow or outside decision.
    Do(Action),
    /// One line for the audit trail.
    Audit(Box<Record>),
    /// The line of a statement that was run: in a required trail it has the place that was set aside for it.
    AuditStatement(Box<Record>),
    /// Nothing comes after this: flush and close the client.
    Finished(Finish),
}

/// A decision or deed that is not the session's own; each but `Release`, `Cancel`, `GiveUp` and `Unreserve` is answered by a
/// [`Reply`].
#[must_use]
#[non_exhaustive]
pub enum Action {
    /// Is this token good? Answer: [`Reply::Verified`].
    Verify(Secret<Vec<u8>>),
    /// Fresh random bytes: [`Reply::Nonce`].
    Nonce,
    /// Run this where blocking is allowed: [`Reply::Derived`].
    Derive(Derivation),
    /// A cancel key first ([`Reply::Enrolled`]), then a server connection ([`Reply::Leased`]).
    Lease(Box<Wish>),
    /// The wish is withdrawn.
    GiveUp,
    /// A server connection for the next transaction, under the wish of before: [`Reply::Leased`] or a refusal.
    Borrow,
    /// What runs on the server connection is the client's own from here on, and may be cancelled.
    Cancellable,
    /// A place for the record of a statement: [`Reply::Reserved`].
    Reserve,
    /// So many places for records are not needed after all.
    Unreserve(u32),
    /// The server connection goes back.
    Release(Return),
    /// Cancel what the owner of this key runs.
    Cancel {
        /// From the CancelRequest.
        pid: u32,
        /// From the CancelRequest.
        key: Box<[u8]>,
    },
}

/// The server connection that a session needs.
#[non_exhaustive]
pub struct Wish {
    /// The PostgreSQL role that runs the session.
    pub account: Arc<str>,
    /// Its password; for a person's own password nothing is cached or pooled.
    pub credential: Credential,
    /// The database as the client names it.
    pub database: Arc<str>,
    /// Where that is.
    pub target: Arc<Database>,
    /// Startup parameters for the server, encoded.
    pub parameters: Arc<[u8]>,
    /// When the connection goes back.
    pub mode: PoolMode,
    /// Whose state it may hold then.
    pub owner: Owner,
    /// Whether the client can be given a cancel key of more than four bytes.
    pub wide_key: bool,
}

impl Wish {
    /// What to ask [`crate::pool::Pools`] for.
    #[must_use]
    pub fn request(&self, session: SessionId) -> Request {
        let key = self.pool();
        Request {
            session,
            parameters: self.parameters.clone(),
            owner: self.owner.clone(),
            reuse: self.credential.may_be_shared(),
            settings: self.target.pool.clone(),
            key,
        }
    }

    /// The pool that it is about.
    #[must_use]
    pub fn pool(&self) -> PoolKey {
        let own_password = matches!(self.credential, Credential::Own(_));
        PoolKey { account: self.account.clone(), database: self.database.clone(), own_password }
    }

    /// How to log in to the server, once there is a socket and a fresh random nonce. TLS goes by the target's `sslmode`:
    /// who has none, or stands at a Unix socket, clears `tls_possible`. For [`Credential::Provided`] the credential is still
    /// to be put in.
    #[must_use]
    pub fn login_settings(&self, nonce: [u8; NONCE_LEN]) -> LoginSettings {
        let credential = match &self.credential {
            Credential::Own(password) => upstream::Credential::of(Some(password.clone())),
            Credential::Account(account) => upstream::Credential::of(account.password.clone()),
            Credential::Passed(credential) => credential.clone(),
            Credential::Provided => upstream::Credential::None,
        };
        LoginSettings {
            user: self.account.clone(),
            database: self.target.dbname.clone().unwrap_or_else(|| self.database.clone()),
            parameters: self.parameters.clone(),
            credential,
            sslmode: self.target.sslmode,
            tls_possible: true,
            nonce,
            timeout: self.target.connect_timeout,
        }
    }
}

/// What the proxy shows to the server.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// That of a mapped account.
    Account(Arc<crate::policy::Account>),
    /// A person's own, which PostgreSQL itself must check.
    Own(Arc<Secret<Vec<u8>>>),
    /// What somebody's login at the proxy's own gate left for an account of the same name.
    Passed(upstream::Credential),
    /// One that the driver asks its source of tokens for, anew for each server connection; that serves one session.
    Provided,
}

impl Credential {
    /// Whether server connections that were opened with it may serve one session after the other.
    #[must_use]
    pub const fn may_be_shared(&self) -> bool {
        match self {
            Self::Account(_) | Self::Passed(_) => true,
            Self::Own(_) | Self::Provided => false,
        }
    }
}

/// A server connection on its way back.
#[non_exhaustive]
pub struct Return {
    /// Whose it was.
    pub lease: Lease,
    /// In which state.
    pub state: ReturnState,
    /// Parameters that the session changed, as the server reported them.
    pub changed: Parameters,
    /// Which statements are prepared there, where that matters.
    pub statements: Option<Box<OnServer>>,
}

/// The state of a server connection that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReturnState {
    /// Between messages, nothing owed: it can be reset and used again.
    Quiet {
        /// An open or failed transaction block needs a ROLLBACK.
        status: TransactionStatus,
        /// Whether anything was ever sent on it.
        touched: bool,
    },
    /// Between transactions, nothing owed: as it is, it serves the same owner again.
    Between,
    /// The same, but it may have other prepared statements than are known: it serves nobody before it is reset.
    InDoubt,
    /// A statement may still run: it is cancelled, and the connection closed.
    Busy,
    /// The server is gone or its protocol state is not certain: it is closed.
    Broken,
}

/// The answer to an [`Action`].
#[non_exhaustive]
pub enum Reply {
    /// To [`Action::Verify`].
    Verified(Result<Authenticated, Refusal>),
    /// To [`Action::Nonce`].
    Nonce([u8; NONCE_LEN]),
    /// To [`Action::Derive`].
    Derived(ScramKeys),
    /// To [`Action::Lease`], at once.
    Enrolled(CancelKey),
    /// To [`Action::Lease`] of a pool whose connections come back after each transaction, before one is there: what its
    /// servers say of themselves.
    Welcome(Reported),
    /// To [`Action::Lease`] and [`Action::Borrow`], when a server connection is there.
    Leased(Leased),
    /// To [`Action::Lease`], when there will be none.
    Refused(Refusal),
    /// To [`Action::Lease`], when the server refused: its ErrorResponse, and what it says.
    RefusedByServer(Box<[u8]>, Refusal),
    /// While [`Action::Lease`] is waiting: something to tell the person.
    Waiting(Refusal),
    /// To [`Action::Reserve`].
    Reserved(bool),
}

/// A server connection for this session alone.
pub struct Leased {
    /// The right to use it.
    pub lease: Lease,
    /// What the server says of itself.
    pub parameters: Reported,
    /// Which statements are prepared there, where that matters.
    pub statements: Option<Box<OnServer>>,
    /// The proof, where the server's own login is one.
    pub proof: Option<Authenticated>,
}

impl Leased {
    /// A connection whose prepared statements nobody else shares.
    #[must_use]
    pub fn new(lease: Lease, parameters: Parameters, proof: Option<Authenticated>) -> Self {
        Self { lease, parameters: parameters.into(), statements: None, proof }
    }
}

/// How a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finish {
    /// The client left before it said what it wants.
    Untouched,
    /// A cancel request was passed on.
    Cancel,
    /// The client left in order.
    Terminated,
    /// The transport of one side was lost.
    Lost(Side, Lost),
    /// One side broke the protocol.
    Broken(Side, Violation),
    /// Policy, pool or server said no.
    Refused(Refusal),
    /// The process is being stopped.
    Drained,
}

enum Phase {
    Opening(Open),
    Proving(Box<Proving>),
    Leasing(Box<Leasing>),
    Relaying(Box<Relaying>),
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
    /// There are too many clients: what this one is told when it asks for a session.
    crowded: Option<Box<Refusal>>,
}

impl Session {
    /// A session for a client that has just connected.
    #[must_use]
    pub fn new(id: SessionId, profile: Arc<Profile>, peer: Peer, now: Now) -> Self {
        let login_until = now.tick.after(profile.limits.client_login_timeout);
        let phase = Phase::Opening(Open::default());
        Self { id, profile, peer, tls: None, phase, out: VecDeque::new(), login_until, crowded: None }
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
            (Phase::Relaying(_), _) | (_, Side::Client) => true,
            (_, Side::Server) => false,
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
                step => return self.relay_step(from, step, bytes, now),
            }
        }
        if bytes.is_empty() {
            return Verdict::Wait;
        }
        match (&self.phase, from) {
            (Phase::Opening(_), Side::Client) => self.opening_input(bytes, now),
            (Phase::Proving(_), Side::Client) => self.proving_input(bytes, now),
            (Phase::Leasing(_), Side::Client) => Verdict::Wait,
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
            Reply::Enrolled(key) => self.leasing_enrolled(key),
            Reply::Welcome(reported) => self.leasing_welcome(reported, now),
            Reply::Leased(leased) => self.leased(leased, now),
            Reply::Refused(refusal) => self.leasing_refused(refusal, now),
            Reply::RefusedByServer(message, refusal) => self.leasing_refused_by_server(message, refusal, now),
            Reply::Waiting(notice) => self.leasing_waiting(&notice),
            Reply::Reserved(granted) => self.relaying_reserved(granted),
        }
    }

    /// A side has closed or failed.
    pub fn handle_close(&mut self, side: Side, how: Lost, now: Now) {
        match (&mut self.phase, side) {
            (Phase::Opening(open), _) => {
                let untouched = open.is_untouched();
                self.finish(if untouched { Finish::Untouched } else { Finish::Lost(side, how) }, now);
            }
            (Phase::Proving(_), _) => self.finish(Finish::Lost(side, how), now),
            (Phase::Leasing(_), Side::Client) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.finish(Finish::Lost(side, how), now);
            }
            (Phase::Relaying(_), _) => self.relaying_closed(side, how, now),
            (Phase::Leasing(_), Side::Server) | (Phase::Closing(_), _) => {}
        }
    }

    /// The process is being stopped: what runs may end, nothing new begins.
    pub fn handle_drain(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Relaying(relaying) => {
                relaying.draining = true;
                self.end_if_over(now);
            }
            Phase::Closing(_) => {}
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(shutting_down(), now);
            }
            // In the middle of a TLS handshake nothing can be said.
            Phase::Opening(open) if open.is_untouched() || open.in_handshake() => self.finish(Finish::Drained, now),
            Phase::Opening(_) | Phase::Proving(_) => self.refuse(shutting_down(), now),
        }
    }

    /// Its own cancel key was used. While it waits for a server connection there is nothing to cancel but the wait.
    pub fn handle_cancel(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(wait_cancelled(), now);
            }
            Phase::Relaying(relaying) if relaying.is_waiting() => {
                relaying.handle_cancel();
                self.out.push_back(Output::Do(Action::GiveUp));
            }
            _ => {}
        }
    }

    /// The session ends now, whatever it does: the drain's limit has passed, or somebody with the right to said so.
    pub fn handle_kill(&mut self, refusal: Refusal, now: Now) {
        match &self.phase {
            Phase::Relaying(_) => self.relaying_killed(refusal, now),
            Phase::Closing(_) => {}
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(refusal, now);
            }
            Phase::Opening(_) | Phase::Proving(_) => self.refuse(refusal, now),
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
            Phase::Proving(_) if now.tick >= self.login_until => self.refuse(login_timed_out(), now),
            Phase::Leasing(leasing) if leasing.who.is_none() && now.tick >= self.login_until => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(login_timed_out(), now);
            }
            Phase::Relaying(_) => {
                self.answer_due(now);
                self.end_if_over(now);
            }
            _ => {}
        }
    }

    /// When [`Session::handle_timeout`] will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Opening(_) | Phase::Proving(_) => Some(Deadline { at: self.login_until, why: Timer::ClientLogin }),
            Phase::Closing(until) => Some(Deadline { at: *until, why: Timer::Closing }),
            // Who waits without a proof waits on the login's time.
            Phase::Leasing(leasing) if leasing.who.is_none() => {
                Some(Deadline { at: self.login_until, why: Timer::ClientLogin })
            }
            // What was just judged is forwarded first; the farewell follows at the next wake-up, which is now.
            Phase::Relaying(relaying) if relaying.is_over() || relaying.has_something_to_say() => {
                Some(Deadline { at: Tick::default(), why: Timer::Drain })
            }
            Phase::Leasing(_) | Phase::Relaying(_) => None,
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

fn wait_cancelled() -> Refusal {
    let words = "canceling the wait for a server connection due to user request";
    Refusal::new(SqlState::QUERY_CANCELED, words)
}

fn login_timed_out() -> Refusal {
    Refusal::new(SqlState::INVALID_AUTHORIZATION, "the login was not finished in time")
        .hint("Connect again; the limit is client_login_timeout.")
}

fn shutting_down() -> Refusal {
    Refusal::new(SqlState::CANNOT_CONNECT_NOW, "gprxy is shutting down").hint("Try again in a moment.")
}

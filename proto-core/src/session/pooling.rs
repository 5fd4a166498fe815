//! Sessions whose server connection comes for a transaction and goes with it.
//!
//! ```text
//!            the client says something          the pool
//!   away ───────── Action::Borrow ─────▶ asked ── Reply::Leased ──▶ leased
//!    ▲                                                                │
//!    └── Action::Release, Between: ReadyForQuery, status idle, ───────┘
//!        nothing owed, nothing pinned
//! ```
//! What the server reports of a session (time zone, encoding, ...) goes with it: see [`crate::upstream::Reported`]. What
//! cannot go with it pins it to its connection: see [`crate::relay::pins`].

use std::sync::Arc;

use crate::auth::{Authenticated, Identity};
use crate::codec::Header;
use crate::codec::backend::{Severity, TransactionStatus, emit_error, emit_ready_for_query};
use crate::codec::frontend::tag;
use crate::codec::startup;
use crate::fault::{Refusal, SqlState};
use crate::pool::{Isolation, Owner, PoolMode, PoolSettings};
use crate::preamble::Startup;
use crate::relay::pins::Pins;
use crate::relay::shows_enough;
use crate::time::Now;
use crate::upstream::Reported;

use super::ending::wait_cancelled;
use super::relaying::{Cancelled, Pinned, Server};
use super::{Action, Credential, Leased, Output, Phase, Return, ReturnState, Session, Side, Verdict};

/// The longest name of an application that PostgreSQL keeps (`NAMEDATALEN - 1`).
const MAX_APPLICATION_NAME: usize = 63;
const APPLICATION_NAME: &[u8] = b"application_name";

/// How a session uses its pool: when connections go back, whose state they hold then, and what they are opened with.
///
/// Somebody whose connections nobody else may have keeps the one that there is. The name of the application differs
/// from client to client and follows its session, so that clients share connections which differ in nothing else.
pub(super) fn terms(
    startup: &Startup,
    who: Option<&Authenticated>,
    credential: &Credential,
    settings: &PoolSettings,
) -> (PoolMode, Owner, Arc<[u8]>) {
    let who = who.filter(|_| credential.may_be_shared());
    let (Some(who), PoolMode::Transaction | PoolMode::Statement) = (who, settings.pool_mode) else {
        return (PoolMode::Session, None, startup.parameters.clone());
    };
    (settings.pool_mode, owner(who.identity(), settings.isolation), without_application(startup))
}

/// Whose state a connection holds that this identity has used. Those who trust each other are one owner, the empty one: what
/// they leave behind is theirs, and not what a session of another mode may find.
pub(super) fn owner(identity: &Identity, isolation: Isolation) -> Owner {
    Some(match isolation {
        Isolation::PgBouncer => "".into(),
        Isolation::Identity => canonical(identity),
    })
}

/// One spelling for each identity. No issuer contains a zero byte: it is part of a URL.
pub(crate) fn canonical(identity: &Identity) -> Arc<str> {
    format!("{}\0{}", identity.issuer, identity.subject).into()
}

fn without_application(startup: &Startup) -> Arc<[u8]> {
    if application_that_follows(startup).is_none() {
        return startup.parameters.clone();
    }
    let mut rest = Vec::with_capacity(startup.parameters.len());
    for (name, value) in startup::encoded(&startup.parameters) {
        if name != APPLICATION_NAME {
            for part in [name, value] {
                rest.extend_from_slice(part);
                rest.push(0);
            }
        }
    }
    rest.into()
}

/// The name of the application, as far as it can be set behind a login as well as in it.
fn application_that_follows(startup: &Startup) -> Option<&str> {
    let name = startup.application.as_deref()?;
    let plain = name.len() <= MAX_APPLICATION_NAME && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    plain.then_some(name)
}

/// The values that this client asked for and that its connections are not opened with.
pub(super) fn take_on(startup: &Startup, reported: &mut Reported) {
    if let Some(name) = application_that_follows(startup) {
        let _ = reported.set(APPLICATION_NAME, name.as_bytes());
    }
}

impl Session {
    /// The client has something to say and no server to say it to.
    pub(super) fn borrow(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Relaying(relaying) = &mut self.phase else { return Verdict::Wait };
        if relaying.is_waiting() {
            return Verdict::Wait;
        }
        let begins_message = !relaying.relay.is_discarding();
        match Header::parse(bytes) {
            Ok(None) if begins_message => return Verdict::Wait,
            Ok(Some(header))
                if begins_message && relaying.cancelled != Cancelled::No && header.tag != tag::TERMINATE =>
            {
                return self.cancelled(header, bytes, now);
            }
            // Half a message would hold the connection for as long as its client likes.
            Ok(Some(header)) if begins_message && needs_server(header.tag) && !shows_enough(header, bytes) => {
                return Verdict::Wait;
            }
            Ok(Some(header)) if begins_message && needs_server(header.tag) => {
                relaying.server = Server::Asked;
                self.out.push_back(Output::Do(Action::Borrow));
                return Verdict::Wait;
            }
            // The server has left off reading COPY data, or there is nothing to flush: it would ignore these.
            Ok(Some(header)) if begins_message && header.tag != tag::TERMINATE => relaying.relay.discard(header),
            _ => {}
        }
        let step = relaying.relay.handle_client(bytes, now);
        self.relay_step(Side::Client, step, bytes, now)
    }

    /// Answers in the server's place to what waited for one: an error, and ReadyForQuery behind the statement, which is the
    /// message itself or ends with the next Sync.
    fn cancelled(&mut self, header: Header, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Relaying(relaying) = &mut self.phase else { return Verdict::Wait };
        let whole = matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL | tag::SYNC);
        let next = if whole { Cancelled::No } else { Cancelled::Skipping };
        let told = std::mem::replace(&mut relaying.cancelled, next) == Cancelled::Skipping;
        relaying.relay.discard(header);
        let step = relaying.relay.handle_client(bytes, now);
        self.write(|out| {
            if !told {
                emit_error(out, Severity::Error, &wait_cancelled());
            }
            if whole {
                emit_ready_for_query(out, TransactionStatus::Idle);
            }
        });
        self.relay_step(Side::Client, step, bytes, now)
    }

    /// The server connection for the next transaction.
    pub(super) fn borrowed(&mut self, leased: Leased) {
        let Phase::Relaying(relaying) = &mut self.phase else { return self.give_back_unused(leased) };
        if !relaying.is_waiting() {
            return self.give_back_unused(leased);
        }
        let differences = relaying.relay.handle_connection(&leased.parameters, leased.bare, leased.statements);
        relaying.server = Server::Leased(leased.lease);
        relaying.preparing = relaying.relay.is_preparing();
        if !differences.set.is_empty() {
            self.out.push_back(Output::Send(Side::Server, differences.set));
        }
        if !differences.tell.is_empty() {
            self.out.push_back(Output::Send(Side::Client, differences.tell));
        }
    }

    /// Something of gprxy's own is answered. Whether the connection has taken over the session's parameters with it.
    pub(super) fn prepared(&mut self) -> bool {
        let Phase::Relaying(relaying) = &mut self.phase else { return false };
        let is_prepared = relaying.preparing && !relaying.relay.is_preparing();
        if is_prepared {
            relaying.preparing = false;
            self.out.push_back(Output::Do(Action::Cancellable));
        }
        is_prepared
    }

    /// The server has said something; `all`: nothing of it is left.
    pub(super) fn heard(&mut self, all: bool) {
        if let Phase::Relaying(relaying) = &mut self.phase {
            relaying.unread = !all;
        }
    }

    /// The server has answered something.
    pub(super) fn answered(&mut self) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        if relaying.mode == PoolMode::Session || relaying.unread {
            return;
        }
        if relaying.mode == PoolMode::Statement && relaying.relay.is_in_transaction_block() {
            relaying.doomed = Some(Box::new(no_transactions()));
            return;
        }
        self.release_between();
    }

    /// What was judged has been forwarded.
    pub(super) fn leave_if_forwarded(&mut self) {
        if let Phase::Relaying(relaying) = &mut self.phase
            && std::mem::take(&mut relaying.leaving)
        {
            self.release_between();
        }
    }

    /// Gives the server connection back when the session can do without.
    pub(super) fn release_between(&mut self) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        let can_leave = relaying.relay.is_between_transactions() && !relaying.unread;
        // A server that has taken its leave is about to close: that ends the session.
        let stays = relaying.mode == PoolMode::Session || relaying.relay.server_is_leaving();
        if stays || !relaying.has_server() || !can_leave {
            return;
        }
        if !relaying.relay.pins().is_empty() {
            if relaying.pinned == Pinned::No {
                relaying.pinned = Pinned::Untold;
            }
            relaying.times_held = relaying.times_held.saturating_add(u32::from(!relaying.held));
            relaying.held = true;
            return;
        }
        relaying.held = false;
        if let Server::Leased(lease) = std::mem::replace(&mut relaying.server, Server::Away) {
            let in_doubt = relaying.relay.is_in_doubt();
            let (changed, statements) = (relaying.relay.take_changed(), relaying.relay.take_statements());
            let state = if in_doubt { ReturnState::InDoubt } else { ReturnState::Between };
            let back = Return { lease, state, changed, statements };
            self.out.push_back(Output::Do(Action::Release(back)));
        }
    }
}

/// Whether a message means something to a server between transactions.
const fn needs_server(message: u8) -> bool {
    !matches!(message, tag::TERMINATE | tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL)
}

/// What a client is told that keeps its server connection.
pub(super) fn pinned(pins: Pins) -> Refusal {
    Refusal::new(SqlState::SUCCESS, format!("this session keeps its server connection between transactions: {pins}"))
        .hint("What ties it cannot follow to another connection; DISCARD ALL lets go of all but LOAD.")
}

fn no_transactions() -> Refusal {
    Refusal::new(SqlState::PROTOCOL_VIOLATION, "transaction blocks not allowed in statement pooling mode")
        .hint("Use pool_mode = \"transaction\" for this database.")
}

//! How long a session may take for a query, for a transaction, and for saying nothing.
//!
//! The deadline that is told to the driver is only ever moved to an earlier time at once; a later one is looked for when
//! the earlier one has passed. A busy session so sets its timer about once in the length of a timeout.

use std::time::Duration;

use crate::fault::{Refusal, SqlState};
use crate::policy::Timeouts;
use crate::relay::Relay;
use crate::time::{Deadline, Tick, Timer, earliest};

/// The clocks of a session that has any timeout.
pub(super) struct Clocks {
    timeouts: Timeouts,
    /// Since when something of the client's is to be answered.
    query: Option<Tick>,
    /// Since when it is in a transaction, be it of a single statement.
    transaction: Option<Tick>,
    /// When it was heard of last.
    heard: Tick,
    in_block: bool,
    /// Answers that were complete, and transactions that had ended, at the last look.
    settled: (u32, u32),
    /// What the driver was told.
    told: Option<Deadline>,
}

/// Where a session stands.
pub(super) struct Standing {
    /// Something of the client's is to be answered, or waits for its server connection.
    pub(super) busy: bool,
    /// It waits for its server connection: no transaction has begun.
    pub(super) waiting: bool,
    /// The client has said something.
    pub(super) heard: bool,
}

impl Clocks {
    /// For a session that begins; `None` where nothing has a limit.
    pub(super) fn new(timeouts: Timeouts, now: Tick) -> Option<Box<Self>> {
        let mut clocks =
            Self { timeouts, query: None, transaction: None, heard: now, in_block: false, settled: (0, 0), told: None };
        clocks.told = clocks.due();
        (!timeouts.is_none()).then(|| clocks.into())
    }

    /// Something has happened.
    pub(super) fn handle_progress(&mut self, relay: &Relay, standing: &Standing, now: Tick) {
        let tracker = relay.tracker();
        let (answers, transactions) = tracker.completed();
        let (was_busy, answered) = (self.query.is_some(), answers != self.settled.0);
        if standing.heard || was_busy && (!standing.busy || answered) {
            // A client is not idle before it has its answer.
            self.heard = now;
        }
        if !standing.busy {
            self.query = None;
        } else if !was_busy || answered {
            self.query = Some(now);
        }
        self.in_block = relay.is_in_transaction_block() && !standing.waiting;
        if standing.waiting || !standing.busy && !self.in_block {
            self.transaction = None;
        } else if self.transaction.is_none() || transactions != self.settled.1 {
            self.transaction = Some(now);
        }
        self.settled = (answers, transactions);
        self.told = earliest(self.told, self.due());
    }

    /// Which limit has passed; otherwise the driver's deadline is set anew.
    pub(super) fn handle_timeout(&mut self, now: Tick) -> Option<Refusal> {
        let due = self.due();
        if let Some(due) = due.filter(|due| due.at <= now) {
            return self.refusal(due.why);
        }
        if self.told.is_some_and(|told| told.at <= now) {
            self.told = due;
        }
        None
    }

    /// When the driver is to ask.
    pub(super) const fn poll_timeout(&self) -> Option<Deadline> {
        self.told
    }

    fn due(&self) -> Option<Deadline> {
        let limit = |since: Option<Tick>, span: Duration, why: Timer| {
            since.filter(|_| !span.is_zero()).map(|since| Deadline { at: since.after(span), why })
        };
        let idle = Some(self.heard).filter(|_| self.query.is_none());
        let silence = if self.in_block {
            limit(idle, self.timeouts.idle_transaction, Timer::IdleTransaction)
        } else {
            limit(idle, self.timeouts.client_idle, Timer::ClientIdle)
        };
        let work = limit(self.query, self.timeouts.query, Timer::Query);
        let transaction = limit(self.transaction, self.timeouts.transaction, Timer::Transaction);
        earliest(earliest(work, transaction), silence)
    }

    fn refusal(&self, why: Timer) -> Option<Refusal> {
        refusal(&self.timeouts, why)
    }
}

/// The codes and the words are PostgreSQL's for its own timeouts of this kind (manual, appendix A), the names PgBouncer's.
pub(super) fn refusal(timeouts: &Timeouts, why: Timer) -> Option<Refusal> {
    let Timeouts { query, idle_transaction, transaction, client_idle } = *timeouts;
    let (code, name, span, what) = match why {
        Timer::Query => (SqlState::QUERY_CANCELED, "query_timeout", query, "a query may take"),
        Timer::IdleTransaction => {
            let what = "the client of an open transaction may say nothing for";
            (SqlState::IDLE_IN_TRANSACTION_TIMEOUT, "idle_transaction_timeout", idle_transaction, what)
        }
        Timer::Transaction => {
            (SqlState::TRANSACTION_TIMEOUT, "transaction_timeout", transaction, "a transaction may take")
        }
        Timer::ClientIdle => {
            (SqlState::IDLE_SESSION_TIMEOUT, "client_idle_timeout", client_idle, "a client may say nothing for")
        }
        _ => return None,
    };
    // PostgreSQL has no such timeout, and PgBouncer's name is what is looked for.
    let words = if why == Timer::ClientIdle { name.to_owned() } else { name.replace('_', " ") };
    let refusal = Refusal::new(code, format!("terminating connection due to {words}"));
    Some(refusal.hint(format!("Behind this gprxy, {what} {} ({name}).", in_words(span))))
}

/// `450 ms`, `7 s`.
fn in_words(span: Duration) -> String {
    match span.subsec_millis() {
        0 => format!("{} s", span.as_secs()),
        _ => format!("{} ms", span.as_millis()),
    }
}

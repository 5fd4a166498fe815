//! What clients are told by a pool.

use std::time::Duration;

use super::one::{Backoff, Pool, Ticket};
use crate::fault::{Refusal, SqlState};
use crate::time::Tick;

/// How far a queue is counted for a notice; counting on would cost more than the number is worth.
const COUNTED_AHEAD: usize = 100;

/// `450 ms`, `7 s`: whole units, as a person would say it.
pub(super) fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        secs => format!("{secs} s"),
    }
}

/// Who holds the connections that a waiter waits for.
fn occupancy(pool: &Pool) -> String {
    if pool.paused {
        return "an operator has paused it".into();
    }
    match (pool.total(), pool.size()) {
        (0, 0) => "default_pool_size is 0".into(),
        (1, 1) => "its only connection is in use".into(),
        (total, size) if total >= size => format!("all {total} connections are in use"),
        (total, size) => format!("{total} of {size} connections are in use"),
    }
}

/// The NOTICE for somebody who has waited that long.
pub(super) fn notice(pool: &Pool, ticket: Ticket, waited: Duration, now: Tick) -> String {
    let ahead = match pool.waiters.range(..ticket).take(COUNTED_AHEAD + 1).count() {
        0 => "you are next".into(),
        1 => "1 client is ahead of you".into(),
        n if n > COUNTED_AHEAD => format!("more than {COUNTED_AHEAD} clients are ahead of you"),
        n => format!("{n} clients are ahead of you"),
    };
    let reason = match &pool.backoff {
        Some(backoff) if !pool.paused => {
            let left = span(backoff.until.since(now));
            format!("the last login failed ({}), the next try is in {left}", backoff.refusal.message)
        }
        _ => occupancy(pool),
    };
    format!("waiting for a server connection of {} for {}: {reason}, {ahead}", pool.key, span(waited))
}

/// The refusal for somebody whose `query_wait_timeout` has run out.
pub(super) fn waited_too_long(pool: &Pool, waited: Duration) -> Refusal {
    let (waited, occupancy) = (span(waited), occupancy(pool));
    let message = format!("no server connection of {} became free within {waited}: {occupancy}", pool.key);
    let limit = span(pool.settings.query_wait_timeout);
    Refusal::new(SqlState::TOO_MANY_CONNECTIONS, message).hint(format!(
        "Close sessions that are not in use, or ask the operator of gprxy to raise default_pool_size (now {}) or \
         query_wait_timeout (now {limit}).",
        pool.settings.default_pool_size,
    ))
}

/// For everybody who asks while the process is being stopped.
pub(super) fn closed() -> Refusal {
    Refusal::new(SqlState::ADMIN_SHUTDOWN, "server shutting down")
        .hint("Connect again in a moment, or to another gprxy.")
}

/// The last error of the server, for somebody who would only meet it again.
pub(super) fn backing_off(pool: &Pool, backoff: &Backoff, now: Tick) -> Refusal {
    let (ago, left) = (span(now.since(backoff.since)), span(backoff.until.since(now)));
    Refusal::new(backoff.refusal.code, backoff.refusal.message.clone()).hint(format!(
        "The last login of {} failed {ago} ago; gprxy tries again in {left} (server_login_retry).",
        pool.key,
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::one::{Claim, Waiter};
    use super::super::{PoolKey, PoolSettings};
    use super::*;
    use crate::session_id::SessionId;

    fn pool(size: u32, active: usize) -> Pool {
        let key = PoolKey { account: "reader".into(), database: "app".into(), own_password: false };
        let settings = PoolSettings { default_pool_size: size, ..PoolSettings::default() };
        let mut pool = Pool::new(key, Arc::new(settings));
        pool.active = active;
        pool
    }

    #[test]
    fn occupancy_names_the_numbers_that_a_person_would() {
        for (size, total, words) in [
            (0, 0, "default_pool_size is 0"),
            (1, 1, "its only connection is in use"),
            (5, 5, "all 5 connections are in use"),
            (5, 4, "4 of 5 connections are in use"),
            // The size was lowered while they were in use.
            (2, 4, "all 4 connections are in use"),
        ] {
            assert_eq!(occupancy(&pool(size, total)), words);
        }
    }

    #[test]
    fn a_queue_is_counted_only_so_far() {
        let mut pool = pool(1, 1);
        for ticket in 0..200 {
            let claim =
                Claim { session: SessionId(ticket), parameters: [].into(), owner: None, reuse: true, adapts: false };
            let waiter = Waiter { claim, since: Tick::default(), notice: None, reserve: None, deadline: None };
            pool.waiters.insert(Ticket(ticket), waiter);
        }
        for (ticket, words) in [
            (0, ", you are next"),
            (1, ", 1 client is ahead of you"),
            (2, ", 2 clients are ahead of you"),
            (100, ", 100 clients are ahead of you"),
            (101, ", more than 100 clients are ahead of you"),
            (199, ", more than 100 clients are ahead of you"),
        ] {
            let text = notice(&pool, Ticket(ticket), Duration::from_secs(1), Tick::default());
            assert!(text.ends_with(words), "{ticket}: {text}");
        }
    }
}

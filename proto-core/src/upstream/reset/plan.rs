//! What is done to a connection when: the operator's queries, and what isolation asks for.

use std::sync::Arc;

use crate::pool::{Isolation, PoolMode, PoolSettings};

/// How much of what a session has left goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Discard {
    /// Nothing.
    #[default]
    Nothing,
    /// `DISCARD ALL`.
    All,
}

/// What may be done to the connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResetPlan {
    /// Send `ROLLBACK` when a transaction is open. Without it, such a connection is broken.
    pub rollback: bool,
    /// Send this query first, whose replies may be any but an error.
    pub query: Option<Arc<str>>,
    /// What goes.
    pub discard: Discard,
    /// Send this query behind that, when anything was discarded; its replies may be any but an error.
    pub connect_query: Option<Arc<str>>,
    /// The settings of a session may be gone: what a bare connection has instead of startup parameters is set again.
    pub restores: bool,
    /// The query that does so ([`crate::upstream::startup_query`]).
    pub startup_query: Option<Arc<str>>,
    /// Have the proof repeated even when nothing else is sent.
    pub prove: bool,
    /// Fresh random bytes: the server repeats them behind everything else.
    pub proof: [u8; 16],
}

impl ResetPlan {
    /// Behind the login: the operator's query, and the parameters of a bare connection.
    #[must_use]
    pub fn connect(query: Option<Arc<str>>, proof: [u8; 16]) -> Self {
        Self { query, restores: true, prove: true, proof, ..Self::default() }
    }

    /// Nobody has used the connection for `server_check_delay`.
    #[must_use]
    pub fn check(settings: &PoolSettings, proof: [u8; 16]) -> Self {
        Self { query: settings.check_query(), prove: true, proof, ..Self::default() }
    }

    /// Its session ends. Where clients trust each other and keep their connections, `server_reset_query` says what goes,
    /// and nothing else, as with PgBouncer; in every other case all goes, and the query runs in front of that.
    #[must_use]
    pub fn end_of_session(settings: &PoolSettings, proof: [u8; 16]) -> Self {
        let in_session_mode = settings.pool_mode == PoolMode::Session;
        let mut plan = Self { rollback: true, restores: true, proof, prove: true, ..Self::default() };
        let (query, discards) = reset_query(settings);
        if in_session_mode || settings.server_reset_query_always {
            plan.query = query;
        }
        if discards || !in_session_mode || settings.isolation == Isolation::Identity {
            plan.discard = Discard::All;
            plan.connect_query.clone_from(&settings.connect_query);
        }
        plan
    }

    /// A transaction ends; `None`: nothing is to be done, as nearly always.
    #[must_use]
    pub fn end_of_transaction(settings: &PoolSettings, proof: impl FnOnce() -> [u8; 16]) -> Option<Self> {
        if !settings.server_reset_query_always {
            return None;
        }
        match reset_query(settings) {
            (None, false) => None,
            (None, true) => {
                let connect_query = settings.connect_query.clone();
                Some(Self { discard: Discard::All, connect_query, restores: true, proof: proof(), ..Self::default() })
            }
            (query, _) => Some(Self { query, restores: true, proof: proof(), ..Self::default() }),
        }
    }

    /// Between two people. What is prepared goes, too: an analysis or a plan may hold what somebody had set when it was
    /// made, up to the rows that they were allowed to see.
    #[must_use]
    pub fn for_another(settings: &PoolSettings, proof: [u8; 16]) -> Self {
        let ((query, _), connect_query) = (reset_query(settings), settings.connect_query.clone());
        Self { query, discard: Discard::All, connect_query, restores: true, proof, ..Self::default() }
    }
}

/// `server_reset_query`, when it is another one than `DISCARD ALL`; and whether it is that.
fn reset_query(settings: &PoolSettings) -> (Option<Arc<str>>, bool) {
    let query = &settings.server_reset_query;
    let mut words = query.trim_matches(|c: char| c.is_whitespace() || c == ';').split_whitespace();
    let mut is_next = |word: &str| words.next().is_some_and(|it| it.eq_ignore_ascii_case(word));
    let discards = is_next("discard") && is_next("all") && words.next().is_none();
    ((!discards && !query.trim().is_empty()).then(|| query.clone()), discards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROOF: [u8; 16] = [1; 16];

    fn settings(mode: PoolMode, isolation: Isolation, query: &str, always: bool) -> PoolSettings {
        PoolSettings {
            pool_mode: mode,
            isolation,
            server_reset_query: query.into(),
            server_reset_query_always: always,
            ..PoolSettings::default()
        }
    }

    #[test]
    fn among_clients_that_trust_each_other_the_query_is_all_there_is() {
        let end = |query: &str| {
            ResetPlan::end_of_session(&settings(PoolMode::Session, Isolation::PgBouncer, query, false), PROOF)
        };
        let plan = end("DEALLOCATE ALL");
        assert_eq!((plan.query.as_deref(), &plan.discard), (Some("DEALLOCATE ALL"), &Discard::Nothing));
        let plan = end(" discard  ALL ; ");
        assert_eq!((plan.query, plan.discard), (None, Discard::All));
        let plan = end("");
        assert_eq!((plan.query, plan.discard, plan.rollback, plan.prove), (None, Discard::Nothing, true, true));
    }

    #[test]
    fn between_people_all_goes_whatever_the_query_says() {
        for (query, sent) in [("", None), ("DISCARD ALL", None), ("select 1", Some("select 1"))] {
            let session = settings(PoolMode::Session, Isolation::Identity, query, false);
            let plan = ResetPlan::end_of_session(&session, PROOF);
            assert_eq!((plan.query.as_deref(), plan.discard), (sent, Discard::All), "{query:?}");
            let transaction = settings(PoolMode::Transaction, Isolation::Identity, query, false);
            let plan = ResetPlan::for_another(&transaction, PROOF);
            assert_eq!((plan.query.as_deref(), plan.discard), (sent, Discard::All), "{query:?}");
            let plan = ResetPlan::end_of_session(&transaction, PROOF);
            assert_eq!((plan.query, plan.discard), (None, Discard::All), "no query of the operator's in this mode");
        }
    }

    #[test]
    fn a_transactions_end_needs_nothing_unless_the_operator_always_wants_it() {
        let end = |query: &str, always| {
            let settings = settings(PoolMode::Transaction, Isolation::PgBouncer, query, always);
            ResetPlan::end_of_transaction(&settings, || PROOF).map(|plan| (plan.query, plan.discard))
        };
        assert_eq!(end("DISCARD ALL", false), None);
        assert_eq!(end("", true), None);
        assert_eq!(end("DISCARD ALL", true), Some((None, Discard::All)));
        assert_eq!(end("reset all", true), Some((Some("reset all".into()), Discard::Nothing)));
    }
}

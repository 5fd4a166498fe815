//! Between the proof and the server connection.

use std::time::Duration;

use super::{assert_refused, seen};
use crate::codec::startup::{PROTOCOL_3_0, PROTOCOL_3_2};
use crate::fault::{Lost, Refusal, SqlState};
use crate::pool::Counts;
use crate::pool::PoolKey;
use crate::session::{Finish, Reply, ReturnState, Side};
use crate::testing::corp;
use crate::testing::duel::{Duel, Terms};
use crate::testing::wire::{front, messages};

/// Somebody with a good token who waits for a server connection.
fn waiting(version: u32) -> Duel {
    let mut duel = Duel::new(Terms { lease_at_once: false, ..Terms::default() });
    duel.client(&front::startup(version, &[("user", "alice@corp.example"), ("database", corp::DATABASE)]));
    duel.client(&front::password(&corp::token("alice", &["reader"], duel.now)));
    assert!(duel.is_waiting());
    duel
}

/// Somebody whose own password PostgreSQL is to check.
fn waiting_with_password() -> Duel {
    let mut duel = Duel::new(Terms { lease_at_once: false, ..Terms::default() });
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", corp::LOCAL_USER), ("database", corp::DATABASE)]));
    duel.client(&front::password(corp::LOCAL_PASSWORD));
    assert!(duel.is_waiting());
    duel
}

fn refusal(code: SqlState) -> Refusal {
    Refusal::new(code, "no")
}

#[test]
fn a_proven_client_gets_its_key_before_its_turn() {
    for (version, width) in [(PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)] {
        let mut duel = waiting(version);
        let all = messages(&duel.seen());
        assert_eq!(all.iter().map(|message| message.tag).collect::<Vec<_>>(), b"RRK");
        assert_eq!(all[2].body.len(), 4 + width, "the key of its protocol");
        duel.lease();
        assert_eq!(seen(&mut duel), "S(TimeZone) S(application_name) S(search_path) Z(I)");
    }
}

#[test]
fn a_client_whose_password_is_not_checked_yet_is_told_nothing() {
    let mut duel = waiting_with_password();
    assert_eq!(seen(&mut duel), "R(3)");
    duel.reply(Reply::Waiting(refusal(SqlState::SUCCESS)));
    assert_eq!(seen(&mut duel), "", "a NOTICE before AuthenticationOk surprises drivers");
    duel.lease();
    assert_eq!(seen(&mut duel), "R(0) K S(TimeZone) S(application_name) S(search_path) Z(I)");
}

#[test]
fn who_waits_is_told_so() {
    let mut duel = waiting(PROTOCOL_3_0);
    duel.seen();
    duel.reply(Reply::Waiting(refusal(SqlState::SUCCESS)));
    assert_eq!(seen(&mut duel), "N(NOTICE 00000)");
    duel.lease();
    assert!(seen(&mut duel).ends_with("Z(I)"));
}

#[test]
fn the_pools_refusal_is_the_clients() {
    let mut duel = waiting(PROTOCOL_3_0);
    duel.seen();
    duel.reply(Reply::Refused(refusal(SqlState::TOO_MANY_CONNECTIONS)));
    assert_refused(&mut duel, SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(duel.trail(), ["refusal(53300)"]);
    // Once more changes nothing.
    duel.reply(Reply::Refused(refusal(SqlState::TOO_MANY_CONNECTIONS)));
    assert_eq!(seen(&mut duel), "");
}

#[test]
fn the_servers_refusal_reaches_the_client_in_its_own_words() {
    let mut duel = waiting(PROTOCOL_3_0);
    duel.seen();
    duel.postgres.set_max_connections(0);
    duel.lease();
    let error = super::the_error(&mut duel);
    assert_eq!(error.code(), "53300");
    assert!(error.body.windows(14).any(|window| window == b"sorry, too man"));
    assert!(matches!(duel.finish, Some(Finish::Refused(_))));
}

#[test]
fn a_cancel_while_queued_ends_the_wait_with_57014() {
    let mut duel = waiting(PROTOCOL_3_0);
    let all = messages(&duel.seen());
    let key = &all.last().expect("the key").body;
    let pid = u32::from_be_bytes(*key.first_chunk().expect("four bytes"));
    duel.cancels.handle_waiting(duel.session.id());
    let decision = duel.cancels.handle_request(pid, &key[4..], duel.now);
    assert!(matches!(decision, crate::cancel::Decision::Waiting(_)), "{decision:?}");
    duel.kill(refusal(SqlState::QUERY_CANCELED));
    assert_refused(&mut duel, SqlState::QUERY_CANCELED);
    assert!(!duel.is_waiting(), "the wish is withdrawn");
}

#[test]
fn who_vanishes_while_waiting_gives_up() {
    for mut duel in [waiting(PROTOCOL_3_0), waiting_with_password()] {
        duel.close(Side::Client, Lost::Broken);
        assert!(!duel.is_waiting());
        assert_eq!(duel.finish, Some(Finish::Lost(Side::Client, Lost::Broken)));
    }
}

#[test]
fn bytes_of_a_waiting_client_are_left_where_they_are() {
    let mut duel = waiting(PROTOCOL_3_0);
    duel.seen();
    duel.client(&front::query("rows 1 early"));
    assert_eq!((seen(&mut duel), duel.sent()), (String::new(), vec![]));
    duel.lease();
    assert!(seen(&mut duel).ends_with("D(early/0) C(SELECT 1) Z(I)"));
}

#[test]
fn a_connection_that_comes_too_late_goes_back_unused() {
    // The session gave up after the pool had granted: the lease arrives at a session that is closing.
    let mut duel = waiting(PROTOCOL_3_0);
    let key = PoolKey { account: corp::READER.into(), database: corp::DATABASE.into(), own_password: false };
    let request = crate::pool::Request {
        session: duel.session.id(),
        key: key.clone(),
        parameters: std::sync::Arc::new([]),
        owner: None,
        reuse: true,
        adapts: false,
        settings: std::sync::Arc::default(),
    };
    duel.pools.handle_request(request, duel.now);
    let Some(crate::pool::PoolOutput::Granted { lease, .. }) = duel.pools.poll_output() else { panic!("not granted") };
    duel.pools.handle_opened(&lease, duel.now);
    duel.close(Side::Client, Lost::Closed);
    duel.finish = None; // what follows is behind the end, and only a release
    duel.reply(Reply::Leased(crate::session::Leased {
        lease,
        parameters: Vec::new().into(),
        bare: None,
        statements: None,
        proof: None,
    }));
    assert_eq!(duel.returned, [ReturnState::Between]);
    assert_eq!(duel.pools.counts(&key), Counts { idle: 1, ..Counts::default() });
}

#[test]
fn a_wait_has_no_deadline_of_the_sessions_own() {
    let mut duel = waiting(PROTOCOL_3_0);
    duel.seen();
    assert_eq!(duel.deadline(), None, "the pool keeps the time of its queue");
    duel.advance(Duration::from_secs(3600));
    assert_eq!((duel.finish.clone(), duel.is_waiting()), (None, true));
}

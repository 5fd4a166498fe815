//! Cancel requests: the right statement, and no other.

use crate::support::gprxy::Config;
use crate::support::postgres::Version;
use crate::support::promise::unchanged;
use crate::support::wire::{Wire, cancel, cancel_and_leave, query};
use crate::support::{eventually, psql};

unchanged! {
    fn control_c_in_psql_cancels_the_query(target) {
        let marker = format!("psql-{}", target.port);
        let psql = psql::background(target, &format!("select pg_sleep(25) /* {marker} */"));
        target.server.await_running(&marker);
        psql.signal("INT");
        let ran = psql::join(psql);
        assert!(ran.err.contains("57014"), "{ran:?}");
        target.server.await_gone(&marker);
    }
}

unchanged! {
    fn the_key_cancels_its_own_session_and_leaves_it_usable(target) {
        let marker = format!("own-{}", target.port);
        let mut wire = Wire::login(target).unwrap();
        wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
        target.server.await_running(&marker);
        let (pid, secret) = wire.key.clone();
        cancel(target, pid, &secret);
        let messages = wire.read_until_ready();
        let error = messages.iter().find(|message| message.tag == 'E').expect("an error");
        assert_eq!(error.complaint().code, "57014");
        assert_eq!(wire.value("select 'still here'"), "still here");
        wire.quit();
    }
}

unchanged! {
    fn a_wrong_key_cancels_nothing(target) {
        let marker = format!("wrong-{}", target.port);
        let mut wire = Wire::login(target).unwrap();
        wire.send(&query(&format!("select pg_sleep(1)::text || 'slept' /* {marker} */")));
        target.server.await_running(&marker);
        let (pid, secret) = wire.key.clone();
        let mut wrong = secret.clone();
        wrong[3] ^= 1;
        cancel(target, pid, &wrong);
        cancel(target, pid ^ 1, &secret);
        cancel(target, 0, &[0; 4]);
        let messages = wire.read_until_ready();
        assert!(messages.iter().all(|message| message.tag != 'E'), "{messages:?}");
        wire.quit();
    }
}

unchanged! {
    fn a_cancel_in_clear_works_for_a_session_over_tls(target) {
        let marker = format!("clear-{}", target.port);
        let mut wire = Wire::login(target).unwrap();
        wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
        target.server.await_running(&marker);
        let (pid, secret) = wire.key.clone();
        cancel(&target.clone().in_plaintext(), pid, &secret);
        assert!(wire.read_until_ready().iter().any(|message| message.tag == 'E'));
        wire.quit();
    }
}

unchanged! {
    fn a_cancel_counts_although_its_sender_is_gone_at_once(target) {
        // libpq waits for the end of the connection; other drivers (tokio-postgres, pgx) send and leave.
        let marker = format!("left-{}", target.port);
        for _ in 0..5 {
            // A session each time: PostgreSQL signals the process and then its group, and who does not wait for the
            // end of the cancel connection may find the second signal in the next query.
            let mut wire = Wire::login(target).unwrap();
            wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
            target.server.await_running(&marker);
            let (pid, secret) = wire.key.clone();
            cancel_and_leave(&target.clone().in_plaintext(), pid, &secret);
            assert!(wire.read_until_ready().iter().any(|message| message.tag == 'E'));
            wire.quit();
        }
    }
}

unchanged! {
    fn a_cancel_of_an_idle_session_does_not_hit_its_next_query(target) {
        let mut wire = Wire::login(target).unwrap();
        let (pid, secret) = wire.key.clone();
        for _ in 0..10 {
            cancel(target, pid, &secret);
        }
        // PostgreSQL handles the signal in its own time: only from the first answer on is it certain to be over.
        let _ = wire.rows("select 1");
        assert_eq!(wire.value("select 'untouched' from pg_sleep(0.3)"), "untouched");
        wire.quit();
    }
}

unchanged! {
    fn a_copy_can_be_cancelled(target) {
        let marker = format!("copy-{}", target.port);
        let mut wire = Wire::login(target).unwrap();
        wire.send(&query(&format!("copy (select repeat('x', 1000) from generate_series(1, 100000000) /* {marker} */) to stdout")));
        target.server.await_running(&marker);
        let (pid, secret) = wire.key.clone();
        // The server is blocked in writing; what is under way must be read for it to notice.
        cancel(target, pid, &secret);
        let error = eventually("the error behind the rows", || wire.read().filter(|message| message.tag == 'E'));
        assert_eq!(error.complaint().code, "57014");
        wire.read_until_ready();
        wire.quit();
    }
}

#[test]
fn without_peers_a_key_is_good_at_the_process_that_made_it_and_nowhere_else() {
    let (mut first, mut second) = (Config::new(Version::V15).start(), Config::new(Version::V15).start());
    let (here, there) = (first.target("bob"), second.target("bob"));
    let (mut ours, mut theirs) = (Wire::login(&here).unwrap(), Wire::login(&there).unwrap());
    for (wire, marker) in [(&mut ours, "replica-one"), (&mut theirs, "replica-two")] {
        wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
        here.server.await_running(marker);
    }
    let (pid, secret) = ours.key.clone();
    // Each of them is answered by its end, so all have been dealt with when the one that counts goes out.
    for _ in 0..20 {
        cancel(&there, pid, &secret);
        cancel(&there.clone().in_plaintext(), pid, &secret);
    }
    for marker in ["replica-one", "replica-two"] {
        here.server.await_running(marker);
    }
    cancel(&here, pid, &secret);
    assert!(ours.read_until_ready().iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"));
    here.server.await_running("replica-two");
    let (pid, secret) = theirs.key.clone();
    cancel(&there, pid, &secret);
    assert!(theirs.read_until_ready().iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"));
    for wire in [&mut ours, &mut theirs] {
        assert_eq!(wire.value("select 'still here'"), "still here");
    }
    first.assert_alive();
    second.assert_alive();
}

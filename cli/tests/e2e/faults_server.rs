//! Servers that crash, are told to end a session, reset, or say nothing more: the victim is told, the pool recovers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::console::table;
use crate::support::bouncer::{Ini, Kind};
use crate::support::eventually;
use crate::support::fault::FaultProxy;
use crate::support::fixtures::{DATABASE, READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::{Complaint, Message, Wire, cancel, frame, query};

/// PostgreSQL's own farewell, or a broken connection.
#[track_caller]
fn assert_tells_of_the_server(complaint: &Complaint) {
    let code = complaint.code.as_str();
    assert!(code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code), "{complaint:?}");
}

/// As many sessions at once as the pool has places, each with its own answer: no place was lost.
fn assert_whole(target: &Target, places: usize) {
    let mut sessions: Vec<Wire> =
        (0..places).map(|_| Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"))).collect();
    for (number, wire) in sessions.iter_mut().enumerate() {
        assert_eq!(wire.value(&format!("select 'mine {number}'")), format!("mine {number}"));
    }
    sessions.into_iter().for_each(Wire::quit);
}

/// Where messages begin and end in a stream.
fn boundaries(stream: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(header) = stream.get(*ends.last().unwrap()..).and_then(|rest| rest.first_chunk::<5>()) {
        let length = u32::from_be_bytes(*header.last_chunk::<4>().unwrap()) as usize;
        ends.push(ends.last().unwrap() + 1 + length);
    }
    ends
}

/// What a client got is the front of what it should have got, and nothing else but the news that this was all: whether
/// there was news. Inside a message nothing can be said.
#[track_caller]
fn assert_front_and_farewell(got: &[u8], whole: &[u8]) -> bool {
    let same = got.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let at_boundary = boundaries(whole).contains(&same);
    if got.len() == same {
        assert!(!at_boundary, "cut between two messages after {same} bytes, and the client was not told");
        return false;
    }
    assert!(at_boundary, "wrong bytes inside a message, after {same}");
    let tail = &got[same..];
    assert_eq!(boundaries(tail), [0, tail.len()], "one message after {same} bytes");
    let farewell = Message { tag: char::from(tail[0]), body: tail[5..].to_vec() };
    assert_eq!(farewell.tag, 'E');
    let complaint = farewell.complaint();
    assert_eq!(complaint.severity, "FATAL", "{complaint:?}");
    assert_tells_of_the_server(&complaint);
    true
}

fn resets_in_mid_row(sslmode: &str, database: &str, times: usize) {
    const PLACES: usize = 2;
    let server = Cluster::shared(Version::V15);
    server.create_database(database);
    let way = FaultProxy::before(server.port);
    let mut gprxy = Config::new(Version::V15)
        .pool_of(PLACES as i64)
        .queue_wait("20s")
        .set("databases.*.port", i64::from(way.port))
        .set("databases.*.sslmode", sslmode)
        .start();
    let target = gprxy.target("bob").in_plaintext().with_database(database);
    let question = query("select n, repeat('r', n % 97) from generate_series(1, 1500) n");
    let ask = |broken_after: i64| {
        let mut wire = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
        way.reset_after(broken_after);
        wire.send(&question);
        let answer = wire.rest();
        way.heal();
        answer
    };
    let undisturbed = || {
        let mut wire = Wire::login(&target).unwrap();
        wire.send(&question);
        let answer = wire.read_until_ready().iter().flat_map(|message| frame(message.tag, &message.body)).collect();
        wire.quit();
        answer
    };
    let whole: Vec<u8> = undisturbed();
    assert!(whole.len() > 50_000, "many messages");
    let ends = boundaries(&whole);
    let mut told = 0;
    for time in 0..times {
        // Right at the start, inside headers, inside values, and every fifth time exactly between two messages.
        let anywhere = whole.len() * time / times + time % 7;
        let broken_after = match time % 5 {
            0 => ends[ends.partition_point(|&end| end <= anywhere) - 1] as i64,
            _ => anywhere as i64,
        };
        let got = ask(broken_after);
        assert!(got.len() < whole.len(), "the reset after {broken_after} bytes came through");
        told += usize::from(assert_front_and_farewell(&got, &whole));
    }
    println!("{told} of {times} clients could be told");
    if sslmode == "disable" {
        assert!(told >= times / 5, "only {told} of {times} clients were told");
    }
    assert_eq!(undisturbed(), whole, "after {times} resets");
    server.await_idle(database, PLACES);
    assert_whole(&target, PLACES);
    gprxy.assert_alive();
}

#[test]
fn a_server_that_resets_in_mid_row_100_times_leaves_no_wrong_byte_and_an_idle_pool() {
    resets_in_mid_row("disable", "server_resets", 100);
}

#[test]
fn a_server_that_resets_in_mid_row_over_tls_leaves_no_wrong_byte_and_an_idle_pool() {
    resets_in_mid_row("verify-full", "server_resets_tls", 40);
}

#[test]
fn a_server_that_is_killed_and_restarted_under_load_is_used_again_and_nobody_gets_a_wrong_answer() {
    const CLIENTS: usize = 8;
    let server = Cluster::leaked(Version::V15);
    let mut gprxy = Config::with(server, Provider::shared()).pool_of(4).set("pool.server_login_retry", "200ms").start();
    let target = gprxy.target("bob").in_plaintext();
    let stop = Arc::new(AtomicBool::new(false));
    // Per client: answers so far, and complaints so far.
    let counts: Arc<Vec<[AtomicUsize; 2]>> = Arc::new((0..CLIENTS).map(|_| Default::default()).collect());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (target, stop, counts) = (target.clone(), stop.clone(), counts.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    match one_session(&target, client) {
                        Ok(()) => counts[client][0].fetch_add(1, Ordering::SeqCst),
                        Err(complaint) => {
                            if let Some(complaint) = complaint {
                                assert_tells_of_the_server(&complaint);
                            }
                            counts[client][1].fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    let each_had_one_more = |kind: usize, what: &str| {
        let before: Vec<usize> = counts.iter().map(|count| count[kind].load(Ordering::SeqCst)).collect();
        eventually(what, || {
            counts.iter().zip(&before).all(|(count, &before)| count[kind].load(Ordering::SeqCst) > before).then_some(())
        });
    };
    each_had_one_more(0, "an answer for everybody");
    server.stop();
    each_had_one_more(1, "a complaint for everybody");
    server.resume();
    each_had_one_more(0, "an answer for everybody after the restart");
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    // A login that was begun before the restart may fail behind it, and hold up the next ones for a moment.
    eventually("no login is held up", || {
        let all: Option<Vec<Wire>> = (0..4).map(|_| Wire::login(&target).ok()).collect();
        all.map(|all| all.into_iter().for_each(Wire::quit))
    });
    assert_whole(&target, 4);
    gprxy.assert_alive();
}

/// Ten queries; `None` when the connection ended inside a message, where nothing can be said any more.
fn one_session(target: &Target, client: usize) -> Result<(), Option<Complaint>> {
    let mut wire = Wire::login(target).map_err(Some)?;
    for number in 0..10 {
        let tag = format!("{client}-{number}");
        if wire.try_send(&query(&format!("select '{tag}' from generate_series(1, 50)"))).is_err() {
            return Err(wire.drain());
        }
        let mut rows = 0;
        loop {
            let message = wire.read().ok_or(None)?;
            match message.tag {
                'D' => {
                    assert_eq!(message.columns(), [Some(tag.clone())], "somebody else's row");
                    rows += 1;
                }
                'E' => return Err(Some(message.complaint())),
                'Z' => break,
                _ => {}
            }
        }
        assert_eq!(rows, 50);
    }
    wire.quit();
    Ok(())
}

#[test]
fn pg_terminate_backend_reaches_every_victim_as_57p01_and_the_pool_recovers() {
    const PLACES: usize = 5;
    let server = Cluster::shared(Version::V15);
    server.create_database("terminated");
    let mut gprxy = Config::new(Version::V15).pool_of(PLACES as i64).queue_wait("20s").start();
    let target = gprxy.target("bob").with_database("terminated");
    for _ in 0..3 {
        let mut victims: Vec<Wire> = (0..PLACES).map(|_| Wire::login(&target).unwrap()).collect();
        // One idle, one in a transaction, the others at work.
        victims[1].rows("begin").unwrap();
        for (number, wire) in victims.iter_mut().enumerate().skip(2) {
            wire.send(&query(&format!("select pg_sleep(3600) /* terminated-{number} */")));
            server.await_running(&format!("terminated-{number}"));
        }
        let waiting = {
            let target = target.clone();
            thread::spawn(move || Wire::login(&target).unwrap().value("select 'served'"))
        };
        server.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'terminated'");
        for mut wire in victims {
            assert_eq!(wire.expect_fatal().code, "57P01");
        }
        assert_eq!(waiting.join().unwrap(), "served", "who waited for a place gets one");
    }
    server.await_idle("terminated", PLACES);
    assert_whole(&target, PLACES);
    gprxy.assert_alive();
}

#[test]
fn a_server_that_resets_at_any_point_of_a_login_is_a_clean_refusal_and_no_leak() {
    const PLACES: usize = 2;
    let server = Cluster::shared(Version::V15);
    server.create_database("login_resets");
    for sslmode in ["disable", "require"] {
        let way = FaultProxy::before(server.port);
        let mut gprxy = behind(&way)
            .pool_of(PLACES as i64)
            .queue_wait("20s")
            .set("databases.*.sslmode", sslmode)
            .set("pool.server_login_retry", "0s")
            .start();
        let target = gprxy.target("bob").in_plaintext().with_database("login_resets");
        // A login has some hundred bytes of the server, over TLS some thousand.
        let (step, most) = if sslmode == "disable" { (13, 4000) } else { (97, 8000) };
        let mut refused = 0;
        for broken_after in (0..most).step_by(step) {
            way.reset_after(broken_after);
            let login = Wire::login(&target);
            way.heal();
            match login {
                Err(complaint) => {
                    assert_eq!(complaint.severity, "FATAL", "{complaint:?}");
                    assert!(complaint.code.starts_with("08"), "after {broken_after} bytes: {complaint:?}");
                    refused += 1;
                }
                // Whatever is left breaks the session behind the login.
                Ok(_) => break,
            }
        }
        assert!(refused > 10, "{sslmode}: only {refused} logins were broken");
        server.await_idle("login_resets", PLACES);
        assert_whole(&target, PLACES);
        gprxy.assert_alive();
    }
}

#[test]
fn a_cancel_that_cannot_be_delivered_is_given_up_and_hurts_nobody() {
    let way = FaultProxy::before(Cluster::shared(Version::V15).port);
    let mut gprxy = behind(&way).pool_of(1).queue_wait("20s").set("limits.cancel_wait_timeout", "500ms").start();
    let target = gprxy.target("bob");
    let mut wire = Wire::login(&target).unwrap();
    wire.send(&query("select pg_sleep(2)::text || 'slept' /* undelivered */"));
    gprxy.server().await_running("undelivered");
    way.set_black_hole(true);
    let (pid, key) = wire.key.clone();
    for _ in 0..3 {
        cancel(&target, pid, &key);
    }
    let answer = wire.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != 'E'), "{answer:?}");
    way.set_black_hole(false);
    assert_eq!(wire.value("select 'usable'"), "usable");
    wire.quit();
    assert_whole(&target, 1);
    gprxy.assert_alive();
}

#[test]
fn a_cancel_on_its_way_is_shown_with_its_pool() {
    let ini =
        Ini::new(Cluster::shared(Version::V15)).user(READER).set("auth_type", "trust").set("admin_users", READER.0);
    let way = FaultProxy::before(ini.server.port);
    let ini = ini.set("server_tls_sslmode", "disable").set("cancel_wait_timeout", "600");
    let entry = format!("{DATABASE} = host=127.0.0.1 port={}", way.port);
    let bouncer = ini.database(&entry).start(Kind::Gprxy);
    let mut wire = Wire::login(&bouncer.target(DATABASE, READER)).unwrap();
    wire.send(&query("select 'slept' from pg_sleep(1) /* shown */"));
    bouncer.ini.server.await_running("shown");
    way.set_black_hole(true);
    let (target, (pid, key)) = (bouncer.target(DATABASE, READER), wire.key.clone());
    let mut console = Wire::login(&bouncer.target("pgbouncer", READER)).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| cancel(&target, pid, &key));
        let under_way = |console: &mut Wire| {
            let rows = table(console, "show pools");
            let pool = rows.into_iter().find(|row| row["database"] == DATABASE).expect("its pool");
            [&pool["cl_active_cancel_req"], &pool["sv_active_cancel"]].map(|count| count.parse::<u32>().unwrap())
        };
        eventually("the cancel to be under way", || (under_way(&mut console) == [1, 1]).then_some(()));
        way.let_go();
        waits.join().unwrap();
        eventually("it to be over", || (under_way(&mut console) == [0, 0]).then_some(()));
    });
}

fn behind(way: &FaultProxy) -> Config {
    Config::new(Version::V15).set("databases.*.port", i64::from(way.port))
}

#[test]
fn a_server_that_never_answers_a_login_is_given_up_after_connect_timeout() {
    let way = FaultProxy::before(Cluster::shared(Version::V15).port);
    way.set_black_hole(true);
    let mut gprxy = behind(&way).set("databases.*.connect_timeout", "500ms").start();
    let target = gprxy.target("bob");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let target = target.clone();
            thread::spawn(move || Wire::login(&target).err().expect("refused"))
        })
        .collect();
    for client in clients {
        let complaint = client.join().unwrap();
        assert_eq!(complaint.severity, "FATAL");
        assert!(complaint.code.starts_with("08") || complaint.code == "57P03", "{complaint:?}");
    }
    assert!(way.accepted() <= 10, "twenty clients are no herd: {} connections", way.accepted());
    way.set_black_hole(false);
    eventually("a login after the black hole", || Wire::login(&target).ok());
    gprxy.assert_alive();
}

#[test]
fn a_session_whose_server_falls_silent_waits_as_with_postgresql_and_the_others_go_on() {
    let way = FaultProxy::before(Cluster::shared(Version::V15).port);
    let mut gprxy = behind(&way).start();
    let target = gprxy.target("bob");
    let mut stuck = Wire::login(&target).unwrap();
    assert_eq!(stuck.value("select 'before'"), "before");
    way.freeze();
    stuck.send(&query("select 'late, and right'"));
    for number in 0..20 {
        let mut other = Wire::login(&target).unwrap();
        assert_eq!(other.value(&format!("select {number}")), number.to_string());
        other.quit();
    }
    way.thaw();
    let answer = stuck.read_until_ready();
    let row = answer.iter().find(|message| message.tag == 'D').expect("a row");
    assert_eq!(row.columns(), [Some("late, and right".to_owned())]);
    gprxy.assert_alive();
}

#[test]
fn a_server_that_falls_silent_in_a_reset_is_not_handed_on() {
    let way = FaultProxy::before(Cluster::shared(Version::V15).port);
    let gprxy = behind(&way).pool_of(1).queue_wait("30s").start();
    let target = gprxy.target("bob");
    let mut first = Wire::login(&target).unwrap();
    first.rows("set work_mem = '7MB'").unwrap();
    let pid = first.value("select pg_backend_pid()");
    way.freeze();
    first.quit();
    let mut next = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
    assert_ne!(next.value("select pg_backend_pid()"), pid);
    assert_eq!(next.value("show work_mem"), "4MB");
}

#[test]
fn a_silent_server_holds_up_neither_its_clients_leaving_nor_a_shutdown() {
    let way = FaultProxy::before(Cluster::shared(Version::V15).port);
    let mut gprxy = behind(&way).set("server.drain_timeout", "1s").start();
    let target = gprxy.target("bob");
    let mut stuck = stuck_session(&gprxy);
    way.freeze();
    let gone = Wire::login(&target).unwrap();
    stuck.send(&query("select pg_sleep(3600)"));
    gone.vanish();
    gprxy.child.signal("TERM");
    assert_eq!(stuck.expect_fatal().code, "57P01");
    eventually("the process to end", || gprxy.child.has_ended().then_some(()));
}

fn stuck_session(gprxy: &Gprxy) -> Wire {
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    assert_eq!(wire.value("select session_user"), WRITER.0);
    wire
}

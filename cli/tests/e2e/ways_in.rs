//! The ways in: addresses and sockets that gprxy listens on, TLS without asking first, protocol versions, and the door.

use std::io::Write;
use std::process::Stdio;

use crate::support::fixtures::{DATABASE, READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::reaper::{Leashed, fresh_path};
use crate::support::target::Target;
use crate::support::wire::{V3_0, V3_2, Wire, cancel, frame, query, startup};
use crate::support::{deps, eventually, psql};

fn packet(version: i32, target: &Target) -> Vec<u8> {
    startup(version, &[("user", &target.user), ("database", &target.database)])
}

#[test]
fn it_listens_on_ipv6() {
    let gprxy = Config::new(Version::V15).set("server.listen_addr", "::1").start();
    let mut target = gprxy.target("alice");
    "::1".clone_into(&mut target.host);
    for target in [target.clone(), target.in_plaintext()] {
        let mut wire = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(wire.value("select session_user"), READER.0, "::1 is this machine, too");
        wire.quit();
    }
    let start = eventually("the audit line of the session", || {
        gprxy.audit().into_iter().find(|line| line.event() == "session_start")
    });
    assert!(start.0["client_addr"].as_str().is_some_and(|address| address.starts_with("[::1]:")), "{start:?}");
}

#[test]
fn it_listens_on_a_unix_socket() {
    let dir = fresh_path("sockets");
    std::fs::create_dir(&dir).unwrap();
    let config = || Config::new(Version::V15).set("server.unix_socket_dir", dir.to_str().unwrap());
    let through_the_socket = |gprxy: &Gprxy| {
        let mut target = gprxy.target("alice").in_plaintext();
        dir.to_str().unwrap().clone_into(&mut target.host);
        psql::run(&target, &["select session_user"]).ok()
    };
    let gprxy = config().allow_plaintext("loopback").start();
    assert_eq!(through_the_socket(&gprxy), READER.0);
    let socket = std::fs::read_dir(&dir).unwrap().next().expect("a socket file").unwrap().path();
    assert!(socket.file_name().is_some_and(|name| name.to_str().is_some_and(|name| name.starts_with(".s.PGSQL."))));

    let mut gprxy = gprxy;
    gprxy.child.signal("TERM");
    eventually("the process to end", || gprxy.child.has_ended().then_some(()));
    assert!(!socket.exists(), "it takes its socket file along");
}

#[test]
fn a_socket_file_of_a_killed_process_is_in_nobodys_way() {
    let dir = fresh_path("sockets");
    std::fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let config = || Config::new(Version::V15).set("server.unix_socket_dir", dir);
    let first = config();
    let port = first.port();
    let mut killed = first.start();
    killed.child.signal("KILL");
    eventually("the process to end", || killed.child.has_ended().then_some(()));
    let second = config().at_port(port).start();
    let mut target = second.target("alice").in_plaintext();
    dir.clone_into(&mut target.host);
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), READER.0);
}

#[test]
fn libpq_18_begins_with_tls_without_asking() {
    let gprxy = Config::new(Version::V18).start();
    let mut program = deps::python("libpq18.py");
    program.arg("direct-tls").envs(gprxy.target("alice").environment());
    let output = program.output().expect("python starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "tls True 42\n", "{err}");
}

#[test]
fn direct_tls_needs_the_alpn_protocol_postgresql() {
    let mut gprxy = Config::new(Version::V15).start();
    let target = gprxy.target("alice");
    let direct = |protocols: &[&str]| Wire::open(&target).shake_hands_for(&target, protocols);

    for right in [&["postgresql"][..], &["h2", "postgresql"]] {
        let mut wire = direct(right);
        wire.send(&packet(V3_0, &target));
        wire.finish_login(&target.password).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(wire.value("select session_user"), READER.0);
    }
    // Another protocol: the handshake itself fails (RFC 7301 section 3.2).
    let mut wire = direct(&["http/1.1"]);
    let sent = wire.try_send(&packet(V3_0, &target));
    assert!(sent.is_err() || wire.read_byte().is_none(), "no answer to a browser");
    // None at all: an old client cannot have meant this (section 54.2.10).
    let mut wire = direct(&[]);
    let _ = wire.try_send(&packet(V3_0, &target));
    if let Some(complaint) = wire.drain() {
        assert_eq!((complaint.severity.as_str(), complaint.code.as_str()), ("FATAL", "08P01"), "{complaint:?}");
    }
    gprxy.assert_alive();
    // Behind an SSLRequest ALPN is not needed, but a wrong one is still wrong.
    assert_eq!(Wire::login(&target).unwrap().value("select 1"), "1");
}

/// Cancels with libpq 18's own code what it runs under protocol 3.2, once the server runs it.
fn libpq_cancels(version: Version) {
    let gprxy = Config::new(version).start();
    let mut program = deps::python("libpq18.py");
    let marker = format!("libpq18-{version:?}");
    program.args(["protocol-3.2", &marker]).envs(gprxy.target("bob").environment());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Leashed::spawn(&mut program);
    gprxy.server().await_running(&marker);
    child.0.stdin.take().expect("piped").write_all(b"now\n").unwrap();
    let ran = psql::join(child);
    assert_eq!(ran.out, "protocol 30002\ncancel 57014\nafter 1\n", "{}", ran.err);
}

#[test]
fn libpq_18_cancels_with_the_long_key_of_protocol_3_2_in_front_of_15() {
    libpq_cancels(Version::V15);
}

#[test]
fn libpq_18_cancels_with_the_long_key_of_protocol_3_2_in_front_of_18() {
    libpq_cancels(Version::V18);
}

#[test]
fn protocol_3_2_has_a_longer_key_and_its_first_four_bytes_are_not_enough() {
    let gprxy = Config::new(Version::V18).start();
    let target = gprxy.target("bob");
    let mut wire = Wire::open_tls(&target);
    wire.send(&packet(V3_2, &target));
    wire.finish_login(&target.password).unwrap();
    let (pid, key) = wire.key.clone();
    assert!(key.len() > 4, "a key of {} bytes", key.len());
    let marker = "long-key";
    wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
    gprxy.server().await_running(marker);
    cancel(&target, pid, &key[..4]);
    let mut longer = key.clone();
    longer.push(0);
    cancel(&target, pid, &longer);
    assert!(!gprxy.server().sql(&still_running(marker)).is_empty(), "a part of the key is no key");
    cancel(&target, pid, &key);
    let answer = wire.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"), "{answer:?}");
}

fn still_running(marker: &str) -> String {
    format!(
        "select pid from pg_stat_activity where state = 'active' and strpos(query, '{marker} *') > 0 and pid <> pg_backend_pid()"
    )
}

#[test]
fn replication_is_refused_with_a_reason() {
    let gprxy = Config::new(Version::V15).start();
    let target = gprxy.target("alice");
    for value in ["1", "true", "on", "yes", "database"] {
        let error = Wire::login_with(&target, &[("replication", value)]).err().expect("refused");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "0A000"), "{value}: {error:?}");
        assert!(error.message.contains("replication"), "{error:?}");
    }
    let mut wire = Wire::login_with(&target, &[("replication", "false")]).unwrap();
    assert_eq!(wire.value("select 1"), "1");
}

#[test]
fn more_clients_than_max_client_conn_are_told_so_over_tls_and_may_still_cancel() {
    let mut gprxy = Config::new(Version::V15).set("limits.max_client_conn", 3).start();
    let target = gprxy.target("bob");
    let mut inside: Vec<Wire> = (0..3).map(|_| login_when_there_is_room(&target)).collect();
    let refused = Wire::login(&target).err().expect("one too many");
    assert_eq!((refused.severity.as_str(), refused.code.as_str()), ("FATAL", "53300"), "{refused:?}");
    for target in [target.clone(), target.clone().in_plaintext()] {
        // libpq shows nothing that comes in place of an answer to its SSLRequest.
        let shown = psql::run(&target, &["select 1"]).failed();
        assert!(shown.contains("max_client_conn"), "{shown}");
    }
    inside[0].send(&query("select pg_sleep(25) /* crowded */"));
    gprxy.server().await_running("crowded");
    let (pid, key) = inside[0].key.clone();
    cancel(&target, pid, &key);
    let answer = inside[0].read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"), "{answer:?}");

    // A crowd beyond the crowd is not even listened to.
    let crowd: Vec<Wire> = (0..30).map(|_| Wire::open(&target)).collect();
    let mut last = Wire::open(&target);
    let complaint = last.expect_fatal();
    assert_eq!(complaint.code, "53300", "{complaint:?}");
    for wire in &mut inside {
        assert_eq!(wire.value("select 1"), "1", "those inside noticed nothing");
    }
    drop(crowd);
    inside.pop().unwrap().quit();
    assert_eq!(login_when_there_is_room(&target).value("select 1"), "1");
    gprxy.assert_alive();
}

/// A connection that has just closed still counts for a moment.
fn login_when_there_is_room(target: &Target) -> Wire {
    eventually("room for a client", || (psql::run(target, &["select 1"]).code == 0).then_some(()));
    eventually("room for a client", || {
        let mut wire = Wire::open(target);
        wire.send(&crate::support::wire::SSL_REQUEST);
        if wire.read_byte() != Some(b'S') {
            return None;
        }
        let mut wire = wire.shake_hands(target);
        wire.send(&packet(V3_0, target));
        wire.finish_login(&target.password).ok().map(|()| wire)
    })
}

#[test]
fn a_client_that_waits_in_the_queue_is_cancelled_by_the_key_it_got_before_its_turn() {
    let gprxy = Config::new(Version::V15).pool_of(1).queue_wait("60s").start();
    let target = gprxy.target("bob");
    let mut holder = Wire::login(&target).unwrap();
    for version in [V3_0, V3_2] {
        let mut waiting = Wire::open_tls(&target);
        waiting.send(&packet(version, &target));
        assert_eq!(waiting.read().map(|message| message.tag), Some('R'));
        waiting.send(&frame('p', format!("{}\0", target.password).as_bytes()));
        let key = loop {
            let message = waiting.read().expect("a key");
            match message.tag {
                'K' => break message.body,
                'E' => panic!("{:?}", message.complaint()),
                _ => {}
            }
        };
        // It may have its key a moment before it stands in the queue; the notice comes from there.
        while waiting.notices.is_empty() {
            waiting.read().expect("a notice about the wait");
        }
        cancel(&target, i32::from_be_bytes(key[..4].try_into().unwrap()), &key[4..]);
        let complaint = waiting.expect_fatal();
        assert_eq!(complaint.code, "57014", "{complaint:?}");
    }
    assert_eq!(holder.value("select session_user"), WRITER.0, "the one whose turn it was noticed nothing");
    holder.quit();
    assert_eq!(
        Wire::login(&target.with_database(DATABASE)).unwrap().value("select 1"),
        "1",
        "the queue is empty again"
    );
}

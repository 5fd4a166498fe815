//! Several processes behind one address: a cancel request reaches the one that has the session.

use std::net::TcpListener;

use crate::console::table;
use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::fixtures::{DATABASE, READER, SCRAM};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::reaper::fresh_path;
use crate::support::target::Target;
use crate::support::wire::{V3_0, V3_2, Wire, cancel, cancel_and_leave, query, startup};
use crate::support::{eventually, psql, tls};

impl Config {
    fn numbered(self, number: i64) -> Self {
        self.set("server.peer_id", number)
    }

    /// The process that listens at this port is its peer of this number.
    fn with_peer(self, number: u16, port: u16) -> Self {
        let of = |name: &str| format!("peers.{number}.{name}");
        self.set(&of("host"), "127.0.0.1")
            .set(&of("port"), i64::from(port))
            .set(&of("sslmode"), "verify-full")
            .set(&of("sslrootcert"), tls::pki().ca.to_str().unwrap())
    }
}

/// Two processes that know each other.
fn pair(version: Version) -> (Gprxy, Gprxy) {
    let (first, second) = (Config::new(version).numbered(1), Config::new(version).numbered(2));
    let (one, two) = (first.port(), second.port());
    // Both have both, as one file for all of them would.
    let start = |config: Config| config.with_peer(1, one).with_peer(2, two).start();
    (start(first), start(second))
}

fn login(version: i32, target: &Target) -> Wire {
    let mut wire = Wire::open_tls(target);
    wire.send(&startup(version, &[("user", &target.user), ("database", &target.database)]));
    wire.finish_login(&target.password).unwrap_or_else(|error| panic!("{error:?}"));
    wire
}

#[track_caller]
fn assert_cancelled(wire: &mut Wire) {
    let answer = wire.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"), "{answer:?}");
}

/// A key that a process of this number may have made.
fn forged(number: i32) -> (i32, [u8; 4]) {
    ((number << 17) | 77, [0xff; 4])
}

fn passes_on(version: Version) {
    let (mut first, mut second) = pair(version);
    let (here, there) = (first.target("bob"), second.target("bob"));
    for (protocol, width) in [(V3_0, 4), (V3_2, 32)] {
        let mut wire = login(protocol, &here);
        let mut other = login(protocol, &there);
        let (pid, secret) = wire.key.clone();
        assert_eq!((secret.len(), pid >> 17), (width, 1));
        other.send(&query(&format!("select pg_sleep(25) /* other-{width} */")));
        here.server.await_running(&format!("other-{width}"));
        for (turn, target) in [&there, &there.clone().in_plaintext(), &here].into_iter().enumerate() {
            let marker = format!("peer-{width}-{turn}");
            wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
            here.server.await_running(&marker);
            // What is wrong in any place reaches nothing: it is answered by its end, so it has been dealt with.
            let mut wrong = secret.clone();
            wrong[0] ^= 1;
            cancel(target, pid, &wrong);
            cancel(target, pid, &secret[..3]);
            cancel(target, pid ^ 1, &secret);
            cancel(target, pid ^ (1 << 20), &secret);
            here.server.await_running(&marker);
            // Some drivers do not wait.
            let send = if turn == 0 { cancel_and_leave } else { cancel };
            send(target, pid, &secret);
            assert_cancelled(&mut wire);
            assert_eq!(wire.value("select 'still here'"), "still here");
        }
        here.server.await_running(&format!("other-{width}"));
        let (pid, secret) = other.key.clone();
        cancel(&here, pid, &secret);
        assert_cancelled(&mut other);
        wire.quit();
        other.quit();
    }
    for (gprxy, peer) in [(&first, 2), (&second, 1)] {
        let log = gprxy.log();
        assert!(log.contains(&format!("a cancel request is passed on to peer {peer}")), "{log}");
        assert!(!log.contains("not delivered") && !log.contains("WARN"), "{log}");
    }
    first.assert_alive();
    second.assert_alive();
}

#[test]
fn a_cancel_at_another_process_reaches_the_one_that_has_the_session_on_15() {
    passes_on(Version::V15);
}

#[test]
fn a_cancel_at_another_process_reaches_the_one_that_has_the_session_on_18() {
    passes_on(Version::V18);
}

/// libpq's own code at psql's Ctrl-C: it goes to wherever the kernel sends it.
fn behind_one_port(version: Version) {
    let directories = [(); 2].map(|()| {
        let directory = fresh_path("peer");
        std::fs::create_dir(&directory).unwrap();
        directory
    });
    let first = Config::new(version).set("server.so_reuseport", true);
    let port = first.port();
    let second = Config::new(version).set("server.so_reuseport", true).at_port(port);
    let start = |config: Config, number: usize| {
        let mut config = config.numbered(i64::try_from(number).unwrap());
        for (nth, directory) in directories.iter().enumerate() {
            let of = |name: &str| format!("peers.{}.{name}", nth + 1);
            config = config.set(&of("host"), directory.to_str().unwrap()).set(&of("port"), i64::from(port));
        }
        config.set("server.unix_socket_dir", directories[number - 1].to_str().unwrap()).start()
    };
    let (first, second) = (start(first, 1), start(second, 2));
    let target = first.target("bob");
    let passed_on = || [&first, &second].map(|it| it.log().matches("is passed on to peer").count());
    let mut turn = 0;
    while turn < 10 || passed_on().contains(&0) {
        turn += 1;
        assert!(turn < 100, "{:?} were passed on", passed_on());
        let marker = format!("reuseport-{version:?}-{turn}.");
        let psql = psql::background(&target, &format!("select pg_sleep(25) /* {marker} */"));
        target.server.await_running(&marker);
        psql.signal("INT");
        let ran = psql::join(psql);
        assert!(ran.err.contains("57014"), "{ran:?}");
        target.server.await_gone(&marker);
    }
    for gprxy in [first, second] {
        assert!(!gprxy.log().contains("not delivered"), "{}", gprxy.log());
    }
}

#[test]
fn control_c_works_with_two_processes_at_one_port_on_15() {
    behind_one_port(Version::V15);
}

#[test]
fn control_c_works_with_two_processes_at_one_port_on_18() {
    behind_one_port(Version::V18);
}

#[test]
fn a_peer_that_is_down_silent_or_unknown_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config::new(Version::V15).numbered(1).set("limits.cancel_wait_timeout", "500ms");
    let mut gprxy = config
        // Port 1 belongs to nobody here.
        .with_peer(2, 1)
        .with_peer(3, silent.local_addr().unwrap().port())
        .set("peers.3.sslmode", "disable")
        .start();
    let target = gprxy.target("bob");
    let mut wire = Wire::login(&target).unwrap();
    for number in [2, 3, 4] {
        let (pid, key) = forged(number);
        cancel(&target.clone().in_plaintext(), pid, &key);
    }
    let log = gprxy.log();
    assert!(log.contains("a cancel request was not delivered to peer 2 at 127.0.0.1:1: "), "{log}");
    assert!(log.contains("it is not known whether a cancel request was delivered to peer 3"), "{log}");
    assert!(!log.contains("peer 4"), "{log}");
    wire.send(&query("select pg_sleep(25) /* alone */"));
    target.server.await_running("alone");
    let (pid, secret) = wire.key.clone();
    cancel(&target, pid, &secret);
    assert_cancelled(&mut wire);
    gprxy.assert_alive();
}

#[test]
fn a_key_travels_to_a_peer_as_its_sslmode_says() {
    let plain = Config::new(Version::V15).numbered(2).without_tls();
    let plain_port = plain.port();
    let first = Config::new(Version::V15).numbered(1).with_peer(2, plain_port);
    let plain = plain.start();
    let mut first = first.start();
    let there = plain.target("bob").in_plaintext();
    let mut wire = Wire::login(&there).unwrap();
    wire.send(&query("select pg_sleep(25) /* no-tls */"));
    there.server.await_running("no-tls");
    let (pid, secret) = wire.key.clone();
    let here = first.target("bob");
    cancel(&here, pid, &secret);
    let log = first.log();
    assert!(log.contains("not delivered to peer 2 at 127.0.0.1:"), "{log}");
    assert!(log.contains("does not offer TLS for the cancel request"), "{log}");
    there.server.await_running("no-tls");
    // The peers of a reload count from then on.
    let told = first.reload(|config| config.set("peers.2.sslmode", "prefer").unset_in("peers", "2", "sslrootcert"));
    assert!(told.contains("are in force"), "{told}");
    cancel(&here, pid, &secret);
    assert_cancelled(&mut wire);

    // A certificate of somebody else.
    let (mut first, second) = {
        let (first, second) = (Config::new(Version::V15).numbered(1), Config::new(Version::V15).numbered(2));
        let port = second.port();
        let other = tls::pki().stranger.to_str().unwrap();
        (first.with_peer(2, port).set("peers.2.sslrootcert", other).start(), second.start())
    };
    let there = second.target("bob");
    let mut wire = Wire::login(&there).unwrap();
    wire.send(&query("select pg_sleep(25) /* stranger */"));
    there.server.await_running("stranger");
    let (pid, secret) = wire.key.clone();
    cancel(&first.target("bob"), pid, &secret);
    assert!(first.log().contains("a cancel request was not delivered to peer 2"), "{}", first.log());
    there.server.await_running("stranger");
    cancel(&there, pid, &secret);
    assert_cancelled(&mut wire);
    first.assert_alive();
}

#[test]
fn a_circle_of_wrong_addresses_ends() {
    let (first, second) = (Config::new(Version::V15).numbered(1), Config::new(Version::V15).numbered(2));
    let (one, two) = (first.port(), second.port());
    let (first, second) = (first.with_peer(3, two).start(), second.with_peer(3, one).start());
    let (pid, key) = forged(3);
    cancel(&first.target("bob"), pid, &key);
    let count = |gprxy: &Gprxy| gprxy.log().matches("a cancel request is passed on to peer 3").count();
    assert_eq!((count(&first), count(&second)), (2, 1));
}

#[test]
fn a_peer_id_holds_until_the_next_start() {
    let (mut first, second) = pair(Version::V15);
    let (here, there) = (first.target("bob"), second.target("bob"));
    let mut before = Wire::login(&here).unwrap();
    let told = first.reload(|config| config.numbered(5));
    assert!(told.contains("peer_id is \"5\" now, and \"1\" until gprxy is started again"), "{told}");
    let mut after = Wire::login(&here).unwrap();
    for (wire, marker) in [(&mut before, "reload-before"), (&mut after, "reload-after")] {
        assert_eq!(wire.key.0 >> 17, 1);
        wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
        here.server.await_running(marker);
        let (pid, secret) = wire.key.clone();
        cancel(&there, pid, &secret);
        assert_cancelled(wire);
    }
}

/// Three processes at one port, each with a socket of its own, as PgBouncer's manual has them.
fn three(server: &'static Cluster) -> [Bouncer; 3] {
    let inis = [(); 3].map(|()| {
        let ini = Ini::new(server).database(&format!("{DATABASE} = SERVER")).user(SCRAM).user(READER);
        ini.set("auth_type", "trust").set("so_reuseport", "1").set("admin_users", READER.0).set("verbose", "1")
    });
    let port = inis[0].port;
    let lines = inis.each_ref().map(|ini| format!("host={} port={port}", ini.dir.display()));
    let mut number = 0;
    inis.map(|mut ini| {
        number += 1;
        for (nth, line) in lines.iter().enumerate().filter(|(nth, _)| nth + 1 != number) {
            ini = ini.peer(&format!("{} = {line}{}", nth + 1, if nth == 2 { " pool_size=7" } else { "" }));
        }
        ini.at_port(port).set("peer_id", &number.to_string()).start(Kind::Gprxy)
    })
}

#[test]
fn peers_of_a_pgbouncer_ini_are_peers() {
    let server = Cluster::shared(Version::V15);
    let mut all = three(server);
    let [first, second, third] = &all;
    // Which of them has a session is known at the sockets only.
    let mut wire = Wire::login(&first.at_socket(DATABASE, SCRAM)).unwrap();
    let (pid, secret) = wire.key.clone();
    for (nth, way) in [second, third, first].into_iter().enumerate() {
        let marker = format!("ini-peer-{nth}");
        wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
        server.await_running(&marker);
        cancel(&way.at_socket(DATABASE, SCRAM), pid, &secret);
        assert_cancelled(&mut wire);
    }
    let target = first.target(DATABASE, SCRAM);
    for turn in 0..10 {
        let marker = format!("ini-turn-{turn}.");
        let psql = psql::background(&target, &format!("select pg_sleep(25) /* {marker} */"));
        server.await_running(&marker);
        psql.signal("INT");
        let ran = psql::join(psql);
        assert!(ran.err.contains("57014"), "{ran:?}");
    }

    let mut console = Wire::login(&first.at_socket("pgbouncer", READER)).unwrap();
    let rows: Vec<_> = table(&mut console, "show peers")
        .into_iter()
        .map(|row| ["peer_id", "host", "port", "pool_size"].map(|name| row[name].clone()).join(" "))
        .collect();
    let port = first.ini.port;
    let shown = |number: usize, size: u32| format!("{number} {} {port} {size}", all[number - 1].ini.dir.display());
    assert_eq!(rows, [shown(2, 100), shown(3, 7)]);
    let rows: Vec<_> = table(&mut console, "show peer_pools");
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["cl_active_cancel_req"] == "0" && row["sv_login"] == "0"), "{rows:?}");

    // The first one takes nobody new, and its client can still be cancelled.
    wire.send(&query("select pg_sleep(25) /* ini-leaving */"));
    server.await_running("ini-leaving");
    drop(console);
    first.child.signal("TERM");
    eventually("it to take nobody but at its console", || Wire::login(&first.at_socket(DATABASE, SCRAM)).err());
    cancel(&second.at_socket(DATABASE, SCRAM), pid, &secret);
    assert_cancelled(&mut wire);
    wire.quit();
    all[0].await_end();
}

#[test]
fn what_is_on_its_way_to_a_peer_is_shown() {
    let server = Cluster::shared(Version::V15);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let ini = Ini::new(server).database(&format!("{DATABASE} = SERVER")).user(READER).set("auth_type", "trust");
    let ini = ini.set("admin_users", READER.0).set("peer_id", "1").set("server_tls_sslmode", "disable");
    let bouncer = ini.peer(&format!("2 = host=127.0.0.1 port={port} pool_size=1")).start(Kind::Gprxy);
    let mut console = Wire::login(&bouncer.target("pgbouncer", READER)).unwrap();
    let target = bouncer.target(DATABASE, READER);
    let (pid, key) = forged(2);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| cancel(&target, pid, &key));
        eventually("the request to be under way", || {
            let rows = table(&mut console, "show peer_pools");
            let is_out = rows[0]["cl_active_cancel_req"] == "1" && rows[0]["sv_active_cancel"] == "1";
            (is_out && rows[0]["cl_waiting_cancel_req"] == "0" && rows[0]["sv_login"] == "0").then_some(())
        });
        // There is no place for a second one.
        cancel(&target, pid, &key);
        assert!(bouncer.log().contains("too many cancel requests are under way to peer 2"), "{}", bouncer.log());
        // Its end is the end of the first.
        drop(silent.accept().unwrap());
        waits.join().unwrap();
    });
    eventually("it to be over", || {
        (table(&mut console, "show peer_pools")[0]["cl_active_cancel_req"] == "0").then_some(())
    });
}

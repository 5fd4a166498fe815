//! Clients that vanish, come by the thousand, say nothing, say it a byte at a time, or do not read what they asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::gprxy::{Config, Gprxy};
use crate::support::limits::{self, raise_own_descriptors};
use crate::support::postgres::{Cluster, Version};
use crate::support::target::Target;
use crate::support::wire::{SSL_REQUEST, V3_0, Wire, frame, query, startup};

fn packet(target: &Target) -> Vec<u8> {
    startup(V3_0, &[("user", &target.user), ("database", &target.database)])
}

/// Somebody who works all the while: each answer must be right, and there must be some.
struct Worker {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn start(target: Target) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (stop.clone(), answers.clone());
        let mut wire = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                assert_eq!(wire.value(&format!("select 'answer {number}'")), format!("answer {number}"));
                count.store(number + 1, Ordering::SeqCst);
            }
            wire.quit();
        });
        Self { stop, answers, thread }
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.answers.load(Ordering::SeqCst)
    }
}

#[track_caller]
fn assert_no_accept_failed(gprxy: &Gprxy) {
    let log = gprxy.log();
    assert!(!log.contains("accepting a client failed"), "{log}");
}

#[test]
fn clients_that_reset_in_mid_row_100_times_leave_an_idle_pool_and_no_wrong_byte() {
    const PLACES: usize = 4;
    let server = Cluster::shared(Version::V15);
    server.create_database("client_resets");
    let mut gprxy = Config::new(Version::V15).pool_of(PLACES as i64).queue_wait("60s").start();
    let (tls, clear) = (gprxy.target("bob").with_database("client_resets"), gprxy.target("bob").in_plaintext());
    let clear = clear.with_database("client_resets");
    let work: Mutex<VecDeque<usize>> = Mutex::new((0..100).collect());
    thread::scope(|scope| {
        for _ in 0..PLACES {
            scope.spawn(|| {
                while let Some(time) = { work.lock().unwrap().pop_front() } {
                    let target = if time % 4 == 0 { &tls } else { &clear };
                    let mut wire = Wire::login(target).unwrap_or_else(|error| panic!("{time}: {error:?}"));
                    // Who came before left a result of millions of rows behind.
                    assert_eq!(wire.value(&format!("select 'mine {time}'")), format!("mine {time}"));
                    wire.send(&query(&format!("select '{time}' || repeat('x', 100) from generate_series(1, 5000000)")));
                    wire.skip(1 + time * 997);
                    wire.vanish();
                }
            });
        }
    });
    server.await_idle("client_resets", PLACES);
    let mut sessions: Vec<Wire> = (0..PLACES).map(|_| Wire::login(&tls).unwrap()).collect();
    for (number, wire) in sessions.iter_mut().enumerate() {
        assert_eq!(wire.value(&format!("select 'place {number}'")), format!("place {number}"));
    }
    gprxy.assert_alive();
}

#[test]
fn five_thousand_connects_at_once_are_all_taken_and_nobody_else_is_held_up() {
    const CLIENTS: usize = 5000;
    const AT_ONCE: usize = 4;
    raise_own_descriptors();
    let mut gprxy = Config::new(Version::V15).set("log.level", "info").start();
    let target = gprxy.target("alice").in_plaintext();
    let worker = Worker::start(gprxy.target("bob"));
    let mut all: Vec<Wire> = thread::scope(|scope| {
        let connect = |_| {
            scope.spawn(|| {
                let open = |number: usize| {
                    let mut wire = Wire::open(&target);
                    // A third says nothing, a third asks for TLS, a third begins a session.
                    match number % 3 {
                        0 => {}
                        1 => wire.send(&SSL_REQUEST),
                        _ => wire.send(&packet(&target)),
                    }
                    wire
                };
                (0..CLIENTS / AT_ONCE).map(open).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..AT_ONCE).map(connect).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // Everybody who asked is answered, the last ones too.
    for (number, wire) in all.iter_mut().enumerate() {
        match number % (CLIENTS / AT_ONCE) % 3 {
            0 => {}
            1 => assert_eq!(wire.read_byte(), Some(b'S'), "client {number}"),
            _ => assert_eq!(wire.read().map(|message| message.tag), Some('R'), "client {number}"),
        }
    }
    let before = worker.answers();
    let mut one_more = Wire::login(&gprxy.target("alice")).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(one_more.value("select 'served'"), "served");
    // Half of them leave in order, half with a reset.
    for (number, wire) in all.into_iter().enumerate() {
        if number % 2 == 0 { wire.vanish() } else { drop(wire) }
    }
    assert_eq!(one_more.value("select 'still served'"), "still served");
    assert!(worker.finish() > before, "the one at work went on");
    crate::support::eventually("every descriptor to be closed", || {
        (limits::descriptors(gprxy.child.pid()) < 200).then_some(())
    });
    assert_no_accept_failed(&gprxy);
    gprxy.assert_alive();
}

#[test]
fn a_thousand_silent_connections_are_sent_away_in_time_while_others_work() {
    raise_own_descriptors();
    let mut gprxy = Config::new(Version::V15).set("limits.client_login_timeout", "2s").start();
    let target = gprxy.target("alice").in_plaintext();
    let worker = Worker::start(gprxy.target("bob"));
    let mut silent: Vec<Wire> = (0..1000)
        .map(|number| {
            let mut wire = Wire::open(&target);
            match number % 4 {
                0 => {}
                1 => wire.send(&packet(&target)[..5]),
                2 => wire.send(&SSL_REQUEST),
                _ => wire.send(&packet(&target)),
            }
            wire
        })
        .collect();
    let mut other = Wire::login(&gprxy.target("alice")).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(other.value("select 1"), "1");
    for wire in &mut silent {
        // Each ends by itself; a proxy that kept one would run into the patience of this test.
        wire.rest();
    }
    assert_eq!(other.value("select 'a session is no login' from pg_sleep(0.1)"), "a session is no login");
    assert!(worker.finish() > 0);
    assert_no_accept_failed(&gprxy);
    gprxy.assert_alive();
}

#[test]
fn a_hundred_clients_start_a_byte_at_a_time_and_all_get_in() {
    let mut gprxy = Config::new(Version::V15).pool_of(5).queue_wait("60s").start();
    let target = gprxy.target("alice").in_plaintext();
    let packet = packet(&target);
    let password = frame('p', format!("{}\0", target.password).as_bytes());
    let mut clients: Vec<Wire> = (0..100).map(|_| Wire::open(&target)).collect();
    // One byte of each in turn: all of them are half-way at the same time.
    for byte in &packet {
        for wire in &mut clients {
            wire.send(&[*byte]);
        }
    }
    let mut clients: VecDeque<Wire> = clients.into();
    for wire in &mut clients {
        assert_eq!(wire.read().map(|message| message.tag), Some('R'));
    }
    for piece in password.chunks(17) {
        for wire in &mut clients {
            wire.send(piece);
        }
    }
    // The pool has five places: whoever is served makes room for the next.
    let clients: Vec<_> = clients
        .into_iter()
        .map(|mut wire| {
            thread::spawn(move || {
                wire.finish_login("").unwrap_or_else(|error| panic!("{error:?}"));
                assert_eq!(wire.value("select 'in'"), "in");
                wire.quit();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    gprxy.assert_alive();
}

#[test]
fn readers_that_do_not_read_a_large_result_cost_neither_memory_nor_the_others_time() {
    let mut gprxy = Config::new(Version::V15).pool_of(10).start();
    let target = gprxy.target("bob");
    let mut warm = Wire::login(&target).unwrap();
    warm.value("select length(repeat('x', 10000000))");
    let before = limits::anonymous_kib(gprxy.child.pid());
    let mut readers: Vec<Wire> = (0..5)
        .map(|number| {
            let mut wire =
                Wire::login(&if number % 2 == 0 { target.clone() } else { target.clone().in_plaintext() }).unwrap();
            wire.send(&query("select repeat('y', 10000000) from generate_series(1, 20)"));
            // The first bytes are there, so the server is at it.
            wire.skip(100);
            wire
        })
        .collect();
    for number in 0..200 {
        assert_eq!(warm.value(&format!("select {number}")), number.to_string());
    }
    let grown = limits::anonymous_kib(gprxy.child.pid()).saturating_sub(before);
    assert!(grown < 5 * 1024, "grew by {grown} KiB for five results of 200 MB that nobody reads");
    // One changes its mind and reads all of it.
    let mut late = readers.remove(0);
    late.skip(100_000_000);
    drop(readers);
    assert_eq!(warm.value("select 'fine'"), "fine");
    gprxy.assert_alive();
}

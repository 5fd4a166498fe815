//! Bytes that no driver sends. Whoever sends them loses their own connection; the process and the others go on.

use std::time::{Duration, Instant};

use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::target::Target;
use crate::support::wire::{GSSENC_REQUEST, SSL_REQUEST, V3_0, V3_2, Wire, cancel, frame, parse, query, startup};

fn proxy() -> Gprxy {
    Config::new(Version::V15).start()
}

/// It still runs, and serves.
#[track_caller]
fn assert_serves(gprxy: &mut Gprxy) {
    gprxy.assert_alive();
    let mut wire = Wire::login(&gprxy.target("alice")).unwrap_or_else(|error| panic!("{error:?}\n{}", gprxy.log()));
    assert_eq!(wire.value("select 'serves'"), "serves");
}

fn packet(target: &Target) -> Vec<u8> {
    startup(V3_0, &[("user", &target.user), ("database", &target.database)])
}

#[test]
fn never_again_04_anything_behind_a_gssenc_request() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice");
    for behind in
        [query("select 1"), frame('p', b"secret\0"), vec![0; 64], SSL_REQUEST.to_vec(), packet(&target), vec![]]
    {
        let mut wire = Wire::open(&target);
        wire.send(&GSSENC_REQUEST);
        assert_eq!(wire.read_byte(), Some(b'N'), "no GSSAPI encryption here");
        let _ = wire.try_send(&behind);
        wire.vanish();
        gprxy.assert_alive();
    }
    // And the way that libpq goes: GSSENCRequest, SSLRequest, startup.
    let mut wire = Wire::open(&target);
    wire.send(&GSSENC_REQUEST);
    assert_eq!(wire.read_byte(), Some(b'N'));
    wire.send(&SSL_REQUEST);
    assert_eq!(wire.read_byte(), Some(b'S'));
    let mut wire = wire.shake_hands(&target);
    wire.send(&packet(&target));
    wire.finish_login(&target.password).unwrap();
    assert_serves(&mut gprxy);
}

#[test]
fn never_again_04_endless_requests_for_encryption() {
    let mut gprxy = Config::new(Version::V15).without_tls().start();
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut wire = Wire::open(&gprxy.target("alice"));
        let mut answers = 0;
        while wire.try_send(&request).is_ok() && wire.read_byte() == Some(b'N') {
            answers += 1;
            assert!(answers < 100, "the same request is answered again and again");
        }
    }
    assert_serves_in_clear(&mut gprxy);
}

#[track_caller]
fn assert_serves_in_clear(gprxy: &mut Gprxy) {
    gprxy.assert_alive();
    let mut wire = Wire::login(&gprxy.target("alice").in_plaintext()).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(wire.value("select 'serves'"), "serves");
}

#[test]
fn never_again_04_thousands_of_connections_come_and_go() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice").in_plaintext();
    for round in 0..3000 {
        let mut wire = Wire::open(&target);
        match round % 6 {
            0 => {}
            1 => wire.send(&SSL_REQUEST),
            2 => wire.send(&packet(&target)),
            3 => wire.send(&packet(&target)[..9]),
            4 => {
                wire.send(&packet(&target));
                let _ = wire.read();
            }
            _ => wire.send(b"GET / HTTP/1.1\r\n\r\n"),
        }
        if round % 2 == 0 {
            wire.vanish();
        }
    }
    for _ in 0..100 {
        let wire = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
        wire.quit();
    }
    assert_serves(&mut gprxy);
}

#[test]
fn bytes_behind_an_ssl_request_are_never_taken_for_what_comes_over_tls() {
    // CVE-2021-23214: what an attacker put in front of the handshake must not be read as if it were encrypted.
    let mut gprxy = proxy();
    let target = gprxy.target("alice");
    let mut wire = Wire::open(&target);
    wire.send(&[SSL_REQUEST.to_vec(), packet(&target)].concat());
    let first = wire.read_byte();
    assert!(matches!(first, None | Some(b'E')), "refused, not answered with {first:?}");
    assert_serves(&mut gprxy);
}

#[test]
fn connect_and_close_is_no_event() {
    let mut gprxy = Config::new(Version::V15).set("log.level", "info").start();
    let before = gprxy.log();
    for _ in 0..20 {
        drop(Wire::open(&gprxy.target("alice")));
    }
    // A real session behind them: whatever they caused has been logged by its end.
    assert_serves(&mut gprxy);
    let log = gprxy.log();
    let added = log[before.len()..].lines().count();
    assert!(added < 10, "{added} lines for twenty port scans and one session:\n{log}");
}

#[test]
fn a_startup_packet_may_come_a_byte_at_a_time_and_a_token_in_crumbs() {
    let mut gprxy = proxy();
    for target in [gprxy.target("grace"), gprxy.target("grace").in_plaintext()] {
        let mut wire = if target.sslmode == "disable" { Wire::open(&target) } else { Wire::open_tls(&target) };
        for byte in packet(&target) {
            wire.send(&[byte]);
        }
        assert_eq!(wire.read().map(|message| message.tag), Some('R'));
        let answer = frame('p', format!("{}\0", target.password).as_bytes());
        assert!(answer.len() > 8192, "longer than a usual buffer");
        let (head, tail) = answer.split_at(100);
        for byte in head {
            wire.send(&[*byte]);
        }
        for crumb in tail.chunks(61) {
            wire.send(crumb);
        }
        wire.finish_login("").unwrap();
        assert_eq!(wire.value("select 1"), "1");
    }
    assert_serves(&mut gprxy);
}

#[test]
fn startup_packets_of_every_wrong_shape() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice").in_plaintext();
    let with_length = |length: i32, rest: &[u8]| [&length.to_be_bytes(), rest].concat();
    let version = V3_0.to_be_bytes();
    let no_terminator = [&version[..], b"user\0alice"].concat();
    for (bytes, why) in [
        (with_length(10_000_000, &version), "ten megabytes announced"),
        (with_length(-1, &version), "a negative length"),
        (with_length(i32::MAX, &version), "the largest length"),
        (with_length(0, &[]), "no length at all"),
        (with_length(7, &[0, 3, 0]), "shorter than a version"),
        (with_length(i32::try_from(no_terminator.len() + 4).unwrap(), &no_terminator), "without a terminator"),
        (startup(V3_0, &[("database", "appdb")]), "without a user"),
        (startup(V3_0, &[("user", "")]), "an empty user"),
        (startup(0x0002_0000, &[("user", "alice")]), "protocol 2.0"),
        (startup(0x0004_0000, &[("user", "alice")]), "protocol 4.0"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "a browser"),
        (query("select 1"), "a query without a startup"),
    ] {
        let mut wire = Wire::open(&target);
        wire.send(&bytes);
        if let Some(message) = wire.read() {
            assert_eq!(message.tag, 'E', "{why}: {message:?}");
            assert_eq!(message.complaint().severity, "FATAL", "{why}");
            assert_eq!(wire.read(), None, "{why}");
        }
        gprxy.assert_alive();
    }
    assert_serves(&mut gprxy);
}

#[test]
fn a_ten_megabyte_startup_packet_is_not_even_read() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice").in_plaintext();
    let mut wire = Wire::open(&target);
    let huge = startup(V3_0, &[("user", "alice"), ("options", &"x".repeat(10_000_000))]);
    // It may well be refused before all of it was taken.
    let _ = wire.try_send(&huge);
    wire.drain();
    assert_serves(&mut gprxy);
}

#[test]
fn newer_minor_versions_and_unknown_options_are_negotiated_exactly_once() {
    for version in [Version::V15, Version::V18] {
        let gprxy = Config::new(version).start();
        let target = gprxy.target("alice");
        for protocol in [V3_2, 0x0003_0003, 0x0003_270f] {
            let mut wire = Wire::open_tls(&target);
            let parameters = [("user", target.user.as_str()), ("database", &target.database), ("_pq_.anything", "on")];
            wire.send(&startup(protocol, &parameters));
            let negotiate = wire.read().expect("an answer");
            assert_eq!(negotiate.tag, 'v', "{protocol:#x}");
            let offered = i32::from_be_bytes(negotiate.body[..4].try_into().unwrap());
            assert!([V3_0, V3_2].contains(&offered), "{offered:#x} for {protocol:#x}");
            assert_eq!(&negotiate.body[4..8], 1_i32.to_be_bytes(), "one unknown option");
            assert_eq!(&negotiate.body[8..], b"_pq_.anything\0");
            assert_eq!(wire.read().map(|message| message.tag), Some('R'), "exactly one NegotiateProtocolVersion");
            wire.send(&frame('p', format!("{}\0", target.password).as_bytes()));
            wire.finish_login("").unwrap();
            assert_eq!(wire.value("select 1"), "1");
        }
    }
}

#[test]
fn after_login_wrong_messages_end_that_connection_only() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice");
    let mut witness = Wire::login(&target).unwrap();
    let length = |tag: u8, length: i32| [&[tag], &length.to_be_bytes()[..]].concat();
    for (bytes, why) in [
        (frame('!', b"what"), "an unknown message"),
        (frame('Z', b"I"), "a message that only servers send"),
        (frame('T', b"\0\0"), "another"),
        (length(b'Q', 3), "a length below four"),
        (length(b'Q', -5), "a negative length"),
        (length(b'S', i32::MAX), "a Sync of two gigabytes"),
        (startup(V3_0, &[("user", "alice")]), "a second startup"),
    ] {
        let mut wire = Wire::login(&target).unwrap();
        wire.send(&bytes);
        let complaint = wire.expect_fatal();
        assert_eq!(complaint.code, "08P01", "{why}: {complaint:?}");
        assert_eq!(witness.value("select 1"), "1", "{why}");
    }
    assert_serves(&mut gprxy);
}

#[test]
fn wrong_answers_to_the_password_request() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice").in_plaintext();
    for (answer, why) in [
        (query("select 1"), "a query"),
        (frame('p', b""), "nothing in it"),
        (frame('p', b"no terminator"), "no terminator"),
        (frame('p', &[b'x'; 100_000]), "more than 64 KiB"),
        ([&b"p"[..], &i32::MAX.to_be_bytes()].concat(), "two gigabytes announced"),
        ([&b"p"[..], &(-1_i32).to_be_bytes()].concat(), "a negative length"),
        (frame('X', b""), "a farewell"),
    ] {
        let mut wire = Wire::open(&target);
        wire.send(&packet(&target));
        assert_eq!(wire.read().map(|message| message.tag), Some('R'));
        let _ = wire.try_send(&answer);
        if let Some(complaint) = wire.drain() {
            assert!(["08P01", "28P01", "28000", "53400"].contains(&complaint.code.as_str()), "{why}: {complaint:?}");
        }
    }
    assert_serves(&mut gprxy);
}

#[test]
fn never_again_14_who_does_not_log_in_in_time_is_sent_away() {
    let gprxy = Config::new(Version::V15).set("limits.client_login_timeout", "1s").start();
    let target = gprxy.target("alice").in_plaintext();
    let silent = Wire::open(&target);
    let mut half = Wire::open(&target);
    half.send(&packet(&target)[..9]);
    let mut no_password = Wire::open(&target);
    no_password.send(&packet(&target));
    let mut no_handshake = Wire::open(&target);
    no_handshake.send(&SSL_REQUEST);
    let begun = Instant::now();
    for mut wire in [silent, half, no_password] {
        wire.drain();
    }
    while no_handshake.read_byte().is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(25), "each ended by the proxy, not by this test's patience");
    let mut session = Wire::login(&target).unwrap();
    assert_eq!(session.value("select 'a session is not a login' from pg_sleep(1.5)"), "a session is not a login");
}

#[test]
fn never_again_14_unauthenticated_clients_cannot_make_it_hold_memory() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice").in_plaintext();
    assert_serves(&mut gprxy);
    let before = resident_kib(gprxy.child.pid());
    let mut clients: Vec<Wire> = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::open(&target);
        wire.send(&packet(&target));
        assert_eq!(wire.read().map(|message| message.tag), Some('R'));
        // As much of a password as is announced, less one byte: it can never be finished.
        wire.send(&[&b"p"[..], &60_000_i32.to_be_bytes(), &[b'x'; 50_000]].concat());
        clients.push(wire);
    }
    for _ in 0..50 {
        let mut wire = Wire::open(&target);
        let _ = wire.try_send(&[&1_000_000_000_i32.to_be_bytes()[..], &[0; 100_000]].concat());
        clients.push(wire);
    }
    assert_serves(&mut gprxy);
    let grown = resident_kib(gprxy.child.pid()).saturating_sub(before);
    // 50 unfinished tokens of at most 64 KiB are three megabytes; the rest is slack for the allocator.
    assert!(grown < 24 * 1024, "grew by {grown} KiB for 100 clients without a login");
    drop(clients);
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).expect("a number").parse().unwrap()
}

#[test]
fn cancel_requests_of_strangers_and_cripples() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice");
    // Four bytes in protocol 3.0, up to 256 since 3.2.
    for secret in [vec![0; 4], vec![9; 32], vec![7; 256]] {
        cancel(&target, 1234, &secret);
    }
    for length in [0_i32, 8, 12, 13, 12 + 257] {
        let mut wire = Wire::open(&target);
        let rest = [&[0x04, 0xd2, 0x16, 0x2e][..], &[1; 300]].concat();
        wire.send(&[&length.to_be_bytes(), &rest[..]].concat());
        wire.drain();
    }
    let mut half = Wire::open(&target);
    half.send(&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0]);
    half.half_close();
    half.drain();
    let mut endless = Wire::open(&target);
    let _ = endless.try_send(&[&[0x7f, 0xff, 0xff, 0xff, 0x04, 0xd2, 0x16, 0x2e][..], &[1; 1000]].concat());
    endless.drain();
    assert_serves(&mut gprxy);
}

#[test]
fn half_open_connections_cost_the_others_nothing() {
    let mut gprxy = proxy();
    let target = gprxy.target("alice");
    let idle: Vec<Wire> = (0..200).map(|_| Wire::open(&target)).collect();
    let mut closed = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::login(&target).err().map_or_else(|| Wire::open(&target), |error| panic!("{error:?}"));
        wire.half_close();
        closed.push(wire);
    }
    assert_serves(&mut gprxy);
    for mut wire in closed {
        wire.drain();
    }
    drop(idle);
}

#[test]
fn a_flood_in_one_session_does_not_starve_another() {
    let gprxy = proxy();
    let mut flood = Wire::login(&gprxy.target("bob")).unwrap();
    // Parse after Parse without a Sync and without reading: the proxy may stop reading, but must go on serving.
    let batch: Vec<u8> = (0..200).flat_map(|_| parse("", &format!("select '{}'", "x".repeat(400)))).collect();
    let handle = std::thread::spawn(move || {
        for _ in 0..200 {
            if flood.try_send(&batch).is_err() {
                break;
            }
        }
        flood.vanish();
    });
    let mut other = Wire::login(&gprxy.target("alice")).unwrap();
    for number in 0..100 {
        assert_eq!(other.value(&format!("select {number}")), number.to_string());
    }
    handle.join().unwrap();
}

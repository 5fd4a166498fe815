//! What runs out: the disk under the audit trail, file descriptors, and the memory that strangers may take.

use crate::support::gprxy::Config;
use crate::support::limits::{self, raise_own_descriptors};
use crate::support::postgres::Version;
use crate::support::wire::{SSL_REQUEST, V3_0, Wire, frame, startup};
use crate::support::{audit, eventually};

/// Files end here. The log at `error` stays far below it.
const FULL: u64 = 256 * 1024;

/// A disk of [`FULL`] bytes, without being root: RLIMIT_FSIZE, and the signal that goes with it ignored, so that a
/// write is cut short and then fails, as on a full disk.
fn with_a_small_disk(on_failure: &str) -> Config {
    Config::new(Version::V15)
        .launched_by(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .set("audit.on_failure", on_failure)
        .set("log.level", "error")
}

#[test]
fn a_full_disk_under_the_audit_file_refuses_statements_until_there_is_room_and_tears_no_line() {
    let mut gprxy = with_a_small_disk("refuse").start();
    limits::set(gprxy.child.pid(), &format!("--fsize={FULL}:unlimited"));
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let padding = "x".repeat(6000);
    let mut ran: Vec<String> = Vec::new();
    let mut refused = 0;
    // Twice as many as there is room for: some run, and from some point on none.
    for number in 0..90 {
        let statement = format!("select 'full-{number}' /* {padding} */");
        match wire.rows(&statement) {
            Ok(rows) => {
                assert_eq!(rows, [format!("full-{number}")]);
                ran.push(statement);
            }
            Err(complaint) => {
                assert_eq!((complaint.severity.as_str(), complaint.code.as_str()), ("ERROR", "58030"));
                refused += 1;
            }
        }
        if refused == 0 {
            // The writer has its own pace: it shall be full before we are through.
            eventually("the line of a statement that ran, or the full disk", || {
                let length = std::fs::metadata(gprxy.audit_path()).unwrap().len();
                (length >= FULL || gprxy.audit_text().contains(&format!("full-{number}'"))).then_some(())
            });
        }
    }
    assert!(refused > 0 && ran.len() > 20, "{} ran, {refused} were refused", ran.len());
    assert_eq!(std::fs::metadata(gprxy.audit_path()).unwrap().len(), FULL, "the last line was cut by the full disk");
    assert!(!gprxy.audit_text().ends_with('\n'), "and this test would see a torn line");

    limits::set(gprxy.child.pid(), "--fsize=unlimited:unlimited");
    let after = "select 'there is room again'";
    eventually("statements to run again", || wire.rows(after).ok());
    gprxy.await_audited("there is room again");
    let recorded: Vec<String> =
        audit::read(gprxy.audit_path()).iter().filter_map(|line| line.statement().map(str::to_owned)).collect();
    let expected: Vec<String> = ran.into_iter().chain([after.to_owned()]).collect();
    assert_eq!(recorded, expected, "what ran is recorded once, whole and in order; what was refused is not");
    wire.quit();
    gprxy.assert_alive();
}

#[test]
fn a_full_disk_under_the_audit_file_stops_nobody_where_losses_are_only_counted() {
    let mut gprxy = with_a_small_disk("count").set("audit.queue", 16).start();
    limits::set(gprxy.child.pid(), &format!("--fsize={}:unlimited", FULL / 4));
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let padding = "x".repeat(6000);
    for number in 0..90 {
        assert_eq!(wire.value(&format!("select 'count-{number}' /* {padding} */")), format!("count-{number}"));
    }
    eventually("the losses to be told", || gprxy.log().contains("records lost").then_some(()));
    limits::set(gprxy.child.pid(), "--fsize=unlimited:unlimited");
    eventually("a statement to be recorded again", || {
        wire.value("select 'there is room again'");
        audit::read(gprxy.audit_path())
            .iter()
            .any(|line| line.statement().is_some_and(|text| text.contains("again")))
            .then_some(())
    });
    gprxy.assert_alive();
}

#[test]
fn without_file_descriptors_sessions_go_on_new_ones_fail_cleanly_and_it_recovers() {
    let mut gprxy = Config::new(Version::V15).set("pool.server_login_retry", "0s").pool_of(50).start();
    let target = gprxy.target("bob").in_plaintext();
    let mut inside = Wire::login(&target).unwrap();
    let idle = eventually("nothing but the one session", || {
        let open = limits::descriptors(gprxy.child.pid());
        inside.value("select 1");
        (limits::descriptors(gprxy.child.pid()) == open).then_some(open)
    });
    let limit = idle + 10;
    limits::set(gprxy.child.pid(), &format!("--nofile={limit}:{limit}"));

    // Each takes a descriptor for itself, and those that get in one more for their server.
    let mut crowd: Vec<Wire> = (0..40).map(|_| Wire::open(&target)).collect();
    for wire in &mut crowd {
        let _ = wire.try_send(&startup(V3_0, &[("user", &target.user), ("database", &target.database)]));
    }
    eventually("the last descriptor to be taken", || gprxy.log().contains("Too many open files").then_some(()));
    for number in 0..20 {
        assert_eq!(inside.value(&format!("select 'inside {number}'")), format!("inside {number}"));
    }
    // Somebody who was accepted, and for whom no connection to the server can be opened.
    let asked = eventually("some who were accepted", || crowd.iter_mut().position(Wire::has_something));
    let mut unlucky = crowd.swap_remove(asked);
    let complaint = unlucky.finish_login(&target.password).expect_err("no descriptor is left for the server's socket");
    assert_eq!(complaint.severity, "FATAL", "{complaint:?}");
    assert!(complaint.code.starts_with("08") || complaint.code.starts_with("53"), "{complaint:?}");

    crowd.into_iter().for_each(Wire::vanish);
    let user = eventually("a new session", || {
        let mut wire = Wire::open(&target);
        wire.send(&startup(V3_0, &[("user", &target.user), ("database", &target.database)]));
        wire.finish_login(&target.password).ok().map(|()| wire.value("select session_user"))
    });
    assert_eq!(user, target.account);
    assert_eq!(inside.value("select 'still inside'"), "still inside");
    gprxy.assert_alive();
    assert!(
        gprxy.log().lines().filter(|line| line.contains("Too many open")).count() < 40,
        "a shortage is no reason to fill the log"
    );
}

/// What a thousand strangers cost for each of them, in a process that has seen nobody else.
fn memory_of_strangers(what: &str, say: impl Fn(&mut Wire, &[u8], &[u8])) {
    const STRANGERS: u64 = 1000;
    raise_own_descriptors();
    let gprxy = Config::new(Version::V15).set("log.level", "info").start();
    let target = gprxy.target("alice").in_plaintext();
    let pid = gprxy.child.pid();
    let packet = startup(V3_0, &[("user", &target.user), ("database", &target.database)]);
    let token = frame('p', format!("{}\0", target.password).as_bytes());
    let tls = gprxy.target("alice");
    // Whatever is there once for all of them is there now.
    Wire::login(&tls).unwrap().quit();
    let before = limits::anonymous_kib(pid);
    let strangers: Vec<Wire> = (0..STRANGERS)
        .map(|_| {
            let mut wire = Wire::open(&target);
            say(&mut wire, &packet, &token);
            wire
        })
        .collect();
    // A session behind them: what they said has been taken in.
    Wire::login(&tls).unwrap_or_else(|error| panic!("{error:?}")).quit();
    let each = limits::anonymous_kib(pid).saturating_sub(before) * 1024 / STRANGERS;
    println!("{STRANGERS} connections with {what}: {each} bytes each");
    assert!(each <= 16 * 1024, "{what}: {each} bytes each");
    drop(strangers);
}

#[test]
fn memory_of_half_a_startup_packet_is_bounded() {
    memory_of_strangers("half a startup packet", |wire, packet, _| wire.send(&packet[..packet.len() / 2]));
}

#[test]
fn memory_of_half_a_token_is_bounded() {
    memory_of_strangers("half a token", |wire, packet, token| {
        wire.send(packet);
        assert_eq!(wire.read().map(|message| message.tag), Some('R'));
        wire.send(&token[..token.len() / 2]);
    });
}

#[test]
fn memory_of_half_a_handshake_is_bounded() {
    memory_of_strangers("half a handshake", |wire, _, _| {
        wire.send(&SSL_REQUEST);
        assert_eq!(wire.read_byte(), Some(b'S'));
        // The front of a ClientHello of 500 bytes (RFC 8446 section 4).
        wire.send(&[0x16, 3, 1, 1, 0xf4, 1, 0, 1, 0xf0, 3, 3, 7, 7, 7, 7]);
    });
}
#[test]
fn memory_of_a_silent_client_is_small() {
    memory_of_strangers("nothing said", |_, _, _| {});
}

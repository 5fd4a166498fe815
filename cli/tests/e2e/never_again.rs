//! One test at least for each of the nineteen mistakes of the first gprxy; those that have a file of their own subject
//! are there, under the same kind of name (`never_again_NN_…`):
//!
//! | number | where |
//! |---|---|
//! | 01 mapped account, 12 tokens in clear | `login.rs` |
//! | 02 claimed name in the audit, 16 secrets in logs | `audit_trail.rs` |
//! | 04 one crash ends all, 14 memory and deadlines before login | `hostile.rs` |
//! | 07 shifted answers, 14 waiting clients, 15 the sixth session | `pool.rs` |
//! | 11 plaintext to PostgreSQL, unverified proxy | `upstream.rs`, `sso_psql.rs` |
//! | 05, 06, 08 extended protocol, idle clients, startup parameters | here, as the long form of `relay.rs` |
//! | 03, 09, 10, 13, 18, 19 | here |
//! | 17 `login` and `connect` | here, `sso.rs`, `sso_renewal.rs`, `sso_psql.rs` |

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::support::desk::{Desk, visit};
use crate::support::fixtures::DATABASE;
use crate::support::gprxy::Config;
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::reaper::free_port;
use crate::support::wire::{Wire, cancel, frame, parse, query};
use crate::support::{eventually, psql};

#[test]
fn never_again_03_a_database_name_is_a_name_and_nothing_else() {
    let gprxy = Config::new(Version::V15).start();
    let port = free_port();
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    stranger.set_nonblocking(true).unwrap();
    for name in [
        format!("x?host=127.0.0.1&port={port}&sslmode=disable"),
        format!("{DATABASE}?host=127.0.0.1&port={port}&sslmode=disable"),
        format!("{DATABASE} host=127.0.0.1 port={port} sslmode=disable"),
        format!("host=127.0.0.1 port={port}"),
        format!("postgres://127.0.0.1:{port}/x"),
        "appdb'; drop table notes; --".to_owned(),
        "../appdb".to_owned(),
    ] {
        let error = Wire::login(&gprxy.target("bob").with_database(&name)).err().expect("no such database");
        assert_eq!(error.code, "3D000", "{name}: {error:?}");
    }
    assert!(stranger.accept().is_err(), "the stranger was called");
}

#[test]
fn never_again_05_clients_of_the_extended_protocol_do_not_deadlock_nor_lock_a_name_out() {
    let gprxy = Config::new(Version::V15).pool_of(5).queue_wait("20s").start();
    let target = gprxy.target("bob");
    for _ in 0..6 {
        let mut wire = Wire::login(&target).unwrap();
        wire.send(&[parse("", "select 1"), frame('H', b"")].concat());
        assert_eq!(wire.read().map(|message| message.tag), Some('1'));
        wire.send(&[frame('C', b"S\0"), frame('H', b"")].concat());
        assert_eq!(wire.read().map(|message| message.tag), Some('3'));
        wire.vanish();
    }
    assert_eq!(Wire::login(&target).unwrap().value("select 1"), "1");
}

#[test]
fn never_again_06_an_idle_client_hears_of_notifications_and_of_its_servers_death() {
    let gprxy = Config::new(Version::V15).start();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let pid = wire.value("select pg_backend_pid()");
    wire.rows("listen never_again").unwrap();
    for number in 0..3 {
        gprxy.server().sql(&format!("notify never_again, '{number}'"));
        assert_eq!(wire.read().map(|message| message.tag), Some('A'), "without a query of its own");
    }
    gprxy.server().sql(&format!("select pg_terminate_backend({pid})"));
    assert_eq!(wire.expect_fatal().code, "57P01");
}

#[test]
fn never_again_08_startup_parameters_hold_in_psql_too() {
    let gprxy = Config::new(Version::V15).start();
    let mut command = psql::command(&gprxy.target("alice"));
    command.args(["-c", "show timezone", "-c", "show application_name", "-c", "show client_encoding"]);
    command.args(["-c", "show search_path"]);
    command.env("PGTZ", "America/Lima").env("PGAPPNAME", "nightly report").env("PGCLIENTENCODING", "WIN1252");
    command.env("PGOPTIONS", "-c search_path=pg_catalog");
    assert_eq!(psql::finish(command).ok(), "America/Lima\nnightly report\nWIN1252\npg_catalog");
}

#[test]
fn never_again_09_the_key_of_a_former_session_cancels_nobody() {
    let gprxy = Config::new(Version::V15).pool_of(1).start();
    let target = gprxy.target("bob");
    let former = Wire::login(&target).unwrap();
    let (pid, secret) = former.key.clone();
    former.quit();
    let mut next = Wire::login(&target).unwrap();
    assert_ne!(next.key.1, secret, "every session has a key of its own, also on the same server connection");
    let marker = "former-key";
    next.send(&query(&format!("select pg_sleep(1)::text || 'slept' /* {marker} */")));
    gprxy.server().await_running(marker);
    for _ in 0..5 {
        cancel(&target, pid, &secret);
    }
    let answer = next.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != 'E'), "{answer:?}");
    let server_pid: i32 = next.value("select pg_backend_pid()").parse().unwrap();
    assert_ne!(next.key.0, server_pid, "the server's own key is not handed out");
}

#[test]
fn never_again_10_keys_that_left_the_set_are_not_trusted_and_unknown_ones_are_asked_for_once() {
    let provider: &'static Provider = Box::leak(Box::new(Provider::start()));
    let gprxy = Config::with(Cluster::shared(Version::V15), provider).start();
    let target = gprxy.target("alice");
    let old = provider.mint(json!({}));
    Wire::login(&target.clone().with_password(&old)).unwrap().quit();

    // A rotation while clients connect: the first token of a new key makes the proxy look, and is let in.
    provider.rotate_and_drop();
    let new = provider.mint(json!({}));
    Wire::login(&target.clone().with_password(&new)).unwrap().quit();
    let error = Wire::login(&target.clone().with_password(&old)).err().expect("its key left the set");
    assert_eq!(error.code, "28P01");

    // A flood of made-up key ids costs one request at most, and stalls nobody.
    let before = provider.jwks_requests();
    for number in 0..20 {
        let token = provider.mint_with(json!({ "kid": format!("made-up-{number}") }));
        assert_eq!(Wire::login(&target.clone().with_password(&token)).err().expect("unknown").code, "28P01");
    }
    Wire::login(&target.clone().with_password(&new)).unwrap().quit();
    let asked = provider.jwks_requests() - before;
    assert!(asked <= 1, "asked {asked} times");

    // An outage of the provider: known keys go on working.
    provider.set_jwks_down(true);
    let token = provider.mint_with(json!({ "kid": "made-up-during-the-outage" }));
    Wire::login(&target.clone().with_password(&token)).err().expect("refused");
    Wire::login(&target.with_password(&new)).unwrap().quit();
}

#[test]
fn never_again_13_a_shutdown_lets_running_queries_finish() {
    let mut gprxy = Config::new(Version::V15).start();
    let target = gprxy.target("bob");
    let mut idle = Wire::login(&target).unwrap();
    let mut busy = Wire::login(&target).unwrap();
    busy.send(&query("select pg_sleep(1.5)::text || 'finished' /* drained */"));
    gprxy.server().await_running("drained");
    gprxy.child.signal("TERM");
    let answer = busy.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'D'), "{answer:?}");
    assert_eq!(idle.expect_fatal().code, "57P01");
    eventually("the process to end", || gprxy.child.has_ended().then_some(()));
    assert!(gprxy.child.0.wait().unwrap().success(), "a drain that ended in time is a success:\n{}", gprxy.log());
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let mut gprxy = Config::new(Version::V15).start();
    let mut busy = Wire::login(&gprxy.target("bob")).unwrap();
    busy.send(&query("select pg_sleep(3600) /* endless-drain */"));
    gprxy.server().await_running("endless-drain");
    gprxy.child.signal("TERM");
    // Two signals at once may arrive as one: the second waits until the first has been heard.
    let target = gprxy.target("bob");
    eventually("the drain to begin", || (psql::run(&target, &["select 1"]).code != 0).then_some(()));
    gprxy.child.signal("TERM");
    eventually("the process to end", || gprxy.child.has_ended().then_some(()));
    gprxy.server().await_gone("endless-drain");
}

#[test]
fn never_again_17_a_provider_that_answers_an_error_ends_the_login_and_its_words_stay_text() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let url = login.opened();
    let (_, rest) = url.split_once("redirect_uri=http%3A%2F%2F127.0.0.1%3A").expect("a callback on this machine");
    let port = rest.split('%').next().expect("a port");
    let (status, page) = visit(&format!(
        "http://127.0.0.1:{port}/callback?error=%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cimg%20src=x%3E"
    ));
    assert_eq!(status, 400);
    assert!(
        page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert") && !page.contains("<img"),
        "{page}"
    );
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the provider refuses the login"), "{}", ran.err);
}

#[test]
fn never_again_18_every_refusal_has_its_own_sqlstate() {
    let gprxy = Config::new(Version::V15).pool_of(1).queue_wait("1s").start();
    let target = gprxy.target("bob");
    let code = |target: &crate::support::target::Target| Wire::login(target).err().expect("refused").code;
    assert_eq!(code(&target.clone().with_password("eyJ.x.y")), "28P01");
    assert_eq!(code(&target.clone().with_user("ceo@corp.example")), "28000");
    assert_eq!(code(&target.clone().with_database("nowhere")), "3D000");
    let mut holder = Wire::login(&target).unwrap();
    assert_eq!(code(&target), "53300");
    assert_eq!(holder.rows("select * from no_such_table").unwrap_err().code, "42P01", "the server's own come through");
    holder.send(&frame('!', b""));
    assert_eq!(holder.expect_fatal().code, "08P01");
}

#[test]
fn never_again_19_a_large_value_streams_through_a_small_process() {
    let gprxy = Config::new(Version::V15).start();
    let target = gprxy.target("bob").in_plaintext();
    let mut wire = Wire::login(&target).unwrap();
    wire.value("select 1");
    let before = peak_kib(gprxy.child.pid());
    // Read slowly enough that whatever the proxy would hold, it would have to hold.
    wire.send(&query("select repeat('x', 200000000)"));
    std::thread::sleep(Duration::from_millis(500));
    let answer = wire.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'D' && message.body.len() == 200_000_006));
    wire.send(&query(&format!("select length('{}')", "y".repeat(50_000_000))));
    wire.read_until_ready();
    let grown = peak_kib(gprxy.child.pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "grew by {grown} KiB for a value of 200 MB");
}

#[test]
fn never_again_19_queries_are_not_logged_line_by_line() {
    let gprxy = Config::new(Version::V15).set("log.level", "info").start();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let before = gprxy.log().lines().count();
    for number in 0..100 {
        wire.value(&format!("select {number}"));
    }
    let added = gprxy.log().lines().count() - before;
    assert!(added <= 2, "{added} log lines for 100 queries");
}

fn peak_kib(pid: u32) -> u64 {
    let mut status = String::new();
    std::fs::File::open(format!("/proc/{pid}/status")).unwrap().read_to_string(&mut status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak size");
    line.split_whitespace().nth(1).expect("a number").parse().unwrap()
}

//! Both runtimes tell the same story: one scenario on each, and the log lines and the audit
//! records are equal.

use serde_json::Value;

use crate::support::eventually;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::wire::{Wire, bind, cancel, describe_and_execute, frame, parse, query, sync};

const DATABASE: &str = "story";
/// The reader's and the writer's, with a pool of one connection for each.
const ACCOUNTS: usize = 2;

/// Everything that a proxy decides about people, one after the other, so that the order of the lines is the story's.
fn story(runtime: &str) -> Told {
    let mut gprxy = Config::new(Version::V15)
        .on_runtime(runtime)
        .set("server.workers", 1)
        // The libraries' own lines are none of the story.
        .env("RUST_LOG", "gprxy=debug,gprxy_proto=debug")
        .pool_of(1)
        .queue_wait("400ms")
        .start();
    // The probe that waits for the proxy to listen is a session, too.
    eventually("the probe's end", || gprxy.log().contains("ended: Untouched").then_some(()));
    sessions_that_work(&gprxy);
    sessions_that_are_refused(&gprxy);
    a_query_that_is_cancelled(&gprxy);
    a_client_that_is_lost(&gprxy);
    let mut last = Wire::login(&gprxy.target("bob").with_database(DATABASE)).unwrap();
    last.rows("begin").unwrap();
    gprxy.child.signal("TERM");
    eventually("the drain to begin", || gprxy.log().contains("shutting down").then_some(()));
    last.send(&query("commit"));
    last.drain();
    eventually("the process to end", || gprxy.child.has_ended().then_some(()));
    Told {
        // The probe may come before or behind the line that it waits for.
        log: gprxy.log().lines().filter(|line| !line.ends_with("ended: Untouched")).map(normal_log).collect(),
        audit: gprxy.audit().into_iter().map(|line| normal_audit(line.0)).collect(),
    }
}

#[derive(PartialEq, Debug)]
struct Told {
    log: Vec<String>,
    audit: Vec<Value>,
}

/// Returns when so many sessions that had begun are over, with their server connection back.
fn await_ends(gprxy: &Gprxy, ends: usize) {
    eventually("the end of a session in the audit trail", || {
        (gprxy.audit().iter().filter(|line| line.event() == "session_end").count() == ends).then_some(())
    });
    gprxy.server().await_idle(DATABASE, ACCOUNTS);
}

fn sessions_that_work(gprxy: &Gprxy) {
    let mut alice = Wire::login(&gprxy.target("alice").with_database(DATABASE)).unwrap();
    assert_eq!(alice.value("select 'simple'"), "simple");
    assert_eq!(alice.rows("select 1/0").unwrap_err().code, "22012");
    alice.send(&[parse("", "select $1"), bind("", &["extended"]), describe_and_execute(), sync()].concat());
    alice.read_until_ready();
    alice.quit();
    await_ends(gprxy, 1);
    let mut bob = Wire::login(&gprxy.target("bob").with_database(DATABASE).in_plaintext()).unwrap();
    bob.rows("create temp table c (n int)").unwrap();
    bob.send(&[query("copy c from stdin"), frame('d', b"1\n2\n"), frame('c', b"")].concat());
    bob.read_until_ready();
    bob.rows("copy c to stdout").unwrap();
    bob.send(&[query("copy c from stdin"), frame('f', b"changed my mind\0")].concat());
    bob.read_until_ready();
    bob.quit();
    await_ends(gprxy, 2);
}

fn sessions_that_are_refused(gprxy: &Gprxy) {
    let bob = gprxy.target("bob").with_database(DATABASE);
    for target in [
        bob.clone().with_user("ceo@corp.example"),
        bob.clone().with_password("no token"),
        bob.clone().with_database("no_such_database"),
    ] {
        Wire::login(&target).err().expect("refused");
    }
    // A pool of one, whose place is taken.
    let holder = Wire::login(&bob).unwrap();
    assert_eq!(Wire::login(&bob).err().expect("refused").code, "53300");
    holder.quit();
    await_ends(gprxy, 3);
}

fn a_query_that_is_cancelled(gprxy: &Gprxy) {
    let target = gprxy.target("bob").with_database(DATABASE);
    let mut wire = Wire::login(&target).unwrap();
    wire.send(&query("select pg_sleep(3600) /* cancelled story */"));
    gprxy.server().await_running("cancelled story");
    let (pid, key) = wire.key.clone();
    cancel(&target, pid, &key);
    let answer = wire.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"));
    wire.quit();
    await_ends(gprxy, 4);
}

fn a_client_that_is_lost(gprxy: &Gprxy) {
    let mut wire = Wire::login(&gprxy.target("bob").with_database(DATABASE)).unwrap();
    wire.send(&query("select pg_sleep(3600) /* lost story */"));
    gprxy.server().await_running("lost story");
    wire.vanish();
    await_ends(gprxy, 5);
    gprxy.server().await_gone("lost story");
}

/// A line without its time and what was measured; of the numbers that are drawn anew in each run only what follows from
/// the story.
fn normal_log(line: &str) -> String {
    let (_, rest) = line.split_once(' ').expect("a time, then the line");
    let rest = without_span(rest);
    let words = rest.split(' ').map(|word| {
        let (bare, tail) = word.split_at(word.trim_end_matches([':', ',', ';', '.']).len());
        format!("{}{tail}", normal_word(bare))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Who waited too long is told how long: 400 ms, or a little more.
fn without_span(text: &str) -> String {
    match text.split_once("became free within ") {
        Some((front, tail)) => format!("{front}became free within …{}", tail.trim_start_matches(char::is_numeric)),
        None => text.to_owned(),
    }
}

fn normal_word(word: &str) -> String {
    match word.rsplit_once(':') {
        Some((host, _)) if host.ends_with("127.0.0.1") => format!("{host}:port"),
        _ if word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => format!("session-{}", &word[8..]),
        _ => word.to_owned(),
    }
}

fn normal_audit(mut line: Value) -> Value {
    for name in ["session_id", "client_addr"] {
        if let Some(text) = line[name].as_str() {
            line[name] = normal_word(text).into();
        }
    }
    if let Some(reason) = line["reason"].as_str() {
        line["reason"] = without_span(reason).into();
    }
    for name in ["time", "duration_us"] {
        if let Some(value) = line.get_mut(name).filter(|value| !value.is_null()) {
            *value = "measured".into();
        }
    }
    line
}

#[test]
fn the_same_scenario_has_the_same_log_lines_and_the_same_audit_records() {
    Cluster::shared(Version::V15).create_database(DATABASE);
    let (tokio, smol) = (story("tokio"), story("smol"));
    assert_eq!(tokio.log.join("\n"), smol.log.join("\n"));
    assert_eq!(tokio.audit, smol.audit);
    for event in ["proxy_start", "session_start", "statement", "session_end", "refusal"] {
        assert!(tokio.audit.iter().any(|line| line["event"] == event), "the story has a {event}");
    }
    println!("{}\n{} audit records", tokio.log.join("\n"), tokio.audit.len());
}

//! One line for each statement, under the verified name.

use serde_json::json;

use crate::support::fixtures::{DATABASE, READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::wire::{Wire, bind, describe_and_execute, frame, parse, query, sync};
use crate::support::{eventually, psql};

fn proxy() -> Gprxy {
    Config::new(Version::V15).start()
}

#[test]
fn never_again_02_a_statement_stands_under_the_verified_name_not_the_claimed_one() {
    let gprxy = proxy();
    psql::run(&gprxy.target("alice").with_user("reader"), &["select 'audit-identity'"]).ok();
    let line = gprxy.await_audited("audit-identity");
    assert_eq!(line.user(), Some("alice@corp.example"));
    assert_eq!(line.subject(), Some("alice"));
    assert_eq!(line.issuer(), Some(Provider::shared().issuer.as_str()));
    assert_eq!(line.account(), Some(READER.0));
    assert_eq!(line.database(), Some(DATABASE));
    let refused = Wire::login(&gprxy.target("alice").with_user("ceo@corp.example")).err().expect("refused");
    assert_eq!(refused.code, "28000");
    eventually("a line about the refusal", || {
        gprxy.audit().into_iter().find(|line| line.event() == "refusal" && line.sqlstate() == Some("28000"))
    });
    assert!(!gprxy.audit().iter().any(|line| line.user() == Some("ceo@corp.example")));
}

#[test]
fn a_simple_query_has_its_text_rows_tag_and_duration() {
    let gprxy = proxy();
    psql::run(&gprxy.target("alice"), &["select n, 'audit-simple', pg_sleep(0.02) from generate_series(1, 3) n"]).ok();
    let line = gprxy.await_audited("audit-simple");
    assert_eq!(line.rows(), Some(3));
    assert_eq!(line.command_tag(), Some("SELECT 3"));
    assert!(line.duration_us().is_some_and(|us| us >= 20_000), "{line:?}");
    assert_eq!(line.sqlstate(), Some("00000"));
    assert_eq!(line.application(), Some("psql"));
    // RFC 3339 with microseconds: 2026-01-02T03:04:05.123456Z.
    let fraction = line.time().split_once('.').map(|(_, fraction)| fraction.trim_end_matches('Z').len());
    assert_eq!(fraction, Some(6), "{}", line.time());
}

#[test]
fn every_execution_of_a_prepared_statement_has_a_line() {
    let gprxy = proxy();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    wire.send(&[parse("p", "select $1::int /* audit-prepared */"), sync()].concat());
    wire.read_until_ready();
    let mut batch = Vec::new();
    for value in ["1", "2", "3"] {
        batch.extend([bind("p", &[value]), describe_and_execute()].concat());
    }
    wire.send(&[batch, sync()].concat());
    wire.read_until_ready();
    wire.quit();
    let lines = eventually("three lines", || {
        let lines: Vec<_> = gprxy
            .audit()
            .into_iter()
            .filter(|line| line.statement().is_some_and(|text| text.contains("audit-prepared")))
            .collect();
        (lines.len() >= 3).then_some(lines)
    });
    assert_eq!(lines.len(), 3, "one for each Execute, none for Parse: {lines:?}");
    for line in &lines {
        assert_eq!((line.rows(), line.account()), (Some(1), Some(WRITER.0)));
        assert_eq!(line.session(), lines[0].session());
    }
}

#[test]
fn an_error_has_its_sqlstate() {
    let gprxy = proxy();
    let mut wire = Wire::login(&gprxy.target("alice")).unwrap();
    wire.rows("insert into notes values (-1, 'audit-error')").unwrap_err();
    wire.send(
        &[parse("", "select 1 / $1::int /* audit-ext-error */"), bind("", &["0"]), describe_and_execute(), sync()]
            .concat(),
    );
    wire.read_until_ready();
    wire.send(&[parse("", "selec 'audit-syntax-error'"), sync()].concat());
    wire.read_until_ready();
    assert_eq!(gprxy.await_audited("audit-error").sqlstate(), Some("42501"));
    assert_eq!(gprxy.await_audited("audit-ext-error").sqlstate(), Some("22012"));
    assert_eq!(gprxy.await_audited("audit-syntax-error").sqlstate(), Some("42601"));
}

#[test]
fn copy_has_its_rows() {
    let gprxy = proxy();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    wire.rows("create temp table c (n int)").unwrap();
    wire.send(&[query("copy c from stdin /* audit-copy-in */"), frame('d', b"1\n2\n"), frame('c', b"")].concat());
    wire.read_until_ready();
    wire.rows("copy c to stdout /* audit-copy-out */").unwrap();
    for marker in ["audit-copy-in", "audit-copy-out"] {
        let line = gprxy.await_audited(marker);
        assert_eq!((line.rows(), line.command_tag()), (Some(2), Some("COPY 2")));
    }
}

#[test]
fn a_session_has_a_start_and_an_end_and_its_statements_in_between() {
    let gprxy = proxy();
    psql::run(&gprxy.target("alice"), &["select 'audit-session'"]).ok();
    let session = gprxy.await_audited("audit-session").session().clone();
    let events = eventually("the end of the session", || {
        let lines = gprxy.audit().into_iter().filter(|line| *line.session() == session);
        let events: Vec<String> = lines.map(|line| line.event().to_owned()).collect();
        (events.len() >= 3).then_some(events)
    });
    assert_eq!(events, ["session_start", "statement", "session_end"]);
}

#[test]
fn a_refused_token_leaves_a_line() {
    let gprxy = proxy();
    let expired = Provider::shared().mint(json!({ "exp": 1000 }));
    Wire::login(&gprxy.target("alice").with_password(&expired)).err().expect("refused");
    eventually("a line about the refusal", || {
        gprxy.audit().into_iter().find(|line| line.event() == "refusal" && line.sqlstate() == Some("28P01"))
    });
}

#[test]
fn never_again_16_no_secret_stands_in_log_or_audit_and_no_newline_forges_a_line() {
    let gprxy = Config::new(Version::V15).set("log.level", "trace").start();
    let target = gprxy.target("bob");
    let mut wire = Wire::login(&target).unwrap();
    let secret = wire.key.1.clone();
    // Refused by PostgreSQL, and still a statement with a secret in it.
    wire.rows("alter role app_reader password 'hunter2-in-sql' /* audit-masked */").unwrap_err();
    wire.rows("select 'audit-newline'\n\r\n{\"event\":\"statement\",\"user\":\"ceo@corp.example\"}\n--").unwrap_err();
    let wrong = target.clone().with_password("eyJhbGciOi.wrong-token-9.x");
    Wire::login(&wrong).err().expect("refused");
    gprxy.await_audited("audit-newline");
    gprxy.await_audited("audit-masked");
    wire.quit();

    let audit = gprxy.audit_text();
    assert!(!gprxy.audit().iter().any(|line| line.user() == Some("ceo@corp.example")), "{audit}");
    let log = gprxy.log();
    assert!(!log.lines().any(|line| line.starts_with('{')), "no line of the log begins with a client's text");
    for (what, text) in [("log", &log), ("audit", &audit)] {
        for secret in [&target.password, WRITER.1, READER.1, "hunter2-in-sql", "wrong-token-9"] {
            assert!(!text.contains(secret), "{secret} stands in the {what}");
        }
        let key = i32::from_be_bytes(secret[..4].try_into().unwrap());
        assert!(!text.contains(&key.to_string()), "the cancel secret stands in the {what}");
    }
}

#[test]
fn when_the_audit_cannot_be_written_no_statement_runs() {
    let gprxy = Config::new(Version::V15).set("audit.path", "/dev/full").set("audit.on_failure", "refuse").start();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    // Twice: a statement that is refused leaves the session as it was.
    for _ in 0..2 {
        let complaint = wire.rows("insert into notes values (4711, 'unrecorded')").unwrap_err();
        assert_eq!((complaint.severity.as_str(), complaint.code.as_str()), ("ERROR", "58030"), "{complaint:?}");
    }
    // In the extended protocol what follows is already under way: there the session ends.
    let insert = parse("", "insert into notes values (4711, 'unrecorded')");
    wire.send(&[insert, bind("", &[]), describe_and_execute(), sync()].concat());
    let complaint = wire.drain().expect("a refusal");
    assert_eq!((complaint.severity.as_str(), complaint.code.as_str()), ("FATAL", "58030"), "{complaint:?}");
    assert_eq!(Cluster::shared(Version::V15).sql("select count(*) from notes where id = 4711"), "0");
}

#[test]
fn when_drops_are_only_counted_statements_run() {
    let gprxy = Config::new(Version::V15).set("audit.path", "/dev/full").set("audit.on_failure", "count").start();
    assert_eq!(psql::run(&gprxy.target("bob"), &["select 1", "select 2"]).ok(), "1\n2");
}

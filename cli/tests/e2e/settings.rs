//! Settings that are missing or wrong end `gprxy start` with status 78 (EX_CONFIG of sysexits.h) and say which.

use crate::support::fixtures::{READER, WRITER};
use crate::support::gprxy::Config;
use crate::support::postgres::Version;

#[test]
fn wrong_settings_are_named_one_line_each() {
    let config = Config::new(Version::V15)
        .set("server.listen_port", 700_000)
        .set("server.listen_adr", "0.0.0.0")
        .set("databases.*.sslmode", "verify-ful");
    let (status, text) = config.refused();
    assert_eq!(status.code(), Some(78), "{text}");
    for (name, hint) in [("listen_port", "700000"), ("listen_adr", "listen_addr"), ("sslmode", "verify-full")] {
        let line = text.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.contains(hint)), "{name} with {hint} in one line of:\n{text}");
    }
}

#[test]
fn a_secret_never_stands_in_the_complaint() {
    let (status, text) = Config::new(Version::V15).set("pool.default_pool_size", "many").refused();
    assert_eq!(status.code(), Some(78), "{text}");
    assert!(!text.contains(READER.1) && !text.contains(WRITER.1), "{text}");
}

#[test]
fn check_prints_the_effective_settings_without_secrets_and_tries_what_they_name() {
    let output = Config::new(Version::V15).check();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("query_wait_timeout"), "defaults are shown too:\n{text}");
    assert!(!text.contains(READER.1) && !text.contains(WRITER.1), "{text}");

    let output = Config::new(Version::V15).set("databases.*.port", 1).check();
    assert!(!output.status.success(), "a database that cannot be reached is a failure");
}

#[test]
fn a_secret_may_come_from_the_environment() {
    let gprxy = Config::new(Version::V15)
        .role("writer", (WRITER.0, "${TEST_WRITER_PASSWORD}"), 1)
        .env("TEST_WRITER_PASSWORD", WRITER.1)
        .start();
    let mut wire = crate::support::wire::Wire::login(&gprxy.target("bob")).unwrap();
    assert_eq!(wire.value("select session_user"), WRITER.0);
}

//! Drivers of several languages, unchanged, with a token as the password: they must notice nothing.
//!
//! Each client program walks through all that its driver can do and prints one line for each step. The lines of a
//! direct run and of one through gprxy are the same.

use std::process::{Command, Output};

use crate::support::deps;
use crate::support::gprxy::Config;
use crate::support::postgres::Version;
use crate::support::target::Target;

/// Runs a client program against a target and returns its lines.
#[track_caller]
pub(crate) fn lines(client: Command, target: &Target) -> Vec<String> {
    lines_with(client, target, &[])
}

/// The same with further variables.
#[track_caller]
pub(crate) fn lines_with(mut client: Command, target: &Target, variables: &[(&str, &str)]) -> Vec<String> {
    client.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").envs(target.environment());
    client.envs(variables.iter().copied());
    let Output { status, stdout, stderr } = client.output().expect("the client program starts");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{client:?} failed\n{out}\n{err}");
    out.lines().map(str::to_owned).collect()
}

/// Runs it directly and checks that it reached its last step; then, unless told otherwise, through gprxy.
#[track_caller]
pub(crate) fn direct(version: Version, client: fn() -> Command, steps: usize) -> Vec<String> {
    let lines = lines(client(), &Target::direct(version));
    assert_eq!(lines.len(), steps, "{lines:#?}");
    assert!(lines.last().expect("lines").starts_with("after the cancel:"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("never came")), "{lines:#?}");
    lines
}

#[track_caller]
fn through_gprxy(version: Version, client: fn() -> Command, steps: usize) {
    let expected = direct(version, client, steps);
    let mut gprxy = Config::new(version).start();
    assert_eq!(lines(client(), &gprxy.target("bob")), expected, "with TLS");
    assert_eq!(lines(client(), &gprxy.target("bob").in_plaintext()), plain(&expected), "without TLS");
    gprxy.assert_alive();
}

/// The same lines, except the one that says whether TLS is in use.
pub(crate) fn plain(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| line.replace("tls: True", "tls: False")).collect()
}

macro_rules! driver {
    ($name:ident, $steps:literal, $client:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn says_the_same_directly_to_15_and_18() {
                assert_eq!(direct(Version::V15, $client, $steps), direct(Version::V18, $client, $steps));
            }

            #[test]
            fn notices_no_gprxy_in_front_of_15() {
                through_gprxy(Version::V15, $client, $steps);
            }

            #[test]
            fn notices_no_gprxy_in_front_of_18() {
                through_gprxy(Version::V18, $client, $steps);
            }
        }
    };
}

driver!(psycopg, 20, || deps::python("psycopg_client.py"));
driver!(asyncpg, 16, || deps::python("asyncpg_client.py"));
driver!(node_postgres, 15, || deps::node("clients/node_pg.mjs"));
driver!(pgjdbc, 21, || deps::java("PgJdbc"));

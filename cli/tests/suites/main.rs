//! The test suites that ship with drivers: against PostgreSQL itself, and through gprxy in session and transaction mode.
//!
//! `make suites` installs and runs them. Each test of a suite must end as it ends with a direct connection, except those in
//! `expected/SUITE.MODE`: a line for each, the test's name and the reason. A listed test that passes is a failure, too.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the rig of the end-to-end tests, of which this uses a part"
)]

#[path = "../e2e/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::auth::users::UserList;
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::host::{Bound, Host};
use gprxy_proto::driver::runtime::Runtime;
use gprxy_proto::driver::serve;
use gprxy_proto::driver::shared::{Parts, ServerTls, Shared};
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{AuthType, Database, Databases, Endpoint, Limits, SslMode};
use gprxy_proto::pool::{PoolMode, PoolSettings};
use gprxy_proto::session::Profile;
use gprxy_tokio::Tokio;

use support::deps::repository;
use support::fault::FaultProxy;
use support::postgres::{Cluster, Version};

/// Everybody's password.
const PASSWORD: &str = "password";
/// Connections of a pool: fewer than the clients of most suites.
const CONNECTIONS: u32 = 5;

type Results = BTreeMap<String, String>;

/// Accounts and databases that the suites want.
const SCHEMA: &str = "alter role postgres password 'password';
    set password_encryption = 'md5'; create role md5_user login password 'password';
    set password_encryption = 'scram-sha-256'; create role scram_user login password 'password';
    create role pass_user login password 'password'; create role ssl_user login password 'password'";
fn server() -> &'static Cluster {
    let server = Cluster::leaked(Version::V15);
    server.sql(SCHEMA);
    server.create_database("psycopg2_test");
    server.sql("create database pg8000_test");
    server
}

/// A proxy that lets these users in with their passwords, as long as the run.
fn proxy(server: &Cluster, mode: PoolMode) -> u16 {
    let users = ["postgres", "md5_user", "scram_user", "pass_user", "ssl_user"];
    let list: Vec<String> = users.iter().map(|user| format!("\"{user}\" \"{PASSWORD}\"")).collect();
    let users = UserList::parse(list.join("\n").as_bytes()).expect("a list");
    let mut database = Database::new([Endpoint::Tcp { host: "127.0.0.1".into(), port: server.port }]);
    database.sslmode = SslMode::Disable;
    let query_wait_notify = Duration::ZERO;
    let settings =
        PoolSettings { pool_mode: mode, default_pool_size: CONNECTIONS, query_wait_notify, ..PoolSettings::default() };
    database.pool = Arc::new(settings);
    let limits = Limits::default();
    let profile = Profile {
        gate: Some(Arc::new(Gate::listed(AuthType::Plain, users, &mut SystemEntropy::new()))),
        databases: Databases::new([(Databases::ANY.into(), database)]),
        limits: limits.clone(),
        ..Profile::default()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (listening, heard) = mpsc::channel();
    // The thread ends with the run.
    std::thread::spawn(move || {
        Tokio::block_on(async move {
            let keys = KeySets::new(Vec::new(), KeySetLimits::default(), Tokio::now()).unwrap();
            let hub = Hub::new(keys, &limits, Box::new(SystemEntropy::new()));
            let http = ureq::Agent::new_with_defaults();
            let profile = Arc::new(profile);
            let server_tls = ServerTls::new();
            let parts = Parts { profile, hub, tls: None, server_tls, tokens: None, control: None, audit: None, http };
            let shared = Shared::<Tokio>::new(parts);
            Tokio::spawn(shared.clone().keep());
            let listener = Tokio::listen(Bound::Tcp(listener)).unwrap();
            listening.send(()).unwrap();
            serve::serve(shared, listener).await;
        })
    });
    heard.recv().expect("it listens");
    port
}

fn installed(path: &str) -> PathBuf {
    let path = repository().join("target/suite-deps").join(path);
    assert!(path.exists(), "{} is missing: run scripts/install-suite-deps", path.display());
    path
}

fn lines(mut command: Command) -> String {
    command.stdin(Stdio::null()).env("PGSSLMODE", "disable").env("LC_ALL", "C.UTF-8");
    let output = command.output().expect("the suite starts");
    // It fails where one of its tests does: which ones is what counts.
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn pytest(folder: &str, what: &[&str], port: u16) -> Results {
    let mut command = Command::new(installed("venv/bin/python"));
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "-v", "--tb=line", "-o", "addopts="]).args(what);
    command.args(["--color=no", "--benchmark-disable"]).current_dir(installed(folder));
    for (name, value) in
        [("HOST", "127.0.0.1"), ("PORT", &port.to_string()), ("USER", "postgres"), ("PASSWORD", PASSWORD)]
    {
        command.env(format!("PSYCOPG2_TESTDB_{name}"), value).env(format!("PG{name}"), value);
    }
    let text = lines(command);
    let result = |line: &str| {
        let (test, rest) = line.split_once(' ')?;
        let word = rest.split_whitespace().next()?;
        let known = ["PASSED", "FAILED", "SKIPPED", "ERROR", "XFAIL", "XPASS"].contains(&word);
        (known && test.contains("::")).then(|| (test.to_owned(), word.to_owned()))
    };
    checked(text.lines().filter_map(result).collect(), &text)
}

fn psycopg2(port: u16) -> Results {
    pytest("psycopg2", &["tests"], port)
}

fn pg8000(port: u16) -> Results {
    // What is left out asks for servers with other ways to log in, or for the network.
    let without = ["--ignore-glob=*/auth/*", "--ignore=test/test_readme.py"];
    pytest("pg8000", &["test", without[0], without[1]], port)
}

fn tokio_postgres(port: u16) -> Results {
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--", "--test-threads=4", "--format=pretty"]);
    command.current_dir(installed("tokio-postgres")).env("CARGO_TARGET_DIR", installed("target"));
    command.env("SUITE_ADDRESS", format!("127.0.0.1:{port}")).env("RUST_BACKTRACE", "0");
    let text = lines(command);
    let result = |line: &str| {
        let (test, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        Some((test.to_owned(), word.to_owned()))
    };
    checked(text.lines().filter_map(result).collect(), &text)
}

fn checked(results: Results, text: &str) -> Results {
    assert!(results.len() > 20, "the suite did not run\n{text}");
    results
}

/// Test names with the reason why they end otherwise in this mode.
fn expected(suite: &str, mode: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites/expected").join(format!("{suite}.{mode}"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |line: &str| line.split_once(' ').map(|(test, reason)| (test.to_owned(), reason.trim().to_owned()));
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

fn compare(suite: &str, run: fn(u16) -> Results) {
    let server = server();
    // A relay without TLS: that of this server is not what is compared, and one of the drivers cannot log in over it.
    let relay = FaultProxy::before(server.port);
    relay.set_without_tls(true);
    let direct = run(relay.port);
    let passed = direct.values().filter(|&word| word.eq_ignore_ascii_case("passed") || word == "ok").count();
    println!("{suite}: {} tests, {passed} pass with a direct connection", direct.len());
    let mut all = Vec::new();
    for (name, mode) in [("session", PoolMode::Session), ("transaction", PoolMode::Transaction)] {
        let through = run(proxy(server, mode));
        let mut others: BTreeMap<&str, String> = BTreeMap::new();
        for test in direct.keys().chain(through.keys()) {
            let of = |results: &Results| results.get(test).cloned().unwrap_or_else(|| "not run".to_owned());
            if of(&direct) != of(&through) {
                others.insert(test, format!("{} directly, {} in {name} mode", of(&direct), of(&through)));
            }
        }
        let expected = expected(suite, name);
        println!("{suite}, {name} mode: {} end otherwise", others.len());
        let surprises = others.iter().filter(|(test, _)| !expected.contains_key(**test));
        all.extend(surprises.map(|(test, how)| format!("{test}: {how}")));
        let settled = expected.keys().filter(|test| !others.contains_key(test.as_str()));
        all.extend(settled.map(|test| format!("{test}: listed for {name} mode, and ends as directly")));
    }
    assert!(all.is_empty(), "{suite}: not as expected\n{}", all.join("\n"));
}

#[test]
fn psycopg2_s_tests_end_as_expected() {
    compare("psycopg2", psycopg2);
}

#[test]
fn pg8000_s_tests_end_as_expected() {
    compare("pg8000", pg8000);
}

#[test]
fn tokio_postgres_s_tests_end_as_expected() {
    compare("tokio-postgres", tokio_postgres);
}

//! PgBouncer's `auth_type`s against real clients and servers: a list of users, made from what PostgreSQL itself keeps.

use std::net::TcpListener;
use std::sync::{Arc, mpsc};

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
use gprxy_proto::session::Profile;
use gprxy_tokio::Tokio;

use crate::drivers;
use crate::support::fixtures::{CLEARTEXT, DATABASE, MD5, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::target::Target;
use crate::support::{deps, psql};

/// `userlist.txt` with these names and secrets.
fn list(users: &[(&str, &str)]) -> UserList {
    let lines: Vec<String> =
        users.iter().map(|(name, secret)| format!("\"{name}\" \"{}\"", secret.replace('"', "\"\""))).collect();
    UserList::parse(lines.join("\n").as_bytes()).expect("a list")
}

/// What the server keeps of a password, as PgBouncer's users copy it.
fn stored(server: &Cluster, user: &str) -> String {
    server.sql(&format!("select rolpassword from pg_authid where rolname = '{user}'"))
}

/// A proxy with this gate, as long as the test runs; the port where it listens.
fn proxy(auth_type: AuthType, users: UserList, server: &Cluster) -> u16 {
    let mut database = Database::new([Endpoint::Tcp { host: "127.0.0.1".into(), port: server.port }]);
    database.sslmode = SslMode::Disable;
    let limits = Limits::default();
    let profile = Profile {
        gate: Some(Arc::new(Gate::listed(auth_type, users, &mut SystemEntropy::new()))),
        databases: Databases::new([(Databases::ANY.into(), database)]),
        limits: limits.clone(),
        ..Profile::default()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (listening, heard) = mpsc::channel();
    // The thread ends with the test run.
    std::thread::spawn(move || {
        Tokio::block_on(async move {
            let keys = KeySets::new(Vec::new(), KeySetLimits::default(), Tokio::now()).unwrap();
            let hub = Hub::new(keys, &limits, Box::new(SystemEntropy::new()));
            let http = ureq::Agent::new_with_defaults();
            let profile = Arc::new(profile);
            let parts = Parts {
                profile,
                hub,
                tls: None,
                server_tls: ServerTls::new(),
                tokens: None,
                control: None,
                audit: None,
                http,
            };
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

fn through(port: u16, version: Version, (user, password): (&str, &str)) -> Target {
    let mut target = Target::direct(version).with_user(user).with_password(password).in_plaintext();
    target.port = port;
    "127.0.0.1".clone_into(&mut target.host);
    target
}

/// Who gets in, as whom, and who does not.
#[track_caller]
fn lets_in(port: u16, version: Version, users: &[(&str, &str)]) {
    for &(user, password) in users {
        let target = through(port, version, (user, password));
        // Twice: a verifier that had to be made is there the second time, and a connection is used again.
        for _ in 0..2 {
            assert_eq!(psql::run(&target, &["select session_user"]).ok(), user);
        }
        refuses(port, version, (user, "wrong"));
    }
    refuses(port, version, ("nobody_at_all", "wrong"));
}

#[track_caller]
fn refuses(port: u16, version: Version, (user, password): (&str, &str)) {
    let told = psql::run(&through(port, version, (user, password)), &["select 1"]).failed();
    assert!(told.contains(&format!("password authentication failed for user \"{user}\"")), "{told}");
}

#[test]
fn verifiers_of_the_server_let_clients_in_and_log_in_to_it() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        // Nobody but the client knows the password: its key, shown in the exchange, is what logs in to the server.
        let users = || list(&[(SCRAM.0, &stored(server, SCRAM.0))]);
        for auth_type in [AuthType::ScramSha256, AuthType::Md5, AuthType::Plain] {
            lets_in(proxy(auth_type, users(), server), version, &[SCRAM]);
        }
    }
}

#[test]
fn md5_hashes_of_the_server_do_so_where_md5_is_spoken() {
    let (version, server) = (Version::V15, Cluster::shared(Version::V15));
    let users = || list(&[(MD5.0, &stored(server, MD5.0))]);
    for auth_type in [AuthType::Md5, AuthType::Plain] {
        lets_in(proxy(auth_type, users(), server), version, &[MD5]);
    }
    refuses(proxy(AuthType::ScramSha256, users(), server), version, MD5);
}

#[test]
fn passwords_in_clear_serve_every_way() {
    let (version, server) = (Version::V18, Cluster::shared(Version::V18));
    let users = [SCRAM, MD5, CLEARTEXT];
    for auth_type in [AuthType::ScramSha256, AuthType::Md5, AuthType::Plain] {
        lets_in(proxy(auth_type, list(&users), server), version, &users);
    }
    let port = proxy(AuthType::Trust, list(&users), server);
    assert_eq!(psql::run(&through(port, version, (SCRAM.0, "")), &["select session_user"]).ok(), SCRAM.0);
    let told = psql::run(&through(port, version, ("nobody_at_all", "")), &["select 1"]).failed();
    assert!(told.contains("no such user"), "{told}");
}

#[test]
fn a_list_that_knows_a_password_the_server_does_not_is_no_way_in() {
    let (version, server) = (Version::V15, Cluster::shared(Version::V15));
    let port = proxy(AuthType::ScramSha256, list(&[(SCRAM.0, "of the list")]), server);
    refuses(port, version, (SCRAM.0, "of the list"));
}

#[test]
fn drivers_log_in_by_scram_and_md5_and_notice_nothing() {
    let (version, server) = (Version::V15, Cluster::shared(Version::V15));
    let python = || deps::python("psycopg_client.py");
    let asyncpg = || deps::python("asyncpg_client.py");
    let jdbc = || deps::java("PgJdbc");
    for auth_type in [AuthType::ScramSha256, AuthType::Md5] {
        let port = proxy(auth_type, list(&[CLEARTEXT]), server);
        let target = through(port, version, CLEARTEXT).with_database(DATABASE);
        assert_eq!(
            drivers::lines(python(), &target),
            drivers::plain(&drivers::direct(version, python, 20)),
            "{auth_type:?}"
        );
        assert_eq!(drivers::lines(jdbc(), &target), drivers::direct(version, jdbc, 21), "{auth_type:?}");
        assert_eq!(
            drivers::lines(asyncpg(), &target),
            drivers::plain(&drivers::direct(version, asyncpg, 16)),
            "{auth_type:?}"
        );
    }
}

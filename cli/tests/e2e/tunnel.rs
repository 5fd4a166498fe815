//! `gprxy tunnel`: programs that know nothing of tokens, and a remote gprxy that wants nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::drivers;
use crate::sso::own_provider;
use crate::support::desk::Desk;
use crate::support::fixtures::{READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::reaper::fresh_path;
use crate::support::tunnel::{Home, Tunnel, command, refused};
use crate::support::wire::{Wire, cancel, query};
use crate::support::{deps, eventually, psql, tls};

fn bob() -> (Gprxy, Home) {
    (Config::new(Version::V15).start(), Home::with_token(&Provider::shared().token("bob")))
}

#[test]
fn psql_gets_in_by_the_tunnels_password_and_runs_as_the_tokens_account() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let target = tunnel.target();
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), WRITER.0);
    // The name that a client gives is passed on: a role or an account of the person is as good as their own.
    assert_eq!(psql::run(&target.clone().with_user("writer"), &["select session_user"]).ok(), WRITER.0);
    let foreign = psql::run(&target.clone().with_user("alice@corp.example"), &["select 1"]).failed();
    assert!(foreign.contains("the token does not belong to \"alice@corp.example\""), "{foreign}");
    assert_eq!(psql::run(&target.with_database("postgres"), &["select current_database()"]).ok(), "postgres");
    let audited: Vec<String> =
        gprxy.audit().iter().filter_map(|line| line.0["statement"].as_str().map(Into::into)).collect();
    assert!(
        !audited.is_empty() && audited.iter().all(|text| text.starts_with("select ")),
        "nothing of its own: {audited:?}"
    );
}

#[test]
fn a_wrong_password_or_a_token_in_its_place_is_refused() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let token = Provider::shared().token("bob");
    for wrong in ["wrong", &*token] {
        let told = psql::run(&tunnel.target().with_password(wrong), &["select 1"]).failed();
        assert!(told.contains("password authentication failed for user \"bob@corp.example\""), "{told}");
    }
    assert!(!gprxy.log().contains("bob@corp.example"), "the remote was not even asked");
    let other = Tunnel::open(&home, &gprxy, &[]);
    let mixed = tunnel.target().with_password(&other.target().password);
    assert!(psql::run(&mixed, &["select 1"]).failed().contains("password authentication failed"));
}

#[test]
fn a_client_can_insist_on_scram_and_on_a_server_that_proves_itself() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let client = deps::python("psycopg_client.py");
    let lines = drivers::lines_with(client, &tunnel.target(), &[("PGREQUIREAUTH", "scram-sha-256")]);
    assert_eq!(lines, drivers::plain(&drivers::direct(Version::V15, || deps::python("psycopg_client.py"), 20)));
}

#[test]
fn pgjdbc_and_node_postgres_notice_nothing() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let jdbc = || deps::java("PgJdbc");
    assert_eq!(drivers::lines(jdbc(), &tunnel.target()), drivers::direct(Version::V15, jdbc, 21));
    let node = || deps::node("clients/node_pg.mjs");
    assert_eq!(drivers::lines(node(), &tunnel.target()), drivers::direct(Version::V15, node, 15));
}

#[test]
fn large_results_and_copies_pass() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let sum = "select md5(string_agg(repeat(n::text, 100), ',')) from generate_series(1, 20000) n";
    let expected = psql::run(&gprxy.target("bob"), &[sum]).ok();
    let script = "create temp table t (body text);\n\
                  copy t from program 'false';\n";
    let denied = psql::script(&tunnel.target(), script).failed();
    assert!(denied.contains("42501"), "the account's own rights: {denied}");
    let rows: String = (0..50_000).map(|n| format!("{n}\trow {n}\n")).collect();
    let script = format!(
        "create temp table t (n int, body text);\ncopy t from stdin;\n{rows}\\.\n\
         select count(*), sum(n) from t;\n{sum};\ncopy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout;\n"
    );
    let out = psql::script(&tunnel.target(), &script).ok();
    let mut lines = out.lines();
    assert_eq!((lines.next(), lines.next()), (Some("50000|1249975000"), Some(&*expected)));
    assert_eq!(lines.filter(|line| line.len() == 1000).count(), 20_000);
}

#[test]
fn a_cancel_goes_all_the_way() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &["--no-password"]);
    let target = tunnel.target();
    let marker = format!("tunnel-{}", target.port);
    let mut wire = Wire::login(&target).unwrap();
    wire.send(&query(&format!("select pg_sleep(25) /* {marker} */")));
    target.server.await_running(&marker);
    let (pid, secret) = wire.key.clone();
    cancel(&target, pid, &secret);
    let messages = wire.read_until_ready();
    assert!(messages.iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"), "{messages:?}");
    assert_eq!(wire.value("select 'still here'"), "still here");
    wire.quit();
    let psql = psql::background(&target, &format!("select pg_sleep(25) /* {marker}-psql */"));
    target.server.await_running(&format!("{marker}-psql"));
    psql.signal("INT");
    assert!(psql::join(psql).err.contains("57014"));
}

#[test]
fn every_client_has_its_own_connection_and_takes_it_along() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &["--no-password"]);
    let mut wires: Vec<Wire> = (0..4).map(|_| Wire::login(&tunnel.target()).unwrap()).collect();
    let mut pids: Vec<String> = wires.iter_mut().map(|wire| wire.value("select pg_backend_pid()")).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 4);
    wires.remove(0).quit();
    wires.remove(0).vanish();
    let ends = || gprxy.audit().iter().filter(|line| line.event() == "session_end").count();
    eventually("the remote sessions of both to end", || (ends() == 2).then_some(()));
    for mut wire in wires {
        assert_eq!(wire.value("select 1"), "1", "the others go on");
        wire.quit();
    }
}

#[test]
fn a_unix_socket_is_for_its_owner_alone() {
    let (gprxy, home) = bob();
    let dir = fresh_path("tunnel-socket");
    let mut command = command(&home, &gprxy, &["--json", "--listen", dir.to_str().unwrap()]);
    command.args(["--listen", "127.0.0.1:0"]);
    let tunnel = Tunnel::start(command, &gprxy);
    let target = tunnel.place(0);
    assert_eq!(target.password, "");
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), WRITER.0);
    assert_eq!(psql::run(&tunnel.place(1), &["select session_user"]).ok(), WRITER.0, "beside an address");
    let socket = dir.join(format!(".s.PGSQL.{}", target.port));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&socket)), (0o700, 0o600));

    // Somebody else does not get as far as the socket; and where they do, the kernel says who they are.
    assert!(as_nobody(&target).contains("Permission denied"));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let told = as_nobody(&target);
    assert!(told.contains("this socket is for user id") && told.contains("runs as user id 65534"), "{told}");
    assert_eq!(psql::run(&target, &["select 1"]).ok(), "1");
    assert_eq!(tunnel.end_by("TERM").0, 0);
    assert!(!socket.exists(), "it takes its socket along");
}

/// The complaint of a psql that runs as nobody. Only root can start one, as the rig's servers need it, too.
fn as_nobody(target: &crate::support::target::Target) -> String {
    let psql = psql::command(target);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(psql.get_program())
        .args(psql.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(target.environment()).args(["-c", "select 1"]);
    psql::finish(command).failed()
}

#[test]
fn a_directory_that_others_can_look_into_is_not_used() {
    let (gprxy, home) = bob();
    let dir = fresh_path("open-to-all");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, told) = refused(command(&home, &gprxy, &["--listen", dir.to_str().unwrap()]));
    assert!(code == 78 && told.contains("mode 755"), "{code} {told}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_opened() {
    let (gprxy, home) = bob();
    let (code, told) = refused(command(&home, &gprxy, &["--listen", "0.0.0.0:5433"]));
    assert!(code == 2 && told.contains("loopback"), "{code} {told}");
    for (mode, expected) in [("disable", 2), ("prefer", 2), ("require", 78)] {
        let mut elsewhere = command(&home, &gprxy, &["--sslmode", mode]);
        elsewhere.env("PROXY_URL", "gprxy.corp.example");
        let (code, told) = refused(elsewhere);
        assert!(code == expected && told.contains("verify-full"), "{mode}: {code} {told}");
    }
    let mut nowhere = command(&home, &gprxy, &[]);
    nowhere.env_remove("PROXY_URL");
    let (code, told) = refused(nowhere);
    assert!(code == 78 && told.contains("PROXY_URL"), "{code} {told}");
    let (code, told) = refused(command(&Home::new(), &gprxy, &[]));
    assert!(code == 1 && told.contains("gprxy login"), "{code} {told}");
}

#[test]
fn nothing_is_sent_to_a_proxy_that_cannot_prove_itself() {
    let (gprxy, home) = bob();
    let mut by_another_authority = command(&home, &gprxy, &["--json", "--listen", "127.0.0.1:0"]);
    by_another_authority.env_remove("PROXY_CA");
    let tunnel = Tunnel::start(by_another_authority, &gprxy);
    let told = psql::run(&tunnel.target(), &["select 1"]).failed();
    assert!(told.contains("TLS with the server failed: invalid peer certificate"), "{told}");
    assert!(!gprxy.log().contains("bob@corp.example"));
}

#[test]
fn each_connection_has_the_token_of_its_time() {
    let provider = Provider::shared();
    let gprxy = Config::new(Version::V15).start();
    let bob = json!({ "sub": "bob", "email": "bob@corp.example", "roles": ["writer"] });
    let home = Home::with_token(&provider.mint(bob.clone()));
    let tunnel = Tunnel::open(&home, &gprxy, &["--no-password"]);
    let mut early = Wire::login(&tunnel.target()).unwrap();
    let mut expired = bob;
    expired["exp"] = json!(1_700_000_000);
    home.keep(&provider.mint(expired));
    let told = psql::run(&tunnel.target(), &["select 1"]).failed();
    assert!(told.contains("the token has expired"), "{told}");
    home.keep(&provider.token("alice"));
    let target = tunnel.target().with_user("alice@corp.example");
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), READER.0, "no restart, no pause");
    fs::remove_file(home.credentials()).unwrap();
    let told = psql::run(&tunnel.target(), &["select 1"]).failed();
    assert!(told.contains("not logged in") && told.contains("gprxy login"), "{told}");
    assert_eq!(early.value("select session_user"), WRITER.0, "whoever is in stays in");
    early.quit();
}

/// A desk where bob is logged in, a provider of its own, and a tunnel.
fn desk() -> (Gprxy, Desk, Tunnel) {
    let provider = own_provider();
    let gprxy = Config::with(Cluster::shared(Version::V15), provider).start();
    let proxy = format!("localhost:{}", gprxy.target("bob").port);
    let desk = Desk::new(provider).with("PROXY_URL", &proxy).with("PROXY_CA", tls::pki().ca.to_str().unwrap());
    desk.log_in("bob");
    let tunnel = Tunnel::start(desk.command(&["tunnel", "--json", "--listen", "127.0.0.1:0", "--no-password"]), &gprxy);
    (gprxy, desk, tunnel)
}

#[test]
fn a_token_that_has_expired_is_renewed_once_for_all_who_connect() {
    let (_gprxy, desk, tunnel) = desk();
    let target = tunnel.target();
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), WRITER.0);
    let (kept, asked) = (desk.credentials(), desk.provider.token_requests());
    desk.expire();
    let clients: Vec<_> = (0..4).map(|n| psql::background(&target, &format!("select {n}"))).collect();
    for (n, client) in clients.into_iter().enumerate() {
        assert_eq!(psql::join(client).ok(), n.to_string());
    }
    assert_eq!(desk.provider.token_requests(), asked + 1, "four connections, one refresh token");
    assert_ne!(desk.credentials()["access_token"], kept["access_token"]);
}

#[test]
fn a_provider_that_is_gone_is_told_to_the_client_and_asked_again() {
    let (_gprxy, desk, tunnel) = desk();
    let target = tunnel.target();
    let mut early = Wire::login(&target).unwrap();
    desk.expire();
    desk.provider.set_token_answer("503");
    let told = Wire::login(&target).err().expect("no token, no session");
    assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "08001"));
    assert!(told.message.contains("gprxy tunnel has no token") && told.message.contains("503"), "{told:?}");
    desk.provider.set_token_answer("invalid_grant");
    let told = Wire::login(&target).err().expect("no token, no session");
    assert!(told.code == "28000" && told.message.contains("run gprxy login"), "{told:?}");
    assert_eq!(early.value("select 'still here'"), "still here");
    desk.provider.set_token_answer("well");
    assert_eq!(psql::run(&target, &["select 1"]).ok(), "1");
    early.quit();
}

#[test]
fn control_c_during_a_renewal_keeps_the_rotated_refresh_token() {
    let (_gprxy, desk, mut tunnel) = desk();
    let (kept, asked) = (desk.credentials(), desk.provider.token_requests());
    desk.expire();
    desk.provider.set_token_answer("hold");
    let client = psql::background(&tunnel.target(), "select 1");
    eventually("the renewal", || (desk.provider.token_requests() > asked).then_some(()));
    tunnel.child.signal("INT");
    assert_ne!(psql::join(client).code, 0);
    assert!(!tunnel.child.has_ended(), "it waits for the token that is on its way");
    desk.provider.set_token_answer("well");
    assert_eq!(eventually("the tunnel to end", || tunnel.child.0.try_wait().unwrap()).code(), Some(0));
    assert_ne!(desk.credentials()["refresh_token"], kept["refresh_token"]);
}

#[test]
fn the_remotes_end_and_return_are_told_to_clients() {
    let (gprxy, home) = bob();
    let port = gprxy.target("bob").port;
    let tunnel = Tunnel::open(&home, &gprxy, &["--no-password"]);
    let target = tunnel.target();
    let mut wire = Wire::login(&target).unwrap();
    drop(gprxy);
    assert_eq!(wire.expect_fatal().code.len(), 5, "the end of the connection is told");
    let told = psql::run(&target, &["select 1"]).failed();
    assert!(told.contains("cannot connect") && told.contains(&format!("localhost:{port}")), "{told}");
    let _again = Config::new(Version::V15).at_port(port).start();
    assert_eq!(psql::run(&target, &["select 1"]).ok(), "1", "at once: there is no pause after a failure");
}

#[test]
fn no_secret_is_where_others_could_see_it() {
    let (gprxy, home) = bob();
    let tunnel = Tunnel::open(&home, &gprxy, &[]);
    let (target, token) = (tunnel.target(), Provider::shared().token("bob"));
    assert_eq!(psql::run(&target, &["select 1"]).ok(), "1");
    let _ = psql::run(&target.with_user("nobody@corp.example"), &["select 1"]).failed();
    let proc = |file: &str| fs::read(format!("/proc/{}/{file}", tunnel.child.pid())).unwrap();
    let password = tunnel.target().password;
    let places = [("log", tunnel.log().into_bytes()), ("cmdline", proc("cmdline")), ("environ", proc("environ"))];
    assert!(places[0].1.len() > 1000, "everything is logged in this test");
    for (name, text) in &places {
        let text = String::from_utf8_lossy(text);
        // No part of the token either: its signature alone is unlikely enough.
        let signature = token.rsplit('.').next().unwrap();
        assert!(!text.contains(&*token) && !text.contains(signature) && !text.contains(&password), "{name}");
    }
    assert_eq!(tunnel.end_by("INT"), (0, String::new()));
}

#[test]
fn people_are_told_what_to_paste() {
    let (gprxy, home) = bob();
    let port = crate::support::reaper::free_port().to_string();
    let mut child = command(&home, &gprxy, &["--listen", &port, "-d", "appdb"]);
    let out = fresh_path("tunnel.out");
    child.stdout(fs::File::create(&out).unwrap()).stderr(std::process::Stdio::null());
    let child = crate::support::reaper::Leashed::spawn(&mut child);
    let told = eventually("the greeting", || {
        let told = fs::read_to_string(&out).unwrap();
        told.contains("postgresql://").then_some(told)
    });
    let after =
        |word: &str| told.lines().find_map(|line| line.trim().strip_prefix(word)).expect(word).trim().to_owned();
    let password = after("password").split(' ').next().unwrap().to_owned();
    let uri = format!("postgresql:{}", after("postgresql:"));
    assert_eq!(told.matches(&password).count(), 1, "{told}");
    let mut psql = psql::command(&gprxy.target("bob"));
    psql.env_clear().env("PATH", "/usr/bin:/bin").env("PGPASSWORD", password).args([
        &*uri,
        "-c",
        "select session_user",
    ]);
    assert_eq!(psql::finish(psql).ok(), WRITER.0);
    child.signal("INT");
}

#[test]
fn control_c_lets_running_statements_end_and_a_second_one_does_not() {
    let (gprxy, home) = bob();
    let mut tunnel = Tunnel::open(&home, &gprxy, &["--no-password"]);
    let target = tunnel.target();
    let mut idle = Wire::login(&target).unwrap();
    let marker = format!("drain-{}", target.port);
    let short = psql::background(&target, &format!("select 'done' from pg_sleep(1) /* {marker} */"));
    let long = psql::background(&target, &format!("select pg_sleep(60) /* {marker}-long */"));
    target.server.await_running(&marker);
    target.server.await_running(&format!("{marker}-long"));
    tunnel.child.signal("INT");
    assert_eq!(idle.expect_fatal().code, "57P01");
    assert_eq!(psql::join(short).ok(), "done");
    assert!(!tunnel.child.has_ended());
    tunnel.child.signal("INT");
    assert!(psql::join(long).err.contains("57P01"));
    assert_eq!(eventually("the tunnel to end", || tunnel.child.0.try_wait().unwrap()).code(), Some(0));
    target.server.await_gone(&format!("{marker}-long"));
}

//! psql and its files, through a real gprxy to a real PostgreSQL.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::support::desk::Desk;
use crate::support::fixtures::{DATABASE, READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::psql;
use crate::support::tls::pki;

/// A proxy, and somebody who is logged in for it.
fn at_work(person: &str) -> (Gprxy, Desk) {
    let gprxy = Config::new(Version::V15).start();
    let desk = Desk::new(Provider::shared())
        .with("PROXY_URL", &format!("localhost:{}", gprxy.target("alice").port))
        .with("PROXY_CA", pki().ca.to_str().unwrap());
    desk.log_in(person);
    (gprxy, desk)
}

#[test]
fn psql_and_connect_really_connect_as_the_mapped_account() {
    let (_gprxy, desk) = at_work("alice");
    let query = "select session_user, (select ssl from pg_stat_ssl where pid = pg_backend_pid())";
    let ran = desk.run(&["psql", "-d", DATABASE, "-XAtc", query]);
    assert_eq!(ran.ok(), format!("{}|t", READER.0));
    let ran = desk.run(&["connect", "-s", "db.example", "-d", DATABASE, "--", "-XAtc", "select session_user"]);
    assert!(ran.err.contains("db.example:5432 is not"), "{}", ran.err);
    assert_eq!(ran.ok(), READER.0);
    let forbidden = desk.run(&["psql", "-X", "-d", DATABASE, "-c", "insert into notes values (-1, 'x')"]);
    assert!(forbidden.failed().contains("permission denied"));
}

#[test]
fn exit_codes_and_input_are_psqls() {
    let (_gprxy, desk) = at_work("bob");
    assert_eq!(desk.run(&["psql", "-X", "-d", DATABASE, "-c", "select nonsense"]).code, 1);
    assert_eq!(desk.run(&["psql", "-X", "-d", "no_such_database", "-c", "select 1"]).code, 2);
    assert_eq!(desk.run(&["psql", "-X", "-d", DATABASE, "-v", "ON_ERROR_STOP=1", "-f", "/does/not/exist"]).code, 1);
    let mut command = desk.command(&["psql", "-XAt", "-v", "ON_ERROR_STOP=1", DATABASE]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A second connection in one psql reads the token again.
    let script = "select session_user;\n\\c\nselect 'again';\nselect nonsense;\n";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "psql's own for an error in a script");
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with(WRITER.0) && out.contains("again"), "{out}");
}

#[test]
fn the_token_is_neither_in_the_arguments_nor_in_the_environment() {
    let (_gprxy, desk) = at_work("alice");
    let token = desk.run(&["token"]).ok();
    let script =
        "\\! tr '\\\\0' '\\\\n' </proc/$PPID/environ; tr '\\\\0' '\\\\n' </proc/$PPID/cmdline; ls -l /proc/$PPID/exe\n";
    let mut command = desk.command(&["psql", "-XAt", "-d", DATABASE]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("psql") && shown.contains("PGHOST"), "{shown}");
    assert!(!shown.contains(&token), "{shown}");
}

#[test]
fn never_again_11_the_certificate_of_the_proxy_is_verified() {
    let (_gprxy, desk) = at_work("alice");
    let stranger = desk.with("PROXY_CA", pki().stranger.to_str().unwrap());
    let ran = stranger.run(&["psql", "-X", "-d", DATABASE, "-c", "select 1"]);
    assert!(ran.failed().contains("certificate verify failed"));
    let system = stranger.without("PROXY_CA");
    assert!(
        system.run(&["psql", "-X", "-d", DATABASE, "-c", "select 1"]).failed().contains("certificate verify failed")
    );
    let bad = system.with("PROXY_CA", "/does/not/exist");
    assert_eq!(bad.run(&["psql", "-d", DATABASE]).code, 78);
    let far = bad.without("PROXY_CA").with("PROXY_URL", "gprxy.example");
    let ran = far.run(&["psql", "--sslmode", "prefer", "-d", DATABASE]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("without TLS"), "{}", ran.err);
}

#[test]
fn a_token_of_17_kilobytes_goes_every_way() {
    let (_gprxy, desk) = at_work("grace");
    assert!(desk.run(&["token"]).ok().len() > 16 * 1024);
    assert_eq!(desk.run(&["psql", "-d", DATABASE, "-XAtc", "select session_user"]).ok(), READER.0);
    assert!(desk.run(&["status", "-d", DATABASE]).ok().contains("lets you in"));
    desk.expire();
    assert_eq!(desk.run(&["token", "--pgpass"]).code, 0);
    let ran = desk.run(&["logout"]);
    assert!(ran.err.contains("has revoked"), "{}", ran.err);
}

#[test]
fn no_other_server_gets_the_token() {
    let (_gprxy, desk) = at_work("alice");
    for args in
        [&["-h", "evil.example"][..], &["-Xp5432"], &["host=evil.example dbname=x"], &["postgresql://evil.example/x"]]
    {
        let ran = desk.run(&[&["psql"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}");
        assert!(ran.err.contains("names a server"), "{}", ran.err);
    }
    // A project's .env, written by whoever.
    fs::write(desk.home.join(".env"), "PROXY_URL=evil.example:7777\n").unwrap();
    let lured = desk.without("PROXY_URL");
    let ran = lured.run(&["psql", "-d", DATABASE, "-c", "select 1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("evil.example") && ran.err.contains("not sent there"), "{}", ran.err);
    for args in [&["token", "--pgpass"][..], &["env"], &["service"]] {
        assert_eq!(lured.run(args).code, 1, "{args:?}");
    }
}

#[test]
fn without_psql_it_says_how_to_install_one() {
    let (_gprxy, desk) = at_work("alice");
    let mut command = desk.command(&["psql", "-d", DATABASE]);
    command.env("PATH", "/nowhere");
    let ran = psql::finish(command);
    assert_eq!(ran.code, 127);
    assert!(ran.err.contains("apt install postgresql-client"), "{}", ran.err);
}

#[test]
fn password_and_service_files_let_any_libpq_in() {
    let (_gprxy, desk) = at_work("alice");
    let pgpass = desk.home.join(".pgpass");
    fs::write(&pgpass, "# mine\n*:*:*:*:wrong\n").unwrap();
    fs::write(desk.home.join(".pg_service.conf"), "[mine]\nhost=x\n").unwrap();
    let ran = desk.run(&["token", "--pgpass"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert_eq!(fs::metadata(&pgpass).unwrap().permissions().mode() & 0o777, 0o600);
    desk.expire();
    desk.run(&["token", "--pgpass"]);
    let text = fs::read_to_string(&pgpass).unwrap();
    assert!(text.ends_with("# mine\n*:*:*:*:wrong\n") && text.lines().count() == 3, "{text}");
    assert_eq!(desk.run(&["service", "-d", DATABASE]).code, 0);
    assert!(fs::read_to_string(desk.home.join(".pg_service.conf")).unwrap().starts_with("[mine]\nhost=x\n"));
    let mut psql = std::process::Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["-XAtc", "select session_user", "service=gprxy"]).env_clear().env("HOME", &desk.home);
    assert_eq!(psql::finish(psql).ok(), READER.0);
    let taken = desk.run(&["service", "-d", DATABASE, "--name", "mine"]);
    assert_eq!(taken.code, 1);
    assert!(taken.err.contains("--force"), "{}", taken.err);
    assert_eq!(desk.run(&["logout"]).code, 0);
    assert_eq!(fs::read_to_string(&pgpass).unwrap(), "# mine\n*:*:*:*:wrong\n", "the copy is gone, too");
}

#[test]
fn a_shell_gets_variables_and_the_token_only_when_asked() {
    let (gprxy, desk) = at_work("alice");
    let token = desk.run(&["token"]).ok();
    assert!(!desk.run(&["env"]).ok().contains(&token));
    let script = format!(
        "eval \"$({} env -d {DATABASE} --with-token)\" && exec psql -XAtc 'select session_user'",
        env!("CARGO_BIN_EXE_gprxy")
    );
    let shell = desk.shell(&script);
    assert_eq!(psql::finish(shell).ok(), READER.0);
    let conninfo = format!(
        "host=localhost port={} user=alice@corp.example dbname={DATABASE} sslmode=verify-full sslrootcert={}",
        gprxy.target("alice").port,
        pki().ca.display()
    );
    let script = format!("PGPASSWORD=$({} token) exec psql -XAtc 'select 1' '{conninfo}'", env!("CARGO_BIN_EXE_gprxy"));
    let plain = desk.shell(&script);
    assert_eq!(psql::finish(plain).ok(), "1");
}

#[test]
fn status_says_what_the_proxy_makes_of_a_person() {
    let (_gprxy, desk) = at_work("alice");
    let text = desk.run(&["status", "-d", DATABASE]).ok();
    assert!(text.contains(&format!("lets you in to {DATABASE} as {}", READER.0)), "{text}");
    let (_other, carol) = at_work("carol");
    let json: Value = serde_json::from_str(&carol.run(&["status", "-d", DATABASE, "--json"]).ok()).unwrap();
    assert_eq!(json["logged_in"], true);
    assert!(json["proxy"]["error"].as_str().unwrap().contains("role"), "{json}");
    let gone = carol.with("PROXY_URL", &format!("localhost:{}", crate::support::reaper::free_port()));
    let text = gone.run(&["status", "-d", DATABASE]).ok();
    assert!(text.contains(&format!("does not let you in to {DATABASE}")) && text.contains("carol"), "{text}");
}

#[test]
fn never_again_17_connect_without_a_login_says_so() {
    let desk = Desk::new(Provider::shared()).with("PROXY_URL", "localhost");
    for args in [&["connect", "-s", "db", "-d", "app"][..], &["psql"], &["token"], &["env"], &["status"]] {
        let ran = desk.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.err);
        assert!(ran.err.contains("not logged in: run gprxy login"), "{args:?}: {}", ran.err);
    }
}

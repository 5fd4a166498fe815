//! What operators do: rotate the audit file, read it from standard output, configure by environment, check, and scale.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::support::fault::FaultProxy;
use crate::support::fixtures::{DATABASE, DIRECT, READER, WRITER};
use crate::support::gprxy::Config;
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::{AUDIENCE, Provider};
use crate::support::reaper::{Leashed, free_port, fresh_path, write_private};
use crate::support::sign_in;
use crate::support::target::Target;
use crate::support::tls::pki;
use crate::support::wire::Wire;
use crate::support::{audit, eventually, https, psql};

#[test]
fn sighup_opens_the_audit_file_anew_and_no_line_is_lost() {
    let gprxy = Config::new(Version::V15).start();
    let path = gprxy.audit_path().to_owned();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let mut moved = Vec::new();
    for round in 0..3 {
        wire.value(&format!("select 'before-{round}'"));
        let old = path.with_extension(format!("{round}"));
        std::fs::rename(&path, &old).unwrap();
        moved.push(old);
        wire.value(&format!("select 'between-{round}'"));
        gprxy.child.signal("HUP");
        // The file is there again although nobody has said anything since.
        eventually("the audit file under its name", || path.exists().then_some(()));
        wire.value(&format!("select 'after-{round}'"));
        gprxy.await_audited(&format!("after-{round}"));
    }
    let mut seen: Vec<String> = Vec::new();
    for file in moved.iter().chain([&path]) {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.ends_with('\n'), "{} ends within a line", file.display());
        seen.extend(audit::read(file).iter().filter_map(|line| line.statement().map(str::to_owned)));
    }
    let expected: Vec<String> = (0..3)
        .flat_map(|round| ["before", "between", "after"].map(|when| format!("select '{when}-{round}'")))
        .collect();
    assert_eq!(seen, expected, "every statement once, in order, over all files");
}

#[test]
fn a_reopening_that_fails_keeps_the_file_that_is_open() {
    let dir = fresh_path("audit-directory");
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("audit.jsonl");
    let gprxy = Config::new(Version::V15).set("audit.path", path.to_str().unwrap()).start();
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    let moved = dir.with_extension("moved");
    std::fs::rename(&dir, &moved).unwrap();
    gprxy.child.signal("HUP");
    eventually("the complaint in the log", || gprxy.log().contains("reopen").then_some(()));
    wire.value("select 'goes on in the old file'");
    eventually("its line", || {
        let lines = audit::read(&moved.join("audit.jsonl"));
        lines.iter().any(|line| line.statement().is_some_and(|text| text.contains("goes on"))).then_some(())
    });
}

#[test]
fn the_audit_trail_can_go_to_standard_output() {
    let gprxy = Config::new(Version::V15).set("audit.path", "-").start();
    psql::run(&gprxy.target("alice"), &["select 'on-stdout'"]).ok();
    let line = eventually("the statement's line", || {
        gprxy.output().lines().find(|line| line.contains("on-stdout")).map(str::to_owned)
    });
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["user"], "alice@corp.example");
    for line in gprxy.output().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(!gprxy.log().contains("on-stdout"), "the log goes to standard error and has no statements in it");
}

/// gprxy in a directory with this `.env`, with these variables and nothing else.
fn from_environment(verb: &str, dot_env: &str, environment: &[(&str, String)]) -> Command {
    let dir = fresh_path("working-directory");
    std::fs::create_dir(&dir).unwrap();
    write_private(&dir.join(".env"), dot_env);
    let mut command = Command::new(env!("CARGO_BIN_EXE_gprxy"));
    command.arg(verb).env_clear().env("PATH", "/usr/bin:/bin").current_dir(dir);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Settings as the first gprxy had them: all in the environment, the tenant at this port of this machine.
fn classic(tenant: u16, port: u16) -> (String, Vec<(&'static str, String)>) {
    let pki = pki();
    let dot_env = format!(
        "# as it was deployed\nPROXY_PORT=1\nDB_HOST=127.0.0.1:{}\nAUDIENCE={AUDIENCE}\n\
         export ROLE_MAPPING_reader={}:{}\nROLE_MAPPING_writer='{}:{}'\nDEFAULT_ROLE=Reader\n\
         GPRXY_USER={}\nGPRXY_PASS={}\n\
         AUTH0_NATIVE_CLIENT_ID=native\nCALLBACK_URL=http://localhost:8085/callback\nCONNECTION_NAME=\nPROXY_URL=db.corp.example\n",
        Cluster::shared(Version::V15).port,
        READER.0,
        READER.1,
        WRITER.0,
        WRITER.1,
        DIRECT.0,
        DIRECT.1,
    );
    let environment = vec![
        ("PROXY_HOST", "127.0.0.1".to_owned()),
        ("PROXY_PORT", port.to_string()),
        ("PROXY_CERT", pki.cert.display().to_string()),
        ("PROXY_KEY", pki.key.display().to_string()),
        ("AUTH0_TENANT", format!("127.0.0.1:{tenant}")),
        ("LOG_LEVEL", "debug".to_owned()),
        // The rig's authority in place of the system's: the tenant's keys come over verified TLS.
        ("SSL_CERT_FILE", pki.ca.display().to_string()),
    ];
    (dot_env, environment)
}

fn shared_keys() -> String {
    let url = format!("{}/jwks", Provider::shared().issuer);
    sign_in::agent().get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

#[test]
fn the_environment_and_dot_env_of_the_first_gprxy_are_all_that_is_needed() {
    let (tenant, asked) = https::serve_json(shared_keys());
    let port = free_port();
    let (dot_env, environment) = classic(tenant, port);
    let mut child = Leashed::spawn(&mut from_environment("start", &dot_env, &environment));
    eventually("gprxy to listen", || {
        assert!(!child.has_ended(), "gprxy ended");
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    assert_eq!(asked.recv().unwrap(), "/.well-known/jwks.json");
    let target = |claims: Value| {
        let mut claims = claims;
        claims["iss"] = format!("https://127.0.0.1:{tenant}/").into();
        Target {
            host: "localhost".to_owned(),
            port,
            user: "alice@corp.example".to_owned(),
            password: Provider::shared().mint(claims),
            database: DATABASE.to_owned(),
            sslmode: "verify-full",
            root_ca: pki().ca.clone(),
            account: READER.0,
            server: Cluster::shared(Version::V15),
        }
    };
    for (roles, account) in [(json!(["reader"]), READER.0), (json!(["WRITER "]), WRITER.0), (json!([]), READER.0)] {
        let ran = psql::run(&target(json!({ "roles": roles })), &["select session_user"]);
        assert_eq!(ran.ok(), account, "{roles}: mapped without case, and DEFAULT_ROLE for who has none");
    }
    child.signal("TERM");
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let mut log = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.0.wait().unwrap().success(), "{log}");
    assert_eq!(out.lines().filter(|line| line.contains("\"event\":\"statement\"")).count(), 3, "{out}");
    assert!(!log.contains(READER.1) && !log.contains(WRITER.1) && !log.contains(DIRECT.1), "{log}");
}

#[test]
fn check_reads_the_same_environment_and_a_role_that_is_not_mapped_is_a_start_up_error() {
    let (tenant, _asked) = https::serve_json(shared_keys());
    let (dot_env, environment) = classic(tenant, free_port());
    let output = from_environment("check", &dot_env, &environment).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(READER.1) && !text.contains(DIRECT.1), "{text}");
    for source in ["environment PROXY_HOST", "environment AUTH0_TENANT", ".env:"] {
        assert!(text.contains(source), "{source} in\n{text}");
    }
    let wrong = dot_env.replace("DEFAULT_ROLE=Reader", "DEFAULT_ROLE=admin");
    let output = from_environment("start", &wrong, &environment).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.lines().any(|line| line.contains("DEFAULT_ROLE") && line.contains("admin")), "{text}");
}

#[test]
fn check_ends_with_0_69_or_78_and_says_what_failed() {
    let check = |config: Config| {
        let output = config.check();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = check(Config::new(Version::V15));
    assert_eq!(code, Some(0), "{text}");

    let dead = i64::from(free_port());
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let not_postgres = i64::from(pki_port());
    for (config, what) in [
        (Config::new(Version::V15).set("databases.*.port", dead), "# failed database"),
        (Config::new(Version::V15).set("databases.*.port", not_postgres), "# failed database"),
        (Config::new(Version::V15).set("databases.*.sslrootcert", pki().stranger.to_str().unwrap()), "# failed"),
        (Config::new(Version::V15).issuer_setting("issuer", nowhere.as_str()), "# failed issuer"),
        (Config::new(Version::V15).issuer_setting("jwks_url", format!("{nowhere}/jwks")), "# failed issuer"),
        (
            Config::new(Version::V15).issuer_setting("issuer", format!("{}/", Provider::shared().issuer)),
            "# failed issuer",
        ),
    ] {
        let (code, text) = check(config);
        assert_eq!(code, Some(69), "{what}: {text}");
        assert!(text.contains(what), "{what}: {text}");
        assert!(text.contains("# ok"), "the others are well: {text}");
    }

    let (code, text) = check(Config::new(Version::V15).set("server.workers", "many"));
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("server.workers"), "{text}");
}

/// Somebody who listens and speaks TLS at once.
fn pki_port() -> u16 {
    https::serve_json("{}".to_owned()).0
}

#[test]
fn four_workers_and_two_hundred_clients_over_five_connections_get_nothing_but_their_own_answers() {
    const CLIENTS: usize = 200;
    const QUERIES: usize = 50;
    let mut gprxy = Config::new(Version::V15).set("server.workers", 4).pool_of(5).queue_wait("120s").start();
    let (alice, bob) = (gprxy.target("alice"), gprxy.target("bob").in_plaintext());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let target = if client % 2 == 0 { alice.clone() } else { bob.clone() };
            let run = move || {
                let mut wire = Wire::login(&target).unwrap_or_else(|error| panic!("{client}: {error:?}"));
                for number in 0..QUERIES {
                    let tag = format!("{client}-{number}");
                    assert_eq!(
                        wire.value(&format!("select '{tag} ' || session_user")),
                        format!("{tag} {}", target.account)
                    );
                }
                let pid = wire.value("select pg_backend_pid()");
                wire.quit();
                pid
            };
            thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap()
        })
        .collect();
    let backends: BTreeSet<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(backends.len() <= 10, "two accounts with five connections each: {backends:?}");
    gprxy.assert_alive();
    let statements = eventually("every audit line", || {
        let lines: Vec<_> = gprxy.audit().into_iter().filter(|line| line.event() == "statement").collect();
        (lines.len() >= CLIENTS * (QUERIES + 1)).then_some(lines)
    });
    assert_eq!(statements.len(), CLIENTS * (QUERIES + 1));
    for line in &statements {
        let Some(client) = line.statement().and_then(|text| text.strip_prefix("select '")?.split('-').next()) else {
            continue;
        };
        let (user, account) = match client.parse::<usize>().unwrap() % 2 {
            0 => ("alice@corp.example", READER.0),
            _ => ("bob@corp.example", WRITER.0),
        };
        assert_eq!((line.user(), line.account()), (Some(user), Some(account)), "{line:?}");
    }
}

#[test]
fn a_signal_to_end_is_heard_while_the_issuer_does_not_answer() {
    let silent = FaultProxy::before(free_port());
    silent.set_black_hole(true);
    let jwks_url = format!("http://127.0.0.1:{}/jwks", silent.port);
    let mut gprxy = Config::new(Version::V15).issuer_setting("jwks_url", jwks_url).start();
    eventually("the fetch of the first keys", || (silent.accepted() > 0).then_some(()));
    gprxy.child.signal("TERM");
    assert!(gprxy.child.0.wait().unwrap().success(), "{}", gprxy.log());
    assert!(!gprxy.log().contains("listening on"), "it has not waited for the keys, or their limit: {}", gprxy.log());
}

#[test]
fn a_sighup_does_not_cut_a_drain_short() {
    let mut gprxy = Config::new(Version::V15).start();
    let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
    bob.rows("begin").unwrap();
    gprxy.child.signal("TERM");
    eventually("the drain", || gprxy.log().contains("shutting down").then_some(()));
    gprxy.child.signal("HUP");
    eventually("the rotation", || gprxy.log().contains("SIGHUP").then_some(()));
    assert_eq!(bob.value("select 1"), "1");
    bob.rows("commit").unwrap();
    assert_eq!(bob.expect_fatal().code, "57P01");
    assert!(gprxy.child.0.wait().unwrap().success(), "{}", gprxy.log());
}

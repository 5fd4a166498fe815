//! The built program with right and wrong settings: exit codes, one line for each problem, no secret anywhere.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

const LEAST: &str = r#"
[[issuer]]
issuer = "https://idp.example/"
audience = "https://db.example"

[[role]]
name = "reader"
account = "app_reader"
password = "s3cret-needle"
"#;

/// Runs gprxy in an empty directory with an empty environment.
fn gprxy(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gprxy"));
    command.args(args).current_dir(dir).env_clear().envs(env.iter().copied());
    command.output().expect("gprxy starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("gprxy writes UTF-8")
}

/// A directory with this settings file.
fn with_file(content: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gprxy.toml"), content).unwrap();
    dir
}

#[test]
fn nothing_set_ends_both_commands_with_78_and_one_line_for_each_problem() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["start"][..], &["check"], &["check", "--offline"]] {
        let output = gprxy(dir.path(), args, &[]);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        let lines: Vec<_> = text(&output.stderr).lines().filter(|line| !line.contains("warning: ")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("gprxy: issuer: found nothing; expected "), "{lines:?}");
        assert!(lines[1].starts_with("gprxy: role: found nothing; expected "), "{lines:?}");
    }
}

#[test]
fn start_names_every_broken_setting() {
    let dir =
        with_file(&format!("{LEAST}[server]\nlisten_port = 70000\nlisten_prot = 1\n[audit]\non_failure = 'ignore'\n"));
    let env = [("LOG_LEVEL", "loud"), ("PROXY_CERT", "/nonexistent.pem")];
    let output = gprxy(dir.path(), &["start", "--config", "gprxy.toml"], &env);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    let lines: Vec<_> = text(&output.stderr).lines().collect();
    for setting in [
        "server.listen_port (gprxy.toml:11)",
        "server.listen_prot (gprxy.toml:12)",
        "tls.cert (environment PROXY_CERT)",
        "tls.key",
        "audit.on_failure",
        "log.level (environment LOG_LEVEL)",
    ] {
        let named = lines.iter().filter(|line| line.starts_with(&format!("gprxy: {setting}"))).count();
        assert_eq!(named, 1, "{setting}: {lines:#?}");
    }
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains(": found ") && line.contains("; expected ")), "{lines:#?}");
}

#[test]
fn check_offline_prints_toml_without_secrets() {
    let dir = with_file(LEAST);
    std::fs::write(dir.path().join(".env"), "PROXY_PORT=6000\nGPRXY_USER=u\nGPRXY_PASS=s3cret-needle-2\n").unwrap();
    let env = [("GPRXY_CONFIG", "gprxy.toml"), ("ROLE_MAPPING_w", "w:s3cret-needle-3")];
    let output = gprxy(dir.path(), &["check", "--offline"], &env);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown: toml::Table = text(&output.stdout).parse().expect("TOML");
    assert_eq!(shown["server"]["listen_port"].as_integer(), Some(6000));
    assert_eq!(shown["role"][0]["password"].as_str(), Some("(set)"));
    assert!(text(&output.stdout).contains("listen_port = 6000  # .env:1 PROXY_PORT"));
    let everything = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!everything.contains("s3cret"), "{everything}");
}

#[test]
fn the_development_issuer_is_refused() {
    let file = LEAST.replace("https://idp.example/", "http://127.0.0.1:1/gprxy-demo-not-for-production");
    let dir = with_file(&file);
    let output = gprxy(dir.path(), &["start", "--config", "gprxy.toml"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("the development issuer"), "{}", text(&output.stderr));
}

/// A server on this machine that answers each connection with what `answer` makes of the first bytes it gets.
fn server(connections: usize, answer: impl Fn(&[u8], u16) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for _ in 0..connections {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut asked = [0; 4096];
            let Ok(length) = stream.read(&mut asked) else { return };
            let _ = stream.write_all(&answer(&asked[..length], port));
        }
    });
    port
}

fn http(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn provider() -> u16 {
    server(2, |asked, port| {
        if asked.starts_with(b"GET /.well-known/openid-configuration ") {
            let root = format!("http://127.0.0.1:{port}");
            http(&format!(r#"{{"issuer": "{root}", "jwks_uri": "{root}/keys"}}"#))
        } else {
            http(r#"{"keys": [{"kty": "RSA", "alg": "RS256", "kid": "1", "n": "AQAB", "e": "AQAB"}]}"#)
        }
    })
}

fn checked(provider: u16, postgres: u16) -> Output {
    let file = LEAST.replace("https://idp.example/", &format!("http://127.0.0.1:{provider}"));
    let dir =
        with_file(&format!("{file}\n[databases.'*']\nhost = '127.0.0.1'\nport = {postgres}\nsslmode = 'disable'\n"));
    gprxy(dir.path(), &["check", "--config", "gprxy.toml"], &[])
}

#[test]
fn check_tries_the_issuer_and_the_database() {
    // AuthenticationOk, ParameterStatus, BackendKeyData, ReadyForQuery: a server that trusts whoever comes.
    let welcome = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.9\0K\0\0\0\x0c\0\0\0\x01abcdZ\0\0\0\x05I";
    let postgres =
        server(2, |asked, _| if asked == [0, 0, 0, 8, 4, 210, 22, 47] { b"N".to_vec() } else { welcome.to_vec() });
    let provider = provider();
    let output = checked(provider, postgres);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(
        shown.contains(&format!("# ok     issuer http://127.0.0.1:{provider}: discovery, 1 key (RS256)\n")),
        "{shown}"
    );
    assert!(shown.contains(&format!("# ok     database * at 127.0.0.1:{postgres}: answers")), "{shown}");
    let login = format!("logged in to postgres at 127.0.0.1:{postgres} without TLS, PostgreSQL 18.9\n");
    assert!(shown.contains(&login), "{shown}");
}

#[test]
fn check_ends_with_69_when_something_does_not_answer() {
    let refused = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let output = checked(provider(), refused);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(69), "{shown}");
    assert!(shown.contains("# ok     issuer "), "{shown}");
    assert!(shown.contains(&format!("# failed database * at 127.0.0.1:{refused}: cannot connect")), "{shown}");
    assert!(shown.parse::<toml::Table>().is_ok(), "what was tried stands in comments");
}

#[test]
fn help_and_version_say_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let version = gprxy(dir.path(), &["--version"], &[]);
    assert_eq!(text(&version.stdout).trim(), concat!("gprxy ", env!("CARGO_PKG_VERSION")));
    let help = gprxy(dir.path(), &["--help"], &[]);
    for word in ["start", "check", "Examples:", "78", "PGPASSWORD"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    let check = gprxy(dir.path(), &["check", "--help"], &[]);
    assert!(text(&check.stdout).contains("--offline") && text(&check.stdout).contains("69"));
}

//! `gprxy tunnel` as a child process, with a home directory of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};

use super::gprxy::Gprxy;
use super::reaper::{Leashed, fresh_path, write_private};
use super::target::Target;
use super::tls;

/// A computer on which somebody is logged in.
pub(crate) struct Home(PathBuf);

impl Home {
    /// With nobody logged in.
    pub(crate) fn new() -> Self {
        let home = fresh_path("home");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join(".gprxy")).unwrap();
        Self(home)
    }

    /// With this token.
    pub(crate) fn with_token(token: &str) -> Self {
        let home = Self::new();
        home.keep(token);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.0.join(".gprxy/credentials")
    }

    /// Puts another token in the place of the one that is there.
    pub(crate) fn keep(&self, token: &str) {
        let credentials = json!({
            "access_token": token, "refresh_token": "", "id_token": "",
            "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2126-01-01T00:00:00Z",
            "user_info": { "sub": "bob", "email": "bob@corp.example", "name": "Bob", "roles": ["writer"] },
        });
        let fresh = fresh_path("credentials");
        write_private(&fresh, &credentials.to_string());
        fs::rename(fresh, self.credentials()).unwrap();
    }
}

/// `gprxy tunnel` with these arguments, on its way to this proxy.
pub(crate) fn command(home: &Home, gprxy: &Gprxy, arguments: &[&str]) -> Command {
    let target = gprxy.target("bob");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gprxy"));
    command.arg("tunnel").args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("RUST_LOG", "trace");
    command.env("PROXY_URL", format!("localhost:{}", target.port)).env("PROXY_CA", &tls::pki().ca);
    command.current_dir(home.path()).stdin(Stdio::null());
    command
}

/// Runs one that is expected to refuse.
pub(crate) fn refused(mut command: Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().expect("gprxy starts");
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
}

/// A running tunnel.
pub(crate) struct Tunnel {
    pub(crate) child: Leashed,
    /// What it said about itself.
    pub(crate) told: Value,
    out: BufReader<ChildStdout>,
    log: PathBuf,
    target: Target,
}

impl Tunnel {
    /// At a free port of the loopback address, with further arguments.
    pub(crate) fn open(home: &Home, gprxy: &Gprxy, arguments: &[&str]) -> Self {
        let arguments = [&["--json", "--listen", "127.0.0.1:0"], arguments].concat();
        Self::start(command(home, gprxy, &arguments), gprxy)
    }

    /// Whatever the command says; it has to ask for JSON.
    pub(crate) fn start(mut command: Command, gprxy: &Gprxy) -> Self {
        let log = fresh_path("tunnel.log");
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut child = Leashed::spawn(&mut command);
        let mut out = BufReader::new(child.0.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let read = || fs::read_to_string(&log).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no tunnel: {line}\n{}", read()));
        Self { child, told, out, log, target: gprxy.target("bob") }
    }

    /// One of the places where it listens.
    pub(crate) fn place(&self, index: usize) -> Target {
        let place = &self.told["listen"][index];
        Target {
            host: place["host"].as_str().expect("a host").to_owned(),
            port: u16::try_from(place["port"].as_u64().expect("a port")).unwrap(),
            password: place["password"].as_str().unwrap_or_default().to_owned(),
            sslmode: "disable",
            ..self.target.clone()
        }
    }

    /// The first of them.
    pub(crate) fn target(&self) -> Target {
        self.place(0)
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Sends a signal, waits for the end: its exit code and what it printed after its first line.
    pub(crate) fn end_by(mut self, signal: &str) -> (i32, String) {
        self.child.signal(signal);
        let code = self.child.0.wait().unwrap().code().unwrap_or(-1);
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

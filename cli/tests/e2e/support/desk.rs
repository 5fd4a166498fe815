//! A developer's computer: a home directory, an environment, `gprxy` on it, and a browser that a test plays.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::eventually;
use super::provider::{Provider, RS256};
use super::psql::Ran;
use super::reaper::{Leashed, fresh_path, write_private};
use super::sign_in::{Browser, agent};

/// One person's computer.
pub(crate) struct Desk {
    pub(crate) home: PathBuf,
    pub(crate) provider: &'static Provider,
    environment: BTreeMap<String, String>,
}

/// A `gprxy` that is still running.
pub(crate) struct Running {
    pub(crate) child: Leashed,
    stderr: BufReader<ChildStderr>,
    opened: PathBuf,
}

impl Desk {
    /// With everything set for the provider, and a browser that only notes what it is told to open.
    pub(crate) fn new(provider: &'static Provider) -> Self {
        let home = fresh_path("home");
        fs::create_dir(&home).unwrap();
        let desk = Self { home, provider, environment: BTreeMap::new() };
        let script = desk.home.join("browser");
        let opened = desk.home.join("opened");
        let text = format!("#!/bin/sh\nprintf %s \"$1\" >{0}.part && mv {0}.part {0}\n", opened.display());
        write_private(&script, &text);
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        desk.with("BROWSER", script.to_str().unwrap())
            .with("GPRXY_ISSUER", &provider.issuer)
            .with("GPRXY_CLIENT_ID", "gprxy-cli")
            .with("GPRXY_SCOPES", "openid email offline_access sql")
            .with("GPRXY_RESOURCE", RS256)
            .with("GPRXY_PROMPT", "consent")
            .with("CALLBACK_URL", "http://127.0.0.1:0/callback")
    }

    /// Sets a variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes a variable away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// A gprxy with these arguments, in an environment that nobody else has touched.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_gprxy"), args)
    }

    /// A shell with this script, in the same environment.
    pub(crate) fn shell(&self, script: &str) -> Command {
        self.program("sh", &["-c", script])
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.environment).env("HOME", &self.home);
        // Debian's own psql first: a wrapper in Perl that people really run.
        command.env("PATH", "/usr/bin:/bin:/usr/lib/postgresql/15/bin").env("LC_ALL", "C.UTF-8");
        command.current_dir(&self.home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        super::psql::finish(self.command(args))
    }

    /// Starts it.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.spawn(self.command(args))
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let mut child = Leashed::spawn(&mut command);
        let stderr = BufReader::new(child.0.stderr.take().expect("piped"));
        Running { child, stderr, opened: self.home.join("opened") }
    }

    /// Logs this person in with the browser.
    pub(crate) fn log_in(&self, person: &str) {
        let login = self.start(&["login", "--force"]);
        let page = self.browse(login.opened(), person);
        let ran = login.end();
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(page.contains("Logged in"), "{page}");
    }

    /// What this person does with a login page: the page that they see last.
    pub(crate) fn browse(&self, url: String, person: &str) -> String {
        visit(&Browser::new(&self.provider.issuer, person).walk(url)).1
    }

    /// Where the default profile's credentials are.
    pub(crate) fn credentials_path(&self) -> PathBuf {
        self.home.join(".gprxy/credentials")
    }

    /// What is kept.
    pub(crate) fn credentials(&self) -> Value {
        serde_json::from_slice(&fs::read(self.credentials_path()).expect("credentials")).expect("JSON")
    }

    /// Changes a field of what is kept.
    pub(crate) fn set_credential(&self, name: &str, value: impl Into<Value>) {
        let mut credentials = self.credentials();
        credentials[name] = value.into();
        write_private(&self.credentials_path(), &credentials.to_string());
    }

    /// As if the access token had ended long ago.
    pub(crate) fn expire(&self) {
        self.set_credential("expires_at", "2020-01-01T00:00:00Z");
    }

    /// The names of all files under `~/.gprxy`.
    pub(crate) fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.home.join(".gprxy")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().expect("a name of ours")).collect();
        names.sort();
        names
    }
}

impl Running {
    /// The page that the browser was told to open.
    pub(crate) fn opened(&self) -> String {
        let url = eventually("the browser to be opened", || fs::read_to_string(&self.opened).ok());
        fs::remove_file(&self.opened).unwrap();
        url
    }

    /// Reads standard error up to a line that begins like this.
    pub(crate) fn line(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).expect("it writes UTF-8") > 0 {
            if line.starts_with(beginning) {
                return line.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("it ended without a line that begins with {beginning:?}");
    }

    /// Waits until it has this file open.
    pub(crate) fn await_open(&self, path: &Path) {
        eventually("the file to be open", || {
            let mut open = fs::read_dir(format!("/proc/{}/fd", self.child.pid())).ok()?;
            open.find(|entry| entry.as_ref().is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path)))
        })
        .expect("an entry");
    }

    /// What it printed, and how it ended.
    pub(crate) fn end(mut self) -> Ran {
        let (mut out, mut err) = (String::new(), String::new());
        self.child.0.stdout.take().expect("piped").read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        let status = self.child.0.wait().unwrap();
        Ran { out, err, code: code_of(status) }
    }
}

/// As a shell says it: 130 for SIGINT.
fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The head and the body of a page.
pub(crate) fn visit(url: &str) -> (u16, String) {
    let mut response = agent().get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

//! A process that runs with a `pgbouncer.ini`: PgBouncer itself, or gprxy in its place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::gprxy::runtime_under_test;
use super::postgres::Cluster;
use super::reaper::{Leashed, free_port, fresh_path, run_dir};
use super::target::Target;
use super::{eventually, tls};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Gprxy,
    PgBouncer,
}

/// A `pgbouncer.ini` with its `userlist.txt`, on the way to a process.
#[derive(Clone)]
pub(crate) struct Ini {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    pub(crate) server: &'static Cluster,
    databases: Vec<String>,
    users: String,
    of_users: Vec<String>,
    peers: Vec<String>,
    options: Vec<(String, String)>,
}

impl Ini {
    /// Listens on a free port and in a directory of its own.
    pub(crate) fn new(server: &'static Cluster) -> Self {
        let dir = fresh_path("bouncer");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let port = free_port();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Self {
            port,
            server,
            databases: Vec::new(),
            users: String::new(),
            of_users: Vec::new(),
            peers: Vec::new(),
            options: Vec::new(),
            dir: dir.clone(),
        }
        .set("listen_addr", "127.0.0.1")
        .set("listen_port", &port.to_string())
        .set("unix_socket_dir", &text(dir.clone()))
        .set("auth_file", &text(dir.join("userlist.txt")))
        .set("logfile", &text(dir.join("bouncer.log")))
        .set("pidfile", &text(dir.join("bouncer.pid")))
        .set("ignore_startup_parameters", "extra_float_digits")
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.options.retain(|(known, _)| known != name);
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.options.retain(|(known, _)| known != name);
        self
    }

    /// A line of `[databases]`; `SERVER` stands for host and port of the server.
    pub(crate) fn database(mut self, line: &str) -> Self {
        self.databases.push(line.replace("SERVER", &format!("host=127.0.0.1 port={}", self.server.port)));
        self
    }

    pub(crate) fn without_database(mut self, name: &str) -> Self {
        self.databases.retain(|line| !line.starts_with(name));
        self
    }

    /// A line of `userlist.txt`.
    pub(crate) fn user(mut self, (name, secret): (&str, &str)) -> Self {
        self.users.push_str(&format!("\"{name}\" \"{secret}\"\n"));
        self
    }

    /// A line of `[users]`.
    pub(crate) fn of_user(mut self, line: &str) -> Self {
        self.of_users.push(line.to_owned());
        self
    }

    /// A line of `[peers]`.
    pub(crate) fn peer(mut self, line: &str) -> Self {
        self.peers.push(line.to_owned());
        self
    }

    /// Listens where another one did, and keeps its own directory.
    pub(crate) fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self.set("listen_port", &port.to_string())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("pgbouncer.ini")
    }

    pub(crate) fn write(&self) {
        let options: Vec<_> = self.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        // Older ones do not know the section.
        let peers =
            if self.peers.is_empty() { String::new() } else { format!("[peers]\n{}\n\n", self.peers.join("\n")) };
        let text = format!(
            "; written by a test\n[databases]\n{}\n\n[users]\n{}\n\n{peers}[pgbouncer]\n{}\n",
            self.databases.join("\n"),
            self.of_users.join("\n"),
            options.join("\n")
        );
        for (path, text) in [(self.file(), &text), (self.dir.join("userlist.txt"), &self.users)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }

    fn command(&self, kind: Kind) -> Command {
        self.write();
        let mut command = match kind {
            Kind::Gprxy => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_gprxy"));
                command.args(["start", "--pgbouncer-ini"]).arg(self.file());
                command.args(runtime_under_test().map(|name| format!("--runtime={name}")));
                command
            }
            Kind::PgBouncer => {
                let mut command = Command::new("/usr/sbin/pgbouncer");
                // It does not run as root, and one test's PgBouncer may not read the files of another's.
                if Cluster::needs_nobody() {
                    command.uid(65_534).gid(65_534);
                }
                command.arg(self.file());
                command
            }
        };
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(run_dir()).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(self, kind: Kind) -> Bouncer {
        self.start_with(kind, &[])
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start_with(self, kind: Kind, arguments: &[&str]) -> Bouncer {
        let output = fresh_path("bouncer.out");
        let mut command = self.command(kind);
        let out = fs::File::create(&output).unwrap();
        command.args(arguments).stdout(out.try_clone().unwrap()).stderr(out);
        let mut child = Leashed::spawn(&mut command);
        let pidfile = self.dir.join("bouncer.pid");
        let pid = child.pid().to_string();
        eventually("it to listen", || {
            assert!(!child.has_ended(), "{kind:?} ended:\n{}", fs::read_to_string(&output).unwrap_or_default());
            let is_its = fs::read_to_string(&pidfile).is_ok_and(|text| text.trim() == pid);
            let log = fs::read_to_string(self.dir.join("bouncer.log")).unwrap_or_default();
            (is_its && log.contains("listening on")).then_some(())
        });
        Bouncer { child, ini: self, output }
    }

    /// Starts gprxy where it is expected to refuse: its exit status and what it said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let output = self.command(Kind::Gprxy).args(arguments).output().expect("gprxy starts");
        (output.status, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

/// A running one.
pub(crate) struct Bouncer {
    pub(crate) child: Leashed,
    pub(crate) ini: Ini,
    output: PathBuf,
}

impl Bouncer {
    pub(crate) fn target(&self, database: &str, (user, password): (&str, &str)) -> Target {
        Target {
            host: "127.0.0.1".to_owned(),
            port: self.ini.port,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            sslmode: "disable",
            root_ca: tls::pki().ca.clone(),
            account: "",
            server: self.ini.server,
        }
    }

    /// At its Unix socket.
    pub(crate) fn at_socket(&self, database: &str, user: (&str, &str)) -> Target {
        Target { host: self.ini.dir.to_str().unwrap().to_owned(), ..self.target(database, user) }
    }

    /// What it has written to standard output and standard error.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Its log file.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.ini.dir.join("bouncer.log")).unwrap_or_default()
    }

    /// Another configuration, and SIGHUP; what gprxy logs about it.
    pub(crate) fn reload(&mut self, change: impl FnOnce(Ini) -> Ini) -> String {
        self.ini = change(self.ini.clone());
        self.ini.write();
        let before = self.log().len();
        self.child.signal("HUP");
        eventually("the settings to be read", || {
            let told = self.log().split_off(before);
            (told.contains("and are in force") || told.contains("of before stay in force")).then_some(told)
        })
    }

    /// Waits for its end.
    pub(crate) fn await_end(&mut self) {
        eventually("it to end", || self.child.has_ended().then_some(()));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Path::new(&self.ini.dir).join(format!(".s.PGSQL.{}", self.ini.port))
    }
}

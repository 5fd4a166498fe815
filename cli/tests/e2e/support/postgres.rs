//! PostgreSQL clusters of our own: a fresh data directory, a free port, a private socket directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use super::reaper::{Leashed, free_port, fresh_path, run_dir};
use super::{deps, eventually, fixtures, tls};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V15,
    V18,
}

impl Version {
    fn home(self) -> PathBuf {
        match self {
            Self::V15 => PathBuf::from("/usr/lib/postgresql/15"),
            Self::V18 => reachable(deps::postgres_18_home()),
        }
    }
}

/// A running server. Ends when dropped; the shared ones end with the run.
pub(crate) struct Cluster {
    pub(crate) version: Version,
    pub(crate) port: u16,
    /// Holds `.s.PGSQL.<port>`; whoever can open it is the superuser.
    pub(crate) socket_dir: PathBuf,
    data: PathBuf,
    server: Mutex<Leashed>,
}

/// Whether these tests run as root, which PostgreSQL refuses to.
fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

/// The ids of `nobody`, whom PostgreSQL runs as when the tests are root.
const NOBODY: u32 = 65_534;

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command
}

/// The same directory, or a copy where `nobody` can read it: a checkout may lie in a private home.
fn reachable(home: PathBuf) -> PathBuf {
    static COPY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let version = unprivileged(&home.join("bin/postgres")).arg("--version").output();
        if version.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let copy = run_dir().join("pg18");
        let status = Command::new("cp").arg("-r").args([&home, &copy]).status().unwrap();
        assert!(status.success(), "copying {} failed", home.display());
        Some(copy)
    });
    copy.clone().unwrap_or(home)
}

fn owned_by_server(path: &Path, mode: u32) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn finish(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Cluster {
    /// The server of this version that all tests share, with [`fixtures::SCHEMA`] in it.
    pub(crate) fn shared(version: Version) -> &'static Self {
        static V15: OnceLock<Cluster> = OnceLock::new();
        static V18: OnceLock<Cluster> = OnceLock::new();
        let slot = match version {
            Version::V15 => &V15,
            Version::V18 => &V18,
        };
        slot.get_or_init(|| Self::start(version))
    }

    /// Whether programs that refuse to run as root have to be started as somebody else.
    pub(crate) fn needs_nobody() -> bool {
        is_root()
    }

    /// A server of one's own, to stop, break or reconfigure.
    pub(crate) fn start(version: Version) -> Self {
        let base = fresh_path(&format!("{version:?}"));
        let (data, socket_dir) = (base.join("data"), base.join("socket"));
        fs::create_dir(&base).unwrap();
        fs::create_dir(&socket_dir).unwrap();
        owned_by_server(&base, 0o755);
        owned_by_server(&socket_dir, 0o755);

        let mut initdb = unprivileged(&version.home().join("bin/initdb"));
        initdb.args(["--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-D"]).arg(&data);
        finish(initdb);
        let port = free_port();
        configure(&data, &socket_dir, port);

        let server = Mutex::new(launch(version, &data));
        let cluster = Self { version, port, socket_dir, data, server };
        cluster.await_ready();
        for (database, sql) in fixtures::SCHEMA {
            cluster.sql_in(database, sql);
        }
        cluster
    }

    fn await_ready(&self) {
        // The eighth line of postmaster.pid is the server's status (PostgreSQL source, miscadmin.h).
        eventually("PostgreSQL to start", || {
            let pid_file = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
            pid_file.lines().nth(7).filter(|status| status.trim() == "ready").map(drop)
        });
    }

    /// A server of one's own that lives until the run ends, so that a [`Target`](super::target::Target) can name it.
    pub(crate) fn leaked(version: Version) -> &'static Self {
        Box::leak(Box::new(Self::start(version)))
    }

    /// Stops at once, like a crash, and stays down.
    pub(crate) fn stop(&self) {
        let mut server = self.server.lock().unwrap();
        server.signal("QUIT");
        eventually("PostgreSQL to stop", || server.has_ended().then_some(()));
        // An immediate shutdown leaves it behind.
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
    }

    /// Starts a stopped server again on the same port.
    pub(crate) fn resume(&self) {
        *self.server.lock().unwrap() = launch(self.version, &self.data);
        self.await_ready();
    }

    /// Runs SQL as the superuser in the test database and returns unaligned rows.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.sql_in(fixtures::DATABASE, sql)
    }

    /// The same in another database.
    pub(crate) fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = Command::new(deps::psql())
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"])
            .arg(&self.socket_dir)
            .args(["-p", &self.port.to_string(), "-c", sql])
            .env("PGOPTIONS", "-c client_min_messages=error")
            .stdin(Stdio::null())
            .output()
            .expect("psql starts");
        assert!(output.status.success(), "superuser: {sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }

    /// A database that only one test uses, so that its connections can be counted.
    pub(crate) fn create_database(&self, name: &str) {
        self.sql(&format!("create database {name} template template0"));
    }

    /// Connections to a database, and how many of them run something.
    pub(crate) fn connections_to(&self, database: &str) -> (usize, usize) {
        let counts = self.sql(&format!(
            "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity where datname = '{database}'"
        ));
        let (all, busy) = counts.split_once('|').expect("two columns");
        (all.parse().expect("a number"), busy.parse().expect("a number"))
    }

    /// Returns when nothing runs in a database and no more connections than these are open.
    pub(crate) fn await_idle(&self, database: &str, at_most: usize) {
        eventually(&format!("an idle pool of at most {at_most} in {database}"), || {
            let (all, busy) = self.connections_to(database);
            (all <= at_most && busy == 0).then_some(())
        });
    }

    /// The server process of an active statement that contains `marker`, once there is one.
    pub(crate) fn await_running(&self, marker: &str) -> String {
        eventually(&format!("a running statement with {marker}"), || {
            let pid = self.sql(&running(marker));
            (!pid.is_empty()).then_some(pid)
        })
    }

    /// Returns when no active statement contains `marker` any more.
    pub(crate) fn await_gone(&self, marker: &str) {
        eventually(&format!("the end of the statement with {marker}"), || {
            self.sql(&running(marker)).is_empty().then_some(())
        });
    }
}

fn running(marker: &str) -> String {
    assert!(!marker.contains('\''));
    format!(
        "select pid from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and strpos(query, '{marker}') > 0"
    )
}

fn configure(data: &Path, socket_dir: &Path, port: u16) {
    let pki = tls::pki();
    for (pem, name) in [(&pki.cert, "server.crt"), (&pki.key, "server.key")] {
        let copy = data.join(name);
        fs::copy(pem, &copy).unwrap();
        owned_by_server(&copy, 0o600);
    }
    let settings = format!(
        "listen_addresses = '127.0.0.1,127.0.0.2,::1'\nport = {port}\nunix_socket_directories = '{}'\nssl = on\n\
         fsync = off\nmax_connections = 200\nlogging_collector = off\nlog_timezone = UTC\ntimezone = UTC\n",
        socket_dir.display()
    );
    let conf = data.join("postgresql.conf");
    fs::write(&conf, fs::read_to_string(&conf).unwrap() + &settings).unwrap();
    fs::write(data.join("pg_hba.conf"), fixtures::HBA).unwrap();
}

fn launch(version: Version, data: &Path) -> Leashed {
    let log = fs::File::create(data.parent().expect("data lies in the base").join("log")).unwrap();
    let mut command = unprivileged(&version.home().join("bin/postgres"));
    command.arg("-D").arg(data).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Leashed::spawn(&mut command)
}

//! A PostgreSQL of the demo's own: a new cluster on a free port of 127.0.0.1, two service accounts, and a table with
//! row-level security. Stopped and removed with the demo.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use rustix::process::Signal;

use super::failure::{Doing, Failure, Result};
use super::install::Programs;
use super::issuer::random_hex;
use super::nursery::{Guarded, Nursery};

/// The database of the demo.
pub(super) const DATABASE: &str = "demo";
/// The account behind the role `reader`.
pub(super) const READER: &str = "app_reader";
/// The account behind the role `writer`.
pub(super) const WRITER: &str = "app_writer";
/// All rows of the table when the story begins, and those that the policy shows to [`READER`].
pub(super) const ALL_ROWS: usize = 5;
/// See [`ALL_ROWS`].
pub(super) const READABLE_ROWS: usize = 3;

/// initdb takes a second; a busy machine may need many.
const INITDB: Duration = Duration::from_secs(90);
const START: Duration = Duration::from_secs(60);
const SQL: Duration = Duration::from_secs(30);
/// Somebody may take the free port between our look and the server's bind; not three times in a row.
const ATTEMPTS: u32 = 3;

/// No Unix socket (its path may be too long for the system), and no care for the disk: the data lives for minutes.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 50
shared_buffers = '16MB'
password_encryption = 'scram-sha-256'
lc_messages = 'C'
fsync = off
synchronous_commit = off
full_page_writes = off
";

/// Passwords for everybody, also on this machine.
const HBA: &str = "host all all 127.0.0.1/32 scram-sha-256\n";

/// The running server.
pub(super) struct Cluster {
    _server: Guarded,
    port: u16,
    psql: PathBuf,
    superuser_password: String,
    reader_password: String,
    writer_password: String,
}

impl Cluster {
    /// Makes the cluster below `home`, starts it and fills it.
    pub(super) fn start(programs: &Programs, home: &Path, nursery: &Nursery) -> Result<Self> {
        let rng = SystemRandom::new();
        let superuser_password = random_hex(&rng, 16)?;
        let owner = Owner::find()?;
        let folder = home.join("postgres");
        owner.create_folder(&folder)?;
        initialise(programs, &folder, &superuser_password, &owner, nursery)?;
        let (server, port) = serve(programs, &folder, &owner, nursery)?;
        let cluster = Self {
            _server: server,
            port,
            psql: programs.psql.clone(),
            superuser_password,
            reader_password: random_hex(&rng, 16)?,
            writer_password: random_hex(&rng, 16)?,
        };
        cluster.run_script(&home.join("setup.sql"), &cluster.setup_script(), nursery)?;
        Ok(cluster)
    }

    /// Where it listens, on 127.0.0.1.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The accounts' passwords, for the proxy's configuration: [`READER`]'s and [`WRITER`]'s.
    pub(super) fn passwords(&self) -> (&str, &str) {
        (&self.reader_password, &self.writer_password)
    }

    /// One value, asked for by the superuser directly, beside the proxy: what is really there.
    pub(super) fn ask(&self, sql: &str, nursery: &Nursery) -> Result<String> {
        let mut command = self.psql(DATABASE);
        command.args(["-Atc", sql]);
        let finished = nursery.run(command, SQL)?;
        if !finished.status.success() {
            return Err(Failure::broken(format!("PostgreSQL does not answer: {}", finished.stderr.trim())));
        }
        Ok(finished.stdout.trim().to_owned())
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = client(&self.psql);
        command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1"]).args(["-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &self.port.to_string(), "-d", database]).env("PGPASSWORD", &self.superuser_password);
        command
    }

    /// The script holds passwords, so it is a private file on psql's standard input and no argument.
    fn run_script(&self, file: &Path, script: &str, nursery: &Nursery) -> Result<()> {
        write_private(file, script)?;
        let mut command = self.psql("postgres");
        command.stdin(File::open(file).doing("read the script that fills the database")?);
        let finished = nursery.begin_with_input(command)?.finish(nursery, SQL)?;
        fs::remove_file(file).doing("remove the script that fills the database")?;
        if finished.status.success() {
            return Ok(());
        }
        Err(Failure::broken(format!("the demo's tables could not be made: {}", finished.stderr.trim())))
    }

    fn setup_script(&self) -> String {
        let (reader, writer) = (&self.reader_password, &self.writer_password);
        format!(
            "
create role {READER} login password '{reader}';
create role {WRITER} login password '{writer}';
create database {DATABASE};
\\connect {DATABASE}
create table invoices (
  id       int generated always as identity primary key,
  customer text not null,
  amount   numeric(10, 2) not null,
  state    text not null default 'draft'
);
insert into invoices (customer, amount, state) values
  ('Northwind',  1200.00, 'approved'),
  ('Acme',        310.50, 'draft'),
  ('Globex',       88.00, 'approved'),
  ('Umbrella',   4999.99, 'draft'),
  ('Hooli',        42.00, 'approved');
alter table invoices enable row level security;
create policy readers on invoices for select to {READER} using (state = 'approved');
create policy writers on invoices for all    to {WRITER} using (true);
grant select         on invoices to {READER};
grant select, insert on invoices to {WRITER};
"
        )
    }
}

/// The system account that the server runs as.
enum Owner {
    /// The one that runs the demo.
    Caller,
    /// PostgreSQL refuses to run as root, so another one.
    Unprivileged { name: String, uid: u32, gid: u32 },
}

impl Owner {
    fn find() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Caller);
        }
        let passwd = fs::read_to_string("/etc/passwd").doing("read /etc/passwd")?;
        ["postgres", "nobody"].iter().find_map(|name| passwd_entry(&passwd, name)).ok_or_else(|| {
            Failure::broken(
                "PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody to run it \
                 as; run the demo as an ordinary user",
            )
        })
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder).doing(format_args!("create {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).doing("close the cluster's folder to others")?;
        self.hand_over(folder)
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        match self {
            Self::Caller => Ok(()),
            Self::Unprivileged { name, uid, gid } => {
                chown(path, Some(*uid), Some(*gid)).doing(format_args!("give {} to {name}", path.display()))
            }
        }
    }

    /// Most failures of another account come from a folder that it may not enter.
    fn explain(&self, failure: Failure, programs: &Programs) -> Failure {
        match (self, failure) {
            (Self::Unprivileged { name, .. }, Failure::Broken(message)) => Failure::Broken(format!(
                "{message}\nPostgreSQL refuses to run as root, so it runs as {name}, who must be allowed to enter {} \
                 and {}; TMPDIR chooses the second",
                programs.bin.display(),
                std::env::temp_dir().display()
            )),
            (_, failure) => failure,
        }
    }

    /// A command that runs as this account, in a folder that it may enter. std drops root's other groups with the uid.
    fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = client(program);
        command.current_dir(folder);
        if let Self::Unprivileged { uid, gid, .. } = self {
            command.gid(*gid).uid(*uid).env("HOME", folder);
        }
        command
    }
}

/// `name:x:uid:gid:…` (passwd(5)), never root itself.
fn passwd_entry(passwd: &str, name: &str) -> Option<Owner> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (uid != 0).then(|| Owner::Unprivileged { name: name.to_owned(), uid, gid })
    })
}

/// A command of PostgreSQL's without the caller's `PG*` settings: a stray `PGHOST` or `PGDATA` must not lead it astray.
pub(super) fn client(program: &Path) -> Command {
    without_settings(program, std::env::vars_os().map(|(name, _)| name))
}

fn without_settings(program: &Path, environment: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new(program);
    for name in environment {
        if name.to_str().is_some_and(|name| name.starts_with("PG") || name.starts_with("PSQL")) {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    command
}

/// Writes a file that nobody else may read.
pub(super) fn write_private(file: &Path, text: &str) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(file).and_then(|mut open| open.write_all(text.as_bytes()));
    written.doing(format_args!("write {}", file.display()))
}

fn initialise(programs: &Programs, folder: &Path, password: &str, owner: &Owner, nursery: &Nursery) -> Result<()> {
    let (data, password_file) = (folder.join("data"), folder.join("password"));
    write_private(&password_file, password)?;
    owner.hand_over(&password_file)?;
    let mut command = owner.command(&programs.bin.join("initdb"), folder);
    command.arg("-D").arg(&data).arg("--pwfile").arg(&password_file);
    command.args(["-U", "postgres", "-E", "UTF8", "--no-locale", "--auth=scram-sha-256", "--no-sync"]);
    let finished = nursery.run(command, INITDB).map_err(|failure| owner.explain(failure, programs))?;
    if !finished.status.success() {
        let (bin, status, said) = (programs.bin.display(), finished.status, finished.transcript());
        let failure = Failure::broken(format!("initdb of {bin} failed ({status}):\n{}", said.trim()));
        return Err(owner.explain(failure, programs));
    }
    fs::remove_file(&password_file).doing("remove the superuser's password file")?;
    let configuration = data.join("postgresql.conf");
    let mut open = File::options().append(true).open(&configuration).doing("open postgresql.conf")?;
    open.write_all(SETTINGS.as_bytes()).doing("write postgresql.conf")?;
    fs::write(data.join("pg_hba.conf"), HBA).doing("write pg_hba.conf")
}

/// Starts the server on a free port and waits until it says that it is ready.
fn serve(programs: &Programs, folder: &Path, owner: &Owner, nursery: &Nursery) -> Result<(Guarded, u16)> {
    let (data, log) = (folder.join("data"), folder.join("log"));
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let port = free_port()?;
        let output = File::create(&log).doing(format_args!("create {}", log.display()))?;
        let mut command = owner.command(&programs.bin.join("postgres"), folder);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.stdout(output.try_clone().doing("share the server's log")?).stderr(output);
        // SIGINT is PostgreSQL's fast shutdown: sessions are ended, nothing waits for clients.
        let mut server = nursery.start("postgres", command, Signal::INT)?;
        let started = Instant::now();
        while server.exited().is_none() && started.elapsed() < START {
            if is_ready(&data) {
                return Ok((server, port));
            }
            nursery.pause()?;
        }
        last = fs::read_to_string(&log).unwrap_or_default();
    }
    Err(Failure::broken(format!("PostgreSQL did not start; its log says:\n{}", last.trim())))
}

/// The eighth line of `postmaster.pid` is the server's state since PostgreSQL 10.
fn is_ready(data: &Path) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

/// A port of 127.0.0.1 that nobody listens on now.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("listen on 127.0.0.1")?;
    Ok(listener.local_addr().doing("learn a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_never_runs_as_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        assert!(passwd_entry(passwd, "toor").is_none());
        assert!(passwd_entry(passwd, "postgres").is_none());
        assert!(matches!(passwd_entry(passwd, "nobody"), Some(Owner::Unprivileged { uid: 65534, gid: 65533, .. })));
    }

    #[test]
    fn hostile_passwd_lines_are_no_owner() {
        for line in ["postgres", "postgres:x", "postgres:x:-2:-2:", "postgres:x:many:1:", "postgresql:x:5:5:"] {
            assert!(passwd_entry(line, "postgres").is_none(), "{line}");
        }
    }

    #[test]
    fn the_callers_settings_do_not_reach_the_client() {
        let environment = ["PGHOST", "PSQLRC", "HOME", "PGDATA"].map(OsString::from);
        let command = without_settings(Path::new("psql"), environment.into_iter());
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert_eq!(removed, ["PGDATA", "PGHOST", "PSQLRC"]);
    }

    #[test]
    fn private_files_are_private() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("secret");
        write_private(&file, "s").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

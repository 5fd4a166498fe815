//! A PostgreSQL of the benchmark's own, with pgbench's tables.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{Server, Stage, expect_success, free_port};

/// The account that all sessions run as, whichever way they come.
pub(crate) const ACCOUNT: &str = "app_reader";
/// Nothing here is secret: the server listens on this machine, for minutes.
pub(crate) const PASSWORD: &str = "bench";
pub(crate) const DATABASE: &str = "bench";

/// Enough for a server connection per session of every measurement.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 700
shared_buffers = '256MB'
fsync = off
synchronous_commit = off
autovacuum = off
";

/// The running server.
pub(crate) struct Cluster {
    server: Server,
    programs: PathBuf,
    pub(crate) version: String,
}

impl Cluster {
    pub(crate) fn start(stage: &Stage) -> Result<Self> {
        let programs = programs()?;
        let folder = stage.file("postgres");
        let password = stage.write("superuser", PASSWORD)?;
        let mut initdb = stage.demoted(programs.join("initdb"));
        initdb.args(["-A", "scram-sha-256", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]).arg(&folder);
        expect_success(initdb.arg("--pwfile").arg(password))?;
        let port = free_port()?;
        let mut settings = std::fs::read_to_string(folder.join("postgresql.conf"))?;
        settings.push_str(SETTINGS);
        settings.push_str(&format!("port = {port}\n"));
        std::fs::write(folder.join("postgresql.conf"), settings)?;
        let mut postgres = stage.demoted(programs.join("postgres"));
        postgres.arg("-D").arg(&folder);
        let server = Server::start(postgres, port, &stage.file("postgres.log"))?;
        let version = expect_success(Command::new(programs.join("postgres")).arg("--version"))?.trim().to_owned();
        let cluster = Self { server, programs, version };
        cluster.fill(stage)?;
        Ok(cluster)
    }

    fn fill(&self, stage: &Stage) -> Result<()> {
        // The server may still be refusing while it starts up.
        let mut ready = self.client(stage, "pg_isready", self.port(), "postgres", PASSWORD);
        ready.args(["-t", "30"]);
        expect_success(&mut ready)?;
        let mut psql = self.client(stage, "psql", self.port(), "postgres", PASSWORD);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        psql.args(["-c", &format!("create role {ACCOUNT} login password '{PASSWORD}'")]);
        psql.args(["-c", &format!("create database {DATABASE} owner {ACCOUNT}")]);
        expect_success(&mut psql)?;
        let mut pgbench = self.client(stage, "pgbench", self.port(), ACCOUNT, PASSWORD);
        expect_success(pgbench.args(["-i", "-q", "-s", "1", DATABASE]))?;
        let mut psql = self.client(stage, "psql", self.port(), ACCOUNT, PASSWORD);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE]);
        psql.args(["-c", "create unlogged table sink (line text)", "-c", "vacuum analyze pgbench_accounts"]);
        expect_success(&mut psql).map(drop)
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// A program of PostgreSQL's, to connect to that port of this machine.
    pub(crate) fn client(&self, stage: &Stage, program: &str, port: u16, user: &str, password: &str) -> Command {
        let own = self.programs.join(program);
        let mut command = stage.command(if own.is_file() { own } else { PathBuf::from(program) });
        command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", user);
        command.env("PGPASSWORD", password).env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        command
    }
}

/// The newest server that Debian has installed, else whatever `pg_config` names.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        for version in versions.flatten() {
            let number = version.file_name().to_string_lossy().parse().unwrap_or(0);
            found.push((number, version.path().join("bin")));
        }
    }
    found.sort();
    let debian = found.into_iter().rev().map(|(_, path)| path).find(|path| has_server(path));
    if let Some(path) = debian {
        return Ok(path);
    }
    let stated = expect_success(Command::new("pg_config").arg("--bindir")).map_err(|error| {
        format!("no PostgreSQL server was found, neither below /usr/lib/postgresql nor by pg_config: {error}")
    })?;
    Ok(PathBuf::from(stated.trim()))
}

fn has_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

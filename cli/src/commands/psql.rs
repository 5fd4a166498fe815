//! `gprxy psql` and `gprxy connect`: the person's own psql in the place of this process, so that terminal, signals and exit
//! code are psql's.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::process::{Command, ExitCode};

use super::args::{ConnectArgs, PsqlArgs};
use super::connection::Connection;
use super::server_choice;
use crate::credentials::Store;
use crate::profile::Profile;
use crate::sso;
use crate::sso::failure::{Failure, Result};

/// libpq's variables that would lead psql past what is set here.
const MISLEADING: [&str; 5] = ["PGHOSTADDR", "PGSERVICE", "PGPASSWORD", "PGPASSFILE", "PGSSLNEGOTIATION"];

pub(super) fn run(args: PsqlArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    start(&profile, None, args.sslmode.as_deref(), &args.psql)
}

pub(super) fn connect(args: ConnectArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let database = match (&args.host, &args.database) {
        (Some(host), database) => Some(behind(&profile, host, args.port, database.as_deref())?),
        (None, database) => database.clone(),
    };
    if database.is_none() && profile.proxy.database.is_none() {
        return Err(Failure::usage("no database is named: expected -d NAME, or database = \"…\" in the profile"));
    }
    start(&profile, database.as_deref(), args.sslmode.as_deref(), &args.psql)
}

/// The name under which the proxy knows a database of this server. Which names lead to which servers is set at the proxy;
/// only a table in the profile can know it here.
fn behind(profile: &Profile, host: &str, port: u16, database: Option<&str>) -> Result<String> {
    let database = database.or(profile.proxy.database.as_deref());
    let Some(database) = database else {
        return Err(Failure::usage("no database is named: expected -d NAME, or database = \"…\" in the profile"));
    };
    let known = &profile.proxy.databases;
    if known.is_empty() {
        let note = format!(
            "gprxy: note: the proxy knows databases by name: {database} is asked for, and the server {host}:{port} is not \
             (docs/cli.md#connect)"
        );
        eprintln!("{}", crate::logging::one_line(&note));
        return Ok(database.to_owned());
    }
    let found = known.get(&format!("{host}:{port}/{database}")).or_else(|| known.get(&format!("{host}/{database}")));
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Failure::usage(format!(
            "the profile {} has no name for {host}:{port}/{database}; expected one of {}",
            profile.name,
            names.join(", ")
        ))
    })
}

fn start(profile: &Profile, database: Option<&str>, sslmode: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    if let Some(word) = server_choice::named_server(args) {
        return Err(Failure::usage(format!(
            "{word:?} names a server, and gprxy psql connects to the proxy only; for another server run psql itself"
        )));
    }
    let store = Store::of(&profile.name)?;
    let credentials = sso::fresh(profile, &store)?;
    let connection = Connection::new(profile, &credentials, database, sslmode)?;
    if connection.sslmode == "require" && connection.sslrootcert.is_none() && !connection.proxy.is_loopback() {
        eprintln!("gprxy: warning: sslmode=require does not verify that {} is your proxy", connection.proxy);
    }
    let mut command = Command::new("psql");
    command.args(args);
    for name in MISLEADING {
        command.env_remove(name);
    }
    command.envs(connection.variables());
    hand_over(&mut command, &connection, credentials.access_token.expose());
    drop(credentials);
    execute(command)
}

/// The token goes into a password file that exists in memory only and names the proxy: whatever psql is told to connect
/// to later, no other server gets it. Nobody has to delete it, so psql can take the place of this process.
///
/// Elsewhere than on Linux it goes into PGPASSWORD, which only the same user and root can read of a running process.
/// PostgreSQL takes no password of more than 65,530 bytes, so it fits into an environment (131,072 bytes a variable).
fn hand_over(command: &mut Command, connection: &Connection, token: &str) {
    #[cfg(target_os = "linux")]
    match memory_file(super::passfile::single(connection, token).expose()) {
        Ok(path) => {
            command.env("PGPASSFILE", path);
            return;
        }
        Err(error) => log::debug!("no file in memory: {error}"),
    }
    let _ = connection;
    command.env("PGPASSWORD", token);
}

/// A file without a name that lives as long as somebody holds it open, under the path that the process itself has for it.
#[cfg(target_os = "linux")]
fn memory_file(content: &str) -> io::Result<String> {
    use std::io::Write as _;
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};

    use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

    // Not closed on exec: psql is to read it. libpq takes only a file that nobody else may read.
    let mut file = std::fs::File::from(memfd_create("gprxy-pgpass", MemfdFlags::empty())?);
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    file.write_all(content.as_bytes())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Without /proc there is no way to it.
    std::fs::metadata(&path)?;
    let _ = file.into_raw_fd();
    Ok(path)
}

#[cfg(unix)]
fn execute(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(cannot_start(&command.exec()))
}

#[cfg(not(unix))]
fn execute(mut command: Command) -> Result<ExitCode> {
    let status = command.status().map_err(|error| cannot_start(&error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn cannot_start(error: &io::Error) -> Failure {
    if error.kind() != ErrorKind::NotFound {
        return Failure::not_installed(format!("psql cannot be started: {}", crate::config::io_words(error)));
    }
    let how = if cfg!(target_os = "macos") {
        "brew install libpq && brew link --force libpq"
    } else if cfg!(windows) {
        "winget install PostgreSQL.PostgreSQL, and add its bin folder to PATH"
    } else {
        "apt install postgresql-client (Debian, Ubuntu), dnf install postgresql (Fedora, RHEL), apk add postgresql-client \
         (Alpine), pacman -S postgresql-libs (Arch)"
    };
    Failure::not_installed(format!("psql is not installed, or not on PATH: {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{ProviderSettings, ProxySettings};

    fn profile(databases: &[(&str, &str)]) -> Profile {
        let databases = databases.iter().map(|(server, name)| ((*server).to_owned(), (*name).to_owned())).collect();
        Profile {
            name: "work".into(),
            provider: ProviderSettings::default(),
            proxy: ProxySettings { databases, ..ProxySettings::default() },
            store: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_server_chooses_among_the_profiles_names_and_never_another_one() {
        let table = profile(&[("db1/app", "app1"), ("db2:6000/app", "app2")]);
        assert_eq!(behind(&table, "db1", 5432, Some("app")).as_deref(), Ok("app1"));
        assert_eq!(behind(&table, "db2", 6000, Some("app")).as_deref(), Ok("app2"));
        let failure = behind(&table, "db2", 5432, Some("app")).unwrap_err();
        assert!(failure.words.contains("db2:6000/app"), "{failure}");
        assert_eq!(behind(&profile(&[]), "db1", 5432, Some("app")).as_deref(), Ok("app"));
        assert!(behind(&profile(&[]), "db1", 5432, None).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_in_memory_is_private_and_can_be_read_more_than_once() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = memory_file("a:1:*:b:secret\n").unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert!(meta.is_file());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        for _ in 0..2 {
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a:1:*:b:secret\n");
        }
    }
}

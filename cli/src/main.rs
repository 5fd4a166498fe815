//! The `gprxy` command: the only crate that reads the command line, the environment and files.

#[cfg(not(any(feature = "tokio", feature = "smol")))]
compile_error!("gprxy needs a runtime: build it with the feature `tokio` (default), `smol` or `edge`");

mod args;
mod check;
#[cfg(feature = "login")]
mod commands;
mod config;
mod convert;
#[cfg(feature = "login")]
mod credentials;
#[cfg(feature = "demo")]
mod demo;
mod http;
#[cfg(feature = "login")]
mod interrupts;
mod logging;
#[cfg(feature = "login")]
mod profile;
mod server_tls;
#[cfg(feature = "login")]
mod spinner;
#[cfg(feature = "login")]
mod sso;
mod start;
#[cfg(feature = "login")]
mod tunnel;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, StartArgs};
#[cfg(feature = "login")]
use commands::Workstation;
use config::{Problem, Sources};

/// What clap ends with when the command line is wrong.
const EX_USAGE: u8 = 2;
/// `EX_UNAVAILABLE` of sysexits.h: something that is needed does not answer.
const EX_UNAVAILABLE: u8 = 69;
/// `EX_CONFIG` of sysexits.h: settings are wrong or missing.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Start(args) => start(args),
        Command::Convert(args) => convert::run(&args.file),
        Command::Check(args) => check::run(&Sources::of_process(args.config.config), args.offline),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        #[cfg(feature = "login")]
        Command::Login(args) => Workstation::Login(args).run(),
        #[cfg(feature = "login")]
        Command::Status(args) => Workstation::Status(args).run(),
        #[cfg(feature = "login")]
        Command::Logout(args) => Workstation::Logout(args).run(),
        #[cfg(feature = "login")]
        Command::Token(args) => Workstation::Token(args).run(),
        #[cfg(feature = "login")]
        Command::Psql(args) => Workstation::Psql(args).run(),
        #[cfg(feature = "login")]
        Command::Connect(args) => Workstation::Connect(args).run(),
        #[cfg(feature = "login")]
        Command::Tunnel(args) => tunnel::run(args),
        #[cfg(feature = "login")]
        Command::Env(args) => Workstation::Env(args).run(),
        #[cfg(feature = "login")]
        Command::Service(args) => Workstation::Service(args).run(),
        #[cfg(feature = "login")]
        Command::Completions(args) => Workstation::Completions(args).run(),
        #[cfg(feature = "login")]
        Command::Man(args) => Workstation::Man(args).run(),
    }
}

fn start(args: StartArgs) -> ExitCode {
    #[cfg(feature = "demo")]
    let allow_demo_issuer = args.allow_demo_issuer;
    #[cfg(not(feature = "demo"))]
    let allow_demo_issuer = false;
    if let Some(instead) = args.unsupported() {
        eprintln!("gprxy: {instead}");
        return ExitCode::from(EX_USAGE);
    }
    let runtime = args.runtime.name();
    let (ini, quiet, verbose) = (args.pgbouncer_ini, args.quiet, args.verbose);
    let sources = Sources { allow_demo_issuer, ini, quiet, verbose, ..Sources::of_process(args.config.config) };
    let mut files = config::Snapshot::default();
    let loaded = files.during(|| config::load(&sources));
    match loaded.settings {
        Ok(settings) => {
            if let Err(problem) = logging::install(&settings.log) {
                eprintln!("gprxy: {problem}");
                return ExitCode::from(EX_UNAVAILABLE);
            }
            for warning in &loaded.warnings {
                log::warn!("{warning}");
            }
            start::run(settings, &loaded.effective, (sources, files), runtime)
        }
        Err(problems) => refuse(&problems),
    }
}

/// One line for each problem on standard error.
fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("gprxy: {problem}");
    }
    ExitCode::from(EX_CONFIG)
}

//! The commands of a workstation: what a developer does every morning.

mod args;
pub(crate) mod connection;
mod env;
mod generate;
mod login;
mod logout;
mod passfile;
mod psql;
mod server_choice;
mod service;
mod standing;
mod status;
mod token;

use std::process::ExitCode;

pub(crate) use args::{
    CompletionsArgs, ConnectArgs, EnvArgs, LoginArgs, LogoutArgs, ManArgs, PsqlArgs, ServiceArgs, StatusArgs,
    TokenArgs, examples,
};
pub(crate) use connection::Connection;

use crate::interrupts;
use crate::sso::failure::Result;

/// One of these commands with what it was told.
pub(crate) enum Workstation {
    Login(LoginArgs),
    Status(StatusArgs),
    Logout(LogoutArgs),
    Token(TokenArgs),
    Service(ServiceArgs),
    Env(EnvArgs),
    Connect(ConnectArgs),
    Psql(PsqlArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Workstation {
    /// Runs it to its end. `connect` and `psql` do not come back: psql takes the place of this process.
    pub(crate) fn run(self) -> ExitCode {
        interrupts::watch();
        match self.attempt() {
            Ok(code) => code,
            Err(failure) => {
                crate::spinner::erase();
                failure.report()
            }
        }
    }

    fn attempt(self) -> Result<ExitCode> {
        match self {
            Self::Login(args) => login::run(&args),
            Self::Status(args) => status::run(&args),
            Self::Logout(args) => logout::run(&args),
            Self::Token(args) => token::run(&args),
            Self::Service(args) => service::run(&args),
            Self::Env(args) => env::run(&args),
            Self::Connect(args) => psql::connect(args),
            Self::Psql(args) => psql::run(args),
            Self::Completions(args) => generate::completions(&args),
            Self::Man(args) => generate::man(&args),
        }
    }
}

/// Prints for a script or a pager; one that has read enough is no reason to fail.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

//! `gprxy env`: variables for a shell. The token only where it is asked for: an environment is inherited by everything.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::{EnvArgs, Shell};
use super::connection::Connection;
use super::print;
use crate::credentials::Store;
use crate::profile::Profile;
use crate::sso;
use crate::sso::failure::Result;

pub(super) fn run(args: &EnvArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let store = Store::of(&profile.name)?;
    let credentials = if args.with_token { sso::fresh(&profile, &store)? } else { sso::current(&profile, &store)? };
    let connection = Connection::new(&profile, &credentials, args.database.as_deref(), None)?;
    let mut variables = connection.variables();
    if args.with_token {
        variables.push(("PGPASSWORD", credentials.access_token.expose().clone()));
    }
    let mut text = String::new();
    for (name, value) in &variables {
        let _ = writeln!(text, "{}", args.shell.assignment(name, value));
    }
    print(&text);
    Ok(ExitCode::SUCCESS)
}

impl Shell {
    /// One line that sets a variable for the shell and its children, whatever the value holds.
    fn assignment(self, name: &str, value: &str) -> String {
        match self {
            Self::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Fish => format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
            Self::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        let evil = r"a'; rm -rf $HOME; \'`x`";
        assert_eq!(Shell::Fish.assignment("X", evil), r"set -gx X 'a\'; rm -rf $HOME; \\\'`x`'");
        assert_eq!(Shell::Powershell.assignment("X", evil), r"$env:X = 'a''; rm -rf $HOME; \''`x`'");
        let line = Shell::Sh.assignment("X", evil);
        let script = format!("{line}\nprintf %s \"$X\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), evil);
    }
}

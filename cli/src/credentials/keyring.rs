//! The keyring of the system: the Secret Service on Linux and BSD, the Keychain on macOS, the Credential Manager on
//! Windows. Each entry holds what the file would hold.

use gprxy_proto::secret::Secret;

use crate::sso::failure::{Failure, Result};

/// Under which all entries stand.
const SERVICE: &str = "gprxy";

pub(super) use system::{delete, load, save};

/// `secret-tool` of libsecret: the alternative is a D-Bus library with a runtime of its own, or one in C that has to be
/// there at build time. Secrets go through pipes, never through arguments.
#[cfg(all(unix, not(target_os = "macos")))]
mod system {
    use std::io::{self, Write};
    use std::process::{Command, Output, Stdio};

    use super::{Failure, Result, SERVICE, Secret};

    const PROGRAM: &str = "secret-tool";

    pub(in crate::credentials) fn save(profile: &str, secret: &[u8]) -> Result<()> {
        let output = run(&["store", "--label", &format!("gprxy credentials ({profile})")], profile, Some(secret))?;
        if output.status.success() { Ok(()) } else { Err(refused(&output)) }
    }

    pub(in crate::credentials) fn load(profile: &str) -> Result<Option<Secret<Vec<u8>>>> {
        let mut output = run(&["lookup"], profile, None)?;
        let found = Secret::new(std::mem::take(&mut output.stdout));
        match output.status.code() {
            Some(0) => Ok(Some(found)),
            // No entry: status 1 and not a word.
            Some(1) if output.stderr.is_empty() => Ok(None),
            _ => Err(refused(&output)),
        }
    }

    pub(in crate::credentials) fn delete(profile: &str) -> Result<()> {
        let output = run(&["clear"], profile, None)?;
        if output.status.success() || output.stderr.is_empty() { Ok(()) } else { Err(refused(&output)) }
    }

    fn run(verb: &[&str], profile: &str, input: Option<&[u8]>) -> Result<Output> {
        let mut command = Command::new(PROGRAM);
        command.args(verb).args(["service", SERVICE, "profile", profile]);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| missing(&error))?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // One that does not listen ends, and its status says more than the broken pipe.
            let _ = pipe.write_all(input);
        }
        child.wait_with_output().map_err(|error| missing(&error))
    }

    fn missing(error: &io::Error) -> Failure {
        let why = crate::config::io_words(error);
        Failure::not_installed(format!(
            "the keyring needs {PROGRAM}, which cannot be run ({why}): install libsecret-tools (Debian, Ubuntu) or \
             libsecret (Fedora, Arch), or use --store file"
        ))
    }

    fn refused(output: &Output) -> Failure {
        let why = crate::sso::failure::foreign(&String::from_utf8_lossy(&output.stderr));
        Failure::refused(format!("the keyring does not answer ({why}): unlock it, or use --store file"))
    }
}

#[cfg(any(target_os = "macos", windows))]
mod system {
    use keyring::{Entry, Error};

    use super::{Failure, Result, SERVICE, Secret};

    pub(in crate::credentials) fn save(profile: &str, secret: &[u8]) -> Result<()> {
        entry(profile)?.set_secret(secret).map_err(refused)
    }

    pub(in crate::credentials) fn load(profile: &str) -> Result<Option<Secret<Vec<u8>>>> {
        match entry(profile)?.get_secret() {
            Ok(secret) => Ok(Some(Secret::new(secret))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    pub(in crate::credentials) fn delete(profile: &str) -> Result<()> {
        match entry(profile)?.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    fn entry(profile: &str) -> Result<Entry> {
        Entry::new(SERVICE, profile).map_err(refused)
    }

    fn refused(error: Error) -> Failure {
        Failure::refused(format!("the keyring refuses ({error}): unlock it, or use --store file"))
    }
}

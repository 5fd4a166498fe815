//! The token for each connection to the remote.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use gprxy_proto::driver::tokens::TokenSource;
use gprxy_proto::fault::{Refusal, SqlState};
use gprxy_proto::secret::Secret;
use serde::Deserialize;

use super::Failure;

/// More than the tokens of any provider take.
const MAX_FILE: u64 = 1 << 20;

/// `~/.gprxy/credentials`, read anew for each connection: another command may have renewed what is in it.
pub(super) struct CredentialsFile(PathBuf);

#[derive(Deserialize)]
struct Credentials {
    access_token: String,
    #[serde(default)]
    user_info: UserInfo,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UserInfo {
    sub: String,
    email: String,
}

impl CredentialsFile {
    pub(super) fn of_home() -> Result<Self, Failure> {
        match std::env::home_dir() {
            Some(home) if home.is_absolute() => Ok(Self(home.join(".gprxy").join("credentials"))),
            _ => Err(Failure::settings("there is no home directory to look for credentials in; set HOME")),
        }
    }

    /// Whose credentials they are, by the name that a proxy knows: the e-mail address, or the subject.
    pub(super) fn user(&self) -> Result<Option<String>, Failure> {
        let UserInfo { sub, email } = self.read().map_err(Failure::refused)?.user_info;
        Ok([email, sub].into_iter().find(|name| !name.is_empty()))
    }

    fn read(&self) -> Result<Credentials, String> {
        let path = self.0.display();
        let file = File::open(&self.0).map_err(|error| format!("not logged in ({path}: {error}): run gprxy login"))?;
        let metadata = file.metadata().map_err(|error| format!("{path} cannot be read: {error}"))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(format!("{path} can be read by others: run chmod 600 on it, and gprxy login"));
        }
        let mut text = Secret::new(Vec::new());
        let read = file.take(MAX_FILE).read_to_end(text.expose_mut());
        read.map_err(|error| format!("{path} cannot be read: {error}"))?;
        // The parser's own words are left out: they may quote the file.
        serde_json::from_slice(text.expose()).map_err(|_| format!("{path} holds no credentials: run gprxy login"))
    }
}

impl TokenSource for CredentialsFile {
    fn fresh(&self) -> Result<Secret<Vec<u8>>, Refusal> {
        match self.read() {
            Ok(credentials) => Ok(Secret::new(credentials.access_token.into_bytes())),
            Err(words) => Err(Refusal::new(SqlState::INVALID_AUTHORIZATION, words)),
        }
    }
}

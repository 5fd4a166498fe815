//! Where credentials are: a file, or the keyring of the system with a file that says so.

use std::io::Read;
use std::path::{Path, PathBuf};

use gprxy_proto::secret::Secret;
use serde::Deserialize;

use super::private::{self, Lock};
use super::{Credentials, keyring};
use crate::config::io_words;
use crate::sso::failure::{Failure, Result};

/// Far more than tokens of any provider take.
const MAX_FILE: u64 = 1 << 20;

/// What a person chose with `--store`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// A file under ~/.gprxy that only you may read
    #[default]
    File,
    /// The keyring of the system
    Keyring,
}

/// The credentials of one profile.
pub(crate) struct Store {
    profile: String,
    path: PathBuf,
    lock: PathBuf,
}

/// What the file says when the tokens are not in it.
#[derive(Deserialize)]
struct Pointer {
    store: Option<Place>,
}

impl Store {
    /// Of this profile; nothing is touched yet.
    pub(crate) fn of(profile: &str) -> Result<Self> {
        Ok(Self::within(&private::home()?, profile))
    }

    fn within(home: &Path, profile: &str) -> Self {
        let suffix = if profile == crate::profile::DEFAULT { String::new() } else { format!(".{profile}") };
        Self {
            profile: profile.to_owned(),
            path: home.join(format!("credentials{suffix}")),
            lock: home.join(format!(".credentials{suffix}.lock")),
        }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept; `None` when nobody is logged in.
    pub(crate) fn load(&self) -> Result<Option<Credentials>> {
        let Some(text) = self.read()? else { return Ok(None) };
        match place_of(text.expose()) {
            Place::File => self.parse(text.expose()).map(Some),
            Place::Keyring => match keyring::load(&self.profile)? {
                Some(text) => self.parse(text.expose()).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Where the credentials are kept now.
    pub(crate) fn place(&self) -> Result<Option<Place>> {
        Ok(self.read()?.map(|text| place_of(text.expose())))
    }

    /// Whether that place works, asked before somebody logs in for nothing.
    pub(crate) fn try_place(&self, place: Place) -> Result<()> {
        match place {
            Place::File => Ok(()),
            Place::Keyring => keyring::load(&self.profile).map(drop),
        }
    }

    /// Keeps them where they are already. Needs the lock.
    pub(crate) fn save(&self, credentials: &Credentials, lock: &Lock) -> Result<()> {
        let place = self.place()?.unwrap_or_default();
        self.save_at(place, credentials, lock)
    }

    /// Keeps them there, and nowhere else.
    pub(crate) fn save_at(&self, place: Place, credentials: &Credentials, _: &Lock) -> Result<()> {
        let mut json = Secret::new(Vec::new());
        serde_json::to_writer_pretty(json.expose_mut(), credentials)
            .map_err(|_| Failure::refused("the credentials cannot be written as JSON"))?;
        json.expose_mut().push(b'\n');
        match place {
            Place::File => {
                let was_in_keyring = self.place().is_ok_and(|place| place == Some(Place::Keyring));
                private::replace(&self.path, json.expose())?;
                if was_in_keyring {
                    keyring::delete(&self.profile)?;
                }
                Ok(())
            }
            Place::Keyring => {
                keyring::save(&self.profile, json.expose())?;
                private::replace(&self.path, b"{\"store\": \"keyring\"}\n")
            }
        }
    }

    /// Forgets them.
    pub(crate) fn delete(&self, _: &Lock) -> Result<()> {
        let place = self.place();
        private::remove(&self.path).map_err(|error| private::cannot("delete", &self.path, &error))?;
        // A file that cannot be read goes away all the same; whether the keyring held something is not known then.
        if place.is_ok_and(|place| place == Some(Place::Keyring)) {
            keyring::delete(&self.profile)?;
        }
        Ok(())
    }

    /// Waits until no other gprxy works with them.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::take(&self.lock)
    }

    fn read(&self) -> Result<Option<Secret<Vec<u8>>>> {
        let Some(file) = private::open(&self.path)? else { return Ok(None) };
        let mut text = Secret::new(Vec::new());
        let read = file.take(MAX_FILE + 1).read_to_end(text.expose_mut());
        read.map_err(|error| Failure::refused(format!("cannot read {}: {}", self.path.display(), io_words(&error))))?;
        if text.expose().len() as u64 > MAX_FILE {
            return Err(self.broken());
        }
        Ok(Some(text))
    }

    fn parse(&self, text: &[u8]) -> Result<Credentials> {
        // The parser's own words are left out: they may quote the file.
        serde_json::from_slice(text).map_err(|_| self.broken())
    }

    fn broken(&self) -> Failure {
        let path = self.path.display();
        Failure::refused(format!("{path} is not what gprxy writes there: log in again with gprxy login --force"))
    }
}

fn place_of(text: &[u8]) -> Place {
    serde_json::from_slice(text).ok().and_then(|pointer: Pointer| pointer.store).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(token: &str) -> Credentials {
        serde_json::from_value(serde_json::json!({
            "access_token": token, "expires_at": "2026-01-01T01:00:00Z", "issued_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn each_profile_has_its_own_file() {
        let home = tempfile::tempdir().unwrap();
        let (default, other) = (Store::within(home.path(), "default"), Store::within(home.path(), "work"));
        default.save(&credentials("one"), &default.lock().unwrap()).unwrap();
        other.save(&credentials("two"), &other.lock().unwrap()).unwrap();
        assert_eq!(default.load().unwrap().unwrap().access_token.expose(), "one");
        assert_eq!(other.load().unwrap().unwrap().access_token.expose(), "two");
        assert_eq!(default.path(), home.path().join("credentials"));
        other.delete(&other.lock().unwrap()).unwrap();
        assert!(other.load().unwrap().is_none() && default.load().unwrap().is_some());
    }

    #[test]
    fn a_broken_file_is_told_without_its_content() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::within(home.path(), "default");
        for text in ["", "{\"access_token\": \"hunter2\"}", "hunter2", "[]"] {
            private::replace(store.path(), text.as_bytes()).unwrap();
            let failure = store.load().err().expect("it cannot be read");
            assert!(failure.words.contains("gprxy login") && !failure.words.contains("hunter2"), "{failure}");
        }
    }
}

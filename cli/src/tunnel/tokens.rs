//! The token for each connection to the remote.

use gprxy_proto::driver::tokens::TokenSource;
use gprxy_proto::fault::{Refusal, SqlState};
use gprxy_proto::secret::Secret;

use crate::credentials::{Credentials, Store};
use crate::profile::Profile;
use crate::sso;
use crate::sso::failure::{Failure, Kind, Result};

/// What `gprxy login` has left, renewed when it is due: by this process or by another, under the store's lock.
pub(super) struct Login {
    profile: Profile,
    store: Store,
}

impl Login {
    /// Of this profile, with what is there now: who is not logged in learns it here, and not from the first program that
    /// connects.
    pub(super) fn open(profile: Profile) -> Result<(Self, Credentials)> {
        let store = Store::of(&profile.name)?;
        let credentials = sso::fresh(&profile, &store)?;
        Ok((Self { profile, store }, credentials))
    }

    /// The settings.
    pub(super) const fn profile(&self) -> &Profile {
        &self.profile
    }
}

impl TokenSource for Login {
    fn fresh(&self) -> std::result::Result<Secret<Vec<u8>>, Refusal> {
        let credentials = sso::fresh(&self.profile, &self.store).map_err(|failure| refusal(&failure))?;
        Ok(Secret::new(credentials.access_token.expose().clone().into_bytes()))
    }
}

/// For a client whose program knows nothing of logins: it shows the words to a person who does.
fn refusal(failure: &Failure) -> Refusal {
    let code = match failure.kind {
        Kind::Unavailable => SqlState::CANNOT_CONNECT,
        _ => SqlState::INVALID_AUTHORIZATION,
    };
    let words = failure.to_string().replace('\n', " ");
    Refusal::new(code, format!("gprxy tunnel has no token: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_in_one_line_and_by_a_code_that_fits() {
        let down = refusal(&Failure::unavailable("the provider does not answer:\nconnection refused"));
        assert_eq!(down.code, SqlState::CANNOT_CONNECT);
        assert_eq!(down.message, "gprxy tunnel has no token: the provider does not answer: connection refused");
        assert_eq!(refusal(&Failure::refused("not logged in: run gprxy login")).code, SqlState::INVALID_AUTHORIZATION);
    }
}

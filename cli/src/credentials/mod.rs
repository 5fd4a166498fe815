//! What a login leaves behind: tokens and who they are for, in the file of the first gprxy.
//!
//! ```text
//! ~/.gprxy/credentials            the default profile        { "access_token": …, "refresh_token": …, … }
//! ~/.gprxy/credentials.NAME       any other profile
//! ~/.gprxy/.credentials.lock      held while tokens are renewed
//! ```

mod keyring;
mod private;
mod store;
mod text;

use std::time::Duration;

use gprxy_proto::secret::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use private::{Lock, home, replace};
pub(crate) use store::{Place, Store};

/// A token is renewed when less than this is left of it: time to start a client and to reach the proxy.
const MARGIN: Duration = Duration::from_secs(60);

/// Everything that is kept. The names are those of the first gprxy's file; what it did not have stands below.
#[derive(Serialize, Deserialize)]
pub(crate) struct Credentials {
    #[serde(with = "text::secret")]
    pub(crate) access_token: Secret<String>,
    /// Empty when the provider gave none.
    #[serde(with = "text::secret", default = "text::no_secret")]
    pub(crate) refresh_token: Secret<String>,
    /// Empty when there is none, as for a machine.
    #[serde(with = "text::secret", default = "text::no_secret")]
    pub(crate) id_token: Secret<String>,
    /// By this computer's clock.
    #[serde(with = "text::time")]
    pub(crate) expires_at: Timestamp,
    #[serde(with = "text::time")]
    pub(crate) issued_at: Timestamp,
    #[serde(default)]
    pub(crate) user_info: UserInfo,

    /// Who gave the tokens. Empty in files of the first gprxy.
    #[serde(default)]
    pub(crate) issuer: String,
    #[serde(default)]
    pub(crate) client_id: String,
    /// The proxy that was set at login, as `host:port`: a `.env` that lies somewhere else must not send the token to
    /// another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) proxy: String,
    /// How the login was made, which is how it is renewed.
    #[serde(default)]
    pub(crate) grant: Grant,
}

/// Who it is, for people to read. The proxy does not believe any of it; it reads the access token itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UserInfo {
    #[serde(deserialize_with = "text::or_default")]
    pub(crate) sub: String,
    #[serde(deserialize_with = "text::or_default")]
    pub(crate) email: String,
    #[serde(deserialize_with = "text::or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "text::or_default")]
    pub(crate) roles: Vec<String>,
}

/// The grant of RFC 6749 or RFC 8628 that a login was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    #[default]
    AuthorizationCode,
    DeviceCode,
    ClientCredentials,
}

impl Credentials {
    /// How long the access token counts from now on; `None` when it has expired.
    pub(crate) fn remaining(&self, now: Timestamp) -> Option<Duration> {
        Duration::try_from(self.expires_at.duration_since(now)).ok().filter(|left| !left.is_zero())
    }

    /// Whether the access token can be used without renewing it. A token that lives for a minute altogether would
    /// never be fresh enough: of such a one half the life is asked for.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        let life = Duration::try_from(self.expires_at.duration_since(self.issued_at)).unwrap_or_default();
        self.remaining(now).is_some_and(|left| left > MARGIN.min(life / 2))
    }

    /// Whether it can be renewed without a person.
    pub(crate) fn is_renewable(&self) -> bool {
        self.grant == Grant::ClientCredentials || !self.refresh_token.expose().is_empty()
    }
}

impl UserInfo {
    /// The name that people know: `Alice Example <alice@corp.example>`, or what there is of it.
    pub(crate) fn shown(&self) -> String {
        match (self.name.as_str(), self.email.as_str()) {
            ("", "") if self.sub.is_empty() => "a token that names nobody".to_owned(),
            ("", "") => self.sub.clone(),
            (name, "") => name.to_owned(),
            ("", email) => email.to_owned(),
            (name, email) if name == email => email.to_owned(),
            (name, email) => format!("{name} <{email}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_GPRXY: &str = r#"{
        "access_token": "eyJ.a.b", "refresh_token": "r1", "id_token": "eyJ.i.d",
        "expires_at": "2026-02-03T05:05:06.789+01:00", "issued_at": "2026-02-03T03:05:06Z",
        "user_info": {"sub": "auth0|1", "email": "alice@corp.example", "name": "Alice", "roles": null}
    }"#;

    fn read() -> Credentials {
        serde_json::from_str(FIRST_GPRXY).unwrap()
    }

    #[test]
    fn a_file_of_the_first_gprxy_is_read() {
        let credentials = read();
        assert_eq!(credentials.access_token.expose(), "eyJ.a.b");
        assert_eq!(credentials.expires_at, "2026-02-03T04:05:06.789Z".parse().unwrap());
        assert_eq!(credentials.user_info.shown(), "Alice <alice@corp.example>");
        assert_eq!((credentials.issuer.as_str(), credentials.grant), ("", Grant::AuthorizationCode));
    }

    #[test]
    fn what_is_written_has_its_names_and_rfc_3339_times() {
        let value = serde_json::to_value(read()).unwrap();
        assert_eq!(value["access_token"], "eyJ.a.b");
        assert_eq!(value["expires_at"], "2026-02-03T04:05:06.789Z");
        assert_eq!(value["user_info"]["roles"], serde_json::json!([]));
        assert!(value.get("proxy").is_none());
    }

    #[test]
    fn tokens_are_fresh_until_a_minute_before_their_end_and_short_ones_for_half_their_life() {
        let mut credentials = read();
        let at = |text: &str| text.parse().unwrap();
        assert!(credentials.is_fresh(at("2026-02-03T04:04:06Z")));
        assert!(!credentials.is_fresh(at("2026-02-03T04:04:07Z")));
        assert!(credentials.remaining(at("2026-02-03T04:04:07Z")).is_some());
        assert!(credentials.remaining(at("2026-02-03T04:05:07Z")).is_none());
        credentials.issued_at = at("2026-02-03T04:04:46.789Z");
        assert!(credentials.is_fresh(at("2026-02-03T04:04:56Z")));
        assert!(!credentials.is_fresh(at("2026-02-03T04:04:57Z")));
    }
}

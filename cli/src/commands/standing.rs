//! Who is logged in, for people and for scripts.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::credentials::{Credentials, Place, Store};
use crate::logging::one_line;
use crate::profile::Profile;
use crate::sso::failure::Failure;
use crate::sso::shown;

/// What `status` knows in the end.
pub(super) struct Standing<'a> {
    pub(super) profile: &'a Profile,
    pub(super) store: &'a Store,
    pub(super) credentials: &'a Credentials,
    /// What came of renewing the token, if that was tried.
    pub(super) renewal: Option<Result<(), Failure>>,
    /// What the proxy said, if it was asked.
    pub(super) proxy: Option<Verdict>,
}

/// What the proxy makes of the person.
pub(super) struct Verdict {
    pub(super) database: String,
    /// The account that queries run as, or the refusal.
    pub(super) account: Result<String, String>,
}

impl<'a> Standing<'a> {
    /// What is kept, and nobody asked.
    pub(super) fn of(profile: &'a Profile, store: &'a Store, credentials: &'a Credentials) -> Self {
        Self { profile, store, credentials, renewal: None, proxy: None }
    }

    /// For scripts. No token is in it.
    pub(super) fn json(&self) -> Value {
        let now = Timestamp::now();
        let info = &self.credentials.user_info;
        json!({
            "logged_in": true,
            "profile": self.profile.name,
            "issuer": self.credentials.issuer,
            "client_id": self.credentials.client_id,
            "user": info,
            "expires_at": self.credentials.expires_at.to_string(),
            "expires_in": self.credentials.remaining(now).map_or(0, |left| left.as_secs()),
            "renewable": self.credentials.is_renewable(),
            "renewal_error": self.renewal.as_ref().and_then(|renewal| renewal.as_ref().err()).map(Failure::to_string),
            "store": self.place(),
            "proxy": self.profile.proxy.address.as_ref().map(|address| json!({
                "address": address.to_string(),
                "database": self.proxy.as_ref().map(|verdict| &verdict.database),
                "account": self.proxy.as_ref().and_then(|verdict| verdict.account.as_ref().ok()),
                "error": self.proxy.as_ref().and_then(|verdict| verdict.account.as_ref().err()),
            })),
        })
    }

    /// For people: one line for each fact.
    pub(super) fn text(&self) -> String {
        let info = &self.credentials.user_info;
        let mut out = format!("{}\n", one_line(&info.shown()));
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(out, "  {name:<9} {}", one_line(value));
        };
        row("profile", &self.profile.name);
        row("issuer", &self.credentials.issuer);
        row("subject", &info.sub);
        row("roles", &if info.roles.is_empty() { "none".to_owned() } else { info.roles.join(", ") });
        row("token", &self.expiry());
        row("renewal", &self.renewal());
        let place = match self.place() {
            "file" => self.store.path().display().to_string(),
            place => format!("the system's {place}"),
        };
        row("kept in", &place);
        if let Some(address) = &self.profile.proxy.address {
            row("proxy", &self.proxy_words(&address.to_string()));
        }
        out
    }

    fn expiry(&self) -> String {
        let expires = self.credentials.expires_at;
        match self.credentials.remaining(Timestamp::now()) {
            Some(left) => format!("counts for {} (until {expires:.0})", shown(left)),
            None => format!("expired at {expires:.0}"),
        }
    }

    fn renewal(&self) -> String {
        match (&self.renewal, self.credentials.is_renewable()) {
            (Some(Ok(())), _) => "works, tried just now".into(),
            (Some(Err(why)), _) => format!("does not work: {why}"),
            (None, true) => "by itself, when it is needed".into(),
            (None, false) => "not possible: the provider gave no refresh token".into(),
        }
    }

    fn proxy_words(&self, address: &str) -> String {
        match &self.proxy {
            None => format!("{address} (not asked; with -d DATABASE it is)"),
            Some(Verdict { database, account: Ok(account) }) => {
                format!("{address} lets you in to {database} as {account}")
            }
            Some(Verdict { database, account: Err(why) }) => {
                format!("{address} does not let you in to {database}: {why}")
            }
        }
    }

    fn place(&self) -> &'static str {
        match self.store.place() {
            Ok(Some(Place::Keyring)) => "keyring",
            _ => "file",
        }
    }
}

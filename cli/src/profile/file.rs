//! `~/.gprxy/config.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::config;
use crate::sso::failure::{Failure, Result};

/// The profile that is meant when nobody names one. Its credentials lie where the first gprxy had them.
pub(crate) const DEFAULT: &str = "default";

/// The whole file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    /// Which profile is meant when nobody names one.
    pub(super) default_profile: Option<String>,
    #[serde(default)]
    pub(super) profile: BTreeMap<String, Table>,
}

/// `[profile.NAME]`: everything is text, as in the environment.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    issuer: Option<String>,
    auth0_tenant: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    audience: Option<String>,
    resource: Option<String>,
    scopes: Option<Words>,
    connection: Option<String>,
    prompt: Option<String>,
    callback_url: Option<String>,
    proxy_url: Option<String>,
    proxy_ca: Option<String>,
    sslmode: Option<String>,
    database: Option<String>,
    user: Option<String>,
    store: Option<String>,
    #[serde(default)]
    pub(super) databases: BTreeMap<String, String>,
}

/// `"openid email"` or `["openid", "email"]`.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Table {
    /// A setting by its name; an empty one counts as not set, as in the environment.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let value = match name {
            "issuer" => &self.issuer,
            "auth0_tenant" => &self.auth0_tenant,
            "client_id" => &self.client_id,
            "client_secret" => &self.client_secret,
            "audience" => &self.audience,
            "resource" => &self.resource,
            "scopes" => &self.scopes.as_ref().map(Words::joined),
            "connection" => &self.connection,
            "prompt" => &self.prompt,
            "callback_url" => &self.callback_url,
            "proxy_url" => &self.proxy_url,
            "proxy_ca" => &self.proxy_ca,
            "sslmode" => &self.sslmode,
            "database" => &self.database,
            "user" => &self.user,
            "store" => &self.store,
            _ => &None,
        };
        value.clone().filter(|text| !text.is_empty())
    }

    /// Whether a secret stands in it as it is, so that the file must not be open to others.
    pub(super) fn holds_secret(&self) -> bool {
        self.client_secret.as_deref().is_some_and(|text| !text.starts_with("file:"))
    }
}

impl Words {
    fn joined(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Many(words) => words.join(" "),
        }
    }
}

/// Reads the file; one that is not there is empty.
pub(super) fn read(path: &Path) -> Result<Profiles> {
    if let Ok(false) = path.try_exists() {
        return Ok(Profiles::default());
    }
    let shown = path.display();
    let text = config::read_text(path).map_err(|why| Failure::settings(format!("{shown} cannot be read: {why}")))?;
    parse(text.expose()).map_err(|(line, why)| Failure::settings(format!("{shown}:{line}: {why}")))
}

fn parse(text: &str) -> std::result::Result<Profiles, (usize, String)> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        // The error's own rendering shows the line as it stands, and that may hold a secret.
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        (text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1, error.message().to_owned())
    })
}

/// Whether a profile may be called this: the name becomes a part of a file's name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_sound = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_sound {
        return Ok(());
    }
    Err(Failure::usage("a profile's name has 1 to 64 letters, digits, '-' and '_', and begins with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read() {
        let profiles = parse(
            "default_profile = 'work'\n[profile.work]\nissuer = 'https://idp.example'\nscopes = ['openid', 'email']\n\
             audience = ''\n[profile.work.databases]\n'db1/app' = 'app1'",
        )
        .unwrap_or_else(|(line, why)| panic!("{line}: {why}"));
        let work = &profiles.profile["work"];
        assert_eq!(profiles.default_profile.as_deref(), Some("work"));
        assert_eq!(work.value("issuer").as_deref(), Some("https://idp.example"));
        assert_eq!(work.value("scopes").as_deref(), Some("openid email"));
        assert_eq!((work.value("audience"), work.value("nonsense")), (None, None));
        assert_eq!(work.databases["db1/app"], "app1");
    }

    #[test]
    fn mistakes_are_told_by_line_and_without_the_line() {
        let text = "[profile.work]\nclient_secret = 'hunter2'\nclient_sceret = 'hunter2'\n";
        let (line, why) = parse(text).err().expect("an unknown name");
        assert_eq!(line, 3);
        assert!(why.contains("client_sceret") && !why.contains("hunter2"), "{why}");
        let (_, why) = parse("[profile.work]\nclient_secret = hunter2").err().expect("no TOML");
        assert!(!why.contains("hunter2"), "{why}");
    }

    #[test]
    fn names_are_fit_for_files() {
        for good in ["default", "work", "a-b_c", "9"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "-x", "_x", "a.lock", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

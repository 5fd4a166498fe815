//! From the sources to a [`Profile`].

use std::path::PathBuf;

use gprxy_proto::secret::Secret;

use super::file::{self, DEFAULT, Table};
use super::{Callback, Profile, ProviderSettings, ProxyAddress, ProxySettings};
use crate::config::{self, Layer, Sources, Variables, auth0_issuer, parse_url};
use crate::credentials::{Place, home};
use crate::sso::failure::{Failure, Result};

/// A setting and the variables that it may come from, the first of them that is set counts.
const SETTINGS: [(&str, &[&str]); 16] = [
    ("issuer", &["GPRXY_ISSUER"]),
    ("auth0_tenant", &["AUTH0_TENANT"]),
    ("client_id", &["GPRXY_CLIENT_ID", "AUTH0_NATIVE_CLIENT_ID"]),
    ("client_secret", &["GPRXY_CLIENT_SECRET"]),
    ("audience", &["AUDIENCE"]),
    ("resource", &["GPRXY_RESOURCE"]),
    ("scopes", &["GPRXY_SCOPES"]),
    ("connection", &["CONNECTION_NAME"]),
    ("prompt", &["GPRXY_PROMPT"]),
    ("callback_url", &["CALLBACK_URL"]),
    ("proxy_url", &["PROXY_URL"]),
    ("proxy_ca", &["PROXY_CA"]),
    ("sslmode", &[]),
    ("database", &[]),
    ("user", &[]),
    ("store", &["GPRXY_STORE"]),
];

const PROFILE_VARIABLE: &str = "GPRXY_PROFILE";

/// libpq's values of `sslmode`.
const SSLMODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Where a value was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layers {
    /// The profile, then the environment.
    NamedProfile,
    /// The environment, then the profile.
    DefaultProfile,
}

/// All sources side by side.
struct Reader<'s> {
    variables: &'s Variables<'s>,
    table: Table,
    layers: Layers,
}

/// Reads the profile of that name, of `GPRXY_PROFILE`, or the default one.
pub(super) fn read(named: Option<&str>) -> Result<Profile> {
    let sources = Sources::of_process(None);
    let (variables, warnings) = config::variables(&sources);
    let path = home()?.join("config.toml");
    let profiles = file::read(&path)?;
    let environment = variables.of(Layer::Environment, PROFILE_VARIABLE).map(|(name, _)| name);
    let asked = named.or(environment);
    let name = asked.or(profiles.default_profile.as_deref()).unwrap_or(DEFAULT).to_owned();
    file::check_name(&name)?;
    let table = match profiles.profile.get(&name) {
        Some(table) => table.clone(),
        None if name == DEFAULT => Table::default(),
        None => {
            let known: Vec<&str> = profiles.profile.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
            return Err(Failure::settings(format!("there is no profile {name:?} in {}; {known}", path.display())));
        }
    };
    let layers = if asked.is_some() { Layers::NamedProfile } else { Layers::DefaultProfile };
    let mut warnings = warnings;
    if table.holds_secret() && config::readable_by_all(&path) {
        let shown = path.display();
        warnings.push(format!(
            "{shown} holds a client secret and is readable by every user of this machine: chmod 600 {shown}"
        ));
    }
    Reader { variables: &variables, table, layers }.profile(name, warnings)
}

impl Reader<'_> {
    fn profile(&self, name: String, warnings: Vec<String>) -> Result<Profile> {
        let store = match self.value("store")?.as_deref() {
            None => None,
            Some("file") => Some(Place::File),
            Some("keyring") => Some(Place::Keyring),
            Some(other) => return Err(wrong("store", &format!("{other:?}"), "file or keyring")),
        };
        Ok(Profile { name, provider: self.provider()?, proxy: self.proxy()?, store, warnings })
    }

    fn provider(&self) -> Result<ProviderSettings> {
        let tenant = self.value("auth0_tenant")?;
        let is_auth0 = tenant.is_some();
        let issuer = match (self.value("issuer")?, tenant) {
            (Some(issuer), None) => Some(issuer),
            (None, Some(tenant)) => Some(auth0_issuer(&tenant)),
            (Some(issuer), Some(tenant)) if issuer == auth0_issuer(&tenant) => Some(issuer),
            (Some(_), Some(_)) => {
                return Err(wrong("issuer", "another issuer than that of auth0_tenant", "one of the two"));
            }
            (None, None) => None,
        };
        if let Some(issuer) = &issuer {
            check_issuer(issuer)?;
        }
        let callback = match self.value("callback_url")? {
            Some(text) => Callback::parse(&text).map_err(|found| {
                wrong("callback_url", found, "http on this machine, as http://localhost:8085/callback")
            })?,
            None => Callback::default(),
        };
        let scopes = self.value("scopes")?;
        Ok(ProviderSettings {
            issuer,
            client_id: self.value("client_id")?,
            client_secret: self.client_secret()?,
            // The proxy takes several, and this variable may be set for it; a token is asked for one.
            audience: self.value("audience")?.and_then(|list| list.split(',').next().map(|one| one.trim().to_owned())),
            resource: self.value("resource")?,
            scopes: scopes
                .map(|text| text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()),
            connection: self.value("connection")?,
            prompt: self.value("prompt")?,
            callback,
            is_auth0,
        })
    }

    fn client_secret(&self) -> Result<Option<Secret<String>>> {
        let Some(text) = self.value("client_secret")? else { return Ok(None) };
        let Some(path) = text.strip_prefix("file:") else { return Ok(Some(Secret::new(text))) };
        let content = config::read_text(&expand_home(path)).map_err(|why| {
            wrong("client_secret", &format!("{path:?}, which cannot be read ({why})"), "a readable file")
        })?;
        let line = content.expose().trim_end_matches(['\r', '\n']).to_owned();
        Ok(Some(Secret::new(line)))
    }

    fn proxy(&self) -> Result<ProxySettings> {
        let address = match self.value("proxy_url")? {
            Some(text) => Some(
                ProxyAddress::parse(&text)
                    .map_err(|found| wrong("proxy_url", found, "the proxy as host or host:port"))?,
            ),
            None => None,
        };
        let sslmode = self.value("sslmode")?;
        if let Some(mode) = &sslmode {
            check_sslmode(mode)?;
        }
        Ok(ProxySettings {
            is_from_dotenv: address.is_some() && self.origin("proxy_url") == Some(Layer::DotEnv),
            address,
            ca: self.value("proxy_ca")?.map(|path| expand_home(&path)),
            sslmode,
            database: self.value("database")?,
            user: self.value("user")?,
            databases: self.table.databases.clone(),
        })
    }

    /// The value that counts.
    fn value(&self, setting: &str) -> Result<Option<String>> {
        let own = || self.table.value(setting);
        let variable = |layer| self.variable(layer, setting);
        let found = match self.layers {
            Layers::NamedProfile => own().or_else(|| variable(Layer::Environment)),
            Layers::DefaultProfile => variable(Layer::Environment).or_else(own),
        };
        let value = found.or_else(|| variable(Layer::DotEnv));
        // A line break would become a line of a password or service file, or of a request.
        match value {
            Some(text) if text.contains(char::is_control) => {
                Err(wrong(setting, "a control character in it", "one line"))
            }
            value => Ok(value),
        }
    }

    /// Which layer of variables a value comes from; `None`: the profile itself.
    fn origin(&self, setting: &str) -> Option<Layer> {
        match self.variable(Layer::Environment, setting) {
            Some(_) if self.table.value(setting).is_none() || self.layers == Layers::DefaultProfile => {
                Some(Layer::Environment)
            }
            _ if self.table.value(setting).is_some() => None,
            _ => Some(Layer::DotEnv),
        }
    }

    fn variable(&self, layer: Layer, setting: &str) -> Option<String> {
        let (_, names) = SETTINGS.iter().find(|(name, _)| *name == setting)?;
        names.iter().find_map(|name| self.variables.of(layer, name)).map(|(value, _)| value.to_owned())
    }
}

/// OpenID Connect Discovery 1.0, section 3: https, no query and no fragment.
fn check_issuer(issuer: &str) -> Result<()> {
    let expected = "an https URL, or http on this machine";
    match parse_url(issuer) {
        Err(found) => Err(wrong("issuer", found, expected)),
        Ok(url) if !url.is_safe() => Err(wrong("issuer", &format!("{issuer:?}"), expected)),
        Ok(url) if url.path.contains(['?', '#']) => Err(wrong("issuer", "a query or a fragment", expected)),
        Ok(_) => Ok(()),
    }
}

/// Whether libpq knows this `sslmode`.
pub(crate) fn check_sslmode(mode: &str) -> Result<()> {
    if SSLMODES.contains(&mode) {
        return Ok(());
    }
    Err(wrong("sslmode", &format!("{mode:?}"), &format!("one of {}", SSLMODES.join(", "))))
}

/// `~/x` as a shell would take it.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn wrong(setting: &str, found: &str, expected: &str) -> Failure {
    Failure::settings(format!("{setting}: found {found}; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn profile(layers: Layers, table: &str, environment: &[(&str, &str)], dotenv: &str) -> Result<Profile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, dotenv).unwrap();
        let environment = Environment::from_pairs(environment.iter().copied());
        let sources = Sources { environment, dotenv: Some(path), ..Sources::default() };
        let (variables, warnings) = config::variables(&sources);
        let table: Table = toml::from_str(table).unwrap();
        Reader { variables: &variables, table, layers }.profile("x".into(), warnings)
    }

    const TABLE: &str = "issuer = 'https://profile.example'\nproxy_url = 'profile.example'";
    const VARIABLES: &[(&str, &str)] =
        &[("GPRXY_ISSUER", "https://env.example"), ("PROXY_URL", "env.example"), ("AUDIENCE", "a, b")];

    #[test]
    fn a_named_profile_is_not_bent_by_the_environment() {
        let named = profile(Layers::NamedProfile, TABLE, VARIABLES, "PROXY_CA=ca.pem").unwrap();
        assert_eq!(named.issuer().unwrap(), "https://profile.example");
        assert_eq!(named.proxy().unwrap().host, "profile.example");
        assert_eq!(named.provider.audience.as_deref(), Some("a"), "what it leaves out is filled in");
        assert_eq!(named.proxy.ca, Some("ca.pem".into()));
        assert!(!named.proxy.is_from_dotenv);
    }

    #[test]
    fn without_a_name_the_environment_wins_over_the_default_profile_and_that_over_dotenv() {
        let dotenv = "PROXY_URL=dotenv.example\nGPRXY_CLIENT_ID=dotenv";
        let default = profile(Layers::DefaultProfile, TABLE, &VARIABLES[..1], dotenv).unwrap();
        assert_eq!(default.issuer().unwrap(), "https://env.example");
        assert_eq!(default.proxy().unwrap().host, "profile.example");
        assert_eq!(default.client_id().unwrap(), "dotenv");
        let bare = profile(Layers::DefaultProfile, "", &[], dotenv).unwrap();
        assert!(bare.proxy.is_from_dotenv);
        assert!(bare.issuer().is_err_and(|failure| failure.words.contains("GPRXY_ISSUER")));
    }

    #[test]
    fn the_names_of_the_first_gprxy_work() {
        let variables = [
            ("AUTH0_TENANT", "corp.eu.auth0.com"),
            ("AUTH0_NATIVE_CLIENT_ID", "abc"),
            ("AUDIENCE", "https://db.corp.example"),
            ("CALLBACK_URL", "http://localhost:9999/callback"),
            ("CONNECTION_NAME", "corp-directory"),
            ("PROXY_URL", "gprxy.corp.example"),
        ];
        let profile = profile(Layers::DefaultProfile, "", &variables, "").unwrap();
        assert_eq!(profile.issuer().unwrap(), "https://corp.eu.auth0.com/");
        assert_eq!(profile.client_id().unwrap(), "abc");
        assert_eq!(profile.provider.connection.as_deref(), Some("corp-directory"));
        assert_eq!(profile.provider.callback.port, 9999);
        assert_eq!(profile.proxy().unwrap().to_string(), "gprxy.corp.example:7777");
    }

    #[test]
    fn wrong_values_are_refused_before_anything_is_sent() {
        for table in [
            "issuer = 'http://idp.example'",
            "issuer = 'https://idp.example?x'",
            "issuer = 'https://a.example'\nauth0_tenant = 'b.example'",
            "callback_url = 'http://evil.example/callback'",
            "proxy_url = 'x?host=y'",
            "sslmode = 'on'",
            "store = 'clipboard'",
            "user = \"a\\nb\"",
            "client_secret = 'file:/does/not/exist'",
        ] {
            let failure = profile(Layers::NamedProfile, table, &[], "").err().unwrap_or_else(|| panic!("{table}"));
            assert_eq!(failure.kind, crate::sso::failure::Kind::Settings, "{table}");
        }
    }
}

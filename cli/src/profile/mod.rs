//! Profiles: which provider to log in to, and which proxy to connect to.
//!
//! ```text
//! --profile NAME or GPRXY_PROFILE ──▶ [profile.NAME] of ~/.gprxy/config.toml, the environment fills in what it leaves out
//! neither                         ──▶ the environment, then the default profile
//! in both cases                       then .env in the working directory, then defaults
//! ```
//!
//! A profile that was asked for by name is not bent by a variable that is left over in a shell.

mod address;
mod file;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use gprxy_proto::secret::Secret;

pub(crate) use address::{Callback, ProxyAddress};
pub(crate) use file::DEFAULT;
pub(crate) use read::check_sslmode;

use crate::credentials::Place;
use crate::sso::failure::{Failure, Result};

/// Which profile, from the command line.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ProfileArgs {
    /// Profile of ~/.gprxy/config.toml [environment: GPRXY_PROFILE]
    #[arg(long, value_name = "NAME", global = false)]
    pub(crate) profile: Option<String>,
}

/// One provider and one proxy, read from all sources.
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) provider: ProviderSettings,
    pub(crate) proxy: ProxySettings,
    /// Where a new login keeps its tokens.
    pub(crate) store: Option<Place>,
    /// What the person should know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// How to log in. What is missing is asked for when it is needed: `logout` needs less than `login`.
#[derive(Default)]
pub(crate) struct ProviderSettings {
    pub(crate) issuer: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret: Option<Secret<String>>,
    /// Auth0's way to name the API that the token is for.
    pub(crate) audience: Option<String>,
    /// The standard way (RFC 8707).
    pub(crate) resource: Option<String>,
    /// `None`: the usual ones, as far as the provider knows them.
    pub(crate) scopes: Option<Vec<String>>,
    /// Auth0's name for the directory to log in with.
    pub(crate) connection: Option<String>,
    /// OpenID Connect Core section 3.1.2.1; some providers give a refresh token only with `consent`.
    pub(crate) prompt: Option<String>,
    pub(crate) callback: Callback,
    /// Whether the issuer is a tenant of Auth0, which ignores scopes that it does not know.
    pub(crate) is_auth0: bool,
}

/// How to connect.
#[derive(Default)]
pub(crate) struct ProxySettings {
    pub(crate) address: Option<ProxyAddress>,
    /// Whether the address comes from a `.env` of the working directory, which somebody else may have written.
    pub(crate) is_from_dotenv: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) sslmode: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    /// From `host:port/database` or `host/database` of the database servers to gprxy's names for them.
    pub(crate) databases: BTreeMap<String, String>,
}

impl Profile {
    /// Reads the profile that the command line or the environment names.
    pub(crate) fn load(args: &ProfileArgs) -> Result<Self> {
        let profile = read::read(args.profile.as_deref())?;
        for warning in &profile.warnings {
            eprintln!("gprxy: warning: {}", crate::logging::one_line(warning));
        }
        Ok(profile)
    }

    /// The issuer, or what to set.
    pub(crate) fn issuer(&self) -> Result<&str> {
        self.provider.issuer.as_deref().ok_or_else(|| self.missing("issuer", "GPRXY_ISSUER or AUTH0_TENANT"))
    }

    /// The client id, or what to set.
    pub(crate) fn client_id(&self) -> Result<&str> {
        let client_id = self.provider.client_id.as_deref();
        client_id.ok_or_else(|| self.missing("client_id", "GPRXY_CLIENT_ID or AUTH0_NATIVE_CLIENT_ID"))
    }

    /// The proxy, or what to set.
    pub(crate) fn proxy(&self) -> Result<&ProxyAddress> {
        self.proxy.address.as_ref().ok_or_else(|| self.missing("proxy_url", "PROXY_URL"))
    }

    /// ` --profile NAME` for a command that a person is told to type; nothing for the default profile.
    pub(crate) fn flag(&self) -> String {
        if self.name == DEFAULT { String::new() } else { format!(" --profile {}", self.name) }
    }

    fn missing(&self, setting: &str, variables: &str) -> Failure {
        Failure::settings(format!(
            "{setting} is not set: expected {setting} = \"…\" under [profile.{}] in ~/.gprxy/config.toml, or the variable \
             {variables} (docs/cli.md has an example)",
            self.name
        ))
    }
}

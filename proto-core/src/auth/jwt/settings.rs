//! What the configuration says about an issuer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::claim::ClaimPath;
use crate::auth::jwks::url;

/// More than ten minutes between two clocks is a broken clock; a larger leeway would only lengthen stolen tokens.
const MAX_LEEWAY: Duration = Duration::from_secs(600);

/// Where an issuer's keys are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum KeySource {
    /// In the document at `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 section 4).
    #[default]
    Discovery,
    /// At this URL.
    Url(String),
}

/// One identity provider whose tokens are accepted, and how they are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuerSettings {
    /// Compared exactly with the claim `iss`; a trailing slash counts.
    pub issuer: String,
    /// Where its keys are.
    pub source: KeySource,
    /// At least one; a token is accepted when its `aud` names one of them.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off, at most ten minutes.
    pub leeway: Duration,
    /// Claims that must be there and not null, besides `iss`, `aud`, `exp` and `sub`, which always must.
    pub required_claims: Vec<ClaimPath>,
    /// The first of these that a token has is the person's readable name.
    pub user_claims: Vec<ClaimPath>,
    /// The roles of all of these are taken, in this order.
    pub roles_claims: Vec<ClaimPath>,
}

impl IssuerSettings {
    /// An issuer with discovery and the defaults: 60 s leeway, the user from `email`, the roles from `role` and `roles`.
    #[must_use]
    pub fn new<A: Into<String>>(issuer: impl Into<String>, audiences: impl IntoIterator<Item = A>) -> Self {
        Self {
            issuer: issuer.into(),
            source: KeySource::Discovery,
            audiences: audiences.into_iter().map(Into::into).collect(),
            leeway: Duration::from_secs(60),
            required_claims: Vec::new(),
            user_claims: vec![ClaimPath::fixed("email")],
            roles_claims: vec![ClaimPath::fixed("role"), ClaimPath::fixed("roles")],
        }
    }

    /// The issuer of an Auth0 tenant (`AUTH0_TENANT`): its name ends in a slash, and its keys have a known place.
    #[must_use]
    pub fn auth0<A: Into<String>>(tenant: &str, audiences: impl IntoIterator<Item = A>) -> Self {
        Self {
            source: KeySource::Url(format!("https://{tenant}/.well-known/jwks.json")),
            ..Self::new(format!("https://{tenant}/"), audiences)
        }
    }

    /// Everything that is wrong with the settings of one issuer, one sentence each.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let name = url::printable(&self.issuer);
        if let Err(reason) = url::check(&self.issuer) {
            problems.push(format!("issuer \"{name}\": {reason}"));
        } else if self.issuer.contains(['?', '#']) {
            problems.push(format!("issuer \"{name}\": an issuer has no query and no fragment"));
        }
        if let KeySource::Url(keys) = &self.source
            && let Err(reason) = url::check(keys)
        {
            problems.push(format!("issuer \"{name}\": key URL \"{}\": {reason}", url::printable(keys)));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(|audience| audience.trim().is_empty()) {
            problems.push(format!(
                "issuer \"{name}\": no audience, or an empty one; expected the value that the provider writes into `aud` \
                 for gprxy (without one, a token made for any other service would open the database)"
            ));
        }
        if self.user_claims.is_empty() {
            problems.push(format!("issuer \"{name}\": no user claim; expected at least one, such as `email` or `sub`"));
        }
        if self.leeway > MAX_LEEWAY {
            problems.push(format!(
                "issuer \"{name}\": a leeway of {} s; expected at most {} s",
                self.leeway.as_secs(),
                MAX_LEEWAY.as_secs()
            ));
        }
        problems
    }
}

/// Everything that is wrong with the configured issuers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsError {
    /// One sentence for each, in the order of the settings.
    pub problems: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl std::error::Error for SettingsError {}

/// Checks all issuers together.
pub(crate) fn checked(settings: Vec<IssuerSettings>) -> Result<Vec<Arc<IssuerSettings>>, SettingsError> {
    let mut problems: Vec<String> = settings.iter().flat_map(IssuerSettings::problems).collect();
    for (index, one) in settings.iter().enumerate() {
        if settings[..index].iter().any(|earlier| earlier.issuer == one.issuer) {
            problems.push(format!("issuer \"{}\" is configured twice", url::printable(&one.issuer)));
        }
    }
    if problems.is_empty() { Ok(settings.into_iter().map(Arc::new).collect()) } else { Err(SettingsError { problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(settings: IssuerSettings) -> String {
        checked(vec![settings]).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_accepted() {
        let generic = IssuerSettings::new("https://idp.example/realms/x", ["pg"]);
        let auth0 = IssuerSettings::auth0("corp.eu.auth0.com", ["pg"]);
        assert_eq!(auth0.issuer, "https://corp.eu.auth0.com/");
        assert_eq!(auth0.source, KeySource::Url("https://corp.eu.auth0.com/.well-known/jwks.json".into()));
        assert_eq!(generic.leeway, Duration::from_secs(60));
        assert_eq!(checked(vec![generic, auth0]).unwrap().len(), 2);
    }

    #[test]
    fn each_mistake_is_named() {
        let good = IssuerSettings::new("https://idp.example", ["pg"]);
        let none: [&str; 0] = [];
        assert!(problems(IssuerSettings::new("https://idp.example", none)).contains("no audience"));
        assert!(problems(IssuerSettings::new("https://idp.example", [" "])).contains("no audience"));
        assert!(problems(IssuerSettings::new("http://idp.example", ["pg"])).contains("https"));
        assert!(problems(IssuerSettings::new("https://idp.example?x=1", ["pg"])).contains("no query"));
        assert!(problems(IssuerSettings { user_claims: vec![], ..good.clone() }).contains("no user claim"));
        assert!(
            problems(IssuerSettings { leeway: Duration::from_secs(601), ..good.clone() }).contains("at most 600 s")
        );
        let keys = KeySource::Url("http://keys.example/".into());
        assert!(problems(IssuerSettings { source: keys, ..good.clone() }).contains("key URL"));
        let twice = checked(vec![good.clone(), good]).map(|_| ()).unwrap_err();
        assert!(twice.to_string().contains("configured twice"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let none: [&str; 0] = [];
        let bad = IssuerSettings { user_claims: vec![], ..IssuerSettings::new("ftp://x", none) };
        assert_eq!(checked(vec![bad]).map(|_| ()).unwrap_err().problems.len(), 3);
    }
}

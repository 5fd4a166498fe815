//! A provider as its discovery document describes it (OpenID Connect Discovery 1.0, RFC 8414).

use gprxy_proto::secret::Secret;
use serde::Deserialize;

use super::failure::{Failure, Result};
use super::http::{ClientProof, Http};
use crate::config::parse_url;
use crate::profile::Profile;

/// What is asked for when nobody says otherwise, as the first gprxy did.
const USUAL_SCOPES: [&str; 5] = ["openid", "profile", "email", "offline_access", "groups"];

/// What is read of the document.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
    pub(crate) jwks_uri: Option<String>,
    pub(crate) authorization_endpoint: Option<String>,
    pub(crate) device_authorization_endpoint: Option<String>,
    pub(crate) revocation_endpoint: Option<String>,
    scopes_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    /// RFC 9207 section 3.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

/// A provider and the client that speaks to it.
pub(crate) struct Provider<'p> {
    pub(crate) metadata: Metadata,
    pub(crate) http: Http,
    pub(crate) client_id: String,
    pub(crate) profile: &'p Profile,
}

impl<'p> Provider<'p> {
    /// Fetches the discovery document of the profile's issuer.
    pub(crate) fn discover(profile: &'p Profile) -> Result<Self> {
        Self::discover_at(profile.issuer()?, profile.client_id()?, profile)
    }

    /// The same for an issuer and a client that are known from a login.
    pub(crate) fn discover_at(issuer: &str, client_id: &str, profile: &'p Profile) -> Result<Self> {
        let http = Http::new();
        // Section 4: a final slash of the issuer is not doubled.
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let answer = http.get(&url)?;
        if answer.status != 200 {
            let words = format!(
                "{url} answers with HTTP status {}; expected the provider's description: is the issuer right?",
                answer.status
            );
            return Err(if answer.status >= 500 { Failure::unavailable(words) } else { Failure::settings(words) });
        }
        let metadata: Metadata = serde_json::from_slice(answer.body.expose())
            .map_err(|_| Failure::settings(format!("{url} is no provider's description: is the issuer right?")))?;
        metadata.check(issuer).map_err(|why| Failure::settings(format!("{url}: {why}")))?;
        Ok(Self { metadata, http, client_id: client_id.to_owned(), profile })
    }

    /// The scopes to ask for. A provider may refuse the whole request for one that it does not know, so of the usual
    /// ones only those are sent that it lists. Auth0 lists few, ignores unknown ones, and always got all of them.
    pub(crate) fn scopes(&self) -> String {
        let settings = &self.profile.provider;
        if let Some(chosen) = &settings.scopes {
            return chosen.join(" ");
        }
        let known = self.metadata.scopes_supported.as_deref().filter(|_| !settings.is_auth0);
        let is_known = |scope: &&str| known.is_none_or(|known| known.iter().any(|name| name == scope));
        // `openid` makes it a login at all.
        USUAL_SCOPES.into_iter().filter(|scope| *scope == "openid" || is_known(scope)).collect::<Vec<_>>().join(" ")
    }

    /// How the client shows who it is, where it has a secret.
    pub(crate) fn proof(&self) -> ClientProof<'_> {
        let Some(secret) = &self.profile.provider.client_secret else { return ClientProof::None };
        let methods = self.metadata.token_endpoint_auth_methods_supported.as_deref();
        // Discovery section 3: without a list it is client_secret_basic.
        let knows = |name: &str| methods.is_some_and(|methods| methods.iter().any(|method| method == name));
        if knows("client_secret_post") && !knows("client_secret_basic") {
            ClientProof::Post { secret }
        } else {
            ClientProof::Basic { id: &self.client_id, secret }
        }
    }

    /// The parameters that name what the token is for, in the provider's own way.
    pub(crate) fn target(&self) -> impl Iterator<Item = (&'static str, &'p str)> + use<'p> {
        let settings = &self.profile.provider;
        let audience = settings.audience.as_deref().map(|audience| ("audience", audience));
        let resource = settings.resource.as_deref().map(|resource| ("resource", resource));
        [audience, resource].into_iter().flatten()
    }

    /// The client's secret, which a machine must have.
    pub(crate) fn client_secret(&self) -> Option<&Secret<String>> {
        self.profile.provider.client_secret.as_ref()
    }
}

impl Metadata {
    /// Whether the provider says that it checks proof keys in some other way only. One that says nothing mostly does: the
    /// list is younger than PKCE (RFC 8414 section 2).
    pub(crate) fn lacks_s256(&self) -> bool {
        self.code_challenge_methods_supported.as_ref().is_some_and(|methods| !methods.iter().any(|name| name == "S256"))
    }

    /// Section 4.3: it speaks for the very issuer that was asked; and no endpoint leads to where tokens could be read on
    /// the way.
    fn check(&self, issuer: &str) -> std::result::Result<(), String> {
        if self.issuer != issuer {
            return Err(format!("it names the issuer {:?}; set issuer to exactly that", self.issuer));
        }
        let optional = [
            &self.jwks_uri,
            &self.authorization_endpoint,
            &self.device_authorization_endpoint,
            &self.revocation_endpoint,
        ];
        for url in optional.into_iter().flatten().chain([&self.token_endpoint]) {
            if !parse_url(url).is_ok_and(|parsed| parsed.is_safe()) {
                return Err(format!("it names {url:?}, which is not https"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(change: serde_json::Value) -> Metadata {
        let mut value = json!({
            "issuer": "https://idp.example", "token_endpoint": "https://idp.example/token",
            "authorization_endpoint": "https://idp.example/auth", "scopes_supported": ["openid", "email"],
        });
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_list_without_s256_says_that_it_is_missing() {
        assert!(!metadata(json!({})).lacks_s256());
        assert!(!metadata(json!({ "code_challenge_methods_supported": ["plain", "S256"] })).lacks_s256());
        assert!(metadata(json!({ "code_challenge_methods_supported": ["plain"] })).lacks_s256());
    }

    #[test]
    fn a_document_must_speak_for_its_issuer_and_name_safe_places() {
        assert_eq!(metadata(json!({})).check("https://idp.example"), Ok(()));
        assert!(metadata(json!({})).check("https://idp.example/").is_err());
        for name in ["token_endpoint", "authorization_endpoint", "revocation_endpoint", "jwks_uri"] {
            for url in ["http://idp.example/x", "x", "https://u:p@idp.example"] {
                assert!(metadata(json!({ name: url })).check("https://idp.example").is_err(), "{name} {url}");
            }
        }
    }
}

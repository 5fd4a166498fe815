//! Giving tokens back (RFC 7009).

use super::failure::{Kind, Result, foreign};
use super::provider::Provider;
use super::tokens::OAuthError;
use crate::credentials::Credentials;

/// What the provider did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Revoked {
    /// Neither token counts any more, as far as the provider has a say.
    Both,
    /// No new tokens; the access token counts until it expires. Usual for JWTs, which nobody asks the provider about.
    RefreshOnly,
    /// The provider has no such endpoint.
    NotOffered,
    /// It said no, or nothing.
    Failed(String),
}

/// The refresh token first: it is worth more, and with it many providers revoke the access tokens made from it.
pub(crate) fn revoke(provider: &Provider<'_>, credentials: &Credentials) -> Revoked {
    let Some(endpoint) = provider.metadata.revocation_endpoint.as_deref() else { return Revoked::NotOffered };
    let refresh = credentials.refresh_token.expose();
    if !refresh.is_empty()
        && let Err(why) = one(provider, endpoint, refresh, "refresh_token")
    {
        return Revoked::Failed(why);
    }
    match one(provider, endpoint, credentials.access_token.expose(), "access_token") {
        Ok(()) => Revoked::Both,
        Err(_) if !refresh.is_empty() => Revoked::RefreshOnly,
        Err(why) => Revoked::Failed(why),
    }
}

fn one(provider: &Provider<'_>, endpoint: &str, token: &str, hint: &str) -> std::result::Result<(), String> {
    let form = [("token", token), ("token_type_hint", hint), ("client_id", provider.client_id.as_str())];
    let answer: Result<_> = provider.http.post(endpoint, &form, provider.proof());
    match answer {
        // Section 2.2: 200 also for a token that was invalid already.
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => {
            let json: serde_json::Value = serde_json::from_slice(answer.body.expose()).unwrap_or_default();
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            Err(match text("error") {
                Some(code) => OAuthError { code, description: text("error_description") }.to_string(),
                None => format!("HTTP status {}", answer.status),
            })
        }
        Err(failure) if failure.kind == Kind::Unavailable => Err(failure.words),
        Err(failure) => Err(foreign(&failure.words)),
    }
}

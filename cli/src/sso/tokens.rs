//! The token endpoint's answers (RFC 6749 sections 5.1 and 5.2).

use std::fmt;
use std::time::Duration;

use gprxy_proto::secret::Secret;
use jiff::Timestamp;
use serde::Deserialize;

use super::failure::{Failure, Result, foreign};
use super::http::Answer;
use super::provider::Provider;

/// When a provider does not say: short, so that the token is renewed rather than used too long.
const UNTOLD_LIFETIME: Duration = Duration::from_secs(300);
/// Nobody gives a token for longer; a larger number is a mistake.
const MAX_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

/// What a provider gave.
pub(crate) struct Tokens {
    pub(crate) access: Secret<String>,
    pub(crate) refresh: Option<Secret<String>>,
    pub(crate) id: Option<Secret<String>>,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

/// An error of the token endpoint, or of the authorization or device endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OAuthError {
    pub(crate) code: String,
    pub(crate) description: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    access_token: Option<String>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Either tokens or the provider's own no; [`Failure`] is for everything that is no answer.
pub(crate) type Outcome = std::result::Result<Tokens, OAuthError>;

/// Asks the token endpoint. The parameters that the client proves itself with are added here.
pub(super) fn request(provider: &Provider<'_>, form: &[(&str, &str)]) -> Result<Outcome> {
    let mut form = form.to_vec();
    form.push(("client_id", provider.client_id.as_str()));
    let asked = Timestamp::now();
    let answer = provider.http.post(&provider.metadata.token_endpoint, &form, provider.proof())?;
    read(&answer, asked)
}

/// Times count from when the request was sent: a slow answer makes the token no younger.
fn read(answer: &Answer, asked: Timestamp) -> Result<Outcome> {
    let body: Option<Body> = serde_json::from_slice(answer.body.expose()).ok();
    let strange = |what: &str| {
        let words = format!("the provider's token endpoint answers with HTTP status {} and {what}", answer.status);
        if answer.status >= 500 { Failure::unavailable(words) } else { Failure::refused(words) }
    };
    let Some(body) = body else { return Err(strange("something that is no token answer")) };
    let id = body.id_token.map(Secret::new);
    let refresh = body.refresh_token.filter(|token| !token.is_empty()).map(Secret::new);
    let access = body.access_token.filter(|token| !token.is_empty()).map(Secret::new);
    if let Some(code) = body.error {
        return Ok(Err(OAuthError { code, description: body.error_description }));
    }
    let Some(access) = access.filter(|_| answer.status == 200) else { return Err(strange("no access token")) };
    // Section 7.1: a client must not use a type that it does not understand (DPoP, mac, …).
    if !body.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(strange("a token of a type that is not Bearer"));
    }
    // What would break a header or an environment cannot be a token (RFC 6750 section 2.1).
    for token in [Some(&access), refresh.as_ref(), id.as_ref()].into_iter().flatten() {
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(strange("a token with characters that no token has"));
        }
    }
    let lifetime = body.expires_in.and_then(|value| seconds(&value)).unwrap_or(UNTOLD_LIFETIME).min(MAX_LIFETIME);
    let expires = asked.checked_add(lifetime).map_err(|_| strange("an expiry beyond all clocks"))?;
    Ok(Ok(Tokens { access, refresh, id, issued: asked, expires }))
}

/// A number, or what some providers write instead: a number in quotes.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Duration::try_from_secs_f64(number).ok()
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&foreign(&self.code))?;
        match self.description.as_deref().map(foreign) {
            Some(description) if !description.is_empty() => write!(f, " ({description})"),
            _ => Ok(()),
        }
    }
}

impl OAuthError {
    /// What a person can do about it, where that is known.
    pub(crate) fn advice(&self) -> &'static str {
        match self.code.as_str() {
            "access_denied" => "the login was refused or given up in the browser",
            "invalid_client" | "unauthorized_client" => {
                "check client_id and client_secret, and that this client may log in this way"
            }
            "invalid_scope" => "set scopes to those that this client may ask for",
            "invalid_target" => "check resource and audience",
            "invalid_grant" => "log in again: gprxy login",
            "redirect_uri_mismatch" => "register the callback URL at the provider",
            "login_required" | "consent_required" | "interaction_required" => {
                "set prompt to what the provider asks for"
            }
            "temporarily_unavailable" | "server_error" => "try again in a moment",
            _ => "the provider's log says more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<Outcome> {
        super::read(
            &Answer { status, body: Secret::new(body.as_bytes().to_vec()) },
            "2026-01-01T00:00:00Z".parse().unwrap(),
        )
    }

    fn expiry(expires_in: &str) -> String {
        let tokens = read(200, &format!(r#"{{"access_token": "a", "expires_in": {expires_in}}}"#)).unwrap();
        tokens.unwrap_or_else(|error| panic!("{error}")).expires.to_string()
    }

    #[test]
    fn lifetimes_are_read_as_providers_write_them_and_bounded() {
        assert_eq!(expiry("3600"), "2026-01-01T01:00:00Z");
        assert_eq!(expiry("\"3600\""), "2026-01-01T01:00:00Z");
        for odd in ["null", "-5", "\"soon\"", "{}"] {
            assert_eq!(expiry(odd), "2026-01-01T00:05:00Z", "{odd}");
        }
        assert_eq!(expiry("1e300"), "2026-01-01T00:05:00Z");
        assert_eq!(expiry("1e12"), "2027-01-02T00:00:00Z");
    }

    #[test]
    fn errors_are_told_apart_from_noise() {
        let error = read(400, r#"{"error": "invalid_grant", "error_description": "gone"}"#).unwrap().err().unwrap();
        assert_eq!(error.to_string(), "invalid_grant (gone)");
        for (status, body) in [
            (200, "<html>hunter2"),
            (200, "{}"),
            (200, r#"{"access_token": ""}"#),
            (500, r#"{"access_token": "hunter2"}"#),
            (200, r#"{"access_token": "hunter2", "token_type": "DPoP"}"#),
            (200, r#"{"access_token": "hunter2\nx"}"#),
            (200, r#"{"access_token": "a", "refresh_token": "hunter2 "}"#),
        ] {
            let failure = read(status, body).err().unwrap_or_else(|| panic!("{body}"));
            assert!(!failure.words.contains("hunter2"), "{failure}");
        }
    }
}

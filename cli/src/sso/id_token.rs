//! The ID token (OpenID Connect Core 1.0, section 3.1.3.7), judged by the same machine that judges tokens in the proxy.

use std::time::Duration;

use gprxy_proto::auth::jwks::{Fetched, KeySetLimits, KeySets};
use gprxy_proto::auth::jwt::{ClaimPath, IssuerSettings, KeySource, Verdict};
use gprxy_proto::driver::clock;
use gprxy_proto::secret::equal_in_constant_time;
use serde_json::Value;

use super::claims::{UserClaims, unverified};
use super::failure::{Failure, Result};
use super::http::{Http, clock_fault};
use super::provider::{Metadata, Provider};

/// As much as the machine allows: the token came over TLS from the provider itself a moment ago, and many laptops are
/// wrong by minutes. Whoever is wrong by more is told so.
const LEEWAY: Duration = Duration::from_secs(600);

/// The claims of a token whose signature, issuer, audience, time and nonce are right.
pub(super) fn verify(provider: &Provider<'_>, token: &str, nonce: Option<&str>) -> Result<UserClaims> {
    let refused = |why: &str| Failure::refused(format!("the provider's ID token is not to be trusted: {why}"));
    check_signature(&provider.http, &provider.metadata, &provider.client_id, token)?;
    let claims = unverified(token).ok_or_else(|| refused("it cannot be read"))?;
    check_party(&claims, &provider.client_id).map_err(refused)?;
    check_nonce(&claims, nonce).map_err(refused)?;
    Ok(claims)
}

/// Signature, `iss`, `aud`, `exp`, `nbf` and `iat`.
fn check_signature(http: &Http, metadata: &Metadata, client_id: &str, token: &str) -> Result<()> {
    let refused = |why: &str| Failure::refused(format!("the provider's ID token is not to be trusted: {why}"));
    let jwks = metadata.jwks_uri.clone();
    let jwks = jwks.ok_or_else(|| {
        Failure::settings("the provider's description has no jwks_uri, so no ID token can be checked")
    })?;
    let subject: ClaimPath = "sub".parse().map_err(|_| refused("its subject cannot be named"))?;
    let settings = IssuerSettings {
        source: KeySource::Url(jwks),
        leeway: LEEWAY,
        user_claims: vec![subject],
        roles_claims: Vec::new(),
        ..IssuerSettings::new(metadata.issuer.as_str(), [client_id])
    };
    let mut sets = KeySets::new(vec![settings], KeySetLimits::default(), clock::now())
        .map_err(|error| Failure::settings(error.to_string()))?;
    while let Some(fetch) = sets.poll_output() {
        let answer = http.get(&fetch.url)?;
        let fetched = Fetched { status: answer.status, body: answer.body.expose().clone(), etag: None, max_age: None };
        sets.handle_fetched(fetch.request, Ok(fetched), clock::now());
    }
    let why = match sets.keyring().verify(token.as_bytes(), clock::now()) {
        Verdict::Proven(_) => return Ok(()),
        Verdict::Refused(refusal) => refusal,
        Verdict::NeedsKey(issuer) => sets.keyring().without_key(issuer),
    };
    match clock_fault(http.clock_ahead()) {
        Some(clock) => Err(refused(&format!("{}; {clock}", why.message))),
        None => Err(refused(&why.message)),
    }
}

/// Steps 4 and 5: a token for several parties names the one that it was made for, and that is us.
fn check_party(claims: &UserClaims, client_id: &str) -> std::result::Result<(), &'static str> {
    let is_for_several = claims.value("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match claims.value("azp") {
        Some(Value::String(party)) if party == client_id => Ok(()),
        Some(_) => Err("it was made for another client (azp)"),
        None if is_for_several => Err("it is for several audiences and names no authorized party (azp)"),
        None => Ok(()),
    }
}

/// Step 11. A login that sent a nonce gets it back; where none was sent (device flow, renewal) there is none to compare.
fn check_nonce(claims: &UserClaims, sent: Option<&str>) -> std::result::Result<(), &'static str> {
    let Some(sent) = sent else { return Ok(()) };
    let came = claims.value("nonce").and_then(Value::as_str).unwrap_or_default();
    if equal_in_constant_time(came.as_bytes(), sent.as_bytes()) {
        Ok(())
    } else {
        Err("it belongs to another login (nonce)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn claims(value: Value) -> UserClaims {
        unverified(&format!("e30.{}.x", URL_SAFE_NO_PAD.encode(value.to_string()))).unwrap()
    }

    #[test]
    fn the_authorized_party_is_us() {
        for good in [json!({"aud": "us"}), json!({"aud": ["us"]}), json!({"aud": ["us", "api"], "azp": "us"})] {
            assert_eq!(check_party(&claims(good.clone()), "us"), Ok(()), "{good}");
        }
        for bad in [json!({"aud": ["us", "api"]}), json!({"aud": "us", "azp": "other"}), json!({"aud": "us", "azp": 5})]
        {
            assert!(check_party(&claims(bad.clone()), "us").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nonce_is_that_of_this_login() {
        assert_eq!(check_nonce(&claims(json!({"nonce": "n"})), Some("n")), Ok(()));
        assert_eq!(check_nonce(&claims(json!({})), None), Ok(()));
        for bad in [json!({}), json!({"nonce": "m"}), json!({"nonce": ["n"]}), json!({"nonce": "nn"})] {
            assert!(check_nonce(&claims(bad.clone()), Some("n")).is_err(), "{bad}");
        }
    }
}

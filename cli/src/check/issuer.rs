//! Tries an issuer: its discovery document and its keys, as the proxy itself will fetch them.

use serde_json::Value;
use ureq::Agent;

use super::Outcome;
use crate::config::{IssuerConfig, parse_url};

/// Real documents and key sets are a few kilobytes.
const MAX_BODY: u64 = 1 << 20;

/// Fetches the discovery document, unless the keys' URL is configured, and then the keys.
pub(super) fn probe(issuer: &IssuerConfig) -> Outcome {
    let agent = crate::http::agent();
    let (jwks_url, way) = match &issuer.jwks_url {
        Some(url) => (url.clone(), "keys at their configured URL"),
        None => (discover(&agent, &issuer.issuer)?, "discovery"),
    };
    let words = keys(&fetch(&agent, &jwks_url)?).map_err(|why| format!("{jwks_url}: {why}"))?;
    Ok(format!("{way}, {words}"))
}

fn discover(agent: &Agent, issuer: &str) -> Result<String, String> {
    // OpenID Connect Discovery 1.0, section 4: a final slash of the issuer is not doubled.
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetch(agent, &url)?;
    keys_url(&document, issuer).map_err(|why| format!("{url}: {why}"))
}

/// The URL of the keys from a discovery document that speaks for this very issuer (section 4.3).
fn keys_url(document: &Value, issuer: &str) -> Result<String, String> {
    match document["issuer"].as_str() {
        Some(named) if named == issuer => {}
        Some(named) => return Err(format!("it names the issuer {named:?}; set issuer to exactly that")),
        None => return Err("it names no issuer".into()),
    }
    let url = document["jwks_uri"].as_str().ok_or("it has no jwks_uri")?;
    match parse_url(url) {
        Ok(parsed) if parsed.is_safe() => Ok(url.to_owned()),
        Ok(_) => Err(format!("its jwks_uri {url:?} is not https")),
        Err(found) => Err(format!("its jwks_uri is {found}")),
    }
}

fn fetch(agent: &Agent, url: &str) -> Result<Value, String> {
    let fault = |why: &dyn std::fmt::Display| format!("{url}: {why}");
    let mut response = agent.get(url).header("accept", "application/json").call().map_err(|error| fault(&error))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(fault(&format_args!("HTTP status {status}; expected 200")));
    }
    let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|error| fault(&error))?;
    serde_json::from_slice(&body).map_err(|_| fault(&"the answer is not JSON"))
}

/// What the key set offers (RFC 7517, section 5).
fn keys(set: &Value) -> Result<String, String> {
    let keys = set["keys"].as_array().ok_or("the answer is no key set: it has no \"keys\"")?;
    // RFC 7517, section 4.2: no "use" means any use. Symmetric keys have no place in a public set.
    let is_for_signatures =
        |key: &&Value| key["use"].as_str().is_none_or(|usage| usage == "sig") && key["kty"].as_str() != Some("oct");
    let signing: Vec<_> = keys.iter().filter(is_for_signatures).collect();
    if signing.is_empty() {
        return Err("the key set has no key for signatures".into());
    }
    let mut kinds: Vec<&str> = signing
        .iter()
        .filter_map(|key| key["alg"].as_str().or_else(|| key["crv"].as_str()).or_else(|| key["kty"].as_str()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let noun = if signing.len() == 1 { "key" } else { "keys" };
    Ok(format!("{} {noun} ({})", signing.len(), kinds.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_must_speak_for_the_issuer_that_was_asked() {
        let issuer = "https://idp.example/";
        let good = json!({"issuer": issuer, "jwks_uri": "https://keys.example/jwks"});
        assert_eq!(keys_url(&good, issuer).as_deref(), Ok("https://keys.example/jwks"));
        for bad in [
            json!({"issuer": "https://idp.example", "jwks_uri": "https://keys.example/jwks"}),
            json!({"jwks_uri": "https://keys.example/jwks"}),
            json!({"issuer": issuer}),
            json!({"issuer": issuer, "jwks_uri": "http://keys.example/jwks"}),
            json!({"issuer": issuer, "jwks_uri": 7}),
            json!([]),
        ] {
            assert!(keys_url(&bad, issuer).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_public_keys_for_signatures_count() {
        let set = json!({"keys": [
            {"kty": "RSA", "alg": "RS256", "use": "sig"}, {"kty": "EC", "crv": "P-256"}, {"kty": "RSA", "use": "enc"},
            {"kty": "oct", "k": "c2VjcmV0"}, 7,
        ]});
        assert_eq!(keys(&set).unwrap(), "3 keys (P-256, RS256)");
        for bad in [json!({}), json!({"keys": []}), json!({"keys": {}}), json!({"keys": [{"kty": "oct"}]})] {
            assert!(keys(&bad).is_err(), "{bad}");
        }
    }
}

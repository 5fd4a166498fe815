//! The two documents that an issuer publishes, read without trusting them further than needed.

use std::sync::Arc;

use serde_json::Value;

use super::url;
use crate::auth::jwt::{PublicKey, parse_json};

/// Real key sets hold a few KiB; the largest providers stay below 100 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Real key sets hold two to ten keys.
pub const MAX_KEYS: usize = 100;

/// Reads a key set (RFC 7517 section 5). Members that cannot verify tokens are skipped; a set without any other is an
/// error, because an issuer that signs tokens publishes at least one.
pub(crate) fn keys(body: &[u8]) -> Result<Arc<[PublicKey]>, String> {
    let document = document(body, "key set")?;
    let Some(Value::Array(members)) = document.get("keys") else {
        return Err("the key set has no array \"keys\"".into());
    };
    if members.len() > MAX_KEYS {
        return Err(format!("the key set has {} keys, expected at most {MAX_KEYS}", members.len()));
    }
    let keys: Arc<[PublicKey]> = members.iter().cloned().filter_map(PublicKey::from_jwk).collect();
    if keys.is_empty() {
        return Err(format!(
            "none of the {} keys in the key set can verify tokens; expected RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519 \
             for signatures",
            members.len()
        ));
    }
    Ok(keys)
}

/// Reads a discovery document and gives its `jwks_uri`. The `issuer` in it must be the configured one, to the letter
/// (OpenID Connect Discovery 1.0 section 4.3).
pub(crate) fn jwks_uri(body: &[u8], issuer: &str) -> Result<String, String> {
    let document = document(body, "discovery document")?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(named) if named == issuer => {}
        Some(named) => {
            return Err(format!(
                "the discovery document is of the issuer \"{}\", expected exactly \"{issuer}\" (a trailing slash counts)",
                url::printable(named)
            ));
        }
        None => return Err("the discovery document has no string \"issuer\"".into()),
    }
    let uri = document.get("jwks_uri").and_then(Value::as_str);
    let uri = uri.ok_or_else(|| String::from("the discovery document has no string \"jwks_uri\""))?;
    match url::check(uri) {
        Ok(()) => Ok(uri.to_owned()),
        Err(reason) => Err(format!("the discovery document's jwks_uri \"{}\": {reason}", url::printable(uri))),
    }
}

/// Where an issuer publishes its discovery document (section 4.1: a trailing slash of the issuer is removed first).
pub(crate) fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))
}

fn document(body: &[u8], what: &str) -> Result<Value, String> {
    if body.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("the {what} is larger than 1 MiB"));
    }
    // The parser's own words name a position and a kind, never the content.
    parse_json(body).map_err(|error| format!("the {what} is not valid JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::tokens::{TestKey, key_set};

    #[test]
    fn a_key_set_is_read_and_strangers_in_it_are_skipped() {
        let (rsa, ed) = (TestKey::rsa("a"), TestKey::ed25519("b"));
        assert_eq!(keys(&key_set(&[&rsa, &ed])).unwrap().len(), 2);
        let mixed = json!({"keys": [
            {"kty": "oct", "k": "AAAA"}, {"kty": "FUTURE"}, 7, null, rsa.jwk(), {"kty": "RSA", "n": "AQ", "e": "AQAB"},
        ], "extra": 1});
        let read = keys(mixed.to_string().as_bytes()).unwrap();
        assert_eq!(read.iter().map(PublicKey::id).collect::<Vec<_>>(), [Some("a")]);
    }

    #[test]
    fn garbage_is_an_error_and_its_text_shows_no_content() {
        let many = json!({"keys": vec![TestKey::ed25519("a").jwk(); MAX_KEYS + 1]}).to_string();
        let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        for (body, expected) in [
            (&b""[..], "not valid JSON"),
            (b"<html>hunter2</html>", "not valid JSON"),
            (br#"{"keys":[],"keys":[]}"#, "not valid JSON"),
            (b"[]", "no array"),
            (br#"{"keys":{}}"#, "no array"),
            (br#"{"keys":[]}"#, "none of the 0"),
            (br#"{"keys":[{"kty":"oct","k":"hunter2"}]}"#, "none of the 1"),
            (many.as_bytes(), "101 keys"),
            (&large, "larger than 1 MiB"),
        ] {
            let error = keys(body).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn discovery_is_of_the_configured_issuer_and_names_a_safe_place() {
        let read = |document: Value| jwks_uri(document.to_string().as_bytes(), "https://idp.example/x");
        let good = json!({"issuer": "https://idp.example/x", "jwks_uri": "https://keys.example/set"});
        assert_eq!(read(good), Ok("https://keys.example/set".into()));
        for (bad, expected) in [
            (json!({"issuer": "https://idp.example/x/", "jwks_uri": "https://k.example"}), "trailing slash"),
            (json!({"issuer": "https://evil\n.example", "jwks_uri": "https://k.example"}), "https://evil\u{fffd}"),
            (json!({"issuer": 7, "jwks_uri": "https://k.example"}), "no string \"issuer\""),
            (json!({"issuer": "https://idp.example/x"}), "no string \"jwks_uri\""),
            (json!({"issuer": "https://idp.example/x", "jwks_uri": "http://k.example"}), "https://"),
            (json!({"issuer": "https://idp.example/x", "jwks_uri": "file:///etc/passwd"}), "https://"),
            (json!("x"), "no string \"issuer\""),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn one_trailing_slash_is_removed_for_discovery() {
        assert_eq!(discovery_url("https://a.example/"), "https://a.example/.well-known/openid-configuration");
        assert_eq!(discovery_url("https://a.example/x"), "https://a.example/x/.well-known/openid-configuration");
    }
}

//! Tokens, and what providers publish.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gprxy_proto::testing::fuzz::token::{AUDIENCE, ISSUER, NOW_SECS};
use gprxy_proto::testing::tokens::{TestKey, claims, key_set};
use serde_json::{Value, json};

use super::{Named, after, string};

/// The key that the body's keyring knows.
fn key() -> TestKey {
    TestKey::ed25519("ed")
}

fn good() -> Value {
    claims(ISSUER, AUDIENCE, "ann", NOW_SECS)
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = good();
    claims[key] = value;
    claims
}

/// As it stands.
fn raw(token: impl AsRef<[u8]>) -> Vec<u8> {
    after(&[0], token)
}

/// Header and claims that the body signs.
fn signed(header: &str, claims: &str) -> Vec<u8> {
    after(&[1], [string(header), claims.as_bytes().to_vec()].concat())
}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"ed"}"#;

pub(super) fn token() -> Vec<Named> {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let parts = |header: &str| format!("{}.{}.", encode(header), encode(&good().to_string()));
    let claimed = |claims: Value| signed(HEADER, &claims.to_string());
    vec![
        ("good", raw(key().token(&good()))),
        ("alg-none", raw(parts(r#"{"alg":"none"}"#))),
        ("alg-hs256", raw(parts(r#"{"alg":"HS256","kid":"ed"}"#) + "AAAA")),
        ("dots", raw("eyJ..")),
        ("four-parts", raw("eyJ.a.b.c")),
        ("not-base64", raw("eyJ!.eyJ!.!")),
        ("deep", raw(format!("{}.{}.AA", encode(HEADER), encode(&"[".repeat(3000))))),
        ("unknown-key", raw(parts(r#"{"alg":"EdDSA","kid":"new"}"#) + "AAAA")),
        ("signed", claimed(good())),
        (
            "signed-rsa",
            after(&[2], [string(r#"{"alg":"RS256","kid":"rsa"}"#), good().to_string().into_bytes()].concat()),
        ),
        ("signed-without-kid", signed(r#"{"alg":"EdDSA"}"#, &good().to_string())),
        ("signed-with-crit", signed(r#"{"alg":"EdDSA","kid":"ed","crit":["x"]}"#, &good().to_string())),
        ("signed-logout", signed(r#"{"alg":"EdDSA","kid":"ed","typ":"logout+jwt"}"#, &good().to_string())),
        ("expired", claimed(with("exp", json!(1)))),
        ("exp-of-a-wrong-type", claimed(with("exp", json!("1900000000")))),
        ("exp-out-of-range", claimed(with("exp", json!(1e300)))),
        ("not-yet", claimed(with("nbf", json!(NOW_SECS + 3600)))),
        ("foreign-audience", claimed(with("aud", json!(["x", "y"])))),
        ("audience-of-a-wrong-type", claimed(with("aud", json!([1, AUDIENCE])))),
        ("roles-nested", claimed(with("roles", json!([["reader"], {"a": 1}])))),
        ("roles-many", claimed(with("roles", json!(vec!["r"; 600])))),
        ("subject-with-controls", claimed(with("sub", json!("ann\u{0}\n\u{202e}")))),
        ("subject-empty", claimed(with("sub", json!(" ")))),
        ("email-not-verified", claimed(with("email_verified", json!(false)))),
        ("claims-twice", signed(HEADER, &good().to_string().replacen('{', r#"{"sub":"bob","#, 1))),
        ("one-bit", vec![3, 0, 200, 1]),
        ("unchanged", vec![3]),
    ]
}

/// An answer: how it looks (status, `ETag` or not), its age, its tag, its body.
fn answer(how: u8, etag: Option<&str>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let tag = etag.map(string).unwrap_or_default();
    [&[0, how | if etag.is_some() { 8 } else { 0 }, 2][..], &tag, &string(body)].concat()
}

pub(super) fn keys() -> Vec<Named> {
    let (discovered, direct) = (0, 1);
    let set = || key_set(&[&key(), &TestKey::rsa("rsa")]);
    let place = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    let found = || answer(0, None, place(ISSUER, "https://keys.example/set"));
    let run = |source: u8, steps: &[Vec<u8>]| after(&[source], steps.concat());
    let (unknown, hour) = (vec![6], vec![7, 4, 0]);
    vec![
        ("direct", run(direct, &[answer(0, None, set()), hour.clone(), answer(0, None, set())])),
        ("discovered", run(discovered, &[found(), answer(0, Some("\"1\""), set()), hour.clone(), answer(4, None, "")])),
        ("not-modified-at-first", run(direct, &[answer(4, None, "")])),
        (
            "unknown-key",
            run(direct, &[answer(0, None, set()), unknown.clone(), answer(0, None, set()), unknown.clone()]),
        ),
        ("foreign-issuer", run(discovered, &[answer(0, None, place("https://evil.example", "https://k.example/"))])),
        ("plain-http", run(discovered, &[answer(0, None, place(ISSUER, "http://keys.example/set"))])),
        ("at-home", run(discovered, &[answer(0, None, place(ISSUER, "http://127.0.0.1:9400/set")), unknown])),
        ("credentials-in-uri", run(discovered, &[answer(0, None, place(ISSUER, "https://a:b@keys.example/"))])),
        ("redirect", run(direct, &[answer(5, None, "")])),
        ("no-keys", run(direct, &[answer(0, None, r#"{"keys":[]}"#)])),
        ("keys-twice", run(direct, &[answer(0, None, r#"{"keys":[],"keys":[]}"#)])),
        ("symmetric", run(direct, &[answer(0, None, r#"{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}"#)])),
        ("weak-rsa", run(direct, &[answer(0, None, r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#)])),
        ("many", run(direct, &[answer(0, None, json!({"keys": vec![0; 101]}).to_string())])),
        ("html", run(direct, &[answer(0, None, "<html>no</html>")])),
        ("deep", run(direct, &[answer(0, None, "[".repeat(5000))])),
        ("bad-etag", run(direct, &[answer(0, Some("a\r\nX: y"), set()), hour.clone()])),
        ("failure", run(direct, &[after(&[4], string("connection\nrefused")), hour.clone(), hour.clone()])),
        ("late", run(direct, &[hour.clone(), hour, after(&[5, 0, 0, 1], string(set()))])),
    ]
}

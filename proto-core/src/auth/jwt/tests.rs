//! Tokens that are good, and every way in which one can be bad.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::auth::Method;
use crate::fault::SqlState;
use crate::testing::tokens::{TestKey, claims as good_claims};
use crate::time::{Tick, UnixMicros};

const ISSUER: &str = "https://idp.example/realms/corp";
const NOW_SECS: i64 = 1_800_000_000;

fn now() -> Now {
    Now { tick: Tick::default(), unix: UnixMicros::from_secs(NOW_SECS) }
}

fn settings() -> IssuerSettings {
    IssuerSettings::new(ISSUER, ["gprxy", "pg"])
}

fn path(text: &str) -> ClaimPath {
    text.parse().unwrap()
}

fn keyring(settings: IssuerSettings, jwks: &[Value]) -> Keyring {
    let keys = jwks.iter().cloned().filter_map(PublicKey::from_jwk).collect();
    Keyring::new(vec![IssuerKeys { settings: Arc::new(settings), keys }])
}

fn claims() -> Value {
    good_claims(ISSUER, "gprxy", "ann", NOW_SECS)
}

/// The good claims with one of them changed; null takes it away.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

struct Bench {
    key: TestKey,
    keyring: Keyring,
}

impl Bench {
    fn new(settings: IssuerSettings) -> Self {
        let key = TestKey::ed25519("k1");
        let keyring = keyring(settings, &[key.jwk()]);
        Self { key, keyring }
    }

    fn verdict(&self, claims: &Value) -> Verdict {
        self.keyring.verify(&self.key.token(claims), now())
    }
}

fn identity(verdict: Verdict) -> Arc<super::super::Identity> {
    match verdict {
        Verdict::Proven(proof) => proof.identity().clone(),
        other => panic!("expected a proof, got {other:?}"),
    }
}

/// The message of a refusal, after the checks that hold for each of them.
fn refusal(verdict: Verdict) -> String {
    match verdict {
        Verdict::Refused(refusal) => {
            assert_eq!(refusal.code, SqlState::INVALID_PASSWORD);
            assert!(refusal.hint.is_some(), "{refusal}");
            refusal.message
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn refused(claims: &Value) -> String {
    refusal(Bench::new(settings()).verdict(claims))
}

fn accepted(claims: &Value) -> bool {
    matches!(Bench::new(settings()).verdict(claims), Verdict::Proven(_))
}

#[test]
fn a_good_token_proves_who_sent_it() {
    let who = identity(Bench::new(settings()).verdict(&claims()));
    assert_eq!((&*who.issuer, &*who.subject, &*who.user), (ISSUER, "ann", "ann@corp.example"));
    assert_eq!(who.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["reader"]);
    assert_eq!(who.expires, Some(UnixMicros::from_secs(NOW_SECS + 300)));
    assert_eq!(who.method, Method::Token);
}

#[test]
fn every_supported_algorithm_is_accepted() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let keys = [
        (TestKey::rsa("rsa"), vec![RS256, RS384, RS512, PS256, PS384, PS512]),
        (TestKey::es256("p256"), vec![ES256]),
        (TestKey::es384("p384"), vec![ES384]),
        (TestKey::ed25519("ed"), vec![EdDSA]),
    ];
    let keyring = keyring(settings(), &keys.iter().map(|(key, _)| key.jwk()).collect::<Vec<_>>());
    for (key, algorithms) in &keys {
        for algorithm in algorithms {
            let token = key.token_with(&json!({"alg": algorithm, "kid": key.kid()}), &claims());
            assert_eq!(&*identity(keyring.verify(&token, now())).subject, "ann", "{algorithm:?}");
        }
    }
}

#[test]
fn no_changed_byte_survives() {
    let bench = Bench::new(settings());
    let token = bench.key.token(&claims());
    for place in 0..token.len() {
        for replacement in [b'A', b'_', b'.', b'=', 0] {
            let mut tampered = token.clone();
            if tampered[place] != replacement {
                tampered[place] = replacement;
                assert!(!matches!(bench.keyring.verify(&tampered, now()), Verdict::Proven(_)), "byte {place}");
            }
        }
        assert!(!matches!(bench.keyring.verify(&token[..place], now()), Verdict::Proven(_)), "cut at {place}");
    }
    let swapped = [&bench.key.token(&claims_with("sub", json!("ceo")))[..], &token[..]];
    let [claims_of_other, signature_of_first] =
        swapped.map(|token| token.split(|b| *b == b'.').map(<[u8]>::to_vec).collect::<Vec<_>>());
    let mixed = [&claims_of_other[0][..], &claims_of_other[1], &signature_of_first[2]].join(&b'.');
    assert_eq!(refusal(bench.keyring.verify(&mixed, now())), "the token's signature does not verify");
}

#[test]
fn no_algorithm_confusion() {
    let rsa = TestKey::rsa("k");
    let ring = keyring(settings(), &[rsa.jwk()]);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // HS256 with what everybody knows of the RSA key as the secret, in each form that a library might take for one.
    let n = URL_SAFE_NO_PAD.decode(rsa.jwk()["n"].as_str().unwrap()).unwrap();
    for secret in [n, rsa.jwk()["n"].as_str().unwrap().as_bytes().to_vec(), rsa.jwk().to_string().into_bytes(), vec![]]
    {
        for (name, hash) in [("HS256", ring::hmac::HMAC_SHA256), ("HS512", ring::hmac::HMAC_SHA512)] {
            let header = json!({"alg": name, "kid": "k"}).to_string();
            let message = format!("{}.{}", encode(header.as_bytes()), encode(claims().to_string().as_bytes()));
            let tag = ring::hmac::sign(&ring::hmac::Key::new(hash, &secret), message.as_bytes());
            let token = format!("{message}.{}", encode(tag.as_ref()));
            assert!(refusal(ring.verify(token.as_bytes(), now())).contains("algorithm"));
        }
    }
    for name in ["none", "None", "NONE", "nOnE", "", "ES512", "RS1", "HS384", "dir"] {
        let header = json!({"alg": name, "kid": "k"}).to_string();
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims().to_string().as_bytes()));
        for token in [format!("{message}."), format!("{message}.AAAA")] {
            assert!(refusal(ring.verify(token.as_bytes(), now())).contains("algorithm"), "{name}");
        }
    }
    // Another key of the same id, of another type and of the same type.
    for other in [TestKey::ed25519("k"), TestKey::es256("k"), TestKey::es384("k"), TestKey::other_rsa("k")] {
        assert_eq!(refusal(ring.verify(&other.token(&claims()), now())), "the token's signature does not verify");
    }
    // An empty signature is none.
    let token = String::from_utf8(rsa.token(&claims())).unwrap();
    let unsigned = &token[..=token.rfind('.').unwrap()];
    assert_eq!(refusal(ring.verify(unsigned.as_bytes(), now())), "the token's signature does not verify");
}

#[test]
fn a_key_declared_for_one_algorithm_serves_no_other() {
    let key = TestKey::rsa("k");
    let mut jwk = key.jwk();
    jwk["alg"] = json!("RS256");
    let ring = keyring(settings(), &[jwk]);
    let token = |alg: &str| key.token_with(&json!({"alg": alg, "kid": "k"}), &claims());
    let _ = identity(ring.verify(&token("RS256"), now()));
    assert_eq!(refusal(ring.verify(&token("PS256"), now())), "the token's signature does not verify");
}

#[test]
fn a_key_that_the_token_brings_along_is_not_used() {
    let forger = TestKey::es256("k1");
    for parameter in ["jwk", "jku", "x5u"] {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        header[parameter] = if parameter == "jwk" { forger.jwk() } else { json!("https://evil.example/keys") };
        let verdict = Bench::new(settings()).keyring.verify(&forger.token_with(&header, &claims()), now());
        assert_eq!(refusal(verdict), "the token's signature does not verify");
    }
}

#[test]
fn an_unknown_kid_needs_a_key_and_a_missing_one_is_fine_when_only_one_fits() {
    let (ed, rsa, other) = (TestKey::ed25519("a"), TestKey::rsa("b"), TestKey::other_rsa("c"));
    let ring = keyring(settings(), &[ed.jwk(), rsa.jwk(), other.jwk()]);
    let without_kid = |key: &TestKey| key.token_with(&json!({"alg": key.algorithm()}), &claims());
    let _ = identity(ring.verify(&without_kid(&ed), now()));
    assert!(refusal(ring.verify(&without_kid(&rsa), now())).contains("which of its issuer's keys"));
    assert!(matches!(ring.verify(&without_kid(&TestKey::es256("x")), now()), Verdict::NeedsKey(IssuerId(0))));
    assert!(matches!(ring.verify(&TestKey::rsa("new").token(&claims()), now()), Verdict::NeedsKey(IssuerId(0))));
    assert_eq!(ring.without_key(IssuerId(0)).code, SqlState::INVALID_PASSWORD);

    let empty = keyring(settings(), &[]);
    assert!(matches!(empty.verify(&ed.token(&claims()), now()), Verdict::NeedsKey(IssuerId(0))));
    assert_eq!(empty.without_key(IssuerId(0)).code, SqlState::CANNOT_CONNECT_NOW);
}

#[test]
fn two_keys_of_one_id_are_alternatives() {
    let (one, two, ed) = (TestKey::rsa("same"), TestKey::other_rsa("same"), TestKey::ed25519("same"));
    let ring = keyring(settings(), &[one.jwk(), two.jwk(), ed.jwk()]);
    for key in [&one, &two, &ed] {
        let _ = identity(ring.verify(&key.token(&claims()), now()));
    }
}

#[test]
fn a_hopeless_token_with_an_unknown_key_costs_no_fetch() {
    let stranger = TestKey::rsa("gone");
    let verdict = |claims: &Value| Bench::new(settings()).keyring.verify(&stranger.token(claims), now());
    assert_eq!(refusal(verdict(&claims_with("exp", json!(NOW_SECS - 3600)))), "the token has expired");
    assert!(refusal(verdict(&claims_with("aud", json!("other")))).contains("audience"));
    assert!(matches!(verdict(&claims()), Verdict::NeedsKey(_)));
}

#[test]
fn the_issuer_chooses_the_keys_and_is_compared_exactly() {
    let (first, second) = (TestKey::ed25519("k"), TestKey::rsa("k"));
    let issuer = |name: &str, key: &TestKey| IssuerKeys {
        settings: Arc::new(IssuerSettings::new(name, ["gprxy"])),
        keys: PublicKey::from_jwk(key.jwk()).into_iter().collect(),
    };
    let ring = Keyring::new(vec![issuer("https://a.example", &first), issuer("https://b.example/", &second)]);
    let token = |key: &TestKey, name: &str| key.token(&good_claims(name, "gprxy", "ann", NOW_SECS));
    assert_eq!(&*identity(ring.verify(&token(&first, "https://a.example"), now())).issuer, "https://a.example");
    assert_eq!(&*identity(ring.verify(&token(&second, "https://b.example/"), now())).issuer, "https://b.example/");
    // The key of one issuer does not speak for the other.
    assert_eq!(
        refusal(ring.verify(&token(&second, "https://a.example"), now())),
        "the token's signature does not verify"
    );
    for stranger in ["https://a.example/", "https://b.example", "HTTPS://A.EXAMPLE", "", "https://c.example"] {
        let message = refusal(ring.verify(&token(&first, stranger), now()));
        assert!(message.contains("issuer is not one"), "{message}");
    }
}

#[test]
fn times_are_checked_with_leeway_to_the_microsecond() {
    let bench = Bench::new(IssuerSettings { leeway: Duration::from_secs(60), ..settings() });
    let token = bench.key.token(&json!({
        "iss": ISSUER, "aud": "pg", "sub": "ann", "email": "a@b", "exp": NOW_SECS + 100, "nbf": NOW_SECS, "iat": NOW_SECS,
    }));
    let at = |micros: i64| {
        let unix = UnixMicros(NOW_SECS * 1_000_000 + micros);
        bench.keyring.verify(&token, Now { tick: Tick::default(), unix })
    };
    assert!(matches!(at(160_000_000 - 1), Verdict::Proven(_)));
    assert_eq!(refusal(at(160_000_000)), "the token has expired");
    assert!(matches!(at(-60_000_000), Verdict::Proven(_)));
    assert_eq!(refusal(at(-60_000_001)), "the token is not valid yet");

    let strict = Bench::new(IssuerSettings { leeway: Duration::ZERO, ..settings() });
    assert_eq!(refusal(strict.verdict(&claims_with("exp", json!(NOW_SECS)))), "the token has expired");
    assert!(matches!(strict.verdict(&claims_with("exp", json!(NOW_SECS + 1))), Verdict::Proven(_)));
    for claim in ["nbf", "iat"] {
        assert_eq!(refusal(strict.verdict(&claims_with(claim, json!(NOW_SECS + 1)))), "the token is not valid yet");
        assert!(matches!(strict.verdict(&claims_with(claim, json!(NOW_SECS))), Verdict::Proven(_)));
        assert!(matches!(strict.verdict(&claims_with(claim, Value::Null)), Verdict::Proven(_)));
    }
}

#[test]
fn a_date_may_have_a_fraction_and_must_be_a_date() {
    let who = identity(Bench::new(settings()).verdict(&claims_with("exp", json!(NOW_SECS as f64 + 0.5))));
    assert_eq!(who.expires, Some(UnixMicros(NOW_SECS * 1_000_000 + 500_000)));
    for claim in ["exp", "nbf", "iat"] {
        for bad in
            [json!("1900000000"), json!(true), json!([NOW_SECS]), json!({}), json!(1e300), json!(-1), json!(u64::MAX)]
        {
            let message = refused(&claims_with(claim, bad.clone()));
            assert!(message.contains(&format!("\"{claim}\"")), "{claim} {bad}: {message}");
        }
        let mut null = claims();
        null[claim] = Value::Null;
        assert!(refused(&null).contains("is null"), "{claim}");
    }
    // What JSON cannot say, and what no reader could hold.
    let bench = Bench::new(settings());
    for exp in ["NaN", "Infinity", "1e999", "-1e999"] {
        let text = claims().to_string().replace(&format!("\"exp\":{}", NOW_SECS + 300), &format!("\"exp\":{exp}"));
        let token = bench.key.token_of(Algorithm::EdDSA, br#"{"alg":"EdDSA","kid":"k1"}"#, text.as_bytes());
        assert!(refusal(bench.keyring.verify(&token, now())).contains("not a well-formed"), "{exp}");
    }
}

#[test]
fn what_must_be_there_must_be_there() {
    for claim in ["iss", "aud", "exp", "sub"] {
        assert_eq!(refused(&claims_with(claim, Value::Null)), format!("the token has no claim \"{claim}\""));
    }
    let settings = IssuerSettings { required_claims: vec![path("azp"), path("realm_access.roles")], ..settings() };
    let bench = Bench::new(settings);
    assert!(refusal(bench.verdict(&claims_with("azp", json!("cli")))).contains("realm_access.roles"));
    assert!(refusal(bench.verdict(&claims_with("realm_access", json!({"roles": []})))).contains("azp"));
    let mut both = claims_with("realm_access", json!({"roles": []}));
    both["azp"] = Value::Null;
    assert!(refusal(bench.verdict(&both)).contains("azp"));
    both["azp"] = json!("cli");
    let _ = identity(bench.verdict(&both));
}

#[test]
fn the_audience_is_ours() {
    for good in [json!("gprxy"), json!("pg"), json!(["other", "pg"]), json!(["gprxy"])] {
        assert!(accepted(&claims_with("aud", good)));
    }
    for foreign in [json!("other"), json!(""), json!("GPRXY"), json!("gprxy "), json!([]), json!(["other"])] {
        let message = refused(&claims_with("aud", foreign));
        assert!(message.contains("expected the audience \"gprxy\" or \"pg\""), "{message}");
    }
    for bad in
        [json!(7), json!(true), json!({"gprxy": 1}), json!(["gprxy", 7]), json!([["gprxy"]]), json!(["gprxy", null])]
    {
        let message = refused(&claims_with("aud", bad));
        assert!(message.contains("expected a string or an array of strings"), "{message}");
    }
}

#[test]
fn names_are_strings_that_fit_on_a_line() {
    for claim in ["sub", "email"] {
        for bad in [json!(7), json!(true), json!(["ann"]), json!({"a": 1})] {
            let message = refused(&claims_with(claim, bad));
            assert!(message.contains(&format!("\"{claim}\"")) && message.contains("a string"), "{message}");
        }
        for bad in [
            "",
            " ",
            "a\nb",
            "a\rb",
            "a\0b",
            "a\u{1b}[2J",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{200b}",
            "a\u{ad}nn",
            "a\u{34f}nn",
            "a\u{61c}",
            "a\u{180e}",
            "\u{3164}",
            "a\u{115f}",
            "a\u{ffa0}",
            "a\u{fff9}",
            "a\u{e0061}\u{e007f}",
        ] {
            assert!(refused(&claims_with(claim, json!(bad))).contains("cannot be used"), "{bad:?}");
        }
        assert!(refused(&claims_with(claim, json!("x".repeat(1025)))).contains("1024 bytes"));
        for good in ["Zoë Ångström", "می\u{200c}خواهم", "क्\u{200d}ष", "葛\u{fe00}", "김철수"] {
            assert!(accepted(&claims_with(claim, json!(good))), "{good:?}");
        }
    }
    assert!(refused(&claims_with("iss", json!(["https://idp.example"]))).contains("\"iss\" is an array"));
}

#[test]
fn the_user_is_the_first_configured_claim_that_is_there() {
    let several =
        IssuerSettings { user_claims: vec![path("email"), path("preferred_username"), path("sub")], ..settings() };
    let bench = Bench::new(several);
    assert_eq!(&*identity(bench.verdict(&claims())).user, "ann@corp.example");
    let mut other = claims_with("email", Value::Null);
    assert_eq!(&*identity(bench.verdict(&other)).user, "ann");
    other["preferred_username"] = json!("anna");
    assert_eq!(&*identity(bench.verdict(&other)).user, "anna");
    other["preferred_username"] = json!(7);
    assert!(refusal(bench.verdict(&other)).contains("preferred_username"));
    assert!(refused(&claims_with("email", Value::Null)).contains("expected the claim \"email\""));
}

#[test]
fn an_unverified_email_is_nobodys_name() {
    assert_eq!(refused(&claims_with("email_verified", json!(false))), "the token's e-mail address is not verified");
    assert!(accepted(&claims_with("email_verified", Value::Null)));
    for bad in [json!("true"), json!("false"), json!(1)] {
        assert!(refused(&claims_with("email_verified", bad)).contains("\"email_verified\""));
    }
    // The address is not used: it does not matter. Its type still does.
    let by_subject = Bench::new(IssuerSettings { user_claims: vec![path("sub")], ..settings() });
    assert_eq!(&*identity(by_subject.verdict(&claims_with("email_verified", json!(false)))).user, "ann");
    assert!(refusal(by_subject.verdict(&claims_with("email", json!(7)))).contains("\"email\" is a number"));
}

#[test]
fn roles_come_from_all_configured_places_in_order() {
    let paths = ["role", "roles", "groups", "https://corp.example/roles", "realm_access.roles"];
    let bench = Bench::new(IssuerSettings { roles_claims: paths.map(path).to_vec(), ..settings() });
    let mut all = claims_with("roles", json!(["b", "a", " ", "", "c "]));
    all["role"] = json!("a");
    all["https://corp.example/roles"] = json!(["d"]);
    all["realm_access"] = json!({"roles": ["e", "d"]});
    let who = identity(bench.verdict(&all));
    assert_eq!(who.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["a", "b", "c ", "d", "e"]);
    assert!(identity(bench.verdict(&claims_with("roles", Value::Null))).roles.is_empty());
    assert!(refusal(bench.verdict(&claims_with("realm_access", json!("x")))).contains("realm_access.roles"));
}

#[test]
fn roles_of_a_wrong_type_or_size_are_refused() {
    for bad in
        [json!(7), json!(true), json!({"reader": true}), json!(["reader", 7]), json!([["reader"]]), json!([null])]
    {
        let message = refused(&claims_with("roles", bad));
        assert!(message.contains("\"roles\"") && message.contains("an array of strings"), "{message}");
    }
    let mut null = claims();
    null["roles"] = Value::Null;
    assert!(refused(&null).contains("is null"));
    for bad in [json!(["a\nb"]), json!("a\0"), json!(["x".repeat(513)])] {
        assert!(refused(&claims_with("roles", bad)).contains("512 bytes"));
    }
    let roles = |count: usize| (0..count).map(|i| format!("r{i}")).collect::<Vec<_>>();
    assert_eq!(identity(Bench::new(settings()).verdict(&claims_with("roles", json!(roles(512))))).roles.len(), 512);
    assert!(refused(&claims_with("roles", json!(roles(513)))).contains("at most 512 roles"));
    let mut two_places = claims_with("roles", json!(roles(512)));
    two_places["role"] = json!("one more");
    assert!(refused(&two_places).contains("at most 512 roles"));
}

#[test]
fn duplicate_keys_are_refused_in_both_halves() {
    let bench = Bench::new(settings());
    let header = br#"{"alg":"EdDSA","kid":"k1"}"#;
    let good = claims().to_string();
    for extra in [r#""sub":"ceo""#, r#""s\u0075b":"ceo""#, r#""x":{"a":1,"a":2}"#, r#""roles":["admin"]"#] {
        let twice = format!("{{{extra},{}", &good[1..]);
        let token = bench.key.token_of(Algorithm::EdDSA, header, twice.as_bytes());
        assert!(refusal(bench.keyring.verify(&token, now())).contains("not a well-formed"), "{extra}");
    }
    for header in [&br#"{"alg":"EdDSA","kid":"k1","kid":"k1"}"#[..], br#"{"alg":"EdDSA","alg":"none","kid":"k1"}"#] {
        let token = bench.key.token_of(Algorithm::EdDSA, header, good.as_bytes());
        assert!(refusal(bench.keyring.verify(&token, now())).contains("not a well-formed"));
    }
}

#[test]
fn headers_that_demand_or_mean_something_else_are_refused() {
    let bench = Bench::new(settings());
    let verdict = |header: Value| bench.keyring.verify(&bench.key.token_with(&header, &claims()), now());
    for crit in [json!(["b64"]), json!([]), json!(null), json!("exp")] {
        assert!(refusal(verdict(json!({"alg": "EdDSA", "kid": "k1", "b64": true, "crit": crit}))).contains("crit"));
    }
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "id_token+jwt", "corp-thing"] {
        let _ = identity(verdict(json!({"alg": "EdDSA", "kid": "k1", "typ": typ})));
    }
    for typ in ["logout+jwt", "LOGOUT+JWT", "application/secevent+jwt", "dpop+jwt"] {
        assert!(refusal(verdict(json!({"alg": "EdDSA", "kid": "k1", "typ": typ}))).contains("type"), "{typ}");
    }
    let _ = identity(verdict(json!({"alg": "EdDSA", "kid": "k1"})));
    for bad in [
        json!({"alg": "EdDSA", "kid": 7}),
        json!({"alg": "EdDSA", "kid": "k1", "typ": 7}),
        json!({"alg": 7}),
        json!({}),
    ] {
        assert!(refusal(verdict(bad)).contains("not a well-formed"));
    }
}

#[test]
fn what_is_no_token_is_refused_whatever_its_size() {
    let bench = Bench::new(settings());
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","kid":"k1"}"#);
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "eyJ.eyJ.x".into(),
        format!("{header}.."),
        format!("{header}.e30"),
        format!("{header}.e30.x.y.z"),
        format!("{header}=.e30.AAAA"),
        format!("{header}.W10.AAAA"),
        format!(" {header}.e30.AAAA"),
    ] {
        assert!(refusal(bench.keyring.verify(bad.as_bytes(), now())).contains("not a well-formed"), "{bad}");
    }
    let _ = refusal(bench.keyring.verify(&[0xff; 100], now()));

    let padded = |bytes: usize| bench.key.token(&claims_with("pad", json!("x".repeat(bytes))));
    let room = (MAX_TOKEN_BYTES - padded(0).len()) / 4 * 3;
    let largest = padded(room - 8);
    assert!(largest.len() <= MAX_TOKEN_BYTES && largest.len() > MAX_TOKEN_BYTES - 64);
    let _ = identity(bench.keyring.verify(&largest, now()));
    assert!(refusal(bench.keyring.verify(&padded(room + 64), now())).contains("larger than 64 KiB"));
}

#[test]
fn no_message_shows_anything_of_the_token() {
    const CANARY: &str = "zq7canary";
    let bench = Bench::new(settings());
    let mut tokens = vec![
        bench.key.token_with(&json!({"alg": CANARY, "kid": "k1"}), &claims()),
        bench.key.token_with(&json!({"alg": "EdDSA", "kid": "k1", "typ": "logout+jwt", "x": CANARY}), &claims()),
        bench.key.token_with(&json!({"alg": "EdDSA", "kid": "k1", "crit": [CANARY]}), &claims()),
        TestKey::es256("k1").token(&claims_with("sub", json!(CANARY))),
        format!("{CANARY}.{CANARY}.{CANARY}").into_bytes(),
    ];
    for claim in ["iss", "aud", "sub", "email", "exp", "nbf", "iat", "email_verified", "roles"] {
        for value in [json!({CANARY: CANARY}), json!(format!("{CANARY}\n")), json!([{CANARY: 1}])] {
            tokens.push(bench.key.token(&claims_with(claim, value)));
        }
    }
    for token in tokens {
        let Verdict::Refused(refusal) = bench.keyring.verify(&token, now()) else { panic!("each of these is refused") };
        let shown = format!("{refusal:?}");
        assert!(!shown.contains(CANARY) && !shown.contains("eyJ"), "{shown}");
    }
}

use super::*;
use crate::profile::{Profile, ProviderSettings, ProxySettings};
use crate::sso::http::Http;

fn profile() -> Profile {
    Profile {
        name: "default".into(),
        provider: ProviderSettings {
            audience: Some("https://db.example?a&b".into()),
            connection: Some("corp".into()),
            ..ProviderSettings::default()
        },
        proxy: ProxySettings::default(),
        store: None,
        warnings: Vec::new(),
    }
}

fn provider(profile: &Profile, sends_iss: bool) -> Provider<'_> {
    let metadata = serde_json::from_value(serde_json::json!({
        "issuer": "https://idp.example", "token_endpoint": "https://idp.example/token",
        "authorization_endpoint": "https://idp.example/auth?tenant=1",
        "authorization_response_iss_parameter_supported": sends_iss,
    }));
    Provider { metadata: metadata.unwrap(), http: Http::new(), client_id: "us".into(), profile }
}

fn answer(state: Option<&str>, code: Option<&str>, error: Option<&str>) -> Answer {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Answer { state: owned(state), code: owned(code), error: owned(error), ..Answer::default() }
}

#[test]
fn the_request_has_everything_and_the_verifier_stays_here() {
    let profile = profile();
    let provider = provider(&profile, false);
    let attempt = Attempt::new(&provider, 8085).unwrap();
    let url = attempt.url("https://idp.example/auth?tenant=1").unwrap();
    let pairs: std::collections::BTreeMap<String, String> =
        url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    for (name, value) in [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "us"),
        ("redirect_uri", "http://localhost:8085/callback"),
        ("scope", "openid profile email offline_access groups"),
        ("code_challenge_method", "S256"),
        ("audience", "https://db.example?a&b"),
        ("connection", "corp"),
        ("state", attempt.state.expose()),
        ("nonce", attempt.nonce.expose()),
    ] {
        assert_eq!(pairs.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!url.contains(attempt.key.verifier.expose()));
    assert!(!pairs.contains_key("prompt") && !pairs.contains_key("resource"));
}

#[test]
fn only_the_right_state_makes_an_answer_ours() {
    let profile = profile();
    let provider = provider(&profile, false);
    let attempt = Attempt::new(&provider, 1).unwrap();
    let state = attempt.state.expose().as_str();
    assert_eq!(attempt.judge(&answer(Some(state), Some("c"), None)), Meaning::Code("c"));
    let stranger = [
        answer(Some("x"), Some("c"), None),
        answer(None, Some("c"), None),
        answer(Some(""), Some("c"), None),
        answer(Some(state), None, None),
        answer(None, None, None),
        answer(Some("x"), None, Some("access_denied")),
        Answer { is_ambiguous: true, ..answer(Some(state), Some("c"), None) },
        Answer { iss: Some("https://evil.example".into()), ..answer(Some(state), Some("c"), None) },
    ];
    for answer in stranger {
        assert_eq!(attempt.judge(&answer), Meaning::Stranger, "{answer:?}");
    }
    for state in [Some(state), None] {
        let denied = answer(state, None, Some("access_denied"));
        assert!(matches!(attempt.judge(&denied), Meaning::Error(_)), "an error always ends it: {denied:?}");
    }
}

#[test]
fn a_provider_that_names_itself_must_do_so() {
    let profile = profile();
    let provider = provider(&profile, true);
    let attempt = Attempt::new(&provider, 1).unwrap();
    let unnamed = answer(Some(attempt.state.expose()), Some("c"), None);
    assert_eq!(attempt.judge(&unnamed), Meaning::Stranger);
    let named = Answer { iss: Some("https://idp.example".into()), ..unnamed };
    assert_eq!(attempt.judge(&named), Meaning::Code("c"));
}

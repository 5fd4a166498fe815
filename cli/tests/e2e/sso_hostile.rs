//! Providers that are broken or mean harm.

use serde_json::json;

use crate::support::bad_idp::{discovery, serve};
use crate::support::desk::Desk;
use crate::support::provider::Provider;

const DISCOVERY: &str = "/.well-known/openid-configuration";

fn desk(issuer: &str) -> Desk {
    Desk::new(Provider::shared()).with("GPRXY_ISSUER", issuer).with("GPRXY_SCOPES", "sql")
}

#[test]
fn a_description_that_cannot_be_trusted_is_refused_before_anything_is_sent() {
    for (change, words) in [
        (json!({ "token_endpoint": "http://idp.example/token" }), "not https"),
        (json!({ "authorization_endpoint": "http://idp.example/auth" }), "not https"),
        (json!({ "authorization_endpoint": "javascript:alert(1)" }), "not https"),
        (json!({ "issuer": "https://idp.example" }), "names the issuer"),
        (json!({ "token_endpoint": null }), "no provider's description"),
        (json!({ "authorization_endpoint": null }), "no page to log in at"),
        (json!({ "code_challenge_methods_supported": ["plain"] }), "PKCE"),
    ] {
        let served = change.clone();
        let issuer = serve(move |issuer, path, _| match path {
            DISCOVERY => (200, discovery(issuer, served.clone())),
            _ => panic!("{path} was asked for"),
        });
        let ran = desk(&issuer).run(&["login"]);
        assert_eq!(ran.code, 78, "{change}: {}", ran.err);
        assert!(ran.err.contains(words), "{change}: {}", ran.err);
    }
}

#[test]
fn answers_that_are_none_are_told_and_redirects_not_followed() {
    for (status, body, code) in
        [(302, "", 78), (404, "<html>", 78), (200, "<html>", 78), (200, "[]", 78), (503, "", 69), (500, "{}", 69)]
    {
        let issuer = serve(move |_, _, _| (status, body.to_owned()));
        let ran = desk(&issuer).run(&["login"]);
        assert_eq!(ran.code, code, "{status} {body}: {}", ran.err);
        assert!(ran.err.contains(&issuer) && !ran.err.contains("<html>"), "{}", ran.err);
    }
    let issuer = serve(|_, _, _| (200, "x".repeat(3 << 20)));
    assert_eq!(desk(&issuer).run(&["login"]).code, 69, "more than anybody needs");
}

#[test]
fn a_page_that_is_not_https_is_shown_to_nobody() {
    for page in ["http://idp.example/device", "https://idp.example/\u{1b}[2Jdevice", "file:///etc/passwd"] {
        let issuer = serve(move |issuer, path, _| match path {
            DISCOVERY => (200, discovery(issuer, json!({}))),
            _ => (200, json!({ "device_code": "d", "user_code": "U", "verification_uri": page }).to_string()),
        });
        let ran = desk(&issuer).run(&["login", "--device"]);
        assert_eq!(ran.code, 1, "{page}: {}", ran.err);
        assert!(ran.err.contains("expected an https page") && !ran.err.contains('\u{1b}'), "{}", ran.err);
    }
}

#[test]
fn slow_down_goes_on_and_a_token_that_names_nobody_is_kept() {
    let issuer = serve(|issuer, path, before| match (path, before) {
        (DISCOVERY, _) => (200, discovery(issuer, json!({}))),
        ("/device", _) => {
            let page = format!("{issuer}/page");
            let answer = json!({ "device_code": "d", "user_code": "U-1", "verification_uri": page, "interval": 1, "expires_in": 60 });
            (200, answer.to_string())
        }
        ("/token", 0) => (503, String::new()),
        ("/token", 1) => (400, json!({ "error": "slow_down" }).to_string()),
        ("/token", 2) => {
            (200, json!({ "access_token": "opaque", "token_type": "bearer", "expires_in": "600" }).to_string())
        }
        _ => (404, String::new()),
    });
    let desk = desk(&issuer);
    let ran = desk.run(&["login", "--device"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("a token that names nobody") && ran.err.contains("no refresh token"), "{}", ran.err);
    assert_eq!(desk.run(&["token"]).ok(), "opaque");
    desk.expire();
    let ran = desk.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("none to renew it with"), "{}", ran.err);
}

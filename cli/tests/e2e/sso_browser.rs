//! Logging in with a real browser. Pictures of every page are left in `target/screenshots`.

use serde_json::json;

use crate::support::chromium::Visit;
use crate::support::desk::Desk;
use crate::support::fixtures::{DATABASE, WRITER};
use crate::support::gprxy::Config;
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::{AUDIENCE, CANAILLE_PASSWORD, Provider};
use crate::support::reaper::free_port;
use crate::support::tls::pki;

/// A part of the address of the login page, as the provider gets it.
fn parameter(url: &str, name: &str) -> String {
    let (_, rest) = url.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {url}"));
    rest.split('&').next().unwrap_or_default().replace("%3A", ":").replace("%2F", "/")
}

#[test]
fn a_person_logs_in_consents_and_is_told_what_to_do_next() {
    let desk = Desk::new(Provider::shared()).with("PROXY_URL", "gprxy.example.com");
    let login = desk.start(&["login"]);
    let seen = Visit::new("success", &login.opened(), "alice").trying_doors().go();
    let ran = login.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(desk.credentials()["user_info"]["email"], "alice@corp.example");
    seen.assert_sound(200);
    assert_eq!(seen.page["steps"], 2, "the login page and the consent page");
    assert_eq!(seen.page["title"], "Logged in · gprxy");
    for words in ["Logged in", "alice@corp.example", "close this tab", "gprxy psql -d DATABASE"] {
        assert!(seen.text().contains(words), "{words}: {}", seen.text());
    }
    let shut = json!({ "/favicon.ico": 404, "/": 404, "/callback/": 404, "/callback.html": 404 });
    assert_eq!(seen.page["doors"], shut);
}

#[test]
fn a_person_who_refuses_is_told_that_nothing_happened() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let seen = Visit::new("refused", &login.opened(), "alice").refusing().go();
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("access_denied"), "{}", ran.err);
    seen.assert_sound(400);
    for words in ["Not logged in", "access_denied", "gprxy login", "close this tab"] {
        assert!(seen.text().contains(words), "{words}: {}", seen.text());
    }
    assert!(desk.files().is_empty());
}

#[test]
fn markup_in_a_providers_words_is_text_in_the_browser() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let url = login.opened();
    let (callback, state) = (parameter(&url, "redirect_uri"), parameter(&url, "state"));
    let evil = "%3C%2Fp%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%3Cscript%3Ealert(2)%3C%2Fscript%3E%3Ca%20href%3D%22\
                https%3A%2F%2Fevil.example%22%3Eclick%3C%2Fa%3E";
    let url = format!("{callback}?error=server_error&error_description={evil}&state={state}");
    let seen = Visit::new("markup", &url, "alice").go();
    assert_eq!(login.end().code, 1);
    seen.assert_sound(400);
    assert!(seen.text().contains("<script>alert(2)</script>"), "{}", seen.text());
}

#[test]
fn an_answer_of_another_login_is_told_apart_and_the_right_one_still_counts() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let url = login.opened();
    let stale = format!("{}?code=old&state=of-an-older-tab", parameter(&url, "redirect_uri"));
    let seen = Visit::new("stranger", &stale, "alice").go();
    seen.assert_sound(400);
    assert!(seen.text().contains("Not this login") && seen.text().contains("gprxy login"), "{}", seen.text());
    desk.browse(url, "alice");
    assert_eq!(login.end().code, 0);
}

#[test]
fn canaille_lets_people_in_with_groups_for_roles() {
    let callback = format!("http://127.0.0.1:{}/callback", free_port());
    let provider: &Provider = Box::leak(Box::new(Provider::canaille(&callback)));
    let config = Config::with(Cluster::shared(Version::V15), provider);
    let gprxy = config.issuer_setting("roles_claims", vec!["groups"]).start();
    let desk = Desk::new(provider)
        .with("CALLBACK_URL", &callback)
        .with("AUDIENCE", AUDIENCE)
        .with("PROXY_URL", &format!("localhost:{}", gprxy.port()))
        .with("PROXY_CA", pki().ca.to_str().unwrap());
    // It says what it knows, so that nothing has to be set.
    let desk = ["GPRXY_SCOPES", "GPRXY_RESOURCE", "GPRXY_PROMPT"].into_iter().fold(desk, Desk::without);

    let login = desk.start(&["login"]);
    let seen = Visit::new("canaille", &login.opened(), "bob").with_password(CANAILLE_PASSWORD).go();
    let ran = login.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    seen.assert_sound(200);
    assert!(ran.err.contains("Bob Example <bob@corp.example> (roles: "), "{}", ran.err);
    let roles = &desk.credentials()["user_info"]["roles"];
    assert!(*roles == json!(["staff", "writer"]) || *roles == json!(["writer", "staff"]), "{roles}");

    assert_eq!(desk.run(&["psql", "-d", DATABASE, "-XAtc", "select session_user"]).ok(), WRITER.0);
    let kept = desk.credentials();
    desk.expire();
    desk.run(&["token"]).ok();
    assert_ne!(desk.credentials()["access_token"], kept["access_token"]);
    // It revokes for clients with a secret only, and gprxy is none.
    let ran = desk.run(&["logout"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!desk.credentials_path().exists());
}

#[test]
fn canaille_is_refused_too() {
    let callback = format!("http://127.0.0.1:{}/callback", free_port());
    let provider: &Provider = Box::leak(Box::new(Provider::canaille(&callback)));
    let desk = Desk::new(provider).with("CALLBACK_URL", &callback).without("GPRXY_SCOPES").without("GPRXY_RESOURCE");
    let login = desk.start(&["login"]);
    let visit = Visit::new("canaille-refused", &login.opened(), "alice").with_password(CANAILLE_PASSWORD).refusing();
    let seen = visit.go();
    seen.assert_sound(400);
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("access_denied"), "{}", ran.err);
}

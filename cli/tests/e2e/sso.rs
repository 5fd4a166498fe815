//! Logging in and out: every flow of the provider, its refusals, and what strangers try at the callback.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::desk::{Desk, visit};
use crate::support::eventually;
use crate::support::provider::{AUDIENCE, Provider};
use crate::support::reaper::free_port;
use crate::support::sign_in::Browser;

pub(crate) fn own_provider() -> &'static Provider {
    Box::leak(Box::new(Provider::start()))
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// Where the login page is told to come back to.
fn callback_of(url: &str) -> String {
    let (_, rest) = url.split_once("redirect_uri=").expect("a redirect URI");
    rest.split('&').next().unwrap_or_default().replace("%3A", ":").replace("%2F", "/")
}

#[test]
fn a_login_in_the_browser_leaves_the_file_of_the_first_gprxy() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let page = desk.browse(login.opened(), "alice");
    assert!(page.contains("Logged in") && page.contains("alice@corp.example"), "{page}");
    let ran = login.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Logged in as alice@corp.example (roles: reader)"), "{}", ran.err);
    assert_eq!(ran.out, "", "standard output is for scripts");

    let kept = desk.credentials();
    assert_eq!(claims(kept["access_token"].as_str().unwrap())["aud"], AUDIENCE);
    assert_eq!(claims(kept["id_token"].as_str().unwrap())["aud"], "gprxy-cli");
    assert!(!kept["refresh_token"].as_str().unwrap().is_empty());
    assert_eq!(kept["user_info"]["email"], "alice@corp.example");
    assert_eq!(kept["user_info"]["roles"], json!(["reader"]));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(desk.credentials_path()), 0o600);
    assert_eq!(mode(desk.home.join(".gprxy")), 0o700);
    for token in ["access_token", "refresh_token", "id_token"] {
        let token = kept[token].as_str().unwrap();
        assert!(!ran.err.contains(token) && !page.contains(token), "a token is shown");
    }
}

#[test]
fn logged_in_already_is_said_and_forced_anew() {
    let desk = Desk::new(Provider::shared());
    desk.log_in("alice");
    let again = desk.run(&["login"]);
    assert_eq!(again.code, 0);
    assert!(again.err.contains("Already logged in as alice@corp.example"), "{}", again.err);
    desk.log_in("bob");
    assert_eq!(desk.credentials()["user_info"]["email"], "bob@corp.example");
}

#[test]
fn without_a_browser_the_url_is_printed_on_a_line_of_its_own() {
    let desk = Desk::new(Provider::shared());
    let mut login = desk.start(&["login", "--no-browser", "--json"]);
    let url = login.line("http");
    desk.browse(url, "bob");
    let ran = login.end();
    let json: Value = serde_json::from_str(&ran.out).expect("JSON and nothing else");
    assert_eq!((&json["logged_in"], &json["user"]["email"]), (&Value::Bool(true), &"bob@corp.example".into()));
    assert!(json.get("access_token").is_none());
}

#[test]
fn a_refusal_of_the_person_ends_the_login_with_its_reason() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let callback = Browser::new(&desk.provider.issuer, "alice").refusing().walk(login.opened());
    let (status, page) = visit(&callback);
    assert_eq!(status, 400);
    assert!(page.contains("Not logged in") && page.contains("access_denied"), "{page}");
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("access_denied") && ran.err.contains("given up in the browser"), "{}", ran.err);
    assert!(desk.files().is_empty(), "{:?}", desk.files());
}

#[test]
fn errors_of_the_token_endpoint_end_the_login_with_their_reason() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    for (answer, code, words) in [
        ("invalid_grant", 1, "invalid_grant (as a test <b>wants</b>)"),
        ("invalid_client", 1, "check client_id"),
        ("503", 69, "HTTP status 503"),
    ] {
        provider.set_token_answer(answer);
        let login = desk.start(&["login"]);
        let page = desk.browse(login.opened(), "alice");
        let ran = login.end();
        assert_eq!(ran.code, code, "{answer}: {}", ran.err);
        assert!(ran.err.contains(words), "{answer}: {}", ran.err);
        assert!(page.contains("Not logged in") && !page.contains("<b>wants"), "{answer}: {page}");
        assert!(desk.files().is_empty(), "{answer}: {:?}", desk.files());
    }
}

#[test]
fn id_tokens_that_are_not_to_be_trusted_end_the_login_and_nothing_is_kept() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    for (change, words) in [
        (json!({ "claims": { "nonce": "of-another-login" } }), "nonce"),
        (json!({ "claims": { "nonce": null } }), "nonce"),
        (json!({ "claims": { "aud": "somebody-else" } }), "audience"),
        (json!({ "claims": { "aud": ["gprxy-cli", "other"] } }), "azp"),
        (json!({ "claims": { "azp": "other" } }), "azp"),
        (json!({ "claims": { "iss": "https://evil.example" } }), "issuer"),
        (json!({ "claims": { "exp": 1_000_000_000 } }), "expired"),
        (json!({ "claims": { "sub": null } }), "sub"),
        (json!({ "claims": { "iat": 99_999_999_999_u64 } }), "not valid yet"),
        (json!({ "forge": true }), "signature"),
        (json!({ "header": { "kid": "unknown" } }), "key"),
    ] {
        provider.set_id_change(change.clone());
        let login = desk.start(&["login"]);
        let page = desk.browse(login.opened(), "alice");
        let ran = login.end();
        assert_eq!(ran.code, 1, "{change}: {}", ran.err);
        assert!(ran.err.contains("not to be trusted") && ran.err.contains(words), "{change}: {}", ran.err);
        assert!(page.contains("Not logged in"), "{change}: {page}");
        assert!(desk.files().is_empty(), "{change}: {:?}", desk.files());
    }
    provider.set_id_change(json!({}));
    desk.log_in("alice");
    // A renewal with somebody else's ID token.
    let kept = desk.credentials();
    provider.set_id_change(json!({ "claims": { "sub": "bob", "email": "bob@corp.example" } }));
    desk.expire();
    let ran = desk.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("another person"), "{}", ran.err);
    assert_eq!(desk.credentials()["access_token"], kept["access_token"]);
}

#[test]
fn a_provider_that_is_away_or_another_is_told() {
    let desk = Desk::new(Provider::shared());
    let nobody = desk.with("GPRXY_ISSUER", &format!("http://127.0.0.1:{}", free_port()));
    let ran = nobody.run(&["login"]);
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("cannot be reached"), "{}", ran.err);
    let slash = Desk::new(Provider::shared());
    let issuer = format!("{}/", slash.provider.issuer);
    let ran = slash.with("GPRXY_ISSUER", &issuer).run(&["login"]);
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("set issuer to exactly that"), "{}", ran.err);
    let clear = Desk::new(Provider::shared()).with("GPRXY_ISSUER", "http://idp.example");
    assert_eq!(clear.run(&["login"]).code, 78, "in clear");
    let unset = Desk::new(Provider::shared()).without("GPRXY_ISSUER");
    let ran = unset.run(&["login"]);
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("GPRXY_ISSUER"), "{}", ran.err);
}

#[test]
fn strangers_at_the_callback_neither_end_the_login_nor_get_an_answer() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    let url = login.opened();
    let callback = callback_of(&url);
    let root = callback.trim_end_matches("/callback");
    for path in ["/", "/favicon.ico", "/callback/x", "/CALLBACK", "/callback%2f"] {
        assert_eq!(visit(&format!("{root}{path}")).0, 404, "{path}");
    }
    for query in ["", "?code=stolen", "?code=stolen&state=guessed", "?state=guessed&error=access_denied"] {
        let (status, page) = visit(&format!("{callback}{query}"));
        assert_eq!(status, 400, "{query}");
        assert!(page.contains("Not this login"), "{query}: {page}");
    }
    let page = desk.browse(url, "alice");
    assert!(page.contains("Logged in"), "{page}");
    assert_eq!(login.end().code, 0);
}

#[test]
fn the_callback_listens_on_this_machine_only() {
    let port = free_port();
    let desk = Desk::new(Provider::shared()).with("CALLBACK_URL", &format!("http://localhost:{port}/callback"));
    let login = desk.start(&["login"]);
    let url = login.opened();
    let listening = |table: &str| -> Vec<String> {
        let text = fs::read_to_string(table).unwrap_or_default();
        let mine = format!(":{port:04X}");
        // Local address, and state 0A: LISTEN (proc_net_tcp(5)).
        let rows = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(3) == Some(&"0A") && fields[1].ends_with(&mine)).then(|| fields[1].to_owned())
        });
        rows.collect()
    };
    assert_eq!(listening("/proc/net/tcp"), [format!("0100007F:{port:04X}")]);
    for address in listening("/proc/net/tcp6") {
        assert_eq!(address, format!("00000000000000000000000001000000:{port:04X}"));
    }
    desk.browse(url, "alice");
    assert_eq!(login.end().code, 0);
    let open = Desk::new(Provider::shared()).with("CALLBACK_URL", "http://0.0.0.0:8085/callback");
    assert_eq!(open.run(&["login"]).code, 78);
}

#[test]
fn a_chosen_port_that_is_taken_is_told() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let callback = format!("http://127.0.0.1:{}/callback", taken.local_addr().unwrap().port());
    let ran = Desk::new(Provider::shared()).with("CALLBACK_URL", &callback).run(&["login"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&callback) && ran.err.contains("--device"), "{}", ran.err);
}

#[test]
fn the_usual_port_gives_way_to_a_free_one_where_the_provider_takes_any() {
    let _taken = eventually("the usual port", || TcpListener::bind(("127.0.0.1", 8085)).ok());
    let desk = Desk::new(Provider::shared()).without("CALLBACK_URL");
    let login = desk.start(&["login"]);
    let url = login.opened();
    let callback = callback_of(&url);
    assert!(callback.starts_with("http://localhost:") && !callback.contains(":8085/"), "{callback}");
    // A resolver may prefer either loopback address; both are listened at.
    desk.browse(url, "alice");
    assert_eq!(login.end().code, 0);
    let ran = desk.with("GPRXY_CLIENT_ID", "unknown-to-the-provider").run(&["login", "--force"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the provider takes no other"), "{}", ran.err);
}

#[test]
fn nobody_who_comes_is_waited_for_only_so_long() {
    let desk = Desk::new(Provider::shared());
    let ran = desk.run(&["login", "--timeout", "1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("nobody logged in"), "{}", ran.err);
}

#[test]
fn a_login_by_device_waits_for_its_code_and_handles_a_missing_interval() {
    let desk = Desk::new(Provider::shared()).without("BROWSER").with("SSH_CONNECTION", "a b c d");
    // Chosen by itself over SSH. The provider names no interval: five seconds (RFC 8628 section 3.2).
    let mut login = desk.start(&["login"]);
    let page = login.line("http");
    login.line("and enter the code");
    login.line("");
    let code = login.line("");
    let done = Browser::new(&desk.provider.issuer, "bob").with_user_code(&code).walk(page);
    assert!(done.contains("Sign-in Success"), "{done}");
    let ran = login.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(desk.credentials()["user_info"]["email"], "bob@corp.example");
    assert_eq!(desk.credentials()["grant"], "device_code");
}

#[test]
fn a_refused_code_ends_the_login_by_device() {
    let desk = Desk::new(Provider::shared());
    let mut login = desk.start(&["login", "--device"]);
    let page = login.line("http");
    login.line("and enter the code");
    login.line("");
    let code = login.line("");
    Browser::new(&desk.provider.issuer, "bob").with_user_code(&code).refusing().walk(page);
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("access_denied"), "{}", ran.err);
}

#[test]
fn a_machine_logs_in_with_its_secret_and_renews_with_it() {
    let desk = Desk::new(Provider::shared())
        .with("GPRXY_CLIENT_ID", "nightly-batch")
        .with("GPRXY_SCOPES", "sql")
        .with("GPRXY_CLIENT_SECRET", "nightly-batch-secret-for-tests");
    let ran = desk.run(&["login", "--client-credentials"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Logged in as nightly-batch (roles: reader)"), "{}", ran.err);
    desk.expire();
    let token = desk.run(&["token"]).ok();
    assert_eq!(claims(&token)["sub"], "nightly-batch");
    let without = desk.without("GPRXY_CLIENT_SECRET");
    assert_eq!(without.run(&["login", "--client-credentials", "--force"]).code, 78);
    let wrong = without.with("GPRXY_CLIENT_SECRET", "hunter2");
    let ran = wrong.run(&["login", "--client-credentials", "--force"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("invalid_client") && !ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn a_logout_revokes_and_deletes() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let kept = desk.credentials();
    let ran = desk.run(&["logout"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("has revoked the refresh token"), "{}", ran.err);
    assert!(!desk.credentials_path().exists());
    assert_eq!(desk.run(&["token"]).code, 1);
    assert_eq!(desk.run(&["status"]).code, 1);
    assert!(desk.run(&["logout"]).err.contains("Not logged in"));
    // The provider takes the refresh token no more.
    crate::support::reaper::write_private(&desk.credentials_path(), &kept.to_string());
    desk.expire();
    let ran = desk.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("invalid_grant") && ran.err.contains("gprxy login"), "{}", ran.err);
}

#[test]
fn a_wrong_clock_is_told_and_minutes_do_no_harm() {
    for (ahead, direction) in [(300, "behind"), (-300, "ahead of")] {
        let provider: &'static Provider = Box::leak(Box::new(Provider::with_clock_ahead(ahead)));
        let desk = Desk::new(provider);
        let login = desk.start(&["login"]);
        let page = desk.browse(login.opened(), "alice");
        let ran = login.end();
        assert_eq!(ran.code, 0, "{}\n{page}", ran.err);
        assert!(ran.err.contains(&format!("5 minutes {direction} the provider's")), "{}", ran.err);
        let left = desk.run(&["token", "--json"]).ok();
        let left: Value = serde_json::from_str(&left).unwrap();
        let left = left["expires_in"].as_u64().unwrap();
        assert!((3400..=3600).contains(&left), "the lifetime counts, not the clock: {left}");
    }
    let provider: &'static Provider = Box::leak(Box::new(Provider::with_clock_ahead(7200)));
    let desk = Desk::new(provider);
    let login = desk.start(&["login"]);
    desk.browse(login.opened(), "alice");
    let ran = login.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("120 minutes behind"), "{}", ran.err);
    assert!(desk.files().is_empty(), "{:?}", desk.files());
}

#[test]
fn ctrl_c_while_a_person_is_waited_for_ends_at_once_and_leaves_nothing() {
    let desk = Desk::new(Provider::shared());
    let login = desk.start(&["login"]);
    login.opened();
    login.child.signal("INT");
    let ran = login.end();
    assert_eq!(ran.code, 130, "{}", ran.err);
    let mut login = desk.start(&["login", "--device"]);
    login.line("and enter the code");
    login.child.signal("INT");
    assert_eq!(login.end().code, 130);
    assert!(desk.files().is_empty(), "{:?}", desk.files());
}

#[test]
fn ctrl_c_while_the_code_is_exchanged_keeps_the_old_login() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let before = desk.credentials();
    let asked = provider.token_requests();
    provider.set_token_answer("hold");
    let login = desk.start(&["login", "--force"]);
    let callback = Browser::new(&provider.issuer, "bob").walk(login.opened());
    // The page only comes with the end of the exchange.
    let visitor = std::thread::spawn(move || crate::support::sign_in::agent().get(callback).call().is_ok());
    eventually("the exchange", || (provider.token_requests() > asked).then_some(()));
    login.child.signal("INT");
    assert_eq!(login.end().code, 130);
    let _ = visitor.join();
    assert_eq!(desk.credentials(), before);
    provider.set_token_answer("well");
}

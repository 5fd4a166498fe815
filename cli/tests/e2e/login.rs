//! Who gets in, as whom, and what the others are told.

use serde_json::{Value, json};

use crate::support::fixtures::{DIRECT, READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::{EDDSA, ELSEWHERE, ES256, Provider};
use crate::support::psql;
use crate::support::target::Target;
use crate::support::wire::{Complaint, SSL_REQUEST, V3_0, Wire, startup};

/// The refusal of a login over TLS.
#[track_caller]
fn refusal(target: &Target) -> Complaint {
    Wire::login(target).err().expect("the login is refused")
}

#[track_caller]
fn session_user(target: &Target) -> String {
    Wire::login(target).unwrap_or_else(|error| panic!("{error:?}")).value("select session_user")
}

fn proxy() -> Gprxy {
    Config::new(Version::V15).start()
}

fn mapped_accounts_run_the_queries(version: Version) {
    let gprxy = Config::new(version).start();
    for (person, (account, _)) in [("alice", READER), ("bob", WRITER)] {
        let users = psql::run(&gprxy.target(person), &["select session_user, current_user"]).ok();
        assert_eq!(users, format!("{account}|{account}"), "{person} over verify-full TLS");
    }
    let write = "insert into notes values (-1, 'x')";
    let refused = psql::run(&gprxy.target("alice"), &[write]).failed();
    assert!(refused.contains("42501"), "PostgreSQL itself refuses the reader: {refused}");
    let rolled_back = psql::run(&gprxy.target("bob"), &["begin", write, "rollback"]);
    assert_eq!(rolled_back.ok(), "");
}

#[test]
fn never_again_01_every_query_runs_as_the_mapped_account_on_15() {
    mapped_accounts_run_the_queries(Version::V15);
}

#[test]
fn never_again_01_every_query_runs_as_the_mapped_account_on_18() {
    mapped_accounts_run_the_queries(Version::V18);
}

#[test]
fn the_startup_user_may_be_the_identity_or_something_it_maps_to() {
    let gprxy = proxy();
    for user in ["alice@corp.example", "reader", READER.0] {
        assert_eq!(session_user(&gprxy.target("alice").with_user(user)), READER.0, "as {user}");
    }
    for user in ["bob@corp.example", "writer", WRITER.0, "postgres", "ceo@corp.example", "ALICE"] {
        let error = refusal(&gprxy.target("alice").with_user(user));
        assert_eq!(error.code, "28000", "as {user}: {error:?}");
    }
}

#[test]
fn one_person_with_two_roles_chooses_by_the_startup_user() {
    let gprxy = proxy();
    let token = Provider::shared().mint(json!({ "roles": ["writer", "reader"] }));
    let target = gprxy.target("alice").with_password(&token);
    assert_eq!(session_user(&target), READER.0, "the configured priority decides, not the order in the token");
    assert_eq!(session_user(&target.clone().with_user("writer")), WRITER.0);
    assert_eq!(session_user(&target.with_user(WRITER.0)), WRITER.0);
}

#[test]
fn tokens_of_every_signature_algorithm_and_size_get_in() {
    let gprxy = proxy();
    let provider = Provider::shared();
    for resource in [ES256, EDDSA] {
        let target = gprxy.target("alice").with_password(&provider.token_for("alice", resource));
        assert_eq!(session_user(&target), READER.0, "{resource}");
    }
    // Some 17 KB: a person in 400 groups.
    assert_eq!(psql::run(&gprxy.target("grace"), &["select session_user"]).ok(), READER.0);
}

#[test]
fn shapes_of_claims_that_providers_really_send() {
    let gprxy = proxy();
    for (claims, why) in [
        (json!({ "aud": ["other", "gprxy-test"] }), "an array of audiences"),
        (json!({ "roles": "reader" }), "one role as a string"),
        (json!({ "roles": [" Reader "] }), "white space and case"),
        (json!({ "roles": null, "role": "reader" }), "the other roles claim"),
        (json!({ "email_verified": null }), "nothing said about the e-mail"),
    ] {
        let target = gprxy.target("alice").with_password(&Provider::shared().mint(claims));
        assert_eq!(session_user(&target), READER.0, "{why}");
    }
}

#[test]
fn tokens_that_are_not_for_us_or_not_now_are_28p01() {
    let gprxy = proxy();
    let provider = Provider::shared();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (claims, why) in [
        (json!({ "exp": now - 3600 }), "expired"),
        (json!({ "exp": null }), "without expiry"),
        (json!({ "nbf": now + 3600 }), "not yet valid"),
        (json!({ "aud": "somebody-else" }), "another audience"),
        (json!({ "aud": ["a", "b"] }), "other audiences"),
        (json!({ "iss": "https://evil.example/" }), "another issuer"),
        (json!({ "iss": format!("{}/", provider.issuer) }), "almost the issuer"),
        (json!({ "exp": "tomorrow" }), "an expiry of the wrong type"),
        (json!({ "email": 5 }), "an identity of the wrong type"),
        (json!({ "roles": { "reader": true } }), "roles of the wrong type"),
    ] {
        let error = refusal(&gprxy.target("alice").with_password(&provider.mint(claims)));
        assert_eq!(error.code, "28P01", "{why}: {error:?}");
    }
    let elsewhere = provider.token_for("alice", ELSEWHERE);
    assert_eq!(refusal(&gprxy.target("alice").with_password(&elsewhere)).code, "28P01");
}

/// A token put together by hand, without a signature or with this one.
fn forged(header: Value, signature: &[u8]) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let token = Provider::shared().mint(json!({}));
    let claims = token.split('.').nth(1).expect("claims");
    format!("{}.{claims}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn forged_tokens_are_28p01() {
    let gprxy = proxy();
    let genuine = Provider::shared().mint(json!({}));
    let other_body = Provider::shared().mint(json!({ "roles": ["writer"] }));
    let parts: Vec<&str> = genuine.split('.').collect();
    let swapped = format!("{}.{}.{}", parts[0], other_body.split('.').nth(1).unwrap(), parts[2]);
    for (token, why) in [
        (forged(json!({ "alg": "none", "typ": "JWT" }), b""), "alg none"),
        (forged(json!({ "alg": "HS256", "typ": "JWT" }), &[7; 32]), "a shared-secret algorithm"),
        (forged(json!({ "alg": "RS256", "kid": "never-seen" }), &[7; 256]), "an unknown key"),
        (swapped, "claims of another token"),
        (format!("{}.{}.", parts[0], parts[1]), "no signature"),
        ("eyJ.eyJ.eyJ".to_owned(), "nothing in it"),
    ] {
        let error = refusal(&gprxy.target("alice").with_password(&token));
        assert_eq!(error.code, "28P01", "{why}: {error:?}");
    }
}

#[test]
fn an_unverified_email_is_no_identity() {
    let gprxy = proxy();
    let token = Provider::shared().mint(json!({ "email_verified": false }));
    let error = refusal(&gprxy.target("alice").with_password(&token));
    assert!(error.code.starts_with("28"), "{error:?}");
}

#[test]
fn a_person_without_a_mapped_role_is_told_so() {
    let gprxy = proxy();
    let error = refusal(&gprxy.target("carol"));
    assert_eq!(error.code, "28000", "{error:?}");
    assert!(error.message.contains("role"), "{error:?}");
}

#[test]
fn plaintext_is_allowed_from_this_machine_by_default() {
    let gprxy = proxy();
    assert_eq!(session_user(&gprxy.target("alice").in_plaintext()), READER.0);
}

#[test]
fn never_again_12_no_secret_is_asked_for_in_clear_when_that_is_forbidden() {
    let gprxy = Config::new(Version::V15).allow_plaintext("never").start();
    let target = gprxy.target("alice");
    let mut wire = Wire::open(&target.clone().in_plaintext());
    wire.send(&startup(V3_0, &[("user", &target.user), ("database", &target.database)]));
    let first = wire.read().expect("an answer");
    assert_eq!(first.tag, 'E', "an error instead of a password request");
    let complaint = first.complaint();
    assert_eq!(complaint.code, "28000", "{complaint:?}");
    assert!(complaint.message.contains("TLS") || complaint.message.contains("SSL"), "it says why: {complaint:?}");
    assert_eq!(wire.read(), None);
    assert_eq!(session_user(&target), READER.0, "TLS still works");
}

#[test]
fn without_a_certificate_an_ssl_request_is_answered_no() {
    let gprxy = Config::new(Version::V15).without_tls().start();
    let mut wire = Wire::open(&gprxy.target("alice"));
    wire.send(&SSL_REQUEST);
    assert_eq!(wire.read_byte(), Some(b'N'));
    let mut target = gprxy.target("alice");
    target.sslmode = "prefer";
    assert_eq!(psql::run(&target, &["select session_user"]).ok(), READER.0);
}

#[test]
fn psql_verifies_the_certificate_of_gprxy() {
    let gprxy = proxy();
    let mut target = gprxy.target("alice");
    target.root_ca.clone_from(&crate::support::tls::pki().stranger);
    let ran = psql::run(&target, &["select 1"]);
    assert!(ran.failed().contains("certificate verify failed"));
}

#[test]
fn a_password_that_is_no_token_is_checked_by_postgresql_and_runs_as_that_user() {
    for version in [Version::V15, Version::V18] {
        let gprxy = Config::new(version).password_fallback(true).start();
        let target = gprxy.target("alice").with_user(DIRECT.0).with_password(DIRECT.1);
        assert_eq!(psql::run(&target, &["select session_user, current_user"]).ok(), "direct_user|direct_user");
        assert!(psql::run(&target, &["insert into notes values (-1, 'x')"]).failed().contains("42501"));
        for wrong in ["wrong", "", "eyJ not quite a token"] {
            let error = refusal(&target.clone().with_password(wrong));
            assert_eq!(error.code, "28P01", "{wrong:?}: {error:?}");
        }
        let stranger = refusal(&target.clone().with_user("no_such_user"));
        assert_eq!(stranger.code, "28P01", "{stranger:?}");
    }
}

#[test]
fn the_password_fallback_can_be_switched_off() {
    let gprxy = Config::new(Version::V15).password_fallback(false).start();
    let error = refusal(&gprxy.target("alice").with_user(DIRECT.0).with_password(DIRECT.1));
    assert!(error.code.starts_with("28"), "{error:?}");
    assert!(error.message.contains("token"), "it says what is accepted: {error:?}");
}

#[test]
fn a_database_that_does_not_exist_is_3d000() {
    let gprxy = proxy();
    let error = refusal(&gprxy.target("alice").with_database("no_such_database"));
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "3D000"), "{error:?}");
}

#[test]
fn a_client_without_a_database_gets_the_one_named_like_its_startup_user() {
    // PostgreSQL's own rule (section 55.2.1): the database defaults to the user name.
    let gprxy = proxy();
    let target = gprxy.target("alice");
    let mut wire = Wire::open_tls(&target);
    wire.send(&startup(V3_0, &[("user", "alice@corp.example")]));
    let error = wire.finish_login(&target.password).expect_err("there is no such database");
    assert_eq!(error.code, "3D000", "{error:?}");
    assert!(error.message.contains("alice@corp.example"), "{error:?}");
}

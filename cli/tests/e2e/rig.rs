//! The rig itself, without gprxy: what the other tests take for granted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::fixtures::{CLEARTEXT, HOSTSSL, MD5, SCRAM, TRUST};
use crate::support::gprxy::{Config, runtime_under_test};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::{AUDIENCE, EDDSA, ELSEWHERE, ES256, Provider, RS256};
use crate::support::psql;
use crate::support::target::Target;

fn decode(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

#[test]
fn both_postgresql_versions_start_and_hold_the_fixtures() {
    for (version, number) in [(Version::V15, "15"), (Version::V18, "18")] {
        let server = Cluster::shared(version);
        assert_eq!(server.sql("select count(*) from notes"), "100");
        assert_eq!(server.sql("select current_setting('server_version_num')::int / 10000"), number);
    }
}

#[test]
fn every_account_is_asked_for_its_password_in_its_own_way() {
    for version in [Version::V15, Version::V18] {
        for (account, password) in [TRUST, CLEARTEXT, MD5, SCRAM, HOSTSSL] {
            let target = Target::direct(version).with_user(account).with_password(password);
            assert_eq!(psql::run(&target, &["select session_user"]).ok(), account);
            if account != TRUST.0 {
                let wrong = psql::run(&target.with_password("wrong"), &["select 1"]).failed();
                assert!(wrong.contains("password authentication failed"), "{account}: {wrong}");
            }
        }
        let plain = Target::direct(version).with_user(HOSTSSL.0).with_password(HOSTSSL.1).in_plaintext();
        let refused = psql::run(&plain, &["select 1"]).failed();
        assert!(refused.contains("pg_hba.conf rejects connection"), "{refused}");
    }
}

#[test]
fn a_person_signs_in_and_gets_a_token_of_each_algorithm() {
    let provider = Provider::shared();
    for (resource, alg) in [(RS256, "RS256"), (ES256, "ES256"), (EDDSA, "EdDSA")] {
        let token = provider.token_for("bob", resource);
        let (header, claims) = (decode(&token, 0), decode(&token, 1));
        assert_eq!(header["alg"], alg);
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["iss"], provider.issuer.as_str());
        assert_eq!(claims["email"], "bob@corp.example");
        assert_eq!(claims["roles"], json!(["writer"]));
    }
    assert_eq!(decode(&provider.token_for("bob", ELSEWHERE), 1)["aud"], "somebody-else");
    assert_eq!(decode(&provider.machine_token(RS256), 1)["sub"], "nightly-batch");
    assert!(provider.token("grace").len() > 8192, "a person in many groups has a long token");
}

#[test]
fn the_side_door_mints_rotates_and_breaks() {
    let provider = Provider::start();
    let token = provider.mint(json!({ "exp": 5, "email": null }));
    assert_eq!(decode(&token, 1)["exp"], 5);
    assert_eq!(decode(&token, 1).get("email"), None);
    let kid = decode(&token, 0)["kid"].clone();
    provider.rotate();
    assert_ne!(decode(&provider.mint(json!({})), 0)["kid"], kid);
    provider.rotate_and_drop();
    provider.set_jwks_down(true);
    assert_eq!(provider.jwks_requests(), 0);
}

#[test]
fn a_server_of_ones_own_can_be_restarted() {
    let server = Cluster::start(Version::V15);
    server.stop();
    server.resume();
    assert_eq!(server.sql("select 1"), "1");
}

#[test]
fn gprxy_runs_on_the_runtime_that_is_asked_for() {
    let gprxy = Config::new(Version::V15).start();
    let threads = format!("/proc/{}/task", gprxy.child.pid());
    let names = std::fs::read_dir(threads)
        .unwrap()
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    // The reactor of smol's has a thread of that name; tokio has nothing like it.
    let has_reactor = names.into_iter().any(|name| name.trim() == "async-io");
    let asked_for =
        runtime_under_test().unwrap_or_else(|| if cfg!(feature = "tokio") { "tokio" } else { "smol" }.into());
    assert_eq!(has_reactor, asked_for == "smol", "{asked_for} was asked for");
}

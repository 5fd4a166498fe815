//! Identity providers: several at once, keys at a URL of their own, outages, and the tokens that they really send.

use serde_json::json;

use crate::support::eventually;
use crate::support::fault::FaultProxy;
use crate::support::fixtures::{READER, WRITER};
use crate::support::gprxy::Config;
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::{Provider, RS256};
use crate::support::reaper::free_port;
use crate::support::target::Target;
use crate::support::wire::{Complaint, Wire};

fn session_user(target: &Target) -> String {
    Wire::login(target).unwrap_or_else(|error| panic!("{error:?}")).value("select session_user")
}

#[track_caller]
fn refusal(target: &Target) -> Complaint {
    Wire::login(target).err().expect("the login is refused")
}

fn own_provider() -> &'static Provider {
    Box::leak(Box::new(Provider::start()))
}

fn port_of(issuer: &str) -> u16 {
    issuer.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn two_issuers_at_once_and_neither_signs_for_the_other() {
    let (first, second) = (Provider::shared(), own_provider());
    let gprxy = Config::with(Cluster::shared(Version::V15), first).and_issuer(second).start();
    let target = gprxy.target("alice");
    for provider in [first, second] {
        let token = provider.mint(json!({}));
        assert_eq!(session_user(&target.clone().with_password(&token)), READER.0, "{}", provider.issuer);
        let line = eventually("a session of this issuer", || {
            gprxy.audit().into_iter().find(|line| line.issuer() == Some(&provider.issuer))
        });
        assert_eq!(line.user(), Some("alice@corp.example"));
    }
    // The name of one in a token signed by the other: the key belongs to its issuer alone.
    for (signer, named) in [(first, second), (second, first)] {
        let token = signer.mint(json!({ "iss": named.issuer }));
        assert_eq!(refusal(&target.clone().with_password(&token)).code, "28P01");
    }
    // One that is believed by another gprxy only.
    let only_first = Config::with(Cluster::shared(Version::V15), first).start();
    let token = second.mint(json!({}));
    assert_eq!(refusal(&only_first.target("alice").with_password(&token)).code, "28P01");
}

#[test]
fn keys_at_a_url_of_their_own_need_no_discovery() {
    let provider = own_provider();
    // An issuer whose name leads nowhere: only its keys can be fetched.
    let nowhere = format!("http://127.0.0.1:{}/tenant/", free_port());
    let gprxy = Config::with(Cluster::shared(Version::V15), provider)
        .issuer_setting("issuer", nowhere.as_str())
        .issuer_setting("jwks_url", format!("{}/jwks", provider.issuer))
        .start();
    let target = gprxy.target("alice");
    let token = provider.mint(json!({ "iss": nowhere }));
    assert_eq!(session_user(&target.clone().with_password(&token)), READER.0);
    assert_eq!(refusal(&target.with_password(&provider.mint(json!({})))).code, "28P01", "the issuer's name counts");
}

#[test]
fn a_provider_that_is_down_at_the_start_is_waited_for_without_a_restart() {
    let provider = own_provider();
    let door = free_port();
    let mut gprxy = Config::with(Cluster::shared(Version::V15), provider)
        .issuer_setting("jwks_url", format!("http://127.0.0.1:{door}/jwks"))
        .start();
    let target = gprxy.target("alice").with_password(&provider.mint(json!({})));
    let error = refusal(&target);
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"), "{error:?}");
    gprxy.assert_alive();

    let _back = FaultProxy::listen(door, port_of(&provider.issuer));
    let user = eventually("the provider's keys to be fetched", || {
        Wire::login(&target).ok().map(|mut wire| wire.value("select session_user"))
    });
    assert_eq!(user, READER.0);
}

#[test]
fn a_provider_that_goes_down_later_leaves_known_keys_in_use() {
    let provider = own_provider();
    let door = FaultProxy::before(port_of(&provider.issuer));
    let mut gprxy = Config::with(Cluster::shared(Version::V15), provider)
        .issuer_setting("jwks_url", format!("http://127.0.0.1:{}/jwks", door.port))
        .start();
    let target = gprxy.target("alice");
    let token = provider.mint(json!({}));
    assert_eq!(session_user(&target.clone().with_password(&token)), READER.0);
    for outage in ["refuses", "is silent"] {
        if outage == "refuses" {
            provider.set_jwks_down(true);
        } else {
            door.set_black_hole(true);
        }
        let made_up = provider.mint_with(json!({ "kid": format!("made-up-{outage}") }));
        let stuck = target.clone().with_password(&made_up);
        let waiting = std::thread::spawn(move || refusal(&stuck));
        assert_eq!(session_user(&target.clone().with_password(&token)), READER.0, "while the provider {outage}");
        assert_eq!(waiting.join().unwrap().code, "28P01", "an unknown key stays unknown while the provider {outage}");
    }
    gprxy.assert_alive();
}

#[test]
fn a_token_of_60_kilobytes_gets_in_and_one_of_more_than_64_is_told_why_not() {
    let gprxy = Config::new(Version::V15).start();
    let mint = |groups: usize| {
        let groups: Vec<String> = (0..groups).map(|number| format!("cn=department-{number:05},ou=groups")).collect();
        Provider::shared().mint(json!({ "groups": groups }))
    };
    let (long, too_long) = (mint(1400), mint(1600));
    assert!((60_000..65_536).contains(&long.len()) && too_long.len() > 65_536, "{} {}", long.len(), too_long.len());
    for target in [gprxy.target("alice"), gprxy.target("alice").in_plaintext()] {
        assert_eq!(session_user(&target.clone().with_password(&long)), READER.0);
        let error = refusal(&target.with_password(&too_long));
        assert_eq!(error.code, "28P01", "{error:?}");
        assert!(error.message.contains("65536"), "it says how much would have been right: {error:?}");
    }
}

#[test]
fn a_machine_has_no_email_and_is_known_by_its_subject_when_that_is_configured() {
    let machine = Provider::shared().machine_token(RS256);
    let gprxy =
        Config::new(Version::V15).issuer_setting("user_claims", vec!["email", "preferred_username", "sub"]).start();
    let target = gprxy.target("alice").with_user("nightly-batch").with_password(&machine);
    let mut wire = Wire::login(&target).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(wire.value("select session_user || ' audit-machine'"), format!("{} audit-machine", READER.0));
    let line = gprxy.await_audited("audit-machine");
    assert_eq!((line.user(), line.subject()), (Some("nightly-batch"), Some("nightly-batch")));
    // People are still known by the first claim.
    assert_eq!(session_user(&gprxy.target("alice")), READER.0);

    let strict = Config::new(Version::V15).start();
    let error = refusal(&strict.target("alice").with_user("nightly-batch").with_password(&machine));
    assert_eq!(error.code, "28P01", "without the fall-back a token without e-mail names nobody: {error:?}");
}

#[test]
fn an_email_that_was_not_verified_is_nobodys_name_also_with_a_claim_to_fall_back_on() {
    let gprxy = Config::new(Version::V15).issuer_setting("user_claims", vec!["email", "sub"]).start();
    let token = Provider::shared().mint(json!({ "email": "ceo@corp.example", "email_verified": false }));
    for user in ["ceo@corp.example", "alice", "reader"] {
        let error = refusal(&gprxy.target("alice").with_user(user).with_password(&token));
        assert!(error.code.starts_with("28"), "as {user}: {error:?}");
    }
}

#[test]
fn the_configured_priority_decides_between_roles_and_without_one_the_tokens_order_does() {
    let roles = |order: [&str; 2]| Provider::shared().mint(json!({ "roles": order }));
    for (reader, writer, order, account) in [
        (2, 1, ["writer", "reader"], READER.0),
        (1, 2, ["reader", "writer"], WRITER.0),
        (0, 0, ["reader", "writer"], READER.0),
        (0, 0, ["writer", "reader"], WRITER.0),
    ] {
        let gprxy = Config::new(Version::V15).role("reader", READER, reader).role("writer", WRITER, writer).start();
        let target = gprxy.target("alice").with_password(&roles(order));
        assert_eq!(session_user(&target), account, "{reader} {writer} {order:?}");
    }
}

//! The identity provider is away: who logs in goes on with the keys that are known, and is told when there are none.

use std::io::ErrorKind;
use std::time::Duration;

use gprxy_proto::testing::corp;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::wire::Message;
use gprxy_proto::testing::world::{Client, Setup, World, sleep};

use crate::isolation::setup;

/// How long a login may take in the worst weather, when nobody waits for anybody.
const PROMPT: Duration = Duration::from_secs(5);

/// Keys are refetched after this part of their hour (`KeySetLimits::default_refresh`, less a tenth).
const REFRESH: Duration = Duration::from_secs(54 * 60);
/// Keys that could not be refetched live so long on (`KeySetLimits::outage`).
const OUTAGE: Duration = Duration::from_secs(24 * 3600);
/// The longest pause between two tries (`KeySetLimits::max_retry`).
const RETRY: Duration = Duration::from_secs(300);

/// Somebody logs in, and leaves again: the SQLSTATE of the refusal, or nothing.
async fn visit(name: &str) -> String {
    let mut client = Client::dial(name);
    let begun = World::time().tick;
    let messages = client.log_in_with_token(name, &["reader"]).await.expect("an answer");
    let waited = World::time().tick.since(begun);
    assert!(waited < PROMPT, "{name} waited {waited:?}");
    let code = messages.last().map(Message::code).unwrap_or_default();
    if code.is_empty() {
        assert_eq!(client.query("rows 0 a").await.map(|answer| answer.len()), Ok(3));
        client.leave().await;
    }
    code
}

fn visits(world: &mut World, when: &str, expected: &'static str) {
    for n in 0..2 {
        let mut dice = world.dice.fork();
        let name = format!("{when} {n}");
        world.script(&name.clone(), async move {
            sleep(Duration::from_millis(dice.below(20_000))).await;
            assert_eq!(visit(&format!("c{n}")).await, expected, "{name}");
        });
    }
    world.run();
}

/// A way in which a provider does not help.
fn trouble(world: &mut World) -> Result<(u16, Vec<u8>), ErrorKind> {
    match world.dice.below(4) {
        0 => Err(ErrorKind::ConnectionRefused),
        1 => Err(ErrorKind::TimedOut),
        2 => Ok((503, b"later".to_vec())),
        _ => Ok((200, b"<html>maintenance</html>".to_vec())),
    }
}

#[test]
fn law_warm_keys_outlive_the_provider_as_long_as_they_may() {
    check("law_warm_keys", 500, |seed| {
        let mut world = World::with(seed, Setup { keys_known: false, ..setup(seed) });
        visits(&mut world, "before", "");
        let answer = trouble(&mut world);
        world.provider.set(answer);
        let asked = world.provider.requests();
        // An hour and a half in which the provider is away: everybody goes on.
        for n in 0..6 {
            world.advance(Duration::from_secs(900));
            visits(&mut world, &format!("after {n} quarters"), "");
        }
        let again = world.provider.requests() - asked;
        assert!((1..=30).contains(&again), "{again} requests in an hour and a half");
        // Beyond what the operator has allowed the keys are not trusted any more.
        world.advance(REFRESH + OUTAGE);
        visits(&mut world, "too late", "57P03");
        world.provider.set(Ok((200, corp::key_document())));
        world.advance(RETRY);
        visits(&mut world, "recovered", "");
        world.assert_quiet();
    });
}

#[test]
fn law_without_keys_everybody_is_told_at_once_and_served_later() {
    check("law_cold_keys", 1000, |seed| {
        let mut world = World::with(seed, Setup { keys_known: false, ..setup(seed) });
        let is_down = seed % 4 != 0;
        if is_down {
            let answer = trouble(&mut world);
            world.provider.set(answer);
        }
        visits(&mut world, "first", if is_down { "57P03" } else { "" });
        let requests = world.provider.requests();
        assert!((1..=4).contains(&requests), "{requests} requests for two clients");
        world.advance(Duration::from_secs(3600));
        visits(&mut world, "an hour later", if is_down { "57P03" } else { "" });
        world.provider.set(Ok((200, corp::key_document())));
        world.advance(RETRY);
        visits(&mut world, "recovered", "");
        world.assert_quiet();
    });
}

/// The provider has changed its key: whoever brings a token of the new one makes gprxy look, and is let in.
#[test]
fn law_a_new_key_is_fetched_when_somebody_brings_its_token() {
    check("law_new_key", 1000, |seed| {
        let mut world = World::with(seed, Setup { keys_known: false, ..setup(seed) });
        visits(&mut world, "before", "");
        let new = gprxy_proto::testing::tokens::TestKey::ed25519("corp-2");
        let documents = gprxy_proto::testing::tokens::key_set(&[&corp::signing_key(), &new]);
        world.provider.set(Ok((200, documents)));
        world.advance(Duration::from_secs(60));
        for n in 0..3 {
            let mut dice = world.dice.fork();
            let claims = gprxy_proto::testing::tokens::claims(
                corp::ISSUER,
                corp::AUDIENCE,
                &format!("c{n}"),
                world.now().unix.as_secs(),
            );
            let token = new.token(&claims);
            world.script(&format!("client {n}"), async move {
                sleep(Duration::from_millis(dice.below(10))).await;
                let mut client = Client::dial(&format!("c{n}"));
                let login = client.log_in(&format!("c{n}@corp.example"), &token, &[]).await.expect("an answer");
                assert_eq!(login.last().map(|last| last.tag), Some(b'Z'), "{login:?}");
                client.leave().await;
            });
        }
        world.run();
        assert_eq!(world.provider.requests(), 2, "the first fetch, and one for all of them");
        world.assert_quiet();
    });
}

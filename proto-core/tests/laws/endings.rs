//! How things end, and that they begin again: drains, servers that are away, providers that do not answer.

use std::io::ErrorKind;
use std::time::Duration;

use gprxy_proto::pool::PoolSettings;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::wire::{Message, front};
use gprxy_proto::testing::world::{Client, Door, Setup, World, sleep};

use crate::isolation::setup;

fn brief(messages: &[Message]) -> String {
    messages.iter().map(Message::brief).collect::<Vec<_>>().join(" ")
}

/// A query and its answer, or as much of it as comes. Whether the session goes on.
async fn answered(client: &mut Client, text: &str, all: &mut Vec<Message>) -> bool {
    if client.send(&front::query(text)).await.is_err() {
        return false;
    }
    while let Ok(message) = client.next().await {
        let is_over = message.tag == b'Z';
        all.push(message);
        if is_over {
            return true;
        }
    }
    false
}

#[test]
fn law_drain_ends_every_session_once_and_in_order() {
    check("law_drain", 2000, |seed| {
        let mut world = World::with(seed, setup(seed));
        world.postgres.set_think(Duration::from_millis(5));
        for n in 0..5 {
            let mut dice = world.dice.fork();
            world.script(&format!("client {n}"), async move {
                sleep(Duration::from_millis(dice.below(30))).await;
                let mut client = Client::dial(&format!("c{n}"));
                let kind = dice.below(4);
                let mut all = Vec::new();
                if kind == 0 {
                    // One that never says a word.
                    assert_eq!(client.rest().await, []);
                    return;
                }
                match client.log_in_with_token(&format!("c{n}"), &["reader"]).await {
                    Ok(messages) => all.extend(messages),
                    Err(_) => return,
                }
                if all.last().is_some_and(|last| last.tag == b'Z') {
                    let texts = ["begin", "rows 1 a", "sleep 40", "commit"];
                    // In one piece, or one by one, or left open.
                    let bytes: Vec<u8> = texts.iter().flat_map(|text| front::query(text)).collect();
                    if kind == 1 {
                        let _ = client.send(&bytes).await;
                    } else {
                        for text in texts {
                            if !answered(&mut client, text, &mut all).await {
                                break;
                            }
                        }
                    }
                }
                all.extend(client.rest().await);
                let words = brief(&all);
                assert!(!client.is_inside_message(), "{words}");
                let fatal = all.iter().filter(|message| message.severity() == "FATAL").count();
                assert_eq!(fatal, 1, "{words}");
                let last = all.last().unwrap();
                assert!(matches!(&*last.code(), "57P01" | "57P03"), "{words}");
                // A transaction that was begun is not cut off.
                if let Some(ready) = all.iter().rev().find(|message| message.tag == b'Z') {
                    assert_eq!(ready.body, b"I", "{words}");
                }
            });
        }
        let shared = world.shared().clone();
        let begin = world.dice.below(120);
        world.script("operator", async move {
            sleep(Duration::from_millis(begin)).await;
            shared.drain();
            shared.emptied().await;
        });
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_a_server_that_comes_back_serves_everybody() {
    check("law_comes_back", 2000, |seed| {
        let mut setup: Setup = setup(seed);
        setup.profile.databases = corp::databases(PoolSettings {
            default_pool_size: 2,
            server_login_retry: Duration::from_secs(1),
            query_wait_timeout: Duration::from_secs(20),
            ..PoolSettings::default()
        });
        let mut world = World::with(seed, setup);
        let door = *world.dice.pick(&[Door::Shut, Door::BlackHole]);
        world.set_door(door);
        for n in 0..4 {
            let mut dice = world.dice.fork();
            world.script(&format!("client {n}"), async move {
                sleep(Duration::from_millis(dice.below(5000))).await;
                let mut client = Client::dial(&format!("c{n}"));
                let messages = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                let last = messages.last().unwrap();
                // The reason, and not the next best one: connection refused, timeout, or waited too long behind them.
                assert!(matches!(&*last.code(), "08001" | "53300"), "{}", brief(&messages));
            });
        }
        world.run();
        world.set_door(Door::Open);
        world.advance(Duration::from_secs(2));
        for n in 0..4 {
            world.script(&format!("client {n} again"), async move {
                let mut client = Client::dial(&format!("c{n}"));
                let messages = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                assert_eq!(messages.last().unwrap().tag, b'Z', "{}", brief(&messages));
                client.leave().await;
            });
        }
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_a_backend_that_is_terminated_ends_its_client_only() {
    check("law_terminate", 2000, |seed| {
        let mut world = World::with(seed, setup(seed));
        for n in 0..3 {
            world.script(&format!("client {n}"), async move {
                let mut client = Client::dial(&format!("c{n}"));
                let login = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                if login.last().unwrap().tag == b'E' {
                    // Terminated in the very moment of its login, or told that somebody else was.
                    return assert_eq!(login.last().unwrap().code(), "08006", "{}", brief(&login));
                }
                // It sits there; the notice of its death comes without a question.
                let rest = client.rest().await;
                assert_eq!(brief(&rest), "E(FATAL 57P01)");
            });
        }
        let postgres = world.postgres.clone();
        world.script("operator", async move {
            for _ in 0..200 {
                sleep(Duration::from_millis(50)).await;
                if let Some(&pid) = postgres.backends().first() {
                    postgres.terminate(pid);
                }
                if postgres.logins() >= 3 && postgres.backends().is_empty() {
                    return;
                }
            }
        });
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_the_providers_keys_are_waited_for_and_its_absence_is_told() {
    check("law_provider", 2000, |seed| {
        let mut world = World::with(seed, Setup { keys_known: false, ..setup(seed) });
        let is_down = seed % 2 == 0;
        if is_down {
            world.provider.set(Err(ErrorKind::ConnectionRefused));
        }
        for n in 0..3 {
            world.script(&format!("client {n}"), async move {
                let mut client = Client::dial(&format!("c{n}"));
                let messages = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                let last = messages.last().unwrap();
                if is_down {
                    assert_eq!(last.severity(), "FATAL", "{}", brief(&messages));
                } else {
                    assert_eq!(last.tag, b'Z', "{}", brief(&messages));
                    client.leave().await;
                }
            });
        }
        world.run();
        let requests = world.provider.requests();
        assert!((1..=3).contains(&requests), "{requests} requests for three clients");
        world.provider.set(Ok((200, corp::key_document())));
        world.advance(Duration::from_secs(600));
        world.script("later", async {
            let mut client = Client::dial("later");
            let messages = client.log_in_with_token("later", &["reader"]).await.unwrap();
            assert_eq!(messages.last().unwrap().tag, b'Z', "{}", brief(&messages));
            client.leave().await;
        });
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_first_come_first_served() {
    check("law_queue", 1000, |seed| {
        let mut setup = setup(seed - seed % 3); // a pool of one
        setup.profile.limits.max_client_conn = 100;
        let mut world = World::with(seed, setup);
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        for n in 0..12u64 {
            let order = order.clone();
            world.script(&format!("client {n}"), async move {
                // Far enough apart that they arrive in this order in any weather.
                sleep(Duration::from_millis(500 * n)).await;
                let mut client = Client::dial(&format!("c{n}"));
                let messages = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                assert_eq!(messages.last().unwrap().tag, b'Z', "{}", brief(&messages));
                order.lock().unwrap().push(n);
                client.query("sleep 2000").await.unwrap();
                client.leave().await;
            });
        }
        world.run();
        assert_eq!(*order.lock().unwrap(), (0..12).collect::<Vec<_>>());
        world.assert_quiet();
    });
}

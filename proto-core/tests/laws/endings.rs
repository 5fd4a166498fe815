//! How things end, and that they begin again: drains, kills, servers that are away.

use std::time::Duration;

use gprxy_proto::policy::{Endpoint, SslMode};
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::wire::{Message, front};
use gprxy_proto::testing::world::{Client, Door, Setup, World, sleep};

use crate::isolation::setup;
use crate::visitor::{Book, Manners, Visitor, find};

fn brief(messages: &[Message]) -> String {
    messages.iter().map(Message::brief).collect::<Vec<_>>().join(" ")
}

/// A question and its answer, or as much of it as comes. Whether the session goes on.
async fn answered(client: &mut Client, question: &[u8], all: &mut Vec<Message>) -> bool {
    if client.send(question).await.is_err() {
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

/// A transaction, in simple or extended queries, that succeeds or fails.
fn questions(dice: &mut Dice) -> Vec<Vec<u8>> {
    let middle = *dice.pick(&["rows 1 b", "fail 22012 b"]);
    let extended = dice.percent(50);
    let texts = ["rows 1 a", "begin", middle, "sleep 40", "commit", "rows 1 c"];
    let question = |text: &str| {
        if extended {
            [front::parse("", text), front::bind("", ""), front::execute("", 0), front::sync()].concat()
        } else {
            front::query(text)
        }
    };
    texts.map(question).to_vec()
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
                    let questions = questions(&mut dice);
                    // In one piece, or one by one.
                    if kind == 1 {
                        let _ = client.send(&questions.concat()).await;
                    } else {
                        for question in questions {
                            if !answered(&mut client, &question, &mut all).await {
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
                // Neither an answer nor a transaction that was begun is cut off.
                if let Some(ready) = all.iter().rposition(|message| message.tag == b'Z') {
                    assert_eq!(all[ready].body, b"I", "{words}");
                    assert_eq!(ready + 2, all.len(), "{words}");
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

/// Whatever a client is in the middle of, a kill is told to it between two messages or not at all.
#[test]
fn law_kill_tears_no_message() {
    check("law_kill", 1000, |seed| {
        let mut world = World::with(seed, setup(seed));
        for n in 0..3 {
            let mut dice = world.dice.fork();
            world.script(&format!("client {n}"), async move {
                let mut client = Client::dial(&format!("c{n}"));
                let Ok(login) = client.log_in_with_token(&format!("c{n}"), &["reader"]).await else { return };
                let mut all = login;
                if all.last().is_some_and(|last| last.tag == b'Z') {
                    let text = *dice.pick(&["big 4000", "rows 20 row", "copy out 20 row", "sleep 3"]);
                    while answered(&mut client, &front::query(text), &mut all).await {}
                    all.extend(client.rest().await);
                }
                let words = brief(&all);
                let fatal = all.iter().filter(|message| message.severity() == "FATAL").count();
                assert_eq!(fatal, usize::from(!client.is_inside_message()), "{words}");
                assert!(find(client.torn(), b"FATAL").is_none(), "an error in the middle of a message");
            });
        }
        let shared = world.shared().clone();
        let begin = world.dice.below(30);
        world.script("operator", async move {
            sleep(Duration::from_millis(begin)).await;
            // Nobody comes behind it.
            shared.drain();
            shared.kill_all();
            shared.emptied().await;
        });
        world.run();
        world.assert_quiet();
    });
}

/// Whose connection comes back between two messages leaves it to the next, whatever was done on it.
#[test]
fn law_a_quiet_connection_is_kept() {
    check("law_kept", 2000, |seed| {
        let mut world = World::with(seed, setup(seed - seed % 3)); // a pool of one
        let book = Book::default();
        let mut visitor = Visitor::new("c0".into(), world.dice.fork(), Manners::default(), &book);
        visitor.plain = true;
        world.script("visitor", async move {
            for _ in 0..3 {
                visitor.visit().await;
            }
        });
        world.run();
        assert_eq!(world.postgres.logins(), 1);
        world.assert_quiet();
    });
}

/// The first endpoint is away, or dies under its clients: the second one serves them.
#[test]
fn law_the_next_endpoint_serves() {
    check("law_endpoints", 1000, |seed| {
        let mut setup = setup(seed);
        let second = Endpoint::Tcp { host: "standby.corp.example".into(), port: 5432 };
        setup.endpoints = vec![corp::endpoint(), second];
        let pool = PoolSettings { default_pool_size: 2, server_login_retry: Duration::ZERO, ..PoolSettings::default() };
        setup.profile.databases = corp::databases_at(&setup.endpoints, SslMode::Disable, pool);
        let mut world = World::with(seed, setup);
        let door = *world.dice.pick(&[Door::Open, Door::Shut, Door::BlackHole]);
        world.set_door_of(&corp::endpoint(), door);
        for n in 0..3 {
            let mut dice = world.dice.fork();
            world.script(&format!("client {n}"), async move {
                for visit in 0..3 {
                    let mut client = Client::dial(&format!("c{n} {visit}"));
                    let begun = World::time().tick;
                    let login = client.log_in_with_token(&format!("c{n}"), &["reader"]).await.unwrap();
                    let waited = World::time().tick.since(begun);
                    // Its server may die in the very moment of its login.
                    let code = login.last().unwrap().code();
                    let dies = code == "08006" || code == "57P01";
                    assert!(login.last().unwrap().tag == b'Z' || (door == Door::Open && dies), "{}", brief(&login));
                    assert!(waited < Duration::from_secs(60), "{waited:?}");
                    let served = client.query("rows 1 a").await.is_ok();
                    assert!(served || door == Door::Open);
                    sleep(Duration::from_millis(dice.below(300))).await;
                    client.leave().await;
                }
            });
        }
        let begin = Duration::from_millis(world.dice.below(300));
        world.advance(begin);
        if door == Door::Open {
            world.set_door_of(&corp::endpoint(), Door::Shut);
            for pid in world.postgres.backends() {
                world.postgres.terminate(pid);
            }
        }
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_a_server_that_comes_back_serves_everybody() {
    check("law_comes_back", 1000, |seed| {
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

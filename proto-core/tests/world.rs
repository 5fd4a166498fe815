//! The whole proxy on virtual sockets: single stories. The laws over many seeds are in `laws`.
#![allow(missing_docs)]

use std::io::ErrorKind;
use std::time::Duration;

use gprxy_proto::codec::startup::PROTOCOL_3_0;
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::postgres::Auth;
use gprxy_proto::testing::wire::{Message, front};
use gprxy_proto::testing::world::{Client, Setup, Weather, World, sleep};

fn brief(messages: &[Message]) -> String {
    messages.iter().map(Message::brief).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_person_logs_in_and_asks() {
    let mut world = World::new(1);
    world.script("alice", async {
        let mut alice = Client::dial("alice");
        let login = alice.log_in_with_token("alice", &["reader"]).await.unwrap();
        assert_eq!(brief(&login), "R(3) R(0) K S(TimeZone) S(application_name) S(search_path) Z(I)");
        let answer = alice.query("rows 2 hello").await.unwrap();
        assert_eq!(brief(&answer), "T D(hello/0) D(hello/1) C(SELECT 2) Z(I)");
        let who = alice.query("whoami").await.unwrap();
        assert!(who[1].value().starts_with(corp::READER.as_bytes()));
        alice.leave().await;
    });
    world.run();
    world.assert_quiet();
    let events: Vec<_> = world.trail().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["session_start", "statement", "statement", "session_end"]);
    world.end();
}

#[test]
fn every_way_to_log_in_to_the_server_works_in_every_weather() {
    for (seed, auth) in [Auth::Trust, Auth::Cleartext, Auth::Md5, Auth::Scram].into_iter().cycle().take(40).enumerate()
    {
        let weather = if seed % 2 == 0 { Weather::storm() } else { Weather::default() };
        let mut world = World::with(seed as u64, Setup { weather, ..Setup::default() });
        world.postgres.set_auth(auth);
        world.script("bob", async {
            let mut bob = Client::dial("bob");
            bob.log_in_with_token("bob", &["writer"]).await.unwrap();
            let who = bob.query("whoami").await.unwrap();
            assert!(who[1].value().starts_with(corp::WRITER.as_bytes()));
            bob.leave().await;
        });
        world.run();
        world.assert_quiet();
    }
}

#[test]
fn a_notification_reaches_an_idle_client_and_nobody_behind_it() {
    let mut world = World::new(3);
    world.script("listener", async {
        let mut listener = Client::dial("listener");
        listener.log_in_with_token("listener", &["reader"]).await.unwrap();
        assert_eq!(brief(&listener.query("listen news").await.unwrap()), "C(LISTEN) Z(I)");
        let heard = listener.next().await.unwrap();
        assert_eq!((heard.tag, heard.body[4..].to_vec()), (b'A', b"news\0first\0".to_vec()));
        listener.leave().await;
        // Whoever has its connection now does not listen.
        sleep(Duration::from_secs(1)).await;
        let mut next = Client::dial("next");
        next.log_in_with_token("next", &["reader"]).await.unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(brief(&next.query("rows 0 x").await.unwrap()), "T C(SELECT 0) Z(I)");
        next.leave().await;
    });
    world.script("speaker", async {
        let mut speaker = Client::dial("speaker");
        speaker.log_in_with_token("speaker", &["writer"]).await.unwrap();
        for text in ["first", "second"] {
            sleep(Duration::from_secs(5)).await;
            speaker.query(&format!("notify news {text}")).await.unwrap();
        }
        speaker.leave().await;
    });
    world.run();
    world.assert_quiet();
}

#[test]
fn a_cancel_hits_what_runs_and_only_with_the_right_key() {
    let mut world = World::new(4);
    world.script("alice", async {
        let mut alice = Client::dial("alice");
        alice.log_in_with_token("alice", &["reader"]).await.unwrap();
        let (pid, key) = alice.key.clone().unwrap();
        // Nothing runs: it is forgotten.
        Client::cancel("early", pid, &key).await;
        assert_eq!(brief(&alice.query("rows 0 x").await.unwrap()), "T C(SELECT 0) Z(I)");
        World::aside(async move {
            sleep(Duration::from_millis(100)).await;
            let wrong: Vec<u8> = key.iter().map(|byte| !byte).collect();
            Client::cancel("wrong key", pid, &wrong).await;
            Client::cancel("wrong process", pid ^ 1, &key).await;
            sleep(Duration::from_millis(400)).await;
            Client::cancel("right", pid, &key).await;
        });
        let before = World::time().tick;
        assert_eq!(brief(&alice.query("sleep 60000").await.unwrap()), "E(ERROR 57014) Z(I)");
        let waited = World::time().tick.since(before);
        assert!(waited > Duration::from_millis(500) && waited < Duration::from_millis(600), "{waited:?}");
        // The key dies with the session.
        let (pid, key) = alice.key.clone().unwrap();
        alice.leave().await;
        Client::cancel("late", pid, &key).await;
    });
    world.run();
    world.assert_quiet();
    assert_eq!(world.postgres.journal().iter().filter(|run| run.cancelled).count(), 1);
}

#[test]
fn a_cancel_while_queued_ends_the_wait() {
    let mut setup = Setup::default();
    setup.profile.databases = corp::databases(PoolSettings { default_pool_size: 1, ..PoolSettings::default() });
    let mut world = World::with(5, setup);
    world.script("holder", async {
        let mut holder = Client::dial("holder");
        holder.log_in_with_token("holder", &["reader"]).await.unwrap();
        holder.query("sleep 20000").await.unwrap();
        holder.leave().await;
    });
    world.script("waiter", async {
        sleep(Duration::from_secs(1)).await;
        let mut waiter = Client::dial("waiter");
        let token = corp::token("waiter", &["reader"], World::time());
        let pairs = [("user", "waiter@corp.example"), ("database", corp::DATABASE)];
        waiter.send(&front::startup(PROTOCOL_3_0, &pairs)).await.unwrap();
        waiter.send(&front::password(&token)).await.unwrap();
        let key = loop {
            let message = waiter.next().await.unwrap();
            if message.tag == b'K' {
                break message.body;
            }
        };
        let pid = u32::from_be_bytes(*key.first_chunk().unwrap());
        Client::cancel("impatient", pid, &key[4..]).await;
        let rest = waiter.rest().await;
        assert_eq!(brief(&rest), "E(FATAL 57014)");
    });
    world.run();
    world.assert_quiet();
}

#[test]
fn a_connection_is_used_again_and_keeps_its_process() {
    let mut world = World::new(6);
    world.script("visitors", async {
        let mut seen = Vec::new();
        for name in ["alice", "bob", "carol"] {
            let mut client = Client::dial(name);
            client.log_in_with_token(name, &["reader"]).await.unwrap();
            for _ in 0..2 {
                seen.push(client.query("whoami").await.unwrap()[1].value().to_vec());
            }
            client.query("set owner me").await.unwrap();
            client.leave().await;
            sleep(Duration::from_secs(1)).await;
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "one server process served all of them");
    });
    world.run();
    assert_eq!(world.postgres.logins(), 1);
    world.assert_quiet();
}

#[test]
fn a_password_of_ones_own_is_checked_by_the_server_and_its_connection_not_kept() {
    let mut world = World::new(7);
    world.script("bob", async {
        let mut bob = Client::dial("bob");
        let login = bob.log_in(corp::LOCAL_USER, corp::LOCAL_PASSWORD, &[]).await.unwrap();
        assert_eq!(brief(&login), "R(3) R(0) K S(TimeZone) S(application_name) S(search_path) Z(I)");
        assert!(bob.query("whoami").await.unwrap()[1].value().starts_with(corp::LOCAL_USER.as_bytes()));
        bob.leave().await;
        let mut eve = Client::dial("eve");
        let refused = eve.log_in(corp::LOCAL_USER, b"a guess", &[]).await.unwrap();
        assert_eq!(brief(&refused), "R(3) E(FATAL 28P01)");
    });
    world.run();
    world.assert_quiet();
    assert_eq!(world.postgres.backends().len(), 0, "it is nobody else's");
}

#[test]
fn a_server_without_a_question_lets_nobody_in_by_password() {
    let mut world = World::new(8);
    world.postgres.set_auth(Auth::Trust);
    world.script("eve", async {
        let mut eve = Client::dial("eve");
        let refused = eve.log_in(corp::LOCAL_USER, b"anything", &[]).await.unwrap();
        assert_eq!(brief(&refused), "R(3) E(FATAL 28000)");
    });
    world.run();
    world.assert_quiet();
}

#[test]
fn a_reader_that_does_not_read_holds_up_its_server_and_nothing_is_lost() {
    let mut world =
        World::with(9, Setup { weather: Weather { window: 4096, ..Weather::default() }, ..Setup::default() });
    world.script("slow reader", async {
        let mut slow = Client::dial("slow");
        slow.log_in_with_token("slow", &["reader"]).await.unwrap();
        slow.send(&front::query("big 3000000")).await.unwrap();
        sleep(Duration::from_secs(30)).await;
        let mut sum = 0;
        loop {
            let message = slow.next().await.unwrap();
            sum += message.body.len();
            if message.tag == b'Z' {
                break;
            }
        }
        assert!(sum > 3_000_000);
        slow.leave().await;
    });
    world.run();
    world.assert_quiet();
}

/// Steps of an hour without the provider.
const OUTAGE: [Duration; 6] = [Duration::from_secs(600); 6];

#[test]
fn an_hour_without_the_provider_is_noticed_by_nobody_whose_keys_are_known() {
    let mut world = World::new(60);
    world.provider.set(Err(ErrorKind::ConnectionRefused));
    for (step, span) in OUTAGE.into_iter().enumerate() {
        world.advance(span);
        world.script(&format!("step {step}"), async {
            let mut alice = Client::dial("alice");
            let login = alice.log_in_with_token("alice", &["reader"]).await.unwrap();
            assert_eq!(login.last().unwrap().tag, b'Z', "{}", brief(&login));
            assert_eq!(brief(&alice.query("select 'warm'").await.unwrap()), "T D(warm) C(SELECT 1) Z(I)");
            alice.leave().await;
        });
        world.run();
    }
    world.assert_quiet();
    world.end();
}

#[test]
fn an_hour_without_the_provider_refuses_who_needs_new_keys_and_ends_by_itself() {
    let mut world = World::with(61, Setup { keys_known: false, ..Setup::default() });
    world.provider.set(Err(ErrorKind::TimedOut));
    for (step, span) in OUTAGE.into_iter().enumerate() {
        for n in 0..20 {
            world.script(&format!("step {step}, client {n}"), async {
                let mut alice = Client::dial("alice");
                let login = alice.log_in_with_token("alice", &["reader"]).await.unwrap();
                let last = login.last().unwrap();
                assert_eq!((last.severity().as_str(), last.code().as_str()), ("FATAL", "57P03"), "{}", brief(&login));
            });
        }
        world.run();
        world.advance(span);
    }
    assert!(world.postgres.logins() == 0, "nobody came through");
    let requests = world.provider.requests();
    assert!(requests < 200, "{requests} requests in an hour: neither people nor retries may become a flood");
    world.provider.set(Ok((200, corp::key_document())));
    world.advance(Duration::from_secs(120));
    world.script("after it", async {
        let mut alice = Client::dial("alice");
        let login = alice.log_in_with_token("alice", &["reader"]).await.unwrap();
        assert_eq!(login.last().unwrap().tag, b'Z', "{}", brief(&login));
        alice.leave().await;
    });
    world.run();
    world.assert_quiet();
    world.end();
}

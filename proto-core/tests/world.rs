//! The whole proxy on virtual sockets: single stories. The laws over many seeds are in `laws.rs`.
#![allow(missing_docs)]

use gprxy_proto::testing::corp;
use gprxy_proto::testing::postgres::Auth;
use gprxy_proto::testing::wire::Message;
use gprxy_proto::testing::world::{Client, Setup, Weather, World};

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

//! What one client does, or is, keeps nobody else from their server connection.

use std::time::Duration;

use gprxy_proto::pool::PoolSettings;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::postgres::Run;
use gprxy_proto::testing::wire::{Message, front};
use gprxy_proto::testing::world::{Client, Setup, World, sleep};

use crate::isolation::{bustle, setup};
use crate::visitor::{Manners, assert_isolated};

fn brief(messages: &[Message]) -> String {
    messages.iter().map(Message::brief).collect::<Vec<_>>().join(" ")
}

/// One server connection per pool.
fn pools_of_one() -> Setup {
    let mut setup = Setup::default();
    setup.profile.databases = corp::databases(PoolSettings { default_pool_size: 1, ..PoolSettings::default() });
    setup
}

async fn backend_of(client: &mut Client) -> Vec<u8> {
    client.query("whoami").await.unwrap()[1].value().to_vec()
}

#[test]
fn law_a_junk_password_for_an_account_costs_its_people_nothing() {
    check("law_junk", 2000, |seed| {
        let mut world = World::with(seed, pools_of_one());
        world.script("all", async move {
            let mut alice = Client::dial("alice");
            alice.log_in_with_token("alice", &["reader"]).await.unwrap();
            let first = backend_of(&mut alice).await;
            // While the only connection is in use: the server answers, and not the queue.
            let junk = async || {
                let mut stranger = Client::dial("stranger");
                let login = stranger.log_in(corp::READER, b"junk", &[("application_name", "x")]).await.unwrap();
                assert_eq!(login.last().unwrap().code(), "28P01", "{}", brief(&login));
            };
            junk().await;
            alice.leave().await;
            alice = Client::dial("alice again");
            alice.pause(Duration::from_secs(1)).await;
            junk().await;
            alice.log_in_with_token("alice", &["reader"]).await.unwrap();
            assert_eq!(backend_of(&mut alice).await, first, "the idle connection was not evicted");
            alice.leave().await;
        });
        world.run();
        world.assert_quiet();
    });
}

#[test]
fn law_a_cancel_that_strikes_late_hits_nobody_else() {
    check("law_late_cancel", 2000, |seed| {
        let mut setup = setup(seed - seed % 3); // a pool of one
        // Shorter than the server takes to give the signal.
        setup.profile.limits.cancel_wait_timeout = Duration::from_micros(500 + 1000 * (seed % 4));
        let (mut world, book) = bustle(seed, Manners { cancel: 60, ..Manners::default() }, setup);
        assert_isolated(&book);
        for run in world.postgres.journal().into_iter().filter(|run| run.cancelled) {
            assert!(["own-c0-", "own-c1-"].iter().any(|own| run.text.contains(own)), "a cancel has hit {run:?}");
        }
        world.assert_quiet();
    });
}

#[test]
fn law_a_drain_is_over_when_nothing_runs_on() {
    check("law_nothing_runs_on", 2000, |seed| {
        let mut world = World::with(seed, setup(seed));
        world.script("client", async {
            let mut client = Client::dial("client");
            client.log_in_with_token("alice", &["reader"]).await.unwrap();
            client.send(&front::query("sleep 3600000 left")).await.unwrap();
            client.rest().await;
        });
        let (shared, postgres) = (world.shared().clone(), world.postgres.clone());
        world.script("operator", async move {
            let left = |wanted: fn(&Run) -> bool| {
                postgres.journal().iter().any(|run| run.text.contains("left") && wanted(run))
            };
            while !left(|_| true) {
                sleep(Duration::from_millis(1)).await;
            }
            shared.drain();
            shared.kill_all();
            shared.emptied().await;
            assert!(left(|run| run.cancelled), "the process would end and its statement would not");
        });
        world.run();
        world.assert_quiet();
    });
}

//! Whatever an operator does at the admin console, and whenever: nobody's bytes reach anybody else, every session ends in
//! order, and the pools return to rest.

use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::console::ConsoleAccess;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::world::{Client, Setup, sleep};
use gprxy_proto::testing::{corp, wire::front};

use crate::isolation::{any_mode, bustle_with};
use crate::visitor::{Manners, assert_isolated};

fn setup(seed: u64) -> Setup {
    let mut setup = any_mode(seed);
    setup.profile.console =
        Some(Arc::new(ConsoleAccess { admin_roles: vec!["operator".into()], ..ConsoleAccess::default() }));
    setup
}

async fn console(name: &str) -> Option<Client> {
    let mut client = Client::dial(name);
    let token = corp::token("operator", &["operator"], gprxy_proto::testing::world::World::time());
    let messages = client.log_in("operator@corp.example", &token, &[("database", "pgbouncer")]).await.ok()?;
    messages.last().is_some_and(|last| last.tag == b'Z').then_some(client)
}

/// A command, with a database or for all of them.
fn command(dice: &mut Dice) -> String {
    let which = if dice.percent(50) { String::new() } else { format!(" {}", corp::DATABASE) };
    match dice.below(10) {
        0 | 1 => format!("PAUSE{which}"),
        2 | 3 => format!("RESUME{which}"),
        4 => format!("RECONNECT{which}"),
        5 => format!("WAIT_CLOSE{which}"),
        6 => format!("KILL_CLIENT {}", dice.below(12)),
        7 => format!("KILL{which}"),
        8 => "SUSPEND".into(),
        _ => format!("{} {}", dice.pick(&["DISABLE", "ENABLE"]), corp::DATABASE),
    }
}

async fn operate(mut dice: Dice) {
    for n in 0..1 + dice.below(4) {
        sleep(Duration::from_millis(dice.below(60))).await;
        let Some(mut client) = console(&format!("operator {n}")).await else { continue };
        for _ in 0..dice.below(6) {
            let show = dice.pick(&["SHOW CLIENTS", "SHOW SERVERS", "SHOW POOLS", "SHOW STATS", "SHOW LISTS"]);
            let (text, show) = (front::query(&command(&mut dice)), front::query(show));
            if dice.percent(20) {
                // Leaves while the command may still wait.
                let _ = client.send(&text).await;
                sleep(Duration::from_millis(dice.below(10))).await;
                client.vanish();
                break;
            }
            // What waits for somebody who waits for the next RESUME is given up, as is whatever is behind it.
            if client.exchange_within(&[text, show].concat(), 2, Duration::from_millis(500)).await.is_none() {
                client.vanish();
                break;
            }
        }
    }
    // Everything is switched on again in the end. A KILL_CLIENT that is still under way may hit who says so.
    while !switch_on().await {}
}

/// Whether it was heard to its end.
async fn switch_on() -> bool {
    let Some(mut client) = console("operator's last").await else { return false };
    for text in ["RESUME", "RESUME", &format!("RESUME {}", corp::DATABASE), &format!("ENABLE {}", corp::DATABASE)] {
        if client.query(text).await.is_err() {
            return false;
        }
    }
    client.leave().await;
    true
}

#[test]
fn law_an_operator_breaks_no_session() {
    check("law_operator", 1000, |seed| {
        let manners = Manners { vanish: 5, cancel: 10, faults: 1 };
        let (mut world, book) = bustle_with(seed, manners, setup(seed), |world| {
            let dice = world.dice.fork();
            world.script("operator", operate(dice));
        });
        assert_isolated(&book);
        world.assert_quiet();
    });
}

//! Property tests of what you build on the machines: everything that happens is a function of one seed.
//!
//! `cargo test -p gprxy-examples --example property_test` runs both properties; `GPRXY_SEEDS=0..100000` runs more, and
//! a failing seed is printed together with the command that repeats it, and only it, with a transcript.

use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::duel::{Duel, Terms};
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::wire::{brief, front};
use gprxy_proto::testing::world::{Client, Weather, World};

/// What a client sends in one go: any of these, in any order.
fn pipeline(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.length(5) {
        let text =
            *dice.pick(&["rows 3 a", "begin", "commit", "fail 23505", "set TimeZone UTC", "copy out 2 b", "oops"]);
        bytes.extend(if dice.percent(50) {
            front::query(text)
        } else {
            [front::parse("", text), front::bind("", ""), front::execute("", 0), front::sync()].concat()
        });
    }
    bytes
}

/// One session, byte by byte, without task or thread: what its client sees, in words.
fn seen_by_the_client(seed: u64, chop: Option<u64>) -> String {
    let mut dice = Dice::new(seed);
    let mut duel = Duel::logged_in(Terms { chop, ..Terms::default() });
    for _ in 0..dice.length(4) {
        duel.client(&pipeline(&mut dice));
    }
    brief(&duel.seen())
}

/// However the network cuts what both sides say, the client sees the same.
fn chopping_changes_nothing(seed: u64) {
    assert_eq!(seen_by_the_client(seed, Some(seed)), seen_by_the_client(seed, None));
}

/// The whole proxy, with its pools and its audit trail, on a network with a will of its own: whoever asks gets the
/// answer to the own question, from a server connection of the own role, and every question is on record.
fn everybody_gets_their_own_rows(seed: u64) {
    let mut world = World::new(seed);
    world.set_weather(Weather::storm());
    for (person, role, account) in [("ann", "reader", corp::READER), ("bob", "writer", corp::WRITER)] {
        world.script(person, async move {
            let mut client = Client::dial(person);
            client.log_in_with_token(person, &[role]).await.expect("the roles are good");
            let rows = client.query(&format!("rows 1 {person}")).await.expect("the proxy stays");
            assert_eq!(rows[1].value(), format!("{person}/0").as_bytes());
            let who = client.query("whoami").await.expect("the proxy stays");
            assert!(who[1].value().starts_with(account.as_bytes()));
            client.leave().await;
        });
    }
    world.run();
    world.assert_quiet();
    let statements = world.trail().into_iter().filter(|line| line["event"] == "statement").count();
    assert_eq!(statements, 4);
    world.end();
}

fn main() {
    check("chopping_changes_nothing", 20, chopping_changes_nothing);
    check("everybody_gets_their_own_rows", 20, everybody_gets_their_own_rows);
    println!("one session of seed 7: {}", seen_by_the_client(7, None));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_does_not_depend_on_how_its_bytes_are_cut() {
        check("a_session_does_not_depend", 300, chopping_changes_nothing);
    }

    #[test]
    fn a_proxy_in_a_storm_gives_everybody_their_own() {
        check("a_proxy_in_a_storm", 50, everybody_gets_their_own_rows);
    }
}

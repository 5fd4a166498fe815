//! Nobody's bytes reach anybody else; answers come in PostgreSQL's order; the pools return to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use gprxy_proto::policy::SessionTerms;
use gprxy_proto::pool::{PoolMode, PoolSettings};
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::world::{Setup, Weather, World};
use gprxy_proto::testing::{corp, logs};

use crate::visitor::{Book, EVERYBODYS, Manners, Visitor, assert_isolated};

/// A world with a small pool and a few visitors, run to its end.
pub(crate) fn bustle(seed: u64, manners: Manners, setup: Setup) -> (World, Book) {
    bustle_with(seed, manners, setup, |_| {})
}

/// The same, with something done before anybody comes.
pub(crate) fn bustle_with(seed: u64, manners: Manners, setup: Setup, before: impl FnOnce(&mut World)) -> (World, Book) {
    // Chopped into bytes, a long answer takes long and shows nothing that a shorter one does not.
    let longest = if setup.weather.piece == 0 { 100_000 } else { 1500 };
    let mut world = World::with(seed, setup);
    before(&mut world);
    let book = Book::default();
    world.postgres.set_think(Duration::from_millis(world.dice.below(10)));
    for n in 0..2 + world.dice.below(3) {
        // The others must not notice what the first two cancel.
        let manners = Manners { cancel: if n < 2 { manners.cancel } else { 0 }, ..manners };
        let mut visitor = Visitor::new(format!("c{n}"), world.dice.fork(), manners, &book);
        visitor.longest = longest;
        let visits = world.dice.length(2);
        world.script(&format!("visitor {n}"), async move {
            for _ in 0..visits {
                visitor.visit().await;
            }
        });
    }
    world.run();
    assert_accounts(&world, &book);
    assert_keys(&world, &book);
    (world, book)
}

/// Every statement ran under the account that its owner's token leads to.
fn assert_accounts(world: &World, book: &Book) {
    let book = book.lock().unwrap();
    for run in world.postgres.journal() {
        let Some(tag) = tag_of(&run.text) else { continue };
        assert_eq!(book.accounts.get(tag), Some(&&*run.user), "{run:?}");
    }
}

/// No cancel key was given to two sessions, and none is a server's own.
fn assert_keys(world: &World, book: &Book) {
    let servers = world.postgres.keys();
    let mut seen = BTreeSet::new();
    for (pid, key) in &book.lock().unwrap().keys {
        assert!(seen.insert((*pid, key.clone())), "a cancel key was used again");
        assert!(!servers.contains(&[&pid.to_be_bytes()[..], key].concat()), "a client has a server's own cancel key");
    }
}

/// `own-c1-17-` in a statement.
pub(crate) fn tag_of(text: &str) -> Option<&str> {
    let tag = &text[text.find("own-")?..];
    let end = tag.match_indices('-').nth(2)?.0;
    Some(&tag[..=end])
}

pub(crate) fn setup(seed: u64) -> Setup {
    let mut profile = corp::profile();
    profile.databases = corp::databases(PoolSettings {
        default_pool_size: 1 + u32::try_from(seed % 3).unwrap(),
        query_wait_timeout: Duration::from_secs(3000),
        server_login_retry: Duration::from_millis(100),
        ..PoolSettings::default()
    });
    let weather = match seed % 8 {
        0 | 5 => Weather::storm(),
        1 => Weather { piece: 1, ..Weather::default() },
        _ => Weather::default(),
    };
    Setup { profile, weather, ..Setup::default() }
}

/// The same in every second row of seeds; in the others connections come back between transactions, with room for many
/// prepared statements and for few.
pub(crate) fn any_mode(seed: u64) -> Setup {
    let mut setup = setup(seed);
    if seed / 8 % 2 == 1 {
        let database = setup.profile.databases.find(corp::DATABASE).expect("it is there");
        let pool = PoolSettings {
            pool_mode: PoolMode::Transaction,
            max_prepared_statements: [200, 2, 1, 0][usize::try_from(seed / 16 % 4).unwrap()],
            // In a quarter of them a connection is reset behind every transaction.
            server_reset_query_always: seed / 128 % 4 == 1,
            server_reset_query: ["DISCARD ALL", "reset all"][usize::try_from(seed / 512 % 2).unwrap()].into(),
            ..(*database.pool).clone()
        };
        // In a third of them what is prepared again and again is kept.
        let session =
            SessionTerms { cache_unnamed_statements: (seed / 64).is_multiple_of(3), ..SessionTerms::default() };
        setup.profile.databases = corp::with_terms(&corp::databases(pool), session);
    }
    if seed / 4 % 2 == 1 {
        limit(&mut setup, &mut Dice::new(!seed));
    }
    setup
}

/// Server connections that come and go for more reasons than their clients, and of which there are fewer.
fn limit(setup: &mut Setup, dice: &mut Dice) {
    let database = setup.profile.databases.find(corp::DATABASE).expect("it is there");
    let (ms, u) = (Duration::from_millis, |n: u64| u32::try_from(n).expect("small"));
    let pool = PoolSettings {
        min_pool_size: u(dice.below(3)),
        reserve_pool_size: u(dice.below(2)),
        reserve_pool_timeout: ms(dice.below(30)),
        max_db_connections: u(dice.below(4)),
        max_user_connections: u(dice.below(3)),
        server_round_robin: dice.percent(30),
        server_lifetime: ms(*dice.pick(&[0, 20, 300, 3_600_000])),
        server_idle_timeout: ms(*dice.pick(&[0, 20, 300, 3_600_000])),
        server_check_delay: ms(*dice.pick(&[0, 20, 30_000])),
        ..(*database.pool).clone()
    };
    let session = *database.session;
    setup.profile.databases = corp::with_terms(&corp::databases(pool), session);
}

#[test]
fn law_order_every_answer_is_the_servers_own() {
    check("law_order", 2000, |seed| {
        let (mut world, book) = bustle(seed, Manners::default(), any_mode(seed));
        {
            let book = book.lock().unwrap();
            assert_eq!((book.finished, &book.refused[..]), (book.begun, &[][..]));
        }
        assert_isolated(&book);
        world.assert_quiet();
    });
}

#[test]
fn law_isolation_through_vanishing_clients_and_cancels() {
    check("law_isolation", 2000, |seed| {
        let manners = Manners { vanish: 15, cancel: 20, faults: 0 };
        let (mut world, book) = bustle(seed, manners, any_mode(seed));
        assert_isolated(&book);
        for run in world.postgres.journal().into_iter().filter(|run| run.cancelled) {
            // The proxy itself cancels what a client has left running.
            let abandoned = book.lock().unwrap().abandoned.iter().any(|tag| run.text.contains(tag));
            let cancelling = ["own-c0-", "own-c1-"].iter().any(|own| run.text.contains(own));
            // Settings that a connection was being given for somebody who has left.
            let owner = |tag: &str| tag.match_indices('-').nth(1).map_or(0, |(end, _)| end + 1);
            let left = |tag: &String| !run.text.contains("own-") || run.text.contains(&tag[..owner(tag)]);
            let abandoned = abandoned || run.text.contains(" TO E'") && book.lock().unwrap().abandoned.iter().any(left);
            // What nobody's name is on may have been left by anybody.
            let nobodys = run.text == EVERYBODYS;
            assert!(abandoned || cancelling || nobodys, "a cancel has hit {run:?}");
        }
        world.assert_quiet();
    });
}

#[test]
fn law_isolation_through_faults_of_the_server() {
    check("law_faults", 2000, |seed| {
        let manners = Manners { vanish: 10, cancel: 10, faults: 15 };
        let (mut world, book) = bustle(seed, manners, any_mode(seed));
        assert_isolated(&book);
        world.assert_quiet();
    });
}

#[test]
fn two_runs_of_one_seed_are_the_same() {
    check("two_runs", 300, |seed| {
        let manners = Manners { vanish: 15, cancel: 20, faults: 10 };
        let digests: Vec<u64> = (0..2)
            .map(|_| {
                let (world, _) = bustle(seed, manners, any_mode(seed));
                world.digest()
            })
            .collect();
        assert_eq!(digests[0], digests[1]);
    });
}

#[test]
fn nothing_in_a_quiet_world_is_an_error() {
    check("law_log", 1000, |seed| {
        logs::capture();
        let (mut world, _) = bustle(seed, Manners { vanish: 10, cancel: 10, faults: 0 }, any_mode(seed));
        world.assert_quiet();
        world.end();
        let bad: Vec<_> = logs::captured().into_iter().filter(|line| line.level == log::Level::Error).collect();
        assert!(bad.is_empty(), "{bad:?}");
    });
}

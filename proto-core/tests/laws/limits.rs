//! Limits hold under storms and failed logins, whatever they are, and everything that is counted returns to zero.

use std::collections::BTreeMap;
use std::time::Duration;

use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{Databases, Limits};
use gprxy_proto::pool::{Isolation, PoolMode, PoolSettings, ServerState, SlotId};
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::world::{Door, Setup, Weather, World};
use gprxy_proto::time::{Now, Tick};

use crate::crowd::{Guest, Ledger, OTHER};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Off, or something small.
fn some(dice: &mut Dice, most: u64) -> u32 {
    if dice.percent(50) { 0 } else { 1 + u32::try_from(dice.below(most)).expect("small") }
}

/// Whatever an operator may write.
fn settings(dice: &mut Dice) -> PoolSettings {
    PoolSettings {
        pool_mode: *dice.pick(&[PoolMode::Session, PoolMode::Transaction, PoolMode::Transaction, PoolMode::Statement]),
        isolation: *dice.pick(&[Isolation::Identity, Isolation::PgBouncer]),
        default_pool_size: 1 + u32::try_from(dice.below(3)).expect("small"),
        min_pool_size: some(dice, 3),
        reserve_pool_size: some(dice, 2),
        reserve_pool_timeout: *dice.pick(&[Duration::ZERO, ms(20), ms(200)]),
        max_db_connections: some(dice, 4),
        max_user_connections: some(dice, 3),
        max_db_client_connections: some(dice, 4),
        max_user_client_connections: some(dice, 3),
        server_round_robin: dice.percent(30),
        server_lifetime: *dice.pick(&[Duration::ZERO, ms(20), ms(300), ms(600_000), ms(600_000)]),
        server_idle_timeout: *dice.pick(&[Duration::ZERO, ms(20), ms(300), ms(300_000)]),
        server_check_delay: *dice.pick(&[Duration::ZERO, ms(30), ms(30_000)]),
        server_check_query: (*dice.pick(&["", "select 'ok'", PoolSettings::NO_QUERY])).into(),
        query_wait_timeout: *dice.pick(&[Duration::ZERO, ms(60), ms(700), ms(120_000)]),
        query_wait_notify: *dice.pick(&[Duration::ZERO, ms(30), ms(5000)]),
        server_login_retry: *dice.pick(&[Duration::ZERO, ms(50), ms(1000)]),
        ..PoolSettings::default()
    }
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        max_client_conn: if dice.percent(60) { 1000 } else { 2 + u32::try_from(dice.below(6)).expect("small") },
        max_client_conn_per_identity: some(dice, 2),
        reserved_for_admins: u32::from(dice.percent(30)),
        ..Limits::default()
    }
}

/// Connections that a setting speaks of, at every moment.
struct Watch {
    pool: PoolSettings,
    limits: Limits,
    /// Since when it has been seen idle, and when it was leased before.
    idle: BTreeMap<SlotId, (Tick, Tick)>,
}

/// A timer is handled by a task of its own, which has its turn like others.
const TIMER: Duration = ms(5);

impl Watch {
    fn look(&mut self, hub: &Hub, now: Now) {
        self.look_at_pools(hub, now);
        self.look_at_servers(hub, now);
        let limits = &self.limits;
        let listened_to = limits.max_client_conn + limits.max_client_conn / 10 + 10;
        assert!(hub.clients() <= listened_to, "{} clients", hub.clients());
        for database in [corp::DATABASE, OTHER] {
            let (clients, limit) = (hub.clients_of(database), self.pool.max_db_client_connections);
            assert!(limit == 0 || clients <= limit, "{database}: {clients} clients of {limit}");
        }
    }

    fn look_at_pools(&self, hub: &Hub, now: Now) {
        let pool = &self.pool;
        let reserve = if pool.reserve_pool_timeout.is_zero() { 0 } else { pool.reserve_pool_size };
        let (mut databases, mut accounts) = (BTreeMap::new(), BTreeMap::new());
        for facts in hub.pools.snapshot() {
            let connections = facts.active + facts.tested + facts.idle + facts.opening;
            let most = (pool.default_pool_size + reserve) as usize;
            assert!(connections <= most, "{}: {connections} connections of {most}", facts.key);
            *databases.entry(facts.key.database.clone()).or_insert(0) += connections;
            *accounts.entry(facts.key.account.clone()).or_insert(0) += connections;
            let waits = facts.oldest_wait.map_or(Duration::ZERO, |since| now.tick.since(since));
            let limit = pool.query_wait_timeout;
            assert!(limit.is_zero() || waits <= limit + TIMER, "{}: somebody waits for {waits:?}", facts.key);
        }
        for (limit, counts) in [(pool.max_db_connections, databases), (pool.max_user_connections, accounts)] {
            for (name, connections) in counts {
                assert!(limit == 0 || connections <= limit as usize, "{name}: {connections} connections of {limit}");
            }
        }
    }

    fn look_at_servers(&mut self, hub: &Hub, now: Now) {
        let (lifetime, unused) = (self.pool.server_lifetime, self.pool.server_idle_timeout);
        let mut idle = BTreeMap::new();
        for server in hub.pools.servers() {
            let before = server.last_leased.since(server.opened);
            assert!(before.is_zero() || before < lifetime, "{}: leased at the age of {before:?}", server.slot);
            if server.state != ServerState::Idle {
                continue;
            }
            let seen = self.idle.get(&server.slot).filter(|(_, leased)| *leased == server.last_leased);
            let since = seen.map_or(now.tick, |(since, _)| *since);
            idle.insert(server.slot, (since, server.last_leased));
            let (age, rest) = (now.tick.since(server.opened), now.tick.since(since));
            assert!(age <= lifetime + TIMER, "{}: kept at the age of {age:?}", server.slot);
            assert!(unused.is_zero() || rest <= unused + TIMER, "{}: idle for {rest:?}", server.slot);
        }
        self.idle = idle;
    }
}

/// The server is away, full, or dies, or an operator pauses it; all is well again in the end.
fn trouble(world: &mut World, dice: &mut Dice) {
    for _ in 0..dice.length(4) {
        world.advance(ms(dice.below(80)));
        match dice.below(5) {
            0 => {
                world.set_door(*dice.pick(&[Door::Shut, Door::BlackHole]));
                world.advance(ms(dice.below(200)));
                world.set_door(Door::Open);
            }
            1 => {
                world.postgres.set_max_connections(usize::try_from(dice.below(3)).expect("small"));
                world.advance(ms(dice.below(200)));
                world.postgres.set_max_connections(100);
            }
            2 => {
                world.shared().pause();
                world.advance(ms(dice.below(200)));
                world.shared().resume();
            }
            _ => {
                let backends = world.postgres.backends();
                let victim = usize::try_from(dice.below(4)).expect("small");
                world.postgres.terminate(backends.get(victim).copied().unwrap_or_default());
            }
        }
    }
}

fn setup(pool: &PoolSettings, limits: &Limits, weather: Weather) -> Setup {
    let mut profile = corp::profile();
    let databases = corp::databases(pool.clone());
    let database = databases.find(corp::DATABASE).expect("it is there");
    let named = [corp::DATABASE, OTHER].map(|name| (name.into(), (**database).clone()));
    (profile.databases, profile.limits) = (Databases::new(named), limits.clone());
    Setup { profile, weather, ..Setup::default() }
}

/// Connections of all pools.
fn kept(world: &World) -> usize {
    world.shared().inspect(|hub| hub.pools.servers().count())
}

/// For how long a connection may stay that nobody uses.
fn longest_rest(pool: &PoolSettings) -> Duration {
    match pool.server_idle_timeout {
        Duration::ZERO => pool.server_lifetime,
        timeout => timeout.min(pool.server_lifetime),
    }
}

/// A pool that was used not long ago has its least size, where nothing is in the way.
fn assert_kept_ready(world: &World, pool: &PoolSettings) {
    let shared_limits = pool.max_db_connections + pool.max_user_connections;
    if shared_limits > 0 || longest_rest(pool) < ms(60_000) {
        return;
    }
    world.shared().inspect(|hub| {
        for facts in hub.pools.snapshot().filter(|facts| !facts.key.own_password) {
            let least = pool.min_pool_size.min(pool.default_pool_size) as usize;
            assert!(facts.idle >= least, "{}: {} connections are ready of {least}", facts.key, facts.idle);
        }
    });
}

#[test]
fn law_limits_hold_and_everything_returns_to_zero() {
    check("law_limits", 3000, |seed| {
        let mut dice = Dice::new(seed);
        let (pool, limits) = (settings(&mut dice), limits(&mut dice));
        let (troubled, rough) = (dice.percent(50), dice.percent(20));
        let weather = if rough { Weather { piece: 0, ..Weather::storm() } } else { Weather::default() };
        let mut world = World::with(seed, setup(&pool, &limits, weather));
        let mut watch = Watch { pool: pool.clone(), limits: limits.clone(), idle: BTreeMap::new() };
        world.set_watch(move |hub, now| watch.look(hub, now));
        let book = Ledger::new(pool.clone(), limits, troubled);
        for n in 0..3 + dice.below(6) {
            let (name, book, mode) = (format!("c{n}"), book.clone(), pool.pool_mode);
            let mut guest = Guest { name, dice: dice.fork(), book, mode };
            let visits = dice.length(4);
            world.script(&format!("guest {n}"), async move {
                for _ in 0..visits {
                    guest.visit().await;
                }
            });
        }
        if troubled {
            trouble(&mut world, &mut dice);
        }
        world.run();
        book.lock().unwrap().assert_limits();
        if troubled {
            // What ended while nobody used it is found by whoever is to use it next.
            let idle = world.assert_deserted();
            assert!(world.postgres.backends().len() <= idle, "the server has connections that nobody knows of");
        } else {
            world.assert_quiet();
            assert_kept_ready(&world, &pool);
        }
        // What nobody uses any more is kept for no longer than it may be, also where a pool was to be kept ready.
        world.advance(longest_rest(&pool) * 2 + ms(60_000));
        assert_eq!(kept(&world), 0, "connections of nobody are kept");
        assert!(world.postgres.backends().is_empty(), "the server has connections that nobody knows of");
        assert!(world.shared().inspect(|hub| hub.pools.is_empty()), "something of the pools is left");
    });
}

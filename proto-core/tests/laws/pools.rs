//! The pools beside their reference model: one owner for each lease, never above a limit, everybody answered in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::entropy::Entropy as _;
use gprxy_proto::pool::law::walk;
use gprxy_proto::pool::{How, Lease, PoolKey, PoolOutput, PoolSettings, Pools, Request, Returned};
use gprxy_proto::session_id::SessionId;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::time::{Now, Tick};

#[test]
fn law_pool_one_owner_within_the_limits_and_everybody_answered() {
    check("law_pool", 3000, |seed| {
        let mut dice = Dice::new(seed);
        let mut choices = vec![0; 200 + dice.length(800)];
        dice.fill(&mut choices);
        let _ = walk(&choices);
    });
}

/// Many pools of one database: more than one call looks at.
const POOLS: u64 = 150;
/// One connection, fewer than there are pools, and more than there are clients.
const LIMITS: [u32; 3] = [1, 40, 1000];

/// Who stands in line for the connections of a database, each in a pool of its own or with others.
struct Line {
    pools: Pools,
    now: Now,
    limit: u32,
    /// Who waits, in the order of coming.
    waiting: BTreeMap<u64, PoolKey>,
    /// Connections that are not logged in yet, and those that are.
    opening: Vec<Lease>,
    leases: Vec<Lease>,
    came: u64,
}

impl Line {
    fn new(limit: u32) -> Self {
        let (pools, now) = (Pools::new(), corp::at(Tick::from_nanos(1)));
        Self { pools, now, limit, waiting: BTreeMap::new(), opening: Vec::new(), leases: Vec::new(), came: 0 }
    }

    fn settings(&self) -> Arc<PoolSettings> {
        Arc::new(PoolSettings {
            max_db_connections: self.limit,
            // No other limit is ever in the way.
            default_pool_size: 1000,
            query_wait_timeout: Duration::ZERO,
            ..PoolSettings::default()
        })
    }

    fn ask(&mut self, account: u64) {
        self.came += 1;
        let key = PoolKey { account: format!("a{account}").into(), database: "d".into(), own_password: false };
        self.waiting.insert(self.came, key.clone());
        let (session, parameters, settings) = (SessionId(self.came), [].into(), self.settings());
        let request = Request { session, key, parameters, owner: None, reuse: true, adapts: true, settings };
        self.pools.handle_request(request, self.now);
        self.look();
    }

    fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        let settings = self.settings();
        self.pools.resettle(|_| Some(settings.clone()), self.now);
        self.look();
    }

    /// Nobody gets anything, or everybody again.
    fn pause(&mut self) {
        match self.pools.is_paused(None) {
            true => self.pools.resume(None, self.now),
            false => self.pools.pause(None, self.now),
        }
        self.look();
    }

    /// A new connection is always for whoever has waited for longest.
    fn look(&mut self) {
        while let Some(output) = self.pools.poll_output() {
            match output {
                PoolOutput::Granted { session, lease, how } => {
                    let first = self.waiting.keys().next().copied();
                    let is_new = matches!(how, How::Open | How::OpenBare);
                    assert!(!is_new || first == Some(session.0), "{session} has overtaken {first:?}");
                    assert!(self.waiting.remove(&session.0).is_some(), "{session} has not asked");
                    let list = if is_new { &mut self.opening } else { &mut self.leases };
                    list.push(lease);
                }
                PoolOutput::Close { .. } | PoolOutput::Notice { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn give_back(&mut self, lease: Lease, how: Returned) {
        self.pools.handle_release(lease, how, self.now);
        self.look();
    }

    /// All logins come to their end.
    fn log_in(&mut self) {
        for lease in std::mem::take(&mut self.opening) {
            self.pools.handle_opened(&lease, self.now);
            self.leases.push(lease);
        }
        self.look();
    }

    /// What one call has left over is done.
    fn rest(&mut self) {
        while self.pools.poll_timeout().is_some_and(|deadline| deadline.at <= self.now.tick) {
            self.pools.handle_timeout(self.now);
            self.look();
        }
    }
}

#[test]
fn law_line_nobody_overtakes_in_another_pool_of_the_same_database() {
    check("law_line", 500, |seed| {
        let mut dice = Dice::new(seed);
        let mut line = Line::new(*dice.pick(&LIMITS));
        // Few with many clients each, and many with few.
        let (accounts, in_runs) = (*dice.pick(&[2, 5, POOLS]), dice.percent(30));
        for _ in 0..300 {
            match dice.below(100) {
                0 => line.set_limit(*dice.pick(&LIMITS)),
                1 => line.pause(),
                2..=15 if !line.leases.is_empty() => {
                    let place = dice.length(line.leases.len()) - 1;
                    let lease = line.leases.swap_remove(place);
                    let how = *dice.pick(&[Returned::Clean, Returned::Kept, Returned::Broken]);
                    line.give_back(lease, how);
                }
                16..=18 => line.rest(),
                19..=20 => line.log_in(),
                // Anybody, or many of one account behind each other.
                _ if in_runs => line.ask(line.came / 50 % accounts),
                _ => line.ask(dice.below(accounts)),
            }
        }
        if line.pools.is_paused(None) {
            line.pause();
        }
        line.rest();
        let open = u32::try_from(line.opening.len() + line.leases.len()).unwrap();
        assert!(line.waiting.is_empty() || open >= line.limit, "somebody waits for nothing");
        line.set_limit(10_000);
        line.rest();
        line.log_in();
        while let Some(lease) = line.leases.pop() {
            line.give_back(lease, Returned::Broken);
        }
        line.pools.close_idle(None);
        line.look();
        assert!(line.waiting.is_empty() && line.pools.is_empty(), "everybody was served, and nothing is left");
    });
}

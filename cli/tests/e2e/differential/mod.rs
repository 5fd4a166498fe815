//! The same messages to PostgreSQL and through gprxy, made by dice: every answer is the same.
//!
//! What may differ: the order in which settings are reported (their values at each ReadyForQuery may not), numbers of
//! tables and processes, and the one NOTICE by which gprxy says that a session keeps its connection. The scripts leave out
//! what docs/compatibility.md lists.
//!
//! `GPRXY_SEEDS=4711` runs one seed, `GPRXY_SEEDS=0..100000` many, `GPRXY_SEEDS=4711*50` one again and again: for what
//! depends on time.

mod grammar;
mod noise;
mod script;
mod session;

use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::support::fixtures::CLEARTEXT;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::target::Target;
use crate::support::wire::Wire;

use grammar::Dice;
use noise::{Noise, stranger};
use script::Step;
use session::{Answers, Event, agree, play};

/// Seeds of a usual run.
const ENOUGH: Range<u64> = 0..60;
/// Behind so many differences a run ends.
const MOST_REPORTS: usize = 5;
/// How long a script that fails is made shorter.
const REDUCTION: Duration = Duration::from_secs(60);

fn seeds() -> Box<dyn Iterator<Item = u64>> {
    let Ok(wanted) = std::env::var("GPRXY_SEEDS") else { return Box::new(ENOUGH) };
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("GPRXY_SEEDS={wanted}"));
    if let Some((seed, times)) = wanted.split_once('*') {
        let seed = number(seed);
        return Box::new((0..number(times)).map(move |_| seed));
    }
    match wanted.split_once("..") {
        Some((from, to)) => Box::new(number(from)..number(to)),
        None => Box::new(std::iter::once(number(&wanted))),
    }
}

/// A database to itself, in the same state before every script.
struct Side {
    target: Target,
    keeper: Wire,
}

impl Side {
    fn new(server: &'static Cluster, direct: &Target, target: Target, database: &str) -> Self {
        server.sql(&format!("create database {database} template template0 owner {}", CLEARTEXT.0));
        let keeper = Wire::login(&direct.clone().with_database(database)).unwrap();
        Self { target: target.with_database(database), keeper }
    }

    fn prepare(&mut self) {
        self.keeper
            .rows(
                "drop table if exists t, u, u2; create table t (id int primary key, v text); \
                 insert into t values (1, 'one'), (2, 'two'), (3, null); \
                 create table u (id int, v int references t deferrable initially deferred)",
            )
            .unwrap();
    }

    fn play(&mut self, script: &[Step], noise: Option<&mut Noise>) -> Answers {
        self.prepare();
        play(&self.target, script, noise)
    }
}

/// The step where answers are others first, PostgreSQL's and gprxy's.
type Difference = (usize, Vec<Event>, Vec<Event>);

/// One way through gprxy, beside the direct one.
struct Comparison {
    direct: Side,
    proxied: Side,
    noise: Option<Noise>,
    _gprxy: Gprxy,
}

impl Comparison {
    fn new(version: Version, name: &str, config: impl Fn(Config) -> Config, connections: usize) -> Self {
        let gprxy = config(Config::new(version).role("writer", CLEARTEXT, 1).set("pool.query_wait_notify", 0)).start();
        let server = Cluster::shared(version);
        let direct = Target::direct(version).in_plaintext();
        let through = gprxy.target("bob").in_plaintext();
        let proxied = Side::new(server, &direct, through, &format!("diff_{name}"));
        let noise = (connections > 0).then(|| {
            let people =
                [proxied.target.clone(), stranger(&gprxy).in_plaintext().with_database(&format!("diff_{name}"))];
            Noise::new(&people, connections)
        });
        let direct = Side::new(server, &direct, direct.clone(), &format!("diff_{name}_direct"));
        Self { direct, proxied, noise, _gprxy: gprxy }
    }

    /// The first step with other answers, and the answers.
    fn difference(&mut self, seed: u64, script: &[Step]) -> Option<Difference> {
        let direct = self.direct.play(script, None);
        assert!(!direct.iter().flatten().any(|event| matches!(event, Event::Silent)), "seed {seed} waits for nothing");
        if let Some(noise) = &mut self.noise {
            noise.reset(seed);
        }
        let proxied = self.proxied.play(script, self.noise.as_mut());
        if let Some(noise) = &mut self.noise {
            noise.finish();
        }
        let of = |answers: &Answers, n: usize| -> Vec<Event> { answers.get(n).cloned().unwrap_or_default() };
        let step = (0..direct.len().max(proxied.len())).find(|&n| !agree(&of(&direct, n), &of(&proxied, n)))?;
        Some((step, of(&direct, step), of(&proxied, step)))
    }

    /// A shorter script that still differs.
    fn reduce(&mut self, seed: u64, mut script: Vec<Step>) -> Vec<Step> {
        let end = Instant::now() + REDUCTION;
        for n in (0..script.len()).rev() {
            let mut shorter = script.clone();
            shorter.remove(n);
            if Instant::now() < end && self.difference(seed, &shorter).is_some() {
                script = shorter;
            }
        }
        for n in 0..script.len() {
            // All but the last one, whose answer ends the step.
            for say in (0..script[n].says.len().saturating_sub(1)).rev() {
                let mut shorter = script.clone();
                shorter[n].says.remove(say);
                let is_whole = script[n].can_be_shortened();
                if is_whole && Instant::now() < end && self.difference(seed, &shorter).is_some() {
                    script = shorter;
                }
            }
        }
        script
    }

    fn run(&mut self, test: &str) {
        let mut reports = Vec::new();
        for seed in seeds() {
            let script = Dice::new(seed).script();
            let Some(first) = self.difference(seed, &script) else { continue };
            let step = first.0;
            let up_to_there = script[..=step.min(script.len() - 1)].to_vec();
            let shorter = if self.difference(seed, &up_to_there).is_some() { up_to_there } else { script.clone() };
            let shorter = self.reduce(seed, shorter);
            // What depends on time does not come again.
            reports.push(match self.difference(seed, &shorter) {
                Some(found) => report(test, seed, &shorter, &found),
                None => report(test, seed, &script, &first),
            });
            if reports.len() == MOST_REPORTS {
                break;
            }
        }
        assert!(reports.is_empty(), "gprxy answers otherwise than PostgreSQL\n{}", reports.join("\n"));
    }
}

fn report(test: &str, seed: u64, script: &[Step], (at, direct, proxied): &Difference) -> String {
    let mut text = format!("seed {seed}\n");
    for (n, step) in script.iter().enumerate() {
        let _ = writeln!(text, "step {n}, ends {:?}, cut at {:?} %", step.end, step.cuts);
        for say in &step.says {
            let _ = writeln!(text, "    {say}");
        }
    }
    for (who, events) in [("PostgreSQL", direct), ("gprxy", proxied)] {
        let _ = writeln!(text, "step {at}, {who}:");
        for event in events {
            let _ = writeln!(text, "    {event}");
        }
    }
    let command = "cargo test -p gprxy --features smol --test e2e";
    let _ = writeln!(text, "to repeat: GPRXY_SEEDS={seed} {command} differential::{test}");
    text
}

macro_rules! compares {
    ($name:ident, $version:ident, $connections:expr, $config:expr) => {
        #[test]
        fn $name() {
            Comparison::new(Version::$version, stringify!($name), $config, $connections).run(stringify!($name));
        }
    };
}

fn session(config: Config) -> Config {
    config.pool_of(1)
}

fn one_connection(config: Config) -> Config {
    config.set("pool.pool_mode", "transaction").pool_of(1)
}

/// So few prepared statements that most have to come again.
fn two_connections(config: Config) -> Config {
    config.set("pool.pool_mode", "transaction").pool_of(2).set("pool.max_prepared_statements", 2)
}

compares!(session_mode_15, V15, 0, session);
compares!(session_mode_18, V18, 0, session);
compares!(transaction_mode_15, V15, 1, one_connection);
compares!(transaction_mode_18, V18, 1, one_connection);
compares!(transaction_mode_with_evictions_15, V15, 2, two_connections);
compares!(transaction_mode_with_evictions_18, V18, 2, two_connections);

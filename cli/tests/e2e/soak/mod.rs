//! Thousands of clients on twenty server connections, with everything going wrong that can: no answer is ever another's.
//!
//! Usually 200 clients for some seconds; `make soak-clients` runs 2,000 for a minute (`GPRXY_SOAK_CLIENTS`,
//! `GPRXY_SOAK_SECONDS`).

mod client;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::eventually;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::limits::raise_own_descriptors;
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::Wire;

use client::{Client, Tally};

const DATABASE: &str = "soak";
const CONNECTIONS: usize = 20;
/// People; each of them has many clients.
const PEOPLE: usize = 40;
/// Threads of clients need little.
const STACK: usize = 256 * 1024;
/// Between two server processes that are terminated.
const BETWEEN_FAULTS: Duration = Duration::from_millis(700);

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn people(gprxy: &Gprxy) -> Vec<Target> {
    let person = |n: usize| {
        let claims =
            json!({ "sub": format!("soaker-{n}"), "email": format!("soaker{n}@corp.example"), "roles": ["writer"] });
        let target =
            gprxy.target("bob").in_plaintext().with_database(DATABASE).with_user(&format!("soaker{n}@corp.example"));
        target.with_password(&Provider::shared().mint(claims))
    };
    (0..PEOPLE).map(person).collect()
}

/// Terminates a server process now and then, and crashes the server once, half-way. Meanwhile the server never has more
/// connections than the pool may have, but for those that it still counts when it has told their end.
fn misfortune(server: &Cluster, begun: Instant, end: Instant) -> usize {
    let half = begun + (end - begun) / 2;
    let (mut terminated, mut crashed) = (0, false);
    while Instant::now() + BETWEEN_FAULTS < end {
        thread::sleep(BETWEEN_FAULTS);
        if !crashed && Instant::now() > half {
            crashed = true;
            server.stop();
            server.resume();
            continue;
        }
        eventually("no more connections than the pool may have", || {
            (server.connections_to(DATABASE).0 <= CONNECTIONS).then_some(())
        });
        let victim = "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity \
                      where usename = 'app_writer' order by random() limit 1) victim";
        terminated += usize::from(server.sql(victim) == "1");
    }
    assert!(crashed, "the server was up all the time");
    terminated
}

#[test]
fn many_clients_on_few_connections_get_their_own_answers_whatever_happens() {
    let clients = setting("GPRXY_SOAK_CLIENTS", 200);
    let seconds = setting("GPRXY_SOAK_SECONDS", 5);
    raise_own_descriptors();
    let server = Cluster::leaked(Version::V15);
    server.sql(&format!("create database {DATABASE} template appdb owner app_writer"));
    let config = Config::with(server, Provider::shared()).set("pool.pool_mode", "transaction");
    let config =
        config.set("pool.query_wait_notify", 0).set("pool.server_login_retry", "200ms").set("log.level", "info");
    let mut gprxy = config.queue_wait("60s").pool_of(CONNECTIONS as i64).start();
    let people = people(&gprxy);
    Wire::login(&people[0]).unwrap().rows("create table soak (text text)").unwrap();
    let start = Barrier::new(clients + 1);
    let (mut tally, mut terminated) = (Tally::default(), 0);
    thread::scope(|scope| {
        let run = |number: usize| {
            let client = Client::new(people[number % PEOPLE].clone(), number);
            let start = &start;
            let begin = move || {
                start.wait();
                client.run(Instant::now() + Duration::from_secs(seconds as u64))
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, begin).expect("a thread")
        };
        let threads: Vec<_> = (0..clients).map(run).collect();
        start.wait();
        let begun = Instant::now();
        terminated = misfortune(server, begun, begun + Duration::from_secs(seconds as u64));
        threads.into_iter().for_each(|thread| tally.add(thread.join().unwrap()));
    });
    let Tally { answers, logins, lost, vanished, cancelled, committed, wrong } = tally;
    println!(
        "{clients} clients, {seconds} s: {answers} answers, {logins} logins, {lost} lost, {vanished} vanished, \
         {cancelled} cancelled, {terminated} terminated, {} wrong",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} wrong answers\n{}", wrong.len(), wrong.join("\n"));
    assert!(answers > clients as u64, "somebody was served");
    server.await_idle(DATABASE, CONNECTIONS);
    let mut last = eventually("somebody else to be served", || Wire::login(&people[0]).ok());
    assert_eq!(last.value("select count(*) from soak where text like 'ghost%'"), "0", "what was never committed");
    let kept: u64 = last.value("select count(*) from soak").parse().unwrap();
    assert!(kept >= committed, "{kept} rows of {committed} that were committed");
    gprxy.assert_alive();
}

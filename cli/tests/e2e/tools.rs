//! PostgreSQL's own programs through transaction mode: the same output as with a direct connection.

use std::path::Path;

use crate::support::fixtures::CLEARTEXT;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::psql;
use crate::support::reaper::fresh_path;
use crate::support::target::Target;

const BOTH: [Version; 2] = [Version::V15, Version::V18];

/// What psql's describing commands have to show something of.
const OBJECTS: &str = "create schema shop; create type shop.mood as enum ('good', 'bad'); \
     create domain shop.amount as int check (value > 0); create sequence shop.numbers; \
     create table shop.item (id int primary key, name text not null default 'x', mood shop.mood, price shop.amount); \
     create table shop.part (n int references shop.item, id int) partition by range (id); \
     create table shop.part_1 partition of shop.part for values from (1) to (100); \
     create index item_name on shop.item (lower(name)); create view shop.names as select id, name from shop.item; \
     create materialized view shop.all_of_it as select * from shop.item; \
     create function shop.twice(n int) returns int language sql as 'select 2 * n'; \
     create statistics shop.both (dependencies) on id, price from shop.item; \
     comment on table shop.item is 'what there is'; alter table shop.item enable row level security; \
     create policy mine on shop.item for select using (id > 0); \
     insert into shop.item select n, 'item ' || n, 'good', n from generate_series(1, 500) n; \
     insert into shop.part select n, n % 99 + 1 from generate_series(1, 500) n; \
     alter default privileges in schema shop grant select on tables to app_reader";

const DESCRIBE: [&str; 30] = [
    "\\d",
    "\\d+",
    "\\d shop.*",
    "\\d+ shop.*",
    "\\da",
    "\\dA",
    "\\dAc btree",
    "\\dc",
    "\\dC",
    "\\dd",
    "\\dD+ shop.*",
    "\\ddp",
    "\\dE",
    "\\des",
    "\\df+ shop.*",
    "\\dg",
    "\\di+ shop.*",
    "\\dL",
    "\\dm shop.*",
    "\\dn+",
    "\\dO",
    "\\dp shop.*",
    "\\dP+ shop.*",
    "\\dRp",
    "\\ds shop.*",
    "\\dT+ shop.*",
    "\\dv+ shop.*",
    "\\dx",
    "\\dX shop.*",
    "\\sf shop.twice",
];

/// A database of the account's own with these objects in it, and two ways to it.
fn ways(version: Version, name: &str) -> (Target, Target, Gprxy) {
    let server = Cluster::shared(version);
    server.sql(&format!("create database {name} template template0 owner {}", CLEARTEXT.0));
    let direct = Target::direct(version).with_database(name);
    psql::run(&direct, &[OBJECTS]).ok();
    let config = Config::new(version).role("writer", CLEARTEXT, 1).set("pool.pool_mode", "transaction").pool_of(2);
    // Nothing of gprxy's own in what the programs print.
    let gprxy = config.set("pool.query_wait_notify", 0).start();
    let through = gprxy.target("bob").with_database(name);
    (direct, through, gprxy)
}

#[test]
fn psql_describes_everything_as_with_a_direct_connection() {
    for version in BOTH {
        let (direct, through, mut gprxy) = ways(version, "described");
        let mut lines = 0;
        for what in DESCRIBE {
            let (expected, told) = (psql::run(&direct, &[what]), psql::run(&through, &[what]));
            assert_eq!((told.code, &told.err, &told.out), (expected.code, &expected.err, &expected.out), "{what}");
            lines += expected.out.lines().count();
        }
        assert!(lines > 100, "{lines} lines");
        gprxy.assert_alive();
    }
}

fn dump(target: &Target, into: &Path) {
    let mut command = psql::tool(target, "pg_dump");
    command.args(["-Fd", "-f"]).arg(into);
    psql::finish(command).ok();
}

/// Without what a dump says of itself.
fn text_of(target: &Target) -> Vec<String> {
    let dump = psql::finish(psql::tool(target, "pg_dump")).ok();
    dump.lines().filter(|line| !line.contains("restrict")).map(str::to_owned).collect()
}

#[test]
fn a_dump_is_restored_by_two_jobs_on_two_connections() {
    let version = Version::V15;
    let (direct, through, mut gprxy) = ways(version, "dumped");
    let folder = fresh_path("dump");
    dump(&through, &folder);
    gprxy.server().sql(&format!("create database restored template template0 owner {}", CLEARTEXT.0));
    let there = through.clone().with_database("restored");
    let mut restore = psql::tool(&there, "pg_restore");
    restore.args(["-j", "2", "--exit-on-error", "-d", "restored"]).arg(&folder);
    psql::finish(restore).ok();
    assert_eq!(
        text_of(&direct.clone().with_database("restored")),
        text_of(&direct),
        "what came back is what was there"
    );
    assert_eq!(text_of(&there), text_of(&through), "and looks the same from here");
    gprxy.assert_alive();
}

#[test]
fn pgbench_s_own_transactions_balance() {
    let version = Version::V15;
    let (direct, through, mut gprxy) = ways(version, "balanced");
    let mut create = psql::tool(&direct, "pgbench");
    create.args(["-i", "-q", "-s", "1"]);
    psql::finish(create).ok();
    for mode in ["simple", "extended"] {
        let mut command = psql::tool(&through, "pgbench");
        command.args(["-n", "-c", "8", "-j", "2", "-t", "25", "-M", mode]);
        let out = psql::finish(command).ok();
        assert!(out.contains("processed: 200/200"), "{mode}: {out}");
    }
    let mut command = psql::tool(&through, "pgbench");
    command.args(["-n", "-S", "-c", "8", "-j", "2", "-t", "50", "-M", "prepared"]);
    assert!(psql::finish(command).ok().contains("processed: 400/400"));
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) \
                and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers) \
                and (select count(*) from pgbench_history) = 400";
    assert_eq!(psql::run(&direct, &[sums]).ok(), "t");
    gprxy.assert_alive();
}

//! `pgbench -S`: CPU time of the proxy per transaction.

use crate::Result;
use crate::peers::{Peer, Site};
use crate::process::{cpu_nanos, expect_success, user_share};
use crate::report::{Series, row, table};

pub(crate) const MODES: [&str; 3] = ["simple", "extended", "prepared"];
pub(crate) const CLIENTS: [u32; 3] = [16, 1, 64];
/// As many server connections as clients: session pooling never makes them wait.
pub(crate) const POOL: usize = 100;

/// One cell of the table, over all rounds.
#[derive(Clone, Default)]
pub(crate) struct Cell {
    /// CPU microseconds of the proxy per transaction.
    pub(crate) cost: Series,
    /// Transactions per second of the whole core.
    pub(crate) rate: Series,
    user_ticks: u64,
    system_ticks: u64,
}

pub(crate) fn measure(site: &Site<'_>, rounds: usize, seconds: u32) -> Result<()> {
    let peers = [
        Peer::direct(site),
        Peer::pgbouncer(site, POOL)?,
        Peer::gprxy(site, POOL, false)?,
        Peer::gprxy(site, POOL, true)?,
    ];
    table(
        "CPU time of the proxy per `pgbench -S` transaction, µs",
        &[
            "mode, clients",
            "PgBouncer",
            "gprxy",
            "gprxy, audit on",
            "**gprxy / PgBouncer**",
            "audited / PgBouncer",
            "user part: PgBouncer, gprxy",
            "transactions/s: direct, PgBouncer, gprxy, audited",
        ],
    );
    for mode in MODES {
        for clients in CLIENTS {
            let cells = take_turns(site, peers.each_ref(), mode, clients, rounds, seconds)?;
            show(mode, clients, &cells);
        }
    }
    Ok(())
}

/// Everybody once in each round, in an order that changes from round to round.
pub(crate) fn take_turns<const N: usize>(
    site: &Site<'_>,
    peers: [&Peer; N],
    mode: &str,
    clients: u32,
    rounds: usize,
    seconds: u32,
) -> Result<[Cell; N]> {
    let mut cells = std::array::from_fn(|_| Cell::default());
    for peer in peers {
        warm_up(site, peer, mode, clients)?;
    }
    for round in 0..rounds {
        for turn in 0..N {
            let which = (turn + round) % N;
            run(site, peers[which], mode, clients, seconds, &mut cells[which])?;
        }
    }
    Ok(cells)
}

/// Opens the server connections; counted in transactions, since a busy machine may need long for that.
fn warm_up(site: &Site<'_>, peer: &Peer, mode: &str, clients: u32) -> Result<()> {
    let mut pgbench = peer.client(site, "pgbench");
    pgbench.args(["-S", "-n", "-M", mode, "-c", &clients.to_string(), "-t", "50"]);
    expect_success(&mut pgbench).map(drop)
}

fn run(site: &Site<'_>, peer: &Peer, mode: &str, clients: u32, seconds: u32, cell: &mut Cell) -> Result<()> {
    let mut pgbench = peer.client(site, "pgbench");
    pgbench.args(["-S", "-n", "-M", mode, "-c", &clients.to_string(), "-T", &seconds.to_string()]);
    let before = peer.pid().map(|pid| Ok::<_, Box<dyn std::error::Error>>((cpu_nanos(pid)?, user_share(pid)?)));
    let before = before.transpose()?;
    let said = expect_success(&mut pgbench)?;
    let transactions: f64 = field(&said, "number of transactions actually processed: ")?;
    cell.rate.push(field(&said, "tps = ")?);
    if let (Some(pid), Some((cpu, (user, system)))) = (peer.pid(), before) {
        let after = user_share(pid)?;
        cell.user_ticks += after.0 - user;
        cell.system_ticks += after.1 - system;
        cell.cost.push((cpu_nanos(pid)? - cpu) as f64 / 1000.0 / transactions);
    }
    Ok(())
}

fn field(said: &str, name: &str) -> Result<f64> {
    let rest = said
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .ok_or_else(|| format!("pgbench ran no transaction, or does not say so:\n{said}"))?;
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    Ok(number.parse()?)
}

fn show(mode: &str, clients: u32, [direct, pgbouncer, gprxy, audited]: &[Cell; 4]) {
    let user = |cell: &Cell| cell.user_ticks as f64 / (cell.user_ticks + cell.system_ticks) as f64 * cell.cost.median();
    let rates = [direct, pgbouncer, gprxy, audited].map(|cell| format!("{:.0}", cell.rate.median())).join(", ");
    row(&[
        format!("{mode}, {clients}"),
        pgbouncer.cost.show(2),
        gprxy.cost.show(2),
        audited.cost.show(2),
        format!("**{}**", gprxy.cost.over(&pgbouncer.cost).show(2)),
        audited.cost.over(&pgbouncer.cost).show(2),
        format!("{:.1}, {:.1}", user(pgbouncer), user(gprxy)),
        rates,
    ]);
}

//! `pgbench -S`: CPU time of the proxy per transaction.

use crate::Result;
use crate::peers::{Peer, Site};
use crate::process::{cpu_nanos, expect_success, user_share};
use crate::report::{Series, row, table};

const MODES: [&str; 3] = ["simple", "extended", "prepared"];
const CLIENTS: [u32; 3] = [16, 1, 64];
/// As many server connections as clients: session pooling never makes them wait.
const POOL: usize = 100;

/// One cell of the table, over all rounds.
#[derive(Clone, Default)]
struct Cell {
    /// CPU microseconds of the proxy per transaction.
    cost: Series,
    /// Transactions per second of the whole core.
    rate: Series,
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
            let mut cells: [Cell; 4] = Default::default();
            for peer in &peers {
                // Opens the server connections and warms the caches.
                run(site, peer, mode, clients, 1, &mut Cell::default())?;
            }
            for round in 0..rounds {
                for turn in 0..peers.len() {
                    let which = (turn + round) % peers.len();
                    run(site, &peers[which], mode, clients, seconds, &mut cells[which])?;
                }
            }
            show(mode, clients, &cells);
        }
    }
    Ok(())
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
    let rest =
        said.lines().find_map(|line| line.strip_prefix(name)).ok_or("pgbench says something else than expected")?;
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

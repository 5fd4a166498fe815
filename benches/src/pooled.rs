//! `pgbench -S` in transaction mode: many clients on few server connections.

use crate::Result;
use crate::peers::{Peer, Site};
use crate::relay::{CLIENTS, MODES, take_turns};
use crate::report::{row, table};

/// Server connections.
const POOL: usize = 16;

pub(crate) fn measure(site: &Site<'_>, rounds: usize, seconds: u32) -> Result<()> {
    let gprxy = [Peer::gprxy_shared(site, POOL, false)?, Peer::gprxy_shared(site, POOL, true)?];
    let pgbouncer = Peer::pgbouncer_in(site, "transaction", POOL)?;
    table(
        "CPU time of the proxy per `pgbench -S` transaction in transaction mode, 16 server connections, µs",
        &[
            "mode, clients",
            "PgBouncer",
            "gprxy",
            "gprxy, audit on",
            "**gprxy / PgBouncer**",
            "audited / PgBouncer",
            "transactions/s: PgBouncer, gprxy, audited",
        ],
    );
    let [plain, audited] = gprxy;
    let all = [pgbouncer, plain, audited];
    for mode in MODES {
        for clients in CLIENTS {
            // Debian's PgBouncer does not know prepared statements in this mode.
            if mode == "prepared" {
                let [_, plain, audited] = &all;
                let cells = take_turns(site, [plain, audited], mode, clients, rounds, seconds)?;
                let [plain, audited] = cells;
                let rates = format!("–, {}, {}", plain.rate.show(0), audited.rate.show(0));
                row(&[
                    format!("{mode}, {clients}"),
                    "–".into(),
                    plain.cost.show(2),
                    audited.cost.show(2),
                    "–".into(),
                    "–".into(),
                    rates,
                ]);
                continue;
            }
            let [pgbouncer, plain, audited] = take_turns(site, all.each_ref(), mode, clients, rounds, seconds)?;
            let rates = [&pgbouncer, &plain, &audited].map(|cell| format!("{:.0}", cell.rate.median())).join(", ");
            row(&[
                format!("{mode}, {clients}"),
                pgbouncer.cost.show(2),
                plain.cost.show(2),
                audited.cost.show(2),
                format!("**{}**", plain.cost.over(&pgbouncer.cost).show(2)),
                audited.cost.over(&pgbouncer.cost).show(2),
                rates,
            ]);
        }
    }
    Ok(())
}

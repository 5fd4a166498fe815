//! `pgbench -S` through both runtimes of the same binary.

use crate::Result;
use crate::peers::{Peer, Site};
use crate::relay::{CLIENTS, MODES, POOL, take_turns};
use crate::report::{row, table};

pub(crate) fn measure(site: &Site<'_>, rounds: usize, seconds: u32) -> Result<()> {
    let peers = [Peer::gprxy_on(site, "tokio", POOL, false)?, Peer::gprxy_on(site, "smol", POOL, false)?];
    table(
        "Both runtimes, `pgbench -S`",
        &[
            "mode, clients",
            "tokio, µs",
            "smol, µs",
            "**CPU, smol / tokio**",
            "tokio, tx/s",
            "smol, tx/s",
            "**tx/s, smol / tokio**",
        ],
    );
    for mode in MODES {
        for clients in CLIENTS {
            let [tokio, smol] = take_turns(site, peers.each_ref(), mode, clients, rounds, seconds)?;
            row(&[
                format!("{mode}, {clients}"),
                tokio.cost.show(2),
                smol.cost.show(2),
                format!("**{}**", smol.cost.over(&tokio.cost).show(2)),
                tokio.rate.show(0),
                smol.rate.show(0),
                format!("**{}**", smol.rate.over(&tokio.rate).show(2)),
            ]);
        }
    }
    Ok(())
}

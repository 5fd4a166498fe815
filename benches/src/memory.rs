//! Memory of the proxy: while one huge value passes, for each session that waits, for each that idles.

use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::peers::{Peer, Site};
use crate::process::{forget_peak, peak_kib, resident_kib};
use crate::report::{row, table};
use crate::wire::Client;

/// PostgreSQL's limit for a value is 1 GiB with its header; this is what fits into a row, too.
const HUGE: u32 = 1024 * 1024 * 1023;
/// Each needs a server connection.
const IDLE: usize = 500;
/// Lets the proxy finish what it does for the last client.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) fn measure(site: &Site<'_>, waiting: usize) -> Result<()> {
    table("Memory of the proxy process", &["", "PgBouncer", "gprxy", "gprxy, audit on"]);
    let line = |name: &str, values: [Result<f64>; 3], unit: &str| -> Result<()> {
        let mut cells = vec![name.to_owned()];
        for value in values {
            cells.push(format!("{:.1} {unit}", value?));
        }
        row(&cells);
        Ok(())
    };
    let all = |pool: usize, of: &dyn Fn(&Peer) -> Result<f64>| -> [Result<f64>; 3] {
        [
            Peer::pgbouncer(site, pool).and_then(|peer| of(&peer)),
            Peer::gprxy(site, pool, false).and_then(|peer| of(&peer)),
            Peer::gprxy(site, pool, true).and_then(|peer| of(&peer)),
        ]
    };
    line("resident after its start", all(5, &|peer| Ok(resident_kib(pid(peer)?)? as f64 / 1024.0)), "MB")?;
    line(&format!("more at its peak while one value of {HUGE} bytes passes"), all(5, &huge), "MB")?;
    line(
        &format!("each of {waiting} authenticated sessions that wait in the queue"),
        all(1, &|peer| queue(peer, waiting)),
        "KB",
    )?;
    line(&format!("each of {IDLE} idle sessions with a server connection, after one query"), all(IDLE, &idle), "KB")
}

fn pid(peer: &Peer) -> Result<u32> {
    Ok(peer.pid().ok_or("a proxy was expected")?)
}

fn huge(peer: &Peer) -> Result<f64> {
    let pid = pid(peer)?;
    let mut client = Client::connect(peer)?;
    client.query("select repeat('x', 100000)")?;
    sleep(SETTLE);
    forget_peak(pid)?;
    let before = resident_kib(pid)?;
    let passed = client.query(&format!("select repeat('x', {HUGE})"))?;
    if passed < u64::from(HUGE) {
        return Err("the value did not arrive whole".into());
    }
    Ok((peak_kib(pid)? - before) as f64 / 1024.0)
}

/// One client has the only server connection; all others are let in and wait for it.
fn queue(peer: &Peer, waiting: usize) -> Result<f64> {
    let pid = pid(peer)?;
    let mut holder = Client::connect(peer)?;
    holder.query("select 1")?;
    sleep(SETTLE);
    let before = resident_kib(pid)?;
    let clients = (0..waiting).map(|_| Client::authenticate(peer)).collect::<Result<Vec<_>>>()?;
    sleep(SETTLE);
    let after = resident_kib(pid)?;
    Ok((after - before) as f64 / clients.len() as f64)
}

fn idle(peer: &Peer) -> Result<f64> {
    let pid = pid(peer)?;
    let mut first = Client::connect(peer)?;
    first.query("select 1")?;
    sleep(SETTLE);
    let before = resident_kib(pid)?;
    let mut clients = Vec::with_capacity(IDLE - 1);
    for _ in 1..IDLE {
        let mut client = Client::connect(peer)?;
        client.query("select 1")?;
        clients.push(client);
    }
    sleep(SETTLE);
    let after = resident_kib(pid)?;
    Ok((after - before) as f64 / clients.len() as f64)
}

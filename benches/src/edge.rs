//! The edge build: how large it is, and what it takes while people are connected and idle.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::peers::{Peer, Site};
use crate::process::resident_kib;
use crate::report::{Series, row, table};
use crate::wire::Client;

/// Each has run a query and keeps its server connection.
const IDLE: usize = 100;
/// Lets the proxy finish what it does for the last client.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) fn measure(site: &Site<'_>, program: &Path, rounds: usize) -> Result<()> {
    let (mut started, mut busy, mut threads) = (Series::default(), Series::default(), Series::default());
    for _ in 0..rounds {
        let peer = Peer::edge(site, program, IDLE)?;
        let pid = peer.pid().ok_or("a proxy was expected")?;
        sleep(SETTLE);
        started.push(resident_kib(pid)? as f64 / 1024.0);
        let mut clients = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut client = Client::connect(&peer)?;
            client.query("select 1")?;
            clients.push(client);
        }
        sleep(SETTLE);
        busy.push(resident_kib(pid)? as f64 / 1024.0);
        threads.push(fs::read_dir(format!("/proc/{pid}/task"))?.count() as f64);
    }
    table("The edge build", &["", ""]);
    row(&["size, stripped".into(), format!("{:.2} MB", fs::metadata(program)?.len() as f64 / 1e6)]);
    row(&["resident after its start".into(), format!("{} MiB", started.show(2))]);
    row(&[format!("resident with {IDLE} idle sessions, audit on"), format!("{} MiB", busy.show(2))]);
    row(&["threads then".into(), threads.show(0)]);
    Ok(())
}

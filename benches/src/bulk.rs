//! COPY: CPU time of the proxy per megabyte.

use std::io::Write as _;
use std::process::Stdio;

use crate::Result;
use crate::peers::{Peer, Site};
use crate::process::cpu_nanos;
use crate::report::{Series, row, table};

/// Bytes of a line, its newline included.
const LINE: usize = 1000;

#[derive(Clone, Copy)]
enum Direction {
    Out,
    In,
}

pub(crate) fn measure(site: &Site<'_>, rounds: usize, megabytes: u32) -> Result<()> {
    let peers = [Peer::pgbouncer(site, 10)?, Peer::gprxy(site, 10, false)?, Peer::gprxy(site, 10, true)?];
    table(
        &format!("CPU time of the proxy per MB of COPY ({megabytes} MB in lines of {LINE} bytes), µs"),
        &["direction", "PgBouncer", "gprxy", "gprxy, audit on", "**gprxy / PgBouncer**", "audited / PgBouncer"],
    );
    for direction in [Direction::Out, Direction::In] {
        let mut series: [Series; 3] = Default::default();
        for peer in &peers {
            run(site, peer, direction, 20)?;
        }
        for round in 0..rounds {
            for turn in 0..peers.len() {
                let which = (turn + round) % peers.len();
                series[which].push(run(site, &peers[which], direction, megabytes)?);
            }
        }
        let [pgbouncer, gprxy, audited] = &series;
        row(&[
            match direction {
                Direction::Out => "COPY TO STDOUT".into(),
                Direction::In => "COPY FROM STDIN".into(),
            },
            pgbouncer.show(0),
            gprxy.show(0),
            audited.show(0),
            format!("**{}**", gprxy.over(pgbouncer).show(2)),
            audited.over(pgbouncer).show(2),
        ]);
    }
    Ok(())
}

/// Microseconds per megabyte.
fn run(site: &Site<'_>, peer: &Peer, direction: Direction, megabytes: u32) -> Result<f64> {
    let pid = peer.pid().ok_or("a proxy was expected")?;
    let lines = u64::from(megabytes) * 1_000_000 / LINE as u64;
    let mut psql = peer.client(site, "psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c"]).stdout(Stdio::null());
    match direction {
        Direction::Out => {
            psql.arg(format!("copy (select repeat('x', {}) from generate_series(1, {lines})) to stdout", LINE - 1));
        }
        // Every line is parsed and none is kept: the server's disk has no part in it.
        Direction::In => {
            psql.arg("copy sink from stdin where false").stdin(Stdio::piped());
        }
    }
    let before = cpu_nanos(pid)?;
    let mut child = psql.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        let mut block = vec![b'x'; LINE];
        block[LINE - 1] = b'\n';
        let block = block.repeat(1000);
        for _ in 0..lines / 1000 {
            input.write_all(&block)?;
        }
    }
    if !child.wait()?.success() {
        return Err("psql failed".into());
    }
    Ok((cpu_nanos(pid)? - before) as f64 / 1000.0 / f64::from(megabytes))
}

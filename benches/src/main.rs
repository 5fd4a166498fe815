//! gprxy beside PgBouncer and a direct connection, and on both of its runtimes: CPU time of the proxy process, and its
//! memory.
//!
//! Client, proxy and PostgreSQL share one core, so that nothing waits for a sleeping one and what is measured is work,
//! not wake-ups. All figures of one run come from interleaved rounds: compare ratios, not absolute figures.

mod bulk;
mod cluster;
mod edge;
mod issuer;
mod memory;
mod peers;
mod pooled;
mod process;
mod relay;
mod report;
mod runtimes;
mod wire;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use cluster::Cluster;
use issuer::Issuer;
use process::Stage;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measure gprxy beside Debian's PgBouncer and print Markdown.
#[derive(Parser)]
#[command(name = "gprxy-benches", max_term_width = 110)]
struct Options {
    /// Interleaved rounds of everything that is timed
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Length of each pgbench run
    #[arg(long, default_value_t = 4)]
    seconds: u32,

    /// Megabytes of each COPY
    #[arg(long, default_value_t = 500)]
    megabytes: u32,

    /// Sessions that wait in the pool's queue
    #[arg(long, default_value_t = 2000)]
    waiting: usize,

    /// The core that everything runs on; the last one by default
    #[arg(long)]
    core: Option<usize>,

    /// The release build
    #[arg(long, default_value = "target/release/gprxy", value_name = "FILE")]
    gprxy: PathBuf,

    /// The smallest build, for the part `edge`
    #[arg(long, default_value = "target/edge/gprxy", value_name = "FILE")]
    edge: PathBuf,

    /// Only these parts; without this, all but `edge`
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// pgbench -S
    Relay,
    /// pgbench -S in transaction mode, on fewer server connections than clients
    Pooled,
    /// COPY out and in
    Bulk,
    /// A value of 1 GB, sessions that wait, sessions that idle
    Memory,
    /// pgbench -S through tokio and through smol
    Runtimes,
    /// Size, threads and memory of the edge build
    Edge,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gprxy-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    process::raise_open_files()?;
    let stage = Stage::new(options.core)?;
    let cluster = Cluster::start(&stage)?;
    let issuer = Issuer::start()?;
    let gprxy = found(&options.gprxy, "cargo build --release -p gprxy --features smol");
    let gprxy = if options.only == [Part::Edge] { PathBuf::new() } else { gprxy? };
    let site = peers::Site { stage: &stage, cluster: &cluster, issuer: &issuer, gprxy };
    report::machine(&stage, &cluster)?;
    if wants(Part::Relay) {
        relay::measure(&site, options.rounds, options.seconds)?;
    }
    if wants(Part::Pooled) {
        pooled::measure(&site, options.rounds, options.seconds)?;
    }
    if wants(Part::Bulk) {
        bulk::measure(&site, options.rounds, options.megabytes)?;
    }
    if wants(Part::Memory) {
        memory::measure(&site, options.waiting)?;
    }
    if wants(Part::Runtimes) {
        runtimes::measure(&site, options.rounds, options.seconds)?;
    }
    if options.only.contains(&Part::Edge) {
        edge::measure(&site, &found(&options.edge, "make edge")?, options.rounds)?;
    }
    Ok(())
}

/// Programs are started in another folder.
fn found(program: &Path, builder: &str) -> Result<PathBuf> {
    Ok(program.canonicalize().map_err(|error| format!("{}: {error}; build it with {builder}", program.display()))?)
}

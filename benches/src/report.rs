//! Medians, spreads, ratios and tables in Markdown.

use std::fs;
use std::process::Command;

use crate::Result;
use crate::cluster::Cluster;
use crate::peers::PGBOUNCER;
use crate::process::{Stage, expect_success};

/// Repeated measurements of one thing.
#[derive(Clone, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    /// Each of these by its neighbour of the same round: what disturbed one disturbed the other.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    fn extremes(&self) -> (f64, f64) {
        self.0.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)))
    }

    /// `5.81 (5.70–5.93)`: the median, the least and the most.
    pub(crate) fn show(&self, digits: usize) -> String {
        if self.0.is_empty() {
            return "–".into();
        }
        let (low, high) = self.extremes();
        format!("{:.digits$} ({low:.digits$}–{high:.digits$})", self.median())
    }
}

/// What all figures below were measured on.
pub(crate) fn machine(stage: &Stage, cluster: &Cluster) -> Result<()> {
    let cores = fs::read_to_string("/proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")).count();
    let model = fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()))
        .unwrap_or_default();
    let kernel = expect_success(Command::new("uname").arg("-r"))?;
    let release = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    let pgbouncer = expect_success(Command::new(PGBOUNCER).arg("--version"))
        .map_err(|error| format!("PgBouncer is needed as the measure: {error}"))?;
    println!("- Machine: {cores} cores ({model}), Linux {release}; everything on core {}", stage.core);
    println!("- {}, SCRAM between proxy and server, loopback TCP, no TLS", cluster.version);
    println!("- {}, session pooling", pgbouncer.lines().next().unwrap_or_default());
    println!("- gprxy {}, release build, one worker", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// A heading and the head of a table.
pub(crate) fn table(title: &str, columns: &[&str]) {
    println!("\n## {title}\n");
    println!("| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

/// A line of a table.
pub(crate) fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Series(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Series(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Series::default().median().is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = Series(vec![2.0, 9.0]).over(&Series(vec![1.0, 3.0]));
        assert_eq!(ratio.show(1), "2.5 (2.0–3.0)");
    }
}

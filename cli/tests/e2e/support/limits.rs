//! What the kernel allows a process, and what a process uses of it.

use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Thousands of sockets at once need more descriptors than a login shell gives by default.
pub(crate) fn raise_own_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit everybody may");
}

/// Sets a limit of a running process, in the words of prlimit(1).
pub(crate) fn set(pid: u32, limit: &str) {
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), limit]).status().expect("prlimit starts");
    assert!(status.success(), "prlimit {limit}");
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

/// Memory that a process has taken for itself, in KiB: heap and stacks, not the pages of its program.
pub(crate) fn anonymous_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("a known line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

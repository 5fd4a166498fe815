//! `gprxy convert`: PgBouncer's configuration as a settings file.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::{config, refuse};

/// Runs the command. Standard output is TOML all through, without secrets.
pub(crate) fn run(file: &Path) -> ExitCode {
    let converted = config::convert(file);
    // A closed pipe (`| head`) is no reason to fail.
    let _ = std::io::stdout().write_all(converted.text.as_bytes());
    for (variable, what) in &converted.secrets {
        eprintln!("gprxy: set {variable} in the environment or in .env: the {what}");
    }
    for remark in &converted.remarks {
        eprintln!("gprxy: {remark}");
    }
    if converted.problems.is_empty() { ExitCode::SUCCESS } else { refuse(&converted.problems) }
}

//! `gprxy start`.

use std::process::ExitCode;

use crate::config::Settings;

/// Runs the proxy until it is told to end.
pub(crate) fn run(_settings: Settings) -> ExitCode {
    log::error!("this build of gprxy holds its settings and no proxy yet; nothing was started");
    ExitCode::FAILURE
}

//! `gprxy completions` and `gprxy man`, made from the command line's own description.

use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{CompletionsArgs, ManArgs};
use super::print;
use crate::args::Cli;
use crate::config::io_words;
use crate::sso::failure::{Failure, Result};

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gprxy", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode> {
    let cannot =
        |error: &std::io::Error| Failure::refused(format!("the manual cannot be written: {}", io_words(error)));
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| cannot(&error))?;
            clap_mangen::generate_to(Cli::command(), dir).map_err(|error| cannot(&error))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| cannot(&error))?;
            print(&String::from_utf8_lossy(&page));
        }
    }
    Ok(ExitCode::SUCCESS)
}

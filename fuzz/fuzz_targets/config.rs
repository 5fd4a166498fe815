//! Configuration files of any content: never a panic, never a refusal without a reason, one line for each problem.
//!
//! The loader is part of the binary, which has no library to link: its modules are compiled into this target. On stable
//! the same seeds are replayed and mutated by `cli/src/config/tests/hostile.rs`.
#![no_main]

#[path = "../../cli/src/config/mod.rs"]
#[expect(dead_code, unused_imports, reason = "only loading is fuzzed")]
mod config;
#[path = "../../cli/src/logging.rs"]
#[expect(dead_code, reason = "only what the loader needs of it")]
mod logging;

use std::path::PathBuf;
use std::sync::LazyLock;

use config::{Sources, load};

/// The loader reads files; this one is written anew for each input.
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("gprxy-fuzz-{}.toml", std::process::id())));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::fs::write(&*PATH, data).expect("the temporary folder can be written to");
    let loaded = load(&Sources { dotenv: None, ..Sources::of_process(Some(PATH.clone())) });
    let effective = loaded.effective.to_string();
    let problems = match loaded.settings {
        Ok(_) => {
            assert!(effective.parse::<toml::Table>().is_ok(), "{effective}");
            Vec::new()
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            problems
        }
    };
    for line in problems.iter().map(ToString::to_string).chain(loaded.warnings) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
});

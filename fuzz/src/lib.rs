//! Seeds for the fuzz targets, and a small deterministic fuzzer that needs neither nightly nor a C++ compiler.
//!
//! The targets are in `fuzz_targets/`, their bodies in [`gprxy_proto::testing::fuzz`]. `scripts/fuzz` runs them with
//! cargo-fuzz; `cargo test -p gprxy-fuzz` replays what is committed: `seeds/` is written by `make-seeds`, `found/` holds
//! every input that ever broke a law.

mod mutate;
pub mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use mutate::Mutator;

/// Runs a body, and says which input it was when a law is broken.
pub fn run(target: &str, body: fn(&[u8]), data: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(data))) {
        eprintln!("{target}, {what}: keep this input in fuzz/found/{target}/ once it is understood:");
        eprintln!("printf '{}'", printf(data));
        resume_unwind(panic);
    }
}

/// The bytes as `printf` of any shell takes them.
fn printf(data: &[u8]) -> String {
    data.iter().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b' ' | b'_' | b'=' | b',' | b'.' => text + &char::from(*byte).to_string(),
        byte => text + &format!("\\{byte:03o}"),
    })
}

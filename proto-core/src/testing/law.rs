//! Properties over many seeds.
//!
//! `GPRXY_SEEDS` says which: `GPRXY_SEEDS=4711` runs one, `GPRXY_SEEDS=0..100000` a range; without it, as many as the
//! test itself thinks are enough.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this run is to keep a transcript: it is the second one of a seed that failed.
#[must_use]
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// The seeds to try: those of `GPRXY_SEEDS`, or the first `enough`.
///
/// # Panics
/// When the variable holds neither a number nor a range.
#[must_use]
pub fn seeds(enough: u64) -> Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test is told by its caller which seeds to run")]
    let wanted = std::env::var("GPRXY_SEEDS").ok();
    let Some(wanted) = wanted else { return 0..enough };
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("GPRXY_SEEDS={wanted:?}"));
    match wanted.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&wanted)..number(&wanted) + 1,
    }
}

/// Runs a law for every seed. The first that fails is run once more with [`is_recording`], so that the transcript of
/// the world is on standard error, and the test fails.
///
/// # Panics
/// When the law does.
pub fn check(name: &str, enough: u64, law: impl Fn(u64)) {
    for seed in seeds(enough) {
        let Err(failure) = catch_unwind(AssertUnwindSafe(|| law(seed))) else { continue };
        eprintln!("law `{name}` fails with seed {seed}; once more, with a transcript:");
        RECORDING.set(true);
        let again = catch_unwind(AssertUnwindSafe(|| law(seed)));
        RECORDING.set(false);
        if again.is_ok() {
            eprintln!("the second run of seed {seed} did not fail: the law depends on more than its seed");
        }
        let test = std::thread::current().name().unwrap_or(name).to_owned();
        eprintln!("to repeat: GPRXY_SEEDS={seed} cargo test --all-features {test}");
        resume_unwind(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_seed_is_run_again_with_a_transcript() {
        let runs = std::sync::Mutex::new(Vec::new());
        let failed = catch_unwind(AssertUnwindSafe(|| {
            check("demo", 10, |seed| {
                runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((seed, is_recording()));
                assert!(seed < 3, "as planned");
            });
        }));
        assert!(failed.is_err());
        let runs = runs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert_eq!(runs[runs.len() - 2..], [(3, false), (3, true)]);
        assert!(!is_recording());
    }
}

//! What is committed, on stable: every seed, every input that was ever found, and some mutations of them.

use std::fs;
use std::path::{Path, PathBuf};

use gprxy_fuzz::seeds::all;
use gprxy_fuzz::{Mutator, run};
use gprxy_proto::testing::fuzz::TARGETS;

/// Mutations of each target's inputs.
const MUTATIONS: usize = 5000;

fn dir(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target)
}

/// The files of a folder in the order of their names; none when there is no folder.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn committed(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    [files(&dir("seeds", target)), files(&dir("found", target))].concat()
}

fn body(target: &str) -> fn(&[u8]) {
    TARGETS.into_iter().find(|(name, _)| *name == target).expect("it is a target").1
}

fn replay(target: &str) {
    let inputs = committed(target);
    assert!(!inputs.is_empty());
    for (path, data) in inputs {
        run(target, body(target), &data, &path.display().to_string());
    }
}

fn mutate(target: &str) {
    let inputs = committed(target).into_iter().map(|(_, data)| data).collect();
    let mut mutator = Mutator::new(target, inputs);
    for round in 0..MUTATIONS {
        run(target, body(target), &mutator.mutate(), &format!("mutation {round}"));
    }
}

macro_rules! for_each_target {
    ($($target:ident)*) => {
        mod committed_inputs_keep_the_laws {
            $(#[test]
            fn $target() {
                super::replay(stringify!($target));
            })*
        }

        mod mutations_of_them_do_too {
            $(#[test]
            fn $target() {
                super::mutate(stringify!($target));
            })*
        }

        #[test]
        fn no_target_is_forgotten() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($target)),*]);
        }
    };
}

for_each_target!(console frames gate keys login lookup mask messages pool reset scram session startup statements token);

/// The seeds come out of the generator, and each target has some.
#[test]
fn the_seeds_are_those_of_the_generator() {
    let mut expected: Vec<(PathBuf, Vec<u8>)> =
        all().into_iter().map(|seed| (dir("seeds", seed.target).join(seed.name), seed.data)).collect();
    expected.sort();
    let found: Vec<(PathBuf, Vec<u8>)> = TARGETS.iter().flat_map(|(target, _)| files(&dir("seeds", target))).collect();
    assert!(TARGETS.iter().all(|(target, _)| expected.iter().any(|(path, _)| path.starts_with(dir("seeds", target)))));
    let names = |seeds: &[(PathBuf, Vec<u8>)]| seeds.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "write them anew: cargo run -p gprxy-fuzz --bin make-seeds");
    for (expected, found) in expected.iter().zip(&found) {
        assert!(expected == found, "{} has changed: cargo run -p gprxy-fuzz --bin make-seeds", found.0.display());
    }
}

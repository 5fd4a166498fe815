//! Configuration files of any content: `fuzz/seeds/config`, the documented example, and mutations of them all.
//!
//! Why here and not in `fuzz/`: the loader is part of the binary, and nothing else has use for it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Case, set_mode};

const SECRET: &str = "s3cret-reader";
const MUTATIONS: usize = 2000;

fn inputs() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = [root.join("fuzz/seeds/config"), root.join("fuzz/found/config")];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.push(root.join("docs/gprxy.example.toml"));
    assert!(paths.len() > 5, "the seeds are gone");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Loads it, and holds the outcome against what every outcome promises. Everything that was said, in one text.
fn load(case: &Case, content: &[u8]) -> String {
    let path = case.dir.path().join("gprxy.toml");
    fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    let loaded = case.load();
    let mut said = loaded.warnings;
    let effective = loaded.effective.to_string();
    match loaded.settings {
        // What is shown as the settings in force is a configuration file itself.
        Ok(_) => assert!(effective.parse::<toml::Table>().is_ok(), "{effective}"),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            said.extend(problems.iter().map(ToString::to_string));
        }
    }
    for line in &said {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    said.push(effective);
    said.join("\n")
}

fn case() -> Case {
    Case::file("").env(&[("READER_PASSWORD", SECRET), ("WRITER_PASSWORD", "another")])
}

#[test]
fn every_seed_is_answered_and_no_secret_is_told() {
    let case = case();
    for (path, content) in inputs() {
        let said = load(&case, &content);
        assert!(!said.contains(SECRET), "{}: {said}", path.display());
    }
}

#[test]
fn mutations_of_them_are_answered() {
    let (case, inputs) = (case(), inputs());
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..MUTATIONS {
        let mut content = inputs[rng.usize(..inputs.len())].1.clone();
        for _ in 0..rng.usize(1..=5) {
            mutate(&mut rng, &mut content, &inputs);
        }
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(&case, &content)));
        assert!(answered.is_ok(), "round {round}, to be kept in fuzz/found/config: {}", content.escape_ascii());
    }
}

fn mutate(rng: &mut fastrand::Rng, content: &mut Vec<u8>, inputs: &[(PathBuf, Vec<u8>)]) {
    const PIECES: [&[u8]; 12] =
        [b"\"", b"'''", b"[[", b"]", b"= ", b"\n", b"\xff", b"\0", b"99999999999999999999", b"-1", b"{ a = [", b"${"];
    let at = rng.usize(..=content.len());
    let end = rng.usize(at..=content.len().min(at + 40));
    match rng.u8(..5) {
        0 if at < content.len() => content[at] ^= 1 << rng.u8(..8),
        1 => drop(content.drain(at..end)),
        2 => {
            let piece = content[at..end].to_vec();
            content.splice(at..at, piece);
        }
        3 => drop(content.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied())),
        _ => {
            // A line of another file.
            let (_, other) = &inputs[rng.usize(..inputs.len())];
            let lines: Vec<&[u8]> = other.split(|&byte| byte == b'\n').collect();
            let line = lines[rng.usize(..lines.len())];
            let start = content[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            content.splice(start..start, [line, b"\n"].concat());
        }
    }
}

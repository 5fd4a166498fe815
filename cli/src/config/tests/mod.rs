//! Loading as a whole: files, environment and `.env` on a real file system, without touching this process's own.

mod documents;
mod hostile;
mod layers;
mod mistakes;
mod secrets;

use std::path::PathBuf;

use tempfile::TempDir;

use super::sources::Environment;
use super::{Loaded, Problem, Settings, Sources, load};

/// The least that is accepted.
pub(crate) const LEAST: &str = r#"
[[issuer]]
issuer = "https://idp.example/"
audience = "https://db.example"

[[role]]
name = "reader"
account = "app_reader"
password = "${READER_PASSWORD}"
"#;

/// A working directory with sources in it.
pub(crate) struct Case {
    pub(crate) dir: TempDir,
    sources: Sources,
}

impl Case {
    /// No file, no `.env`, an empty environment.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources { dotenv: Some(dir.path().join(".env")), ..Sources::default() };
        Self { dir, sources }
    }

    /// This file, with a password for [`LEAST`] in the environment.
    pub(crate) fn file(text: &str) -> Self {
        Self::empty().with_file(text).env(&[("READER_PASSWORD", "s3cret-reader")])
    }

    /// [`LEAST`] and this.
    pub(crate) fn least_and(text: &str) -> Self {
        Self::file(&format!("{LEAST}\n{text}"))
    }

    pub(crate) fn with_file(mut self, text: &str) -> Self {
        self.sources.file = Some(self.write("gprxy.toml", text));
        self
    }

    pub(crate) fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        self.sources.environment = Environment::from_pairs(pairs.iter().copied());
        self
    }

    pub(crate) fn dotenv(self, text: &str) -> Self {
        self.write(".env", text);
        self
    }

    pub(crate) fn with_demo_issuer(mut self) -> Self {
        self.sources.allow_demo_issuer = true;
        self
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    pub(crate) fn load(&self) -> Loaded {
        load(&self.sources)
    }

    pub(crate) fn settings(&self) -> Settings {
        self.load().settings.unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    /// The problems as they are shown, the directory's own name cut away.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems: Vec<Problem> = self.load().settings.err().unwrap_or_default();
        let dir = format!("{}/", self.dir.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&dir, "")).collect()
    }

    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        let mut problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems.remove(0)
    }

    pub(crate) fn effective(&self) -> String {
        self.load().effective.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[cfg(unix)]
pub(crate) fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_path: &std::path::Path, _mode: u32) {}

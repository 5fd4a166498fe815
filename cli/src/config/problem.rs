//! What is wrong with a configuration, and where each value came from.

use std::fmt;
use std::sync::Arc;

use crate::logging::one_line;

/// Where a value was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// Nowhere: the built-in value.
    Default,
    /// In the configuration file.
    File {
        /// As it was named.
        path: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// In the environment of the process, under this name.
    Environment(Arc<str>),
    /// Nowhere: what PgBouncer would do.
    PgBouncer,
    /// At the admin console, by `SET`.
    Console,
    /// In the `.env` file.
    DotEnv {
        /// The name on that line.
        name: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::PgBouncer => f.write_str("PgBouncer's default"),
            Self::Console => f.write_str("SET"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::DotEnv { name, line } => write!(f, ".env:{line} {name}"),
        }
    }
}

/// One thing that keeps the proxy from starting. It is shown as one line and never holds a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// The setting, as the configuration file names it (`server.listen_port`, `issuer[2].audience`).
    pub(crate) setting: String,
    /// Where the value came from; `None` when there is none.
    pub(crate) origin: Option<Origin>,
    /// What is there.
    pub(crate) found: String,
    /// What should be there.
    pub(crate) expected: String,
}

impl Problem {
    /// A problem with a value that was set somewhere.
    pub(crate) fn at(
        setting: impl Into<String>,
        origin: &Origin,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { setting: setting.into(), origin: Some(origin.clone()), found: found.into(), expected: expected.into() }
    }

    /// A problem with a value that is not there.
    pub(crate) fn missing(setting: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { setting: setting.into(), origin: None, found: "nothing".into(), expected: expected.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.setting))?;
        if let Some(origin) = &self.origin {
            write!(f, " ({})", one_line(&origin.to_string()))?;
        }
        write!(f, ": found {}; expected {}", one_line(&self.found), one_line(&self.expected))
    }
}

/// A value in quotes for a message: control characters escaped, cut after 100 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 100;
    let cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() { format!("{cut:?} and more") } else { format!("{cut:?}") }
}

/// The known name most like `name`, when one is alike enough to be what was meant.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Jaro-Winkler: 0.8 still joins `listen_prot` with `listen_port`, and keeps `host` and `port` apart.
    const ALIKE: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_was_found() {
        let origin = Origin::File { path: "gprxy.toml".into(), line: 4 };
        let problem = Problem::at("server.listen_port", &origin, quoted("77\n777"), "a port number");
        assert_eq!(
            problem.to_string(),
            "server.listen_port (gprxy.toml:4): found \"77\\n777\"; expected a port number"
        );
        let forged = Problem::at("a\nb", &Origin::Environment("X\rY".into()), "c\nd", "e\nf").to_string();
        assert!(!forged.contains(['\n', '\r']), "{forged}");
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        let shown = quoted(&"é".repeat(500));
        assert_eq!(shown.matches('é').count(), 100);
        assert!(shown.ends_with("and more"));
    }

    #[test]
    fn the_nearest_name_is_one_that_could_be_meant() {
        let known = ["listen_addr", "listen_port", "workers"];
        assert_eq!(nearest("listen_prot", known), Some("listen_port"));
        assert_eq!(nearest("Workers", known), Some("workers"));
        assert_eq!(nearest("zzz", known), None);
    }
}

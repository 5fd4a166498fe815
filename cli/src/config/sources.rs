//! Where settings come from: the environment, `.env`, and the names that refer to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gprxy_proto::secret::Secret;

use super::dotenv;
use super::draft::Draft;
use super::files;
use super::problem::{Origin, Problem};
use super::schema::env;

/// What [`super::load`] reads. Tests and the demo make their own; the command line takes those of the process.
#[derive(Default)]
pub(crate) struct Sources {
    /// The environment; it wins over everything but the command line.
    pub(crate) environment: Environment,
    /// The `.env` file; it need not exist.
    pub(crate) dotenv: Option<PathBuf>,
    /// The configuration file from the command line; `None`: `GPRXY_CONFIG` decides.
    pub(crate) file: Option<PathBuf>,
    /// PgBouncer's own configuration, in place of all other sources.
    pub(crate) ini: Option<PathBuf>,
    /// Only the demo, which runs that issuer itself, may trust it.
    pub(crate) allow_demo_issuer: bool,
    /// Whether standard error gets no log.
    pub(crate) quiet: bool,
    /// How much more is logged than the settings say: one step for each `-v`.
    pub(crate) verbose: u8,
    /// What was `SET` at the admin console; it wins over everything.
    pub(crate) overlay: Overlay,
}

/// What was `SET`.
#[derive(Clone, Default)]
pub(crate) struct Overlay {
    /// Values of settings that stand once, by section and key.
    pub(crate) settings: BTreeMap<(&'static str, &'static str), String>,
    /// Values of PgBouncer's options, as they would stand in its file.
    pub(crate) options: BTreeMap<&'static str, String>,
}

impl Sources {
    /// Those of this process: its environment, and `.env` in the working directory.
    pub(crate) fn of_process(file: Option<PathBuf>) -> Self {
        Self { environment: Environment::of_process(), dotenv: Some(PathBuf::from(".env")), file, ..Self::default() }
    }
}

/// A copy of environment variables. An empty value counts as not set, as it did in the first gprxy.
#[derive(Default)]
pub(crate) struct Environment {
    vars: BTreeMap<String, Secret<String>>,
    /// Names whose values are not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => environment.set(name, value),
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// Made-up variables.
    #[cfg(test)]
    pub(crate) fn from_pairs<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name.to_owned(), value.to_owned());
        }
        environment
    }

    fn set(&mut self, name: String, value: String) {
        if !value.is_empty() {
            self.vars.insert(name, Secret::new(value));
        }
    }
}

/// The environment and `.env` together, the environment first.
pub(crate) struct Variables<'s> {
    environment: &'s Environment,
    dotenv: BTreeMap<String, (Secret<String>, usize)>,
}

/// Which of the two sources of variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    /// The environment of the process.
    Environment,
    /// The `.env` file.
    DotEnv,
}

impl<'s> Variables<'s> {
    /// Reads `.env`, if there is one, and keeps what it says beside the environment.
    pub(crate) fn read(sources: &'s Sources, draft: &mut Draft) -> Self {
        let mut variables = Self { environment: &sources.environment, dotenv: BTreeMap::new() };
        for name in sources.environment.unreadable.iter().filter(|name| is_ours(name)) {
            draft.problem(Problem::at(
                name,
                &Origin::Environment(name.as_str().into()),
                "bytes that are not UTF-8",
                "text",
            ));
        }
        if let Some(path) = &sources.dotenv {
            variables.read_dotenv(path, draft);
        }
        variables
    }

    fn read_dotenv(&mut self, path: &Path, draft: &mut Draft) {
        if !files::exists(path) {
            return;
        }
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(why) => {
                let found = format!("a file that cannot be read ({why})");
                draft.problem(Problem {
                    setting: ".env".into(),
                    origin: None,
                    found,
                    expected: "a readable text file, or none".into(),
                });
                return;
            }
        };
        let (assignments, malformed) = dotenv::parse(text.expose());
        for bad in malformed {
            draft.problem(Problem {
                setting: format!(".env:{}", bad.line),
                origin: None,
                found: bad.found.into(),
                expected: "KEY=VALUE, a comment or a blank line".into(),
            });
        }
        let mut secrets = false;
        for assignment in assignments {
            secrets |= holds_password(&assignment.name);
            if assignment.value.expose().is_empty() {
                self.dotenv.remove(&assignment.name);
                continue;
            }
            if self.dotenv.contains_key(&assignment.name) && is_ours(&assignment.name) {
                draft.warn(format!(".env:{} sets {} again; this one counts", assignment.line, assignment.name));
            }
            self.dotenv.insert(assignment.name, (assignment.value, assignment.line));
        }
        if secrets && files::readable_by_all(path) {
            draft.warn(".env holds passwords and is readable by every user of this machine: chmod 600 .env");
        }
    }

    /// A variable of one layer.
    pub(crate) fn of(&self, layer: Layer, name: &str) -> Option<(&str, Origin)> {
        match layer {
            Layer::Environment => {
                let value = self.environment.vars.get(name)?;
                Some((value.expose(), Origin::Environment(name.into())))
            }
            Layer::DotEnv => {
                let (value, line) = self.dotenv.get(name)?;
                Some((value.expose(), Origin::DotEnv { name: Arc::from(name), line: *line }))
            }
        }
    }

    /// A variable, from the environment before `.env`.
    pub(crate) fn any(&self, name: &str) -> Option<(&str, Origin)> {
        self.of(Layer::Environment, name).or_else(|| self.of(Layer::DotEnv, name))
    }

    /// The names of one layer that begin like this, sorted.
    pub(crate) fn beginning_with(&self, layer: Layer, prefix: &str) -> Vec<&str> {
        let all: Box<dyn Iterator<Item = &String>> = match layer {
            Layer::Environment => Box::new(self.environment.vars.keys()),
            Layer::DotEnv => Box::new(self.dotenv.keys()),
        };
        all.map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
    }

    /// Puts variables in the place of `${NAME}`; `$${` stands for `${`. The error says what is wrong.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = inside.find('}').ok_or("\"${\" without its \"}\"")?;
            let name = &inside[..end];
            let sane = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !sane {
                return Err("\"${...}\" that holds no variable name".into());
            }
            let (value, _) = self.any(name).ok_or_else(|| format!("${{{name}}}, which is not set or empty"))?;
            out.push_str(value);
            rest = &inside[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn holds_password(name: &str) -> bool {
    name == env::PASS || name.starts_with(env::ROLE_MAPPING)
}

/// Whether a variable is one of ours: others may look as they like.
fn is_ours(name: &str) -> bool {
    holds_password(name)
        || [env::USER, env::CONFIG].contains(&name)
        || super::schema::SECTIONS.iter().flat_map(|section| section.keys).any(|key| key.env == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(dir: &Path, dotenv: &str, pairs: &[(&str, &str)]) -> Sources {
        let path = dir.join(".env");
        std::fs::write(&path, dotenv).unwrap();
        let environment = Environment::from_pairs(pairs.iter().copied());
        Sources { environment, dotenv: Some(path), ..Sources::default() }
    }

    #[test]
    fn the_environment_wins_and_an_empty_value_is_no_value() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), "A=file\nB=file\nC=\n", &[("A", "real"), ("B", "")]);
        let mut draft = Draft::default();
        let variables = Variables::read(&sources, &mut draft);
        assert_eq!(variables.any("A").map(|(v, _)| v), Some("real"));
        assert_eq!(variables.any("B"), Some(("file", Origin::DotEnv { name: "B".into(), line: 2 })));
        assert_eq!(variables.any("C"), None);
        assert!(draft.problems.is_empty());
    }

    #[test]
    fn malformed_lines_and_repeated_names_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), "hunter2\nDB_HOST=a\nDB_HOST=b\nOTHER=1\nOTHER=2\n", &[]);
        let mut draft = Draft::default();
        let variables = Variables::read(&sources, &mut draft);
        assert_eq!(variables.any("DB_HOST").map(|(v, _)| v), Some("b"));
        let [problem] = draft.problems.as_slice() else { panic!("one problem") };
        assert!(problem.to_string().starts_with(".env:1: found"), "{problem}");
        assert!(!problem.to_string().contains("hunter2"));
        assert_eq!(draft.warnings.len(), 1, "{:?}", draft.warnings);
    }

    #[test]
    fn variables_are_expanded_and_mistakes_named() {
        let environment = Environment::from_pairs([("A", "1"), ("B", "${A}")]);
        let variables = Variables { environment: &environment, dotenv: BTreeMap::new() };
        assert_eq!(variables.expand("x${A}y${A}"), Ok("x1y1".into()));
        assert_eq!(variables.expand("${B}"), Ok("${A}".into()), "a value is not expanded again");
        assert_eq!(variables.expand("$A $$ {A} $${A}"), Ok("$A $$ {A} ${A}".into()));
        assert_eq!(variables.expand("${NONE}"), Err("${NONE}, which is not set or empty".into()));
        for bad in ["${A", "${}", "${A B}"] {
            assert!(variables.expand(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn our_own_variables_must_be_text_and_others_may_be_anything() {
        let unreadable = vec!["PROXY_HOST".to_owned(), "ROLE_MAPPING_x".to_owned(), "OTHER".to_owned()];
        let environment = Environment { vars: BTreeMap::new(), unreadable };
        let sources = Sources { environment, ..Sources::default() };
        let mut draft = Draft::default();
        Variables::read(&sources, &mut draft);
        let settings: Vec<_> = draft.problems.iter().map(|problem| problem.setting.as_str()).collect();
        assert_eq!(settings, ["PROXY_HOST", "ROLE_MAPPING_x"]);
    }

    #[test]
    fn a_dotenv_that_is_a_directory_is_a_problem_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources = Sources { dotenv: Some(dir.path().join("none")), ..Sources::default() };
        let mut draft = Draft::default();
        Variables::read(&sources, &mut draft);
        assert!(draft.problems.is_empty());
        sources.dotenv = Some(dir.path().to_owned());
        Variables::read(&sources, &mut draft);
        assert_eq!(draft.problems.len(), 1);
    }
}

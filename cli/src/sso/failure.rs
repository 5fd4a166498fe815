//! Why a command ends without success, and the exit code that scripts see.

use std::fmt;
use std::process::ExitCode;

use crate::logging::one_line;
use crate::{EX_CONFIG, EX_UNAVAILABLE};

/// What a shell says when a program is not there (POSIX, Shell Command Language, section 2.8.2).
const EX_NOT_FOUND: u8 = 127;

/// The kinds that a script can tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Not logged in, or refused: by the person, the provider or a check of ours.
    Refused,
    /// The command line cannot be carried out.
    Usage,
    /// The provider does not answer.
    Unavailable,
    /// Settings are wrong or missing.
    Settings,
    /// A program that is needed is not installed.
    NotInstalled,
}

/// One sentence for a person, never with a secret in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) words: String,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }

    pub(crate) fn refused(words: impl Into<String>) -> Self {
        Self::new(Kind::Refused, words)
    }

    pub(crate) fn usage(words: impl Into<String>) -> Self {
        Self::new(Kind::Usage, words)
    }

    pub(crate) fn unavailable(words: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, words)
    }

    pub(crate) fn settings(words: impl Into<String>) -> Self {
        Self::new(Kind::Settings, words)
    }

    pub(crate) fn not_installed(words: impl Into<String>) -> Self {
        Self::new(Kind::NotInstalled, words)
    }

    /// Says it on standard error; the exit code of the process.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("gprxy: {self}");
        ExitCode::from(match self.kind {
            Kind::Refused => 1,
            Kind::Usage => 2,
            Kind::Unavailable => EX_UNAVAILABLE,
            Kind::Settings => EX_CONFIG,
            Kind::NotInstalled => EX_NOT_FOUND,
        })
    }
}

impl fmt::Display for Failure {
    /// Words of a provider may be in it, so each line is made harmless for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.words.split('\n').enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&one_line(line))?;
        }
        Ok(())
    }
}

/// Words from outside for a sentence: cut, so that a page of HTML does not fill the terminal. [`Failure`] makes them
/// harmless.
pub(crate) fn foreign(text: &str) -> String {
    const SHOWN: usize = 200;
    let flat: Vec<&str> = text.split_whitespace().collect();
    let flat = flat.join(" ");
    let cut: String = flat.chars().take(SHOWN).collect();
    if cut.len() < flat.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_outside_cannot_move_the_cursor_or_fill_the_screen() {
        let failure = Failure::refused(format!("the provider says: {}", foreign("a\u{1b}[2Jb\n\nc\u{202e}")));
        assert_eq!(failure.to_string(), "the provider says: a\\u{1b}[2Jb c\\u{202e}");
        assert_eq!(foreign(&"x".repeat(5000)).chars().count(), 201);
    }

    #[test]
    fn own_line_breaks_stay() {
        assert_eq!(Failure::usage("one\ntwo").to_string(), "one\ntwo");
    }
}

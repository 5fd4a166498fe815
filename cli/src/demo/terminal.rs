//! What the demo prints, and how: indented, wrapped to the width that is there, in colour only where a person looks.

use std::io::{self, IsTerminal, Write};

/// Two spaces before everything, so that the demo stands apart from the shell's own lines.
const MARGIN: &str = "  ";
/// What belongs to a step stands below its heading.
const INDENT: &str = "     ";
/// The width when nobody says: a pipe, a log of a CI job.
const DEFAULT_WIDTH: usize = 100;

/// What a piece of text is for; colours follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// A title.
    Heading,
    /// A command that a person could type.
    Command,
    /// Of less weight.
    Quiet,
    /// As expected.
    Good,
    /// Not as expected, or refused.
    Bad,
}

impl Tone {
    /// The SGR parameters (ECMA-48, section 8.3.117) of this tone.
    const fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Heading => "1",
            Self::Command => "36",
            Self::Quiet => "2",
            Self::Good => "32",
            Self::Bad => "31",
        }
    }
}

/// Standard output as the demo sees it.
pub(super) struct Terminal {
    colour: bool,
    width: usize,
    interactive: bool,
}

impl Terminal {
    /// Looks at standard input and output, `NO_COLOR`, `TERM` and `COLUMNS`.
    pub(super) fn detect() -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: any value that is not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            colour: terminal && !plain,
            width: width_from(std::env::var("COLUMNS").ok().as_deref(), window_columns()),
            interactive: terminal && io::stdin().is_terminal(),
        }
    }

    /// Whether a person sits on both ends.
    pub(super) const fn interactive(&self) -> bool {
        self.interactive
    }

    /// How many columns a line below a heading may have.
    pub(super) const fn room(&self) -> usize {
        self.width - INDENT.len()
    }

    /// The text in its colour.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour && tone != Tone::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", tone.sgr())
        } else {
            text.to_owned()
        }
    }

    /// An empty line.
    pub(super) fn gap(&self) {
        self.write_line("");
    }

    /// A title of the whole.
    pub(super) fn title(&self, name: &str, rest: &str) {
        self.gap();
        self.write_line(&format!("{MARGIN}{}  {rest}", self.paint(Tone::Heading, name)));
        self.gap();
    }

    /// A part that is up: `✓ PostgreSQL   15.20 on 127.0.0.1:40213`.
    pub(super) fn ready(&self, name: &str, detail: &str) {
        let mark = self.paint(Tone::Good, "✓");
        self.write_line(&format!("{MARGIN}{mark} {name:<12} {}", self.paint(Tone::Quiet, detail)));
    }

    /// Something that takes a while, or that a person should know before it happens.
    pub(super) fn notice(&self, text: &str) {
        for (index, line) in wrap(text, self.width - 4).into_iter().enumerate() {
            let mark = if index == 0 { "›" } else { " " };
            self.write_line(&format!("{MARGIN}{} {line}", self.paint(Tone::Command, mark)));
        }
    }

    /// The heading of a step.
    pub(super) fn heading(&self, number: u32, text: &str) {
        self.gap();
        self.write_line(&format!("{MARGIN}{}", self.paint(Tone::Heading, &format!("{number:>2} {text}"))));
    }

    /// A heading without a number.
    pub(super) fn chapter(&self, text: &str) {
        self.gap();
        self.write_line(&format!("{MARGIN}{}", self.paint(Tone::Heading, text)));
    }

    /// A command as a person would type it. One that is too long continues on the next line between two parts, as a
    /// shell understands it: what is shown can be copied.
    pub(super) fn command(&self, parts: &[&str]) {
        for (index, line) in continued(parts, self.room() - 2).into_iter().enumerate() {
            let prompt = if index == 0 { "$" } else { " " };
            self.write_line(&format!("{INDENT}{}", self.paint(Tone::Command, &format!("{prompt} {line}"))));
        }
    }

    /// What a program printed, wrapped, without its empty lines.
    pub(super) fn output(&self, text: &str) {
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            for part in wrap(line, self.room()) {
                self.write_line(&format!("{INDENT}{part}"));
            }
        }
    }

    /// A line that is already laid out for [`Self::room`].
    pub(super) fn laid_out(&self, tone: Tone, line: &str) {
        self.write_line(&format!("{INDENT}{}", self.paint(tone, line)));
    }

    /// An expectation that held.
    pub(super) fn held(&self, text: &str) {
        self.marked(Tone::Good, "✓", text);
    }

    /// An expectation that did not hold.
    pub(super) fn broken(&self, text: &str) {
        self.marked(Tone::Bad, "✗", text);
    }

    /// A sentence of explanation.
    pub(super) fn note(&self, text: &str) {
        for line in wrap(text, self.room()) {
            self.write_line(&format!("{INDENT}{}", self.paint(Tone::Quiet, &line)));
        }
    }

    fn marked(&self, tone: Tone, mark: &str, text: &str) {
        for (index, line) in wrap(text, self.room() - 2).into_iter().enumerate() {
            let mark = if index == 0 { mark } else { " " };
            self.write_line(&format!("{INDENT}{} {line}", self.paint(tone, mark)));
        }
    }

    /// A reader that went away (`gprxy demo | head`) is no reason to leave servers behind: the story goes on unheard,
    /// and its exit status still says how it went.
    fn write_line(&self, line: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// `COLUMNS` when it is set and a number, else what the window says, else the default; within what can be laid out.
fn width_from(columns: Option<&str>, window: Option<usize>) -> usize {
    columns.and_then(|text| text.trim().parse().ok()).or(window).unwrap_or(DEFAULT_WIDTH).clamp(40, 140)
}

fn window_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Packs the parts of a command into lines of at most `width` characters where they fit, each but the last ending in
/// the shell's sign of continuation.
fn continued(parts: &[&str], width: usize) -> Vec<String> {
    const MORE: &str = " \\";
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + part.chars().count() + MORE.len() <= width => {
                line.push(' ');
                line.push_str(part);
            }
            Some(line) => {
                line.push_str(MORE);
                lines.push(format!("  {part}"));
            }
            None => lines.push((*part).to_owned()),
        }
    }
    lines
}

/// Breaks at spaces so that no line is longer than `width` characters; the indent of the first line is kept for the
/// others. A word that is longer than the line stays whole: paths and URLs must survive being copied.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let body = text.trim_start();
    let indent = &text[..text.len() - body.len()];
    let mut lines = Vec::new();
    let mut line = String::from(indent);
    let mut used = indent.chars().count();
    for word in body.split_whitespace() {
        let length = word.chars().count();
        let starts_line = line.len() == indent.len();
        if !starts_line && used + 1 + length > width {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            used = indent.chars().count();
        } else if !starts_line {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::{Terminal, Tone, continued, width_from, wrap};

    #[test]
    fn width_prefers_columns_then_window_then_default() {
        assert_eq!(width_from(Some("72"), Some(120)), 72);
        assert_eq!(width_from(Some("wide"), Some(120)), 120);
        assert_eq!(width_from(None, None), 100);
        assert_eq!(width_from(Some("3"), None), 40, "too narrow to lay anything out");
        assert_eq!(width_from(Some("99999"), None), 140, "a table that wide cannot be read");
    }

    #[test]
    fn wrap_keeps_lines_within_the_width_and_the_indent() {
        let lines = wrap("  one two three four", 11);
        assert_eq!(lines, ["  one two", "  three", "  four"]);
        assert!(lines.iter().all(|line| line.chars().count() <= 11));
    }

    #[test]
    fn wrap_leaves_long_words_whole() {
        assert_eq!(wrap("see /a/very/long/path now", 10), ["see", "/a/very/long/path", "now"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn a_long_command_continues_between_its_parts() {
        let parts = ["PGPASSWORD=x", "psql", "-U bob", "-c \"select 1\""];
        assert_eq!(continued(&parts, 60), [r#"PGPASSWORD=x psql -U bob -c "select 1""#]);
        assert_eq!(continued(&parts, 30), [r"PGPASSWORD=x psql -U bob \", r#"  -c "select 1""#]);
        assert_eq!(continued(&[], 30), [""; 0]);
    }

    #[test]
    fn colour_only_where_asked() {
        let plain = Terminal { colour: false, width: 80, interactive: false };
        let coloured = Terminal { colour: true, width: 80, interactive: false };
        assert_eq!(plain.paint(Tone::Good, "yes"), "yes");
        assert_eq!(coloured.paint(Tone::Good, "yes"), "\x1b[32myes\x1b[0m");
        assert_eq!(coloured.paint(Tone::Plain, "yes"), "yes");
    }
}

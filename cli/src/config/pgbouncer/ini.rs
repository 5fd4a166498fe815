//! The syntax of PgBouncer's files: sections, `key = value` to the end of the line, `%include`, comments on lines of their
//! own; and of the connection strings in it.

use std::path::Path;
use std::sync::Arc;

use gprxy_proto::secret::Secret;

use super::super::draft::Draft;
use super::super::files;
use super::super::problem::{Origin, Problem, quoted};

/// Files within files; PgBouncer's limit.
const MAX_DEPTH: usize = 10;
/// Lines of all files together.
const MAX_LINES: usize = 100_000;

/// `key = value` in a section.
pub(super) struct Assignment {
    /// The section above it; empty in front of the first.
    pub(super) section: Arc<str>,
    pub(super) key: String,
    /// Any value may hold a password.
    pub(super) value: Secret<String>,
    pub(super) origin: Origin,
}

/// Reads a file and those that it includes. `None`: it cannot be read as a whole.
pub(super) fn read(path: &Path, draft: &mut Draft) -> Option<Vec<Assignment>> {
    let mut reading = Reading { section: "".into(), all: Vec::new(), lines: 0, draft };
    reading.file(path, None, 0).then_some(reading.all)
}

struct Reading<'d> {
    section: Arc<str>,
    all: Vec<Assignment>,
    lines: usize,
    draft: &'d mut Draft,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, named: Option<&Origin>, depth: usize) -> bool {
        let shown: Arc<str> = path.display().to_string().into();
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(why) => {
                let found = format!("{shown}, which cannot be read ({why})");
                self.draft.problem(Problem {
                    setting: "PgBouncer's configuration".into(),
                    origin: named.cloned(),
                    found,
                    expected: "a readable file".into(),
                });
                return false;
            }
        };
        let mut well = true;
        for (nth, line) in text.expose().lines().enumerate() {
            self.lines += 1;
            let origin = Origin::File { path: shown.clone(), line: nth + 1 };
            if self.lines > MAX_LINES {
                self.wrong(&origin, "more than 100,000 lines", "a shorter configuration");
                return false;
            }
            well &= self.line(line.trim(), &origin, depth);
        }
        well
    }

    fn line(&mut self, line: &str, origin: &Origin, depth: usize) -> bool {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return true;
        }
        if let Some(rest) = line.strip_prefix("%include").filter(|rest| rest.starts_with([' ', '\t'])) {
            if depth + 1 >= MAX_DEPTH {
                return self.wrong(origin, "files within files, ten deep", "fewer %include");
            }
            return self.file(Path::new(rest.trim()), Some(origin), depth + 1);
        }
        if let Some(rest) = line.strip_prefix('[') {
            let Some((name, _)) = rest.split_once(']') else {
                return self.wrong(origin, "\"[\" without its \"]\"", "[section]");
            };
            self.section = name.trim().into();
            return true;
        }
        let Some((key, rest)) = key(line) else {
            return self.wrong(origin, "a line that is none of these", "[section], key = value or %include FILE");
        };
        let Some(value) = rest.trim_start().strip_prefix('=') else {
            // The word is not shown: it may be the rest of a password from the line before.
            return self.wrong(origin, "a word without \"=\" behind it", "key = value");
        };
        let value = Secret::new(value.trim().to_owned());
        self.all.push(Assignment { section: self.section.clone(), key, value, origin: origin.clone() });
        true
    }

    fn wrong(&mut self, origin: &Origin, found: &str, expected: &str) -> bool {
        self.draft.problem(Problem::at("PgBouncer's configuration", origin, found, expected));
        false
    }
}

/// A name at the front: letters, digits and `_.-*`, or anything in double quotes.
fn key(line: &str) -> Option<(String, &str)> {
    let Some(mut rest) = line.strip_prefix('"') else {
        let end = line.find(|c: char| !c.is_alphanumeric() && !"_.-*".contains(c)).unwrap_or(line.len());
        return (end > 0).then(|| (line[..end].to_owned(), &line[end..]));
    };
    let mut name = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, behind)),
        }
    }
}

/// `key=value key='it''s quoted'`: the pairs, or what is wrong. Values may be secret, so none is in the words.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, Secret<String>)>, &'static str> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ', '\t']).ok_or("a name without \"=\"")?;
        let name = &rest[..end];
        if name.is_empty() {
            return Err("\"=\" without a name in front");
        }
        let behind = rest[end..].trim_start().strip_prefix('=').ok_or("a name without \"=\"")?.trim_start();
        let (value, after) = value(behind)?;
        if value.expose().is_empty() {
            return Err("a name without a value");
        }
        pairs.push((name, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn value(text: &str) -> Result<(Secret<String>, &str), &'static str> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        return Ok((Secret::new(text[..end].to_owned()), &text[end..]));
    };
    // As long as it can get, so that no copy of a password is left behind.
    let mut value = Secret::new(String::with_capacity(rest.len()));
    loop {
        let (part, behind) = rest.split_once('\'').ok_or("a quote without its end")?;
        value.expose_mut().push_str(part);
        match behind.strip_prefix('\'') {
            Some(more) => {
                value.expose_mut().push('\'');
                rest = more;
            }
            None => return Ok((value, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section, key and value.
    type Line = (String, String, String);

    fn read_text(text: &str) -> (Option<Vec<Line>>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgbouncer.ini");
        std::fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).unwrap();
        std::fs::write(dir.path().join("more.ini"), "inner = 1\n[users]\nbob = pool_mode=session\n").unwrap();
        let mut draft = Draft::default();
        let all = read(&path, &mut draft);
        let all = all.map(|all| {
            let text = |it: Assignment| (it.section.to_string(), it.key, it.value.expose().clone());
            all.into_iter().map(text).collect()
        });
        (all, draft.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn sections_comments_quotes_and_includes() {
        let text = "; c\n# c\n[databases]\n  a.b-c = host=x ; no comment \r\n\"we\"\"ird = \" = dbname=y\n* =\n\
                    [pgbouncer]\n%include DIR/more.ini\neve=\n";
        let (all, problems) = read_text(text);
        assert_eq!(problems, [""; 0]);
        let shown: Vec<String> = all.unwrap().iter().map(|(s, k, v)| format!("{s}/{k}/{v}")).collect();
        assert_eq!(
            shown,
            [
                "databases/a.b-c/host=x ; no comment",
                "databases/we\"ird = /dbname=y",
                "databases/*/",
                "pgbouncer/inner/1",
                "users/bob/pool_mode=session",
                "users/eve/",
            ]
        );
    }

    #[test]
    fn every_broken_line_is_told_and_none_is_repeated() {
        let (all, problems) = read_text("[databases\nhunter2 hunter2\n= x\n\"a = b\n%include /nowhere/at/all\n");
        assert!(all.is_none());
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems.iter().all(|problem| !problem.contains("hunter2 hunter2")), "{problems:?}");
        assert!(problems[0].contains("pgbouncer.ini:1"), "{problems:?}");
        let (all, problems) = read_text("%include DIR/pgbouncer.ini\n");
        assert!(all.is_none());
        assert!(problems[0].contains("ten deep"), "{problems:?}");
    }

    #[test]
    fn connection_strings_are_read_as_pgbouncer_does() {
        let read = |text| {
            let all = pairs(text)?;
            Ok::<_, &str>(all.iter().map(|(k, v)| format!("{k}:{}", v.expose())).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(read(""), Ok(String::new()));
        assert_eq!(
            read(" host = a  port=1 password='x ''y'' z'user=b"),
            Ok("host:a|port:1|password:x 'y' z|user:b".into())
        );
        for bad in ["host", "host a", "=x", "host=", "host=''", "password='open", "a=b c"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// Whatever somebody writes, there is an answer, and it does not take long.
    #[test]
    fn hostile_texts_come_to_an_end() {
        let alphabet = ['=', '\'', '"', ' ', '[', ']', '%', 'a', '*', '\t', ';', 'é', '\u{0}'];
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let text: String = (0..rng.usize(0..24)).map(|_| alphabet[rng.usize(0..alphabet.len())]).collect();
            let _ = pairs(&text);
            let _ = key(&text);
        }
    }
}

//! The `.env` file: `KEY=VALUE` lines, read into a list. The process's own environment is never changed.

use gprxy_proto::secret::Secret;

/// One assignment.
pub(crate) struct Assignment {
    /// The name before the `=`.
    pub(crate) name: String,
    /// The value without its quotes; any of them may be a secret.
    pub(crate) value: Secret<String>,
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
}

/// A line that is no assignment: its number and what is wrong. The text itself is not kept, it may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is there, in words.
    pub(crate) found: &'static str,
}

/// Reads the whole file: blank lines, `# comments`, an optional `export`, values bare or in quotes.
///
/// - A bare value ends at the end of the line or at a `#` behind white space.
/// - `'single quotes'` are literal, `"double quotes"` know `\n \r \t \" \\ \$`; both may span lines.
/// - `$` has no meaning: a password with a dollar sign is taken as it stands.
pub(crate) fn parse(text: &str) -> (Vec<Assignment>, Vec<Malformed>) {
    let mut scan = Scan { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let (mut assignments, mut malformed) = (Vec::new(), Vec::new());
    while !scan.rest.is_empty() {
        let line = scan.line;
        match scan.statement() {
            Ok(Some((name, value))) => assignments.push(Assignment { name, value: Secret::new(value), line }),
            Ok(None) => {}
            Err(found) => malformed.push(Malformed { line, found }),
        }
        scan.skip_line();
    }
    (assignments, malformed)
}

struct Scan<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Scan<'t> {
    /// Reads up to the end of a value; what follows on its line is left for `skip_line`.
    fn statement(&mut self) -> Result<Option<(String, String)>, &'static str> {
        self.skip_blanks();
        if self.rest.is_empty() || self.rest.starts_with(['#', '\n', '\r']) {
            return Ok(None);
        }
        let mut name = self.name();
        if name == "export" && self.rest.starts_with([' ', '\t']) {
            self.skip_blanks();
            name = self.name();
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a line that does not begin with a name");
        }
        self.skip_blanks();
        self.rest = self.rest.strip_prefix('=').ok_or("a line without '=' after the name")?;
        self.skip_blanks();
        let value = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.bare(),
        };
        Ok(Some((name.to_owned(), value)))
    }

    fn name(&mut self) -> &'t str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name
    }

    fn bare(&mut self) -> String {
        let line = &self.rest[..self.rest.find('\n').unwrap_or(self.rest.len())];
        let comment = line
            .char_indices()
            .find(|&(at, c)| c == '#' && line[..at].chars().next_back().is_none_or(char::is_whitespace))
            .map_or(line.len(), |(at, _)| at);
        self.rest = &self.rest[comment..];
        line[..comment].trim().to_owned()
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let inside = &self.rest[1..];
        let mut value = String::new();
        let mut chars = inside.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.line += inside[..at].matches('\n').count();
                    self.rest = &inside[at + 1..];
                    self.skip_blanks();
                    let clean = self.rest.is_empty() || self.rest.starts_with(['#', '\n', '\r']);
                    return if clean { Ok(value) } else { Err("text behind the closing quote") };
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, known @ ('"' | '\\' | '$'))) => value.push(known),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => {}
                },
                c => value.push(c),
            }
        }
        Err("a quote that is never closed")
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn skip_line(&mut self) {
        self.rest = match self.rest.find('\n') {
            Some(end) => &self.rest[end + 1..],
            None => "",
        };
        self.line += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, usize)> {
        let (assignments, malformed) = parse(text);
        assert_eq!(malformed, []);
        assignments.into_iter().map(|a| (a.name, a.value.expose().clone(), a.line)).collect()
    }

    fn value(text: &str) -> String {
        let mut found = pairs(text);
        assert_eq!(found.len(), 1, "{text:?}");
        found.remove(0).1
    }

    #[test]
    fn plain_lines_comments_and_exports() {
        let text = "# a comment\n\nA=1\n  export B = two words  # tail\r\nC=\nD=x";
        let expected = [("A", "1", 3), ("B", "two words", 4), ("C", "", 5), ("D", "x", 6)];
        assert_eq!(pairs(text), expected.map(|(n, v, l)| (n.to_owned(), v.to_owned(), l)));
    }

    #[test]
    fn a_hash_inside_a_value_is_no_comment() {
        assert_eq!(value("P=ab#cd"), "ab#cd");
        assert_eq!(value("P=ab #cd"), "ab");
        assert_eq!(value("P=#cd"), "");
        assert_eq!(value("P='a #b' # c"), "a #b");
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(value(r#"P="a\"b\\c\$d\n""#), "a\"b\\c$d\n");
        assert_eq!(value(r"P='a\nb'"), r"a\nb");
        assert_eq!(value("P=pa$$w${x}"), "pa$$w${x}");
        assert_eq!(value(r#"P="a\qb""#), r"a\qb");
        assert_eq!(value("ROLE_MAPPING_reader=u:a=b:c"), "u:a=b:c");
    }

    #[test]
    fn quotes_may_span_lines_and_lines_are_still_counted() {
        let found = pairs("A='x\ny'\nB=2");
        assert_eq!(found[0].1, "x\ny");
        assert_eq!(found[1].2, 3);
    }

    #[test]
    fn malformed_lines_are_told_by_number_and_the_others_are_read() {
        let (assignments, malformed) = parse("A=1\nsecret words\n=x\n1B=2\nC='x' y\nD=4\nE=\"open");
        let names: Vec<_> = assignments.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["A", "D"]);
        assert_eq!(malformed.iter().map(|m| m.line).collect::<Vec<_>>(), [2, 3, 4, 5, 7]);
    }

    #[test]
    fn any_cut_of_any_text_is_read_to_its_end() {
        let text = "export é=1\nA=\"x\\\"é\ny\\\" # 'é\r\nB='\u{2028}\n' é\n\tC = #\\\n=\nexport\nD";
        for (end, _) in text.char_indices() {
            for (start, _) in text[..end].char_indices() {
                let piece = &text[start..end];
                let lines = piece.split('\n').count();
                let (assignments, malformed) = parse(piece);
                assert!(assignments.iter().all(|a| (1..=lines).contains(&a.line)), "{piece:?}");
                assert!(malformed.iter().all(|m| (1..=lines).contains(&m.line)), "{piece:?}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        assert_eq!(pairs("\u{feff}A=1")[0].0, "A");
    }

    #[test]
    fn an_unclosed_quote_does_not_swallow_the_line_numbers_after_it() {
        let (assignments, malformed) = parse("A='open\nB=2\n");
        assert_eq!(malformed.len(), 1);
        assert_eq!((assignments[0].name.as_str(), assignments[0].line), ("B", 2));
    }
}

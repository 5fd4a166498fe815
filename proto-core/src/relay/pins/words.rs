//! The words of SQL statements, for looking at and not for understanding: literals and comments are left out (PostgreSQL
//! manual, section 4.1).

/// A name or keyword; `*` is one, too.
#[derive(Clone, Copy, Default)]
pub(in crate::relay) struct Word<'a> {
    bytes: &'a [u8],
    /// It stood in quotes: a name, and no keyword.
    quoted: bool,
}

impl<'a> Word<'a> {
    /// Whether it is this word, in lower case, in any case.
    pub(in crate::relay) const fn is(self, expected: &str) -> bool {
        self.bytes.eq_ignore_ascii_case(expected.as_bytes())
    }

    /// Whether it is this keyword.
    pub(in crate::relay) const fn is_keyword(self, expected: &str) -> bool {
        !self.quoted && self.is(expected)
    }

    pub(in crate::relay) const fn is_quoted(self) -> bool {
        self.quoted
    }

    pub(in crate::relay) const fn bytes(self) -> &'a [u8] {
        self.bytes
    }
}

/// Words of one statement that are kept.
const WORDS: usize = 64;
/// How many of them are the first ones, whatever they are.
const FIRST_WORDS: usize = 48;

/// Cuts a text into statements.
pub(in crate::relay) struct Cut<'a> {
    text: &'a [u8],
    at: usize,
}

/// The words of one statement.
pub(in crate::relay) struct Words<'a> {
    words: [Word<'a>; WORDS],
    count: usize,
}

impl<'a> std::ops::Deref for Words<'a> {
    type Target = [Word<'a>];

    fn deref(&self) -> &[Word<'a>] {
        &self.words[..self.count]
    }
}

impl<'a> Words<'a> {
    fn push(&mut self, word: &'a [u8], quoted: bool) {
        // Behind the first words only the names of functions matter, and those that do have an underscore.
        let matters = self.count < FIRST_WORDS || memchr::memchr(b'_', word).is_some();
        if matters && self.count < WORDS {
            self.words[self.count] = Word { bytes: word, quoted };
            self.count += 1;
        }
    }
}

impl<'a> Cut<'a> {
    pub(in crate::relay) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The words of the next statement; `None` at the end.
    pub(in crate::relay) fn next_statement(&mut self) -> Option<Words<'a>> {
        if self.at >= self.text.len() {
            return None;
        }
        let mut words = Words { words: [Word::default(); WORDS], count: 0 };
        while let Some(&byte) = self.text.get(self.at) {
            let begin = self.at;
            self.at += 1;
            match byte {
                b';' => break,
                b'*' => words.push(&self.text[begin..=begin], false),
                b'\'' => self.skip_string(false),
                b'"' => {
                    self.skip_to(b"\"");
                    while self.next_is(b'"') {
                        // A doubled one stands for one in the name.
                        self.at += 1;
                        self.skip_to(b"\"");
                    }
                    let end = self.at.saturating_sub(1).max(begin + 1);
                    words.push(&self.text[begin + 1..end], true);
                }
                b'-' if self.next_is(b'-') => self.skip_to(b"\n"),
                b'/' if self.next_is(b'*') => self.skip_comment(),
                b'$' => self.skip_dollar_string(begin),
                _ if is_word(byte) => {
                    while self
                        .text
                        .get(self.at)
                        .is_some_and(|&byte| is_word(byte) || byte.is_ascii_digit() || byte == b'$')
                    {
                        self.at += 1;
                    }
                    let word = &self.text[begin..self.at];
                    if self.next_is(b'\'') && (word.eq_ignore_ascii_case(b"e")) {
                        self.at += 1;
                        self.skip_string(true);
                    } else {
                        words.push(word, false);
                    }
                }
                _ => {}
            }
        }
        Some(words)
    }

    fn next_is(&self, byte: u8) -> bool {
        self.text.get(self.at) == Some(&byte)
    }

    /// Behind the next occurrence, or to the end.
    fn skip_to(&mut self, end: &[u8]) {
        let rest = &self.text[self.at..];
        self.at += memchr::memmem::find(rest, end).map_or(rest.len(), |found| found + end.len());
    }

    fn skip_string(&mut self, escapes: bool) {
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                // A doubled quote begins another string at once, which is as good.
                b'\'' => return,
                b'\\' if escapes => self.at += 1,
                _ => {}
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        self.at += 1;
        let mut depth = 1;
        while depth > 0 && self.at < self.text.len() {
            match &self.text[self.at..] {
                [b'/', b'*', ..] => (depth, self.at) = (depth + 1, self.at + 2),
                [b'*', b'/', ..] => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
        }
    }

    /// `$$ … $$` and `$tag$ … $tag$`; a lone `$1` is a parameter.
    fn skip_dollar_string(&mut self, begin: usize) {
        let tag = self.text[self.at..].iter().take_while(|&&byte| is_word(byte) || byte.is_ascii_digit()).count();
        let end = self.at + tag;
        if self.text.get(end) == Some(&b'$') && !self.text[self.at..end].first().is_some_and(u8::is_ascii_digit) {
            self.at = end + 1;
            self.skip_to(&self.text[begin..=end]);
        }
    }
}

/// Bytes that begin a name; everything beyond ASCII is one.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let mut statements = Cut::new(text.as_bytes());
        let mut out = Vec::new();
        while let Some(words) = statements.next_statement() {
            let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.bytes()).into_owned()).collect();
            out.push(words.join(" "));
        }
        out.join("|")
    }

    #[test]
    fn literals_and_comments_are_left_out() {
        assert_eq!(words("select 'a;b', E'c\\';d' from \"my;t\" -- x;\n where a=$1"), "select from my;t where a");
        assert_eq!(words("a /* b /* c; */ d */ e;f"), "a e|f");
        assert_eq!(words("do $$ x; $$; do $f$ y; $$ z $f$;g"), "do|do|g");
        assert_eq!(words("select 'it''s; x'"), "select");
        assert_eq!(words("unlisten *"), "unlisten *");
        assert_eq!(words("a \"b\"\"c;\" d; \"e\"\""), "a b\"\"c; d|e\"");
        assert_eq!(words(";;a"), "||a");
    }

    #[test]
    fn texts_that_end_in_the_middle_end_there() {
        for text in ["'abc", "\"abc", "$$abc", "$a$ $", "/* abc", "-- abc", "e'\\", "$", "\"", "/"] {
            let _ = words(text);
        }
    }

    #[test]
    fn only_so_many_words_are_kept_and_the_last_one() {
        let text = format!("{} pg_advisory_lock(1)", "a ".repeat(200));
        let words = Cut::new(text.as_bytes()).next_statement().unwrap();
        assert_eq!(words.len(), FIRST_WORDS + 1);
        assert!(words.last().unwrap().is("pg_advisory_lock"));
    }
}

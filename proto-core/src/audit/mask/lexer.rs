//! SQL's lexical structure (PostgreSQL manual, section 4.1), as far as it decides where literals begin and end.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

/// A piece of SQL. Ranges are those of the content, without quotes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// A keyword or an identifier without quotes.
    Word(Range<usize>),
    /// A quoted identifier.
    Identifier(Range<usize>),
    /// A string constant of any kind.
    Literal { content: Range<usize>, dollar: bool, closed: bool },
    /// A comment of either kind.
    Comment { content: Range<usize>, closed: bool },
    /// `;`
    Semicolon,
    /// `,`
    Comma,
    /// `(`
    Open,
    /// `.`
    Dot,
    /// One character of an operator.
    Operator,
    /// Anything else.
    Other,
}

/// Cuts a text into tokens. Every byte is passed once, and looked at a constant number of times.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at `from`; `text` ends where the SQL ends.
    pub(super) const fn new(text: &'a [u8], from: usize) -> Self {
        Self { text, at: from }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn advance_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.byte(0).is_some_and(&accept) {
            self.at += 1;
        }
    }

    fn single(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    /// `--` up to the end of the line.
    fn line_comment(&mut self) -> Token {
        let start = self.at + 2;
        let end = memchr2(b'\n', b'\r', &self.text[start..]).map(|n| start + n);
        self.at = end.unwrap_or(self.text.len());
        Token::Comment { content: start..self.at, closed: end.is_some() }
    }

    /// `/*` up to its own `*/`; these nest.
    fn block_comment(&mut self) -> Token {
        let start = self.at + 2;
        self.at = start;
        let mut depth = 1u32;
        while let Some(n) = memchr2(b'*', b'/', &self.text[self.at..]) {
            self.at += n;
            match (self.byte(0), self.byte(1)) {
                (Some(b'*'), Some(b'/')) if depth == 1 => {
                    let content = start..self.at;
                    self.at += 2;
                    return Token::Comment { content, closed: true };
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
        Token::Comment { content: start..self.at, closed: false }
    }

    /// The content from here to the closing `quote`; a doubled one stands for itself, and with `escapes` so does any
    /// byte behind a backslash. Leaves the position behind the closing quote.
    fn quoted(&mut self, quote: u8, escapes: bool) -> (Range<usize>, bool) {
        let start = self.at;
        loop {
            let rest = &self.text[self.at..];
            let found = if escapes { memchr2(quote, b'\\', rest) } else { memchr(quote, rest) };
            let Some(n) = found else {
                self.at = self.text.len();
                return (start..self.at, false);
            };
            self.at += n;
            if self.byte(0) == Some(quote) && self.byte(1) != Some(quote) {
                self.at += 1;
                return (start..self.at - 1, true);
            }
            self.at = (self.at + 2).min(self.text.len());
        }
    }

    fn literal(&mut self, prefix: usize, escapes: bool) -> Token {
        self.at += prefix + 1;
        let (content, closed) = self.quoted(b'\'', escapes);
        Token::Literal { content, dollar: false, closed }
    }

    fn identifier(&mut self, prefix: usize) -> Token {
        self.at += prefix + 1;
        Token::Identifier(self.quoted(b'"', false).0)
    }

    fn dollar(&mut self) -> Token {
        let Some(tag) = dollar_tag(self.text, self.at) else { return self.single(Token::Other) };
        let start = self.at + tag.len();
        let end = memmem::find(&self.text[start..], tag).map(|n| start + n);
        let content = start..end.unwrap_or(self.text.len());
        self.at = end.map_or(self.text.len(), |end| end + tag.len());
        Token::Literal { content, dollar: true, closed: end.is_some() }
    }

    /// A word, unless it is the prefix of a string constant or of a quoted identifier.
    fn word(&mut self, first: u8) -> Token {
        match (first, self.byte(1), self.byte(2)) {
            (b'e' | b'E', Some(b'\''), _) => self.literal(1, true),
            (b'b' | b'B' | b'n' | b'N' | b'x' | b'X', Some(b'\''), _) => self.literal(1, false),
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => self.literal(2, false),
            (b'u' | b'U', Some(b'&'), Some(b'"')) => self.identifier(2),
            _ => {
                let start = self.at;
                self.advance_while(|b| is_word(b) || b == b'$');
                Token::Word(start..self.at)
            }
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.advance_while(is_space);
        let byte = self.byte(0)?;
        Some(match byte {
            b'-' if self.byte(1) == Some(b'-') => self.line_comment(),
            b'/' if self.byte(1) == Some(b'*') => self.block_comment(),
            b'\'' => self.literal(0, false),
            b'"' => self.identifier(0),
            b'$' => self.dollar(),
            b'0'..=b'9' => {
                self.advance_while(|b| is_word(b) || b == b'.');
                Token::Other
            }
            b';' => self.single(Token::Semicolon),
            b',' => self.single(Token::Comma),
            b'(' => self.single(Token::Open),
            b'.' => self.single(Token::Dot),
            b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|'
            | b'`' | b'?' | b':' => self.single(Token::Operator),
            first if is_word(first) => self.word(first),
            _ => self.single(Token::Other),
        })
    }
}

/// What separates tokens (`space` in PostgreSQL's scan.l).
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}

/// What an identifier consists of; its first byte is not a digit.
pub(super) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The opening tag of a dollar-quoted string (`$$`, `$body$`) at `at`, both dollars included.
pub(super) fn dollar_tag(text: &[u8], at: usize) -> Option<&[u8]> {
    let behind = text.get(at..)?.strip_prefix(b"$")?;
    let name = behind.iter().position(|&b| !is_word(b))?;
    // `$1` is a parameter.
    let valid = behind[name] == b'$' && !behind[0].is_ascii_digit();
    valid.then(|| &text[at..at + name + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(text: &str) -> Vec<&str> {
        Lexer::new(text.as_bytes(), 0)
            .filter_map(|token| match token {
                Token::Literal { content, .. } => Some(&text[content]),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn finds_every_kind_of_literal() {
        assert_eq!(
            literals(r#"select 'a''b', E'c\'d', U&'e\0061', N'f', X'1F', $$g'h$$, $t$i$$j$t$, "not 'one'""#),
            ["a''b", r"c\'d", r"e\0061", "f", "1F", "g'h", "i$$j"]
        );
    }

    #[test]
    fn comments_nest_and_hide_quotes() {
        assert_eq!(literals("/* a /* ' */ ' */ 'x' -- it's\n 'y'"), ["x", "y"]);
        assert_eq!(literals("1+--'a'\n2/*'b'*/'c'"), ["c"]);
    }

    #[test]
    fn words_and_parameters_are_no_dollar_quotes() {
        assert_eq!(literals("select a$b$c, $1, $2 from 'x'"), ["x"]);
        assert_eq!(literals("fooE'x\\'"), ["x\\"]);
        // A dollar is part of a word, but not of a number.
        assert_eq!(literals("select 1$$a'b$$, 'x'"), ["a'b", "x"]);
    }

    #[test]
    fn what_is_not_closed_ends_with_the_text() {
        assert_eq!(literals("select 'abc"), ["abc"]);
        assert_eq!(literals("select E'abc\\"), ["abc\\"]);
        assert_eq!(literals("select $t$abc$t"), ["abc$t"]);
        assert_eq!(literals("/* 'a' "), [""; 0]);
    }
}

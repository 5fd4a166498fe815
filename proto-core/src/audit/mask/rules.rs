//! Which literals hold a secret, from the tokens in front of them.

use std::ops::Range;

use super::inside::{self, Ending};
use super::lexer::{Lexer, Token};
use super::secret_word_end;

/// How deep bodies within bodies are read as SQL (`DO $a$ … EXECUTE $b$ … $b$ … $a$`). Each level passes its bytes
/// once more, so the number is part of the linear bound; what lies deeper is read as plain text.
const MAX_DEPTH: u8 = 4;

/// What the tokens so far say about a literal that follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Nothing: only its inside is looked at.
    Nothing,
    /// A word announced a secret: `PASSWORD ·`.
    Word,
    /// And a sign stood behind it: `password = ·`.
    Value,
    /// And a function or type: `password = crypt ·`.
    Function,
    /// A literal ended in such a word: `'password=' ·`.
    Tail,
    /// The last token was a masked literal; one right behind it continues it (manual, section 4.1.2.1).
    Continuation,
}

struct Rules<'a, 's> {
    text: &'a [u8],
    truncated: bool,
    depth: u8,
    expect: Expect,
    /// A template (`PASSWORD %L`) takes its values from the other literals of its statement.
    template: bool,
    /// The token before was a word that is followed by SQL when a dollar quote follows (`DO`, `AS`, `EXECUTE`).
    before_body: bool,
    spans: &'s mut Vec<Range<usize>>,
}

/// Adds the secrets of the SQL in `text[from..]`.
pub(super) fn scan(text: &[u8], from: usize, truncated: bool, depth: u8, spans: &mut Vec<Range<usize>>) {
    let mut rules =
        Rules { text, truncated, depth, expect: Expect::Nothing, template: false, before_body: false, spans };
    for token in Lexer::new(text, from) {
        rules.handle_token(token);
    }
}

impl Rules<'_, '_> {
    fn handle_token(&mut self, token: Token) {
        let before_body = self.before_body;
        if let Token::Comment { content, closed } = token {
            let _ = inside::scan(&self.text[..content.end], content.start, self.truncated && !closed, self.spans);
            return;
        }
        self.before_body = false;
        self.expect = match (token, self.expect) {
            (Token::Literal { content, dollar, closed }, _) => {
                let body = dollar && before_body && self.depth < MAX_DEPTH;
                self.literal(content, body, self.truncated && !closed)
            }
            (Token::Word(word), expect) => self.word(word, expect),
            (Token::Identifier(content), Expect::Word) => {
                // No valid SQL, but a common slip: ALTER ROLE alice PASSWORD "secret".
                self.spans.push(content);
                Expect::Nothing
            }
            (Token::Identifier(content), _) if announces(&self.text[content.clone()]) => Expect::Word,
            (Token::Operator, expect) if expect != Expect::Nothing && expect != Expect::Function => Expect::Value,
            (Token::Open, Expect::Word | Expect::Value | Expect::Function) => Expect::Value,
            (Token::Dot, Expect::Function) => Expect::Value,
            (Token::Comma, Expect::Tail) => Expect::Value,
            (Token::Semicolon, _) => {
                self.template = false;
                Expect::Nothing
            }
            _ => Expect::Nothing,
        };
    }

    fn word(&mut self, word: Range<usize>, expect: Expect) -> Expect {
        let word = &self.text[word];
        self.before_body = !word.eq_ignore_ascii_case(b"connection");
        match expect {
            _ if announces(word) => Expect::Word,
            // SET app.password TO '…'
            Expect::Word if word.eq_ignore_ascii_case(b"to") => Expect::Value,
            Expect::Value => Expect::Function,
            _ => Expect::Nothing,
        }
    }

    fn literal(&mut self, content: Range<usize>, body: bool, cut_off: bool) -> Expect {
        if self.template || self.expect != Expect::Nothing {
            self.spans.push(content);
            return Expect::Continuation;
        }
        let text = &self.text[..content.end];
        if body {
            scan(text, content.start, cut_off, self.depth + 1, self.spans);
            return Expect::Nothing;
        }
        match inside::scan(text, content.start, cut_off, self.spans) {
            Ending::Settled => Expect::Nothing,
            Ending::Announced => Expect::Tail,
            Ending::Template => {
                self.template = true;
                Expect::Nothing
            }
        }
    }
}

/// Whether a word ends in one that announces a secret.
fn announces(word: &[u8]) -> bool {
    [4, 2, 7].iter().any(|&back| word.len() >= back && secret_word_end(word, word.len() - back) == Some(word.len()))
}

//! Which state of a session ties it to its server connection between transactions, as far as the text of a statement
//! shows it.
//!
//! This is a service, not a wall: what a function does inside is not seen. It keeps a person's own `LISTEN`, temporary
//! table or setting where that person will look for it. What keeps people apart is the reset in between.

pub(super) mod words;

use words::{Cut, Word};

/// A kind of state that cannot follow its owner to another server connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum Pin {
    /// `LISTEN`: until `UNLISTEN *`.
    Listen = 1,
    /// A temporary table, view or sequence: until `DISCARD TEMP`.
    Temporary = 1 << 1,
    /// `SET` of what the server does not report: until `RESET ALL`.
    Setting = 1 << 2,
    /// `SET ROLE`, `SET SESSION AUTHORIZATION`: until `RESET ROLE` or `RESET SESSION AUTHORIZATION`.
    Role = 1 << 3,
    /// A cursor `WITH HOLD`: until `CLOSE ALL`.
    HoldCursor = 1 << 4,
    /// An advisory lock of the session: until `pg_advisory_unlock_all()`.
    AdvisoryLock = 1 << 5,
    /// `PREPARE` in SQL: until `DEALLOCATE ALL`.
    Prepared = 1 << 6,
    /// `LOAD`: for good, and nobody else gets the connection behind it.
    Library = 1 << 7,
}

impl Pin {
    /// All kinds, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::Listen,
        Self::Temporary,
        Self::Setting,
        Self::Role,
        Self::HoldCursor,
        Self::AdvisoryLock,
        Self::Prepared,
        Self::Library,
    ];

    /// The word for it in notices and lists.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Listen => "LISTEN",
            Self::Temporary => "temporary object",
            Self::Setting => "SET",
            Self::Role => "SET ROLE",
            Self::HoldCursor => "cursor WITH HOLD",
            Self::AdvisoryLock => "advisory lock",
            Self::Prepared => "PREPARE",
            Self::Library => "LOAD",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pins(u16);

impl Pins {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this kind is among them.
    #[must_use]
    pub const fn has(self, pin: Pin) -> bool {
        self.0 & pin as u16 != 0
    }

    /// The kinds in it.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.has(*pin))
    }

    /// The set as a number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// The set that was this number; what is no kind is left out.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        let mut pins = Self::default();
        for pin in Pin::ALL.into_iter().filter(|pin| bits & *pin as u32 != 0) {
            pins.add(pin);
        }
        pins
    }

    const fn add(&mut self, pin: Pin) {
        self.0 |= pin as u16;
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Display for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, pin) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            f.write_str(pin.word())?;
        }
        Ok(())
    }
}

/// What the statements of one text leave behind, and what they clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Effect {
    /// What is there behind the last of them.
    pub(super) leaves: Pins,
    /// The same, when one fails in front of what would clear it.
    may_leave: Pins,
    pub(super) clears: Pins,
    /// Settings are set, or taken back.
    pub(super) is_about_settings: bool,
}

/// How much of a text is looked at.
pub(super) const LOOK: usize = 1024;

/// What a text leaves behind. `is_reported` knows the settings that follow a session by themselves.
pub(super) fn effect(text: &[u8], is_reported: impl Fn(&[u8]) -> bool) -> Effect {
    let mut effect = Effect::default();
    let mut statements = Cut::new(&text[..text.len().min(LOOK)]);
    while let Some(words) = statements.next_statement() {
        let one = effect_of_one(&words, &is_reported);
        effect.leaves = effect.leaves.without(one.clears).with(one.leaves);
        effect.may_leave = effect.may_leave.with(one.leaves);
        effect.is_about_settings |=
            words.first().is_some_and(|word| ["set", "reset", "discard"].iter().any(|verb| word.is(verb)));
        effect.clears = effect.clears.with(one.clears).without(one.leaves);
    }
    effect
}

fn effect_of_one(words: &[Word<'_>], is_reported: &impl Fn(&[u8]) -> bool) -> Effect {
    let mut effect = Effect::default();
    let word = |n: usize| words.get(n).copied().unwrap_or_default();
    let is = |n: usize, expected: &str| word(n).is(expected);
    if is(0, "listen") {
        effect.leaves.add(Pin::Listen);
    } else if is(0, "unlisten") && is(1, "*") {
        effect.clears.add(Pin::Listen);
    } else if is(0, "load") {
        effect.leaves.add(Pin::Library);
    } else if is(0, "prepare") && !is(1, "transaction") {
        effect.leaves.add(Pin::Prepared);
    } else if is(0, "deallocate") && (is(1, "all") || is(1, "prepare") && is(2, "all")) {
        effect.clears.add(Pin::Prepared);
    } else if is(0, "close") && is(1, "all") {
        effect.clears.add(Pin::HoldCursor);
    } else if is(0, "declare") && words.windows(2).any(|pair| pair[0].is("with") && pair[1].is("hold")) {
        effect.leaves.add(Pin::HoldCursor);
    } else if is(0, "discard") && (is(1, "temp") || is(1, "temporary")) {
        effect.clears.add(Pin::Temporary);
    } else if is(0, "discard") && is(1, "all") {
        effect.clears = Pins(u16::MAX).without(Pins(Pin::Library as u16));
    } else if is(0, "reset") {
        reset(word(1), word(2), &mut effect);
    } else if is(0, "set") {
        set(words, is_reported, &mut effect);
    } else {
        inside(words, &mut effect);
    }
    effect
}

fn reset(what: Word<'_>, next: Word<'_>, effect: &mut Effect) {
    if what.is("all") {
        effect.clears.add(Pin::Setting);
    } else if what.is("role") || what.is("session") && next.is("authorization") {
        effect.clears.add(Pin::Role);
    }
}

fn set(words: &[Word<'_>], is_reported: &impl Fn(&[u8]) -> bool, effect: &mut Effect) {
    let is_session = words.get(1).is_some_and(|word| word.is("session"));
    let name = words.get(1 + usize::from(is_session)).copied().unwrap_or_default();
    if !is_session && ["local", "transaction", "constraints"].iter().any(|scope| name.is(scope)) {
        return;
    }
    if name.is("role") || is_session && name.is("authorization") {
        effect.leaves.add(Pin::Role);
        return;
    }
    let follows = match () {
        () if name.is("time") => is_reported(b"TimeZone"),
        () if name.is("names") => is_reported(b"client_encoding"),
        () => is_reported(name.bytes()),
    };
    if !follows {
        effect.leaves.add(Pin::Setting);
    }
}

/// What may stand anywhere in a statement.
fn inside(words: &[Word<'_>], effect: &mut Effect) {
    const LOCKS: [&str; 4] =
        ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"];
    let creates = words.first().is_some_and(|word| word.is("create"));
    for (n, word) in words.iter().enumerate() {
        if word.is("temp") || word.is("temporary") {
            let behind_into = n > 0 && words[n - 1].is("into") && !words[0].is("insert");
            if behind_into || creates && n < 5 {
                effect.leaves.add(Pin::Temporary);
            }
        } else if word.is("pg_temp") && creates {
            effect.leaves.add(Pin::Temporary);
        } else if LOCKS.iter().any(|lock| word.is(lock)) {
            effect.leaves.add(Pin::AdvisoryLock);
        } else if word.is("pg_advisory_unlock_all") {
            effect.clears.add(Pin::AdvisoryLock);
        } else if word.is("set_config") && !words[n..].iter().any(|word| word.is("true")) {
            // Its third argument says whether it ends with the transaction.
            effect.leaves.add(Pin::Setting);
        }
    }
}

/// The pins of one session.
#[derive(Default)]
pub(super) struct Book {
    pins: Pins,
    /// Cleared once the query under way has succeeded outside of a transaction.
    clearing: Pins,
}

impl Book {
    pub(super) const fn pins(&self) -> Pins {
        self.pins
    }

    /// A statement is sent. What it may leave behind counts at once, since it may do so before it fails; what it clears
    /// counts when it has succeeded, and only where nothing can take that back: `alone`, outside of a transaction.
    pub(super) const fn handle_statement(&mut self, effect: Effect, alone: bool) {
        self.pins = self.pins.with(effect.may_leave);
        self.clearing = if alone { effect.clears } else { Pins(0) };
    }

    /// A prepared statement gets a name.
    pub(super) const fn handle_named(&mut self) {
        self.pins.add(Pin::Prepared);
    }

    /// A setting has a value that cannot be given to another connection.
    pub(super) const fn handle_unsettable(&mut self) {
        self.pins.add(Pin::Setting);
    }

    /// The server has reported an error.
    pub(super) const fn handle_error(&mut self) {
        self.clearing = Pins(0);
    }

    /// ReadyForQuery, outside of a transaction.
    pub(super) const fn handle_idle(&mut self) {
        self.pins = self.pins.without(self.clearing);
        self.clearing = Pins(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> (String, String) {
        let reported = |name: &[u8]| {
            [&b"timezone"[..], b"application_name", b"client_encoding"].iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let effect = effect(text.as_bytes(), reported);
        (effect.leaves.to_string(), effect.clears.to_string())
    }

    fn leaves(text: &str) -> String {
        look(text).0
    }

    #[test]
    fn what_cannot_follow_is_recognised_by_kind() {
        for (text, kind) in [
            ("LISTEN jobs", "LISTEN"),
            ("create temp table t (a int)", "temporary object"),
            ("CREATE GLOBAL TEMPORARY TABLE t (a int)", "temporary object"),
            ("create or replace temp view v as select 1", "temporary object"),
            ("create table pg_temp.t (a int)", "temporary object"),
            ("select 1 into temp t", "temporary object"),
            ("set work_mem = '64MB'", "SET"),
            ("SET SESSION work_mem TO 1", "SET"),
            ("set session characteristics as transaction read only", "SET"),
            ("set schema 'x'", "SET"),
            ("select set_config('a.b', 'c', false)", "SET"),
            ("set role bob", "SET ROLE"),
            ("set session authorization bob", "SET ROLE"),
            ("set session role bob", "SET ROLE"),
            ("declare c cursor with hold for select 1", "cursor WITH HOLD"),
            ("select pg_advisory_lock(1)", "advisory lock"),
            ("select * from pg_catalog.pg_try_advisory_lock_shared(1)", "advisory lock"),
            ("prepare q as select 1", "PREPARE"),
            ("load 'auto_explain'", "LOAD"),
            ("/* why */ -- not\n listen x", "LISTEN"),
            ("begin; listen x; commit", "LISTEN"),
            ("listen a; create temp table t (a int)", "LISTEN, temporary object"),
        ] {
            assert_eq!(leaves(text), kind, "{text}");
        }
    }

    #[test]
    fn what_follows_or_ends_with_the_transaction_leaves_nothing() {
        for text in [
            "select 1",
            "",
            ";;",
            "set timezone = 'UTC'",
            "SET TIME ZONE 'UTC'",
            "set names 'utf8'",
            "set \"TimeZone\" to 'UTC'",
            "set session application_name = 'x'",
            "set local work_mem = 1",
            "set transaction isolation level serializable",
            "set constraints all deferred",
            "select set_config('role', 'bob', true)",
            "select pg_advisory_xact_lock(1)",
            "select 'listen x; create temp table t'",
            "select $$ ; listen x $$, $tag$ ; listen $$ y $tag$",
            "select \"pg_advisory_lock\" is null from t where E'\\'; listen x' = ''",
            "insert into temp values (1)",
            "declare c cursor for select 1",
            "prepare transaction 'x'",
            "select hold, load, listen from t",
        ] {
            assert_eq!(leaves(text), if text.contains("\"pg_adv") { "advisory lock" } else { "" }, "{text}");
        }
    }

    #[test]
    fn what_is_cleared_is_recognised_too() {
        for (text, kind) in [
            ("unlisten *", "LISTEN"),
            ("UNLISTEN jobs", ""),
            ("discard temp", "temporary object"),
            ("reset all", "SET"),
            ("reset work_mem", ""),
            ("reset role", "SET ROLE"),
            ("reset session authorization", "SET ROLE"),
            ("close all", "cursor WITH HOLD"),
            ("select pg_advisory_unlock_all()", "advisory lock"),
            ("deallocate all", "PREPARE"),
            ("deallocate prepare all", "PREPARE"),
            ("deallocate q", ""),
            ("discard all", "LISTEN, temporary object, SET, SET ROLE, cursor WITH HOLD, advisory lock, PREPARE"),
            (
                "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
                "LISTEN, SET, cursor WITH HOLD, advisory lock",
            ),
            ("unlisten *; listen x", ""),
        ] {
            assert_eq!(look(text).1, kind, "{text}");
        }
        assert_eq!(look("listen x; unlisten *"), (String::new(), "LISTEN".into()));
    }

    #[test]
    fn a_book_forgets_only_after_success_outside_of_a_transaction() {
        let effect = |text: &str| effect(text.as_bytes(), |_| false);
        let mut book = Book::default();
        book.handle_statement(effect("listen x"), true);
        assert!(book.pins().has(Pin::Listen));
        book.handle_statement(effect("unlisten *"), true);
        book.handle_error();
        book.handle_idle();
        assert!(book.pins().has(Pin::Listen), "it failed");
        book.handle_statement(effect("unlisten *"), false);
        book.handle_idle();
        assert!(book.pins().has(Pin::Listen), "a rollback could take it back");
        book.handle_statement(effect("unlisten *"), true);
        assert!(book.pins().has(Pin::Listen), "not yet");
        book.handle_idle();
        assert!(book.pins().is_empty());
        book.handle_statement(effect("prepare q as select 1; discard all"), true);
        book.handle_error();
        book.handle_idle();
        assert!(book.pins().has(Pin::Prepared), "DISCARD ALL fails there, and what is prepared stays");
        book.handle_statement(effect("prepare q as select 1; deallocate all"), true);
        book.handle_idle();
        assert!(book.pins().is_empty());
    }
}

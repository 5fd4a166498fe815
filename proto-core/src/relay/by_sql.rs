//! Statements of the protocol that SQL names: `DEALLOCATE`, `EXECUTE` and `PREPARE` share the names of Parse and Close.
//!
//! As with [`super::pins`] only the beginning of a text is looked at. A name is freed in the books when the server says so,
//! and what comes behind a text that frees one waits for that: it might prepare something else by the same name.

use std::collections::VecDeque;

use super::meaning::Meaning;
use super::names::Name;
use super::pins::LOOK;
use super::pins::words::{Cut, Word};
use super::prepared::{Before, Statements};
use super::way::Seen;
use super::{Pooled, Relay, Step};
use crate::codec::Header;
use crate::codec::backend::{TransactionStatus, emit_command_complete, emit_ready_for_query, tag as back};
use crate::codec::frontend::tag;
use crate::time::Now;

/// What a Parse of an empty text says behind the name. It is never refused, not even in a failed transaction.
pub(super) const EMPTY: &[u8] = &[0, 0, 0];

/// What a text says about prepared statements.
#[derive(Default)]
pub(super) struct Mentions {
    /// Every name in it.
    names: Vec<Name>,
    /// Those of `DEALLOCATE`, in their order; `None` where the name is not understood.
    freed: VecDeque<Option<Name>>,
    /// Those of `PREPARE`.
    made: Vec<Name>,
    /// Everything is freed.
    frees_all: bool,
    /// A statement runs of which only the name is known: what the server says of it may look like another one's answer.
    executes: bool,
    /// Those that run.
    executed: Vec<Name>,
    /// The text is nothing but `DEALLOCATE` of the first of the names.
    is_lone: bool,
}

impl Mentions {
    fn add(&mut self, words: &[Word<'_>]) {
        let word = |n: usize| words.get(n).copied().unwrap_or_default();
        let is = |n: usize, expected: &str| word(n).is_keyword(expected);
        if is(0, "deallocate") {
            // `PREPARE` is a noise word here, or a name.
            let at = if is(1, "prepare") && words.len() > 2 { 2 } else { 1 };
            if is(at, "all") {
                self.frees_all = true;
            } else {
                let name = name_at(words, at);
                self.freed.push_back(name);
                self.names.extend(name);
            }
        } else if is(0, "discard") {
            self.frees_all |= is(1, "all");
        } else if is(0, "prepare") {
            let name = name_at(words, 1).filter(|_| !is(1, "transaction"));
            self.made.extend(name);
            self.names.extend(name);
        } else if (is(0, "execute") || is(0, "explain") || is(0, "create"))
            && let Some(at) = words.iter().position(|word| word.is_keyword("execute"))
        {
            self.executes = true;
            let name = name_at(words, at + 1);
            self.executed.extend(name);
            self.names.extend(name);
        }
    }

    /// Whether there must be something of this name where the session has it, whatever it is: to be freed, or in the way.
    fn wants_any(&self, name: Name) -> bool {
        self.freed.contains(&Some(name)) || self.made.contains(&name)
    }

    /// Whether names may be free behind it.
    fn frees(&self) -> bool {
        self.frees_all || !self.freed.is_empty()
    }
}

/// The name in this place, where it is one that is understood.
fn name_at(words: &[Word<'_>], at: usize) -> Option<Name> {
    let word = words.get(at)?;
    let bytes = word.bytes();
    if word.is_quoted() {
        // A doubled quote stands for one.
        return (!bytes.is_empty() && !bytes.contains(&b'"')).then(|| Name::new(bytes));
    }
    let is_escaped = word.is("u") && words.get(at + 1).is_some_and(|next| next.is_quoted());
    // Identifiers without quotes are folded to lower case (manual, section 4.1.1), beyond ASCII by rules of the server's.
    (bytes.is_ascii() && !is_escaped).then(|| Name::new(&bytes.to_ascii_lowercase()))
}

/// What a text says about prepared statements; `None` for nearly all: nothing.
pub(super) fn mentions(text: &[u8]) -> Option<Mentions> {
    if !may_mention(text) {
        return None;
    }
    let mut mentions = Mentions::default();
    let (mut count, mut known) = (0, 0);
    let mut cut = Cut::new(&text[..text.len().min(LOOK)]);
    while let Some(words) = cut.next_statement() {
        count += usize::from(!words.is_empty());
        known = mentions.freed.len();
        mentions.add(&words);
    }
    if mentions.executes {
        known = 0;
    } else if text.len() <= LOOK {
        known = mentions.freed.len();
    }
    // Of what goes on behind the look, the last name may be only a part.
    mentions.freed.iter_mut().skip(known).for_each(|name| *name = None);
    mentions.is_lone = count == 1 && text.len() <= LOOK && matches!(mentions.freed.front(), Some(Some(_)));
    (mentions.frees() || !mentions.names.is_empty()).then_some(mentions)
}

/// The name in a `DEALLOCATE`, when the text is nothing but that.
pub(super) fn deallocated(text: &[u8]) -> Option<Name> {
    let mut mentions = mentions(text).filter(|mentions| mentions.is_lone)?;
    mentions.freed.pop_front().flatten()
}

/// Whether it is worth a closer look: it begins like one of these, or with a comment, or has more than one statement.
fn may_mention(text: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 6] = [b"deallocate", b"execute", b"prepare", b"discard", b"explain", b"create"];
    let text = text[..text.len().min(LOOK)].trim_ascii_start();
    let begins = |keyword: &&[u8]| text.get(..keyword.len()).is_some_and(|head| head.eq_ignore_ascii_case(keyword));
    let several = |at: usize| !text[at + 1..].trim_ascii_start().is_empty();
    matches!(text.first(), Some(b'-' | b'/' | b';'))
        || KEYWORDS.iter().any(begins)
        || memchr::memchr(b';', text).is_some_and(several)
}

/// What SQL under way does to names.
#[derive(Default)]
pub(super) struct UnderWay {
    /// Names that a query frees, in their order.
    freed: VecDeque<Option<Name>>,
    /// That query is not answered to its end.
    query: bool,
    /// How often such a text was bound and may still run.
    bound: u32,
    /// What the text of the unnamed statement says, where it frees names.
    unnamed: Option<Mentions>,
    /// Such a text was parsed or bound, and something since then is not answered.
    extended: bool,
}

impl Statements {
    /// Whether SQL is under way behind which names may be free.
    pub(super) const fn is_freeing(&self) -> bool {
        self.by_sql.query || self.by_sql.extended
    }

    /// Whether the server keeps an answer that is waited for until it is asked for it.
    pub(super) const fn awaits_flush(&self) -> bool {
        self.by_sql.extended
    }

    /// The unnamed statement is bound, and may run.
    pub(super) const fn handle_bound_by_sql(&mut self) {
        if self.by_sql.unnamed.is_some() {
            self.by_sql.extended = true;
            self.by_sql.bound = self.by_sql.bound.saturating_add(1);
        }
    }

    /// Everything that was sent is answered.
    pub(super) fn handle_all_answered(&mut self) {
        (self.by_sql.extended, self.by_sql.bound) = (false, 0);
    }

    /// ReadyForQuery.
    pub(super) fn handle_ready(&mut self) {
        self.by_sql.query = false;
        self.by_sql.freed.clear();
    }

    /// The server has carried out a `DEALLOCATE` of one name.
    pub(super) fn handle_freed(&mut self) {
        let of_query = self.by_sql.freed.pop_front();
        let may_run = of_query.is_none() && self.by_sql.bound > 0;
        self.by_sql.bound -= u32::from(may_run);
        let of_parse = || self.by_sql.unnamed.as_ref().and_then(|mentions| mentions.freed.front().copied());
        // Of a query it is certain which one; what a portal runs may be something else.
        let certain = matches!(of_query, Some(Some(_)));
        if let Some(name) = of_query.or_else(|| may_run.then(of_parse).flatten()).flatten() {
            self.forget(&name);
        }
        if !certain {
            self.handle_doubt();
        }
    }

    /// SQL has freed a name.
    fn forget(&mut self, name: &Name) {
        self.mine.remove(name);
        self.fixed.remove(name);
        if let Some(here) = &mut self.here {
            here.by_name.remove(name);
        }
    }

    /// Whether the connection has something of this name.
    fn is_here(&self, name: &Name) -> bool {
        self.here.as_ref().is_some_and(|here| here.by_name.contains_key(name)) || self.fixed.contains(name)
    }

    /// What must go so that a query finds nothing by this name that the session does not have, and where it `wants_any`,
    /// something by one that the session has. Its text may be one that the server would refuse by now.
    fn before_query(&mut self, name: Name, wants_any: bool) -> Option<Before> {
        if wants_any && self.has(&name) {
            return (!self.is_here(&name)).then(|| Before::Parse(name, Meaning::new(EMPTY, None)));
        }
        self.is_foreign(&name).then_some(Before::Close(name))
    }
}

impl Pooled {
    /// What must go so that a Parse of this text finds what the session means by the names in it.
    fn before_parse(&mut self, mentions: &Mentions) -> Option<Before> {
        mentions.names.iter().find_map(|name| {
            if mentions.executed.contains(name) {
                self.statements.before_sql(name)
            } else {
                self.statements.before_query(*name, mentions.wants_any(*name))
            }
        })
    }
}

impl Relay {
    /// What is to be done before a Parse of the unnamed statement.
    pub(super) fn before_parse(&mut self, text: &[u8], front: bool) -> Option<Step> {
        let pooled = self.pooled.as_mut()?;
        let by_sql = &mut pooled.statements.by_sql;
        let Some(mentions) = mentions(text) else {
            // What the one before frees is still to be seen.
            if by_sql.extended {
                return Some(Step::Wait);
            }
            by_sql.unnamed = None;
            return None;
        };
        if pooled.statements.is_unsettled() {
            return Some(Step::Wait);
        }
        if let Some(before) = pooled.before_parse(&mentions) {
            return Some(if front { self.first(&before) } else { Step::Wait });
        }
        let by_sql = &mut pooled.statements.by_sql;
        by_sql.unnamed = mentions.frees().then_some(mentions);
        by_sql.extended = by_sql.unnamed.is_some();
        None
    }

    /// What is to be done with a query that may name statements.
    pub(super) fn way_of_query(&mut self, header: Header, seen: &Seen<'_>, front: bool, now: Now) -> Option<Step> {
        let (Seen::All(body) | Seen::Part(body)) = *seen;
        if matches!(seen, Seen::Part(_)) && body.len() < LOOK.min(header.body as usize) {
            return Some(Step::Wait);
        }
        let text = body.strip_suffix(b"\0").unwrap_or(body);
        if let Some(mentions) = mentions(text)
            && let Some(step) = self.way_of_mentions(mentions, header, body, front, now)
        {
            return Some(step);
        }
        self.pooled.as_mut()?.statements.handle_query();
        None
    }

    /// Nothing more is taken in before what has gone is answered, and the server is asked for that where it might keep it.
    pub(super) fn ask_for_answers(&mut self, front: bool) -> Step {
        if front && self.tracker.is_unsynced() { self.ask_once() } else { Step::Wait }
    }

    /// What is waited for may be an answer that the server keeps.
    pub(super) fn wait(&mut self, front: bool) -> Step {
        let asks = self.pooled.as_ref().is_some_and(|pooled| pooled.statements.awaits_flush());
        if asks { self.ask_for_answers(front) } else { Step::Wait }
    }

    /// The statement exists here and nowhere else: its end is gprxy's own to say.
    fn deallocated(&mut self, name: &Name, header: Header, body: &[u8], now: Now) -> Step {
        let status = self.tracker.status();
        if let Some(pooled) = &mut self.pooled {
            pooled.statements.handle_gone_here(name);
        }
        self.tracker.handle_query_answered();
        let mut answer = Vec::new();
        emit_command_complete(&mut answer, b"DEALLOCATE");
        emit_ready_for_query(&mut answer, status);
        if let Some(ledger) = &mut self.ledger {
            let seen = &body[..body.len().min(ledger.text_limit())];
            let _ = ledger.handle_frontend(tag::QUERY, Some(super::tracker::Op::Query), seen, header.body, now);
            for (tag, seen) in [(back::COMMAND_COMPLETE, &b"DEALLOCATE\0"[..]), (back::READY_FOR_QUERY, b"I")] {
                ledger.count_answer(u32::try_from(seen.len()).unwrap_or(0));
                ledger.handle_backend(tag, seen, status, now);
            }
        }
        self.discard(header);
        Step::SayClient(answer)
    }

    fn way_of_mentions(&mut self, said: Mentions, header: Header, body: &[u8], front: bool, now: Now) -> Option<Step> {
        let failed = self.status() == TransactionStatus::Failed;
        if said.frees() && self.tracker.answers_to_come() {
            return Some(self.ask_for_answers(front));
        }
        let (quiet, whole) = (self.is_quiet(), body.len() == header.body as usize);
        let statements = &mut self.pooled.as_mut()?.statements;
        if statements.is_unsettled() {
            return Some(Step::Wait);
        }
        if said.is_lone && whole && quiet && !failed && said.names.first().is_some_and(|name| statements.has(name)) {
            if !front {
                return Some(Step::Wait);
            }
            // A query that runs takes its place in the audit trail first.
            if self.ledger.as_mut().is_some_and(|ledger| !ledger.take_permit()) {
                return Some(Step::NeedPermit);
            }
            return Some(self.deallocated(&said.names[0], header, body, now));
        }
        // In a failed transaction as well: it may end in front of what frees.
        let before = said.names.iter().find_map(|&name| statements.before_query(name, said.wants_any(name)));
        if let Some(before) = before {
            return Some(if front { self.first(&before) } else { Step::Wait });
        }
        if said.frees() && !self.tracker.is_copying_in() {
            if self.ledger.as_mut().is_some_and(|ledger| !ledger.has_permits(|| 1)) {
                return Some(Step::NeedPermit);
            }
            statements.by_sql.query = true;
            statements.by_sql.freed = said.freed;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Option<(String, String, bool)> {
        let said = mentions(text.as_bytes())?;
        let show = |name: &Name| String::from_utf8_lossy(name.bytes()).into_owned();
        let names: Vec<_> = said.names.iter().map(show).collect();
        let mut freed: Vec<_> = said.freed.iter().map(|name| name.as_ref().map_or("?".into(), show)).collect();
        freed.extend(said.frees_all.then(|| "*".to_owned()));
        Some((names.join(" "), freed.join(" "), said.is_lone))
    }

    #[test]
    fn names_in_sql_are_found_wherever_they_stand() {
        for (text, names, freed, lone) in [
            (" deallocate S1 ; ", "s1", "s1", true),
            ("DEALLOCATE PREPARE \"S1\"", "S1", "S1", true),
            ("/* why */ DEALLOCATE _pg3_0 -- so", "_pg3_0", "_pg3_0", true),
            ("deallocate prepare", "prepare", "prepare", true),
            ("deallocate \"all\"", "all", "all", true),
            ("begin; deallocate a; select 1; deallocate b; commit", "a b", "a b", false),
            ("deallocate all", "", "*", false),
            ("deallocate a; discard all", "a", "a *", false),
            ("deallocate \"a\"\"b\"", "", "?", false),
            ("deallocate U&\"a\"", "", "?", false),
            ("deallocate Größe", "", "?", false),
            ("execute q(1, 'x; deallocate y')", "q", "", false),
            ("execute q; deallocate s", "q s", "?", false),
            ("explain (analyze, verbose) execute q(2)", "q", "", false),
            ("create table t as execute q", "q", "", false),
            ("select 1; prepare q as select 2", "q", "", false),
        ] {
            let expected = (names.to_owned(), freed.to_owned(), lone);
            assert_eq!(look(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn most_texts_say_nothing_of_names() {
        for text in [
            "",
            ";",
            "select 1;",
            "deallocates1",
            "select 1; select 2",
            "prepare transaction 'x'",
            "create table t (a int)",
            "explain select 1",
            "select 'deallocate a; '",
            "discard plans",
        ] {
            assert_eq!(look(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_that_the_look_ends_in_is_not_known() {
        let text = |length: usize| format!("deallocate a; deallocate {}", "b".repeat(length));
        assert_eq!(look(&text(LOOK - 25)).unwrap().1.len(), 2 + 63);
        assert_eq!(look(&text(LOOK)).unwrap().1, "a ?");
    }
}

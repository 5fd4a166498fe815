//! The way of a message that names a prepared statement: as it is, with another name, behind something of gprxy's own, or
//! no further than here.

use super::names::Name;
use super::prepared::{Before, MAX_PARSE, Use, Way};
use super::tracker::Op;
use super::{Relay, Step, rules};
use crate::codec::backend::TransactionStatus;
use crate::codec::frontend::{BindView, Target, emit_close, emit_parse, tag as front, target};
use crate::codec::{HEADER_LEN, Header, Malformed, Reader};
use crate::fault::Violation;
use crate::time::Now;

/// The longest Describe or Close that goes as it is: PostgreSQL ends a session over one of 10,000 bytes
/// (`PQ_SMALL_MESSAGE_LIMIT`).
const MOST_NAMED: usize = 9_000;

/// A name, and what stands before it, is waited for as long as it may fit in here.
const LOOK: usize = rules::NAMES + HEADER_LEN + 64;

/// A body that is seen so far.
pub(super) enum Seen<'a> {
    /// To its end.
    All(&'a [u8]),
    /// More is to come.
    Part(&'a [u8]),
}

/// Whether what is there of a message at the client's front decides how it goes: all of it, or as much as is looked at of
/// any. Where it is, the server waits for no more than what its own statements take.
#[must_use]
pub fn shows_enough(header: Header, bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN + MAX_PARSE.min(header.body as usize)
}

impl Relay {
    /// What is to be done with a message of the client before, or instead of, passing it; `None`: it passes. Nothing is
    /// done while it is not at the `front`.
    pub(super) fn way(&mut self, header: Header, bytes: &[u8], front: bool, now: Now) -> Option<Step> {
        if self.tracker.is_skipping() && header.tag != front::SYNC {
            return None;
        }
        if header.tag == front::SYNC {
            self.pooled.as_mut()?.statements.handle_sync();
            return None;
        }
        let rest = &bytes[HEADER_LEN..];
        let body = &rest[..rest.len().min(header.body as usize)];
        if let Some(step) = self.refusal_of(header, body, front, now) {
            return Some(step);
        }
        let seen = match rest.get(..header.body as usize) {
            Some(body) => Seen::All(body),
            None => Seen::Part(rest),
        };
        if matches!(header.tag, front::PARSE | front::BIND | front::DESCRIBE) {
            self.pooled.as_mut()?.know_settings();
        }
        match header.tag {
            front::PARSE => self.way_of_parse(header, &seen, front, now),
            front::BIND => self.way_of_bind(header, &seen, front, now),
            front::DESCRIBE => self.way_of_describe(header, &seen, front, now),
            front::CLOSE => self.way_of_close(header, &seen, front, now),
            front::QUERY => self.way_of_query(header, &seen, front, now),
            _ => None,
        }
    }

    fn way_of_parse(&mut self, header: Header, seen: &Seen<'_>, front: bool, now: Now) -> Option<Step> {
        let (body, whole) = match seen {
            Seen::All(body) => (*body, true),
            Seen::Part(body) => (*body, false),
        };
        let long = header.body as usize > MAX_PARSE;
        if !whole && !long {
            return Some(Step::Wait);
        }
        let Ok(name) = Reader::new(body).cstr() else {
            if let Some(name) = self.long_name(header, body) {
                return self.way_of_long_parse(name, header, seen, front);
            }
            if whole {
                self.pooled.as_mut()?.statements.handle_other();
            }
            return self.unseen_name(header, seen);
        };
        let names = name.len() + 1;
        let failed = self.status() == TransactionStatus::Failed;
        let (name, definition) = (Name::new(name), &body[names..]);
        let pooled = self.pooled.as_mut()?;
        if name.is_empty() {
            let text = definition.split(|&byte| byte == 0).next().unwrap_or_default();
            if let Some(step) = self.before_parse(text, front) {
                return Some(step);
            }
            if !long && !failed {
                let statements = &mut self.pooled.as_mut()?.statements;
                if statements.wants_cached(definition) {
                    return Some(self.way_of_cached(header, body, front, now));
                }
            }
            let pooled = self.pooled.as_mut()?;
            pooled.statements.handle_unnamed((!long).then_some(definition));
            return None;
        }
        if pooled.statements.is_unsettled() {
            return Some(Step::Wait);
        }
        // One that the session has already is refused by the server, however long it is.
        if !pooled.statements.has(&name) && (long || !pooled.statements.has_room()) {
            // Not for what others have left there under this name.
            if pooled.statements.is_foreign(&name) {
                return Some(if front { self.first(&Before::Close(name)) } else { Step::Wait });
            }
            pooled.handle_unmovable();
            pooled.statements.handle_fixed(name);
            return None;
        }
        match pooled.statements.parse_of(&name, definition, failed) {
            Use::Go(Way::Same) if pooled.statements.has(&name) => {
                pooled.statements.handle_taken(name, (!long).then_some(definition));
                None
            }
            Use::Go(Way::Same) => {
                pooled.statements.handle_parse(name, definition, Way::Same);
                None
            }
            _ if !front => Some(Step::Wait),
            Use::First(before) => Some(self.first(&before)),
            Use::Go(way) => {
                pooled.statements.handle_parse(name, definition, way);
                Some(match way {
                    Way::Renamed(other) => self.renamed(header, body, names, &cstr(&other), now),
                    Way::Same | Way::Answered(_) => self.answered(Op::AnsweredParse, header, body, now),
                })
            }
        }
    }

    fn way_of_bind(&mut self, header: Header, seen: &Seen<'_>, front: bool, now: Now) -> Option<Step> {
        let (Seen::All(body) | Seen::Part(body)) = *seen;
        let parsed = BindView::parse(body);
        let name = match &parsed {
            Ok(names) => Name::new(names.statement),
            Err(Malformed) => {
                let mut rest = Reader::new(body);
                let long = rest.cstr().ok().and_then(|_| self.long_name(header, rest.rest()));
                match long {
                    Some(name) => name,
                    None => return self.unseen_name(header, seen),
                }
            }
        };
        let statements = &mut self.pooled.as_mut()?.statements;
        if statements.must_wait(&name) {
            return Some(Step::Wait);
        }
        match statements.use_of(&name) {
            Use::Go(Way::Renamed(_)) | Use::First(_) if !front => Some(Step::Wait),
            Use::Go(Way::Renamed(other)) => {
                let Ok(names) = parsed else { return self.unseen_name(header, seen) };
                let new = [names.portal, &[0], &cstr(&other)].concat();
                let length = names.portal.len() + names.statement.len() + 2;
                Some(self.renamed(header, body, length, &new, now))
            }
            Use::Go(_) => {
                if name.is_empty() {
                    statements.handle_bound();
                }
                None
            }
            Use::First(before) => Some(self.first(&before)),
        }
    }

    fn way_of_describe(&mut self, header: Header, seen: &Seen<'_>, front: bool, now: Now) -> Option<Step> {
        let (Seen::All(body) | Seen::Part(body)) = *seen;
        let (name, length) = match target(body) {
            Ok((Target::Statement, name)) => (Name::new(name), Some(name.len() + 2)),
            Ok((Target::Portal, _)) => return None,
            Err(Malformed) => match self.long_target(header, body) {
                Some((Target::Statement, name)) => (name, None),
                Some((Target::Portal, _)) => return None,
                None => return self.unseen_name(header, seen),
            },
        };
        let statements = &mut self.pooled.as_mut()?.statements;
        if statements.must_wait(&name) {
            return Some(Step::Wait);
        }
        match statements.use_of(&name) {
            Use::Go(Way::Renamed(_)) | Use::First(_) if !front => Some(Step::Wait),
            Use::Go(Way::Renamed(other)) => {
                let Some(length) = length else { return self.unseen_name(header, seen) };
                let new = [b"S", cstr(&other).as_slice()].concat();
                Some(self.renamed(header, body, length, &new, now))
            }
            Use::Go(_) if header.body as usize <= MOST_NAMED => None,
            Use::Go(_) => Some(if front { self.shortened(header, name, now) } else { Step::Wait }),
            Use::First(before) => Some(self.first(&before)),
        }
    }

    /// A named statement is closed for this session; on the server it may serve others.
    fn way_of_close(&mut self, header: Header, seen: &Seen<'_>, front: bool, now: Now) -> Option<Step> {
        let (Seen::All(body) | Seen::Part(body)) = *seen;
        let closed = match seen {
            Seen::All(body) => target(body).ok().map(|(target, name)| (target, Name::new(name))),
            Seen::Part(_) => match self.long_target(header, body) {
                Some(closed) => Some(closed),
                None => return self.unseen_name(header, seen),
            },
        };
        let statements = &mut self.pooled.as_mut()?.statements;
        match closed {
            Some((Target::Statement, name)) if statements.is_fixed(&name) => {
                let is_short = header.body as usize <= MOST_NAMED;
                if statements.is_unsettled() || !is_short && !front {
                    return Some(Step::Wait);
                }
                statements.handle_close_fixed(name);
                (!is_short).then(|| self.shortened(header, name, now))
            }
            Some((Target::Statement, name)) if !name.is_empty() => {
                if matches!(seen, Seen::Part(_)) {
                    return self.unseen_name(header, seen);
                }
                if !front || statements.is_unsettled() {
                    return Some(Step::Wait);
                }
                statements.handle_close(name);
                Some(self.answered(Op::AnsweredClose, header, body, now))
            }
            Some((Target::Statement, _)) => {
                statements.handle_close(Name::new(b""));
                None
            }
            Some((Target::Portal, _)) | None => {
                statements.handle_other();
                None
            }
        }
    }

    /// A Parse under a name that is not seen to its end, nor the text behind it: no other connection will know of it.
    fn way_of_long_parse(&mut self, name: Name, header: Header, seen: &Seen<'_>, front: bool) -> Option<Step> {
        let pooled = self.pooled.as_mut()?;
        if pooled.statements.is_unsettled() {
            return Some(Step::Wait);
        }
        // One of which the text is known, and which is to be another text from here on, if it is.
        if pooled.statements.has(&name) {
            return self.unseen_name(header, seen);
        }
        if pooled.statements.is_foreign(&name) {
            return Some(if front { self.first(&Before::Close(name)) } else { Step::Wait });
        }
        pooled.handle_unmovable();
        pooled.statements.handle_fixed(name);
        None
    }

    /// What the server makes of a name that is not seen to its end, once there is enough of it. Not where the text behind it
    /// has to be known before it goes.
    fn long_name(&self, header: Header, seen: &[u8]) -> Option<Name> {
        let is_followed = self.ledger.is_some() || self.pooled.as_ref().is_some_and(|pooled| pooled.refuses);
        let is_long = seen.len() >= rules::NAMES && header.body as usize > MAX_PARSE && !seen.contains(&0);
        (is_long && !is_followed).then(|| Name::new(seen))
    }

    /// The same for Describe and Close.
    fn long_target(&self, header: Header, seen: &[u8]) -> Option<(Target, Name)> {
        let (kind, name) = seen.split_first()?;
        let kind = match kind {
            b'S' => Target::Statement,
            b'P' => Target::Portal,
            _ => return None,
        };
        self.long_name(header, name).map(|name| (kind, name))
    }

    /// The name is not all there, or too long to be followed.
    fn unseen_name(&self, header: Header, seen: &Seen<'_>) -> Option<Step> {
        match seen {
            Seen::Part(body) if body.len() < LOOK || header.body as usize <= MAX_PARSE => Some(Step::Wait),
            // The server will say what is wrong with it.
            Seen::All(_) => None,
            Seen::Part(_) => Some(Step::Broken(Violation::NameTooLong)),
        }
    }

    /// Something of gprxy's own goes first.
    pub(super) fn first(&mut self, before: &Before) -> Step {
        let mut bytes = Vec::new();
        match before {
            Before::Parse(name, definition) => {
                emit_parse(&mut bytes, name.bytes(), &definition.text);
                self.tracker.handle_own(Op::OwnParse);
                self.counts.server_parses += 1;
            }
            Before::Close(name) => {
                emit_close(&mut bytes, Target::Statement, name.bytes());
                self.tracker.handle_own(Op::OwnClose);
            }
        }
        if let Some(pooled) = &mut self.pooled {
            pooled.statements.handle_before(before);
            pooled.statements.handle_own();
        }
        Step::SayServer(bytes)
    }

    /// Describe or Close of a statement goes with as much of its name as the server looks at.
    fn shortened(&mut self, header: Header, name: Name, now: Now) -> Step {
        let body = [b"S", cstr(&name).as_slice()].concat();
        let length = body.len() as u32; // at most 65
        self.touched = true;
        self.client_message(header.tag, length, &body, now);
        self.discard(header);
        Step::SayServer([&[header.tag][..], &(length + 4).to_be_bytes(), &body].concat())
    }

    /// The message goes with other names in the place of its first `length` bytes; what follows them passes.
    pub(super) fn renamed(&mut self, header: Header, body: &[u8], length: usize, names: &[u8], now: Now) -> Step {
        let rest = header.body as usize - length;
        let mut bytes = vec![header.tag];
        // The new names are no longer than 64 bytes more than the old ones, and all is far below 2 GiB.
        bytes.extend_from_slice(&((4 + names.len() + rest) as u32).to_be_bytes());
        bytes.extend_from_slice(names);
        self.touched = true;
        self.from_client.begin(header, self.text_limit().unwrap_or(0).max(rules::NAMES));
        self.from_client.pass(&body[..length]);
        if !self.from_client.is_inside() {
            let (tag, body, kept) = self.from_client.take_kept();
            self.client_message(tag, body, &kept, now);
        }
        self.discard = (HEADER_LEN + length) as u32; // the names are short
        Step::SayServer(bytes)
    }

    /// The message goes no further.
    pub(super) fn answered(&mut self, op: Op, header: Header, body: &[u8], now: Now) -> Step {
        self.look_for_pins(header.tag, body);
        self.counts.client_parses += u64::from(op == Op::AnsweredParse);
        self.tracker.handle_own(op);
        if let Some(pooled) = &mut self.pooled {
            pooled.statements.handle_own();
        }
        if let Some(ledger) = &mut self.ledger {
            let like = if op == Op::AnsweredParse { Op::Parse } else { Op::Close };
            let _ = ledger.handle_frontend(header.tag, Some(like), body, header.body, now);
        }
        match self.answer_instead(now) {
            Some(step) => {
                self.discard(header);
                step
            }
            None => Step::Discard(HEADER_LEN + body.len()),
        }
    }
}

pub(super) fn cstr(name: &Name) -> Vec<u8> {
    [name.bytes(), &[0]].concat()
}

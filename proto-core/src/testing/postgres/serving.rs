//! A backend behind its login: messages in, answers out.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::wire::{Message, Tape, back};
use super::backend::Ending;
use super::sql::{Effect, Portal, State, columns};
use super::{Postgres, Run};
use crate::codec::{Malformed, Reader};
use crate::time::{Now, Tick};

pub(super) struct Serving {
    pub(super) state: State,
    pub(super) task: Task,
    /// An error in the extended protocol: everything up to the next Sync is ignored.
    pub(super) skipping: bool,
}

/// What the backend is busy with.
pub(super) enum Task {
    Nothing,
    /// The statements of a simple query that are still to come.
    Simple(VecDeque<String>),
    /// One statement, until its time has come; then it has its effect, unless it was cancelled.
    Waiting {
        until: Tick,
        text: String,
        slept: bool,
        from: From,
    },
    CopyIn {
        data: Vec<u8>,
        from: From,
    },
}

/// Where a statement came from.
#[derive(Clone)]
pub(super) enum From {
    Simple(VecDeque<String>),
    Execute { portal: String, most: usize },
}

/// What a step of a backend works with.
pub(super) struct Desk<'a> {
    pub(super) postgres: &'a Postgres,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) pid: u32,
    pub(super) ending: &'a mut Option<Ending>,
    pub(super) now: Now,
}

impl Desk<'_> {
    fn say(&mut self, bytes: Vec<u8>) {
        self.out.extend(bytes);
    }

    /// Whether a cancel has hit what runs now.
    fn take_cancelled(&self) -> bool {
        let mut cluster = self.postgres.lock();
        cluster.processes.get_mut(&self.pid).is_some_and(|process| std::mem::take(&mut process.cancelled))
    }

    /// A statement begins: it can be cancelled from here on, and takes its time.
    fn begin(&self, text: &str) -> Tick {
        let mut cluster = self.postgres.lock();
        let place = cluster.journal.len();
        let think = u64::try_from(cluster.think.as_nanos()).unwrap_or(u64::MAX);
        let think = cluster.dice.below(think);
        let Some(process) = cluster.processes.get_mut(&self.pid) else { return self.now.tick };
        process.cancelled = false;
        process.running = Some(place);
        let user = process.user.clone();
        cluster.journal.push(Run {
            pid: self.pid,
            user,
            text: text.into(),
            at: self.now.tick,
            cancelled: false,
            sqlstate: None,
        });
        self.now.tick.after(Duration::from_nanos(think))
    }

    /// A statement is over, with this SQLSTATE.
    fn end(&self, sqlstate: &str) {
        let mut cluster = self.postgres.lock();
        let Some(process) = cluster.processes.get_mut(&self.pid) else { return };
        process.cancelled = false;
        if let Some(place) = process.running.take() {
            cluster.journal[place].sqlstate = Some(sqlstate.to_owned());
        }
    }
}

impl Serving {
    pub(super) fn step(&mut self, tape: &mut Tape, desk: &mut Desk<'_>) -> bool {
        if self.take_killed(desk) {
            return false;
        }
        match std::mem::replace(&mut self.task, Task::Nothing) {
            Task::Simple(rest) => {
                self.next_simple(rest, desk);
                true
            }
            Task::Waiting { until, text, slept, from } => {
                if desk.take_cancelled() {
                    desk.end("57014");
                    self.failed("57014", "canceling statement due to user request", from, desk);
                } else if desk.now.tick < until {
                    self.task = Task::Waiting { until, text, slept, from };
                    return false;
                } else {
                    self.perform(&text, slept, from, desk);
                }
                true
            }
            Task::CopyIn { data, from } => match tape.next() {
                Some(message) => {
                    self.copy(message, data, from, desk);
                    true
                }
                None => {
                    self.task = Task::CopyIn { data, from };
                    false
                }
            },
            Task::Nothing => match tape.next() {
                Some(message) => {
                    self.message(&message, desk);
                    true
                }
                None => {
                    self.deliver(desk);
                    false
                }
            },
        }
    }

    fn take_killed(&self, desk: &mut Desk<'_>) -> bool {
        let mut cluster = desk.postgres.lock();
        let killed = cluster.processes.get_mut(&desk.pid).is_some_and(|process| std::mem::take(&mut process.killed));
        drop(cluster);
        if killed {
            desk.say(back::error("FATAL", "57P01", "terminating connection due to administrator command"));
            *desk.ending = Some(Ending::Close);
        }
        killed
    }

    /// Notifications come while nothing runs and no transaction is open.
    fn deliver(&self, desk: &mut Desk<'_>) {
        if self.state.status != b'I' || self.skipping {
            return;
        }
        let mail = match desk.postgres.lock().processes.get_mut(&desk.pid) {
            Some(process) => std::mem::take(&mut process.mail),
            None => return,
        };
        for (from, channel, payload) in mail {
            desk.say(back::notification(from, &channel, &payload));
        }
    }

    fn message(&mut self, message: &Message, desk: &mut Desk<'_>) {
        if self.skipping && !matches!(message.tag, b'S' | b'X') {
            return;
        }
        let mut reader = Reader::new(&message.body);
        let mut text = || String::from_utf8_lossy(reader.cstr().unwrap_or_default()).into_owned();
        match message.tag {
            b'Q' => {
                self.state.statements.remove("");
                self.state.portals.remove("");
                let whole = text();
                let mut parts: VecDeque<String> = whole.split(';').map(|part| part.trim().to_owned()).collect();
                parts.retain(|part| !part.is_empty());
                if parts.is_empty() {
                    desk.begin("");
                    desk.end("00000");
                    desk.say(back::bare(b'I'));
                    desk.say(back::ready(self.state.status));
                } else {
                    self.task = Task::Simple(parts);
                }
            }
            b'S' => {
                self.skipping = false;
                if self.state.status == b'I' {
                    self.state.portals.clear();
                }
                desk.say(back::ready(self.state.status));
            }
            b'X' => *desk.ending = Some(Ending::Close),
            b'F' => {
                let began = desk.begin("function call");
                debug_assert!(began >= desk.now.tick);
                desk.end("00000");
                desk.say(back::function_result());
                desk.say(back::ready(self.state.status));
            }
            b'P' => {
                let (name, statement) = (text(), text());
                self.parse(name, statement, desk);
            }
            b'B' => {
                let (portal, statement) = (text(), text());
                let parameter = first_parameter(&mut reader);
                self.bind(portal, &statement, &parameter, desk);
            }
            b'E' => {
                let portal = text();
                let most = message.body.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
                self.execute(portal, most, desk);
            }
            b'D' | b'C' => {
                let kind = message.body.first().copied().unwrap_or(0);
                let name = text().get(1..).unwrap_or_default().to_owned();
                self.describe_or_close(message.tag, kind, &name, desk);
            }
            // Flush: everything is sent at once. CopyData and its end outside of a COPY are ignored.
            b'H' | b'd' | b'c' | b'f' => {}
            other => {
                desk.say(back::error("FATAL", "08P01", &format!("invalid frontend message type {other}")));
                *desk.ending = Some(Ending::Close);
            }
        }
    }

    fn parse(&mut self, name: String, text: String, desk: &mut Desk<'_>) {
        if name.is_empty() {
            self.state.statements.remove("");
        }
        if text.starts_with("bad") || text.starts_with("gprxy refuses") {
            return self.fail_extended("42601", "syntax error", desk);
        }
        if self.state.status == b'E' && !(text.starts_with("rollback") || text.starts_with("commit")) {
            return self.fail_extended("25P02", "current transaction is aborted", desk);
        }
        if !name.is_empty() && self.state.statements.contains_key(&name) {
            return self.fail_extended("42P05", &format!("prepared statement \"{name}\" already exists"), desk);
        }
        self.state.statements.insert(name, text);
        desk.say(back::bare(b'1'));
    }

    fn bind(&mut self, portal: String, statement: &str, parameter: &str, desk: &mut Desk<'_>) {
        let Some(text) = self.state.statements.get(statement).cloned() else {
            return self.fail_extended("26000", "prepared statement does not exist", desk);
        };
        if self.state.status == b'E' && !(text.starts_with("rollback") || text.starts_with("commit")) {
            return self.fail_extended("25P02", "current transaction is aborted", desk);
        }
        let text = text.replace("$1", parameter);
        self.state.portals.insert(portal, Portal { text, fetched: 0 });
        desk.say(back::bare(b'2'));
    }

    fn describe_or_close(&mut self, tag: u8, kind: u8, name: &str, desk: &mut Desk<'_>) {
        if tag == b'C' {
            if kind == b'S' {
                self.state.statements.remove(name);
            } else {
                self.state.portals.remove(name);
            }
            return desk.say(back::bare(b'3'));
        }
        let text = match kind {
            b'S' => self.state.statements.get(name).cloned(),
            _ => self.state.portals.get(name).map(|portal| portal.text.clone()),
        };
        let Some(text) = text else {
            let code = if kind == b'S' { "26000" } else { "34000" };
            return self.fail_extended(code, "does not exist", desk);
        };
        if kind == b'S' {
            desk.say(super::super::wire::message(b't', &[0, 0]));
        }
        desk.say(match columns(&text) {
            0 => back::bare(b'n'),
            n => back::row_description_of(n),
        });
    }

    fn execute(&mut self, portal: String, most: usize, desk: &mut Desk<'_>) {
        let Some(text) = self.state.portals.get(&portal).map(|portal| portal.text.clone()) else {
            return self.fail_extended("34000", "portal does not exist", desk);
        };
        let until = desk.begin(&text);
        self.task = Task::Waiting { until, text, slept: false, from: From::Execute { portal, most } };
    }

    fn next_simple(&mut self, mut rest: VecDeque<String>, desk: &mut Desk<'_>) {
        match rest.pop_front() {
            None => desk.say(back::ready(self.state.status)),
            Some(text) => {
                let until = desk.begin(&text);
                self.task = Task::Waiting { until, text, slept: false, from: From::Simple(rest) };
            }
        }
    }

    /// The effect of a statement whose time has come.
    fn perform(&mut self, text: &str, slept: bool, from: From, desk: &mut Desk<'_>) {
        let effect = if slept {
            Effect::Rows(vec![b"slept".to_vec()], "SELECT 1".into())
        } else if text.is_empty() {
            desk.end("00000");
            desk.say(back::bare(b'I'));
            return self.go_on_behind(from);
        } else {
            self.state.run(text, desk.pid, &mut desk.postgres.lock(), desk.out)
        };
        match effect {
            Effect::Sleep(millis) => {
                let until = desk.now.tick.after(Duration::from_millis(millis));
                self.task = Task::Waiting { until, text: text.to_owned(), slept: true, from };
                return;
            }
            Effect::CopyIn => {
                desk.say(back::copy_response(b'G'));
                self.task = Task::CopyIn { data: Vec::new(), from };
                return;
            }
            Effect::Failed(code, message) => {
                desk.end(code);
                return self.failed(code, &message, from, desk);
            }
            Effect::End(bytes, ending) => {
                desk.say(bytes);
                *desk.ending = Some(ending);
                return;
            }
            Effect::Complete(tag) => desk.say(back::complete(&tag)),
            Effect::Raw(bytes, tag) => {
                desk.say(bytes);
                desk.say(back::complete(&tag));
            }
            Effect::CopyOut(lines) => {
                desk.say(back::copy_response(b'H'));
                let n = lines.len();
                for line in lines {
                    desk.say(super::super::wire::message(b'd', &line));
                }
                desk.say(back::bare(b'c'));
                desk.say(back::complete(&format!("COPY {n}")));
            }
            Effect::Rows(rows, tag) => self.send_rows(rows, &tag, &from, desk),
            Effect::Columns(values, tag) => {
                if matches!(from, From::Simple(_)) {
                    desk.say(back::row_description());
                }
                desk.say(back::columns(&values));
                desk.say(back::complete(&tag));
            }
        }
        desk.end("00000");
        self.go_on_behind(from);
    }

    fn send_rows(&mut self, rows: Vec<Vec<u8>>, tag: &str, from: &From, desk: &mut Desk<'_>) {
        let (skip, most) = match from {
            From::Simple(_) => {
                desk.say(back::row_description());
                (0, rows.len())
            }
            From::Execute { portal, most } => {
                let fetched = self.state.portals.get(portal).map_or(0, |portal| portal.fetched);
                (fetched, if *most == 0 { rows.len() } else { *most })
            }
        };
        let left = rows.len().saturating_sub(skip);
        for row in rows.iter().skip(skip).take(most) {
            desk.say(back::row(row));
        }
        if let From::Execute { portal, .. } = from
            && let Some(portal) = self.state.portals.get_mut(portal)
        {
            portal.fetched += most.min(left);
        }
        // As PostgreSQL does: it cannot know yet that a portal is at its end when the limit was just reached.
        let suspended = matches!(from, From::Execute { most, .. } if *most > 0 && left >= *most);
        desk.say(if suspended { back::bare(b's') } else { back::complete(tag) });
    }

    fn go_on_behind(&mut self, from: From) {
        if let From::Simple(rest) = from {
            self.task = Task::Simple(rest);
        }
    }

    fn failed(&mut self, code: &str, text: &str, from: From, desk: &mut Desk<'_>) {
        match from {
            From::Execute { .. } => self.fail_extended(code, text, desk),
            From::Simple(_) => {
                self.fail_transaction();
                desk.say(back::error("ERROR", code, text));
                desk.say(back::ready(self.state.status));
            }
        }
    }

    fn fail_extended(&mut self, code: &str, text: &str, desk: &mut Desk<'_>) {
        self.fail_transaction();
        self.skipping = true;
        desk.say(back::error("ERROR", code, text));
    }

    fn fail_transaction(&mut self) {
        if self.state.status == b'T' {
            self.state.status = b'E';
        }
    }

    /// A message while the client sends COPY data.
    fn copy(&mut self, message: Message, mut data: Vec<u8>, from: From, desk: &mut Desk<'_>) {
        match message.tag {
            b'd' => {
                data.extend(message.body);
                self.task = Task::CopyIn { data, from };
            }
            // Ignored: manual, section 54.2.6.
            b'H' | b'S' => self.task = Task::CopyIn { data, from },
            b'c' => {
                desk.end("00000");
                let lines = data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
                desk.postgres.lock().copied.push((desk.pid, data));
                desk.say(back::complete(&format!("COPY {lines}")));
                self.go_on_behind(from);
            }
            b'X' => *desk.ending = Some(Ending::Close),
            b'f' => {
                desk.end("57014");
                self.failed("57014", "COPY from stdin failed", from, desk);
            }
            other => {
                desk.end("08P01");
                let text = format!("unexpected message type 0x{other:02x} during COPY from stdin");
                desk.say(back::error("ERROR", "08P01", &text));
                let lost = "terminating connection because protocol synchronization was lost";
                desk.say(back::error("FATAL", "08P01", lost));
                *desk.ending = Some(Ending::Close);
            }
        }
    }
}

/// The first parameter of a Bind, behind its names; nothing where there is none. Spaces would be words of their own.
fn first_parameter(reader: &mut Reader<'_>) -> String {
    let formats = reader.i16().ok().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
    let mut value = || {
        reader.take(formats * 2)?;
        if reader.i16()? < 1 {
            return Ok(&[][..]);
        }
        let length = reader.i32()?;
        reader.take(usize::try_from(length).unwrap_or_default())
    };
    let value: Result<&[u8], Malformed> = value();
    String::from_utf8_lossy(value.unwrap_or_default()).replace(char::is_whitespace, "_")
}

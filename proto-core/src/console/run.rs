//! From a command to its answer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{Command, Show, Verb};
use super::courtesy::Courtesy;
use super::protocol::{Console, Output, columns_of};
use super::refusals::{admin_only, in_failed_transaction, unknown};
use super::table::{Column, Formats, Value, describe, row};
use super::{Errand, Found, Snapshot, Standing, tables};
use crate::audit::{CommandTag, Protocol, Statement, StatementText};
use crate::codec::HEADER_LEN;
use crate::codec::backend::{Severity, TransactionStatus, emit_bare, emit_command_complete, emit_error, tag as back};
use crate::fault::{Refusal, SqlState};
use crate::time::{Now, Tick};

/// A command that is executed.
pub(super) struct Running {
    text: Box<str>,
    command: Command,
    how: How,
    began: Tick,
    stage: Stage,
}

/// How it came.
enum How {
    /// In a Query.
    Simple,
    /// As an Execute of this portal, for at most so many rows; zero: for all.
    Extended(Box<[u8]>, usize),
}

/// What it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A place in the audit trail.
    Place,
    /// The driver.
    Errand,
}

/// What a command comes to.
enum Answer {
    Rows { columns: Vec<Column>, rows: Vec<Vec<Value>>, tag: String },
    Done { notice: Option<Refusal>, tag: String },
}

impl Running {
    /// Whether it may take long, and ends when nobody waits for it.
    pub(super) const fn may_be_cancelled(&self) -> bool {
        let waits = matches!(
            self.command,
            Command::Verb(Verb::Pause(_) | Verb::WaitClose(_) | Verb::Suspend | Verb::Kill(_) | Verb::KillClient(_))
        );
        waits && matches!(self.stage, Stage::Errand)
    }

    fn protocol(&self) -> Protocol {
        match self.how {
            How::Simple => Protocol::Simple,
            How::Extended(..) => Protocol::Extended,
        }
    }
}

impl Console {
    /// The commands of a Query, one after the other; the first that fails ends it.
    pub(super) fn run_simple(&mut self, commands: VecDeque<(Box<str>, Command)>, now: Now) {
        self.queue = Some(commands);
        self.go_on(now);
    }

    /// What is left of a Query, until something has to be waited for.
    fn go_on(&mut self, now: Now) {
        while self.running.is_none()
            && let Some(queue) = &mut self.queue
        {
            match queue.pop_front() {
                Some((text, command)) => self.run(text, command, How::Simple, now),
                None => {
                    self.queue = None;
                    self.ready();
                }
            }
        }
    }

    pub(super) fn execute(&mut self, name: &[u8], most: usize, now: Now) -> Result<(), Refusal> {
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(unknown("portal", name, SqlState::INVALID_CURSOR_NAME));
        };
        if portal.rest.is_some() {
            self.send_rows(name, most);
            return Ok(());
        }
        let prepared = portal.prepared.clone();
        match &prepared.command {
            None => emit_bare(&mut self.answer, back::EMPTY_QUERY_RESPONSE),
            Some(command) => {
                self.run(prepared.text.clone(), command.clone(), How::Extended(name.into(), most), now);
            }
        }
        Ok(())
    }

    fn run(&mut self, text: Box<str>, command: Command, how: How, now: Now) {
        let may = self.may(&command);
        let running = Running { text, command, how, began: now.tick, stage: Stage::Errand };
        let running = self.running.insert(running);
        if let Err(refusal) = may {
            return self.finish(Err(refusal), now);
        }
        match &running.command {
            Command::Courtesy(courtesy) => {
                let courtesy = courtesy.clone();
                let answer = self.courtesy(&courtesy);
                self.finish(Ok(answer), now);
            }
            Command::Show(show) if !looks_around(*show) => {
                let answer = table(*show, &Snapshot::default());
                self.finish(Ok(answer), now);
            }
            Command::Show(show) => {
                let errand = Errand::Look(*show);
                self.ask(errand);
            }
            Command::Verb(_) if self.audit.is_some_and(|audit| audit.required) => {
                running.stage = Stage::Place;
                self.flush();
                self.out.push_back(Output::Reserve);
            }
            Command::Verb(verb) => {
                let errand = Errand::Do(verb.clone());
                self.ask(errand);
            }
        }
    }

    /// Whether this command may be executed here and now.
    fn may(&self, command: &Command) -> Result<(), Refusal> {
        if self.status == TransactionStatus::Failed && !matches!(command, Command::Courtesy(Courtesy::End(_))) {
            return Err(in_failed_transaction());
        }
        let needs_admin = match command {
            Command::Verb(_) => true,
            Command::Show(show) => show.is_for_admins(),
            Command::Courtesy(_) => false,
        };
        if needs_admin && self.visitor.standing < Standing::Admin { Err(admin_only()) } else { Ok(()) }
    }

    fn ask(&mut self, errand: Errand) {
        self.flush();
        self.out.push_back(Output::Ask(errand));
    }

    /// Whether there is a place in the audit trail. A verb does not run unrecorded where the trail is required; SHOW does: it
    /// changes nothing, and is how one finds out why.
    pub fn handle_reserved(&mut self, granted: bool, now: Now) {
        let Some(running) = self.running.as_mut().filter(|running| running.stage == Stage::Place) else { return };
        let Command::Verb(verb) = &running.command else { return };
        let errand = Errand::Do(verb.clone());
        if granted {
            running.stage = Stage::Errand;
            self.ask(errand);
        } else {
            self.fail(unrecorded(), now);
        }
        self.flush();
    }

    /// The answer to what was asked for; a late one changes nothing.
    pub fn handle_found(&mut self, found: Found, now: Now) {
        let Some(running) = self.running.as_ref().filter(|running| running.stage == Stage::Errand) else { return };
        let result = match (&running.command, found) {
            (_, Found::Refused(refusal)) => Err(refusal),
            (Command::Show(show), Found::Snapshot(snapshot)) => Ok(table(*show, &snapshot)),
            (Command::Verb(verb), Found::Done) => Ok(Answer::Done { notice: None, tag: verb.tag() }),
            _ => return,
        };
        self.finish(result, now);
        self.go_on(now);
        self.flush();
    }

    /// The command that runs is over: it is written down, answered, and the next one begins.
    fn finish_with(&mut self, running: Running, result: Result<Answer, Refusal>, now: Now) {
        let before = self.answer.len();
        let rows = self.answer_to(&running, &result);
        let written = (self.answer.len() - before) as u64;
        self.record(&running, &result, rows, written, now);
        if let (Err(_), Some(queue)) = (&result, &mut self.queue) {
            queue.clear();
        }
    }

    /// The command that runs is given up.
    pub(super) fn fail(&mut self, refusal: Refusal, now: Now) {
        self.finish(Err(refusal), now);
        self.go_on(now);
    }

    fn finish(&mut self, result: Result<Answer, Refusal>, now: Now) {
        if let Some(running) = self.running.take() {
            self.finish_with(running, result, now);
        }
    }

    /// Writes the answer; how many rows it has.
    fn answer_to(&mut self, running: &Running, result: &Result<Answer, Refusal>) -> Option<u64> {
        match (result, &running.how) {
            (Err(refusal), How::Simple) => {
                emit_error(&mut self.answer, Severity::Error, refusal);
                self.fail_transaction();
                None
            }
            (Err(refusal), How::Extended(..)) => {
                self.fail_extended(refusal);
                None
            }
            (Ok(Answer::Done { notice, tag }), _) => {
                if let Some(notice) = notice {
                    emit_error(&mut self.answer, Severity::Notice, notice);
                }
                emit_command_complete(&mut self.answer, tag.as_bytes());
                None
            }
            (Ok(Answer::Rows { columns, rows, tag }), How::Simple) => {
                let formats = Formats::default();
                describe(&mut self.answer, columns, &formats);
                for values in rows {
                    row(&mut self.answer, columns, values, &formats);
                }
                emit_command_complete(&mut self.answer, tag.as_bytes());
                Some(rows.len() as u64)
            }
            (Ok(Answer::Rows { rows, tag, .. }), How::Extended(name, most)) => {
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.rest = Some((rows.iter().cloned().collect(), tag.clone()));
                    self.send_rows(name, *most);
                }
                Some(rows.len() as u64)
            }
        }
    }

    /// The next rows of a portal, and whether there are more.
    fn send_rows(&mut self, name: &[u8], most: usize) {
        let Some(portal) = self.portals.get_mut(name) else { return };
        let (Some((rows, tag)), Some(columns)) =
            (&mut portal.rest, portal.prepared.command.as_ref().and_then(columns_of))
        else {
            return;
        };
        let count = if most == 0 { rows.len() } else { most.min(rows.len()) };
        for values in rows.drain(..count) {
            row(&mut self.answer, &columns, &values, &portal.formats);
        }
        // A portal that was asked for just its last row does not know yet that there are no more, as PostgreSQL's.
        if most > 0 && count == most {
            emit_bare(&mut self.answer, back::PORTAL_SUSPENDED);
        } else {
            emit_command_complete(&mut self.answer, tag.as_bytes());
        }
    }

    fn courtesy(&mut self, courtesy: &Courtesy) -> Answer {
        let done = |tag: &str| Answer::Done { notice: None, tag: tag.into() };
        match courtesy {
            Courtesy::Begin => {
                self.status = TransactionStatus::InTransaction;
                done("BEGIN")
            }
            Courtesy::End(commit) => {
                let failed = std::mem::replace(&mut self.status, TransactionStatus::Idle) == TransactionStatus::Failed;
                done(if *commit && !failed { "COMMIT" } else { "ROLLBACK" })
            }
            Courtesy::Done(tag) => done(tag),
            Courtesy::InVain(tag) => Answer::Done { notice: Some(in_vain()), tag: (*tag).into() },
            Courtesy::Deallocate(Some(name)) => {
                self.statements.remove(name.as_bytes());
                done("DEALLOCATE")
            }
            Courtesy::Deallocate(None) => {
                self.statements.clear();
                done("DEALLOCATE ALL")
            }
            Courtesy::DiscardAll => {
                self.statements.clear();
                done("DISCARD ALL")
            }
            Courtesy::Row { tag, .. } => {
                let columns = courtesy.columns().unwrap_or_default();
                Answer::Rows { columns, rows: vec![courtesy.row(self.speaker())], tag: (*tag).into() }
            }
        }
    }

    /// A text that is no command.
    pub(super) fn refuse_text(&mut self, text: &[u8], refusal: &Refusal, now: Now) {
        self.record_refused(text, refusal, now);
        emit_error(&mut self.answer, Severity::Error, refusal);
        self.fail_transaction();
        self.ready();
    }

    pub(super) fn record_refused(&mut self, text: &[u8], refusal: &Refusal, now: Now) {
        let statement = self.statement(text, Protocol::Simple, None, now.tick, now);
        if let Some(mut statement) = statement {
            statement.sqlstate = Some(refusal.code);
            self.out.push_back(Output::Record(statement, false));
        }
    }

    fn record(
        &mut self,
        running: &Running,
        result: &Result<Answer, Refusal>,
        rows: Option<u64>,
        written: u64,
        now: Now,
    ) {
        let prepared = match &running.how {
            How::Simple => None,
            How::Extended(name, _) => self.portals.get(name).map(|portal| portal.prepared.name.clone()),
        };
        let statement = self.statement(running.text.as_bytes(), running.protocol(), prepared, running.began, now);
        let Some(mut statement) = statement else { return };
        statement.rows = rows;
        statement.bytes_to_client = written;
        match result {
            Ok(Answer::Rows { tag, .. } | Answer::Done { tag, .. }) => {
                statement.command_tag = Some(CommandTag::new(tag.as_bytes()));
                statement.sqlstate = Some(SqlState::SUCCESS);
            }
            Err(refusal) => statement.sqlstate = Some(refusal.code),
        }
        let has_place = self.has_place(running);
        self.out.push_back(Output::Record(statement, has_place));
    }

    /// Whether a place in the trail was set aside for it.
    fn has_place(&self, running: &Running) -> bool {
        self.audit.is_some_and(|audit| audit.required)
            && matches!(running.command, Command::Verb(_))
            && running.stage == Stage::Errand
            && self.visitor.standing == Standing::Admin
    }

    fn statement(
        &mut self,
        text: &[u8],
        protocol: Protocol,
        prepared: Option<Arc<[u8]>>,
        began: Tick,
        now: Now,
    ) -> Option<Box<Statement>> {
        self.commands += 1;
        let audit = self.audit?;
        let length = text.len() as u64;
        Some(Box::new(Statement {
            id: self.commands,
            protocol,
            text: Some(StatementText::new(text, length, audit.statement_bytes)),
            prepared,
            duration: now.tick.since(began),
            rows: None,
            command_tag: None,
            sqlstate: None,
            bytes_to_client: 0,
            bytes_to_server: length + HEADER_LEN as u64 + 1,
        }))
    }

    /// The session is over: what still runs gets its record.
    pub fn handle_end(&mut self, now: Now) {
        if let Some(running) = self.running.take() {
            let has_place = self.has_place(&running);
            let statement = self.statement(running.text.as_bytes(), running.protocol(), None, running.began, now);
            if let Some(statement) = statement {
                self.out.push_back(Output::Record(statement, has_place));
            }
        }
    }
}

/// Whether a table shows how things are, and not just what this is.
const fn looks_around(show: Show) -> bool {
    !matches!(show, Show::Help | Show::Version | Show::DnsHosts | Show::DnsZones | Show::Fds)
}

fn table(show: Show, snapshot: &Snapshot) -> Answer {
    match tables::columns(show) {
        Some(columns) => Answer::Rows { columns, rows: tables::rows(show, snapshot), tag: "SHOW".into() },
        // As PgBouncer does: the commands come as a notice.
        None => Answer::Done { notice: Some(usage()), tag: "SHOW".into() },
    }
}

fn usage() -> Refusal {
    let shows: Vec<String> = Show::ALL.iter().map(|(word, _)| word.to_uppercase()).collect();
    let lines = [
        &format!("SHOW {}", shows.join("|")),
        "SET key = arg",
        "RELOAD",
        "PAUSE [<db>]",
        "RESUME [<db>]",
        "DISABLE <db>",
        "ENABLE <db>",
        "RECONNECT [<db>]",
        "KILL [<db>]",
        "KILL_CLIENT <client_id>",
        "WAIT_CLOSE [<db>]",
        "SUSPEND",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
    ];
    Refusal::new(SqlState::SUCCESS, format!("Console usage\n\t{}", lines.join("\n\t")))
}

fn in_vain() -> Refusal {
    Refusal::new(SqlState::SUCCESS, "SET ignored: the admin console has no such parameter of its own")
}

fn unrecorded() -> Refusal {
    Refusal::new(
        SqlState::IO_ERROR,
        "the audit trail cannot be written, and no command that changes something runs unrecorded",
    )
    .hint("The operator of gprxy finds the reason in its log; SHOW goes on.")
}

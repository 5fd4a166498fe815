//! The admin console: any bytes of a client, in any pieces, and any answers of the driver.

use super::cuts::{Cut, Script};
use crate::audit::AuditProfile;
use crate::codec::backend::{split, tag};
use crate::console::{Console, Errand, Found, Input, Output, Standing, Visitor, not_now};
use crate::testing::corp;
use crate::time::{Now, Tick};

/// What came of it.
#[derive(PartialEq, Eq, Debug)]
struct Visit {
    heard: Vec<u8>,
    end: Option<Input>,
    commands: u64,
    records: u64,
}

/// A byte of settings (admin, audit trail required, how the driver answers), one for the cuts, and the client's messages.
pub fn console(data: &[u8]) {
    let mut script = Script::new(data);
    let (setup, cut) = (script.byte(), script.byte());
    let bytes = script.rest();
    let whole = visit(setup, bytes, Cut::Whole);
    let cut = visit(setup, bytes, Cut::seeded(cut));
    assert_eq!(whole, cut, "it depends on how the bytes were cut");
    let single = visit(setup, bytes, Cut::Single);
    assert_eq!(whole, single, "it depends on how the bytes were cut");
}

fn visit(setup: u8, bytes: &[u8], cut: Cut) -> Visit {
    let standing = if setup & 1 == 0 { Standing::Stats } else { Standing::Admin };
    let required = setup & 2 != 0;
    let visitor = Visitor { standing, user: "ann".into(), database: "pgbouncer".into(), application: None };
    let console = Console::new(visitor, Some(AuditProfile { statement_bytes: 64, required }));
    let mut desk = Desk {
        console,
        standing,
        required,
        answers: setup >> 2,
        heard: Vec::new(),
        records: 0,
        places: 0,
        reserving: false,
        end: None,
    };
    desk.play(bytes, cut);
    desk.leave()
}

struct Desk {
    console: Console,
    standing: Standing,
    required: bool,
    /// Bits that say how the driver answers, used again and again.
    answers: u8,
    heard: Vec<u8>,
    records: u64,
    /// Places in the audit trail that were given and not used.
    places: u32,
    /// A place was asked for.
    reserving: bool,
    end: Option<Input>,
}

impl Desk {
    fn play(&mut self, bytes: &[u8], mut cut: Cut) {
        let (mut at, mut shown) = (0, 0);
        while at < bytes.len() {
            // What was not used is shown again with more behind it.
            if shown == at {
                shown += cut.next(bytes.len() - at);
            }
            let input = self.console.handle_input(&bytes[at..shown], now());
            match input {
                Input::Took(n) => {
                    assert!(n > 0 && at + n <= shown, "it took what was not there");
                    at += n;
                }
                Input::Wait => {
                    assert!(self.console.is_waiting(), "it waits for nothing");
                    self.answer();
                }
                Input::Left | Input::Broken(_) => {
                    self.end = Some(input);
                    break;
                }
            }
            self.settle();
        }
        while self.end.is_none() && self.console.is_waiting() {
            self.answer();
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.console.poll_output() {
            match output {
                Output::Send(bytes) => {
                    assert!(!bytes.is_empty());
                    self.heard.extend(bytes);
                }
                Output::Record(_, has_place) => {
                    self.records += 1;
                    self.places -= u32::from(has_place);
                }
                Output::Ask(Errand::Do(verb)) => {
                    assert_eq!(self.standing, Standing::Admin, "{verb:?} by somebody who may only look");
                    assert!(!self.required || self.places > 0, "{verb:?} runs unrecorded");
                }
                Output::Reserve => self.reserving = true,
                Output::Ask(Errand::Look(_)) | Output::GiveUp => {}
            }
        }
    }

    /// The driver's answer to whatever is waited for; answers to something else must change nothing.
    fn answer(&mut self) {
        self.answers = self.answers.rotate_left(1);
        let granted = self.answers & 1 == 0;
        self.places += u32::from(std::mem::take(&mut self.reserving) && granted);
        self.console.handle_reserved(granted, now());
        self.settle();
        match self.answers & 6 {
            0 => self.console.handle_cancel(now()),
            2 => self.console.handle_found(Found::Refused(not_now("no")), now()),
            _ => {}
        }
        self.console.handle_found(Found::Snapshot(Box::default()), now());
        self.console.handle_found(Found::Done, now());
    }

    fn leave(mut self) -> Visit {
        self.console.handle_end(now());
        self.settle();
        let messages = split(&self.heard).expect("messages");
        let end = messages.last().map_or(0, |(_, body)| body.end);
        assert_eq!(end, self.heard.len(), "half a message");
        assert!(messages.iter().all(|(tag, _)| SAID.contains(tag)), "{messages:?}");
        assert_eq!(self.records, self.console.commands(), "each command is written down once");
        Visit { heard: self.heard, end: self.end, commands: self.console.commands(), records: self.records }
    }
}

/// What a console says.
const SAID: [u8; 15] = [
    tag::BIND_COMPLETE,
    tag::CLOSE_COMPLETE,
    tag::COMMAND_COMPLETE,
    tag::DATA_ROW,
    tag::EMPTY_QUERY_RESPONSE,
    tag::ERROR_RESPONSE,
    tag::NO_DATA,
    tag::NOTICE_RESPONSE,
    tag::PARAMETER_DESCRIPTION,
    tag::PARSE_COMPLETE,
    tag::PORTAL_SUSPENDED,
    tag::READY_FOR_QUERY,
    tag::ROW_DESCRIPTION,
    tag::PARAMETER_STATUS,
    tag::BACKEND_KEY_DATA,
];

fn now() -> Now {
    corp::at(Tick::default())
}

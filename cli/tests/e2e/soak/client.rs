//! One of the many: asks for what only it can know the answer to, and leaves in the worst moments.

use std::io;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::target::Target;
use crate::support::wire::{
    Complaint, Message, Wire, bind, cancel_and_leave, describe_and_execute, frame, parse, query, sync,
};

/// So long nothing may be silent: longer than any queue here.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two attempts to get in.
const RETRY: Duration = Duration::from_millis(50);
const ZONES: [&str; 5] = ["UTC", "Asia/Tokyo", "Europe/Rome", "America/Lima", "Africa/Nairobi"];

/// What all of them have seen.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) answers: u64,
    pub(super) logins: u64,
    /// Connections that ended from the other side, and logins that were refused: while a server is down that is right.
    pub(super) lost: u64,
    pub(super) vanished: u64,
    pub(super) cancelled: u64,
    /// Rows whose COMMIT was confirmed.
    pub(super) committed: u64,
    pub(super) wrong: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.logins += other.logins;
        self.lost += other.lost;
        self.vanished += other.vanished;
        self.cancelled += other.cancelled;
        self.committed += other.committed;
        self.wrong.extend(other.wrong);
    }
}

/// Why a client has to come again.
enum Lost {
    /// The other side has gone, or has said that it goes.
    Gone,
    /// It went itself.
    Vanished,
    /// An answer was not what it had to be.
    Wrong(String),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Wrong("silence".to_owned()),
            _ => Self::Gone,
        }
    }
}

pub(super) struct Client {
    target: Target,
    number: usize,
    asked: u64,
    zone: &'static str,
    dice: Rng,
    /// It cancels its own statements now and then, and nobody else's may be hit.
    cancels: bool,
    tally: Tally,
}

impl Client {
    pub(super) fn new(target: Target, number: usize) -> Self {
        let dice = Rng::with_seed(number as u64);
        let zone = ZONES[number % ZONES.len()];
        Self { target, number, asked: 0, zone, dice, cancels: number % 10 == 3, tally: Tally::default() }
    }

    /// Comes again and again until the time is over.
    pub(super) fn run(mut self, end: Instant) -> Tally {
        while Instant::now() < end {
            let Ok(mut wire) = Wire::try_login(&self.target, &[("application_name", "soak")]) else {
                self.tally.lost += 1;
                std::thread::sleep(RETRY);
                continue;
            };
            self.tally.logins += 1;
            wire.set_patience(PATIENCE);
            let ended = self.stay(&mut wire, end);
            match ended {
                Ok(()) => wire.quit(),
                Err(Lost::Gone) => self.tally.lost += 1,
                Err(Lost::Vanished) => {
                    self.tally.vanished += 1;
                    wire.vanish();
                }
                Err(Lost::Wrong(what)) => self.tally.wrong.push(format!("client {}: {what}", self.number)),
            }
        }
        self.tally
    }

    fn stay(&mut self, wire: &mut Wire, end: Instant) -> Result<(), Lost> {
        self.ask(wire, &query(&format!("set timezone = '{}'", self.zone)), 1)?;
        while Instant::now() < end {
            match self.dice.u8(..24) {
                0..=6 => self.simple(wire)?,
                7..=10 => self.prepared(wire)?,
                11..=13 => self.transaction(wire)?,
                14..=15 => self.pipeline(wire)?,
                16 => self.copy_in(wire)?,
                17 => self.copy_out(wire)?,
                18 => self.settings(wire)?,
                19 => self.error(wire)?,
                20 if self.cancels => self.cancel(wire)?,
                21 if self.dice.u8(..12) == 0 => return self.vanish(wire),
                _ => self.simple(wire)?,
            }
        }
        Ok(())
    }

    /// What nobody else has ever asked for.
    fn unique(&mut self) -> String {
        self.asked += 1;
        format!("c{}-{}", self.number, self.asked)
    }

    fn ask(&mut self, wire: &mut Wire, bytes: &[u8], readies: usize) -> Result<Vec<Message>, Lost> {
        wire.try_send(bytes)?;
        let (mut answers, mut left) = (Vec::new(), readies);
        while left > 0 {
            let message = wire.try_read()?;
            if message.tag == 'E' && message.complaint().severity == "FATAL" {
                return self.told_to_go(&message.complaint());
            }
            left -= usize::from(message.tag == 'Z');
            answers.push(message);
        }
        self.tally.answers += 1;
        Ok(answers)
    }

    fn told_to_go(&self, complaint: &Complaint) -> Result<Vec<Message>, Lost> {
        // Terminated, shut down, crashed, lost: nothing else may end a session here.
        let expected = ["57P01", "57P02", "57P03", "08006", "08003", "08001"].contains(&complaint.code.as_str());
        Err(if expected { Lost::Gone } else { Lost::Wrong(format!("{complaint:?}")) })
    }

    /// One value that must be this one.
    fn expect(&mut self, answers: &[Message], expected: &[String]) -> Result<(), Lost> {
        let rows = answers.iter().filter(|message| message.tag == 'D');
        let rows: Vec<String> = rows.map(|row| row.columns().swap_remove(0).unwrap_or_default()).collect();
        if rows == expected {
            return Ok(());
        }
        let told: Vec<_> = answers.iter().filter(|message| message.tag == 'E').map(Message::complaint).collect();
        if self.cancels && told.iter().any(|complaint| complaint.code == "57014") {
            self.tally.cancelled += 1;
            return Ok(());
        }
        Err(Lost::Wrong(format!("{rows:?} in the place of {expected:?}, {told:?}")))
    }

    fn simple(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let text = self.unique();
        let answers = self.ask(wire, &query(&format!("select '{text}'")), 1)?;
        self.expect(&answers, &[text])
    }

    /// Everybody's statement has the same name, and a text of its own.
    fn prepared(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let text = self.unique();
        let own = format!("select 'c{}-' || $1", self.number);
        let again = [bind("mine", &[&self.asked.to_string()]), describe_and_execute(), sync()].concat();
        let first = self.asked == 1 || self.dice.u8(..3) == 0;
        let bytes = if first { [frame('C', b"Smine\0"), parse("mine", &own), again].concat() } else { again };
        let answers = self.ask(wire, &bytes, 1)?;
        if !first && answers.iter().any(|message| message.tag == 'E' && message.complaint().code == "26000") {
            return Ok(()); // Not prepared on this visit.
        }
        self.expect(&answers, &[text])
    }

    fn transaction(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let (text, kept) = (self.unique(), self.unique());
        self.ask(wire, &query("begin"), 1)?;
        let insert = format!("insert into soak values ('{kept}'); select '{text}'");
        let answers = self.ask(wire, &query(&insert), 1)?;
        self.expect(&answers, &[text])?;
        let ended = self.ask(wire, &query("commit"), 1)?;
        let committed = |message: &Message| message.tag == 'C' && message.body.starts_with(b"COMMIT");
        self.tally.committed += u64::from(ended.iter().any(committed));
        Ok(())
    }

    fn pipeline(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let texts: Vec<String> = (0..3).map(|_| self.unique()).collect();
        let one = |text: &String| [parse("", "select $1::text"), bind("", &[text]), describe_and_execute(), sync()];
        let bytes = texts.iter().flat_map(one).flatten().collect::<Vec<u8>>();
        let answers = self.ask(wire, &bytes, texts.len())?;
        self.expect(&answers, &texts)
    }

    fn copy_in(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let rows: Vec<String> = (0..3).map(|_| self.unique()).collect();
        let data = rows.iter().flat_map(|row| frame('d', format!("{row}\n").as_bytes()));
        let bytes = [query("copy soak from stdin"), data.collect(), frame('c', b"")].concat();
        let answers = self.ask(wire, &bytes, 1)?;
        let copied = answers.iter().any(|message| message.tag == 'C' && message.body == b"COPY 3\0");
        self.tally.committed += if copied { 3 } else { 0 };
        if copied { Ok(()) } else { self.expect(&answers, &["a COPY".to_owned()]) }
    }

    fn copy_out(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let text = self.unique();
        let sql = format!("copy (select '{text}' from generate_series(1, 20)) to stdout");
        let answers = self.ask(wire, &query(&sql), 1)?;
        let line = format!("{text}\n").into_bytes();
        let rows = answers.iter().filter(|message| message.tag == 'd' && message.body == line).count();
        if rows == 20 { Ok(()) } else { self.expect(&answers, &[format!("20 rows, not {rows}")]) }
    }

    fn settings(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let answers = self.ask(wire, &query("show timezone"), 1)?;
        self.expect(&answers, &[self.zone.to_owned()])
    }

    /// A failed transaction that is rolled back: its row must never be seen.
    fn error(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let text = self.unique();
        self.ask(wire, &query(&format!("begin; insert into soak values ('ghost {text}'); select 1/0")), 1)?;
        self.ask(wire, &query("rollback"), 1)?;
        self.simple(wire)
    }

    /// At any time: while it waits, runs, or is done and somebody else has the connection.
    fn cancel(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let text = self.unique();
        let (pid, key) = wire.key.clone();
        let sql =
            if self.dice.bool() { format!("select '{text}' from pg_sleep(0.02)") } else { format!("select '{text}'") };
        wire.try_send(&query(&sql))?;
        cancel_and_leave(&self.target, pid, &key);
        let answers = self.ask(wire, b"", 1)?;
        self.expect(&answers, &[text])
    }

    fn vanish(&mut self, wire: &mut Wire) -> Result<(), Lost> {
        let ghost = format!("ghost {}", self.unique());
        let insert = format!("insert into soak values ('{ghost}')");
        let (bytes, is_answered) = match self.dice.u8(..5) {
            0 => (query(&format!("begin; {insert}")), true),
            1 => ([query("copy soak from stdin"), frame('d', format!("{ghost}\n").as_bytes())].concat(), true),
            2 => ([parse("", &insert), bind("", &[]), describe_and_execute()].concat(), false),
            3 => (query("select repeat('left behind ', 1000) from generate_series(1, 2000)"), true),
            _ => (b"Q\0\0\x01\0select 'half".to_vec(), false),
        };
        wire.try_send(&bytes)?;
        if is_answered && self.dice.bool() {
            wire.try_read()?;
        }
        Err(Lost::Vanished)
    }
}

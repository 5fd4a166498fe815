//! A whole session: both peers, the answers to its actions, closes and time, in any order.
//!
//! Each script runs three times: as it stands, and with every read cut up and early timeouts in between, which must change
//! nothing. Every run is held against what a driver relies on.

mod setting;
mod stage;

use std::time::Duration;

use super::cuts::{Cut, Script};
use crate::fault::{Lost, Refusal, SqlState, Violation};
use crate::session::{Finish, Reply, Side};

use setting::LATE_PLACES;
use stage::{Seen, Stage};

/// Fewer unanswered operations than those at which a client is made to wait: where that happens depends on the cuts.
const MAX_INPUT: usize = 16 * 1024;

/// Two bytes of settings, then steps: a byte that says which, and what it needs.
pub fn session(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(MAX_INPUT)]);
    let (setup, cut) = (script.byte(), Cut::seeded(script.byte()));
    let mut steps = Vec::new();
    while !script.is_over() {
        steps.push(Step::read(&mut script));
    }
    let whole = play(setup, &steps, Cut::Whole);
    // What needs no place passes while a place is waited for, unless the statement behind it was in sight already. And
    // only who sees both at once can tell that there were bytes behind a request for encryption.
    if setup & LATE_PLACES != 0 || whole.saw_injection() {
        return;
    }
    for cut in [Cut::Single, cut] {
        assert_eq!(play(setup, &steps, cut), whole);
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Input(Side, &'a [u8]),
    /// The handshake that is under way ends well; with the right ALPN protocol or not.
    Tls(bool),
    Verified(u8),
    Enrolled,
    Leased(u8),
    Refused(u8),
    Waiting,
    Reserved(bool),
    Close(Side, Lost),
    Drain,
    Kill,
    Time(u8),
}

impl<'a> Step<'a> {
    fn read(script: &mut Script<'a>) -> Self {
        match script.byte() % 24 {
            0..=5 => Self::Input(Side::Client, script.string()),
            6..=10 => Self::Input(Side::Server, script.string()),
            11 => Self::Tls(script.byte() & 1 == 0),
            12 => Self::Verified(script.byte()),
            13 => Self::Enrolled,
            14 => Self::Leased(script.byte()),
            15 => Self::Refused(script.byte()),
            16 => Self::Waiting,
            17 | 18 => Self::Reserved(script.byte() & 1 == 0),
            19 | 20 => {
                let with = script.byte();
                let side = if with & 1 == 0 { Side::Client } else { Side::Server };
                Self::Close(side, if with & 2 == 0 { Lost::Closed } else { Lost::Broken })
            }
            21 => Self::Drain,
            22 => Self::Kill,
            _ => Self::Time(script.byte()),
        }
    }
}

fn play(setup: u8, steps: &[Step<'_>], cut: Cut) -> Seen {
    let mut stage = Stage::new(setup);
    for step in steps {
        match *step {
            Step::Input(side, bytes) => {
                for piece in cut.pieces(bytes) {
                    stage.input(side, piece);
                    if !matches!(cut, Cut::Whole) {
                        stage.early_timeout();
                    }
                }
            }
            Step::Tls(good) => stage.tls(good),
            Step::Verified(how) => stage.verified(how),
            Step::Enrolled => stage.enrolled(),
            Step::Leased(how) => stage.leased(how),
            Step::Refused(how) => stage.reply(refused(how)),
            Step::Waiting => stage.reply(Reply::Waiting(Refusal::new(SqlState::SUCCESS, "still waiting"))),
            Step::Reserved(granted) => stage.vacate(granted),
            Step::Close(side, how) => stage.close(side, how),
            Step::Drain => stage.drain(),
            Step::Kill => stage.kill(Refusal::new(SqlState::ADMIN_SHUTDOWN, "told to go")),
            Step::Time(secs) => stage.pass(Duration::from_secs(secs.into())),
        }
        stage.settle();
    }
    stage.end()
}

fn refused(how: u8) -> Reply {
    let refusal = Refusal::new(SqlState::CANNOT_CONNECT_NOW, "the database system is starting up");
    if how & 1 == 0 {
        return Reply::Refused(refusal);
    }
    let mut message = Vec::new();
    crate::upstream::ServerError::new(b"SFATAL\0C57P03\0Mstarting up\0\0", None).emit(&mut message);
    Reply::RefusedByServer(message.into(), refusal)
}

impl Seen {
    fn saw_injection(&self) -> bool {
        let injected = Violation::PlaintextBehindTlsRequest;
        match &self.finish {
            Some(Finish::Refused(refusal)) => *refusal == injected.into(),
            Some(Finish::Broken(_, violation)) => *violation == injected,
            _ => false,
        }
    }
}

//! The relay's scanner: however its input is cut, it forwards the same, and what whole-message parsing gives.

use std::sync::Arc;

use super::cuts::{Cut, Script};
use crate::audit::{AuditProfile, SessionFacts, Sheet};
use crate::codec::HEADER_LEN;
use crate::codec::backend::split;
use crate::fault::Violation;
use crate::relay::tracker::Tracker;
use crate::relay::{Ledger, Relay, Step};
use crate::session::Side;
use crate::session_id::SessionId;
use crate::time::Now;
use crate::upstream::Parameters;

/// Below the number of operations at which the relay makes a client wait: where that happens depends on the cuts.
const MAX_INPUT: usize = 16 * 1024;

/// Two bytes of settings, then turns: a word with the side (highest bit: server) and length, and so many bytes of it.
pub fn frames(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(MAX_INPUT)]);
    let (setup, seed) = (Setup(script.byte()), script.byte());
    let mut turns = Vec::new();
    while !script.is_over() {
        let word = script.word();
        let side = if word & 0x8000 == 0 { Side::Client } else { Side::Server };
        turns.push((side, script.take(usize::from(word & 0x7fff))));
    }
    let whole = Rig::run(setup, &turns, Cut::Whole);
    assert_eq!(Rig::run(setup, &turns, Cut::Single), whole, "byte by byte");
    assert_eq!(Rig::run(setup, &turns, Cut::seeded(seed)), whole, "in pieces");
    if setup.grants_all() {
        Model::run(&turns).check(&turns, &whole);
    }
}

/// Whether statements are written down, and which of them find no place.
#[derive(Clone, Copy)]
struct Setup(u8);

impl Setup {
    fn ledger(self) -> Option<Box<Ledger>> {
        let statement_bytes = if self.0 & 4 == 0 { 4096 } else { 16 };
        let profile = AuditProfile { statement_bytes, required: self.required() };
        (self.0 & 1 != 0).then(|| Box::new(Ledger::new(profile)))
    }

    const fn required(self) -> bool {
        self.0 & 3 == 3
    }

    const fn grants_all(self) -> bool {
        !self.required() || self.0 >> 4 == 0
    }

    /// Whether there are places for the statements that come with the so-many-th turn.
    const fn grants(self, turn: usize) -> bool {
        self.grants_all() || !turn.is_multiple_of((self.0 >> 4) as usize)
    }
}

/// All that can be seen of a run.
#[derive(PartialEq, Eq, Debug, Default)]
struct Seen {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    dropped: Vec<u8>,
    end: Option<Step>,
    tracker: String,
    quiet: bool,
    leaving: bool,
    changed: Parameters,
    records: Vec<u8>,
    totals: (u64, u64),
}

struct Rig {
    relay: Relay,
    setup: Setup,
    /// What the relay has not let go of: the client's, the server's.
    pending: [Vec<u8>; 2],
    turn: usize,
    /// There was no place: the next statement at the client's front is refused.
    unrecorded: bool,
    facts: Arc<SessionFacts>,
    seen: Seen,
}

impl Rig {
    fn run(setup: Setup, turns: &[(Side, &[u8])], cut: Cut) -> Seen {
        let mut rig = Self {
            relay: Relay::new(setup.ledger(), None),
            setup,
            pending: Default::default(),
            turn: 0,
            unrecorded: false,
            facts: Arc::new(SessionFacts::new(SessionId(1), &Sheet::default())),
            seen: Seen::default(),
        };
        for (side, bytes) in turns {
            rig.turn += 1;
            for piece in cut.pieces(bytes) {
                rig.pending[*side as usize].extend_from_slice(piece);
                rig.judge(*side);
                if *side == Side::Server {
                    rig.judge(Side::Client);
                }
            }
        }
        rig.end()
    }

    fn judge(&mut self, side: Side) {
        while self.seen.end.is_none() && !self.pending[side as usize].is_empty() {
            let bytes = std::mem::take(&mut self.pending[side as usize]);
            let step = match side {
                Side::Client => self.relay.handle_client(&bytes, Now::default()),
                Side::Server => self.relay.handle_server(&bytes, Now::default()),
            };
            let used = match &step {
                Step::SayServer(_) | Step::SayClient(_) | Step::Instead(..) => {
                    unreachable!("a session with one connection is only relayed")
                }
                Step::Forward(n) | Step::Discard(n) => *n,
                Step::Wait | Step::NeedPermit | Step::Terminate | Step::Broken(_) => 0,
            };
            let front = bytes.get(..used).expect("no more than was shown");
            match (&step, side) {
                (Step::Forward(_), Side::Client) => self.seen.to_server.extend_from_slice(front),
                (Step::Forward(_), Side::Server) => self.seen.to_client.extend_from_slice(front),
                (Step::Discard(_), _) => self.seen.dropped.extend_from_slice(front),
                (Step::NeedPermit, _) => self.permit(&bytes),
                (Step::Terminate | Step::Broken(_), _) => self.seen.end = Some(step.clone()),
                (Step::Wait | Step::SayServer(_) | Step::SayClient(_) | Step::Instead(..), _) => {}
            }
            self.pending[side as usize] = bytes[used..].to_vec();
            self.collect();
            if step == Step::Wait {
                return;
            }
            assert!(used > 0 || matches!(step, Step::NeedPermit | Step::Terminate | Step::Broken(_)), "{step:?}");
        }
    }

    fn permit(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.unrecorded) {
            if !self.relay.handle_refused(bytes) {
                self.seen.end = Some(Step::NeedPermit);
            }
        } else if self.setup.grants(self.turn) {
            self.relay.ledger_mut().expect("somebody writes it down").handle_permit();
        } else {
            self.unrecorded = true;
        }
    }

    fn collect(&mut self) {
        if let Some(ledger) = self.relay.ledger_mut() {
            while let Some(outcome) = ledger.poll_outcome() {
                outcome.into_record(&self.facts).write_line(&mut self.seen.records);
            }
        }
    }

    fn end(mut self) -> Seen {
        if let Some(ledger) = self.relay.ledger_mut() {
            ledger.handle_end(Now::default());
            self.seen.totals = ledger.totals();
        }
        self.collect();
        assert_eq!(self.seen.records.is_empty(), !self.seen.records.ends_with(b"\n"));
        Seen {
            tracker: format!("{:?}", self.relay.tracker()),
            quiet: self.relay.is_quiet(),
            leaving: self.relay.server_is_leaving(),
            changed: self.relay.take_changed(),
            ..self.seen
        }
    }
}

/// What a client may send once it is in (PostgreSQL manual, section 54.7), Terminate apart.
const FROM_CLIENT: &[u8] = b"QPBDECSHFdcf";
/// What a server may send once it has let somebody in.
const FROM_SERVER: &[u8] = b"ZCESDdT123ntsIGHcVNA";

/// The same by the book: whole messages are cut out of everything that has come so far.
#[derive(Default)]
struct Model {
    tracker: Tracker,
    streams: [Vec<u8>; 2],
    /// Where the first message begins that is not whole.
    at: [usize; 2],
    /// How much may have been forwarded.
    forwarded: [usize; 2],
    over: bool,
}

impl Model {
    fn run(turns: &[(Side, &[u8])]) -> Self {
        let mut model = Self::default();
        for (side, bytes) in turns {
            model.streams[*side as usize].extend_from_slice(bytes);
            while !model.over && model.message(*side) {}
            if model.over {
                break;
            }
        }
        model
    }

    /// The next message of a side; false when it is not whole, or ends everything.
    fn message(&mut self, side: Side) -> bool {
        let (index, allowed) = match side {
            Side::Client => (0, FROM_CLIENT),
            Side::Server => (1, FROM_SERVER),
        };
        let rest = &self.streams[index][self.at[index]..];
        if self.tracker.is_confused() && self.forwarded[index] <= self.at[index] {
            // When it can no longer be told what came of it, nothing more begins.
            self.over = !rest.is_empty();
            return false;
        }
        self.forwarded[index] = self.forwarded[index].max(self.at[index]);
        let &[tag, a, b, c, d, ..] = rest else { return false };
        let length = u32::from_be_bytes([a, b, c, d]);
        // 0x3fffffff is PostgreSQL's MaxAllocSize.
        if !(4..0x3fff_ffff).contains(&length) || !allowed.contains(&tag) {
            self.over = true;
            return false;
        }
        let Some(message) = rest.get(..length as usize + 1) else {
            // The one byte of a ReadyForQuery is waited for.
            if (side, tag, length) != (Side::Server, b'Z', 5) {
                self.forwarded[index] = self.streams[index].len();
            }
            return false;
        };
        assert_eq!(split(message), Ok(vec![(tag, HEADER_LEN..message.len())]));
        match side {
            Side::Client => drop(self.tracker.handle_frontend(tag)),
            Side::Server => drop(self.tracker.handle_backend(tag, &message[HEADER_LEN..], |_| {})),
        }
        self.at[index] += message.len();
        self.forwarded[index] = self.at[index];
        true
    }

    fn check(&self, turns: &[(Side, &[u8])], seen: &Seen) {
        let sent = |wanted: Side| -> Vec<u8> {
            turns.iter().filter(|(side, _)| *side == wanted).flat_map(|(_, bytes)| bytes.iter().copied()).collect()
        };
        if let Some(Step::Broken(Violation::NameTooLong | Violation::TooManyParameters)) = seen.end {
            // Bounds of the relay's own.
            assert!(sent(Side::Client).starts_with(&seen.to_server) && sent(Side::Server).starts_with(&seen.to_client));
            return;
        }
        assert_eq!(seen.to_server, sent(Side::Client)[..self.forwarded[0]], "to the server");
        assert_eq!(seen.to_client, sent(Side::Server)[..self.forwarded[1]], "to the client");
        assert_eq!(seen.tracker, format!("{:?}", self.tracker));
        assert_eq!(seen.end.is_some(), self.over);
        assert!(seen.dropped.is_empty());
    }
}

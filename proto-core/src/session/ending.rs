//! What ends a session from outside: a lost side, a drain, a cancel while it waits, an operator.

use super::{Action, Finish, Output, Phase, Session, Side};
use crate::fault::{Lost, Refusal, SqlState};
use crate::time::Now;

impl Session {
    /// A side has closed or failed.
    pub fn handle_close(&mut self, side: Side, how: Lost, now: Now) {
        match (&mut self.phase, side) {
            (Phase::Opening(open), _) => {
                let untouched = open.is_untouched();
                self.finish(if untouched { Finish::Untouched } else { Finish::Lost(side, how) }, now);
            }
            (Phase::Proving(_), _) => self.finish(Finish::Lost(side, how), now),
            (Phase::Looking(_), Side::Server) => self.looking_lost(how, now),
            (Phase::Looking(_), Side::Client) => {
                self.stop_looking();
                self.finish(Finish::Lost(side, how), now);
            }
            (Phase::Leasing(_), Side::Client) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.finish(Finish::Lost(side, how), now);
            }
            (Phase::Relaying(_), _) => self.relaying_closed(side, how, now),
            (Phase::Console(_), Side::Client) => self.console_closed(how, now),
            (Phase::Console(_) | Phase::Leasing(_), Side::Server) | (Phase::Closing(_), _) => {}
        }
    }

    /// Its server connection is to be closed as soon as no transaction runs, and nothing else can take its place.
    pub fn handle_stale(&mut self, now: Now) {
        if let Phase::Relaying(relaying) = &mut self.phase {
            relaying.stale = true;
            self.end_if_over(now);
        }
    }

    /// The process is being stopped: what runs may end, nothing new begins.
    pub fn handle_drain(&mut self, now: Now) {
        self.stop_looking();
        match &mut self.phase {
            Phase::Relaying(relaying) => {
                relaying.draining = true;
                self.end_if_over(now);
            }
            Phase::Closing(_) => {}
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(shutting_down(), now);
            }
            // Whoever stops the process may look on, to its end.
            Phase::Console(_) => {}
            // In the middle of a TLS handshake nothing can be said.
            Phase::Opening(open) if open.is_untouched() || open.in_handshake() => self.finish(Finish::Drained, now),
            Phase::Opening(_) | Phase::Proving(_) | Phase::Looking(_) => self.refuse(shutting_down(), now),
        }
    }

    /// Its own cancel key was used. While it waits for a server connection there is nothing to cancel but the wait.
    pub fn handle_cancel(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(wait_cancelled(), now);
            }
            Phase::Relaying(relaying) if relaying.is_waiting() => {
                relaying.handle_cancel();
                self.out.push_back(Output::Do(Action::GiveUp));
            }
            Phase::Console(_) => self.console_cancelled(now),
            _ => {}
        }
    }

    /// The session ends now, whatever it does: the drain's limit has passed, or somebody with the right to said so.
    pub fn handle_kill(&mut self, refusal: Refusal, now: Now) {
        self.stop_looking();
        match &self.phase {
            Phase::Relaying(_) => self.relaying_killed(refusal, now),
            Phase::Console(_) => self.console_killed(refusal, now),
            Phase::Closing(_) => {}
            Phase::Leasing(_) => {
                self.out.push_back(Output::Do(Action::GiveUp));
                self.refuse(refusal, now);
            }
            Phase::Opening(_) | Phase::Proving(_) | Phase::Looking(_) => self.refuse(refusal, now),
        }
    }
}

/// What clients are told when the process is being stopped.
pub(crate) fn shutting_down() -> Refusal {
    Refusal::new(SqlState::CANNOT_CONNECT_NOW, "gprxy is shutting down").hint("Try again in a moment.")
}

pub(super) fn wait_cancelled() -> Refusal {
    let words = "canceling the wait for a server connection due to user request";
    Refusal::new(SqlState::QUERY_CANCELED, words)
}

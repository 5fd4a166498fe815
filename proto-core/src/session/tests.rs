//! Sessions without a socket: every scenario has a client and a server made of bytes, see [`crate::testing::duel`].

mod clocks;
mod contract;
mod drain;
mod gating;
mod leasing;
mod looking;
mod opening;
mod pooling;
mod proving;
mod recording;
mod relaying;

use crate::fault::SqlState;
use crate::session::{Finish, Side};
use crate::testing::duel::Duel;
use crate::testing::wire::{Message, brief, messages};

/// What the client has seen, in words.
fn seen(duel: &mut Duel) -> String {
    brief(&duel.seen())
}

/// The only message that the client has seen, which must be an error.
fn the_error(duel: &mut Duel) -> Message {
    let mut all = messages(&duel.seen());
    assert_eq!(all.len(), 1, "{all:?}");
    let error = all.remove(0);
    assert_eq!(error.tag, b'E', "{error:?}");
    error
}

/// A FATAL error with this SQLSTATE was the only thing that came, and the session ended with it.
fn assert_refused(duel: &mut Duel, code: SqlState) {
    let error = the_error(duel);
    assert_eq!((error.severity().as_str(), error.code().as_str()), ("FATAL", code.as_str()));
    assert!(matches!(&duel.finish, Some(Finish::Refused(refusal)) if refusal.code == code), "{:?}", duel.finish);
}

/// The client broke the protocol: 08P01, and the end.
fn assert_violation(duel: &mut Duel) {
    let error = the_error(duel);
    assert_eq!((error.severity().as_str(), error.code().as_str()), ("FATAL", "08P01"));
    assert!(
        matches!(&duel.finish, Some(Finish::Broken(Side::Client, _)))
            || matches!(&duel.finish, Some(Finish::Refused(refusal)) if refusal.code == SqlState::PROTOCOL_VIOLATION),
        "{:?}",
        duel.finish
    );
}

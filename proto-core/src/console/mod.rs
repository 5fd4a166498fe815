//! The admin console: what a session is that reached no database but gprxy itself.
//!
//! ```text
//!  client's bytes ─▶ Console (protocol.rs) ─▶ Command (command.rs) ─▶ Errand ─▶ driver
//!                       ▲                                                        │
//!                       └── rows of a table (tables/) ◀── Found: a Snapshot ─────┘
//! ```
//! The commands, the tables and their columns are PgBouncer's, so that its users and tools are at home; behind its columns
//! stand ours, of which the most important is who a client is. Unlike PgBouncer's it also speaks the extended protocol, with
//! text and binary results, because many drivers speak no other.
//!
//! Like every machine here it owns no socket and no clock. The driver looks around and does what was said
//! ([`Errand`], [`Found`]); the tables are made here.

mod access;
mod command;
mod courtesy;
mod protocol;
mod refusals;
mod run;
pub mod snapshot;
mod table;
pub mod tables;
mod words;

pub use access::{ConsoleAccess, Standing};
pub use command::{Client, Command, Show, Shutdown, Verb, Which, parse};
pub use courtesy::{Courtesy, Given, SERVER_VERSION};
pub use protocol::{Console, Input, Output, Visitor};
pub use refusals::{no_such_database, not_now};
pub use snapshot::{Setting, Snapshot};
pub use table::{Column, Format, Kind, Value};
pub use words::MAX_TEXT;

use crate::fault::Refusal;

/// What the console wants of its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Errand {
    /// Look around: [`Found::Snapshot`].
    Look(Show),
    /// Do this: [`Found::Done`] when it is done.
    Do(Verb),
}

/// The answer to an [`Errand`].
#[derive(Clone, Debug)]
pub enum Found {
    /// How things are.
    Snapshot(Box<Snapshot>),
    /// It is done.
    Done,
    /// It cannot be done, and why.
    Refused(Refusal),
}

#[cfg(test)]
mod tests;

//! The runtime-neutral pump around the machines: sockets, TLS, wakers, but no executor.
//!
//! A runtime crate implements [`runtime::Runtime`]; [`serve::serve`] does the rest.

pub mod audit_log;
pub mod buffers;
mod cancels;
mod card;
mod chores;
pub mod clock;
mod connection;
mod console;
pub mod control;
mod dial;
pub mod entropy;
mod flow;
pub mod host;
pub mod keys;
pub mod link;
mod mailbox;
mod opening;
pub mod probe;
mod pump;
mod replayed;
mod requests;
mod returns;
pub mod runtime;
pub mod serve;
mod server;
pub mod shared;
mod slow;
mod statistics;
pub mod terms;
pub mod tls;
pub mod tokens;
mod told;
mod turnstile;
mod verifying;

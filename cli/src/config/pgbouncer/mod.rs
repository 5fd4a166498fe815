//! PgBouncer's own configuration, read into the same tables as the TOML file.
//!
//! ```text
//! pgbouncer.ini ── ini ── Assignment ── translate (options: what becomes of each) ── Merged ── the readers of all settings
//!                                                                                       └── convert: as TOML
//! ```
//! What has no counterpart here is named, with its line and what holds instead. Where going on without would let in
//! somebody whom PgBouncer would not, it is a problem, and nothing starts.

mod ini;
mod options;
#[cfg(test)]
mod tests;
mod toml;
mod translate;

pub(crate) use self::options::{default_of, settable};
pub(crate) use self::toml::convert;
pub(super) use translate::read;

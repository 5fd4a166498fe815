//! Bodies of the fuzz targets: each takes any bytes at all, and panics when a law is broken.
//!
//! The targets in `fuzz/` are a line each, so that the bodies are compiled, linted and replayed on stable, and so that
//! other fuzzers can drive them. Most input is a script: a few bytes of settings, then turns of the peers. Nothing here
//! reads a clock or draws randomness: the same bytes always do the same.

mod console;
mod cuts;
mod frames;
pub mod gate;
mod keys;
pub mod login;
pub mod lookup;
mod mask;
mod messages;
pub mod reset;
mod scram;
mod session;
mod startup;
mod statements;
pub mod token;

pub use console::console;
pub use frames::frames;
pub use gate::gate;
pub use keys::keys;
pub use login::login;
pub use lookup::lookup;
pub use mask::mask;
pub use messages::messages;
pub use reset::reset;
pub use scram::scram;
pub use session::session;
pub use startup::startup;
pub use statements::statements;
pub use token::token;

/// A body.
pub type Body = fn(&[u8]);

/// Every body under the name of its target.
pub const TARGETS: [(&str, Body); 15] = [
    ("console", console),
    ("frames", frames),
    ("gate", gate),
    ("keys", keys),
    ("login", login),
    ("lookup", lookup),
    ("mask", mask),
    ("messages", messages),
    ("pool", pool),
    ("reset", reset),
    ("scram", scram),
    ("session", session),
    ("startup", startup),
    ("statements", statements),
    ("token", token),
];

/// The pools beside their reference model: [`crate::pool::law::walk`].
pub fn pool(data: &[u8]) {
    let _ = crate::pool::law::walk(data);
}

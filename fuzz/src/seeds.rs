//! The seeds: one small input for each thing that a body can meet, the published attacks among them.
//!
//! `cargo run -p gprxy-fuzz --bin make-seeds` writes them to `seeds/`; a test compares.

mod client;
mod console;
mod gate;
mod lookup;
mod relay;
mod server;
mod token;
mod words;

/// An input with a name.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target that it is for.
    pub target: &'static str,
    /// The name of its file.
    pub name: &'static str,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Seed> {
    [
        of("console", console::console()),
        of("frames", relay::frames()),
        of("gate", gate::gate()),
        of("keys", token::keys()),
        of("login", server::login()),
        of("lookup", lookup::lookup()),
        of("mask", words::mask()),
        of("messages", relay::messages()),
        of("pool", words::pool()),
        of("reset", server::reset()),
        of("scram", server::scram()),
        of("session", client::session()),
        of("startup", client::startup()),
        of("statements", relay::statements()),
        of("token", token::token()),
    ]
    .concat()
}

/// A name and the bytes.
type Named = (&'static str, Vec<u8>);

fn of(target: &'static str, seeds: Vec<Named>) -> Vec<Seed> {
    seeds.into_iter().map(|(name, data)| Seed { target, name, data }).collect()
}

/// Settings, and bytes behind them.
fn after(settings: &[u8], bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [settings, bytes.as_ref()].concat()
}

/// A string behind its length in two bytes.
fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    // Seeds are small.
    [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()[..], bytes].concat()
}

/// A header that promises more than anybody has.
fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes()].concat()
}

/// Lengths that readers have stumbled over.
const LENGTHS: [(&str, u32); 6] = [
    ("length-zero", 0),
    ("length-below-itself", 3),
    ("length-largest", 0x3fff_fffe),
    ("length-too-large", 0x3fff_ffff),
    ("length-huge", 0x7fff_ffff),
    ("length-negative", 0xffff_ffff),
];

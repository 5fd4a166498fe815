//! Peers, networks and clocks for tests, also for those of other people (feature `testing`).
//!
//! Nothing here opens a socket, reads a clock or draws randomness of its own: a run is a function of its seed.
//!
//! | To test | use |
//! |---|---|
//! | one session, byte by byte | [`duel::Duel`]: scripted client and server, the real [`crate::session::Session`] and pools |
//! | a PostgreSQL client | [`postgres::Backend`]: a scripted server that speaks the real wire format |
//! | the whole proxy | [`world::World`] (feature `driver`): the real driver on virtual sockets and a virtual clock |
//! | a property over many seeds | [`law::check`]: a failing seed is run once more, with its transcript |
//!
//! [`corp`] is the company of all these tests: its identity provider, its people and its roles; [`tokens`] makes keys
//! and tokens of any kind; [`wire`] builds and reads messages; [`logs`] captures what was logged.

#[cfg(feature = "driver")]
pub mod conformance;
pub mod corp;
pub mod dice;
pub mod duel;
pub mod fuzz;
pub mod law;
pub mod logs;
pub mod postgres;
pub mod tokens;
pub mod wire;
#[cfg(feature = "driver")]
pub mod world;

//! Peers, networks and clocks for tests, also for those of other people (feature `testing`).
//!
//! Nothing here opens a socket, reads a clock or draws randomness of its own: a run is a function of its seed.
//!
//! | To test | use |
//! |---|---|
//! | a PostgreSQL client | [`postgres::Backend`]: a scripted server that speaks the real wire format |
//! | one session, byte by byte | [`duel::Duel`]: scripted client and server, the real [`crate::session::Session`] and pools |
//! | the whole proxy | `world::World` (feature `driver`): the real driver on virtual sockets and a virtual clock |
//! | a property over many seeds | [`law::check`] with [`dice::Dice`]: a failing seed is run once more, with its transcript |
//! | a runtime | `conformance` (feature `driver`): what the driver expects of one, over real sockets |
//! | anything with any bytes | [`fuzz`]: a body for each machine, to be called by a fuzzer |
//!
//! [`corp`] is the company of all these tests: its identity provider, its people and its roles; [`tokens`] makes keys
//! and tokens of any kind; [`wire`] builds messages, cuts streams apart and shows them in words; [`logs`] captures what
//! was logged.
//!
//! # A client against a server without a socket
//!
//! A [`postgres::Postgres`] is the server, a [`postgres::Backend`] one connection to it. Whatever carries the bytes is
//! yours: here a variable, in `examples/fake_server.rs` a pipe in memory, below which any client library can be put.
//!
//! ```
//! use gprxy_proto::testing::corp;
//! use gprxy_proto::testing::postgres::{Auth, Backend, Postgres};
//! use gprxy_proto::testing::wire::{brief, front};
//! use gprxy_proto::time::Tick;
//!
//! let now = corp::at(Tick::default());
//! let postgres = Postgres::new(&[("app", b"s3cret")], 1);
//! postgres.set_auth(Auth::Cleartext);
//! let mut backend = Backend::new(&postgres);
//! let mut ask = |bytes: &[u8]| {
//!     backend.handle_input(bytes, now);
//!     brief(&backend.poll_output().unwrap_or_default())
//! };
//!
//! assert_eq!(ask(&front::startup(3 << 16, &[("user", "app")])), "R(3)");
//! assert!(ask(&front::password(b"s3cret")).ends_with("K Z(I)"));
//! assert_eq!(ask(&front::query("begin; rows 2 moved")), "C(BEGIN) T D(moved/0) D(moved/1) C(SELECT 2) Z(T)");
//! assert_eq!(ask(&front::query("fail 40001")), "E(ERROR 40001) Z(E)");
//!
//! let ran: Vec<String> = postgres.journal().into_iter().map(|run| run.text).collect();
//! assert_eq!(ran, ["begin", "rows 2 moved", "fail 40001"]);
//! ```
//!
//! # A session between two peers
//!
//! A [`duel::Duel`] is a [`crate::session::Session`] with everything around it that a driver would bring, and fails the
//! test when the session breaks its contract. With [`duel::Terms::chop`] the same bytes come in other pieces.
//!
//! ```
//! use gprxy_proto::fault::Lost;
//! use gprxy_proto::session::{ReturnState, Side};
//! use gprxy_proto::testing::duel::{Duel, Terms};
//! use gprxy_proto::testing::wire::{brief, front};
//!
//! let mut duel = Duel::logged_in(Terms { chop: Some(7), ..Terms::default() });
//! duel.client(&front::query("begin; rows 1 a"));
//! assert_eq!(brief(&duel.seen()), "C(BEGIN) T D(a/0) C(SELECT 1) Z(T)");
//!
//! // The client vanishes in the middle of its transaction: its connection comes back, to be cleaned.
//! duel.close(Side::Client, Lost::Broken);
//! assert!(matches!(duel.returned[..], [ReturnState::Quiet { touched: true, .. }]));
//! assert_eq!(duel.trail(), ["start", "statement(begin; rows 1 a)=00000", "end(1)"]);
//! ```

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

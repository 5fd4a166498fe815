//! The sans-IO heart of gprxy, an SSO-first PostgreSQL proxy: wire format, login, sessions, pools, cancel and audit as
//! state machines that open no socket, read no clock, draw no randomness and start no thread.
//!
//! There are two facades: a [`session::Session`] for each client, and one [`hub::Hub`] for all of them (pools, cancel keys,
//! issuers' keys). Both are used in the same way, as is every smaller machine inside: `handle_*` takes something in,
//! `poll_output` and `poll_timeout` give something out, and time is always the last argument.
//!
//! ```
//! # use std::sync::Arc;
//! # use gprxy_proto::codec::{backend, frontend, startup};
//! # use gprxy_proto::fault::{Refusal, SqlState};
//! use gprxy_proto::session::{Action, Output, Peer, Profile, Reply, Session, Side, Verdict};
//! # use gprxy_proto::{session_id::SessionId, time::Now};
//! # let now = Now::default();
//! let profile = Arc::new(Profile::default()); // nobody gets in
//! let peer = Peer { address: "127.0.0.1:50000".into(), is_local: true };
//! let mut session = Session::new(SessionId(1), profile, peer, now);
//!
//! // What was read of the client: here a startup packet, and a token that came with it.
//! let mut from_client = Vec::new();
//! startup::emit(&mut from_client, startup::PROTOCOL_3_0, [(&b"user"[..], &b"ann"[..])]);
//! frontend::emit_password(&mut from_client, b"eyJhbGciOiJub25lIn0.e30.");
//! let (mut to_client, mut finish) = (Vec::new(), None);
//!
//! while finish.is_none() {
//!     // 1. Show what has come from a side: all of it, however much or little that is.
//!     let verdict = session.handle_input(Side::Client, &from_client, now);
//!     // 2. Carry out what the session wants, in its order. Answers to actions may come at once, or much later.
//!     while let Some(output) = session.poll_output() {
//!         match output {
//!             Output::Send(_, bytes) => to_client.extend(bytes),
//!             Output::Do(Action::Verify(_token)) => {
//!                 let refusal = Refusal::new(SqlState::INVALID_PASSWORD, "nobody issues tokens here");
//!                 session.handle_reply(Reply::Verified(Err(refusal)), now);
//!             }
//!             Output::Finished(how) => finish = Some(how),
//!             _ => {} // TLS, server connections, audit records
//!         }
//!     }
//!     // 3. Then do with the front of those bytes what the verdict says.
//!     match verdict {
//!         Verdict::Take(n) => drop(from_client.drain(..n)),
//!         Verdict::Forward(n) => drop(from_client.drain(..n)), // and write them to the server
//!         // 4. Sleep until there are more bytes, or an answer, or the session's deadline has come.
//!         Verdict::Wait => assert!(session.poll_timeout().is_some()),
//!     }
//! }
//! let told: Vec<u8> = backend::split(&to_client)?.into_iter().map(|(tag, _)| tag).collect();
//! assert_eq!(told, b"RE"); // "send your password", and an ErrorResponse
//! # Ok::<(), gprxy_proto::fault::Violation>(())
//! ```
//!
//! Any call order is legal. Early, late and repeated timeouts, late and repeated replies, and bytes cut at any place
//! change nothing. A peer's fault never comes back as an `Err`: the session tells the client, gives its server connection
//! back, and finishes. `examples/` has whole programs.
//!
//! # Modules
//!
//! A module knows those below it and its neighbours in its own row, never one above:
//!
//! ```text
//! driver                                  feature "driver": sockets, TLS and wakers of any executor
//! hub       session                       the two facades
//! relay     cancel                        what passes between client and server; cancel keys of our own
//! auth      audit     upstream  preamble  tokens and SCRAM; records; the server's handshakes; the client's first packets
//! policy
//! pool                                    leases, waiters, sizes, lifetimes
//! codec                                   messages, headers, startup packets
//! fault     session_id
//! time      secret    entropy
//! ```
//!
//! # Features
//!
//! None is on by default, and none changes what the others do.
//!
//! - `driver`: the runtime-neutral pump around the machines, with TLS over rustls. An executor joins by implementing
//!   `driver::runtime::Runtime`, as the crates gprxy-tokio and gprxy-smol do.
//! - `testing`: peers, networks, clocks and laws for tests of your own (a PostgreSQL server without a socket among them),
//!   and the bodies of the fuzz targets. With `driver` also a whole proxy on a virtual network, and the suite that every
//!   runtime has to pass.
#![forbid(unsafe_code)]

pub mod audit;
pub mod auth;
pub mod cancel;
pub mod codec;
#[cfg(feature = "driver")]
pub mod driver;
pub mod entropy;
pub mod fault;
pub mod hub;
pub mod policy;
pub mod pool;
pub mod preamble;
pub mod relay;
pub mod secret;
pub mod session;
pub mod session_id;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod upstream;

//! The sans-IO heart of gprxy, an SSO-first PostgreSQL proxy: wire format, login, sessions, pools, cancel and audit as
//! state machines that open no socket, read no clock, draw no randomness and start no thread.
//!
//! There are two facades: a [`session::Session`] for each client, and one [`hub::Hub`] for all of them (pools, cancel keys,
//! issuers' keys). Both are used in the same way, as is every smaller machine inside: `handle_*` takes something in,
//! `poll_output` and `poll_timeout` give something out, and time is always the last argument.
//!
//! # How a session is used
//!
//! Somebody logs in with a token, asks for a row, gets it and leaves. What the peers say is scripted here; a driver
//! would read it from two sockets, and write where this example appends to a `Vec`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use gprxy_proto::auth::jwt;
//! use gprxy_proto::cancel::Registry;
//! use gprxy_proto::pool::{PoolOutput, Pools, Returned};
//! use gprxy_proto::session::{Action, Finish, Leased, Output, Peer, Reply, Session, Side, Verdict};
//! use gprxy_proto::{session_id::SessionId, time::Tick};
//! // An identity provider, its keys and tokens, roles and a database; and messages in short.
//! use gprxy_proto::testing::{corp, dice::Dice, wire::{back, brief, front}};
//!
//! // Both clocks, read once for each wake-up.
//! let mut now = corp::at(Tick::default());
//! // What sessions share; in a process of many sessions a `Hub` has them.
//! let (keys, mut pools, mut cancels) = (corp::keys(now), Pools::new(), Registry::new());
//! let peer = Peer { address: "127.0.0.1:50000".into(), is_local: true, uid: None };
//! let mut session = Session::new(SessionId(1), Arc::new(corp::profile()), peer, now);
//!
//! let mut script = [
//!     (Side::Client, front::startup(3 << 16, &[("user", "ann@corp.example"), ("database", corp::DATABASE)])),
//!     (Side::Client, front::password(&corp::token("ann", &["reader"], now))),
//!     (Side::Client, front::query("select 1")),
//!     (Side::Server, [back::row_description(), back::row(b"1")].concat()),
//!     (Side::Server, [back::complete("SELECT 1"), back::ready(b'I')].concat()),
//!     (Side::Client, front::terminate()),
//! ]
//! .into_iter();
//!
//! // What has come from each side and is not used yet; what has gone to each.
//! let (mut come, mut gone) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
//! let finish = 'session: loop {
//!     let mut waits = true;
//!     for side in [Side::Server, Side::Client] {
//!         // 1. Show all that has come from a side, however much or little it is.
//!         let front = &mut come[side as usize];
//!         let verdict = session.handle_input(side, front, now);
//!
//!         // 2. Carry out what the session wants, in its order.
//!         while let Some(output) = session.poll_output() {
//!             match output {
//!                 Output::Send(side, bytes) => gone[side as usize].extend(bytes),
//!                 // 3. Answer its actions: at once as here, or much later.
//!                 Output::Do(Action::Verify(token)) => {
//!                     let verified = match keys.keyring().verify(token.expose(), now) {
//!                         jwt::Verdict::Proven(who) => Ok(who),
//!                         jwt::Verdict::Refused(refusal) => Err(refusal),
//!                         jwt::Verdict::NeedsKey(issuer) => Err(keys.keyring().without_key(issuer)),
//!                     };
//!                     session.handle_reply(Reply::Verified(verified), now);
//!                 }
//!                 Output::Do(Action::Lease(wish)) => {
//!                     let key = cancels.enroll(session.id(), wish.wide_key, &mut Dice::new(1));
//!                     session.handle_reply(Reply::Enrolled(key), now);
//!                     pools.handle_request(wish.request(session.id()), now);
//!                     let Some(PoolOutput::Granted { lease, .. }) = pools.poll_output() else { panic!("no room") };
//!                     // Here a driver connects, and logs in with an `upstream::Login`.
//!                     pools.handle_opened(&lease, now);
//!                     let leased = Leased::new(lease, Vec::new(), None);
//!                     session.handle_reply(Reply::Leased(leased), now);
//!                 }
//!                 Output::Do(Action::Release(back)) => pools.handle_release(back.lease, Returned::Broken, now),
//!                 Output::Finished(how) => break 'session how,
//!                 _ => {} // TLS, the audit trail, cancel requests
//!             }
//!         }
//!
//!         // 4. Then do with the front of those bytes what the verdict says.
//!         match verdict {
//!             Verdict::Forward(n) => gone[side.other() as usize].extend(front.drain(..n)),
//!             Verdict::Take(n) => drop(front.drain(..n)),
//!             Verdict::Wait => continue, // until there is more behind them, or a reply
//!         }
//!         waits = false;
//!     }
//!     // 5. When both sides wait, sleep: until more has come, or the session's deadline.
//!     if waits {
//!         match script.next() {
//!             Some((side, bytes)) => come[side as usize].extend(bytes),
//!             None => {
//!                 now = corp::at(session.poll_timeout().expect("it has one, or waits for a peer").at);
//!                 session.handle_timeout(now);
//!             }
//!         }
//!     }
//! };
//!
//! assert_eq!(finish, Finish::Terminated);
//! assert_eq!(brief(&gone[1]), "Q(select 1)");
//! // Password wanted, then granted; a cancel key, and ready; the row.
//! assert_eq!(brief(&gone[0]), "R(3) R(0) K Z(I) T D(1) C(SELECT 1) Z(I)");
//! ```
//!
//! Any call order is legal. Early, late and repeated timeouts, late and repeated replies, and bytes cut at any place
//! change nothing. A peer's fault never comes back as an `Err`: the session tells the client, gives its server connection
//! back, and finishes. `examples/` has whole programs: a server for tests, a proxy on blocking sockets, property tests, and
//! a runtime beside tokio and smol.
//!
//! # Modules
//!
//! A module knows those below it and its neighbours in its own row, never one above:
//!
//! ```text
//! driver                                  feature "driver": sockets, TLS and wakers of any executor
//! hub       session                       the two facades
//! relay     cancel    console             what passes between client and server; cancel keys of our own; the admin console
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
//! None is on by default, and none changes what the others do. Without any, the crate depends on no executor, no socket
//! and no TLS library.
//!
//! | feature | adds |
//! |---|---|
//! | `driver` | the runtime-neutral pump around the machines, with TLS over rustls. An executor joins by implementing `driver::runtime::Runtime`, and `driver::host::Host` to serve a whole process, as gprxy-tokio and gprxy-smol do |
//! | `testing` | peers, networks, clocks and laws for tests of your own (a PostgreSQL server without a socket among them), and the bodies of the fuzz targets. With `driver` also a whole proxy on a virtual network, and the suite that every runtime has to pass |
//!
//! # What is stable
//!
//! The version is 0.x: a minor version may break callers, a patch version does not. The verbs of the machines and the
//! order in which they are called are meant to stay.
//!
//! Enums that may grow are `#[non_exhaustive]`, and so are structs that are only read: leave a branch for what is not
//! known yet, and do nothing in it. Some enums are complete on purpose, so that the compiler tells whoever must handle a
//! new case: what a verdict says, where a server may listen, which signals count. Structs of settings gain fields with
//! minor versions: who makes one of its `Default` or its constructor, with `..`, needs no change.
//!
//! Texts of errors may change at any time, their SQLSTATEs only with a minor version. In `testing` a seed need not give
//! the same run in another version. No type of an executor is part of any signature; the types of rustls, futures-io and
//! ureq are part of the driver's.
#![forbid(unsafe_code)]

pub mod audit;
pub mod auth;
pub mod cancel;
pub mod codec;
pub mod console;
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

//! Laws of the whole proxy over many seeds: the real driver, sessions and hub on virtual sockets and a virtual clock.
//!
//! `GPRXY_SEEDS=4711` runs one seed of each, `GPRXY_SEEDS=0..1000000` soaks.
#![allow(missing_docs)]

mod audit;
mod console;
mod crowd;
mod encrypted;
mod endings;
mod isolation;
mod limits;
mod lookups;
mod neighbours;
mod pools;
mod providers;
mod secrets;
mod session;
mod visitor;

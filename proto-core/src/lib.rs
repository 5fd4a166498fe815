//! The sans-IO heart of gprxy.
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

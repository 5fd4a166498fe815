//! The runtime-neutral pump around the machines.

pub mod audit_log;

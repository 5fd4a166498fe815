//! Tables of things that do not exist here: SHOW DNS_HOSTS, DNS_ZONES, FDS.
//!
//! Names are looked up by the system, and descriptors are not handed to another process.

use super::Columns;
use crate::console::table::Kind;

pub(super) const DNS_HOSTS: Columns = &[("hostname", Kind::Text), ("ttl", Kind::Int8), ("addrs", Kind::Text)];

pub(super) const DNS_ZONES: Columns = &[("zonename", Kind::Text), ("serial", Kind::Int8), ("count", Kind::Int4)];

pub(super) const FDS: Columns = &[
    ("fd", Kind::Int4),
    ("task", Kind::Text),
    ("user", Kind::Text),
    ("database", Kind::Text),
    ("addr", Kind::Text),
    ("port", Kind::Int4),
    ("cancel", Kind::Int8),
    ("link", Kind::Int4),
    ("client_encoding", Kind::Text),
    ("std_strings", Kind::Text),
    ("datestyle", Kind::Text),
    ("timezone", Kind::Text),
    ("password", Kind::Text),
    ("scram_client_key", Kind::Bytea),
    ("scram_server_key", Kind::Bytea),
];

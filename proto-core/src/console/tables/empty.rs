//! Tables of things that do not exist here: SHOW DNS_HOSTS, DNS_ZONES, PEERS, PEER_POOLS, FDS.
//!
//! Names are looked up by the system, cancel keys are shared with nobody, and descriptors are not handed to another process.

use super::Columns;
use crate::console::table::Kind;

pub(super) const DNS_HOSTS: Columns = &[("hostname", Kind::Text), ("ttl", Kind::Int8), ("addrs", Kind::Text)];

pub(super) const DNS_ZONES: Columns = &[("zonename", Kind::Text), ("serial", Kind::Int8), ("count", Kind::Int4)];

pub(super) const PEERS: Columns =
    &[("peer_id", Kind::Int4), ("host", Kind::Text), ("port", Kind::Int4), ("pool_size", Kind::Int4)];

pub(super) const PEER_POOLS: Columns = &[
    ("peer_id", Kind::Int4),
    ("cl_active_cancel_req", Kind::Int4),
    ("cl_waiting_cancel_req", Kind::Int4),
    ("sv_active_cancel", Kind::Int4),
    ("sv_login", Kind::Int4),
];

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

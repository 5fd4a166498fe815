//! SHOW PEERS and SHOW PEER_POOLS: where cancel requests are passed on to, and how many are on their way.

use super::Columns;
use crate::console::snapshot::PeerFacts;
use crate::console::table::{Kind, Value};

pub(super) const COLUMNS: Columns =
    &[("peer_id", Kind::Int4), ("host", Kind::Text), ("port", Kind::Int4), ("pool_size", Kind::Int4)];

pub(super) const POOLS: Columns = &[
    ("peer_id", Kind::Int4),
    ("cl_active_cancel_req", Kind::Int4),
    ("cl_waiting_cancel_req", Kind::Int4),
    ("sv_active_cancel", Kind::Int4),
    ("sv_login", Kind::Int4),
];

pub(super) fn row(it: &PeerFacts) -> Vec<Value> {
    vec![Value::count(it.id), Value::text(&*it.host), Value::count(it.port), Value::count(it.pool_size)]
}

/// Each request has a connection of its own: while that is being opened, its client waits.
pub(super) fn pool(it: &PeerFacts) -> Vec<Value> {
    let (sent, connecting) = (|| Value::count(it.sent), || Value::count(it.connecting));
    vec![Value::count(it.id), sent(), connecting(), sent(), connecting()]
}
